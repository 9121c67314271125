"""dictsplat's command line made small and mortal, for tests: run as a program, or `install` in this process.

    python tests/driver.py [--kill STAGE:COUNT | --kill rename:FILE | --fill STAGE:BYTES] COMMAND ...

An encoder called ``colour`` answers to colour words at once, and the presets take seconds. With --kill the
process kills itself with SIGKILL when a stage reports for the COUNT-th time, or in the middle of replacing FILE;
with --fill the disk is full for files of more than BYTES as soon as a stage reports.
"""

import os
import resource
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import encoders
from encoders.errors import InputError

COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "white": (1, 1, 1), "black": (0, 0, 0)}
ITERATIONS = 60
POINTS = 2000


class ColourEncoder:
    """Mean colours, as seen by eight fixed random directions; anything that is no colour word is grey."""

    name = "colour"
    dim = 8
    max_text_tokens = 5

    def __init__(self) -> None:
        self._axes = np.random.default_rng(0).normal(size=(4, self.dim))

    def _embed(self, rgb: np.ndarray) -> np.ndarray:
        full = np.concatenate([rgb, np.full((len(rgb), 1), 0.3)], axis=1) @ self._axes
        return (full / np.linalg.norm(full, axis=1, keepdims=True)).astype(np.float32)

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        for text in texts:
            if not text.strip() or len(text.split()) > self.max_text_tokens:
                raise InputError(f"The phrase {text!r} is empty or has more than {self.max_text_tokens} words.")
        return self._embed(np.array([COLOURS.get(text, (0.5, 0.5, 0.5)) for text in texts], dtype=np.float64))

    def encode_regions(self, image: np.ndarray, region_ids: np.ndarray) -> np.ndarray:
        count = int(region_ids.max()) + 1
        sums, sizes = np.zeros((count, 3)), np.zeros((count, 1))
        for level in region_ids:
            inside = level >= 0
            np.add.at(sums, level[inside], image[inside] / 255)
            np.add.at(sizes, level[inside], 1)
        return self._embed(sums / np.maximum(sizes, 1))


def install(replace_attribute: Callable[[Any, str, Any], None] = setattr) -> None:
    """Add the encoder, shorten the presets and thin out the points that a scene starts from.

    ``replace_attribute`` may be a monkeypatch's setattr.
    """
    from splat import pipeline

    full, load = pipeline.RgbConfig.preset, pipeline.load_scene

    def thin(*arguments: Any) -> Any:
        scene = load(*arguments)
        few = slice(None, None, max(1, len(scene.points) // POINTS))
        return replace(scene, points=scene.points[few], point_colors=scene.point_colors[few])

    def short(name: str, **options: Any) -> Any:
        # A checkpoint after every step, so that wherever the process dies there is something to continue.
        return replace(full(name, **options), iterations=ITERATIONS, coarse_until=0, checkpoint_seconds=0.0)

    table = encoders.ENCODERS | {"colour": lambda _options, _device: ColourEncoder()}
    replace_attribute(encoders, "ENCODERS", table)
    replace_attribute(pipeline, "load_scene", thin)
    replace_attribute(pipeline.RgbConfig, "preset", staticmethod(short))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _at_rename(name: str, act: Callable[[], None]) -> None:
    """Act when a finished temporary file is about to become ``name``."""
    real = Path.replace

    def rename(self: Path, target: Path) -> Path:
        if Path(target).name == name:
            act()
        return real(self, target)

    Path.replace = rename  # type: ignore[assignment]


def _at_report(stage: str, count: int, act: Callable[[], None]) -> None:
    """Act when a stage reports for the ``count``-th time."""
    from app.progress import StageProgress

    inner, calls = StageProgress.__call__, Counter[str]()

    def reports(self: StageProgress, name: str) -> Any:
        report = inner(self, name)

        def counted(done: int, total: int, message: str) -> None:
            calls[name] += 1
            if name == stage and calls[name] == count:
                act()
            report(done, total, message)

        return counted

    StageProgress.__call__ = reports  # type: ignore[method-assign]


def _fill_disk(size: int) -> None:
    """No file may grow beyond ``size`` bytes any more: writes fail in the kernel, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def main() -> None:
    """Run the command line given in the arguments."""
    from app.cli import main as dictsplat

    arguments = sys.argv[1:]
    torch.set_num_threads(1)
    if arguments[0] in ("--kill", "--fill"):
        event, _, detail = arguments[1].partition(":")
        if arguments[0] == "--fill":
            _at_report(event, 1, lambda: _fill_disk(int(detail)))
        elif event == "rename":
            _at_rename(detail, _die)
        else:
            _at_report(event, int(detail), _die)
        arguments = arguments[2:]
    install()
    dictsplat(arguments)


if __name__ == "__main__":
    main()
