"""One stage of a training at work: its clock, its progress, its record."""

import time
from typing import Any, Self

from encoders.progress import Report
from splat.run import Run

HEARTBEAT_SECONDS = 10.0
"""How often `run.json` learns the time a stage has taken so far: what a kill can lose from the timings."""


class RunningStage:
    """A stage at work: counts its time over interruptions and marks it done when it ends well."""

    def __init__(self, run: Run, name: str, inputs: dict[str, Any], report: Report) -> None:
        self.run, self.name, self.inputs, self._report = run, name, inputs, report
        self.stats: dict[str, Any] = {}
        stage = run.stage(name)
        unfinished = stage is not None and stage.status == "running" and stage.inputs == inputs
        self._before = stage.seconds if stage is not None and unfinished else 0.0

    def __enter__(self) -> Self:
        self._start = self._marked = time.monotonic()
        self.run.mark(self.name, "running", self.inputs, self._before)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.run.mark(self.name, "done", self.inputs, self._seconds(), self.stats)

    def report(self, done: int, total: int, message: str) -> None:
        if time.monotonic() - self._marked > HEARTBEAT_SECONDS:
            self._marked = time.monotonic()
            self.run.mark(self.name, "running", self.inputs, self._seconds())
        self._report(done, total, message)

    def _seconds(self) -> float:
        return round(self._before + time.monotonic() - self._start, 3)
