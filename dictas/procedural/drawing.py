"""Drawing parts on a square canvas whose coordinates run from -1 to 1, x to the right and y downwards."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from dictas.procedural.colours import mix, shade
from dictas.procedural.noise import Field, blur, relief
from dictas.procedural.surfaces import SURFACES

Generator = np.random.Generator
FRACTION = 4
"""Bits after the binary point of OpenCV's coordinates."""
FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX)
LETTERS = np.asarray(list("ABCDEFGHKLMNPRSTUVXYZ0123456789"))


class Stencil:
    """A mask [side, side] being drawn; every method returns itself."""

    def __init__(self, side: int) -> None:
        self.side = side
        self._mask = np.zeros((side, side), np.uint8)

    @property
    def mask(self) -> Field:
        """float32 [side, side] in 0..1, smooth at edges."""
        return np.asarray(self._mask.astype(np.float32) / 255, np.float32)

    def polygon(self, points: Any, value: int = 255) -> "Stencil":
        """Fill a polygon of ``points`` [n, (x, y)]."""
        cv2.fillPoly(self._mask, [self._fixed(points)], value, cv2.LINE_AA, FRACTION)
        return self

    def line(self, points: Any, width: float, value: int = 255, closed: bool = False) -> "Stencil":
        """Draw a line through ``points`` [n, (x, y)], ``width`` in the canvas's units."""
        thick = max(round(width * self.side / 2), 1)
        cv2.polylines(self._mask, [self._fixed(points)], closed, value, thick, cv2.LINE_AA, FRACTION)
        return self

    def disc(self, x: float, y: float, radius: float, value: int = 255) -> "Stencil":
        """Fill a disc."""
        centre = self._fixed([[x, y]])[0]
        reach = int(radius * self.side / 2 * 2**FRACTION)
        cv2.circle(self._mask, (int(centre[0]), int(centre[1])), max(reach, 8), value, -1, cv2.LINE_AA, FRACTION)
        return self

    def box(self, x: float, y: float, width: float, height: float, value: int = 255, corner: float = 0.0) -> "Stencil":
        """Fill a rectangle around (x, y), its corners rounded by a radius of ``corner``."""
        half = np.asarray([width, height]) / 2
        corner = min(corner, *half)
        turns = np.linspace(0, np.pi / 2, 7 if corner else 1)
        quarter = np.stack([np.cos(turns), np.sin(turns)], 1) * corner + half - corner
        if not corner:
            quarter = half[None]
        points = np.concatenate([quarter, quarter[::-1] * [-1, 1], -quarter, quarter[::-1] * [1, -1]])
        return self.polygon(points + np.asarray([x, y]), value)

    def text(self, words: str, x: float, y: float, height: float, font: int = 0, bold: bool = False) -> "Stencil":
        """Write words centred at (x, y), letters ``height`` tall."""
        scale = height * self.side / 2 / 22
        thick = max(round(scale * (3.5 if bold else 1.8)), 1)
        face = FONTS[font % len(FONTS)]
        (wide, tall), _ = cv2.getTextSize(words, face, scale, thick)
        left, bottom = (x + 1) * self.side / 2 - wide / 2, (y + 1) * self.side / 2 + tall / 2
        cv2.putText(self._mask, words, (round(left), round(bottom)), face, scale, 255, thick, cv2.LINE_AA)
        return self

    def _fixed(self, points: Any) -> Any:
        pixels = (np.asarray(points, np.float64) + 1) * (self.side / 2) - 0.5
        return np.round(pixels * 2**FRACTION).astype(np.int32)


def words(look: Generator, low: int = 2, high: int = 7) -> str:
    """Random capitals and digits, ``low`` to ``high`` - 1 of them."""
    return "".join(look.choice(LETTERS, int(look.integers(low, high))))


def plane(side: int) -> tuple[Field, Field]:
    """Coordinates x [1, side] and y [side, 1] of the canvas."""
    middle = ((np.arange(side, dtype=np.float32) + 0.5) * (2 / side) - 1).astype(np.float32)
    return middle[None], middle[:, None]


def polar(side: int) -> tuple[Field, Field]:
    """Distance from the canvas's middle and angle, each [side, side]."""
    x, y = plane(side)
    return np.asarray(np.hypot(x, y), np.float32), np.asarray(np.arctan2(y, x), np.float32)


def material(look: Generator, rng: Generator, side: int, names: Sequence[str]) -> Field:
    """One of the named surfaces, [side, side, 3]."""
    name, own = names[int(look.integers(len(names)))], np.random.default_rng(int(look.integers(2**32)))
    return SURFACES[name](own, rng, (side, side), side / 256)


def paint(
    below: Field, colour: Field, mask: Field, bevel: float = 0.0, angle: float = -2.2, width: float = 0.01
) -> Field:
    """Lay a colour [3] or colours [H, W, 3] upon a picture where ``mask`` is 1.

    Args:
        bevel: how raised (or, below 0, sunk) its edges look, about -1..1.
        angle: where the light comes from, in radians.
        width: the bevel's as a part of the canvas.
    """
    painted = mix(below, colour, mask)
    if bevel:
        sigma = max(width * mask.shape[0], 0.7)
        lit = relief(blur(mask, sigma), angle) * np.float32(2.5 * sigma * bevel)
        painted = shade(painted, 1 + np.clip(lit, -0.7, 0.8))
    return painted


def rounded(profile: Field) -> Field:
    """Brightness of a cylinder lit from above where ``profile`` runs from -1 to 1 across it, else 0 height."""
    height = np.sqrt(np.clip(1 - profile**2, 0, 1))
    return np.asarray(0.35 + 0.6 * height - 0.25 * profile, np.float32)
