"""A detector so simple that its answers are known and its tests quick; run as a program it is `anomaly predict`.

    python tests/inspection.py [--kill COUNT] predict ...

It sees the mean colour of 8 x 8 blocks, and what differs from every colour of the support is anomalous. With --kill
the process kills itself with SIGKILL when the photos are reported for the COUNT-th time.
"""

import os
import signal
import sys
import types
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dictas.detector import Backbone

SIDE = 64
CELL = 8


class Blocks:
    """Stands in for `encoders.base.Encoder`: tokens are mean colours 0..1 of blocks."""

    name = "blocks"
    dim = 3
    max_text_tokens = 1

    def patch_tokens(self, images, layers):
        count, height, width, _ = images.shape
        cells = images.reshape(count, height // CELL, CELL, width // CELL, CELL, 3).mean(axis=(2, 4)) / 255
        return [torch.from_numpy(cells.reshape(count, -1, 3).astype(np.float32)) for _ in layers]

    def patch_grid(self, height, width):
        return height // CELL, width // CELL


class ColourDistance(torch.nn.Module):
    """Distance to the nearest colour of the support, 0..1."""

    name = "colour"
    config = "nearest"

    def __init__(self, gain=1.0):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(gain))
        self.known = torch.zeros(0, 3)
        self.remembered = 0

    def remember(self, support):
        self.known = torch.cat([batch.tokens[0].flatten(0, 1) for batch in support])
        self.remembered += 1

    @torch.no_grad()
    def maps(self, query):
        distance = torch.cdist(query.tokens[0], self.known[None]).amin(dim=2) / 3**0.5
        return (distance * self.gain).clamp(0, 1).reshape(len(distance), *query.grid)

    def dictionary_state(self):
        return {"known": self.known}

    def load_dictionary_state(self, state):
        self.known = state["known"]


def backbone():
    return Backbone(Blocks(), (1,), SIDE)


def texture(seed, height=SIDE, width=SIDE, spot=None):
    """A grey part with slight noise; ``spot`` (top, left) has a red square of 16 pixels there."""
    rng = np.random.default_rng(seed)
    image = np.clip(rng.normal(128, 6, (height, width, 3)), 0, 255).astype(np.uint8)
    if spot is not None:
        image[spot[0] : spot[0] + 16, spot[1] : spot[1] + 16] = (230, 20, 20)
    return image


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def install():
    """Let the command line find these instead of real weights."""
    module = types.ModuleType("dictas.checkpoint")
    module.load_detector = lambda *_args, **_options: (backbone(), ColourDistance())  # type: ignore[attr-defined]
    sys.modules["dictas.checkpoint"] = module


def _kill_at(count: int) -> None:
    from dictas import predict

    real, calls = predict.judge_all, 0

    def judge_all(judge, photos, writer, workers, journal, report):
        def counted(done, total, message):
            nonlocal calls
            calls += 1
            if calls == count:
                os.kill(os.getpid(), signal.SIGKILL)
            report(done, total, message)

        return real(judge, photos, writer, workers, journal, counted)

    predict.judge_all = judge_all


def main() -> None:
    """Run the command line given in the arguments."""
    from app.cli import main as dictsplat

    arguments = sys.argv[1:]
    torch.set_num_threads(1)
    install()
    if arguments[0] == "--kill":
        _kill_at(int(arguments[1]))
        arguments = arguments[2:]
    dictsplat(["anomaly", *arguments])


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
