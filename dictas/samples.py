"""What an inspection data set consists of, whatever its folders look like."""

from dataclasses import dataclass
from pathlib import Path

GOOD = "good"
"""The kind of samples that have no defect."""


@dataclass(frozen=True)
class Sample:
    """A test image and what is known about it.

    Attributes:
        kind: `GOOD`, or what is wrong with it: "crack", "bent_wire".
        mask: picture of where the defect is; None for good samples and where nobody has drawn it.
    """

    path: Path
    kind: str
    mask: Path | None

    @property
    def anomalous(self) -> bool:
        """Whether the image shows a defect."""
        return self.kind != GOOD


@dataclass(frozen=True)
class InspectionClass:
    """One kind of part: normal images to learn from and test images to judge.

    Attributes:
        normal: images without defects that support images are drawn from, in order.
        test: samples in order of their kind, then of their name.
        fixed: lists of support images that came with the data set, see `dictas.datasets.draw_support`.
    """

    name: str
    normal: tuple[Path, ...]
    test: tuple[Sample, ...]
    fixed: tuple[tuple[Path, ...], ...] = ()
