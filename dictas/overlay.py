"""Pictures of a map of anomaly: heat over the photo, and small ones side by side."""

import cv2
import numpy as np
from numpy.typing import NDArray

OUTLINE = (255, 255, 255)
STRENGTH = 0.65
"""How much of a picture its heat covers where that is full."""
GAP = 4
"""Pixels between the pictures of a strip."""

Image = NDArray[np.uint8]


def overlay(image: Image, values: NDArray[np.float32], threshold: float) -> Image:
    """The photo uint8 [H, W, 3] with heat where its map float32 [H, W] comes near the threshold or exceeds it.

    All photos of a run have one scale, a logarithmic one: half the threshold shows nothing, the threshold is blue,
    twice the threshold green to yellow and four times it red. Pixels from the threshold on are outlined.
    """
    picture = image.copy()
    warm = (values > threshold / 2).astype(np.uint8)
    left, top, width, height = cv2.boundingRect(warm)
    if not width:
        return picture
    part = np.s_[top : top + height, left : left + width]  # mostly small, and most photos have none
    octaves = np.log2(np.maximum(values[part], 1e-9) / max(threshold, 1e-9))
    heat = np.clip((octaves + 1) / 3, 0, 1)
    colours = cv2.applyColorMap((heat * 255 + 0.5).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    share = (STRENGTH * np.minimum(heat * 3, 1))[..., None]
    picture[part] = (image[part] * (1 - share) + colours * share + 0.5).astype(np.uint8)
    outlines, _ = cv2.findContours((values >= threshold).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outlines, -1, OUTLINE, max(1, round(max(values.shape) / 500)))
    return picture


def strip(pictures: list[Image], width: int, height: int) -> Image:
    """Pictures of one size, shrunk together to fit ``width`` x ``height`` each, side by side on white."""
    tall, wide = pictures[0].shape[:2]
    factor = min(width / wide, height / tall, 1.0)
    size = (max(1, round(wide * factor)), max(1, round(tall * factor)))
    cells = []
    for picture in pictures:
        cells += [cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.full((size[1], GAP, 3), 255, np.uint8)]
    return np.asarray(np.concatenate(cells[:-1], axis=1), np.uint8)
