"""A disk that is full while cameras and points are looked for."""

import errno
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import cv2
import numpy as np
import pytest
from scene_corner import shots

from encoders.errors import InputError
from encoders.files import write_png
from splat.scene import scratch
from splat.scene.cameras import Camera
from splat.scene.photos import read_folder
from splat.scene.points import triangulate
from splat.scene.scratch import check_room, scratch_folder, write_image
from splat.scene.video import sample_frames

FULL = r"The temporary folder .* could not hold .*; make free space there"

LIMITED = """
import resource, sys
from pathlib import Path
from encoders.errors import InputError
from splat.scene import matching
from splat.scene.scratch import scratch_folder
from splat.scene.undistort import Lens
lens = Lens("PINHOLE", 64, 48, (50.0, 50.0, 32.0, 24.0))
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    with scratch_folder() as work:
        matching.extract(work / "f.db", Path(sys.argv[1]), {"a.png": lens}, 100, ())
except InputError as error:
    print(error)
"""


@pytest.fixture
def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV writes as on a full disk: it leaves nothing and returns False."""
    monkeypatch.setattr(cv2, "imwrite", lambda *_: False)


def photos(folder: Path) -> Path:
    for index in range(3):
        write_png(folder / f"{index}.png", np.random.default_rng(index).integers(0, 255, (48, 64, 3), dtype=np.uint8))
    return folder


@pytest.mark.usefixtures("no_room")
def test_a_full_disk_while_photos_are_copied(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=FULL):
        read_folder(photos(tmp_path))


@pytest.mark.usefixtures("no_room")
def test_a_full_disk_while_points_are_triangulated() -> None:
    taken = shots(2)
    height, width = taken[0].image.shape[:2]
    K = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]])
    cameras = [Camera(str(i), width, height, K, shot.viewmat) for i, shot in enumerate(taken)]
    with pytest.raises(InputError, match=FULL):
        triangulate(cameras, lambda i: taken[i].image)


def test_a_full_disk_while_frames_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "video.avi"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for index in range(6):
        video.write(np.full((48, 64, 3), 40 * index, np.uint8))
    video.release()
    monkeypatch.setattr(cv2, "imwrite", lambda *_: False)
    with pytest.raises(OSError, match="No space left") as caught:
        sample_frames(path, tmp_path)
    assert caught.value.errno == errno.ENOSPC


def test_a_database_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    """A file-size limit fails COLMAP's writes in the kernel, as a full disk does."""
    photos(tmp_path)
    (tmp_path / "0.png").rename(tmp_path / "a.png")
    command = [sys.executable, "-c", LIMITED, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("The temporary folder ")
    assert result.stdout.count("\n") == 1
    assert "free space" in result.stdout


def test_too_little_room_is_found_before_colmap_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda _: usage(10 << 20, 0, 10 << 20))
    check_room(tmp_path, 10)
    with pytest.raises(InputError, match=r"10 MB are free and 11 MB are needed"):
        check_room(tmp_path, 11)
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda _: usage(0, 0, 0))
    with pytest.raises(InputError, match=FULL):
        read_folder(photos(tmp_path / "photos"))


def test_faults_that_are_not_the_disks_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="unrelated"), scratch_folder():
        raise RuntimeError("unrelated")
    with pytest.raises(FileNotFoundError):
        write_image(tmp_path / "missing" / "x.png", np.zeros((4, 4, 3), np.uint8))
    with scratch_folder() as folder:
        write_image(folder / "x.png", np.full((4, 4, 3), 7, np.uint8))
        assert (cv2.imread(str(folder / "x.png")) == 7).all()
    assert not folder.exists()
