"""Progress that crosses from a training to whoever started it, by way of a file."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app import progress_file
from app.progress import StageProgress
from app.progress_file import VARIABLE, ProgressFile, Stage, read_progress


class Clock:
    """A clock that stands still until it is turned."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    monotonic = time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_file, "time", clock)
    return clock


def count(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_what_is_told_arrives(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "progress.jsonl"
    assert read_progress(path).stages == ()
    file = ProgressFile(path)
    file.report("scene", 1, 1, "8 views to train on, 2 held out")
    for step in range(1, 101):
        clock.now += 2.0
        file.report("rgb", step, 100, f"loss {1 / step:.4f}  PSNR {step / 2:.1f} dB  1,000 Gaussians")
    progress = read_progress(path)
    assert progress.stages[0] == Stage("scene", 1, 1, "8 views to train on, 2 held out")
    assert progress.stages[1].message == "loss 0.0100  PSNR 50.0 dB  1,000 Gaussians"
    assert progress.steps == tuple(range(1, 101))
    assert progress.losses[9] == 0.1
    assert progress.psnrs[9] == 5.0


def test_lines_are_few_and_the_last_report_is_never_missing(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "progress.jsonl"
    file = ProgressFile(path)
    hours, steps_per_second = 10, 10
    total = hours * 3600 * steps_per_second
    for step in range(1, total + 1):
        clock.now += 1 / steps_per_second
        file.report("rgb", step, total, "loss 0.1000  PSNR 20.0 dB")
        if step == 60 * steps_per_second:
            assert 55 <= count(path) <= 62
    assert read_progress(path).stages[-1].done == total
    assert count(path) < 5000
    file.report("language", 46, 48, "measuring the fit")
    file.report("language", 48, 48, "measuring the fit")
    assert read_progress(path).stages[-1].done == 48


def test_time_left_follows_the_present_pace(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "progress.jsonl"
    file = ProgressFile(path)
    for step in range(100):  # fast at first: half a second per step
        clock.now += 0.5
        file.report("rgb", step, 300, "")
    for step in range(100, 200):  # then three
        clock.now += 3.0
        file.report("rgb", step, 300, "")
    left = read_progress(path).stages[-1].seconds_left
    assert left == pytest.approx(3.0 * (300 - 199), rel=0.05)
    file.report("features", 0, 9, "")
    assert read_progress(path).stages[-1].seconds_left is None


def test_a_training_that_goes_on_forgets_what_it_lost(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"

    def line(process: int, when: float, done: int) -> str:
        message = f"loss 0.{done:04d}  PSNR {done}.0 dB  10 Gaussians"
        told = {"time": when, "process": process, "stage": "rgb", "done": done, "total": 50, "message": message}
        return json.dumps(told) + "\n"

    first = "".join(line(1, 100.0 + done, done) for done in range(1, 21))
    second = "".join(line(2, 140.0 + done, done) for done in range(11, 31))
    path.write_text(first + second + line(2, 171.0, 31)[:-30])  # the last line is not there yet as a whole
    progress = read_progress(path)
    assert progress.steps == tuple(range(1, 31))
    assert progress.psnrs == tuple(float(step) for step in range(1, 31))
    # 20 steps are left, a second each; the time in between does not count.
    assert progress.stages[-1].seconds_left == pytest.approx(20.0)


def test_it_is_asked_for_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with StageProgress(lines=False) as reports:
        reports("rgb")(1, 2, "nobody listens")
    path = tmp_path / "progress.jsonl"
    monkeypatch.setenv(VARIABLE, str(path))
    with StageProgress(lines=False) as reports:
        reports("rgb")(1, 2, "somebody does")
    assert [stage.message for stage in read_progress(path).stages] == ["somebody does"]


def test_reports_cost_next_to_nothing(tmp_path: Path) -> None:
    """The fastest steps take some milliseconds; a hundredth of that is 20 us or more."""
    file = ProgressFile(tmp_path / "progress.jsonl")
    start = time.process_time()
    for step in range(20_000):
        file.report("rgb", step, 1_000_000, "loss 0.1000  PSNR 20.0 dB")
    assert (time.process_time() - start) / 20_000 < 20e-6


def test_it_ends_with_the_program_that_asked(tmp_path: Path) -> None:
    """A parent starts a child that reports for ever, and is gone; the child then ends as after Ctrl-C."""
    path = tmp_path / "progress.jsonl"
    child = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from app.progress_file import ProgressFile\n"
        "file = ProgressFile(Path(sys.argv[1]))\n"
        "try:\n"
        "    for step in range(600):\n"
        "        file.report('rgb', step, 1000, '')\n"
        "        time.sleep(0.05)\n"
        "except KeyboardInterrupt:\n"
        "    Path(sys.argv[1] + '.interrupted').touch()\n"
    )
    parent = (
        "import subprocess, sys, time, os\n"
        "subprocess.Popen([sys.executable, '-c', sys.argv[1], sys.argv[2]], start_new_session=True)\n"
        "while not os.path.exists(sys.argv[2]): time.sleep(0.05)\n"
        "os._exit(1)\n"
    )
    subprocess.run([sys.executable, "-c", parent, child, str(path)], timeout=30, env=os.environ, check=False)
    deadline = time.monotonic() + 15
    while not (tmp_path / "progress.jsonl.interrupted").exists():
        assert time.monotonic() < deadline, "the child goes on"
        time.sleep(0.1)
