"""Self-supervised anomalies: plausible defects on normal photos, with the mask of what changed.

The paper (section on training) blends foreign textures through Perlin masks, as DRAEM does. Here that is one kind
among many, because what the detector sees in training is what it finds: cracks, pits, stains, scars, dents, smears,
fibres, broken edges, from specks of 3 pixels to a third of the image.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from dictas import defect_contents as contents
from dictas import defect_shapes as shapes
from dictas.augmentation import augment_support
from dictas.defect_shapes import DefectShape
from dictas.procedural.noise import Field, between, blur
from dictas.textures import GivenTextures, ProceduralTextures, TextureSource

__all__ = ["KINDS", "TextureSource", "add_anomalies", "add_defect", "augment_support"]

Generator = np.random.Generator

VISIBLE = 7.0
"""A smaller smoothed difference in grey levels (of 255) is no defect."""
SHARE = 0.25
"""Nor is a smaller part of a defect's strongest difference: it is the soft rim."""
SMALLEST = 3.0
"""Extent of the smallest defects in pixels."""
LARGEST = 0.6
"""Extent of the largest ones as a part of the shorter side; `THIN` ones reach `LINES` times as far."""
LINES = 1.4
HIDDEN = 0.35
"""What changes less than this part of the standard deviation around it is lost in the surface's own structure."""
TRIES = 12
"""Attempts at one defect, each of another kind, before the photo goes without it."""

THIN: tuple[DefectShape, ...] = (shapes.crack, shapes.scratches, shapes.fibre)
"""Shapes that may be long, since they cover little."""

ROOMY: tuple[contents.Content, ...] = (
    contents.bent, contents.smoothed, contents.elsewhere, contents.foreign, contents.noisy, contents.ground,
)  # fmt: skip
"""Contents whose structure takes some room to show."""

KINDS: dict[str, tuple[float, tuple[DefectShape, ...], tuple[contents.Content, ...]]] = {
    "texture": (2.0, (shapes.clouds, shapes.patch, shapes.block), (contents.foreign,)),
    "crack": (2.0, (shapes.crack,), (contents.darker, contents.darker, contents.brighter)),
    "scratch": (1.5, (shapes.scratches,), (contents.darker, contents.brighter, contents.brighter, contents.dented)),
    "pit": (
        2.5,
        (shapes.pit, shapes.pit, shapes.specks),
        (contents.darker, contents.darker, contents.brighter, contents.dented),
    ),
    "stain": (1.5, (shapes.stain, shapes.smear), (contents.darker, contents.brighter, contents.coloured)),
    "contamination": (1.0, (shapes.patch, shapes.specks, shapes.pit), (contents.coloured, contents.foreign)),
    "fibre": (0.7, (shapes.fibre,), (contents.coloured, contents.brighter, contents.darker)),
    "paste": (0.7, (shapes.block, shapes.patch), (contents.elsewhere,)),
    "worn": (1.0, (shapes.patch, shapes.block, shapes.smear), (contents.smoothed,)),
    "bent": (0.6, (shapes.pit, shapes.patch), (contents.bent,)),
    "dent": (1.0, (shapes.pit, shapes.patch), (contents.dented,)),
    "rough": (0.8, (shapes.patch, shapes.clouds, shapes.block, shapes.smear), (contents.noisy,)),
    "chip": (0.8, (shapes.patch, shapes.pit), (contents.ground,)),
    "perlin": (0.0, (shapes.clouds,), (contents.foreign,)),
}
"""Kind of defect -> how common it is, its shapes and contents, any of each with any other.

"perlin" is the paper's, a part of "texture"; it comes only where it is asked for.
"""


def add_anomalies(
    image: NDArray[np.uint8],
    foreground: NDArray[np.bool_] | None,
    rng: np.random.Generator,
    textures: Sequence[NDArray[np.uint8]] | TextureSource | None = None,
    kinds: Sequence[str] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Put one or more defects on a normal photo.

    Args:
        image: uint8 [H, W, 3].
        foreground: bool [H, W], where the product is (None: everywhere); defects lie on it.
        rng: the same state gives the same defects.
        textures: foreign textures, each uint8 [H, W, 3], or a source of them (None: procedural ones).
        kinds: of `KINDS`, those to draw from (None: all). Where none of them shows on the photo, it gets a speck.

    Returns:
        uint8 [H, W, 3], and bool [H, W], True where the photo changed noticeably. It is never empty. More than three
        pixels away from it the photo is as it was.
    """
    source = _source(textures)
    names = list(KINDS) if kinds is None else list(kinds)
    weights = np.asarray([KINDS[name][0] for name in names])
    probabilities = weights / weights.sum() if weights.any() else None
    product = np.ones(image.shape[:2], bool) if foreground is None or not foreground.any() else foreground
    result, mask = image.astype(np.float32), np.zeros(product.shape, bool)
    for _ in range(min(rng.geometric(0.55), 5)):
        kind = str(rng.choice(names, p=probabilities))
        for _ in range(TRIES):
            changed = add_defect(kind, result, product, rng, source)
            if changed.any():
                mask |= changed
                break
            kind = str(rng.choice(names, p=probabilities))
    if not mask.any():
        mask = _speck(result, product, rng)
    return np.clip(result + 0.5, 0, 255).astype(np.uint8), mask


def _source(textures: Sequence[NDArray[np.uint8]] | TextureSource | None) -> TextureSource:
    if textures is None:
        return ProceduralTextures()
    return GivenTextures(textures) if isinstance(textures, Sequence) else textures


def add_defect(
    kind: str, image: Field, product: NDArray[np.bool_], rng: np.random.Generator, textures: TextureSource
) -> NDArray[np.bool_]:
    """Put one defect of a `KINDS` kind on ``image`` (float32 [H, W, 3] in 0..255, changed in place).

    Returns:
        bool [H, W]: what changed noticeably. Where nothing did, ``image`` stays as it was and the mask is empty.
    """
    _, drawings, fillings = KINDS[kind]
    draw = drawings[rng.integers(len(drawings))]
    fill = fillings[rng.integers(len(fillings))]
    smallest = SMALLEST if draw is shapes.pit else 3 * SMALLEST
    largest = LARGEST * min(product.shape) * (LINES if draw in THIN else 1)
    size = between(rng, smallest, max(largest, 2 * smallest))
    if fill in ROOMY:
        size = max(size, 4 * SMALLEST)
    row, column = _place(kind, product, rng)
    reach = int(0.75 * size) + 6
    rows = slice(max(row - reach, 0), row + reach + 1)
    columns = slice(max(column - reach, 0), column + reach + 1)
    inside = product[rows, columns]
    opacity = draw(rng, inside.shape, (row - rows.start, column - columns.start), size)
    opacity = opacity * blur(inside.astype(np.float32), 0.7) * inside
    site = contents.Site(image, product, rows, columns, np.asarray(opacity, np.float32), size, textures)
    before = site.before.copy()
    after = np.clip(before + (fill(rng, site) - before) * opacity[:, :, None], 0, 255)
    if _grey(before):  # a black-and-white camera sees no colours in defects either
        after = np.repeat(after.mean(axis=2, keepdims=True), 3, axis=2)
    noticed = _noticeable(before, after, SMALLEST if draw in (*THIN, shapes.specks) else size / 5)
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


def _noticeable(before: Field, after: Field, hole: float) -> NDArray[np.bool_]:
    """bool [h, w]: what a person would mark; empty if the strongest change is hardly visible.

    Args:
        hole: gaps up to about this many pixels are closed (11 at most).
    """
    difference = blur(np.abs(np.round(after) - np.round(before)).max(axis=2), 0.7)
    strongest = float(difference.max())
    if strongest < max(1.5 * VISIBLE, HIDDEN * float(before.std(axis=(0, 1)).max())):
        return np.zeros(difference.shape, bool)
    marked = (difference > max(VISIBLE, SHARE * strongest)).astype(np.uint8)
    width = int(np.clip(hole / 2, 1, 5)) * 2 + 1
    closed = cv2.morphologyEx(marked, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)))
    return np.asarray(closed > 0)


def _speck(image: Field, product: NDArray[np.bool_], rng: Generator) -> NDArray[np.bool_]:
    """The last resort on a photo where nothing else shows: a black or white square of 3 pixels."""
    row, column = _place("pit", product, rng)
    mask = np.zeros(product.shape, bool)
    mask[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
    image[mask] = np.where(image[mask] < 128, 255, 0)
    return mask
