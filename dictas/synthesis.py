"""Self-supervised anomalies: plausible defects on normal photos, with the mask of what changed.

The paper (section on training) blends foreign textures through Perlin masks, as DRAEM does. Here that is one kind
among many, because what the detector sees in training is what it finds: cracks, pits, stains, scars, dents, smears,
fibres, broken edges, from specks of 3 pixels to a third of the image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dictas import defect_shapes as shapes
from dictas.augmentation import augment_support
from dictas.defect_shapes import DefectShape
from dictas.procedural.noise import Field, between, blur, relief, value_noise
from dictas.textures import GivenTextures, ProceduralTextures, TextureSource, textures_from_folder

__all__ = ["KINDS", "TextureSource", "add_anomalies", "add_defect", "augment_support", "textures_from_folder"]

Generator = np.random.Generator

VISIBLE = 7.0
"""A smaller smoothed difference in grey levels (of 255) is no defect."""
SHARE = 0.15
"""Nor is a smaller part of a defect's strongest difference: it is the soft rim."""
SMALLEST = 3.0
"""Extent of the smallest defects in pixels."""
LARGEST = 0.34
"""Extent of the largest ones as a part of the shorter side."""
TRIES = 12


@dataclass(frozen=True)
class _Site:
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


Content = Callable[[Generator, _Site], Field]
"""What shows where the defect is opaque: [h, w, 3] in 0..255."""


def darker(rng: Generator, site: _Site) -> Field:
    """A shadow's worth darker, down to black."""
    return site.before * np.float32(1 - between(rng, 0.12, 1.0))


def brighter(rng: Generator, site: _Site) -> Field:
    """Brighter, up to white."""
    return site.before + np.float32(between(rng, 0.12, 1.0)) * (255 - site.before)


def coloured(rng: Generator, site: _Site) -> Field:
    """Another colour through which the surface still shows."""
    tone = site.before.mean(axis=(0, 1)) * rng.uniform(0.5, 1.5) + rng.normal(0, 70, 3) * (rng.random() < 0.7)
    share = np.float32(between(rng, 0.15, 1.0))
    return site.before * (1 - share) + share * np.clip(tone, 0, 255).astype(np.float32)


def foreign(rng: Generator, site: _Site) -> Field:
    """A foreign texture, blended in (DRAEM)."""
    texture = site.textures.texture(rng, site.opacity.shape).astype(np.float32)
    if rng.random() < 0.3:  # of the surface's own brightness, so that only structure tells
        texture = texture - texture.mean(axis=(0, 1)) + site.before.mean(axis=(0, 1))
    share = np.float32(rng.uniform(0.1, 1.0))
    return site.before * (1 - share) + share * texture


def elsewhere(rng: Generator, site: _Site) -> Field:
    """Another place of the same photo, turned or mirrored, slightly recoloured (CutPaste)."""
    height, width = site.opacity.shape
    turn, scale = rng.uniform(0, 360), rng.choice([-1, 1]) * rng.uniform(0.8, 1.3)
    middle = rng.random(2) * site.image.shape[1::-1]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), turn, 1.0)
    matrix[:, 0] *= scale
    matrix[:, 2] = middle - matrix[:, :2] @ np.asarray([width / 2, height / 2])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cut = cv2.warpAffine(site.image, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(cut * rng.normal(1, 0.1, 3) * rng.uniform(0.75, 1.25), np.float32)


def smoothed(rng: Generator, site: _Site) -> Field:
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


def noisy(rng: Generator, site: _Site) -> Field:
    """Rough: grain of some width upon the surface."""
    cell = between(rng, 1.0, max(site.size / 4, 1.5))
    return site.before + np.float32(between(rng, 12, 90)) * value_noise(rng, site.opacity.shape, cell)[:, :, None]


def dented(rng: Generator, site: _Site) -> Field:
    """Pressed in or raised: light on one flank, shade on the other."""
    slope = relief(blur(site.opacity, max(0.06 * site.size, 0.8)), rng.uniform(0, 2 * np.pi))
    slope = slope / max(float(np.abs(slope).max()), 1e-6)
    depth = np.float32(between(rng, 0.15, 1.2))
    return np.where(slope[:, :, None] > 0, site.before + depth * slope[:, :, None] * (255 - site.before) * 0.7,
                    site.before * np.clip(1 + depth * slope, 0, 1)[:, :, None]).astype(np.float32)  # fmt: skip


def bent(rng: Generator, site: _Site) -> Field:
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


def ground(rng: Generator, site: _Site) -> Field:
    """Broken off: the background shows; on photos without one, something dark."""
    background = ~site.product
    if not background.any():
        return darker(rng, site)
    near = background[site.rows, site.columns]
    source = site.before[near] if near.any() else site.image[background]
    chosen = source[rng.integers(len(source), size=site.opacity.shape)]  # its pixels at random: its colours and noise
    return blur(chosen, 0.6)


ANYWHERE: tuple[DefectShape, ...] = (shapes.pit, shapes.patch, shapes.clouds, shapes.block, shapes.specks, shapes.smear)
LINES: tuple[DefectShape, ...] = (shapes.crack, shapes.scratches, shapes.fibre)

KINDS: dict[str, tuple[float, tuple[DefectShape, ...], tuple[Content, ...]]] = {
    "texture": (2.0, (shapes.clouds, shapes.patch, shapes.block), (foreign,)),
    "crack": (2.0, (shapes.crack,), (darker, darker, brighter)),
    "scratch": (1.5, (shapes.scratches,), (darker, brighter, brighter, dented)),
    "pit": (2.5, (shapes.pit, shapes.pit, shapes.specks), (darker, darker, brighter, dented)),
    "stain": (1.5, (shapes.stain, shapes.smear), (darker, brighter, coloured)),
    "contamination": (1.0, (shapes.patch, shapes.specks, shapes.pit), (coloured, foreign)),
    "fibre": (0.7, (shapes.fibre,), (coloured, brighter, darker)),
    "paste": (1.0, (shapes.block, shapes.patch), (elsewhere,)),
    "worn": (1.0, (shapes.patch, shapes.block, shapes.smear), (smoothed,)),
    "bent": (0.8, (shapes.pit, shapes.patch), (bent,)),
    "dent": (1.0, (shapes.pit, shapes.patch), (dented,)),
    "rough": (0.8, ANYWHERE, (noisy,)),
    "chip": (0.8, (shapes.patch, shapes.pit), (ground,)),
}
"""Kind of defect -> how common it is, its shapes and contents, any of each with any other."""


def add_anomalies(
    image: NDArray[np.uint8],
    foreground: NDArray[np.bool_] | None,
    rng: np.random.Generator,
    textures: Sequence[NDArray[np.uint8]] | TextureSource | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Put one or more defects on a normal photo.

    Args:
        image: uint8 [H, W, 3].
        foreground: bool [H, W], where the product is (None: everywhere); defects lie on it.
        rng: the same state gives the same defects.
        textures: foreign textures, each uint8 [H, W, 3], or a source of them (None: procedural ones).

    Returns:
        uint8 [H, W, 3], and bool [H, W], True where the photo changed noticeably. It is never empty. More than three
        pixels away from it the photo is as it was.
    """
    source = _source(textures)
    product = np.ones(image.shape[:2], bool) if foreground is None or not foreground.any() else foreground
    result, mask = image.astype(np.float32), np.zeros(product.shape, bool)
    for _ in range(min(rng.geometric(0.55), 5)):
        kind = str(rng.choice(list(KINDS), p=_PROBABILITIES))
        for _ in range(TRIES):
            changed = add_defect(kind, result, product, rng, source)
            if changed.any():
                mask |= changed
                break
            kind = str(rng.choice(list(KINDS), p=_PROBABILITIES))
    if not mask.any():
        mask = _speck(result, product, rng)
    return np.clip(result + 0.5, 0, 255).astype(np.uint8), mask


def _source(textures: Sequence[NDArray[np.uint8]] | TextureSource | None) -> TextureSource:
    if textures is None:
        return ProceduralTextures()
    return GivenTextures(textures) if isinstance(textures, Sequence) else textures


_PROBABILITIES = np.asarray([weight for weight, _, _ in KINDS.values()])
_PROBABILITIES /= _PROBABILITIES.sum()


def add_defect(
    kind: str, image: Field, product: NDArray[np.bool_], rng: np.random.Generator, textures: TextureSource
) -> NDArray[np.bool_]:
    """Put one defect of a `KINDS` kind on ``image`` (float32 [H, W, 3] in 0..255, changed in place).

    Returns:
        bool [H, W]: what changed noticeably. Where nothing did, ``image`` stays as it was and the mask is empty.
    """
    _, possible_shapes, contents = KINDS[kind]
    draw = possible_shapes[rng.integers(len(possible_shapes))]
    content = contents[rng.integers(len(contents))]
    smallest = SMALLEST if draw is shapes.pit else 3 * SMALLEST
    size = between(rng, smallest, max(LARGEST * min(product.shape), 2 * smallest))
    if content in (bent, smoothed, elsewhere, foreign, noisy, ground):  # structure needs some room to show
        size = max(size, 4 * SMALLEST)
    row, column = _place(kind, product, rng)
    reach = int(0.75 * size) + 6
    rows = slice(max(row - reach, 0), row + reach + 1)
    columns = slice(max(column - reach, 0), column + reach + 1)
    inside = product[rows, columns]
    opacity = draw(rng, inside.shape, (row - rows.start, column - columns.start), size)
    opacity = opacity * blur(inside.astype(np.float32), 0.7) * inside
    site = _Site(image, product, rows, columns, np.asarray(opacity, np.float32), size, textures)
    before = site.before.copy()
    after = np.clip(before + (content(rng, site) - before) * opacity[:, :, None], 0, 255)
    if _grey(before):  # a black-and-white camera sees no colours in defects either
        after = np.repeat(after.mean(axis=2, keepdims=True), 3, axis=2)
    noticed = _noticeable(before, after, size)
    spread = cv2.dilate(noticed.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    image[rows, columns] = np.where(spread[:, :, None], after, before)
    mask = np.zeros(product.shape, bool)
    mask[rows, columns] = noticed
    return mask


def _place(kind: str, product: NDArray[np.bool_], rng: Generator) -> tuple[int, int]:
    """A pixel of the product; what breaks off does so at its rim."""
    area = product
    if kind == "chip" and not product.all():
        area = product & ~(cv2.erode(product.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
    where = np.flatnonzero(area if area.any() else product)
    row, column = divmod(int(where[rng.integers(len(where))]), product.shape[1])
    return row, column


def _grey(image: Field) -> bool:
    return bool((image[:, :, 0] == image[:, :, 1]).all() and (image[:, :, 1] == image[:, :, 2]).all())


def _noticeable(before: Field, after: Field, size: float) -> NDArray[np.bool_]:
    """bool [h, w]: what a person would mark, small holes closed; empty if the strongest change is hardly visible."""
    difference = blur(np.abs(np.round(after) - np.round(before)).max(axis=2), 0.7)
    strongest = float(difference.max())
    if strongest < 1.5 * VISIBLE:
        return np.zeros(difference.shape, bool)
    marked = (difference > max(VISIBLE, SHARE * strongest)).astype(np.uint8)
    width = int(np.clip(size / 10, 1, 5)) * 2 + 1
    closed = cv2.morphologyEx(marked, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)))
    return np.asarray(closed > 0)


def _speck(image: Field, product: NDArray[np.bool_], rng: Generator) -> NDArray[np.bool_]:
    """The last resort on a photo where nothing else shows: a black or white square of 3 pixels."""
    row, column = _place("pit", product, rng)
    mask = np.zeros(product.shape, bool)
    mask[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
    image[mask] = np.where(image[mask] < 128, 255, 0)
    return mask
