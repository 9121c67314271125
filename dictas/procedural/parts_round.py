"""Parts with an axis: washers, gears, caps, nuts, tablets, capsules, screws, bottles, cables, dials, fruit."""

import numpy as np

from dictas.procedural.colours import colours, distinct_colours, mix, shade
from dictas.procedural.drawing import Stencil, material, paint, plane, polar, rounded, words
from dictas.procedural.noise import Field, between, value_noise

Generator = np.random.Generator
METALS = ("brushed", "rolled", "cast", "plain", "plain")


def disc(look: Generator, rng: Generator, side: int) -> tuple[Field, Field]:
    """Washer, gear, flange, bottle top, seen along the axis: teeth, rings, bore and bolt holes."""
    teeth, depth, square = (
        int(look.choice([0, 0, 0, 6, *look.integers(8, 60, 3)])),
        look.uniform(0.02, 0.15),
        between(look, 0.5, 6),
    )
    rings, bore, holes = (
        int(look.integers(0, 6)),
        look.uniform(0, 0.7) * (look.random() < 0.7),
        int(look.integers(0, 9)),
    )
    ringed, tones = np.sort(look.uniform(0.15, 0.85, rings)), look.uniform(0.55, 1.35, rings + 1)
    turned, shine, bolts = look.uniform(0, 0.12), look.uniform(0, 0.35), look.uniform(0.04, 0.1)
    groove, lamp = look.uniform(0.1, 0.8), look.uniform(0, 6.28)
    radius, angle = polar(side)
    rim = 0.88 - (0.5 * depth * (1 + np.tanh(square * np.sin(teeth * angle))) if teeth else 0)
    sharp = np.float32(side / 2)
    opaque = np.clip((rim - radius) * sharp, 0, 1) * np.clip((radius - bore) * sharp + 0.5, 0, 1)
    body = material(look, rng, side, METALS)
    tone = tones[np.searchsorted(ringed, radius)].astype(np.float32)
    for ring in ringed:
        tone *= 1 - np.float32(groove) * np.exp(-(((radius - ring) / 0.012) ** 2))
    grooves = np.interp(radius, np.linspace(0, 1.5, 400), rng.normal(0, 1, 400)).astype(np.float32)
    tone *= (1 + turned * grooves) * (1 + shine * np.cos(2 * (angle - lamp - rng.normal(0, 0.2))))
    drilled = Stencil(side)
    middle = look.uniform(bore + 0.1, 0.75) if bore < 0.55 else 0.0
    for hole in range(holes if middle else 0):
        turn = 2 * np.pi * hole / holes
        drilled.disc(middle * np.cos(turn), middle * np.sin(turn), bolts)
    picture = paint(
        shade(body, tone.astype(np.float32)), np.asarray([0.03, 0.03, 0.03], np.float32), drilled.mask, -0.8
    )
    lit = paint(picture, picture, np.asarray(opaque, np.float32), look.uniform(0, 0.8))
    return lit, np.asarray(opaque, np.float32)


def nut(look: Generator, rng: Generator, side: int) -> tuple[Field, Field]:
    """Hexagon (or other polygon) with a threaded bore and a chamfer."""
    corners, bore, thread = int(look.choice([4, 5, 6, 6, 6, 8])), look.uniform(0.25, 0.55), look.uniform(0.02, 0.08)
    turns = np.arange(corners) * 2 * np.pi / corners
    outline = 0.85 * np.stack([np.cos(turns), np.sin(turns)], 1)
    opaque = Stencil(side).polygon(outline).disc(0, 0, bore - thread, 0).mask
    body = material(look, rng, side, METALS)
    radius, angle = polar(side)
    chamfer = look.uniform(0.6, 0.8)
    body = shade(body, 1 - 0.3 * np.clip((radius - chamfer) * 8, 0, 1) * (0.5 + 0.5 * np.cos(angle + 2.2)))
    spiral = 0.5 + 0.4 * np.sin(40 * radius + angle)
    inside = np.clip((bore - radius) * side / 2, 0, 1)
    picture = mix(body, shade(body, spiral * np.float32(0.6)), inside.astype(np.float32))
    return paint(picture, picture, opaque, look.uniform(0.2, 0.9)), opaque


def tablet(look: Generator, rng: Generator, side: int) -> tuple[Field, Field]:
    """Round or oblong tablet, domed, with a score line or an embossed code, speckled in some classes."""
    long, flat, code = look.uniform(0.35, 1), look.uniform(1, 6), words(look, 1, 5)
    scored, embossed, depth = look.random() < 0.4, look.random() < 0.6, look.uniform(-0.8, 0.6)
    opaque = Stencil(side).box(0, 0, 1.7, 1.7 * long, corner=0.85 * long).mask
    body = material(look, rng, side, ("plain", "plain", "specked", "concrete", "granite"))
    x, y = plane(side)
    away = np.clip(np.maximum(np.abs(x) - 0.85 * (1 - long), 0) ** 2 + y**2, 0, None) / (0.85 * long) ** 2
    dome = 1 - 0.35 * np.clip(away, 0, 1.2) ** np.float32(flat) - 0.12 * (x + y)
    marks = Stencil(side)
    if scored:
        marks.line([[0, -1], [0, 1]], 0.04)
    if embossed:
        marks.text(code, 0, 0, 0.5 * long, int(look.integers(4)))
    picture = paint(shade(body, dome), np.asarray([0.7, 0.7, 0.7], np.float32) * body, marks.mask * 0.25, depth)
    return picture, opaque


def capsule(look: Generator, rng: Generator, side: int) -> tuple[Field, Field]:
    """Gelatine capsule of two colours with a print and a gloss."""
    thick, seam, inks = look.uniform(0.3, 0.6), look.uniform(-0.3, 0.3), distinct_colours(look, 3)
    code, gloss, where = words(look, 2, 8), look.uniform(0, 0.5), look.uniform(-0.5, -0.1)
    opaque = Stencil(side).box(0, 0, 1.8, thick * 2 * 0.9, corner=0.9 * thick).mask
    x, y = plane(side)
    across = y / np.float32(0.9 * thick)
    step = np.clip((x - seam - rng.normal(0, 0.02)) * side / 2, 0, 1) + 0 * y
    body = shade(mix(inks[0], inks[1], step.astype(np.float32)), rounded(across + 0 * x) * 1.15)
    printed = Stencil(side).text(code, 0, rng.normal(0, 0.04), 0.3 * thick, int(look.integers(4)))
    body = paint(body, inks[2], printed.mask * 0.8)
    shine = gloss * np.exp(-(((across - where) / 0.12) ** 2)) + 0 * x
    return np.asarray(body + shine[:, :, None], np.float32), opaque


def screw(look: Generator, rng: Generator, side: int) -> tuple[Field, Field]:
    """Screw, bolt, pin or nail from the side: head, shank, thread, tip."""
    head, shank, radius = look.uniform(0.08, 0.35), look.uniform(0, 0.5), look.uniform(0.08, 0.24)
    wide, tip, pitch = radius * look.uniform(1.3, 2.4), look.uniform(0, 0.3), between(look, 0.03, 0.12)
    tapered, deep, threaded = look.random() < 0.5, look.uniform(0.08, 0.3), look.random() < 0.85
    x, y = plane(side)
    x = x[0]
    start = -0.92 + head
    profile = np.where(x < start, wide * (1 - (0.7 * (x + 0.92) / head if tapered else 0)), radius)
    profile = np.where(x > 0.92 - tip, radius * np.clip((0.92 - x) / max(tip, 0.02), 0, 1), profile)
    phase = 2 * np.pi * x / pitch + rng.uniform(0, 6.28)
    cut = threaded & (x > start + shank * 0.5)
    profile = np.where(cut, profile * (1 - deep * (0.5 + 0.5 * np.sin(phase))), profile)
    profile = np.where(np.abs(x) > 0.92, 0, profile)[None]
    opaque = np.clip((profile - np.abs(y)) * side / 2 + 0.5, 0, 1).astype(np.float32)
    across = np.clip(y / np.maximum(profile, 1e-3), -1, 1).astype(np.float32)
    slanted = np.where(cut[None], 1 + 0.35 * np.sin(phase[None] + 1.5 + 2.0 * y / max(radius, 0.05)), 1)
    body = material(look, rng, side, METALS)
    return shade(body, (rounded(across) * slanted * 1.2).astype(np.float32)), opaque


def bottle(look: Generator, rng: Generator, side: int) -> tuple[Field, Field]:
    """Bottle, vial, tube, vase: a turned outline with bands and in some classes a label."""
    knots = look.uniform(0.15, 0.5, 6)
    knots[-2:] = knots[-2:].mean()
    x, y = plane(side)
    where = np.linspace(-0.92, 0.92, 6)
    profile = np.interp(y[:, 0], where, knots)
    smooth = np.convolve(np.pad(profile, side // 12, "edge"), np.ones(side // 6 + 1) / (side // 6 + 1), "same")
    profile = smooth[side // 12 : side // 12 + side][:, None]
    profile = np.where(np.abs(y) > 0.92, 0, profile)
    opaque = np.clip((profile - np.abs(x)) * side / 2 + 0.5, 0, 1).astype(np.float32)
    across = np.clip(x / np.maximum(profile, 1e-3), -1, 1).astype(np.float32)
    inks, labelled, code = distinct_colours(look, 4), look.random() < 0.6, words(look, 3, 7)
    bands = np.sort(look.uniform(-0.9, 0.9, int(look.integers(0, 5))))
    tones = look.uniform(0.6, 1.3, len(bands) + 1)[np.searchsorted(bands, y)]
    body = shade(inks[0], (tones * rounded(across) * 1.2).astype(np.float32))
    if labelled:
        top, tall = look.uniform(-0.3, 0.5), look.uniform(0.3, 0.6)
        band = Stencil(side).box(0, top + rng.normal(0, 0.01), 2, tall).mask
        printed = Stencil(side).text(code, rng.normal(0, 0.02), top, 0.22, int(look.integers(4)), True)
        body = paint(body, shade(inks[1], rounded(across)), band)
        body = paint(body, inks[2], printed.mask * 0.9)
    gleam = look.uniform(0, 0.6) * np.exp(-(((across + look.uniform(0.3, 0.7)) / 0.1) ** 2)) * opaque
    return np.asarray(body + gleam[:, :, None], np.float32), opaque


def cable(look: Generator, rng: Generator, side: int) -> tuple[Field, Field]:
    """Section through a cable: a sheath, insulated cores, each a bundle of copper strands."""
    cores, inks, sheath = int(look.choice([1, 2, 3, 3, 4, 5, 7])), distinct_colours(look, 7), colours(look, 2, 0.3)
    strands, metal = (
        int(look.integers(7, 60)),
        np.asarray([[0.75, 0.45, 0.25], [0.75, 0.75, 0.75]][look.integers(2)], np.float32),
    )
    insulation, wall = look.uniform(0.55, 0.85), look.uniform(0.04, 0.15)
    opaque = Stencil(side).disc(0, 0, 0.9).mask
    picture = paint(material(look, rng, side, ("plain", "cast", "concrete")), sheath[0], opaque * 0.7, 0.4)
    picture = paint(picture, sheath[1], Stencil(side).disc(0, 0, 0.9 - wall).mask, -0.3)
    room = 0.9 - wall
    radius = room if cores == 1 else room / (1 + 1 / np.sin(np.pi / max(cores, 2)))
    spin = rng.uniform(0, 6.28)
    for core in range(cores):
        turn = spin + 2 * np.pi * core / cores
        far = (room - radius) * (cores > 1)
        x, y = far * np.cos(turn) + rng.normal(0, 0.008), far * np.sin(turn) + rng.normal(0, 0.008)
        picture = paint(picture, inks[core], Stencil(side).disc(x, y, radius * 0.97).mask, 0.4)
        inner, thin = radius * insulation, radius * insulation / np.sqrt(strands)
        around = np.arange(strands) * 2.39996 + rng.uniform(0, 6.28)  # the golden angle packs discs evenly
        out = (inner - thin) * np.sqrt((np.arange(strands) + 0.5) / strands) + rng.normal(0, 0.08 * thin, strands)
        bundle = Stencil(side)
        for away, at in zip(out, around, strict=True):
            bundle.disc(x + away * np.cos(at), y + away * np.sin(at), 0.92 * thin)
        picture = paint(picture, inks[core] * np.float32(0.25), Stencil(side).disc(x, y, inner).mask)
        picture = paint(
            picture,
            shade(metal, 1 + 0.15 * value_noise(rng, (side, side), thin * side / 2)),
            bundle.mask,
            0.6,
            width=0.004,
        )
    return picture, opaque


def dial(look: Generator, rng: Generator, side: int) -> tuple[Field, Field]:
    """Gauge, knob scale or clock: ticks, figures and a pointer that stands where it likes."""
    ticks, long, face = int(look.integers(8, 61)), int(look.integers(2, 6)), distinct_colours(look, 3)
    sweep, from_, figures = look.uniform(3, 6.28), look.uniform(0, 6.28), look.random() < 0.7
    opaque = Stencil(side).disc(0, 0, 0.92).mask
    picture = paint(
        material(look, rng, side, METALS), face[0], Stencil(side).disc(0, 0, look.uniform(0.78, 0.88)).mask, -0.6
    )
    marks = Stencil(side)
    for tick in range(ticks):
        turn = from_ + sweep * tick / (ticks - 1)
        way = np.asarray([np.cos(turn), np.sin(turn)])
        main = tick % long == 0
        marks.line([0.74 * way, (0.6 if main else 0.67) * way], 0.025 if main else 0.01)
        if main and figures:
            marks.text(str(tick // long), 0.48 * way[0], 0.48 * way[1], 0.09)
    picture = paint(picture, face[1], marks.mask)
    turn = from_ + sweep * rng.uniform(0, 1)
    way = np.asarray([np.cos(turn), np.sin(turn)])
    hand = Stencil(side).line([-0.1 * way, 0.62 * way], 0.03).disc(0, 0, 0.08).mask
    return paint(picture, face[2], hand, 0.5), opaque


def fruit(look: Generator, rng: Generator, side: int) -> tuple[Field, Field]:
    """Nut, fruit, stone, bread: a lump of varying outline with a natural skin."""
    long, rough, pointed = look.uniform(0.5, 1), look.uniform(0.01, 0.08), look.uniform(-0.25, 0.25)
    radius, angle = polar(side)
    around = np.linspace(-np.pi, np.pi, 181)
    outline = 0.8 / np.hypot(np.cos(around), np.sin(around) / long) * (1 + pointed * np.cos(around) * 0.5)
    for order in range(2, 9):
        outline = outline * (1 + rough / order * 2 * rng.normal() * np.cos(order * around + rng.uniform(0, 6.28)))
    rim = np.interp(angle, around, np.minimum(outline, 0.95)).astype(np.float32)
    opaque = np.clip((rim - radius) * side / 2, 0, 1).astype(np.float32)
    skin = material(look, rng, side, ("wood", "fur", "leather", "marble", "concrete", "granite", "specked", "hammered"))
    height = np.sqrt(np.clip(1 - (radius / rim) ** 2, 0, 1))
    x, y = plane(side)
    return shade(skin, (0.3 + 0.75 * height - 0.2 * (x + y)).astype(np.float32)), opaque


ROUND_PARTS = {part.__name__: part for part in (disc, nut, tablet, capsule, screw, bottle, cable, dial, fruit)}
