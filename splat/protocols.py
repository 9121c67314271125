"""How a benchmark turns relevancy into scores: which labels it has, and what it does with maps and masks.

LERF_OVS, 3D-OVS and Mip-NeRF 360 (labels of GAGS) are scored as LangSplatV2 does it in ``eval_lerf.py``,
``eval_3d_ovs.py`` and ``eval_mip_nerf360.py``; 3D-OVS a second time as its authors score, with classes competing for
pixels. docs/evaluation.md lists the rules and where we differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from encoders.errors import InputError
from splat.labels import Labels
from splat.lerf_labels import read_labels
from splat.ovs_labels import CLASSES, read_masks
from splat.relevancy import PEAK, THRESHOLD, LevelRule

MARKER = "protocol.txt"
"""File among the labels that holds the name of their protocol, where the labels themselves do not tell."""


@dataclass(frozen=True)
class Protocol:
    """What is done with the relevancy of a phrase, and which scores come of it.

    Attributes:
        name: as ``--protocol`` and `MARKER` have it.
        threshold: of masks, on the normalised relevancy.
        levels: which level answers.
        united: phrases asked for beside a category; a pixel that either selects is selected.
        compete: whether classes are also scored against each other, pixel by pixel.
    """

    name: str
    threshold: float = THRESHOLD
    levels: LevelRule = PEAK
    united: Mapping[str, str] = field(default_factory=dict)
    compete: bool = False


LERF = Protocol("lerf")
MIPNERF360 = Protocol("mipnerf360", levels=LevelRule(inside=True))
OVS3D = Protocol(
    "3d-ovs",
    threshold=0.25,
    levels=LevelRule(inside=True, first=1),
    # The script does it in the scene "room", the only one with this class.
    united={"wood wall": "wood table"},
    compete=True,
)
PROTOCOLS = {protocol.name: protocol for protocol in (LERF, OVS3D, MIPNERF360)}


@dataclass(frozen=True)
class Benchmark:
    """A folder of labels, per view, and how answers are scored against them."""

    labels: Sequence[Labels]
    protocol: Protocol = LERF


def protocol_called(name: str, source: str = "--protocol") -> Protocol:
    """The protocol of that name.

    Args:
        source: who says so, for the message.

    Raises:
        InputError: there is none.
    """
    if name not in PROTOCOLS:
        raise InputError(f"{source} asks for the protocol {name[:40]!r}; there are {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


def read_benchmark(folder: Path, protocol: str | None = None) -> Benchmark:
    """Read a folder of labels: 3D-OVS' ``segmentations``, or a JSON file per view.

    Args:
        protocol: its name; None takes 3D-OVS' for folders with ``classes.txt``, else the one that `MARKER` in the
            folder names, else LERF's.

    Raises:
        InputError: the folder is missing, empty or damaged, has no labels of that kind, or there is no such protocol.
    """
    if protocol is not None:
        chosen = protocol_called(protocol)
    elif (folder / CLASSES).is_file():
        chosen = OVS3D
    else:
        chosen = _marked(folder / MARKER)
    return Benchmark(read_masks(folder) if chosen is OVS3D else read_labels(folder), chosen)


def _marked(path: Path) -> Protocol:
    if not path.is_file():
        return LERF
    try:
        return protocol_called(path.read_text(encoding="utf-8-sig").strip(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); it should hold the name of a protocol.") from error


class Competition:
    """Classes against each other: every pixel goes to the class with the highest relevancy there (3D-OVS).

    These are the numbers of ``evaluation_segmentation_test`` in the authors' ``renderer.py``: the Jaccard index per
    class and the accuracy over all pixels, labelled or not, then means over a view and over views. Where nothing is
    labelled every class is wrong. `add` views, then read ``miou`` and ``accuracy``.
    """

    def __init__(self) -> None:
        self._ious: list[float] = []
        self._accuracies: list[float] = []

    def add(self, relevancy: np.ndarray, truth: np.ndarray) -> None:
        """Score one view.

        Args:
            relevancy: of every class. float [classes, H, W]
            truth: where every class is. bool [classes, H, W]; a class that is nowhere has no index to average.
        """
        winner = relevancy.argmax(axis=0)
        ious = []
        for number, where in enumerate(truth):
            won = winner == number
            if where.any():
                ious.append(float((won & where).sum() / (won | where).sum()))
        if not ious:
            return
        # A pixel is right if its labels are the winner and no other.
        right = np.take_along_axis(truth, winner[None], axis=0)[0] & (truth.sum(axis=0) == 1)
        self._ious.append(float(np.mean(ious)))
        self._accuracies.append(float(right.mean()))

    @property
    def miou(self) -> float:
        """Mean over views of the mean over the classes in a view."""
        return float(np.mean(self._ious)) if self._ious else 0.0

    @property
    def accuracy(self) -> float:
        """Share of pixels that go to the one class they are labelled with, mean over views."""
        return float(np.mean(self._accuracies)) if self._accuracies else 0.0
