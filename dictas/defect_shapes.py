"""Where a defect covers the picture: pits, stains, cracks, scratches, fibres, scars, as alpha masks."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from dictas.procedural.noise import Field, Shape, between, blur, fractal, value_noise

Generator = np.random.Generator
DefectShape = Callable[[Generator, Shape, tuple[float, float], float], Field]
"""shape(rng, window, centre, size) -> opacity [h, w] in 0..1.

``window`` is (h, w) in pixels, ``centre`` the defect's middle in it as (row, column), ``size`` its longest extent.
"""


def _axes(rng: Generator, window: Shape, centre: tuple[float, float]) -> tuple[Field, Field]:
    """Coordinates around the centre along two axes turned at random, each [h, w] in pixels."""
    turn = rng.uniform(0, np.pi)
    y = np.arange(window[0], dtype=np.float32)[:, None] - np.float32(centre[0])
    x = np.arange(window[1], dtype=np.float32)[None] - np.float32(centre[1])
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    return cos * x + sin * y, cos * y - sin * x


def _ellipse(
    rng: Generator, window: Shape, centre: tuple[float, float], size: float, slim: float, ragged: float
) -> Field:
    """Distance from the centre [h, w], 1 on an irregular ellipse's rim."""
    along, across = _axes(rng, window, centre)
    away = np.hypot(along, across * np.float32(slim)) * np.float32(2 / size)
    if ragged:
        away = away + np.float32(ragged) * fractal(rng, window, max(0.5 * size / slim, 2.0), 3, 0.6)
    return np.asarray(away, np.float32)


def _inside(away: Field, softness: float) -> Field:
    return np.asarray(np.clip((1 - away) / np.float32(softness), 0, 1), np.float32)


def pit(rng: Generator, window: Shape, centre: tuple[float, float], size: float) -> Field:
    """A compact hole or bubble, nearly round, its rim sharp or soft."""
    away = _ellipse(rng, window, centre, size, between(rng, 1, 2), rng.uniform(0, 0.15))
    return _inside(away, max(between(rng, 0.1, 0.9), 1.5 / size))


def patch(rng: Generator, window: Shape, centre: tuple[float, float], size: float) -> Field:
    """An area with a ragged rim."""
    away = _ellipse(rng, window, centre, 0.8 * size, between(rng, 1, 3), rng.uniform(0.1, 0.35))
    return _inside(away, max(between(rng, 0.05, 0.5), 1.5 / size))


def stain(rng: Generator, window: Shape, centre: tuple[float, float], size: float) -> Field:
    """A drop or smudge, fading out; some have dried with a dark rim."""
    away = _ellipse(rng, window, centre, 0.8 * size, between(rng, 1, 2.5), rng.uniform(0.1, 0.3))
    smooth = _inside(away, rng.uniform(0.3, 1.0))
    if rng.random() < 0.35:
        width = between(rng, 0.06, 0.2)
        smooth = 0.5 * smooth + np.exp(-(((away - 0.85) / np.float32(width)) ** 2)).astype(np.float32) * (away < 1.2)
    return np.asarray(np.clip(smooth, 0, 1), np.float32)


def clouds(rng: Generator, window: Shape, centre: tuple[float, float], size: float) -> Field:
    """Islands of thresholded noise within an ellipse, as DRAEM draws them."""
    away = _ellipse(rng, window, centre, size, between(rng, 1, 3), 0.1)
    islands = fractal(rng, window, max(size / between(rng, 1.5, 6), 2.0), 2)
    level = rng.uniform(-0.6, 0.8)
    return np.asarray(np.clip(4 * (islands - level), 0, 1) * _inside(away, 0.3), np.float32)


def specks(rng: Generator, window: Shape, centre: tuple[float, float], size: float) -> Field:
    """A loose group of small grains."""
    canvas = np.zeros(window, np.uint8)
    grain = max(size * between(rng, 0.03, 0.12), 1.0)
    for _ in range(rng.integers(3, 16)):
        row, column = np.asarray(centre) + rng.normal(0, 0.2 * size, 2)
        axes = grain * rng.lognormal(0, 0.4, 2) * 8
        box = ((int(column * 8), int(row * 8)), (int(axes[0] / 2) + 4, int(axes[1] / 2) + 4))
        cv2.ellipse(canvas, *box, rng.uniform(0, 180), 0, 360, 255, -1, cv2.LINE_AA, 3)
    return _opacity(canvas)


def block(rng: Generator, window: Shape, centre: tuple[float, float], size: float) -> Field:
    """A rectangle or a long scar."""
    along, across = _axes(rng, window, centre)
    slim = between(rng, 1, 8)
    inside = np.minimum(size / 2.4 - np.abs(along), size / 2.4 / slim + 0.5 - np.abs(across))
    return np.asarray(np.clip(inside / np.float32(between(rng, 0.8, 4)), 0, 1), np.float32)


def smear(rng: Generator, window: Shape, centre: tuple[float, float], size: float) -> Field:
    """A long soft streak."""
    return _inside(_ellipse(rng, window, centre, size, between(rng, 4, 20), 0.05), rng.uniform(0.3, 1.0))


def crack(rng: Generator, window: Shape, centre: tuple[float, float], size: float) -> Field:
    """A jagged line that branches and thins out."""
    canvas = np.zeros(window, np.uint8)
    widest = between(rng, 1.0, max(min(4.0, size / 10), 1.2))
    jagged, step = between(rng, 0.1, 0.6), max(size / between(rng, 12, 40), 1.5)
    heading = rng.uniform(0, 2 * np.pi)
    start = np.asarray(centre) - 0.45 * size * np.asarray([np.sin(heading), np.cos(heading)])
    branches = [(start, heading, 0.9 * size, widest)]
    for _ in range(8):  # branches of branches, but not for ever
        if not branches:
            break
        point, heading, length, width = branches.pop()
        way, left = heading, length
        while left > 0:
            way += rng.normal(0, jagged) - 0.15 * (way - heading)
            ahead = point + step * rng.uniform(0.5, 1.5) * np.asarray([np.sin(way), np.cos(way)])
            thinned = width * rng.uniform(0.6, 1.1) * (0.3 + 0.7 * left / length)
            _stroke(canvas, np.stack([point, ahead]), thinned)
            if rng.random() < 0.06:
                branches.append((ahead, way + rng.choice([-1, 1]) * rng.uniform(0.4, 1.2), 0.5 * left, thinned))
            point, left = ahead, left - step
    return _opacity(canvas, fade=rng.uniform(0, 0.5), rng=rng, cell=size / 4)


def scratches(rng: Generator, window: Shape, centre: tuple[float, float], size: float) -> Field:
    """One or several nearly straight lines, side by side, of uneven strength."""
    canvas = np.zeros(window, np.uint8)
    heading, bow = rng.uniform(0, np.pi), rng.normal(0, 0.08) * size
    width = between(rng, 0.8, max(min(3.5, size / 15), 1.2))
    for _ in range(min(rng.geometric(0.5), 6)):
        turn = heading + rng.normal(0, 0.06)
        along, across = np.asarray([np.sin(turn), np.cos(turn)]), np.asarray([np.cos(turn), -np.sin(turn)])
        t = np.linspace(-0.5, 0.5, 13)[:, None] * rng.uniform(0.5, 0.95)
        points = np.asarray(centre) + rng.normal(0, 0.07 * size, 2) + t * size * along + (4 * t**2 - 0.5) * bow * across
        _stroke(canvas, points, width * rng.uniform(0.6, 1.2))
    return _opacity(canvas, fade=rng.uniform(0.1, 0.6), rng=rng, cell=size / 3)


def fibre(rng: Generator, window: Shape, centre: tuple[float, float], size: float) -> Field:
    """A thread or hair that winds, of even width."""
    canvas = np.zeros(window, np.uint8)
    count = 48
    curl = np.cumsum(rng.normal(0, between(rng, 0.02, 0.12), count)) + rng.normal(0, 0.08)
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(curl)
    points = np.cumsum(np.stack([np.sin(heading), np.cos(heading)], 1), 0)
    points = points - (points.max(0) + points.min(0)) / 2
    points = points * 0.9 * size / max(np.ptp(points, axis=0).max(), 1e-6)
    _stroke(canvas, np.asarray(centre) + points, between(rng, 1.0, max(min(4.0, size / 12), 1.3)))
    return _opacity(canvas)


def _stroke(canvas: NDArray[np.uint8], points: NDArray[np.float64], width: float) -> None:
    """Draw a line through ``points`` [n, (row, column)]; one thinner than two pixels is fainter instead."""
    ends = [np.round(points[:, ::-1] * 8).astype(np.int32)]
    strength = int(255 * min(max(width / 1.6, 0.5), 1.0))
    cv2.polylines(canvas, ends, False, strength, max(round(width), 1), cv2.LINE_AA, 3)


def _opacity(canvas: NDArray[np.uint8], fade: float = 0.0, rng: Generator | None = None, cell: float = 1.0) -> Field:
    opacity = np.asarray(canvas.astype(np.float32) / 255, np.float32)
    if fade and rng is not None:
        uneven = 1 + np.float32(fade) * value_noise(rng, canvas.shape, max(cell, 3.0))
        opacity = np.asarray(np.clip(opacity * uneven, 0, 1), np.float32)
    return blur(opacity, 0.5)
