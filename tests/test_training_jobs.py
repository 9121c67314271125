"""Trainings as processes: queued, stopped, killed, continued, found again; most with a trainer that only pretends."""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app import training_folder, training_jobs, training_process
from app.training_folder import Job
from app.training_jobs import TrainingJobs
from encoders.errors import InputError

HERE = Path(__file__).parent


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_process, "TRAINER", (sys.executable, str(HERE / "pretend_trainer.py")))
    monkeypatch.setenv("PYTHONPATH", str(HERE.parent))


@pytest.fixture
def shown() -> list[Path]:
    return []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def jobs(root: Path, shown: list[Path], pretend: None) -> Iterator[TrainingJobs]:
    jobs = TrainingJobs(root, shown.append)
    yield jobs
    jobs.close()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(random.integers(0, 255, (60, 80, 3), np.uint8)).save(folder / f"img {number}.jpg")
    return sorted(folder.iterdir())


def wait(jobs: TrainingJobs, name: str, until: Callable[[Job], bool], seconds: float = 60.0) -> Job:
    deadline = time.monotonic() + seconds
    while not until(job := jobs.get(name)):
        assert time.monotonic() < deadline, (job, jobs.folder(name).said()[-5:])
        time.sleep(0.05)
    return job


def at_step(jobs: TrainingJobs, least: int) -> Callable[[Job], bool]:
    return lambda job: len(jobs.folder(job.name).progress().steps) >= least


def in_state(*states: str) -> Callable[[Job], bool]:
    return lambda job: job.state in states


def order(root: Path, name: str, what: str) -> None:
    (root / name / "order").write_text(what)
    (root / name / "order").rename(root / name / "do")


def test_one_trains_and_the_others_wait(jobs: TrainingJobs, root: Path, shown: list[Path], photos: list[Path]) -> None:
    assert [jobs.start(name, photos).state for name in ("a", "b", "c")] == ["running", "waiting", "waiting"]
    assert [(job.name, job.turn) for job in jobs.jobs()] == [("c", 2), ("b", 1), ("a", 0)]
    with pytest.raises(InputError, match="is waiting"):
        jobs.remove("b")
    assert jobs.cancel("b").state == "stopped"
    assert jobs.get("c").turn == 1
    wait(jobs, "a", at_step(jobs, 1))
    order(root, "a", "exit 0")
    wait(jobs, "a", in_state("finished"))
    assert shown == [root / "a"]
    assert jobs.get("c").state == "running"
    with pytest.raises(InputError, match="is finished"):
        jobs.resume("a")
    jobs.show("a")
    assert shown == [root / "a"] * 2
    jobs.remove("b")
    assert [job.name for job in jobs.jobs()] == ["c", "a"]
    assert sorted(path.name for path in root.iterdir()) == ["a", "c"]


def test_what_was_stopped_continues(jobs: TrainingJobs, root: Path, shown: list[Path], photos: list[Path]) -> None:
    jobs.start("desk", photos)
    wait(jobs, "desk", at_step(jobs, 3))
    assert jobs.cancel("desk").state == "stopping"
    wait(jobs, "desk", in_state("stopped"))
    reached = int((root / "desk" / "steps").read_text())
    assert reached > 10
    assert not (root / "desk" / "tmp").exists()
    with pytest.raises(InputError, match="not being trained"):
        jobs.cancel("desk")
    assert jobs.resume("desk").state == "running"
    wait(jobs, "desk", lambda _job: f"from step {reached}" in jobs.folder("desk").said()[-1])
    assert shown == []


def test_who_does_not_listen_is_killed(
    jobs: TrainingJobs, root: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_process, "GRACE_SECONDS", 0.5)
    jobs.start("desk", photos)
    order(root, "desk", "deaf")
    wait(jobs, "desk", lambda _job: (root / "desk" / "is-deaf").exists())
    jobs.cancel("desk")
    wait(jobs, "desk", in_state("stopped"))
    assert not jobs.folder("desk").busy()


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("kill 9", r"killed, perhaps because memory ran out \(SIGKILL\); Resume"),
        ("kill 11", r"crash \(SIGSEGV\); Resume"),
        ("exit 2 Few photos in {root}/desk/photos; take more.", r"^Few photos in desk/photos; take more\.$"),
        ("exit 1 dictsplat has a fault: Oh.", "^dictsplat has a fault: Oh.$"),
    ],
)  # fmt: skip
def test_failures_are_told_in_a_sentence(
    jobs: TrainingJobs, root: Path, shown: list[Path], photos: list[Path], what: str, sentence: str
) -> None:
    jobs.start("desk", photos)
    jobs.start("next", photos)
    order(root, "desk", what.format(root=root))
    job = wait(jobs, "desk", in_state("failed"))
    with pytest.raises(InputError, match=sentence):
        raise InputError(job.sentence)
    assert shown == []
    assert jobs.get("next").state == "running"
    again = TrainingJobs(root, shown.append)
    assert (again.get("desk").state, again.get("desk").sentence) == ("failed", job.sentence)


def test_a_training_that_was_removed_while_it_waited_is_passed_over(
    jobs: TrainingJobs, root: Path, photos: list[Path]
) -> None:
    for name in ("a", "b", "c"):
        jobs.start(name, photos)
    shutil.rmtree(root / "b")
    order(root, "a", "kill 9")
    wait(jobs, "a", in_state("failed"))
    wait(jobs, "c", in_state("running"))
    with pytest.raises(InputError, match="no training called b"):
        jobs.get("b")
    assert jobs.start("b", photos).state == "waiting"


def test_a_full_disk_does_not_stop_the_queue(
    jobs: TrainingJobs, root: Path, shown: list[Path], photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c", "d"):
        jobs.start(name, photos)

    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr(training_folder, "write_json", full)
        disk.setattr(training_jobs, "launch", full)
        assert jobs.cancel("d").state == "stopped"
        order(root, "a", "kill 9")
        told = [wait(jobs, name, in_state("failed", "stopped")) for name in ("a", "b", "c", "d")]
        assert [job.state for job in told] == ["failed", "failed", "failed", "stopped"]
        assert "SIGKILL" in told[0].sentence
        assert told[1].sentence == told[2].sentence == "The training could not be started: No space left on device."
        assert {folder.read().outcome for job in told if (folder := jobs.folder(job.name))} == {""}
    assert {job.state for job in jobs.jobs()} == {"failed", "stopped"}
    again = TrainingJobs(root, shown.append)  # what could not be written then is there now
    assert [(again.get(job.name).state, again.get(job.name).sentence) for job in told] == [
        (job.state, job.sentence) for job in told
    ]
    assert jobs.resume("c").state == "running"
    wait(jobs, "c", at_step(jobs, 1))


def test_a_scene_that_cannot_be_shown_has_failed(root: Path, photos: list[Path], pretend: None) -> None:
    def refuse(folder: Path) -> None:
        raise InputError(f"{folder}/gaussians.ply is damaged; train again.")

    jobs = TrainingJobs(root, refuse)
    jobs.start("desk", photos)
    order(root, "desk", "exit 0")
    assert wait(jobs, "desk", in_state("failed")).sentence == "desk/gaussians.ply is damaged; train again."
    jobs.close()


def test_a_closed_app_leaves_trainings_to_the_next(
    jobs: TrainingJobs, root: Path, shown: list[Path], photos: list[Path]
) -> None:
    for name in ("desk", "shelf"):
        jobs.start(name, photos)
    wait(jobs, "desk", at_step(jobs, 2))
    jobs.close()
    again = TrainingJobs(root, shown.append)
    for name in ("desk", "shelf"):
        assert (again.get(name).state, again.get(name).sentence) == (
            "stopped", "The app was closed before it was finished.",
        )  # fmt: skip
    assert again.resume("desk").state == "running"
    wait(again, "desk", lambda _job: "from step" in again.folder("desk").said()[-1])
    order(root, "desk", "exit 0")
    wait(again, "desk", in_state("finished"))
    again.close()


def test_a_killed_app_takes_its_training_with_it(root: Path, photos: list[Path], pretend: None) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from app import training_process\n"
        "from app.training_jobs import TrainingJobs\n"
        "training_process.TRAINER = (sys.executable, sys.argv[2])\n"
        "TrainingJobs(Path(sys.argv[1]), print).start('desk', [Path(name) for name in sys.argv[3:]])\n"
        "print('started', flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(root), str(HERE / "pretend_trainer.py"), *map(str, photos)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    jobs = TrainingJobs(root, print)
    wait(jobs, "desk", at_step(jobs, 2))
    assert jobs.get("desk").state == "running"
    with pytest.raises(InputError, match="trained by another program"):
        jobs.cancel("desk")
    with pytest.raises(InputError, match="is running"):
        jobs.resume("desk")
    process.kill()
    process.wait()
    wait(jobs, "desk", in_state("stopped"))
    assert jobs.resume("desk").state == "running"
    jobs.close()


@pytest.mark.parametrize("name", ["../up", "a/b", "/abs", ".hidden", "-a", "ä", "a" * 41, "a\0b", "a\nb/"])
def test_names_that_could_be_paths_are_refused(jobs: TrainingJobs, root: Path, photos: list[Path], name: str) -> None:
    with pytest.raises(InputError, match=r"^Give a name of .*\.$"):
        jobs.start(name, photos)
    with pytest.raises(InputError, match=r"^There is no training"):
        jobs.get(name)
    assert not root.exists()


def test_names_are_taken_once(jobs: TrainingJobs, root: Path, photos: list[Path]) -> None:
    assert jobs.start(" My_new Desk ", photos).name == "my-new-desk"
    (root / "shelf").mkdir()
    for name in ("My new desk", "shelf", "demo"):
        with pytest.raises(InputError, match="already; choose another name"):
            jobs.start(name, photos)
    with pytest.raises(InputError, match="no preset"):
        jobs.start("new", photos, "best")
    assert sorted(path.name for path in root.iterdir()) == ["my-new-desk", "shelf"]


def test_a_scene_without_a_name_is_called_after_its_files(
    jobs: TrainingJobs, root: Path, photos: list[Path], tmp_path: Path
) -> None:
    assert [jobs.start(name, photos).name for name in ("", "  ", "scene-3", "")] == [
        "scene", "scene-2", "scene-3", "scene-4",
    ]  # fmt: skip
    called = {
        "My Desk_2 (new).zip": "my-desk-2-new",
        "demo.zip": "demo-2",
        "写真.zip": "scene-5",
        f"{'long-' * 20}.zip": "long-long-long-long-long-long",
    }
    for file, name in called.items():
        with zipfile.ZipFile(tmp_path / file, "w") as archive:
            for photo in photos:
                archive.write(photo, photo.name)
        jobs.cancel(jobs.start("", [tmp_path / file]).name)
        assert (root / name / "job.json").exists(), name
    (tmp_path / "Walk around.MOV").write_bytes(b"no film")
    assert jobs.start("", [tmp_path / "Walk around.MOV"]).name == "walk-around"


def test_files_are_looked_at_before_the_name(jobs: TrainingJobs, root: Path) -> None:
    with pytest.raises(InputError, match="nothing to train on"):
        jobs.start("../no name", [])
    with pytest.raises(InputError, match=r"^notes\.txt is no photo"):
        jobs.start("", [Path("notes.txt")])
    assert not root.exists()


def test_no_room_no_training(
    jobs: TrainingJobs, root: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    uploaded = sum(photo.stat().st_size for photo in photos)
    enough = training_jobs.ROOM_BYTES + 3 * uploaded
    for free, fits in ((enough - 1, False), (enough, True)):
        monkeypatch.setattr(training_jobs.shutil, "disk_usage", lambda _path, free=free: usage(2 * free, free, free))
        if fits:
            jobs.start("desk", photos)
        else:
            with pytest.raises(InputError, match=r"1\.1 GB are free on the disk and 1\.1 GB are needed"):
                jobs.start("desk", photos)
            assert list(root.iterdir()) == []


def test_the_queue_is_bounded(jobs: TrainingJobs, photos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_jobs, "MOST_WAITING", 2)
    for name in ("a", "b", "c"):
        jobs.start(name, photos)
    for more in (lambda: jobs.start("d", photos), jobs.start_demo):
        with pytest.raises(InputError, match="2 trainings are waiting"):
            more()


def test_photos_are_copied_under_plain_names(
    jobs: TrainingJobs, root: Path, photos: list[Path], tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for folder in ("day one", "day two"):
            for photo in photos:
                archive.write(photo, f"{folder}/{photo.name}")
        archive.writestr("readme.txt", "not a photo")
        archive.writestr("transforms.json", '{"frames": [{"file_path": "../../secret.png"}]}')
    job = jobs.start("desk", [tmp_path / "all.zip"])
    assert (job.record.kind, job.record.count, job.record.place) == ("photos", 8, "photos")
    kept = sorted((root / "desk" / "photos").iterdir())
    assert [path.name for path in kept] == sorted(
        f"img_{number}{again}.jpg" for number in range(4) for again in ("", "_2")
    )
    assert kept[0].read_bytes() == photos[0].read_bytes()
    assert not (root / "desk" / "unpacked").exists()
    assert all(photo.exists() for photo in photos)
    (tmp_path / "Film (1).MP4").write_bytes(b"no film")
    assert jobs.start("film", [tmp_path / "Film (1).MP4"]).record.place == "Film_1.mp4"


def test_uploads_that_are_no_scene_leave_nothing_behind(
    jobs: TrainingJobs, root: Path, photos: list[Path], tmp_path: Path
) -> None:
    for name, content in {
        "text.jpg": b"text",
        "empty.jpg": b"",
        "film.mp4": b"",
        "notes.txt": b"x",
        "bad.zip": b"x",
    }.items():
        (tmp_path / name).write_bytes(content)
    with zipfile.ZipFile(tmp_path / "up.zip", "w") as archive:
        archive.writestr("../../up.jpg", photos[0].read_bytes())
    with zipfile.ZipFile(tmp_path / "few.zip", "w") as archive:
        archive.write(photos[0], "one.jpg")
    refused = {
        "nothing to train on": [],
        "takes 3 photos, better 20 or more; you gave 2": photos[:2],
        r"; few\.zip has 1\.": [tmp_path / "few.zip"],
        r"^text\.jpg is no image": [*photos, tmp_path / "text.jpg"],
        r"^empty\.jpg is empty": [*photos, tmp_path / "empty.jpg"],
        r"^film\.mp4 is empty": [tmp_path / "film.mp4"],
        r"^notes\.txt is no photo": [tmp_path / "notes.txt"],
        r"bad\.zip is damaged": [tmp_path / "bad.zip"],
        "outside of its folder": [tmp_path / "up.zip"],
        r"^up\.zip came together": [*photos, tmp_path / "up.zip"],
        r"^film\.mp4 came together": [tmp_path / "film.mp4", *photos],
        "gone": [*photos, tmp_path / "gone.jpg"],
    }
    for sentence, files in refused.items():
        with pytest.raises(InputError, match=sentence) as caught:
            jobs.start("desk", files)
        assert str(tmp_path) not in str(caught.value)
        assert list(root.glob("*")) == []
    assert jobs.jobs() == []


def test_what_a_killed_program_was_receiving_is_removed(root: Path) -> None:
    old, new = root / ".desk.abc.tmp", root / ".shelf.abc.tmp"
    for folder in (old, new):
        (folder / "photos").mkdir(parents=True)
    os.utime(old, (0, 0))
    TrainingJobs(root, print)
    assert list(root.iterdir()) == [new]


def test_only_own_folders_are_trainings(root: Path) -> None:
    for name, content in {"plain": None, "broken": "{", "odd": '{"kind": "photos", "created": 1, "more": 2}'}.items():
        (root / name).mkdir(parents=True)
        if content is not None:
            (root / name / "job.json").write_text(content)
    jobs = TrainingJobs(root, print)
    assert jobs.jobs() == []
    with pytest.raises(InputError, match="no training called plain"):
        jobs.remove("plain")
    assert (root / "plain").exists()


def test_a_lock_tells_who_is_at_work(jobs: TrainingJobs, root: Path, photos: list[Path]) -> None:
    jobs.start("a", photos)
    jobs.start("b", photos)
    jobs.cancel("b")
    job = root / "b" / "job.json"
    job.write_text(job.read_text().replace('"stopped"', '""'))
    handle = os.open(root / "b" / ".lock", os.O_RDWR | os.O_CREAT)
    assert jobs.get("b").state == "stopped"
    fcntl.flock(handle, fcntl.LOCK_EX)
    assert jobs.get("b").state == "running"
    os.close(handle)
    assert jobs.get("b").state == "stopped"


def test_the_demo_scene_is_made_once(root: Path, pretend: None) -> None:
    answers: list[InputError | None] = [None, None, InputError("It was spoilt."), None]
    shown: list[Path] = []

    def show(folder: Path) -> None:
        shown.append(folder)
        if (answer := answers[len(shown) - 1]) is not None:
            raise answer

    jobs = TrainingJobs(root, show, "cpu")
    assert jobs.start_demo().state == "running"
    wait(jobs, "demo", at_step(jobs, 1))
    assert jobs.start_demo().state == "running", "it is there already"
    order(root, "demo", "exit 0")
    wait(jobs, "demo", in_state("finished"))
    assert jobs.folder("demo").said() == ["trains demo --out demo --device cpu from step 0"]
    assert jobs.start_demo().state == "finished"
    assert jobs.start_demo().state == "running", "made again, because it could not be shown"
    wait(jobs, "demo", in_state("finished"))
    assert shown == [root / "demo"] * 4
    jobs.close()
