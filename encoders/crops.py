"""Cutting regions out of an image as square pictures that an image encoder can look at."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


@dataclass(frozen=True)
class CropOptions:
    """How a region becomes a picture. The defaults are LangSplat's recipe for CLIP.

    Attributes:
        size: side of the square picture in pixels.
        context: the box grows by this fraction of its longer side, half of it on each side.
        outside: how much is kept of pixels outside the region, 0 (all ``fill``) to 1 (all themselves).
        fill: grey level 0..255 of what is not kept, lies beyond the image, or pads the shorter side.
    """

    size: int = 224
    context: float = 0.0
    outside: float = 0.0
    fill: int = 0


Box = tuple[slice, slice]
"""Rows and columns of a region's bounding box."""


def region_boxes(ids: NDArray[np.integer]) -> list[Box | None]:
    """Boxes of the regions on one level [H, W], by id; None for an id that has no pixel there."""
    return list(ndimage.find_objects(ids + 1))


def region_crops(
    image: NDArray[np.uint8], region_ids: NDArray[np.integer], options: CropOptions
) -> Iterator[tuple[list[int], NDArray[np.uint8]]]:
    """Yield (ids, picture uint8 [size, size, 3]) for the regions of ``region_ids`` [levels, H, W].

    Regions of different levels that are the same set of pixels share one picture.
    """
    same: dict[tuple[int, int, bytes], tuple[list[int], int, Box]] = {}
    for level, ids in enumerate(region_ids):
        for region, box in enumerate(region_boxes(ids)):
            if box is not None:
                shape = np.packbits(ids[box] == region).tobytes()
                key = (box[0].start, box[1].start, shape)
                same.setdefault(key, ([], level, box))[0].append(region)
    for regions, level, box in same.values():
        yield regions, crop(image, region_ids[level] == regions[0], box, options)


def crop(image: NDArray[np.uint8], mask: NDArray[np.bool_], box: Box, options: CropOptions) -> NDArray[np.uint8]:
    """One region, ``mask`` [H, W] with bounding ``box``, as a square picture centred on it."""
    height, width = mask.shape
    rows, columns = box
    longer = max(rows.stop - rows.start, columns.stop - columns.start)
    margin = round(longer * options.context / 2)
    side = longer + 2 * margin
    # The square [top, top + side) x [left, left + side) may reach beyond the image.
    top = (rows.start + rows.stop - side) // 2
    left = (columns.start + columns.stop - side) // 2
    y0, y1 = max(rows.start - margin, 0), min(rows.stop + margin, height)
    x0, x1 = max(columns.start - margin, 0), min(columns.stop + margin, width)
    picture = np.full((side, side, 3), options.fill, dtype=np.uint8)
    piece = image[y0:y1, x0:x1]
    if options.outside < 1.0:
        faded = options.fill + options.outside * (piece.astype(np.float32) - options.fill)
        piece = np.where(mask[y0:y1, x0:x1, None], piece, (faded + 0.5).astype(np.uint8))
    picture[y0 - top : y1 - top, x0 - left : x1 - left] = piece
    return resized(picture, options.size)


def resized(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Squash an image uint8 [H, W, 3] to ``size`` x ``size``."""
    if image.shape[:2] == (size, size):
        return image
    shrink = min(image.shape[:2]) > size
    method = cv2.INTER_AREA if shrink else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (size, size), interpolation=method), dtype=np.uint8)
