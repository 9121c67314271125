"""What visitors leave behind is bounded, and does not outlive the program."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from app.scratch import Scratch
from encoders.errors import InputError


def folders(scratch: Scratch) -> list[Path]:
    return sorted(path for path in scratch.root.iterdir() if path.is_dir())


def test_a_session_keeps_its_folder_and_others_have_theirs(tmp_path: Path) -> None:
    scratch = Scratch(parent=tmp_path)
    with scratch.use("../../etc") as first:
        (first / "photo").write_bytes(b"x")
    with scratch.use("b") as second, scratch.use("../../etc") as again:
        assert again == first
        assert second != first
        assert (again / "photo").read_bytes() == b"x"
    assert folders(scratch) == sorted([first, second])
    assert scratch.root.stat().st_mode & 0o077 == 0
    scratch.drop("../../etc")
    scratch.drop("nobody")
    with pytest.raises(InputError, match="upload them again"), scratch.use("../../etc", new=False):
        pass
    assert folders(scratch) == [second]
    scratch.close()
    assert list(tmp_path.iterdir()) == []


def test_the_one_left_alone_for_longest_makes_room(tmp_path: Path) -> None:
    scratch = Scratch(most=2, parent=tmp_path)
    with scratch.use("a") as a, scratch.use("b"), pytest.raises(InputError, match="try again"), scratch.use("c"):
        pass
    with scratch.use("b") as b, scratch.use("c") as c:
        assert folders(scratch) == sorted([b, c])
        assert not a.exists()
    scratch.close()


def test_folders_left_alone_grow_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    scratch = Scratch(seconds=60, parent=tmp_path)
    with scratch.use("old") as old, scratch.use("busy") as busy:
        now += 50
        with scratch.use("old"):
            pass
        now += 50
        with scratch.use("new") as new:
            assert folders(scratch) == sorted([old, busy, new])
        now += 61
        with scratch.use("new") as new:
            assert folders(scratch) == sorted([old, busy, new])  # both are in use
    now += 61
    with scratch.use("last") as last:
        assert folders(scratch) == [last]
    scratch.close()


def test_a_folder_in_use_goes_when_it_is_no_longer(tmp_path: Path) -> None:
    scratch = Scratch(parent=tmp_path)
    with scratch.use("a") as first:
        scratch.drop("a")
        assert first.exists()
        with scratch.use("a") as second:
            assert second != first
    assert folders(scratch) == [second]
    scratch.close()


def test_many_threads_get_along(tmp_path: Path) -> None:
    scratch = Scratch(most=4, parent=tmp_path)
    faults: list[BaseException] = []

    def visit(number: int) -> None:
        try:
            for turn in range(50):
                key = str((number + turn) % 8)
                try:
                    with scratch.use(key) as folder:
                        (folder / str(number)).write_text("x")
                        assert (folder / str(number)).exists()
                except InputError:
                    continue
                if turn % 7 == 0:
                    scratch.drop(key)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert len(folders(scratch)) <= 4
    scratch.close()


def program(parent: Path, ending: str) -> subprocess.Popen:
    code = (
        "import sys, time; from pathlib import Path; from app.scratch import Scratch\n"
        "scratch = Scratch(parent=Path(sys.argv[1]))\n"
        "with scratch.use('a') as folder: (folder / 'photo').write_text('x')\n"
        f"print(flush=True); {ending}"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(parent)], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    return process


def test_nothing_outlives_the_program(tmp_path: Path) -> None:
    assert program(tmp_path, "sys.exit(3)").wait(60) == 3
    assert list(tmp_path.iterdir()) == []


def test_the_next_program_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    process = program(tmp_path, "time.sleep(60)")
    (left,) = tmp_path.iterdir()
    first = Scratch(parent=tmp_path)
    assert left.exists()  # its owner lives
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    second = Scratch(parent=tmp_path)
    assert not left.exists()
    assert first.root.exists()
    first.close()
    second.close()
