"""How well defects are found that no part of the program made: textures and defects of this file only.

Training never sees these: they share no code with `dictas.procedural` or `dictas.synthesis`. Each class is a
stationary random texture (noise with a random spectrum, seen through a random tone curve, or a lattice of random
shape) in which each photo has a light of its own; a defect is a blob, line or piece of another class pasted in.

    python benchmarks/held_out_textures.py [--classes 20] [--shots 4] [--json FILE]
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 384
Photo = NDArray[np.uint8]
Sampler = Callable[[np.random.Generator], Photo]


def texture_class(seed: int) -> Sampler:
    """A function that makes another photo, uint8 [384, 384, 3], of one texture each time it is called."""
    look = np.random.default_rng((20_251, seed))
    frequencies = np.stack(np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE), indexing="ij"))
    angle, stretch = look.uniform(0, np.pi), np.exp(look.uniform(0, 2))
    turned = np.stack(
        [
            np.cos(angle) * frequencies[0] - np.sin(angle) * frequencies[1],
            stretch * (np.sin(angle) * frequencies[0] + np.cos(angle) * frequencies[1]),
        ]
    )
    radius = np.hypot(*turned)
    peak, width = np.exp(look.uniform(np.log(0.01), np.log(0.15))), look.uniform(0.3, 1.0)
    spectrum = np.exp(-((np.log(radius + 1e-6) - np.log(peak)) ** 2) / (2 * width**2))
    dark, bright = look.uniform(0.1, 0.5, 3), look.uniform(0.45, 0.9, 3)
    if look.random() < 0.4:
        dark, bright = np.repeat(dark[:1], 3), np.repeat(bright[:1], 3)
    contrast = look.uniform(0.4, 1.5)
    lattice = look.random() < 0.4
    period, jitter = look.integers(12, 48, 2), look.uniform(0, 0.15)
    light = look.uniform(0.0, 0.3)

    def photo(rng: np.random.Generator) -> Photo:
        noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((SIDE, SIDE))) * spectrum).real
        value = contrast * noise / noise.std()
        if lattice:
            y, x = np.mgrid[:SIDE, :SIDE]
            phase = rng.uniform(0, 2 * np.pi, 2)
            waves = np.cos(2 * np.pi * y / period[0] + phase[0]) + np.cos(2 * np.pi * x / period[1] + phase[1])
            value = 0.3 * value + (1 + jitter * rng.standard_normal()) * waves
        share = 1 / (1 + np.exp(-value))[..., None]
        image = dark * (1 - share) + bright * share
        slope = cv2.resize(rng.standard_normal((2, 2)), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        image = image * np.exp(light * (slope[..., None] + rng.standard_normal()))
        return np.asarray(np.clip(255 * image + rng.normal(0, 2, image.shape), 0, 255), np.uint8)

    return photo


def with_defect(image: Photo, other: Photo, rng: np.random.Generator) -> tuple[Photo, NDArray[np.bool_]]:
    """Paste a blob of another texture, a dark or bright spot, or a line into a photo; where it is."""
    shape = np.zeros(image.shape[:2], np.uint8)
    centre = rng.integers(40, SIDE - 40, 2)
    kind = rng.integers(3)
    if kind == 2:
        steps = rng.normal(0, 0.3, 30).cumsum() + rng.uniform(0, 2 * np.pi)
        line = centre + np.cumsum(np.stack([np.cos(steps), np.sin(steps)], 1) * rng.uniform(1, 4), axis=0)
        cv2.polylines(shape, [line.astype(np.int32)], False, 1, int(rng.integers(2, 5)))
    else:
        axes = tuple(int(axis) for axis in rng.integers(4, 28, 2))
        cv2.ellipse(shape, (int(centre[0]), int(centre[1])), axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    mask = shape > 0
    result = image.copy()
    if kind == 0:
        result[mask] = other[mask]
    else:
        gain = rng.choice([rng.uniform(0.2, 0.6), rng.uniform(1.5, 2.5)])
        result[mask] = np.clip(result[mask] * gain, 0, 255)
    return result, mask


def measure(classes: int = 20, shots: int = 4, queries: int = 10, checkpoint: Path | None = None) -> dict[str, float]:
    """Mean over classes of the pixel metrics of `dictas.metrics`, and the lowest pixel AUROC."""
    from dictas.checkpoint import load_detector
    from dictas.detector import pixel_map
    from dictas.metrics import pixel_metrics

    backbone, detector = load_detector(checkpoint)
    found: list[dict[str, float | None]] = []
    for number in range(classes):
        rng, sample, other = np.random.default_rng(number), texture_class(number), texture_class(number + 1000)
        detector.remember([backbone.batch([backbone.prepare(sample(rng))]) for _ in range(shots)])
        maps, masks = [], []
        for _ in range(queries):
            image, mask = with_defect(sample(rng), other(rng), rng)
            batch = backbone.batch([backbone.prepare(image)])
            maps.append(pixel_map(detector.maps(batch)[0], batch.images.shape[1:3], mask.shape))
            masks.append(mask)
        found.append(pixel_metrics(maps, masks))
    keys = ("pixel_auroc", "pixel_ap", "aupro")
    table = {key: [value for one in found if (value := one[key]) is not None] for key in keys}
    return {key: float(np.mean(values)) for key, values in table.items()} | {
        "lowest_pixel_auroc": float(np.min(table["pixel_auroc"]))
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    metrics = measure(arguments.classes, arguments.shots, checkpoint=arguments.checkpoint)
    print(json.dumps(metrics, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(metrics, indent=2) + "\n")
