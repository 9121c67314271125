"""Materials without a repeat: metals, stone, wood, leather, foam and the like, painted with their grain along rows."""

import cv2
import numpy as np

from dictas.procedural.colours import colours, distinct_colours, mix, ramp, shade
from dictas.procedural.noise import (
    Field,
    Painter,
    Shape,
    between,
    blur,
    cells,
    fractal,
    grain,
    relief,
    ripples,
    value_noise,
    warp,
)

Generator = np.random.Generator


def brushed(look: Generator, rng: Generator, shape: Shape, unit: float) -> Field:
    """Ground or brushed metal: streaks of two widths, bands and, in some classes, the scratches of the grinding."""
    width, length = between(look, 0.6, 4) * unit, between(look, 25, 500) * unit
    amounts = between(look, 0.01, 0.1), between(look, 0.01, 0.08), between(look, 0.005, 0.06), between(look, 0.005, 0.1)
    colour, scratches, bright = colours(look, 1)[0], max(look.normal(0, 25), 0.0), look.uniform(-0.2, 0.25)
    tone = 1 + amounts[0] * value_noise(rng, shape, (width, length))
    tone += amounts[1] * value_noise(rng, shape, (1.0, length / 4)) + amounts[3] * value_noise(rng, shape, 110 * unit)
    tone += amounts[2] * value_noise(rng, shape, (12 * width, 4 * length))
    marks = np.zeros(shape, np.uint8)
    for _ in range(rng.poisson(scratches)):
        y, x, slope = rng.uniform(0, shape[0]), rng.uniform(-0.2, 1) * shape[1], rng.normal(0, 0.03)
        reach = between(rng, 10, 120) * unit
        ends = (int(x), int(y)), (int(x + reach), int(y + slope * reach))
        cv2.line(marks, *ends, int(255 * rng.uniform(0.3, 1)), 1, cv2.LINE_AA)
    return shade(colour, tone + np.float32(bright / 255) * marks)


def rolled(look: Generator, rng: Generator, shape: Shape, unit: float) -> Field:
    """Rolled sheet: broad soft bands along the rows under fine grain and clouds."""
    band, length = between(look, 6, 50) * unit, between(look, 300, 3000) * unit
    amounts = between(look, 0.01, 0.12), between(look, 0.01, 0.06), between(look, 0.005, 0.08)
    colour, fine, cloud = colours(look, 1)[0], between(look, 0.7, 3) * unit, between(look, 30, 200) * unit
    tone = 1 + amounts[0] * fractal(rng, shape, (band, length), 3, 0.6) + amounts[1] * grain(rng, shape, fine)
    return shade(colour, tone + amounts[2] * fractal(rng, shape, cloud, 3))


def cast(look: Generator, rng: Generator, shape: Shape, unit: float) -> Field:
    """Sandblasted, cast or painted grain, lit from one side."""
    width, height = between(look, 0.8, 7) * unit, between(look, 0.03, 0.25)
    angle, colour, stain = look.uniform(0, 6.28), colours(look, 1)[0], between(look, 0.005, 0.1)
    rough = grain(rng, shape, width)
    if look.random() < 0.5:
        rough = np.abs(rough)
    lit = relief(rough, angle)
    tone = 1 + height * lit / max(float(lit.std()), 1e-6) * 0.7 + stain * fractal(rng, shape, 90 * unit, 3)
    return shade(colour, tone)


def hammered(look: Generator, rng: Generator, shape: Shape, unit: float) -> Field:
    """Dents or orange peel: smooth bumps of one size with highlights."""
    size, depth, gloss = between(look, 5, 40) * unit, look.uniform(0.05, 0.3), look.uniform(0, 0.5)
    angle, colour = look.uniform(0, 6.28), colours(look, 1)[0]
    lit = relief(ripples(rng, shape, size) * size, angle)
    lit /= max(float(lit.std()), 1e-6)
    return shade(colour, 1 + depth * lit) + np.float32(gloss) * np.clip(lit - 1.5, 0, 1)[:, :, None]


def marble(look: Generator, rng: Generator, shape: Shape, unit: float) -> Field:
    """Clouds and veins, warped."""
    size, vein, bend = between(look, 20, 160) * unit, look.uniform(0, 1), look.uniform(0, 0.5)
    stops, contrast, gain = colours(look, 4, look.uniform(0.1, 0.8)), look.uniform(0.08, 0.28), look.uniform(0.4, 0.7)
    sharp = between(look, 3, 15)
    clouds = fractal(rng, shape, size, 5, gain)
    veins = np.exp(-sharp * np.abs(fractal(rng, shape, size * 1.2, 4, 0.5)))
    field = 0.5 + contrast * clouds - np.float32(0.5 * vein) * veins
    return ramp(warp(np.asarray(field, np.float32), rng, bend * size, size), stops)


def concrete(look: Generator, rng: Generator, shape: Shape, unit: float) -> Field:
    """Concrete, plaster or biscuit: clouds, sand and pores of a usual size and number."""
    colour, cloud, sand = colours(look, 1)[0], between(look, 0.01, 0.1), between(look, 0.01, 0.12)
    pore, rate, depth = between(look, 1.5, 6) * unit, between(look, 0.0005, 0.03), look.uniform(0.1, 0.6)
    width = between(look, 1, 3) * unit
    tone = 1 + cloud * fractal(rng, shape, 70 * unit, 5, 0.6) + sand * grain(rng, shape, width)
    spots = grain(rng, shape, pore * 2)
    rare = np.float32(2.3 - 0.25 * np.log(rate / 0.005))
    return shade(colour, tone * (1 - depth * np.clip(3 * (spots - rare), 0, 1)))


def leather(look: Generator, rng: Generator, shape: Shape, unit: float) -> Field:
    """Cells with grooves between, warped and lit: leather, cracked glaze, scales, skin."""
    size, stretch, groove = between(look, 5, 40) * unit, look.uniform(1, 2.2), between(look, 0.06, 0.3)
    colour, angle, depth = colours(look, 1)[0], look.uniform(0, 6.28), look.uniform(0.1, 0.5)
    dark, soft = look.uniform(0.0, 0.6), look.uniform(0.1, 0.35)
    _, rim = cells(rng, shape, size, stretch)
    height = 1 - np.exp(-rim / (groove * size))
    height = warp(blur(height, max(soft * groove * size, 0.6)), rng, 0.12 * size, size)
    lit = relief(height + 0.15 * grain(rng, shape, size / 4), angle) * size
    return shade(colour, 1 - dark * (1 - height) + depth * np.clip(lit, -1, 1))


def facets(look: Generator, rng: Generator, shape: Shape, unit: float) -> Field:
    """Crystals, spangle of galvanised steel or chips pressed to a board: cells, each of its own brightness."""
    size, stretch, contrast = between(look, 5, 50) * unit, look.uniform(1, 3), between(look, 0.03, 0.3)
    stops, streak, seam = colours(look, 3, 0.2), look.uniform(0, 0.1), look.uniform(0, 0.3)
    numbers, rim = cells(rng, shape, size, stretch)
    table = np.clip(rng.normal(0.5, contrast, 997), 0, 1).astype(np.float32)
    field = table[numbers % 997] + streak * value_noise(rng, shape, (1.5 * unit, 20 * unit))
    painted = ramp(np.asarray(field, np.float32), stops)
    return shade(painted, 1 - seam * np.exp(-rim / np.float32(0.8 * unit)))


def terrazzo(look: Generator, rng: Generator, shape: Shape, unit: float) -> Field:
    """Chips of several colours in a binder."""
    size, gap = between(look, 8, 45) * unit, look.uniform(0.06, 0.3)
    binder, chips = colours(look, 1)[0], distinct_colours(look, 5)
    chips = binder + (chips - binder) * np.float32(look.uniform(0.15, 1))
    sand, share = between(look, 0.01, 0.08), look.uniform(0.3, 1)
    numbers, rim = cells(rng, shape, size)
    table = rng.integers(0, 5, 997)
    shown = (rng.random(997) < share)[numbers % 997] * np.clip(rim - gap * size * rng.random(997)[numbers % 997], 0, 1)
    painted = mix(binder, chips[table[numbers % 997]], shown.astype(np.float32))
    return shade(painted, 1 + sand * grain(rng, shape, 1.5 * unit))


def granite(look: Generator, rng: Generator, shape: Shape, unit: float) -> Field:
    """Specks of three minerals, coarse or fine."""
    size, soft, stops = between(look, 1.5, 12) * unit, between(look, 0.1, 1.5), colours(look, 4, look.uniform(0.2, 1))
    levels = look.uniform(-0.8, 1.8, 2)
    painted = mix(stops[0], stops[1], np.clip(grain(rng, shape, 2 * size) / soft, 0, 1))
    for stop, level in zip(stops[2:], levels, strict=True):
        painted = mix(painted, stop, np.clip((grain(rng, shape, size) - np.float32(level)) / soft, 0, 1))
    return painted


def wood(look: Generator, rng: Generator, shape: Shape, unit: float) -> Field:
    """Growth rings and fibres along the rows, with knots in some classes."""
    ring, bend, sharp = between(look, 4, 40) * unit, look.uniform(0.2, 1.6), look.uniform(0.6, 4)
    fibre, contrast, length = between(look, 0.01, 0.12), look.uniform(0.1, 0.6), between(look, 60, 400) * unit
    stops, knots = colours(look, 3, 0.35), max(look.normal(-0.5, 2), 0.0)
    if look.random() < 0.6:
        stops = np.asarray([[0.72, 0.52, 0.32], [0.58, 0.37, 0.2], [0.4, 0.24, 0.12]], np.float32) * np.float32(
            look.uniform(0.7, 1.3)
        )
    y, x = np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)[None]
    phase = y / ring + bend * value_noise(rng, shape, (5 * ring, length)) * 2 + rng.uniform(0, 9)
    for _ in range(rng.poisson(knots)):
        centre, radius = rng.random(2) * shape, between(rng, 5, 14) * unit
        away = np.hypot((y - centre[0]), (x - centre[1]) / 1.6) / radius
        phase = phase + 2.5 * np.exp(-((away / 1.8) ** 2)) * np.sign(y - centre[0] + 1e-3) * np.minimum(away, 1)
        phase = phase + np.clip(1.4 - away, 0, 1) * 3
    rings = (phase % 1) ** np.float32(sharp)
    smooth = blur(rings.astype(np.float32), max(0.08 * ring, 0.5))
    tone = contrast * smooth + 0.5 - contrast / 2 + fibre * value_noise(rng, shape, (1.0 * unit, 45 * unit))
    return ramp(tone + 0.05 * value_noise(rng, shape, (40 * unit, length)), stops)


def plain(look: Generator, rng: Generator, shape: Shape, unit: float) -> Field:
    """Paper, plastic, paint: almost nothing to see."""
    colour, cloud, fine = colours(look, 1)[0], between(look, 0.002, 0.03), between(look, 0.001, 0.02)
    width = between(look, 1, 6) * unit
    return shade(colour, 1 + cloud * fractal(rng, shape, 60 * unit, 3) + fine * grain(rng, shape, width))


def specked(look: Generator, rng: Generator, shape: Shape, unit: float) -> Field:
    """Recycled paper, foam or enamel: a smooth ground with a usual number of specks, pores or fibres."""
    ground, speck = colours(look, 1)[0], colours(look, 1)[0]
    number, size, fibres = between(look, 15, 400), between(look, 0.8, 4), look.random() < 0.4
    marks = np.zeros(shape, np.uint8)
    for _ in range(rng.poisson(number * shape[0] * shape[1] / (256 * unit) ** 2)):
        x, y = rng.random(2) * shape[::-1]
        reach = size * rng.lognormal(0, 0.4) * unit
        strength = int(255 * rng.uniform(0.3, 1))
        if fibres:
            turn = rng.uniform(0, 6.28)
            end = (int(x + 5 * reach * np.cos(turn)), int(y + 5 * reach * np.sin(turn)))
            cv2.line(marks, (int(x), int(y)), end, strength, 1, cv2.LINE_AA)
        else:
            cv2.circle(marks, (int(x * 8), int(y * 8)), int(reach * 8), strength, -1, cv2.LINE_AA, 3)
    painted = mix(ground, speck, blur(marks.astype(np.float32), 0.7) / np.float32(255))
    return shade(painted, 1 + 0.01 * fractal(rng, shape, 50 * unit, 3))


def fur(look: Generator, rng: Generator, shape: Shape, unit: float) -> Field:
    """Carpet, felt, fur or grass: short hairs that flow."""
    width, length = between(look, 0.7, 3) * unit, between(look, 6, 50) * unit
    swirl, contrast = look.uniform(0.1, 1.2), between(look, 0.04, 0.25)
    stops, octaves = colours(look, 3, 0.5), int(look.integers(1, 4))
    hairs = fractal(rng, shape, (width, length), octaves, 0.8)
    hairs = warp(hairs, rng, swirl * length * 0.6, 1.5 * length)
    return ramp(0.5 + contrast * hairs + 0.03 * value_noise(rng, shape, 60 * unit), stops)


def labyrinth(look: Generator, rng: Generator, shape: Shape, unit: float) -> Field:
    """Spots, bubbles or winding stripes of one wavelength, as reaction and diffusion make them."""
    size, level, soft = between(look, 5, 36) * unit, look.uniform(-1, 1), between(look, 0.1, 1.5)
    stops, depth, angle = colours(look, 2, 0.7), look.uniform(0, 0.4), look.uniform(0, 6.28)
    height = np.clip(0.5 + (ripples(rng, shape, size) - np.float32(level)) / soft, 0, 1).astype(np.float32)
    lit = np.clip(relief(height, angle) * np.float32(size / 2), -1, 1)
    return shade(ramp(height, stops), 1 + np.float32(depth) * lit)


def glass(look: Generator, rng: Generator, shape: Shape, unit: float) -> Field:
    """Glass, film or gloss paint: wide gradients and reflections with edges, at a place that varies a little."""
    stops, count = colours(look, 3, 0.8), int(look.integers(0, 4))
    turn, bend, ghost = look.uniform(0, 6.28), look.uniform(0, 0.3), look.uniform(0, 0.15)
    y, x = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None], np.linspace(-1, 1, shape[1], dtype=np.float32)[None]
    along = np.float32(np.cos(turn)) * x + np.float32(np.sin(turn)) * y + rng.normal(0, 0.05)
    across = np.float32(np.cos(turn)) * y - np.float32(np.sin(turn)) * x + bend * along**2
    painted = ramp(np.asarray(0.5 + 0.3 * along + 0.1 * value_noise(rng, shape, 150 * unit), np.float32), stops)
    for middle, width in zip(look.uniform(-0.9, 0.9, count), look.uniform(0.02, 0.3, count), strict=True):
        edge = (width - np.abs(across - middle - rng.normal(0, 0.03))) * 40
        painted = painted + np.float32(ghost) * np.clip(edge, 0, 1)[:, :, None]
    return np.asarray(painted, np.float32)


SURFACES: dict[str, Painter] = {
    painter.__name__: painter
    for painter in (
        brushed, rolled, cast, hammered, marble, concrete, leather, facets, terrazzo,
        granite, wood, plain, specked, fur, labyrinth, glass,
    )
}  # fmt: skip
