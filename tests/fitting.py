"""Training so small that it takes seconds; run as a program it trains and may be killed.

    python tests/fitting.py OUT [--kill STEP]

An encoder called ``cells`` sees the colours of 4 x 4 pixels. With --kill the process kills itself with SIGKILL when
that step is reported.
"""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

import encoders
from dictas import presets
from dictas.detector import Backbone
from dictas.episodes import EpisodeConfig, Episodes, Material
from dictas.fit import FitConfig, fit
from dictas.model import ModelConfig
from dictas.textures import GivenTextures
from encoders.errors import InputError

CELL = 4
SIDE = 32


class Cells:
    """Stands in for `encoders.base.Encoder`. Layer 1: mean and deviation of colours, layer 2: blurred means."""

    name = "cells"
    dim = 4
    max_text_tokens = 77
    layers = 2
    patch_side = None

    def encode_text(self, texts):
        """Normal along the first axis, abnormal along the second."""
        abnormal = np.array([any(word in text for word in ("damage", "with flaw", "with defect")) for text in texts])
        return np.eye(2, self.dim, dtype=np.float32)[abnormal.astype(int)]

    def patch_tokens(self, images, layers):
        wrong = [layer for layer in layers if layer not in (1, 2)]
        if wrong:
            raise InputError(f"The encoder cells has layers 1 to 2; {wrong[0]} was asked for.")
        count, height, width, _ = images.shape
        cells = images.reshape(count, height // CELL, CELL, width // CELL, CELL, 3) / 255.0
        mean = torch.from_numpy(cells.mean(axis=(2, 4)).astype(np.float32))
        deviation = torch.from_numpy(cells.std(axis=(2, 4)).astype(np.float32))
        blurred = torch.nn.functional.avg_pool2d(mean.permute(0, 3, 1, 2), 3, 1, 1, count_include_pad=False)
        tokens = {1: torch.cat([mean, deviation], dim=3), 2: blurred.permute(0, 2, 3, 1)}
        return [tokens[layer].flatten(1, 2) for layer in layers]

    def patch_grid(self, height, width):
        return height // CELL, width // CELL


class Stripes:
    """A `Source` of striped parts, each class with other colours, each specimen at another place and in other light."""

    def normal(self, rng, side, count):
        colours = rng.uniform(40, 215, (2, 3))
        parts = []
        for _ in range(count):
            stripe = (np.arange(side) + rng.integers(16)) // 8 % 2
            image = rng.uniform(0.7, 1.15) * colours[stripe][:, None].repeat(side, 1) + rng.normal(
                0, 3, (side, side, 3)
            )
            parts.append((np.clip(image, 0, 255).astype(np.uint8), None))
        return parts


MODEL = ModelConfig("cells", (1, 2), (6, 3), SIDE, width=16, key_dim=8, value_dim=8)
FIT = FitConfig(
    EpisodeConfig(side=SIDE, shots=2, queries=2),
    steps=12,
    batch=2,
    learning_rate=3e-3,
    ema=0.9,
    validate_every=4,
    validation=6,
    freeze_values=True,
)
TEXTS = np.eye(2, 4, dtype=np.float32)


def backbone():
    return Backbone(Cells(), (1, 2), SIDE)


def material():
    rng = np.random.default_rng(99)
    return Material(Stripes(), GivenTextures([rng.integers(0, 256, (48, 48, 3), dtype=np.uint8) for _ in range(3)]))


def striped(config=FIT):
    return Episodes(material(), config.episode, config.seed)


def run(out, config=FIT, model=MODEL, texts=TEXTS, **options):
    return fit(backbone(), model, material(), config, Path(out), texts, workers=0, **options)


def weights(out: Path) -> dict[str, torch.Tensor]:
    """All that training knows at its end: weights, their means and Adam's moments."""
    return load_file(out / "training.safetensors")


def install(setitem):
    """Let the command line find the encoder; ``setitem`` is that of pytest's monkeypatch."""
    setitem(encoders.ENCODERS, "cells", lambda _options, _device: Cells())


def shorten(replace_attribute, **options):
    """Let `anomaly train` on ``cells`` take seconds; ``options`` are of `FitConfig`."""
    replace_attribute(presets, "EMBEDDED_LAYERS", (1, 2))
    replace_attribute(presets, "FitConfig", lambda episode: FitConfig(episode, **options))
    replace_attribute(presets, "TRAINING_SIDE", SIDE)


def main() -> None:
    """Train into the folder given in the arguments."""
    torch.set_num_threads(1)
    out, *kill = sys.argv[1:]

    def report(done: int, total: int, message: str) -> None:
        if kill and done == int(kill[1]):
            os.kill(os.getpid(), signal.SIGKILL)

    run(out, report=report)


if __name__ == "__main__":
    main()
