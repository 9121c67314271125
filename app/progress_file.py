"""A training's progress in a file, for a program that started it and cannot see its terminal.

The program names the file in the environment variable `VARIABLE`; one line of JSON is added to it about every second.
"""

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

VARIABLE = "DICTSPLAT_PROGRESS"

SHORTEST, LONGEST = 1.0, 10.0
"""Seconds between two lines of a stage that goes on."""

LINES_PER_TIME = 300
"""The distance grows so that each doubling of the time adds about two thirds as many lines: files stay small."""

PACE_SECONDS = 60.0
"""The time that is left is judged by the pace of the last so many seconds: it changes as a scene grows."""

_QUALITY = re.compile(r"loss (\d+\.\d+) +PSNR (-?\d+\.\d+) dB")
"""How the stage ``rgb`` tells loss and PSNR of the last views."""


class ProgressFile:
    """Adds lines to a progress file, as often as somebody watching needs them.

    What is started for somebody ends with them: when the parent process is gone, a report raises KeyboardInterrupt.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parent = os.getppid()
        self._start, self._last = time.monotonic(), float("-inf")
        self._said: tuple[str, int, str] = ("", 0, "")

    @classmethod
    def from_environment(cls) -> Self | None:
        """The file that the parent process asked for, if it did."""
        name = os.environ.get(VARIABLE)
        return cls(Path(name)) if name else None

    def report(self, stage: str, done: int, total: int, message: str) -> None:
        """Tell how far a stage is; the first and the last of its reports are always written.

        Raises:
            KeyboardInterrupt: nobody is there any more to read it.
        """
        now = time.monotonic()
        gap = min(LONGEST, max(SHORTEST, (now - self._start) / LINES_PER_TIME))
        said = (stage, done, message)
        news = stage != self._said[0] or (done >= total and said != self._said)
        if not news and now - self._last < gap:
            return
        if os.getppid() != self._parent:
            raise KeyboardInterrupt
        self._last, self._said = now, said
        # Not the time of day, which may be set back or forth in between.
        line = {"time": round(now, 3), "process": os.getpid(), "stage": stage, "done": done, "total": total}
        # One write of a short line to the end: it is there as a whole, or not at all.
        with self._path.open("ab", buffering=0) as file:
            file.write((json.dumps(line | {"message": message}) + "\n").encode())


@dataclass(frozen=True)
class Stage:
    """How far one stage is.

    Attributes:
        name: of `splat.run.STAGES`, or "demo", "scene", "score".
        done, total: in units of its own.
        message: one short line.
        seconds_left: until it ends at its present pace; None when that is not known.
    """

    name: str
    done: int
    total: int
    message: str
    seconds_left: float | None = None


@dataclass(frozen=True)
class Progress:
    """What a progress file tells.

    Attributes:
        stages: those that were begun, the present one last.
        steps: of the stage ``rgb``, with ``losses`` and ``psnrs`` (dB) at each of them.
    """

    stages: tuple[Stage, ...] = ()
    steps: tuple[int, ...] = ()
    losses: tuple[float, ...] = ()
    psnrs: tuple[float, ...] = ()


def read_progress(path: Path) -> Progress:
    """Read a progress file, which may be growing; empty if there is none."""
    lines = list(_lines(path))
    stages: dict[str, Stage] = {}
    curve: list[tuple[int, float, float]] = []
    for line in lines:
        stages.pop(line["stage"], None)  # to the end: stages may be gone through again after a stop
        stages[line["stage"]] = Stage(line["stage"], line["done"], line["total"], line["message"])
        quality = _QUALITY.search(line["message"]) if line["stage"] == "rgb" else None
        if quality:
            # After a kill a fit goes on from its last checkpoint, a little before where it was.
            while curve and curve[-1][0] >= line["done"]:
                curve.pop()
            curve.append((line["done"], float(quality[1]), float(quality[2])))
    if not stages:
        return Progress()
    *earlier, last = stages.values()
    present = Stage(last.name, last.done, last.total, last.message, _seconds_left(lines))
    steps, losses, psnrs = zip(*curve, strict=True) if curve else ((), (), ())
    return Progress((*earlier, present), steps, losses, psnrs)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        content = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for text in content.splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue  # the disk was full, or the machine stopped, in the middle of it
        if isinstance(line, dict):
            yield line


def _seconds_left(lines: list[dict[str, Any]]) -> float | None:
    """From the pace between the newest line and the oldest one of the same piece of work not long before it."""
    newest = oldest = lines[-1]
    for line in reversed(lines):
        same = all(line[key] == newest[key] for key in ("process", "stage", "total"))
        if not same or line["done"] > oldest["done"] or newest["time"] - line["time"] > PACE_SECONDS:
            break
        oldest = line
    steps = newest["done"] - oldest["done"]
    if steps <= 0 or newest["done"] >= newest["total"]:
        return None
    return (newest["time"] - oldest["time"]) / steps * (newest["total"] - newest["done"])
