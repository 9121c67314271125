"""The process of one training: how it is started, ended, and what its end means."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Literal

from app.exits import EXIT_INTERRUPTED, EXIT_TERMINATED
from app.progress_file import VARIABLE
from app.training_folder import Record, TrainingFolder

TRAINER: Sequence[str] = (sys.executable, "-m", "app")
"""The program that trains: `dictsplat`, as this interpreter has it."""

GRACE_SECONDS = 10.0
"""A training that is told to stop and has not after so long is killed."""

NICENESS = 10
"""Trainings leave the processor to those who are looking at a scene."""


def launch(folder: TrainingFolder, record: Record, device: str) -> subprocess.Popen[bytes]:
    """Start or continue a training; it runs on whatever happens to pages, and no longer than this program.

    Raises:
        OSError: the process cannot be started, or the folder not be written.
    """
    out = ("--out", str(folder.path), "--device", device)
    arguments: tuple[str, ...]
    if record.kind == "demo":
        arguments = ("demo", *out)
    else:
        arguments = ("train", str(folder.path / record.place), *out, "--preset", record.preset)
    shutil.rmtree(folder.scratch_path, ignore_errors=True)
    folder.scratch_path.mkdir()
    environment = os.environ | {
        VARIABLE: str(folder.progress_path),
        "TMPDIR": str(folder.scratch_path),  # a process that is killed leaves its temporary files where they are found
        "PYTHONUNBUFFERED": "1",  # what went wrong is the last thing that is said
    }
    with folder.log_path.open("ab") as log:
        process = subprocess.Popen(
            [*TRAINER, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
    return process


def stop(process: subprocess.Popen[bytes]) -> None:
    """Tell a training, with whatever it started, to end; after `GRACE_SECONDS` make it. Returns when it has ended."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)
        try:
            process.wait(GRACE_SECONDS)
            return
        except subprocess.TimeoutExpired:
            continue


def judge(status: int, cancelled: bool, said: Sequence[str]) -> tuple[Literal["finished", "stopped", "failed"], str]:
    """How a training ended, and why if it failed.

    Args:
        status: as `subprocess` has it, negative after a signal; for the others see `app.exits`.
        cancelled: whether it was told to stop.
        said: the lines of its log.
    """
    if status == 0:
        return "finished", ""
    if cancelled or status in (EXIT_INTERRUPTED, EXIT_TERMINATED):
        return "stopped", ""
    if status < 0:
        cause = "killed, perhaps because memory ran out" if status == -signal.SIGKILL else "ended by a crash"
        return "failed", f"The training was {cause} ({signal.Signals(-status).name}); Resume continues it."
    return "failed", said[-1] if said else f"The training ended with status {status} and said nothing."
