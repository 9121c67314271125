"""Materials with a repeat: cloth, meshes, tiles, stripes, holes, prints."""

import cv2
import numpy as np

from dictas.procedural.colours import colours, distinct_colours, mix, shade
from dictas.procedural.noise import Field, Painter, Shape, between, blur, fractal, grain, relief, value_noise

Generator = np.random.Generator
CORNERS = np.asarray([[-1, -1], [1, -1], [1, 1], [-1, 1]])
LINE = cv2.LINE_AA


def repeat(tile: Field, rng: Generator, shape: Shape, bend: float, cell: float) -> Field:
    """A tile [h, w(, 3)] over and over from a random start, warped by ``bend`` pixels of noise."""
    across = np.arange(shape[1], dtype=np.float32)[None] + np.float32(rng.uniform(0, tile.shape[1]))
    down = np.arange(shape[0], dtype=np.float32)[:, None] + np.float32(rng.uniform(0, tile.shape[0]))
    across = across + np.float32(bend) * value_noise(rng, shape, cell)
    down = down + np.float32(bend) * value_noise(rng, shape, cell)
    return np.asarray(cv2.remap(tile, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP), np.float32)


def _profile(count: int) -> Field:
    """A thread's height across it, [count]."""
    return np.sin(np.pi * (np.arange(count, dtype=np.float32) + 0.5) / count)


def cloth(look: Generator, rng: Generator, shape: Shape, unit: float) -> Field:
    """Plain weave, twill or satin of two yarns that are not quite even."""
    thread = max(round(between(look, 3, 16) * unit), 2)
    over, under = int(look.integers(1, 4)), int(look.integers(1, 3))
    step, yarn, depth = (
        int(look.integers(1, over + under)),
        colours(look, 2, look.uniform(0.05, 0.8)),
        look.uniform(0.2, 0.7),
    )
    bend, uneven, hairs = look.uniform(0, 0.3) * thread, between(look, 0.02, 0.15), between(look, 0.01, 0.1)
    count = over + under
    rows, columns = np.mgrid[:count, :count]
    lifted = np.kron((columns + step * rows) % count < over, np.ones((thread, thread))).astype(np.float32)
    hill = np.tile(_profile(thread), count)
    across, along = hill[None], hill[:, None]
    tone = lifted * across * (0.6 + 0.4 * along) + (1 - lifted) * along * (0.6 + 0.4 * across)
    tile = mix(yarn[0], yarn[1], lifted) * (1 - depth + depth * tone)[:, :, None]
    painted = repeat(np.asarray(tile, np.float32), rng, shape, bend, 40 * unit)
    tone = (
        1
        + uneven * value_noise(rng, shape, (thread, 60 * unit))
        + uneven * value_noise(rng, shape, (60 * unit, thread))
    )
    return shade(painted, tone + hairs * grain(rng, shape, 1.0))


def knit(look: Generator, rng: Generator, shape: Shape, unit: float) -> Field:
    """Knitted rows of V-shaped stitches, rope or herringbone."""
    wide, tall = max(int(between(look, 6, 30) * unit), 5), max(int(between(look, 5, 24) * unit), 4)
    slant, yarn, bend = look.uniform(0.3, 1.5), colours(look, 2, 0.6), look.uniform(0, 0.15)
    y, x = np.mgrid[:tall, :wide].astype(np.float32)
    phase = (y / tall + slant * np.abs(x / wide - 0.5) * 2) % 1
    tone = np.sin(np.pi * phase) * (0.5 + 0.5 * np.abs(np.sin(2 * np.pi * x / wide)))
    tile = mix(yarn[0] * np.float32(0.5), yarn[1], np.asarray(tone, np.float32))
    tone = 1 + 0.06 * fractal(rng, shape, (4 * unit, 8 * unit), 3)
    return shade(repeat(tile, rng, shape, bend * wide, 50 * unit), tone)


def mesh(look: Generator, rng: Generator, shape: Shape, unit: float) -> Field:
    """Wire grid, grille or graph paper over a ground."""
    tall, wide = (max(int(between(look, 7, 50) * unit), 5) for _ in range(2))
    if look.random() < 0.5:
        wide = tall
    wire, slant, bend = look.uniform(0.1, 0.45), look.random() < 0.4, look.uniform(0, 0.06)
    colour, dull = colours(look, 2, 1.0), look.uniform(0, 0.08)
    y, x = np.mgrid[:tall, :wide].astype(np.float32)
    u, v = x / wide, y / tall
    if slant:
        u, v = (u + v) % 1, (u - v) % 1
    near = np.minimum(np.abs(u - 0.5) * wide, np.abs(v - 0.5) * tall) / (wire * min(tall, wide) / 2)
    tile = mix(colour[0], colour[1], np.clip(2 - 2 * near, 0, 1)) * (1.15 - 0.3 * np.clip(near, 0, 1))[:, :, None]
    painted = repeat(np.asarray(tile, np.float32), rng, shape, bend * tall, 60 * unit)
    return shade(painted, 1 + dull * fractal(rng, shape, 20 * unit, 4))


def stripes(look: Generator, rng: Generator, shape: Shape, unit: float) -> Field:
    """Gratings, corduroy, corrugated board, milled grooves."""
    period, sharp, bend = between(look, 3.5, 60) * unit, between(look, 0.3, 6), look.uniform(0, 0.15)
    colour, fibre, second = colours(look, 2, 1.0), between(look, 0.01, 0.12), look.uniform(0, 0.5)
    phase = np.arange(shape[0], dtype=np.float32)[:, None] / np.float32(period) + np.float32(rng.random())
    phase = phase + np.float32(bend) * value_noise(rng, shape, (3 * period, 120 * unit))
    wave = np.sin(2 * np.pi * phase) + second * np.sin(4 * np.pi * phase + 1)
    tone = 0.5 + 0.5 * np.tanh(sharp * wave)
    lit = 1 + fibre * value_noise(rng, shape, (2 * unit, 25 * unit)) + 0.4 * fibre * grain(rng, shape, 1.0)
    return shade(mix(colour[0], colour[1], np.asarray(tone, np.float32)), lit)


def perforated(look: Generator, rng: Generator, shape: Shape, unit: float) -> Field:
    """Perforated plates, dots, studs, rivets: round, square or long, on a square or staggered grid."""
    tall, wide = (max(int(between(look, 9, 60) * unit), 7) for _ in range(2))
    if look.random() < 0.6:
        wide = tall
    staggered, square, radius = look.random() < 0.5, look.random() < 0.25, look.uniform(0.15, 0.42)
    ground, hole, raised = colours(look, 1)[0], colours(look, 1)[0], look.uniform(-0.5, 0.5)
    if look.random() < 0.5:
        hole = hole * np.float32(0.2)
    angle, dull = look.uniform(0, 6.28), look.uniform(0, 0.06)
    cover = np.zeros((tall * 4, wide * 4), np.float32)  # four times finer, then averaged
    for row, column in [(0.5, 0.5)] if not staggered else [(0.25, 0.25), (0.75, 0.75)]:
        centre = np.asarray([column * wide, row * tall]) * 4
        reach = np.asarray([wide, tall]) * 4 * radius * (0.7 if staggered else 1)
        if square:
            cv2.fillPoly(cover, [np.asarray(centre + reach * CORNERS, np.int32)], 1.0)
        else:
            cv2.ellipse(cover, tuple(map(int, centre)), tuple(map(int, reach)), 0, 0, 360, 1.0, -1)
    tile = np.asarray(cv2.resize(cover, (wide, tall), interpolation=cv2.INTER_AREA), np.float32)
    covered = repeat(tile, rng, shape, 0.01 * tall, 80 * unit)
    lit = 1 + raised * np.clip(relief(blur(covered, 0.8 * unit), angle) * 3 * unit, -1, 1)
    return shade(mix(ground, hole, covered), lit + dull * fractal(rng, shape, (3 * unit, 30 * unit), 3))


def bricks(look: Generator, rng: Generator, shape: Shape, unit: float) -> Field:
    """Tiles, bricks, planks, mosaic: joints around pieces that differ a little."""
    tall, wide = between(look, 12, 90) * unit, between(look, 12, 160) * unit
    joint, stagger = look.uniform(0.8, 5) * unit, look.choice([0, 0, 0.5, 0.33])
    colour, seam, differ = colours(look, 3, 0.3), colours(look, 1)[0], between(look, 0.01, 0.2)
    rough, round_, cloud = between(look, 0.01, 0.1), look.uniform(0, 0.4), between(look, 4, 40) * unit
    y = np.arange(shape[0], dtype=np.float32)[:, None] + np.float32(rng.uniform(0, tall))
    row = (y // tall).astype(int)
    x = (
        np.arange(shape[1], dtype=np.float32)[None]
        + np.float32(rng.uniform(0, wide))
        + np.float32(stagger * wide) * row
    )
    column = (x // wide).astype(int)
    piece = (row * 57 + column * 131) % 997
    wobble = 0.5 * unit * value_noise(rng, shape, 12 * unit)
    rim = np.minimum(np.minimum(x % wide, wide - x % wide), np.minimum(y % tall, tall - y % tall)) + wobble - joint / 2
    tone = (1 + differ * rng.normal(0, 1, 997).astype(np.float32))[piece] + rough * fractal(rng, shape, cloud, 4, 0.7)
    tone *= 1 - np.float32(round_) * np.exp(-np.maximum(rim, 0) / np.float32(2 * unit))
    pieces = colour[rng.choice(3, 997, p=[0.8, 0.15, 0.05])[piece]] * tone[:, :, None]
    return mix(shade(seam, 1 + 0.1 * grain(rng, shape, 1.5 * unit)), pieces, np.clip(rim, 0, 1).astype(np.float32))


def knurled(look: Generator, rng: Generator, shape: Shape, unit: float) -> Field:
    """Diamond or pyramid knurling, tread plates, hatching: two crossed waves, lit."""
    period, steep, angle = between(look, 5, 40) * unit, look.uniform(0.2, 0.7), look.uniform(0, 6.28)
    slant, sharp = look.uniform(0.5, 2), between(look, 0.5, 4)
    colour, dull = colours(look, 1)[0], between(look, 0.01, 0.06)
    y, x = np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)[None]
    first = (x + slant * y) / period + rng.random()
    second = (x - slant * y) / period + rng.random()
    height = np.tanh(sharp * np.sin(2 * np.pi * first)) + np.tanh(sharp * np.sin(2 * np.pi * second))
    lit = relief(np.asarray(height * period / 6, np.float32), angle)
    return shade(colour, 1 + steep * np.clip(lit, -1, 1) + 0.1 * height + dull * grain(rng, shape, 1.2 * unit))


def printed(look: Generator, rng: Generator, shape: Shape, unit: float) -> Field:
    """A printed motif of lines, discs, polygons and letters, over and over."""
    side = max(int(between(look, 24, 140) * unit), 12)
    paper, inks, count = colours(look, 1)[0], distinct_colours(look, 4), int(look.integers(2, 9))
    tile = np.tile(np.asarray(255 * paper, np.uint8), (side, side, 1))
    for _ in range(count):
        ink = tuple(map(int, 255 * inks[look.integers(4)]))
        kind, middle, reach = look.integers(4), look.random(2) * side, look.uniform(0.06, 0.3) * side
        corners = middle + reach * look.uniform(-1, 1, (int(look.integers(3, 6)), 2))
        for shift in np.mgrid[-1:2, -1:2].reshape(2, -1).T * side:  # what leaves on one side comes in on the other
            x, y = map(int, middle + shift)
            if kind == 0:
                cv2.circle(tile, (x, y), int(reach), ink, -1, LINE)
            elif kind == 1:
                cv2.circle(tile, (x, y), int(reach), ink, max(int(reach / 5), 1), LINE)
            elif kind == 2:
                cv2.fillPoly(tile, [np.asarray(corners + shift, np.int32)], ink, LINE)
            else:
                end = tuple(map(int, corners[0] + shift))
                cv2.line(tile, (x, y), end, ink, max(int(reach / 4), 1), LINE)
    painted = repeat(tile.astype(np.float32) / np.float32(255), rng, shape, look.uniform(0, 0.02) * side, 60 * unit)
    return shade(painted, 1 + between(look, 0.005, 0.04) * fractal(rng, shape, (2 * unit, 3 * unit), 3))


def honeycomb(look: Generator, rng: Generator, shape: Shape, unit: float) -> Field:
    """Hexagonal cells with walls; fish scales when squeezed."""
    period, wall = between(look, 9, 60) * unit, look.uniform(0.1, 0.4)
    colour, bend, squeeze = colours(look, 2, 0.9), look.uniform(0, 0.05), look.uniform(0.8, 1.3)
    y = np.arange(shape[0], dtype=np.float32)[:, None] / period * squeeze + rng.random()
    x = np.arange(shape[1], dtype=np.float32)[None] / period + rng.random() + bend * value_noise(rng, shape, 60 * unit)
    waves = [
        np.cos(2 * np.pi * (np.cos(turn) * x + np.sin(turn) * y) * 1.1547) for turn in (0, np.pi / 3, 2 * np.pi / 3)
    ]
    height = (waves[0] + waves[1] + waves[2]) / 3
    inside = np.clip((height + 0.3 - wall) * 6, 0, 1)
    tone = 1 + 0.15 * height + 0.05 * fractal(rng, shape, 15 * unit, 4)
    return shade(mix(colour[0], colour[1], np.asarray(inside, np.float32)), np.asarray(tone, np.float32))


PATTERNS: dict[str, Painter] = {
    painter.__name__: painter
    for painter in (cloth, knit, mesh, stripes, perforated, bricks, knurled, printed, honeycomb)
}
