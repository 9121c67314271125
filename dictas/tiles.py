"""Large images in overlapping tiles: each is judged at its own size, their maps are blended into one."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dictas.detector import Backbone, Batch, Detector, image_score, pixel_map
from encoders.errors import InputError

SMALLEST = 32
"""Pixels; smaller tiles show the model nothing it could recognise."""

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Tiling:
    """How images are cut.

    Attributes:
        side: tiles are ``side`` x ``side`` pixels of the original image, or as large as the image if that is smaller.
        overlap: share of its side that a tile shares with the next one at least, 0..0.9.
    """

    side: int
    overlap: float = 0.25

    def __post_init__(self) -> None:
        if self.side < SMALLEST:
            raise InputError(f"--tile is {self.side}; give at least {SMALLEST} pixels.")
        if not 0.0 <= self.overlap <= 0.9:
            raise InputError(f"--overlap is {self.overlap}; give a share of the tile's side from 0 to 0.9.")


@dataclass(frozen=True)
class Box:
    """Rows ``top:bottom`` and columns ``left:right`` of an image."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)"""
        return self.bottom - self.top, self.right - self.left

    def cut(self, image: Image) -> Image:
        """This part of an image, a view."""
        return image[self.top : self.bottom, self.left : self.right]


def boxes(height: int, width: int, tiling: Tiling) -> list[Box]:
    """Tiles that cover an image, row by row; the last ones of a row and of a column lie against the border."""
    tops, tall = _places(height, tiling)
    lefts, wide = _places(width, tiling)
    return [Box(top, left, top + tall, left + wide) for top in tops for left in lefts]


def _places(side: int, tiling: Tiling) -> tuple[list[int], int]:
    length = min(tiling.side, side)
    step = max(1, round(tiling.side * (1 - tiling.overlap)))
    return [*range(0, side - length, step), side - length], length


class Blend:
    """Maps of tiles, added in any order, as one map: the mean, weighted by a window that falls off at tile borders.

    The window is a raised cosine over the overlap, so that maps that agree are reproduced and others fade into
    each other without a seam.
    """

    def __init__(self, height: int, width: int, tiling: Tiling) -> None:
        self._sum = np.zeros((height, width), np.float32)
        self._weight = np.zeros((height, width), np.float32)
        self._tiling = tiling

    def add(self, box: Box, tile_map: NDArray[np.float32]) -> None:
        """Add the map float32 [h, w] of one tile."""
        height, width = box.shape
        window = np.outer(self._flank(height), self._flank(width))
        inside = np.s_[box.top : box.bottom, box.left : box.right]
        self._sum[inside] += window * tile_map
        self._weight[inside] += window

    def result(self) -> NDArray[np.float32]:
        """The blended map float32 [H, W]."""
        return self._sum / self._weight

    def _flank(self, side: int) -> NDArray[np.float32]:
        """The window along one side: rises over the overlap, 1 in the middle, falls again; never 0."""
        rise = max(1.0, self._tiling.side * self._tiling.overlap)
        distance = np.minimum(np.arange(side), np.arange(side)[::-1]) + 0.5
        return np.asarray(np.sin(np.pi / 2 * np.minimum(distance / rise, 1.0)) ** 2, np.float32)


class Judgement(NamedTuple):
    """What a detector says about one image.

    Attributes:
        map: float32 [H, W], 0 (normal) .. 1.
        score: of the whole image, `image_score` of its map. Tiled it is the highest among those of its tiles, each in
            its own pixels: of the whole map of a large photo a small defect is far less than what the score averages.
    """

    map: NDArray[np.float32]
    score: float


def prepared_batches(backbone: Backbone, images: Iterable[Image], tiling: Tiling | None, size: int) -> Iterator[Batch]:
    """Images of any sizes, whole or in tiles, prepared and seen by the backbone, at most ``size`` at a time.

    Batches keep to one image, because others may have other sizes.
    """
    for image in images:
        parts = [image] if tiling is None else [box.cut(image) for box in boxes(image.shape[0], image.shape[1], tiling)]
        for start in range(0, len(parts), size):
            yield backbone.batch([backbone.prepare(part) for part in parts[start : start + size]])


def judge_image(backbone: Backbone, detector: Detector, image: Image, tiling: Tiling | None, size: int) -> Judgement:
    """Judge one image uint8 [H, W, 3], whole or in tiles.

    Args:
        size: tiles judged at a time.
    """
    height, width = image.shape[:2]
    parts = [Box(0, 0, height, width)] if tiling is None else boxes(height, width, tiling)
    seen = prepared_batches(backbone, [image], tiling, size)
    maps = ((token_map, _prepared(batch)) for batch in seen for token_map in detector.maps(batch).cpu())
    return assembled((height, width), tiling, zip(parts, maps, strict=True))


def assembled(
    shape: tuple[int, int], tiling: Tiling | None, found: Iterable[tuple[Box, tuple[Tensor, tuple[int, int]]]]
) -> Judgement:
    """The judgement on an image of ``shape`` (H, W).

    Args:
        found: its parts in any order, each with its map on the token grid [h, w] and (height, width) as prepared.
    """
    if tiling is None:
        ((_, (token_map, prepared)),) = found
        values = pixel_map(token_map, prepared, shape)
        return Judgement(values, image_score(values))
    blend, score = Blend(*shape, tiling), 0.0
    for box, (token_map, prepared) in found:
        values = pixel_map(token_map, prepared, box.shape)
        blend.add(box, values)
        score = max(score, image_score(values))
    return Judgement(blend.result(), score)


def _prepared(batch: Batch) -> tuple[int, int]:
    return batch.images.shape[1], batch.images.shape[2]
