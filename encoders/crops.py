"""Cutting regions out of an image as square pictures that an image encoder can look at."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class CropOptions:
    """How a region becomes a picture. The defaults are LangSplat's recipe for CLIP.

    Attributes:
        size: side of the square picture in pixels.
        context: the box grows by this fraction of its longer side, half of it on each side.
        outside: brightness factor of pixels that are not in the region: 0 blackens them, 1 keeps them.
        fill: grey level 0..255 of what lies beyond the image or pads the shorter side.
    """

    size: int = 224
    context: float = 0.0
    outside: float = 0.0
    fill: int = 0


@dataclass(frozen=True)
class RegionBox:
    """Where a region is: its level and the half-open pixel box [y0, y1) x [x0, x1)."""

    level: int
    y0: int
    y1: int
    x0: int
    x1: int


def region_boxes(region_ids: NDArray[np.integer]) -> list[RegionBox | None]:
    """Boxes of the regions of ``region_ids`` [levels, H, W], by id; None for an id that has no pixel."""
    boxes: list[RegionBox | None] = [None] * (int(region_ids.max(initial=-1)) + 1)
    for level, ids in enumerate(region_ids):
        low = np.full((2, len(boxes)), np.iinfo(np.int64).max)
        high = np.full((2, len(boxes)), -1)
        inside = ids >= 0
        rows, columns = np.nonzero(inside)
        for axis, positions in enumerate((rows, columns)):
            np.minimum.at(low[axis], ids[inside], positions)
            np.maximum.at(high[axis], ids[inside], positions)
        for region in np.flatnonzero(high[0] >= 0):
            (y0, x0), (y1, x1) = low[:, region].tolist(), (high[:, region] + 1).tolist()
            boxes[region] = RegionBox(level, y0, y1, x0, x1)
    return boxes


def region_crops(
    image: NDArray[np.uint8], region_ids: NDArray[np.integer], options: CropOptions
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield (id, picture uint8 [size, size, 3]) for every region of ``region_ids`` [levels, H, W].

    The region's box is grown by ``options.context``, padded to a square around its centre, and resized.
    """
    for region, box in enumerate(region_boxes(region_ids)):
        if box is not None:
            yield region, crop(image, region_ids[box.level] == region, box, options)


def crop(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], box: RegionBox, options: CropOptions
) -> NDArray[np.uint8]:
    """One region, ``mask`` [H, W], as a picture uint8 [size, size, 3]."""
    height, width = mask.shape
    longer = max(box.y1 - box.y0, box.x1 - box.x0)
    margin = round(longer * options.context / 2)
    side = longer + 2 * margin
    # Half-open square [top, top + side) x [left, left + side) that may reach beyond the image.
    top = (box.y0 + box.y1 - side) // 2
    left = (box.x0 + box.x1 - side) // 2
    y0, y1 = max(box.y0 - margin, 0), min(box.y1 + margin, height)
    x0, x1 = max(box.x0 - margin, 0), min(box.x1 + margin, width)
    picture = np.full((side, side, 3), options.fill, dtype=np.uint8)
    piece = image[y0:y1, x0:x1]
    if options.outside < 1.0:
        dimmed = (piece * options.outside + 0.5).astype(np.uint8)
        piece = np.where(mask[y0:y1, x0:x1, None], piece, dimmed)
    picture[y0 - top : y1 - top, x0 - left : x1 - left] = piece
    return resized(picture, options.size)


def resized(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Squash an image uint8 [H, W, 3] to ``size`` x ``size``."""
    if image.shape[:2] == (size, size):
        return image
    shrink = min(image.shape[:2]) > size
    method = cv2.INTER_AREA if shrink else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (size, size), interpolation=method), dtype=np.uint8)
