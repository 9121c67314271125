"""The scale that nobody asked for: from the images that are read, and from nothing else in the folder."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_scene_colmap import text_model

from splat.scene import load_scene
from splat.scene.scale import automatic_scale, published_scale


def save(path: Path, width: int = 1600, height: int = 1200) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(path)


@pytest.mark.parametrize(("side", "scale"), [(999, 1.0), (1000, 1.0), (1001, 0.5), (2001, 0.25), (4032, 0.125)])
def test_the_longest_side_becomes_at_most_1000(tmp_path: Path, side: int, scale: float) -> None:
    save(tmp_path / "a.png", 20, side)
    assert automatic_scale(tmp_path) == scale


def test_files_that_the_reader_skips_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "0.jpg").write_bytes(b"")
    (tmp_path / "1.jpg").write_bytes(b"no photo")
    save(tmp_path / ".hidden.png", 10, 10)
    (tmp_path / "._IMG.jpg").write_bytes(b"\0\5\x16\7")
    save(tmp_path / "IMG.png")
    assert automatic_scale(tmp_path) == 0.5
    (tmp_path / "IMG.png").unlink()
    assert automatic_scale(tmp_path) == 1.0


def test_a_run_in_the_photo_folder_does_not_count(tmp_path: Path) -> None:
    save(tmp_path / "images" / "IMG.png")
    save(tmp_path / "a_run" / "scene" / "images" / "IMG-12.png", 800, 600)
    assert automatic_scale(tmp_path) == 0.5


def test_the_images_of_a_transforms_json_count(tmp_path: Path) -> None:
    save(tmp_path / "aside.png", 10, 10)
    save(tmp_path / "photos" / "b.png")
    pose = np.eye(4).tolist()
    frames = [{"file_path": f"photos/{name}", "transform_matrix": pose} for name in ("gone", "b")]
    path = tmp_path / "transforms.json"
    path.write_text(str({"fl_x": 100, "frames": frames}).replace("'", '"'))
    assert automatic_scale(tmp_path) == automatic_scale(path) == 0.5


def test_the_images_of_a_colmap_model_count(tmp_path: Path) -> None:
    text_model(tmp_path / "sparse" / "0")
    save(tmp_path / "images" / "0_not_in_the_model.png", 10, 10)
    save(tmp_path / "images" / "2.png")
    (tmp_path / "images" / "1.png").write_bytes(b"")
    assert automatic_scale(tmp_path) == 0.5
    shutil.rmtree(tmp_path / "sparse")
    assert automatic_scale(tmp_path) == 1.0


@pytest.mark.parametrize(
    ("size", "scaled"),
    [
        ((986, 728), (986, 728)),
        ((1600, 2400), (1600, 2400)),
        ((1601, 1200), (1600, 1199)),
        ((5187, 3361), (1600, 1037)),
    ],
)
def test_published_scores_are_of_images_1600_wide(
    tmp_path: Path, size: tuple[int, int], scaled: tuple[int, int]
) -> None:
    save(tmp_path / "a.png", *size)
    pose = np.eye(4).tolist()
    path = tmp_path / "transforms.json"
    path.write_text(str({"fl_x": 1000, "frames": [{"file_path": "a.png", "transform_matrix": pose}]}).replace("'", '"'))
    (camera,) = load_scene(tmp_path, published_scale(tmp_path), with_points=False).cameras
    assert (camera.width, camera.height) == scaled


def test_any_scale_fits_photos_to_their_cameras(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / f"{name}.png", 1237, 823)
    pose = np.eye(4).tolist()
    frames = [{"file_path": f"{name}.png", "transform_matrix": pose} for name in ("a", "b")]
    (tmp_path / "transforms.json").write_text(str({"fl_x": 1000, "frames": frames}).replace("'", '"'))
    scene = load_scene(tmp_path, 0.3968, tmp_path / "cache", with_points=False)
    assert (scene.cameras[0].width, scene.cameras[0].height) == (491, 327)  # of 490.84 and 326.57
    assert scene.image(0).shape == (327, 491, 3)
    # Not square by a fraction of a pixel: each axis is stretched by what its own size was rounded to.
    np.testing.assert_allclose(np.diag(scene.cameras[0].K)[:2], [1000 * 491 / 1237, 1000 * 327 / 823])
