"""Two processes never write to one folder: whatever the command, the second is refused and changes nothing."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fitting
import inspection
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dictas.datasets import read_dataset
from dictas.evaluate import EvaluateOptions, evaluate
from encoders.errors import InputError
from encoders.locks import FolderInUse, locked_folder, sweep

HOLDER = """
import sys
from pathlib import Path
import torch
import test_locks
torch.set_num_threads(1)
told = 0

def report(done, total, message):
    global told
    told += 1
    if told == {pause}:
        print("holds", flush=True)
        sys.stdin.read()

test_locks.{command}(*map(Path, sys.argv[1:]), report=report)
"""
"""Runs a function of this module, and waits in the middle of it until its input is closed."""


@contextmanager
def holding(command: str, pause: int, *arguments: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process in the middle of a command; it ends by itself behind the block."""
    program = [sys.executable, "-c", HOLDER.format(command=command, pause=pause), *map(str, arguments)]
    places = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(places)},
    ) as other:  # fmt: skip
        assert other.stdout is not None
        assert other.stdin is not None
        try:
            assert other.stdout.readline() == "holds\n"
            yield other
        finally:
            other.stdin.close()
        assert other.wait(timeout=120) == 0


def train(out: Path, report=lambda *_: None) -> None:
    fitting.run(out, report=report)


def measure(dataset: Path, out: Path, report=lambda *_: None) -> None:
    options = EvaluateOptions(shots=1, baselines=())
    evaluate(read_dataset(dataset), inspection.backbone(), inspection.ColourDistance(), out, options, report)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_two_processes_do_not_train_one_detector(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with holding("train", 5, out):
        before = contents(out)
        assert "training.safetensors" in before
        with pytest.raises(InputError, match=f"^Another dictsplat process is writing to {out}; wait for it or choose"):
            train(out)
        assert contents(out) == before
    train(tmp_path / "alone")
    for name in ("training.safetensors", "detector.safetensors"):
        ours, theirs = load_file(out / name), load_file(tmp_path / "alone" / name)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours.keys() | theirs.keys())


def test_two_processes_do_not_measure_into_one_folder(tmp_path: Path) -> None:
    part = tmp_path / "parts" / "bolt"
    for place, seed, spot in (("train/good", 1, None), ("test/good", 2, None), ("test/spot", 3, (20, 30))):
        inspection.save(part / place / "0.png", inspection.texture(seed, spot=spot))
    mask = np.zeros((64, 64), np.uint8)
    mask[20:36, 30:46] = 255
    inspection.save(part / "ground_truth" / "spot" / "0_mask.png", mask)
    out = tmp_path / "out"
    with holding("measure", 2, part, out):
        before = contents(out)
        with pytest.raises(InputError, match=f"^Another dictsplat process is writing to {out}; wait for it or choose"):
            measure(part, out)
        assert contents(out) == before
        assert "metrics.json" not in before
    assert "metrics.json" in contents(out)
    measure(part, out)


def test_one_process_has_one_writer_and_the_lock_goes_with_it(tmp_path: Path) -> None:
    with locked_folder(tmp_path / "a" / "b"):
        with pytest.raises(FolderInUse), locked_folder(tmp_path / "a" / "b"):
            pass
        with locked_folder(tmp_path / "a"):
            pass
    with locked_folder(tmp_path / "a" / "b"):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file, not a folder"), locked_folder(tmp_path / "file"):
        pass


def test_children_that_outlive_their_parent_do_not_keep_its_folder(tmp_path: Path) -> None:
    with locked_folder(tmp_path):
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
    try:
        time.sleep(0.1)
        with locked_folder(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_child_that_leaves_the_block_closes_nothing_of_its_own(tmp_path: Path) -> None:
    lock = locked_folder(tmp_path)
    lock.__enter__()
    child = os.fork()
    if not child:
        status = 1
        try:
            handle = os.open(tmp_path / "own", os.O_RDWR | os.O_CREAT)  # it gets the number that the lock had
            lock.__exit__(None, None, None)
            os.write(handle, b"still open")
            status = 0
        finally:
            os._exit(status)
    lock.__exit__(None, None, None)
    assert os.waitpid(child, 0)[1] == 0
    assert (tmp_path / "own").read_bytes() == b"still open"


def test_only_what_was_being_written_is_swept(tmp_path: Path) -> None:
    for name in (".a.x.tmp.json", "below/.b.y.tmp.png", "below/deep/.c.tmp", "a.json", ".tmp.notes"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".folder.z.tmp").mkdir()
    sweep(tmp_path, [".*.tmp*", "below/**/.*.tmp*", "missing/.*.tmp"])
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == [".tmp.notes", "a.json"]
    assert not (tmp_path / ".folder.z.tmp").exists()
