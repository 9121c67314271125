"""What a defect shows where it covers the picture: dark, bright, foreign, moved, smeared, dented or broken surface."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dictas.procedural.noise import Field, between, blur, relief, value_noise
from dictas.textures import TextureSource

Generator = np.random.Generator


@dataclass(frozen=True)
class Site:
    """Where a defect goes.

    Attributes:
        image: the whole photo, float32 [H, W, 3] in 0..255.
        product: bool [H, W].
        rows, columns: the window around the defect.
        opacity: the defect's, [h, w] in 0..1.
        size: its extent in pixels.
        textures: foreign ones.
    """

    image: Field
    product: NDArray[np.bool_]
    rows: slice
    columns: slice
    opacity: Field
    size: float
    textures: TextureSource

    @property
    def before(self) -> Field:
        """The window, [h, w, 3]."""
        return self.image[self.rows, self.columns]


Content = Callable[[Generator, Site], Field]
"""What shows where the defect is opaque: [h, w, 3] in 0..255."""


def darker(rng: Generator, site: Site) -> Field:
    """A shadow's worth darker, down to black."""
    return site.before * np.float32(1 - between(rng, 0.12, 1.0))


def brighter(rng: Generator, site: Site) -> Field:
    """Brighter, up to white."""
    return site.before + np.float32(between(rng, 0.12, 1.0)) * (255 - site.before)


def coloured(rng: Generator, site: Site) -> Field:
    """Another colour through which the surface still shows."""
    tone = site.before.mean(axis=(0, 1)) * rng.uniform(0.5, 1.5) + rng.normal(0, 70, 3) * (rng.random() < 0.7)
    share = np.float32(between(rng, 0.15, 1.0))
    return site.before * (1 - share) + share * np.clip(tone, 0, 255).astype(np.float32)


def foreign(rng: Generator, site: Site) -> Field:
    """A foreign texture, blended in (DRAEM)."""
    texture = site.textures.texture(rng, site.opacity.shape).astype(np.float32)
    if rng.random() < 0.3:  # of the surface's own brightness, so that only structure tells
        texture = texture - texture.mean(axis=(0, 1)) + site.before.mean(axis=(0, 1))
    share = np.float32(rng.uniform(0.1, 1.0))
    return site.before * (1 - share) + share * texture


def elsewhere(rng: Generator, site: Site) -> Field:
    """Another place of the same photo, turned or mirrored, slightly recoloured (CutPaste)."""
    height, width = site.opacity.shape
    turn, scale = rng.uniform(0, 360), rng.choice([-1, 1]) * rng.uniform(0.8, 1.3)
    middle = rng.random(2) * site.image.shape[1::-1]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), turn, 1.0)
    matrix[:, 0] *= scale
    matrix[:, 2] = middle - matrix[:, :2] @ np.asarray([width / 2, height / 2])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cut = cv2.warpAffine(site.image, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(cut * rng.normal(1, 0.1, 3) * between(rng, 1.1, 1.5) ** rng.choice([-1, 1]), np.float32)


def smoothed(rng: Generator, site: Site) -> Field:
    """The texture is gone: smeared in one direction or worn off."""
    reach = max(site.size * between(rng, 0.1, 0.6), 2.0)
    if rng.random() < 0.5:
        return blur(site.before, reach / 2)
    turn, count = rng.uniform(0, np.pi), max(int(reach), 3) | 1
    kernel = np.zeros((count, count), np.uint8)
    offset = np.asarray([np.cos(turn), np.sin(turn)]) * count
    middle = np.asarray([count // 2, count // 2])
    cv2.polylines(kernel, [np.stack([middle - offset, middle + offset]).astype(np.int32)], False, 1)
    return np.asarray(cv2.filter2D(site.before, -1, kernel / np.float32(kernel.sum())), np.float32)


def noisy(rng: Generator, site: Site) -> Field:
    """Rough: grain of some width upon the surface."""
    cell = between(rng, 1.0, max(site.size / 4, 1.5))
    return site.before + np.float32(between(rng, 12, 90)) * value_noise(rng, site.opacity.shape, cell)[:, :, None]


def dented(rng: Generator, site: Site) -> Field:
    """Pressed in or raised: light on one flank, shade on the other."""
    slope = relief(blur(site.opacity, max(0.06 * site.size, 0.8)), rng.uniform(0, 2 * np.pi))
    slope = slope / max(float(np.abs(slope).max()), 1e-6)
    depth = np.float32(between(rng, 0.15, 1.2))
    return np.where(slope[:, :, None] > 0, site.before + depth * slope[:, :, None] * (255 - site.before) * 0.7,
                    site.before * np.clip(1 + depth * slope, 0, 1)[:, :, None]).astype(np.float32)  # fmt: skip


def bent(rng: Generator, site: Site) -> Field:
    """Shifted, swirled or squeezed: the same surface where it should not be."""
    height, width = site.opacity.shape
    amount = np.float32(min(between(rng, 0.1, 0.5) * site.size, 40))
    weight = blur(site.opacity, max(0.1 * site.size, 1.0))
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None]
    if rng.random() < 0.4:
        twist = weight * np.float32(rng.choice([-1, 1]) * between(rng, 0.3, 2.0))
        dy, dx = y - height / 2, x - width / 2
        across, down = (
            np.cos(twist) * dx - np.sin(twist) * dy + width / 2,
            np.sin(twist) * dx + np.cos(twist) * dy + height / 2,
        )
    else:
        turn = rng.uniform(0, 2 * np.pi)
        across, down = x + np.float32(np.cos(turn)) * amount * weight, y + np.float32(np.sin(turn)) * amount * weight
    moved = cv2.remap(
        site.before,
        across.astype(np.float32),
        down.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return np.asarray(moved, np.float32)


def ground(rng: Generator, site: Site) -> Field:
    """Broken off: the background shows; on photos without one, something dark."""
    background = ~site.product
    if not background.any():
        return darker(rng, site)
    near = background[site.rows, site.columns]
    source = site.before[near] if near.any() else site.image[background]
    chosen = source[rng.integers(len(source), size=site.opacity.shape)]  # its pixels at random: its colours and noise
    return blur(chosen, 0.6)
