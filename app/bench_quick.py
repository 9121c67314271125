"""The speed table in less than a minute: a smaller scene, and only what a viewer does."""

import time
from dataclasses import replace
from typing import Any

from app.bench import measure
from app.bench_scene import BenchConfig
from encoders.errors import InputError
from encoders.progress import Report, silent
from splat.device import splat_device

QUICK = BenchConfig(gaussians=10_000, width=240, height=180, dense=(), repeats=3, slow=False)
"""What is timed."""
SECONDS = 60.0


def measure_quickly(device: str = "auto", seconds: float = SECONDS, report: Report = silent) -> dict[str, Any]:
    """`app.bench.measure` of `QUICK`.

    Raises:
        InputError: ``device`` is not one or cannot be used, or the machine is so busy that it has not ended after
            ``seconds``.
    """
    deadline = time.monotonic() + seconds

    def bounded(done: int, total: int, message: str) -> None:
        if done < total and time.monotonic() > deadline:
            raise InputError("This machine is too busy to be measured now; try again when it is idle.")
        report(done, total, message)

    return measure(replace(QUICK, device=splat_device(device)), bounded)
