"""From which value on a pixel, or an image, counts as anomalous.

*From normal images.* Every support image is judged with the others as dictionary; its score is what a good part gets.
Pixels are held to the limit of scores: a score is a mean of pixels, so an image that exceeds it has some that do, and
its mask says where. Few scores do not tell how rare high ones are, so a distribution is assumed: logarithms of
normal scores are normal, and their spread is like `SPREAD` unless the scores say otherwise (a scaled
inverse-chi-squared prior worth `PRIOR` observations). The limit is
the quantile of the *predictive* distribution, Student's t: the chance that the next good image, from the same camera,
light and production, exceeds it is the stated false-alarm rate, the uncertainty of few scores included. With 1 to 4
images that makes limits wide; they tighten with every image.

A single support image cannot be left out. It is judged against itself, mirrored, slightly turned, moved, brighter and
darker, and the highest of these scores is taken for one observation. How much higher or lower other good parts score
it cannot tell; that uncertainty, `CHANGED_SPREAD`, is added, and makes the limit two to three times that score.

The numbers come from classes that `dictas.procedural` draws: spread 0.15 in the median, 0.06 to 0.47 for nine in ten.
`benchmarks/false_alarms.py` measures what becomes of them with the shipped detector: of 16 classes' good images 2.5 %
exceed the limit for 1 % with four support images, 3.1 % with two, 3.8 % with one (6, 6 and 12 % that for 5 %). Good
parts that vary in a way that no support image shows raise them.

*From labels.* The values with the best F1 over all labelled pixels, and over all labelled images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from dictas.detector import Backbone, Detector
from dictas.memory import Memory
from dictas.support import Image, turned
from dictas.tiles import Judgement, Tiling, judge_image
from encoders.errors import InputError
from encoders.progress import Report, silent

SPREAD = 0.15
"""Standard deviation of the logarithm of normal images' scores that is expected beforehand."""
PRIOR = 4.0
"""How many observations this expectation is worth."""
CHANGED_SPREAD = 0.35
"""Standard deviation of the logarithm of other good images' scores over the highest of changed copies'."""
LEVELS = 65535
"""Maps are compared in steps of 1 / LEVELS, those of a 16-bit picture."""

ROUNDING = 1e-4
"""Share by which the score of one image may change with what is judged beside it."""

Method = Literal["leave-one-out", "augmentation", "fixed", "f1"]


@dataclass(frozen=True)
class Threshold:
    """Limits, and where they come from.

    Attributes:
        pixel: a pixel of a map is anomalous from this value on, 0..1.
        image: so is an image from this score on.
        method: ``leave-one-out`` or ``augmentation`` (support images), ``fixed`` (given) or ``f1`` (labels).
        false_alarms: expected share of good images that exceed ``image``; None if that was not what was asked.
        samples: the scores it was computed from: of normal images, or of labelled ones.
        f1: the F1 reached on labelled pixels, None without labels.
    """

    pixel: float
    image: float
    method: Method
    false_alarms: float | None = None
    samples: tuple[float, ...] = ()
    f1: float | None = None


def fixed(value: float) -> Threshold:
    """The threshold that the user gave."""
    if not 0.0 <= value <= 1.0:
        raise InputError(f"--threshold is {value}; give a number from 0 to 1.")
    return Threshold(value, value, "fixed")


def normal_limit(scores: Sequence[float], false_alarms: float, doubt: float = 0.0) -> float:
    """The value that the next normal score exceeds with probability ``false_alarms``; see the module. At most 1.

    Args:
        doubt: standard deviation of a further error of the scores' mean logarithm.
    """
    logs = np.log(np.maximum(np.asarray(scores, np.float64), 1e-6))
    freedom = PRIOR + len(logs) - 1
    variance = (PRIOR * SPREAD**2 + np.sum((logs - logs.mean()) ** 2)) / freedom
    among = float(stdtrit(freedom, 1 - false_alarms)) * np.sqrt(variance * (1 + 1 / len(logs)))
    return float(min(np.exp(logs.mean() + np.hypot(among, float(ndtri(1 - false_alarms)) * doubt)), 1.0))


def from_support(
    backbone: Backbone,
    detector: Detector,
    images: Sequence[Image],
    memory: Memory,
    false_alarms: float,
    tiling: Tiling | None,
    size: int,
    report: Report = silent,
) -> Threshold:
    """Judge support images as if they were unknown; afterwards the detector has to be told what is normal again.

    Args:
        images: the support images. memory: what the detector keeps of each, see `Support.memory`.
        false_alarms: share of good images that may be flagged, 0..0.5.
        size: tiles at a time.
    """
    check_rate(false_alarms)

    scores: list[float] = []

    def judge(image: Image) -> None:
        scores.append(judge_image(backbone, detector, image, tiling, size).score)

    if len(images) == 1:
        memory.recall()
        for number, change in enumerate(CHANGES):
            judge(change(images[0]))
            report(number + 1, len(CHANGES), "judging changed copies of the support image")
        limit = normal_limit([max(scores)], false_alarms, CHANGED_SPREAD)
        return Threshold(limit, limit, "augmentation", false_alarms, tuple(scores))
    for number, image in enumerate(images):
        memory.recall(without=number)
        judge(image)
        report(number + 1, len(images), "judging each support image by the others")
    limit = normal_limit(scores, false_alarms)
    return Threshold(limit, limit, "leave-one-out", false_alarms, tuple(scores))


def check_rate(false_alarms: float) -> None:
    """Refuse rates that mean nothing."""
    if not 0.0 < false_alarms <= 0.5:
        raise InputError(f"--false-alarms is {false_alarms}; give a share above 0, up to 0.5, for example 0.01.")


def _moved(image: Image) -> Image:
    shift = np.array([[1, 0, image.shape[1] * 0.03], [0, 1, image.shape[0] * 0.03]], np.float32)
    moved = cv2.warpAffine(image, shift, (image.shape[1], image.shape[0]), borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(moved, np.uint8)


def _lit(image: Image, gain: float) -> Image:
    return np.asarray(cv2.convertScaleAbs(image, alpha=gain), np.uint8)


CHANGES: tuple[Callable[[Image], Image], ...] = (
    lambda image: np.ascontiguousarray(image[:, ::-1]),
    lambda image: turned(image, 4.0),
    lambda image: turned(image, -4.0),
    _moved,
    lambda image: _lit(image, 0.9),
    lambda image: _lit(image, 1.1),
)
"""What may be different about the next good part when only one is known."""


class LabelledMaps:
    """Counts the pixels of labelled maps by value, to find the F1-best threshold without keeping the maps."""

    def __init__(self) -> None:
        self._counts = np.zeros((2, LEVELS + 1), np.int64)
        self._scores: list[float] = []
        self._labels: list[bool] = []

    def add(self, found: Judgement, mask: NDArray[np.bool_]) -> None:
        """Add what was found in an image, and its truth bool [H, W]."""
        levels = np.clip(found.map * LEVELS, 0, LEVELS).astype(np.int64)
        for row, pixels in enumerate((levels[~mask], levels[mask])):
            self._counts[row] += np.bincount(pixels, minlength=LEVELS + 1)
        self._scores.append(found.score)
        self._labels.append(bool(mask.any()))

    def best(self) -> Threshold:
        """The thresholds with the best F1. If all labelled images are anomalous, just below the lowest of their scores.

        Raises:
            InputError: no pixel was labelled anomalous.
        """
        normal, anomalous = (counts[::-1].cumsum()[::-1] for counts in self._counts)
        if not anomalous[0]:
            raise InputError("The masks mark no pixel, so no threshold follows from them; leave --masks out.")
        f1 = 2 * anomalous / (anomalous[0] + anomalous + normal)
        level = int(LEVELS - np.argmax(f1[::-1]))
        pixel = level / LEVELS
        if all(self._labels):
            # Judged in another batch, the image with this score may score a rounding error less.
            image = min(self._scores) * (1 - ROUNDING)
        else:
            image = _best_score(np.array(self._scores), np.array(self._labels))
        return Threshold(pixel, image, "f1", samples=tuple(self._scores), f1=float(f1[level]))


def _best_score(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """Halfway between the lowest score that should be flagged for the best F1 and the next one below it."""
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], labels[order].cumsum()
    last = np.append(ranked[1:] != ranked[:-1], True)  # a threshold cannot part equal scores
    f1 = np.where(last, 2 * hits / (labels.sum() + np.arange(1, len(scores) + 1)), -1.0)
    place = int(np.argmax(f1))
    below = ranked[place + 1] if place + 1 < len(ranked) else 0.0
    return float((ranked[place] + below) / 2)
