"""How rows of the speed table are timed: frame by frame, stage by stage, one row after the other, on any device."""

import time
from collections.abc import Callable, Mapping

import torch

from encoders.progress import Report, silent

Lap = Callable[[str], None]
"""Called by a frame when a stage ends, with the stage's name. What passed since the last call is that stage's."""

Work = Callable[[Lap], object]
"""One frame."""

Stages = dict[str, float]
"""Milliseconds of each stage of one frame."""

SETTLE_SECONDS = 0.1
"""A frame follows frames like it for so long before it is timed: caches, clocks and allocators are then as usual."""

SLOW_SECONDS = 30.0
"""A frame that takes longer than this needs none before it: what the first one pays for memory is little of it."""


def no_lap(stage: str) -> None:
    """A :data:`Lap` that keeps nothing."""


class Stopwatch:
    """Time on a device since it was made, split into stages.

    On CUDA, stages end at events in the stream, so that what is measured is the device's time and a frame is not
    held up between its stages; the device is waited for before the first event and when the watch is read. On a CPU
    the clock is read. A stage that is named several times is the sum.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._cuda = torch.device(device).type == "cuda"
        self._names: list[str] = []
        if self._cuda:
            torch.cuda.synchronize(device)
            self._device = device
            self._events = [self._event()]
        else:
            self._times = [time.perf_counter()]

    def _event(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def lap(self, stage: str) -> None:
        """End a stage."""
        if self._cuda:
            self._events.append(self._event())
        else:
            self._times.append(time.perf_counter())
        self._names.append(stage)

    def read(self) -> Stages:
        """Milliseconds per stage, in the order in which stages first ended."""
        if self._cuda:
            self._events[-1].synchronize()
            spans = [before.elapsed_time(after) for before, after in zip(self._events, self._events[1:], strict=False)]
        else:
            spans = [1e3 * (after - before) for before, after in zip(self._times, self._times[1:], strict=False)]
        stages: Stages = {}
        for name, span in zip(self._names, spans, strict=True):
            stages[name] = stages.get(name, 0.0) + span
        return stages


def frame(work: Work, device: torch.device | str) -> Stages:
    """Stages of one frame, timed after frames like it."""
    start = time.perf_counter()
    settled = False
    while True:
        watch = Stopwatch(device)
        work(watch.lap)
        stages = watch.read()
        passed = time.perf_counter() - start
        if passed > SLOW_SECONDS or (settled and passed > SETTLE_SECONDS):
            return stages
        settled = True


def interleaved(
    works: Mapping[str, Work], rounds: int, device: torch.device | str = "cpu", report: Report = silent
) -> dict[str, list[Stages]]:
    """Time every row ``rounds`` times, all rows once before any is timed again, after a round that does not count.

    Interleaving makes ratios of rows robust: what slows the machine down for a while slows all rows.
    """
    frames: dict[str, list[Stages]] = {name: [] for name in works}
    total = (rounds + 1) * len(works)
    for number in range(rounds + 1):
        for position, (name, work) in enumerate(works.items()):
            report(number * len(works) + position, total, name.replace("_", " "))
            stages = frame(work, device)
            if number:
                frames[name].append(stages)
    report(total, total, "done")
    return frames


def median_frame(frames: list[Stages]) -> Stages:
    """The frame whose total is the median (of an even number the quicker one), so that its stages add up to it."""
    ordered = sorted(frames, key=lambda stages: sum(stages.values()))
    return ordered[(len(ordered) - 1) // 2]
