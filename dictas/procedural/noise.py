"""Random fields of which surfaces, lighting and defects are made; each is deterministic in its generator."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
"""float32 [H, W], or [H, W, 3] for colours in 0..1."""
Shape = tuple[int, int]
"""(H, W) in pixels."""
Painter = Callable[[np.random.Generator, np.random.Generator, Shape, float], Field]
"""paint(look, rng, shape, unit) -> colours [H, W, 3].

``look`` holds what all specimens of a class share and gives the same numbers for each of them, so how often it is
asked must not depend on ``rng``, which makes the specimen. ``unit`` is the pixels that 1/256 of the image takes.
"""


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """A number from ``low`` to ``high``, all orders of magnitude being equally likely."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def value_noise(rng: np.random.Generator, shape: Shape, cell: float | tuple[float, float]) -> Field:
    """Smooth normal noise [H, W], mean 0 and standard deviation 1: cubic B-splines over a lattice of random numbers.

    Args:
        shape: (H, W).
        cell: distance of the lattice's points in pixels, or the distances of its rows and its columns.
    """
    tall, wide = cell if isinstance(cell, tuple) else (cell, cell)
    rows = _spline_weights(shape[0], max(tall, 1.0), rng.random())
    columns = _spline_weights(shape[1], max(wide, 1.0), rng.random())
    lattice = rng.standard_normal((rows.shape[1], columns.shape[1]), dtype=np.float32)
    return np.asarray(rows @ lattice @ columns.T, np.float32)


def _spline_weights(length: int, cell: float, offset: float) -> Field:
    """[length, points]: what each lattice point adds at each pixel; every row's squares sum to 1."""
    position = np.arange(length, dtype=np.float32) / cell + offset
    before = position.astype(np.intp)
    t = position - before
    four = np.stack([(1 - t) ** 3, 4 - 6 * t**2 + 3 * t**3, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3], 1)
    weights = np.zeros((length, before[-1] + 4), np.float32)
    four /= np.linalg.norm(four, axis=1, keepdims=True)
    np.put_along_axis(weights, before[:, None] + np.arange(4), four.astype(np.float32), axis=1)
    return weights


def fractal(
    rng: np.random.Generator, shape: Shape, cell: float | tuple[float, float], octaves: int = 4, gain: float = 0.5
) -> Field:
    """Clouds [H, W], standard deviation 1: octaves of `value_noise`, each half as coarse and ``gain`` as strong."""
    tall, wide = cell if isinstance(cell, tuple) else (cell, cell)
    strengths = gain ** np.arange(octaves)
    strengths /= np.linalg.norm(strengths)
    total = np.zeros(shape, np.float32)
    for octave, strength in enumerate(strengths):
        total += np.float32(strength) * value_noise(rng, shape, (tall / 2**octave, wide / 2**octave))
    return total


def blur(image: Field, sigma: float) -> Field:
    """Gaussian blur of ``sigma`` pixels."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32).reshape(image.shape)


def grain(rng: np.random.Generator, shape: Shape, width: float) -> Field:
    """Fine noise [H, W], standard deviation 1, of specks about ``width`` pixels wide (1 = white noise)."""
    if width > 2.0:
        return value_noise(rng, shape, 0.6 * width)
    white = rng.standard_normal(shape, dtype=np.float32)
    return white if width <= 1.0 else blur(white, width / 2) * np.float32(1.77 * width)


def ripples(rng: np.random.Generator, shape: Shape, wavelength: float) -> Field:
    """Noise [H, W] of one wavelength (pixels), standard deviation 1: spots and labyrinths when thresholded."""
    white = rng.standard_normal(shape, dtype=np.float32)
    sigma = max(wavelength / 5.0, 0.5)
    band = blur(white, sigma) - blur(white, sigma * 1.4)
    return np.asarray(band / max(float(band.std()), 1e-6), np.float32)


def cells(
    rng: np.random.Generator, shape: Shape, spacing: float, stretch: float = 1.0
) -> tuple[NDArray[np.int32], Field]:
    """Random cells around jittered points: the cell's number of each pixel and its distance from the cell's rim.

    Args:
        spacing: mean distance of the cells' middles in pixels, at least 3.
        stretch: how much longer cells are along the rows.

    Returns:
        int32 [H, W] from 0 (use it modulo a table's length), float32 [H, W] in pixels.
    """
    spacing = max(spacing, 3.0)
    inner = (shape[0], max(int(shape[1] / stretch), 1))
    down, along = (int(side / spacing) + 1 for side in inner)
    y, x = ((np.mgrid[:down, :along] + rng.random((2, down, along))) * spacing).astype(int).reshape(2, -1)
    inside = (y < inner[0]) & (x < inner[1])
    seeds = np.ones(inner, np.uint8)
    seeds[y[inside], x[inside]] = 0
    if seeds.all():
        seeds[inner[0] // 2, inner[1] // 2] = 0
    _, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    numbers = np.asarray(labels, np.int32)
    if inner != shape:
        columns = np.minimum(np.arange(shape[1]) / stretch, inner[1] - 1).astype(int)
        numbers = numbers[:, columns]
    wall = np.zeros(shape, bool)
    wall[:, 1:] |= numbers[:, 1:] != numbers[:, :-1]
    wall[1:] |= numbers[1:] != numbers[:-1]
    rim = cv2.distanceTransform((~wall).astype(np.uint8), cv2.DIST_L2, 5)
    return numbers, np.asarray(rim, np.float32)


def warp(image: Field, rng: np.random.Generator, amount: float, cell: float) -> Field:
    """``image`` with every point moved by smooth noise of standard deviation ``amount`` pixels; edges are mirrored."""
    shape = image.shape[:2]
    y, x = np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)[None]
    across = x + np.float32(amount) * value_noise(rng, shape, cell)
    down = y + np.float32(amount) * value_noise(rng, shape, cell)
    return np.asarray(cv2.remap(image, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101), np.float32)


def relief(height: Field, angle: float) -> Field:
    """Light and shade [H, W] on a height map in pixels, lit from ``angle`` (radians): its slope towards the light."""
    across = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=0.125)
    down = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=0.125)
    return np.asarray(np.float32(np.cos(angle)) * across + np.float32(np.sin(angle)) * down, np.float32)
