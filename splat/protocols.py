"""How a benchmark turns relevancy into scores: which labels it has, and what it does with a threshold.

- LERF_OVS and Mip-NeRF 360 (with the labels of GAGS): a JSON per view; masks at a threshold of 0.4 and points, per
  category that is labelled in a view.
- 3D-OVS: masks of every class; at a threshold of 0.25 (``eval_3d_ovs.sh`` of LangSplatV2), and, as its authors score,
  with every labelled pixel given to the class that is most relevant there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from splat.lerf_labels import read_labels
from splat.ovs_labels import CLASSES, read_masks
from splat.relevancy import THRESHOLD


class Labels(Protocol):
    """What one view shows, in whatever form it is written down."""

    @property
    def name(self) -> str:
        """Of the view."""

    @property
    def categories(self) -> list[str]:
        """What is asked for in this view."""

    def mask(self, category: str, width: int, height: int) -> np.ndarray:
        """Where a category is: bool [H, W]."""

    def boxes(self, category: str, width: int, height: int) -> np.ndarray:
        """Boxes (x0, y0, x1, y1) of its pieces, ends included: float64 [B, 4]."""


@dataclass(frozen=True)
class Benchmark:
    """A folder of labels and how answers are scored against them.

    Attributes:
        labels: per view.
        threshold: of masks, on the normalised relevancy.
        compete: whether classes are also scored against each other, pixel by pixel.
    """

    labels: Sequence[Labels]
    threshold: float = THRESHOLD
    compete: bool = False


def read_benchmark(folder: Path) -> Benchmark:
    """Recognise and read a folder of labels: 3D-OVS' ``segmentations``, or JSON files.

    Raises:
        InputError: it is missing, empty or damaged.
    """
    if (folder / CLASSES).is_file():
        return Benchmark(read_masks(folder), threshold=0.25, compete=True)
    return Benchmark(read_labels(folder))


class Competition:
    """Classes against each other: a labelled pixel goes to the class with the highest relevancy there (3D-OVS).

    `add` views, then read ``miou`` and ``accuracy``.
    """

    def __init__(self) -> None:
        self._ious: list[float] = []
        self._right = self._labelled = 0

    def add(self, relevancy: np.ndarray, truth: np.ndarray) -> None:
        """Score one view.

        Args:
            relevancy: of every class. float [classes, H, W]
            truth: where every class is. bool [classes, H, W]; pixels of none are left out.
        """
        labelled = truth.any(axis=0)
        winner = relevancy.argmax(axis=0)
        for number, where in enumerate(truth):
            if not where.any():
                continue
            won = (winner == number) & labelled
            self._ious.append(float((won & where).sum() / (won | where).sum()))
        self._right += int(np.take_along_axis(truth, winner[None], axis=0)[0][labelled].sum())
        self._labelled += int(labelled.sum())

    @property
    def miou(self) -> float:
        """Mean over all pairs of a view and a class in it."""
        return float(np.mean(self._ious)) if self._ious else 0.0

    @property
    def accuracy(self) -> float:
        """Share of labelled pixels that go to a class they have."""
        return self._right / max(self._labelled, 1)
