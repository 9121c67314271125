"""Flat and composed parts: boards, chips, connectors, plates, blisters, labels, keypads, zips, assemblies."""

import cv2
import numpy as np

from dictas.procedural.colours import colours, distinct_colours, mix, shade
from dictas.procedural.drawing import Stencil, material, paint, plane, words
from dictas.procedural.noise import Field, between, grain
from dictas.procedural.parts_round import METALS, ROUND_PARTS

Generator = np.random.Generator
SOLDER = np.asarray([0.75, 0.75, 0.72], np.float32)
GOLD = np.asarray([0.8, 0.65, 0.3], np.float32)
DARK = np.asarray([0.06, 0.06, 0.07], np.float32)


def board(look: Generator, rng: Generator, side: int) -> tuple[Field, Field]:
    """Circuit board: traces along eight directions, pads, chips with legs, small parts, print."""
    lacquer = (
        distinct_colours(look, 1)[0]
        if look.random() < 0.4
        else np.asarray([0.05, look.uniform(0.2, 0.4), 0.15], np.float32)
    )
    opaque = Stencil(side).box(0, 0, 1.9, look.uniform(1.2, 1.9), corner=0.05).mask
    picture = shade(lacquer, 1 + 0.04 * grain(rng, (side, side), 2))
    traces, pads, printed = Stencil(side), Stencil(side), Stencil(side)
    for _ in range(int(look.integers(8, 40))):
        point, way = look.uniform(-0.9, 0.9, 2), int(look.integers(8))
        points = [point]
        for _ in range(3):
            point = np.clip(
                point + look.uniform(0.05, 0.5) * np.asarray([np.cos(way * 0.7854), np.sin(way * 0.7854)]), -0.9, 0.9
            )
            way += int(look.integers(-1, 2))
            points.append(point)
        traces.line(points, look.uniform(0.008, 0.03))
        for x, y in (points[0], points[-1]):
            pads.disc(x, y, 0.03)
    picture = paint(picture, lacquer * np.float32(1.5) + np.float32(0.05), traces.mask * 0.8, 0.3, width=0.004)
    picture = paint(picture, SOLDER if look.random() < 0.5 else GOLD, pads.mask, 0.5, width=0.005)
    bodies, legs = Stencil(side), Stencil(side)
    for _ in range(int(look.integers(2, 14))):
        (x, y), (wide, tall) = look.uniform(-0.75, 0.75, 2), np.exp(look.uniform(-2.7, -0.7, 2))
        x, y = x + rng.normal(0, 0.004), y + rng.normal(0, 0.004)
        for leg in np.linspace(-0.42, 0.42, max(int(wide / 0.07), 1)) * wide:
            legs.box(x + leg, y, 0.03, tall + 0.1)
        bodies.box(x, y, wide, tall, corner=0.01)
        printed.text(words(look), x, y, min(0.3 * tall, 0.08))
    picture = paint(picture, SOLDER, legs.mask, 0.6, width=0.004)
    picture = paint(picture, colours(look, 1)[0] * np.float32(0.5), bodies.mask, 0.7, width=0.006)
    for _ in range(int(look.integers(0, 6))):
        x, y = look.uniform(-0.8, 0.8, 2)
        printed.text(words(look), x, y, 0.06)
    return paint(picture, np.asarray([0.9, 0.9, 0.88], np.float32), printed.mask * 0.8), opaque


def chip(look: Generator, rng: Generator, side: int) -> tuple[Field, Field]:
    """Transistor or chip: a moulded body with metal legs, tab and marking."""
    wide, tall, count = look.uniform(0.5, 1.1), look.uniform(0.4, 0.9), int(look.integers(2, 9))
    both, tab, thick = look.random() < 0.5, look.random() < 0.4, look.uniform(0.25, 0.6)
    metal, legs, body = material(look, rng, side, METALS), Stencil(side), Stencil(side)
    top = look.uniform(-0.45, -0.1)
    for leg in np.linspace(-0.42, 0.42, count) * wide:
        x = leg + rng.normal(0, 0.006)
        end = 0.9 + rng.normal(0, 0.01)
        legs.line([[leg, top], [x, end]], thick * wide / count)
        if both:
            legs.line([[leg, top], [x, top - (end - top) * 0.8]], thick * wide / count)
    if tab:
        legs.box(0, top - tall / 2, wide * 0.9, 0.5).disc(0, top - tall / 2 - 0.1, 0.08, 0)
    body.box(0, top, wide, tall, corner=look.uniform(0, 0.1))
    picture = paint(metal, metal, legs.mask, 0.6)
    picture = paint(
        picture, shade(colours(look, 1)[0] * np.float32(0.4), 1 + 0.08 * grain(rng, (side, side), 1.5)), body.mask, 0.8
    )
    marking = (
        Stencil(side)
        .text(words(look, 3, 7), 0, top - 0.1 * tall, 0.2 * tall)
        .text(words(look, 2, 6), 0, top + 0.2 * tall, 0.15 * tall)
    )
    picture = paint(picture, np.asarray([0.8, 0.8, 0.8], np.float32), marking.mask * np.float32(look.uniform(0.3, 0.9)))
    return picture, np.maximum(legs.mask, body.mask)


def connector(look: Generator, rng: Generator, side: int) -> tuple[Field, Field]:
    """Plug or socket: a housing with rows of cavities and pins."""
    rows, columns, wide, tall = (
        int(look.integers(1, 5)),
        int(look.integers(2, 13)),
        look.uniform(1.2, 1.8),
        look.uniform(0.4, 1.6),
    )
    square, open_, latch = look.random() < 0.6, look.uniform(0.5, 0.85), look.random() < 0.5
    housing, pin = material(look, rng, side, ("plain", "cast", "plain")), (SOLDER, GOLD)[look.integers(2)]
    body, holes, pins = Stencil(side).box(0, 0, wide, tall, corner=0.08), Stencil(side), Stencil(side)
    if latch:
        body.box(look.uniform(-0.3, 0.3), -tall / 2, 0.4, 0.2)
    step = min(0.9 * wide / columns, 0.9 * tall / rows)
    for row in range(rows):
        for column in range(columns):
            x, y = (column - (columns - 1) / 2) * 0.9 * wide / columns, (row - (rows - 1) / 2) * 0.9 * tall / rows
            if square:
                holes.box(x, y, open_ * step, open_ * step)
            else:
                holes.disc(x, y, open_ * step / 2)
            pins.box(x + rng.normal(0, 0.01) * step, y + rng.normal(0, 0.01) * step, 0.3 * step, 0.3 * step)
    picture = paint(housing, housing, body.mask, 0.7)
    picture = paint(picture, housing * np.float32(0.25), holes.mask, -0.5, width=0.006)
    return paint(picture, pin, pins.mask, 0.6, width=0.004), body.mask


def plate(look: Generator, rng: Generator, side: int) -> tuple[Field, Field]:
    """Stamped or milled plate, bracket or gasket: an outline with holes, slots and engraved marks."""
    corners, metal = int(look.integers(3, 9)), material(look, rng, side, (*METALS, "rolled", "brushed", "hammered"))
    turns = np.sort(np.arange(corners) + look.uniform(-0.3, 0.3, corners)) * 2 * np.pi / corners
    outline = np.stack([np.cos(turns), np.sin(turns)], 1) * look.uniform(0.65, 0.95, (corners, 1))
    if look.random() < 0.4:
        outline = np.asarray([[-0.9, -0.6], [0.9, -0.6], [0.9, 0.6], [-0.9, 0.6]]) * look.uniform(0.6, 1, 2)
    stencil = Stencil(side).polygon(outline)
    for _ in range(int(look.integers(0, 7))):
        x, y = look.uniform(-0.5, 0.5, 2)
        if look.random() < 0.6:
            stencil.disc(x, y, look.uniform(0.04, 0.18), 0)
        else:
            stencil.box(x, y, look.uniform(0.1, 0.5), look.uniform(0.05, 0.12), 0, 0.03)
    x, y = look.uniform(-0.3, 0.3, 2)
    engraved = Stencil(side).text(words(look), x, y, look.uniform(0.08, 0.2))
    picture = paint(metal, metal * np.float32(0.6), engraved.mask, -0.4, width=0.003)
    return paint(picture, picture, stencil.mask, look.uniform(0.3, 1.0)), stencil.mask


def blister(look: Generator, rng: Generator, side: int) -> tuple[Field, Field]:
    """Blister pack: pills in rows of pockets, each lying a little differently; trays of equal parts."""
    rows, columns, foil = int(look.integers(2, 6)), int(look.integers(2, 6)), colours(look, 1, 0.1)[0]
    inks, oblong, tilt = distinct_colours(look, 2), look.uniform(0.4, 1), look.uniform(0, 0.3)
    opaque = Stencil(side).box(0, 0, 1.85, 1.85, corner=0.1).mask
    pockets, pills = Stencil(side), Stencil(side)
    wide, tall = 1.7 / columns, 1.7 / rows
    size = 0.36 * min(wide, tall)
    for row in range(rows):
        for column in range(columns):
            x, y = (column - (columns - 1) / 2) * wide, (row - (rows - 1) / 2) * tall
            pockets.disc(x, y, 1.25 * size)
            turn, (dx, dy) = rng.normal(0, tilt), rng.normal(0, 0.06, 2) * size
            around = np.linspace(0, 2 * np.pi, 25)
            shape = np.stack([size * np.cos(around), size * oblong * np.sin(around)], 1)
            pills.polygon(
                shape @ np.asarray([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) + [x + dx, y + dy]
            )
    ridges = 1 + look.uniform(0, 0.08) * np.sin(np.add(*plane(side)) * look.uniform(60, 200)).astype(np.float32)
    picture = paint(shade(foil, ridges), foil * np.float32(0.85), pockets.mask, 0.8, width=0.012)
    return paint(picture, inks[0], pills.mask, 0.9, width=0.015), opaque


def label(look: Generator, rng: Generator, side: int) -> tuple[Field, Field]:
    """Printed label: lines of text, a bar code, a frame and a mark; the print sits a little off."""
    wide, tall, paper = (
        look.uniform(1.3, 1.9),
        look.uniform(0.8, 1.9),
        material(look, rng, side, ("plain", "plain", "specked", "glass")),
    )
    paper = mix(paper, np.ones(3, np.float32), np.full((side, side), look.uniform(0, 0.7), np.float32))
    inks, off = distinct_colours(look, 2) * np.float32(0.6), rng.normal(0, 0.01, 2)
    opaque = Stencil(side).box(0, 0, wide, tall, corner=look.uniform(0, 0.15)).mask
    text, marks = Stencil(side), Stencil(side)
    rows = int(look.integers(2, 7))
    for row in range(rows):
        y = (row + 0.5) / rows * 0.85 * tall - 0.43 * tall
        height, font = look.uniform(0.3, 0.8) * 0.6 * tall / rows, int(look.integers(4))
        line = words(look, 3, 9)
        width = min(height, 1.5 * wide / len(line))
        if look.random() < 0.25:
            edges = np.cumsum(look.integers(1, 5, 50)) * wide * 0.006 - 0.4 * wide
            for left, right in zip(edges[::2], edges[1::2], strict=True):
                marks.box((left + right) / 2 + off[0], y + off[1], right - left, 0.7 * tall / rows)
        else:
            text.text(line, off[0] + look.uniform(-0.1, 0.1), y + off[1], width, font, look.random() < 0.4)
    if look.random() < 0.4:
        corners = np.asarray([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [0.46 * wide, 0.46 * tall]
        marks.line(corners + off, 0.02, closed=True)
    picture = paint(paper, inks[0], text.mask * 0.95)
    return paint(picture, inks[1], marks.mask * 0.95), opaque


def keypad(look: Generator, rng: Generator, side: int) -> tuple[Field, Field]:
    """Keys, fuses or type-wheels in rows: equal blocks, each with its own figure."""
    rows, columns, inks = int(look.integers(2, 6)), int(look.integers(2, 6)), distinct_colours(look, 3)
    corner, gap, symbols = look.uniform(0, 0.08), look.uniform(0.7, 0.92), look.choice(list("0123456789ABCDEF*#+-"), 25)
    opaque = Stencil(side).box(0, 0, 1.85, 1.85, corner=0.08).mask
    keys, text = Stencil(side), Stencil(side)
    wide, tall = 1.7 / columns, 1.7 / rows
    for key in range(rows * columns):
        x, y = (key % columns - (columns - 1) / 2) * wide, (key // columns - (rows - 1) / 2) * tall
        keys.box(x, y, gap * wide, gap * tall, corner=corner)
        text.text(str(symbols[key]), x, y, 0.4 * min(wide, tall), 0, True)
    ground = paint(material(look, rng, side, ("plain", "cast", "brushed")), inks[2], opaque * 0.6)
    return paint(paint(ground, inks[0], keys.mask, 0.8), inks[1], text.mask * 0.95), opaque


def zipper(look: Generator, rng: Generator, side: int) -> tuple[Field, Field]:
    """Zip, chain, rack or belt: two rows of teeth on a band, evenly advancing."""
    pitch, reach, thick = between(look, 0.06, 0.25), look.uniform(0.12, 0.4), look.uniform(0.4, 0.75)
    inks, band, overlap = distinct_colours(look, 2), look.uniform(1.0, 1.9), look.uniform(-0.05, 0.1)
    start = rng.uniform(0, pitch)
    opaque = Stencil(side).box(0, 0, band, 2.1).mask
    teeth = Stencil(side)
    for number in range(int(2.4 / pitch) + 2):
        y, sign = -1.2 + start + number * pitch, (-1) ** number
        teeth.box(sign * (reach / 2 - overlap), y, reach, thick * pitch, corner=0.3 * thick * pitch)
    cloth = shade(inks[0], 1 + 0.15 * grain(rng, (side, side), 2))
    stitches = (
        Stencil(side).line([[-0.4 * band, -1], [-0.4 * band, 1]], 0.02).line([[0.4 * band, -1], [0.4 * band, 1]], 0.02)
    )
    cloth = paint(cloth, inks[0] * np.float32(0.6), stitches.mask, -0.4, width=0.004)
    return paint(cloth, inks[1], teeth.mask, 0.9, width=0.008), opaque


def assembly(look: Generator, rng: Generator, side: int) -> tuple[Field, Field]:
    """Several parts in fixed places, each moved and turned a little."""
    count, ground = int(look.integers(2, 6)), material(look, rng, side, (*METALS, "specked", "concrete"))
    opaque = Stencil(side).box(0, 0, 1.9, look.uniform(1.2, 1.9), corner=0.06).mask
    names = list(ROUND_PARTS | FLAT_PARTS)
    picture = paint(ground, ground, opaque, 0.5)
    columns = int(np.ceil(np.sqrt(count)))
    small = max(int(0.85 * side / columns), 24)
    for number in range(count):
        own = np.random.default_rng(int(look.integers(2**32)))
        name, angle = names[int(look.integers(len(names)))], float(look.choice([0, 90, 180, look.uniform(0, 360)]))
        part, cover = (ROUND_PARTS | FLAT_PARTS)[name](own, rng, small)
        matrix = cv2.getRotationMatrix2D((small / 2, small / 2), angle + rng.normal(0, 2), look.uniform(0.6, 1.0))
        place = (np.asarray([number % columns, number // columns]) + 0.5) * side / columns - small / 2
        matrix[0, 2] += place[0] + rng.normal(0, 0.005) * side
        matrix[1, 2] += place[1] + rng.normal(0, 0.005) * side
        laid = np.asarray(cv2.warpAffine(part, matrix, (side, side)), np.float32)
        mask = np.asarray(cv2.warpAffine(cover, matrix, (side, side)), np.float32)
        picture = mix(picture, laid, mask * opaque)
    return picture, opaque


FLAT_PARTS = {part.__name__: part for part in (board, chip, connector, plate, blister, label, keypad, zipper)}
PARTS = ROUND_PARTS | FLAT_PARTS | {"assembly": assembly}
