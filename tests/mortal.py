"""Commands that are killed again and again, and whether they end as if nothing had been.

    python tests/mortal.py train|predict|anomaly-train FOLDER --kills 30 [--seed 1] [--timed]

SIGKILL comes right before or after a change of the disk (a file is synced, renamed, removed or added to), drawn from
all those of an undisturbed run. With --timed it comes from the parent instead, after a random share of the time that an
undisturbed run takes: in the middle of a system call or of a computation, and with processes that read photos or make
images beside the one that is killed. What was killed is run again until it ends; then it must have written the same
bytes as the undisturbed run, and there is a new one to kill. Prints how often it was killed and how often it ended.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import random
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import driver
import fitting
import inspection
import torch
from safetensors.torch import load_file

from app.cli import main as dictsplat
from splat.scene.demo import write_demo_scene

ITERATIONS = 12
TIMED = ("seconds", "rss", "fps", "version", "time", "ms")
"""Parts of the names of numbers that no two runs share."""

Result = dict[str, Any]


@dataclass(frozen=True)
class Command:
    """Arguments of a command without its ``--out``, and what of its results must be the same every time."""

    arguments: list[str]
    result: Callable[[Path], Result]


def write_thumbnails(scene: Path) -> None:
    """The demo scene, 96 x 72 pixels large."""
    write_demo_scene(scene, width=96, height=72, train_views=8, test_views=2, samples=1)


def train_command(folder: Path, _workers: int) -> Command:
    """A training of twelve steps on thumbnails, with a checkpoint after each."""
    scene = folder / "scene"
    # Elsewhere: a process that has had threads may not go on after it is forked.
    writer = multiprocessing.get_context("spawn").Process(target=write_thumbnails, args=(scene,))
    writer.start()
    writer.join()
    driver.ITERATIONS = ITERATIONS
    driver.install()

    def result(out: Path) -> Result:
        names = ("gaussians.ply", "cameras.json")
        # Tensor by tensor: safetensors writes its metadata in any order.
        codes = load_file(out / "language.safetensors")
        scores = json.loads((out / "metrics.json").read_text())
        untimed = {key: value for key, value in scores.items() if not any(part in key for part in TIMED)}
        return {name: (out / name).read_bytes() for name in names} | {
            "scores": untimed,
            **{name: tensor.numpy().tobytes() for name, tensor in codes.items()},
        }

    return Command(["train", str(scene), "--preset", "fast", "--encoder", "colour"], result)


def predict_command(folder: Path, workers: int) -> Command:
    """Eleven photos, one of them damaged, in batches of two."""
    for kind, count in (("support", 2), ("query", 11)):
        for number in range(count):
            inspection.save(
                folder / kind / f"{number}.png", inspection.texture(number, spot=(8, 8) if number == 5 else None)
            )
    (folder / "query" / "torn.png").write_bytes((folder / "query" / "0.png").read_bytes()[:500])
    inspection.install()

    def result(out: Path) -> Result:
        kinds = ("results.csv", "maps", "masks", "overlays", "thumbnails")
        files = [path for kind in kinds for path in [out / kind, *(out / kind).rglob("*")] if path.is_file()]
        return {str(path.relative_to(out)): path.read_bytes() for path in files}

    given = ["--support", str(folder / "support"), "--query", str(folder / "query"), "--batch", "2"]
    return Command(["anomaly", "predict", *given, "--workers", str(workers)], result)


def anomaly_train_command(_folder: Path, workers: int) -> Command:
    """Twelve steps, with a validation and a checkpoint after every second."""
    fitting.install(lambda table, name, value: table.__setitem__(name, value))
    fitting.shorten(setattr, steps=12, batch=1, validation=3, validate_every=2)

    def result(out: Path) -> Result:
        names = ("detector", "training")
        found = {name: load_file(out / f"{name}.safetensors") for name in names}
        return {f"{name} {key}": value.numpy().tobytes() for name in names for key, value in found[name].items()}

    given = ["--encoder", "cells", "--device", "cpu", "--workers", str(workers)]
    return Command(["anomaly", "train", *given], result)


COMMANDS = {"train": train_command, "predict": predict_command, "anomaly-train": anomaly_train_command}


def count_changes(limit: int) -> Callable[[], int]:
    """Count changes of the disk from now on, twice each; at the ``limit``-th this process dies."""
    seen = 0

    def passed() -> None:
        nonlocal seen
        seen += 1
        if seen == limit:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            passed()
            result = real(*arguments, **options)
            passed()
            return result

        return call

    for owner, names in ((os, ("fsync", "pwrite", "ftruncate")), (Path, ("replace", "rename", "unlink"))):
        for name in names:
            setattr(owner, name, watched(getattr(owner, name)))
    return lambda: seen


def run(command: Command, out: Path, limit: int = 0, seconds: float | None = None) -> tuple[int, int]:
    """Run a command in a forked process: how it ended, as `os.waitpid` has it, and the changes it made.

    Args:
        limit: the change at which it dies; 0 for none.
        seconds: after which it is killed from here.
    """
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            seen = count_changes(limit)
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                try:
                    dictsplat([*command.arguments, "--out", str(out)])
                except SystemExit as stop:
                    status = int(stop.code or 0)
            os.write(writes, str(seen()).encode())
        finally:
            os._exit(status)
    os.close(writes)
    if seconds is not None:
        watch = os.pidfd_open(child)
        if not select.select([watch], [], [], seconds)[0]:
            os.kill(child, signal.SIGKILL)
        os.close(watch)
    _, ended = os.waitpid(child, 0)
    os.set_blocking(reads, False)  # a killed one has not answered, and what it had begun may hold the other end
    with contextlib.suppress(BlockingIOError), os.fdopen(reads, "rb", buffering=0) as answer:
        return ended, int(answer.read(32) or 0)
    return ended, 0


def main() -> None:
    """Kill as often as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timed", action="store_true", help="kill at random times, not at changes of the disk")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    command = COMMANDS[arguments.command](arguments.folder, int(arguments.timed))
    chance = random.Random(arguments.seed)
    if arguments.timed:
        run(command, arguments.folder / "first")  # it fills caches, on which the time of the next one must not depend
    start = time.monotonic()
    usual, changes = run(command, arguments.folder / "whole")
    duration = time.monotonic() - start
    whole = command.result(arguments.folder / "whole")
    killed, finished, out = 0, 0, arguments.folder / "killed"
    while killed < arguments.kills or out.exists():
        limit, seconds = 0, None
        if killed < arguments.kills:
            if arguments.timed:
                seconds = chance.uniform(0, duration)
            else:
                limit = chance.randint(1, changes)
        ended, _ = run(command, out, limit, seconds)
        if os.WIFSIGNALED(ended) and os.WTERMSIG(ended) == signal.SIGKILL:
            killed += 1
            continue
        if ended != usual:
            sys.exit(f"after {killed} kills (seed {arguments.seed}) it ended with {ended}, undisturbed with {usual}")
        found = command.result(out)
        differing = [name for name in whole.keys() | found.keys() if whole.get(name) != found.get(name)]
        left = [path for path in out.rglob("*") if ".tmp" in path.name and path.is_file()]
        if differing or left:
            sys.exit(f"after {killed} kills (seed {arguments.seed}) other content of {differing}, left behind {left}")
        finished += 1
        shutil.rmtree(out)
    print(json.dumps({"changes": changes, "seconds": round(duration, 2), "killed": killed, "finished": finished}))


if __name__ == "__main__":
    main()
