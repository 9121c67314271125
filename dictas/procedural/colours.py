"""Colours of materials and how fields of numbers take them on."""

import cv2
import numpy as np

from dictas.procedural.noise import Field

STEPS = 1024
"""Colours of a ramp."""


def colours(look: np.random.Generator, count: int, spread: float = 0.3) -> Field:
    """``count`` colours of one material, [count, 3] in 0..1, mostly muted.

    Args:
        spread: how far their brightness differs, 0 (not at all) .. 1.
    """
    grey = look.random() < 0.4
    hue = look.uniform(0, 360)
    saturation = 0.0 if grey else look.beta(1.1, 3.5)
    value = look.uniform(0.22, 0.88)
    hsv = np.empty((count, 3))
    hsv[:, 0] = hue + look.normal(0, 25, count)
    hsv[:, 1] = 0.0 if grey else saturation + look.normal(0, 0.08, count)
    hsv[:, 2] = value + spread * look.uniform(-0.6, 0.6, count)
    return _rgb(hsv)


def distinct_colours(look: np.random.Generator, count: int) -> Field:
    """``count`` unrelated colours [count, 3] in 0..1, as of print, plastics and wires."""
    hsv = np.stack([look.uniform(0, 360, count), look.beta(1.5, 1.5, count), look.uniform(0.1, 0.95, count)], 1)
    hsv[look.random(count) < 0.25, 1] = 0.0
    return _rgb(hsv)


def _rgb(hsv: np.ndarray) -> Field:
    hsv[:, 0] %= 360
    hsv[:, 1:] = np.clip(hsv[:, 1:], [0, 0.06], [0.9, 0.96])
    return np.asarray(cv2.cvtColor(hsv[None].astype(np.float32), cv2.COLOR_HSV2RGB)[0], np.float32)


def ramp(values: Field, stops: Field) -> Field:
    """Numbers [H, W] in 0..1 (clipped) as colours [H, W, 3] on the way through ``stops`` [n, 3]."""
    where = np.linspace(0, 1, len(stops))
    table = np.stack([np.interp(np.linspace(0, 1, STEPS), where, channel) for channel in stops.T], 1).astype(np.float32)
    return np.take(table, (np.clip(values, 0, 1) * (STEPS - 1)).astype(np.int16), axis=0)


def tripled(values: Field) -> Field:
    """[H, W] -> [H, W, 3], the same in each channel. Arithmetic with it is far faster than broadcasting [H, W, 1]."""
    channel = np.asarray(values, np.float32)
    return np.asarray(cv2.merge((channel, channel, channel)), np.float32)


def shade(colour: Field, tone: Field) -> Field:
    """One colour [3] or colours [H, W, 3], made brighter or darker by ``tone`` [H, W] around 1."""
    if colour.ndim == 1:
        channel = np.asarray(tone, np.float32)
        return np.asarray(cv2.merge([channel * part for part in colour.astype(np.float32)]), np.float32)
    return np.asarray(cv2.multiply(colour, tripled(tone)), np.float32)


def mix(below: Field, above: Field, weight: Field) -> Field:
    """Colours [H, W, 3] or [3], with ``above`` showing by ``weight`` [H, W] in 0..1."""
    if below.ndim == 1 and above.ndim == 1:
        return shade(above - below, weight) + below.astype(np.float32)
    if above.ndim == 1:
        return shade(below, 1 - weight) + shade(above, weight)
    share = tripled(weight)
    if below.ndim == 1:
        return shade(below, 1 - weight) + above * share
    return np.asarray(below + (above - below) * share, np.float32)
