"""A training and an `anomaly predict` that are killed again and again, and whether they end as if nothing had been.

    python tests/mortal.py train|predict FOLDER --kills 30 [--seed 1]

SIGKILL comes right before or after a change of the disk (a file is synced, renamed, removed or added to), drawn from
all those of an undisturbed run. What was killed is run again until it ends; then it must have written the same bytes as
the undisturbed run, and there is a new one to kill. Prints how often it was killed and how many times it ended.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import driver
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


def train_command(folder: Path) -> Command:
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


def predict_command(folder: Path) -> Command:
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

    given = ["--support", str(folder / "support"), "--query", str(folder / "query"), "--workers", "0", "--batch", "2"]
    return Command(["anomaly", "predict", *given], result)


COMMANDS = {"train": train_command, "predict": predict_command}


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


def run(command: Command, out: Path, limit: int) -> tuple[int, int]:
    """Run a command in a forked process: how it ended, as `os.waitpid` has it, and the changes it made."""
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
    with os.fdopen(reads) as answer:
        seen_there = answer.read()
    _, ended = os.waitpid(child, 0)
    return ended, int(seen_there or 0)


def main() -> None:
    """Kill as often as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    command, chance = COMMANDS[arguments.command](arguments.folder), random.Random(arguments.seed)
    usual, changes = run(command, arguments.folder / "whole", 0)
    whole = command.result(arguments.folder / "whole")
    killed, finished, out = 0, 0, arguments.folder / "killed"
    while killed < arguments.kills or out.exists():
        limit = chance.randint(1, changes) if killed < arguments.kills else 0
        ended, _ = run(command, out, limit)
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
    print(json.dumps({"changes": changes, "killed": killed, "finished": finished}))


if __name__ == "__main__":
    main()
