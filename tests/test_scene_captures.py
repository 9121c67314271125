"""Captures of phone apps as nerfstudio's ``ns-process-data polycam`` and ``record3d`` leave them: read as they are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from splat.scene import load_scene

WIDTH, HEIGHT, CROP = 64, 48, 3
PLY = "ply\nformat ascii 1.0\nelement vertex 2\nproperty double x\nproperty double y\nproperty double z\n"
COLOURS = "property uchar red\nproperty uchar green\nproperty uchar blue\n"


def photos(folder: Path, names: list[str], width: int, height: int) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in names:
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / name, quality=95)


def app_camera(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Camera to world as ARKit has it (x right, y up, looks along -z): rotation [3, 3] and place [3]."""
    return Rotation.from_euler("yxz", [40 * number, -10, 3], degrees=True).as_matrix(), np.array([number, 1.5, -2.0])


@pytest.fixture
def polycam(tmp_path: Path) -> Path:
    """Every frame has a calibration of its own, because of optical stabilisation; a border is cut off the photos.

    The app's world (y up) is turned by moving its axes round: nerfstudio's x, y, z are the app's z, x, y.
    """
    frames: list[dict[str, Any]] = []
    for number in range(3):
        rotation, place = app_camera(number)
        pose = np.eye(4)
        pose[:3] = np.column_stack([rotation, place])[[2, 0, 1]]
        frames.append(
            {
                "fl_x": 60.0 + number, "fl_y": 60.5 + number, "cx": 33.0 - CROP, "cy": 23.5 - CROP,
                "w": WIDTH - 2 * CROP, "h": HEIGHT - 2 * CROP,
                "file_path": f"./images/frame_{number + 1:05d}.jpg",
                "depth_file_path": f"./depth/frame_{number + 1:05d}.png",
                "transform_matrix": pose.tolist(),
            }
        )  # fmt: skip
    names = [Path(frame["file_path"]).name for frame in frames]
    photos(tmp_path / "images", names, WIDTH - 2 * CROP, HEIGHT - 2 * CROP)
    photos(tmp_path / "images_2", names, WIDTH // 2 - CROP, HEIGHT // 2 - CROP)
    photos(tmp_path / "depth", [name.replace("jpg", "png") for name in names], 16, 12)
    point = np.array([0.5, 0.25, -4.0])  # of the app's world
    line = " ".join(map(str, point[[2, 0, 1]]))
    (tmp_path / "point_cloud.ply").write_text(f"{PLY}{COLOURS}end_header\n{line} 10 20 30\n{line} 10 20 30\n")
    content = {"camera_model": "OPENCV", "orientation_override": "none", "frames": frames}
    (tmp_path / "transforms.json").write_text(json.dumps(content | {"ply_file_path": "point_cloud.ply"}, indent=4))
    return tmp_path


def test_a_polycam_capture_is_read(polycam: Path) -> None:
    scene = load_scene(polycam)
    assert [camera.name for camera in scene.cameras] == ["frame_00001", "frame_00002", "frame_00003"]
    for number, camera in enumerate(scene.cameras):
        assert (camera.width, camera.height) == (58, 42)
        np.testing.assert_array_equal(camera.K, [[60 + number, 0, 30], [0, 60.5 + number, 20.5], [0, 0, 1]])
        photo = np.asarray(Image.open(polycam / "images" / f"{camera.name}.jpg"))
        np.testing.assert_array_equal(scene.image(number), photo)
        # The cloud's point is where the app's own camera sees it: x right, y up, it looks along -z.
        rotation, place = app_camera(number)
        right, up, back = rotation.T @ ([0.5, 0.25, -4.0] - place)
        np.testing.assert_allclose((camera.viewmat @ [*scene.points[0], 1])[:3], [right, -up, -back], atol=1e-5)
    np.testing.assert_array_equal(scene.point_colors, [[10, 20, 30]] * 2)


@pytest.fixture
def record3d(tmp_path: Path) -> Path:
    """One calibration for all, with the optical axis in the middle; turned phones have upright photos."""
    frames = []
    for number in range(9):
        rotation, place = app_camera(number)
        pose = np.eye(4, dtype=np.float32)
        pose[:3] = np.column_stack([rotation, place])
        frames.append({"file_path": f"images/frame_{number + 1:05d}.jpg", "transform_matrix": pose.tolist()})
    photos(tmp_path / "images", [Path(str(frame["file_path"])).name for frame in frames], 36, 48)
    lens = {"fl_x": 45.5, "fl_y": 45.5, "cx": 18.0, "cy": 24.0, "w": 36, "h": 48, "camera_model": "OPENCV"}
    (tmp_path / "sparse_pc.ply").write_text(f"{PLY}{COLOURS}end_header\n1 2 3 40 50 60\n4 5 6 70 80 90\n")
    content = lens | {"frames": frames, "ply_file_path": "sparse_pc.ply"}
    (tmp_path / "transforms.json").write_text(json.dumps(content, indent=4))
    return tmp_path


def test_a_record3d_capture_is_read(record3d: Path) -> None:
    scene = load_scene(record3d)
    assert len(scene.cameras) == 9
    assert [scene.cameras[i].name for i in scene.test] == ["frame_00001", "frame_00009"]
    for number, camera in enumerate(scene.cameras):
        assert (camera.width, camera.height) == (36, 48)
        np.testing.assert_array_equal(camera.K, [[45.5, 0, 18], [0, 45.5, 24], [0, 0, 1]])
        rotation, place = app_camera(number)
        np.testing.assert_allclose(camera.center, place, atol=1e-5)
        np.testing.assert_allclose(camera.forward, -rotation[:, 2], atol=1e-5)
    np.testing.assert_array_equal(scene.points, [[1, 2, 3], [4, 5, 6]])


def test_a_frame_that_the_app_moved_is_taken_as_it_is(record3d: Path) -> None:
    """``applied_transform`` is history: poses and points have been moved by it already."""
    before = load_scene(record3d)
    content = json.loads((record3d / "transforms.json").read_text())
    content["applied_transform"] = [[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]]
    (record3d / "transforms.json").write_text(json.dumps(content))
    after = load_scene(record3d)
    for one, other in zip(before.cameras, after.cameras, strict=True):
        np.testing.assert_array_equal(one.viewmat, other.viewmat)
    np.testing.assert_array_equal(before.points, after.points)
