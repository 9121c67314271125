from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from app.pictures import coloured

Picture = NDArray[np.uint8]
"""RGB [H, W, 3]"""

COLORS = (
    (230, 60, 50), (40, 130, 230), (60, 170, 70), (240, 160, 20), (160, 80, 200), (20, 175, 175), (215, 70, 150),
    (140, 110, 60),
)  # fmt: skip
"""One for each thing that is looked for at a time; told apart on light, dark and each other."""

LEVEL_COLORS = ((240, 160, 20), (40, 130, 230), (60, 170, 70))
"""Of subpart, part and whole."""

_STOPS = 9
_TURBO, _VIRIDIS = cv2.COLORMAP_TURBO, cv2.COLORMAP_VIRIDIS


def hexadecimal(color: Sequence[int]) -> str:
    """A colour as style sheets write it."""
    return "#" + "".join(f"{value:02x}" for value in color)


def blend(picture: Picture, layer: Picture, opacity: float, where: NDArray[np.bool_] | None = None) -> Picture:
    """The layer over the picture; only at some pixels if ``where`` is given."""
    mixed = cv2.addWeighted(layer, opacity, picture, 1.0 - opacity, 0.0)
    result = mixed if where is None else np.where(where[..., None], mixed, picture)
    return np.asarray(result, np.uint8)


def heat(values: NDArray[np.float32]) -> tuple[Picture, dict[str, Any]]:
    """Values [H, W] from their lowest (blue) to their highest (red), and the bar that explains it."""
    return _scaled(values, float(values.min()), float(values.max()), _TURBO, "Relevancy")


def depths(depth: NDArray[np.float32], seen: NDArray[np.bool_]) -> tuple[Picture, dict[str, Any]]:
    """Distances from the camera [H, W] in the scene's units, near bright and far dark; black where nothing is."""
    values = depth[seen] if seen.any() else np.zeros(1, np.float32)
    # Extremes are floaters; what lies beyond is drawn like them.
    near, far = (float(value) for value in np.percentile(values, (1, 99)))
    picture, legend = _scaled(-depth, -far, -near, _VIRIDIS, "Distance")
    picture[~seen] = 0
    legend |= {"low": near, "high": far, "colors": legend["colors"][::-1]}
    return picture, legend


def levels(best: NDArray[np.uint8], names: Sequence[str]) -> tuple[Picture, dict[str, Any]]:
    """The level [H, W] at which a thing is most relevant, 255 where nothing is."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(names)] = LEVEL_COLORS[: len(names)]
    keys = [{"name": name, "color": hexadecimal(color)} for name, color in zip(names, LEVEL_COLORS, strict=False)]
    return np.asarray(table[best], np.uint8), {"title": "Most relevant level", "keys": keys}


def masks(picture: Picture, selected: Sequence[NDArray[np.bool_]], opacity: float) -> Picture:
    """Each mask [H, W] in the colour of its place, and everything outside of all of them darkened."""
    result = picture.copy()
    outside = ~np.logical_or.reduce(selected)
    result[outside] = (result[outside] * (1.0 - 0.75 * opacity)).astype(np.uint8)
    width = _stroke(picture)
    for mask, color in zip(selected, COLORS, strict=False):
        tint = np.full_like(result, color)
        result = blend(result, tint, 0.35 * opacity, mask)
        outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(result, outlines, -1, color, width)
    return result


def mark(
    picture: Picture, number: int, point: tuple[float, float], box: tuple[float, float, float, float] | None
) -> None:
    """Draw an answer's point and box (x0, y0, x1, y1), in pixels of the picture, into it."""
    color, width = COLORS[number % len(COLORS)], _stroke(picture)
    if box is not None:
        x0, y0, x1, y1 = (round(value) for value in box)
        cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), (255, 255, 255), width + 2)
        cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), color, width)
    x, y = round(point[0]), round(point[1])
    cv2.circle(picture, (x, y), 4 * width + 2, (255, 255, 255), -1, cv2.LINE_AA)
    cv2.circle(picture, (x, y), 4 * width, color, -1, cv2.LINE_AA)


def resized(values: NDArray[Any], width: int, height: int, smooth: bool = True) -> NDArray[Any]:
    """A layer [H, W, ...] or a mask bool [H, W] in another size; without ``smooth`` no new values come up."""
    if values.shape[:2] == (height, width):
        return values
    if values.dtype == bool:
        return resized(values.astype(np.uint8) * 255, width, height, smooth) > 127
    how = cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(values, (width, height), interpolation=how))


def _scaled(
    values: NDArray[np.float32], low: float, high: float, colormap: int, title: str
) -> tuple[Picture, dict[str, Any]]:
    bar = coloured(np.linspace(0, 1, _STOPS)[None], colormap)[0]
    legend = {"title": title, "low": low, "high": high, "colors": [hexadecimal(color) for color in bar]}
    return coloured((values - low) / max(high - low, 1e-9), colormap), legend


def _stroke(picture: Picture) -> int:
    return max(1, round(max(picture.shape) / 600))
