"""SIGTERM, as service managers, containers and `timeout` send it, ends every command in one sentence."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import driver
import inspection
import psutil
import pytest

from app.exits import EXIT_FAULT, EXIT_TERMINATED, guarded
from dictas.journal import NAME as JOURNAL

SENTENCE = "Told to stop (SIGTERM); run the same command again to continue.\n"


@contextmanager
def begun(command: list[str], reached: Callable[[], bool]) -> Iterator[subprocess.Popen[str]]:
    """A process in a group of its own, once it is so far."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            deadline = time.monotonic() + 120
            while not reached():
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield process
        finally:
            process.kill()


def test_a_training_that_is_told_to_stop_goes_on_afterwards(tiny_scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, driver.__file__, "train", str(tiny_scene), "--out", str(out)]
    command += ["--preset", "fast", "--encoder", "colour"]
    with begun(command, (out / "checkpoints" / "rgb" / "rgb.safetensors").exists) as process:
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (143, SENTENCE)
    assert not (out / "metrics.json").exists()
    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert again.returncode == 0, again.stderr
    assert json.loads((out / "metrics.json").read_text())["gaussians"] > 0


@pytest.mark.parametrize("to_all", [False, True])
def test_a_prediction_that_is_told_to_stop_leaves_no_process(tmp_path: Path, to_all: bool) -> None:
    for number in range(2):
        inspection.save(tmp_path / "support" / f"{number}.png", inspection.texture(number))
    for number in range(400):
        inspection.save(tmp_path / "query" / f"{number}.png", inspection.texture(number))
    out = tmp_path / "out"
    command = [sys.executable, inspection.__file__, "predict", "--support", str(tmp_path / "support")]
    command += ["--query", str(tmp_path / "query"), "--out", str(out), "--workers", "2", "--batch", "2"]
    journal = out / JOURNAL
    with begun(command, lambda: journal.exists() and journal.read_bytes().count(b"\n") > 4) as process:
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 2
        # A service manager tells all of its processes, a person the one that was started.
        (os.killpg if to_all else os.kill)(process.pid, signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (143, SENTENCE)
    assert not psutil.wait_procs(children, timeout=10)[1]
    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert again.returncode == 0, again.stderr
    assert len((out / "results.csv").read_text().splitlines()) == 401


def test_whoever_began_to_listen_before_listens_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    before, children = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGCHLD)

    def told() -> None:
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("it went on")

    def told_while_failing() -> None:
        try:
            raise RuntimeError("a worker is gone")
        finally:
            signal.raise_signal(signal.SIGTERM)

    try:
        for command in (told, told_while_failing):
            assert guarded(command) == EXIT_TERMINATED
            assert capsys.readouterr().err == SENTENCE
    finally:
        signal.signal(signal.SIGCHLD, children)
    assert signal.getsignal(signal.SIGTERM) is before
    assert guarded(lambda: 1 / 0) == EXIT_FAULT


def test_what_libraries_do_when_they_are_imported_does_not_matter() -> None:
    program = (
        "import os, signal, sys\n"
        "from app.exits import guarded\n"
        "def told():\n"
        "    import splat.scene\n"
        "    assert 'pycolmap' in sys.modules\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    signal.pause()\n"
        "sys.exit(guarded(told))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (143, SENTENCE)
