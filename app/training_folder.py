"""The folder of one training that was started from the app: what is known about it besides what `splat.run` keeps.

::

    RUN/job.json         what was asked for, and how it ended
    RUN/photos/          what was uploaded, or a video
    RUN/progress.jsonl   how far it is     (`app.progress_file`)
    RUN/training.log     what it said
    RUN/tmp/             its temporary files, while it runs
"""

import contextlib
import fcntl
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from app.progress_file import Progress, read_progress
from encoders.errors import InputError
from encoders.files import write_json

NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
"""What a training may be called; nothing else becomes a part of a path."""

ABANDONED_SECONDS = 3600.0
"""What was being received or removed so long ago, and still is, was left by a program that was killed."""

State = Literal["waiting", "running", "stopping", "stopped", "failed", "finished"]

Outcome = Literal["", "stopped", "failed", "finished"]
"""How a training ended; empty while it has not."""


class Record(BaseModel):
    """`job.json`.

    Attributes:
        kind, count, place: the `app.training_uploads.Material`; of the demo scene only the kind.
        preset: of `splat.train_config.PRESETS`.
        created: seconds since 1970.
        outcome: empty while it has not ended.
        sentence: why it failed.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Literal["photos", "video", "demo"]
    count: int = 0
    place: str = ""
    preset: str = "fast"
    created: float
    outcome: Outcome = ""
    sentence: str = ""


@dataclass(frozen=True)
class Job:
    """A training as a page shows it.

    Attributes:
        name: its run folder's.
        state: "stopped" and "failed" ones can be continued or removed.
        sentence: why it is in that state; may be empty.
        turn: how many trainings go before it, while it is waiting.
        record: what was asked for.
    """

    name: str
    state: State
    sentence: str
    turn: int
    record: Record

    @property
    def active(self) -> bool:
        """Whether anything about it will change by itself."""
        return self.state in ("waiting", "running", "stopping")

    @property
    def idle(self) -> bool:
        """Whether it can be continued or removed."""
        return self.state in ("stopped", "failed")


class TrainingFolder:
    """A training's run folder, whether there is one or not.

    Args:
        root: where run folders are.
        name: the training's, as `NAME` has it.
    """

    def __init__(self, root: Path, name: str) -> None:
        assert NAME.fullmatch(name), name
        self.root, self.name, self.path = root, name, root / name
        self.record_path = self.path / "job.json"
        self.progress_path = self.path / "progress.jsonl"
        self.log_path = self.path / "training.log"
        self.scratch_path = self.path / "tmp"
        self.preview_path = self.path / "checkpoints" / "rgb" / "preview.jpg"

    def read(self) -> Record | None:
        """The record; None if this is not a training's folder."""
        try:
            return Record.model_validate_json(self.record_path.read_bytes())
        except (OSError, ValidationError):
            return None

    def known(self) -> Record:
        """The record.

        Raises:
            InputError: there is none.
        """
        record = self.read()
        if record is None:
            raise InputError(f"There is no training called {self.name}; it may have been removed.")
        return record

    def write(self, record: Record) -> None:
        """Replace the record."""
        write_json(self.record_path, record.model_dump())

    def end(self, outcome: Outcome, sentence: str = "") -> None:
        """Write down how the training ended, or with an empty ``outcome`` that it goes on.

        Raises:
            InputError: there is no record. OSError: it cannot be written.
        """
        self.write(self.known().model_copy(update={"outcome": outcome, "sentence": sentence}))

    def progress(self) -> Progress:
        """How far the training is."""
        return read_progress(self.progress_path)

    def said(self) -> list[str]:
        """The lines of the log."""
        try:
            text = self.log_path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        return [self.private(line) for line in text.splitlines() if line.strip()]

    def private(self, text: str) -> str:
        """``text`` without this folder's place on the machine."""
        return text.replace(f"{self.root}/", "")

    def busy(self) -> bool:
        """Whether some process is training here, see `splat.run.Run.locked`."""
        try:
            handle = os.open(self.path / ".lock", os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(handle)


def sweep(root: Path) -> None:
    """Remove what programs that were killed left behind where run folders are."""
    for left in root.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
