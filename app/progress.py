"""Progress on a terminal, with the time that is left; plain lines where there is no terminal."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from app.progress_file import ProgressFile
from encoders.progress import Report

LINE_SECONDS = 15.0
"""Without a terminal, how often a stage prints a line."""

FACTUAL_STAGES = ("scene",)
"""Their messages are facts a person should be able to read afterwards (photos left out, points found), not a
state that passes: each is printed once and stays."""


class StageProgress:
    """Context manager that gives each stage a `Report` by its name.

    On a terminal bars move on stderr. Elsewhere, in a log, lines go to stdout, so that stderr holds nothing
    but what went wrong; with ``lines=False`` they are left out, for commands whose stdout is the result.
    A program that started this one may read it all from a file (`app.progress_file`).
    """

    def __init__(self, lines: bool = True) -> None:
        self._console = Console(stderr=True)
        self._log = Console(quiet=not lines)
        self._bars = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description:9}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("{task.fields[message]}", style="dim"),
            console=self._console,
        )
        self._lines: dict[str, _Lines] = {}
        self._tasks: dict[str, TaskID] = {}
        self._said: set[tuple[str, str]] = set()
        self._file = ProgressFile.from_environment()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:  # stopping what never started prints an empty line
            self._bars.stop()

    def __call__(self, stage: str) -> Report:
        """The report of one stage; asking twice gives the same bar."""
        shown, file = self._shown(stage), self._file
        if file is None:
            return shown

        def report(done: int, total: int, message: str) -> None:
            shown(done, total, message)
            file.report(stage, done, total, message)

        return report

    def _shown(self, stage: str) -> Report:
        if not self._console.is_terminal:
            return self._lines.setdefault(stage, _Lines(self._log, stage))

        def report(done: int, total: int, message: str) -> None:
            if stage in FACTUAL_STAGES and (stage, message) not in self._said:
                self._said.add((stage, message))
                self._bars.console.print(message, style="dim", highlight=False, markup=False)
            if stage not in self._tasks:
                self._tasks[stage] = self._bars.add_task(stage, message="", total=None)
            self._bars.update(self._tasks[stage], completed=done, total=max(total, 1), message=message)

        return report


class _Lines:
    """A stage's progress as lines in a log."""

    def __init__(self, console: Console, stage: str) -> None:
        self._console, self._stage = console, stage
        self._start = time.monotonic()
        self._first: int | None = None
        self._last = float("-inf")
        self._finished = False
        self._said: set[str] = set()

    def __call__(self, done: int, total: int, message: str) -> None:
        now = time.monotonic()
        if self._first is None:
            # A resumed stage starts somewhere in the middle; only what is done from here on tells the pace.
            self._first = done
        finished = done >= total
        if self._stage in FACTUAL_STAGES:
            due = message not in self._said
        else:
            due = not self._finished if finished else now - self._last >= LINE_SECONDS
        if not due:
            return
        self._said.add(message)
        self._last, self._finished = now, finished
        if self._stage in FACTUAL_STAGES:
            self._console.print(f"{self._stage:9} {message}", highlight=False, markup=False, soft_wrap=True)
            return
        line = f"{self._stage:9} {done}/{total} {message}"
        if not finished and done > self._first:
            left = (now - self._start) / (done - self._first) * (total - done)
            line += f" (eta {_minutes(left)})"
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
