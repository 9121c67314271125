"""Pictures of an answer: relevancy as heat, and the selected pixels on the rendered view."""

from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.files import write_png

MARK = (255, 64, 64)
"""Colour of the selected pixels' outline."""


def heat_map(relevancy: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Relevancy float32 [H, W] in 0..1 as a picture uint8 [H, W, 3], stretched to its own range."""
    low, high = float(relevancy.min()), float(relevancy.max())
    return coloured((relevancy - low) / max(high - low, 1e-9), cv2.COLORMAP_TURBO)


def coloured(values: NDArray[np.floating], colormap: int) -> NDArray[np.uint8]:
    """Values 0..1 [H, W] through one of OpenCV's colour maps to uint8 RGB [H, W, 3]."""
    levels = (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.asarray(cv2.cvtColor(cv2.applyColorMap(levels, colormap), cv2.COLOR_BGR2RGB), np.uint8)


def encoded(picture: NDArray[np.uint8], kind: Literal["png", "jpg"], quality: int) -> bytes:
    """A picture uint8 [H, W, 3] as the content of a file; ``quality`` 0..100 is that of a JPEG."""
    written, data = cv2.imencode(
        f".{kind}", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    assert written
    return bytes(data)


def overlay(picture: NDArray[np.uint8], mask: NDArray[np.bool_], point: tuple[int, int]) -> NDArray[np.uint8]:
    """The rendered view uint8 [H, W, 3], dimmed outside the mask, its outline and the point drawn in."""
    result = picture.copy()
    result[~mask] = result[~mask] // 2
    scale = max(1, round(max(mask.shape) / 400))
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(result, outlines, -1, MARK, scale)
    cv2.circle(result, point, 4 * scale, (255, 255, 255), -1, cv2.LINE_AA)
    cv2.circle(result, point, 4 * scale, MARK, scale, cv2.LINE_AA)
    return result


def write_answer(
    folder: Path,
    picture: NDArray[np.uint8],
    relevancy: NDArray[np.float32],
    mask: NDArray[np.bool_],
    point: tuple[int, int],
) -> None:
    """Write ``overlay.png``, ``relevancy.png`` and ``mask.png`` (255 = selected), as large as the view."""
    write_png(folder / "overlay.png", overlay(picture, mask, point))
    write_png(folder / "relevancy.png", heat_map(relevancy))
    write_png(folder / "mask.png", mask.astype(np.uint8) * 255)
