"""What a detector keeps of each normal image while they pass by: little, whatever their number and size.

The tokens of a tiled photo, or of many turned copies, would fill the memory of a computer. A `Condensing` detector
therefore turns each batch into entries of its dictionary at once and thins those: every image by itself, so that the
dictionary of all but one, which `dictas.thresholds` asks for, is joined from what is there. Of k images each may
keep ``SPARE * limit / k`` entries, ``limit`` at most; what is joined is thinned to ``limit`` again. Up to `SPARE`
images are therefore thinned on their own only if one alone is too much for the dictionary, and of what is joined no
place is farther from an entry than the sum of both thinnings, each of which is within twice its best.
"""

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from dictas.detector import Batch, Detector

SPARE = 4
"""How many times the entries of a dictionary may wait to be thinned."""

Entries = list[tuple[Tensor, Tensor]]
"""Per lookup of a detector its keys [M, key_dim] and values [M, value_dim]."""


@runtime_checkable
class Condensing(Protocol):
    """A detector whose memory of normal images is a dictionary that can be put together from parts."""

    @property
    def limit(self) -> int:
        """The most entries per lookup; 0: all."""
        ...

    def entries(self, support: Sequence[Batch]) -> Entries:
        """The dictionary of some images, with everything in it."""
        ...

    def joined(self, parts: Sequence[Entries], limit: int) -> Entries:
        """One dictionary of several, thinned out to ``limit`` entries per lookup (0: not at all)."""
        ...

    def remember_entries(self, entries: Entries) -> None:
        """Forget what was normal before; from now on it is this dictionary."""
        ...


class Memory:
    """What one detector keeps of some images; batches of others than `Condensing` ones are kept as they are.

    Args:
        images: how many will be shown.
    """

    def __init__(self, detector: Detector, images: int) -> None:
        self._detector = detector
        self._batches: list[list[Batch]] = []
        self._entries: list[Entries] = []
        self._seen: list[Batch] = []
        self._parts: list[Entries] = []
        self._limit = 0
        if isinstance(detector, Condensing) and detector.limit:
            self._limit = min(detector.limit, math.ceil(SPARE * detector.limit / images))

    @property
    def images(self) -> int:
        """How many images it knows."""
        return max(len(self._entries), len(self._batches))

    @property
    def condenses(self) -> bool:
        """Whether batches are not kept."""
        return isinstance(self._detector, Condensing)

    @torch.inference_mode()
    def add(self, batch: Batch) -> None:
        """Take in an image, or the next part of one."""
        if not isinstance(self._detector, Condensing):
            self._seen.append(batch)
            return
        self._parts.append(self._detector.entries([batch]))
        if self._limit and _count(self._parts) > SPARE * self._detector.limit:
            self._parts = [self._detector.joined(self._parts, self._limit)]

    @torch.inference_mode()
    def finish(self) -> None:
        """What comes now is another image."""
        if isinstance(self._detector, Condensing):
            self._entries.append(self._detector.joined(self._parts, self._limit))
        else:
            self._batches.append(self._seen)
        self._parts, self._seen = [], []

    @torch.inference_mode()
    def recall(self, without: int | None = None) -> None:
        """Let the detector remember all images, or all but one: ``without`` is its place."""
        chosen = [place for place in range(self.images) if place != without]
        if isinstance(self._detector, Condensing):
            parts = [self._entries[place] for place in chosen]
            self._detector.remember_entries(self._detector.joined(parts, self._detector.limit))
        else:
            self._detector.remember([batch for place in chosen for batch in self._batches[place]])


def _count(parts: Sequence[Entries]) -> int:
    """Entries of the largest lookup; all have as many."""
    return max(sum(len(keys) for keys, _ in lookup) for lookup in zip(*parts, strict=True))
