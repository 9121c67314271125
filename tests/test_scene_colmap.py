import shutil

import numpy as np
import pycolmap
import pytest
from PIL import Image

from encoders.errors import InputError
from splat.scene import load_scene

CAMERAS = """# Camera list, as in COLMAP's documentation of its text format
1 PINHOLE 32 24 40 41 15 13
2 SIMPLE_RADIAL 64 48 80 32 24 0.05
"""
# The quaternion w x y z of a quarter turn about y, and one without rotation. "2.png" has no observations.
IMAGES = """# Image list with two lines of data per image
1 0.70710678118654752 0 0.70710678118654752 0 1 2 3 1 1.png
10.5 11.5 7 20.0 21.0 9
2 1 0 0 0 0 0 5 2 2.png

3 1 0 0 0 0.5 0 5 1 3.png

"""
POINTS = """# X Y Z R G B ERROR TRACK
9 4 5 6 40 50 60 0.5 1 1
7 1 2 3 10 20 30 0.1 1 0
"""


def text_model(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cameras.txt").write_text(CAMERAS)
    (folder / "images.txt").write_text(IMAGES)
    (folder / "points3D.txt").write_text(POINTS)


def write_images(folder, names=("1.png", "2.png", "3.png")):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (48, 64, 3) if name.endswith("2.png") else (24, 32, 3)
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 256, size, dtype=np.uint8)).save(path)


@pytest.mark.parametrize("place", ["sparse/0", "sparse", ".", "colmap/sparse/0"])
@pytest.mark.parametrize("kind", ["text", "binary"])
def test_text_and_binary_models_are_read_wherever_they_lie(tmp_path, place, kind):
    model = tmp_path / place
    text_model(model)
    write_images(tmp_path / "images")
    if kind == "binary":
        pycolmap.Reconstruction(str(model)).write_binary(str(model))
        for file in model.glob("*.txt"):
            file.unlink()
    scene = load_scene(tmp_path)
    first, second, third = scene.cameras
    assert [camera.name for camera in scene.cameras] == ["1", "2", "3"]
    np.testing.assert_array_equal(first.K, [[40, 0, 15], [0, 41, 13], [0, 0, 1]])
    # A quarter turn about y takes x to -z and z to x.
    np.testing.assert_allclose(first.viewmat, [[0, 0, 1, 1], [0, 1, 0, 2], [-1, 0, 0, 3], [0, 0, 0, 1]], atol=1e-12)
    np.testing.assert_allclose(third.center, [-0.5, 0, -5], atol=1e-12)
    assert (second.width, second.height) == (64, 48)
    assert scene.image(1).shape == (48, 64, 3)
    np.testing.assert_array_equal(scene.points, [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(scene.point_colors, [[10, 20, 30], [40, 50, 60]])
    expected = np.asarray(Image.open(tmp_path / "images" / "1.png"))
    np.testing.assert_array_equal(scene.image(0), expected)


def test_the_model_folder_itself_finds_the_images_beside_it(tmp_path):
    text_model(tmp_path / "sparse" / "0")
    write_images(tmp_path / "images")
    assert len(load_scene(tmp_path / "sparse" / "0").cameras) == 3


def test_a_half_size_copy_of_the_images_is_used_as_it_is(tmp_path):
    text_model(tmp_path / "sparse" / "0")
    write_images(tmp_path / "images")
    half = Image.open(tmp_path / "images" / "1.png").resize((16, 12))
    half.save(tmp_path / "images" / "1.png")
    camera = load_scene(tmp_path).cameras[0]
    np.testing.assert_allclose(camera.K, [[20, 0, 7.5], [0, 20.5, 6.5], [0, 0, 1]])


def test_an_exif_turn_is_ignored_as_colmap_ignores_it(tmp_path):
    text_model(tmp_path / "sparse" / "0")
    write_images(tmp_path / "images")
    stored = np.asarray(Image.open(tmp_path / "images" / "1.png"))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down: the size alone cannot tell
    Image.fromarray(stored).save(tmp_path / "images" / "1.png", exif=exif)
    np.testing.assert_array_equal(load_scene(tmp_path).image(0), stored)


def test_images_without_a_file_are_left_out_and_counted(tmp_path):
    text_model(tmp_path / "sparse" / "0")
    write_images(tmp_path / "images", ["1.png", "3.png"])
    said = []
    scene = load_scene(tmp_path, report=lambda done, total, message: said.append(message))
    assert [camera.name for camera in scene.cameras] == ["1", "3"]
    assert any("1 of the 3 images" in message for message in said)
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(InputError, match=r"None of the 3 images.*1\.png"):
        load_scene(tmp_path)


def test_sub_folders_keep_equal_file_names_apart(tmp_path):
    text_model(tmp_path / "sparse")
    (tmp_path / "sparse" / "images.txt").write_text(
        IMAGES.replace("1.png", "left/a.png").replace("3.png", "right/a.png")
    )
    write_images(tmp_path / "images", ["left/a.png", "2.png", "right/a.png"])
    assert [camera.name for camera in load_scene(tmp_path).cameras] == ["2", "left_a", "right_a"]


def test_every_projection_of_a_colmap_model_agrees_with_our_cameras(tmp_path):
    # COLMAP's own synthetic scene: its 2D observations against our undistorted pinhole cameras.
    options = pycolmap.SyntheticDatasetOptions()
    options.camera_model_id = pycolmap.CameraModelId.PINHOLE
    options.camera_width, options.camera_height = 320, 240
    options.camera_params = [250.0, 260.0, 150.0, 130.0]
    options.num_points3D = 50
    model = pycolmap.synthesize_dataset(options)
    (tmp_path / "sparse").mkdir()
    model.write_binary(str(tmp_path / "sparse"))
    names = [image.name for image in model.images.values()]
    for name in names:
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (320, 240)).save(path)
    scene = load_scene(tmp_path, scale=0.5)
    checked = 0
    for camera, image in zip(scene.cameras, sorted(model.images.values(), key=lambda i: i.name), strict=True):
        for observed in image.points2D:
            if observed.has_point3D():
                pixel = camera.K @ (camera.viewmat @ np.append(model.points3D[observed.point3D_id].xyz, 1.0))[:3]
                np.testing.assert_allclose(pixel[:2] / pixel[2], observed.xy / 2, atol=1e-4)
                checked += 1
    assert checked > 100


DAMAGE = {
    "truncated": lambda model: (model / "images.bin").write_bytes((model / "images.bin").read_bytes()[:150]),
    "empty": lambda model: (model / "images.bin").write_bytes(b""),
    "random": lambda model: (model / "cameras.bin").write_bytes(b"\xff" * 64),
    "no points": lambda model: (model / "points3D.bin").unlink(),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_binary_model_is_refused(tmp_path, how):
    model = tmp_path / "sparse"
    text_model(model)
    write_images(tmp_path / "images")
    pycolmap.Reconstruction(str(model)).write_binary(str(model))
    for file in model.glob("*.txt"):
        file.unlink()
    DAMAGE[how](model)
    with pytest.raises(InputError, match="sparse") as caught:
        load_scene(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("images.txt", "1 2 3 1 1.png", "1 2 3 1", "cannot be read"),
        ("images.txt", "1 2 3 1 1.png", "nan 2 3 1 1.png", "sparse"),
        ("images.txt", "5 2 2.png", "5 77 2.png", "sparse"),
        ("cameras.txt", "PINHOLE", "MAGIC", "cannot be read"),
        ("cameras.txt", "40 41 15", "-40 41 15", "cannot use"),
        ("cameras.txt", "PINHOLE 32 24 40 41 15 13", "EQUIRECTANGULAR 32 24 32 24", "cannot use"),
        ("images.txt", "3.png", "1.png", "2 times"),
        ("images.txt", IMAGES, "# nothing\n", "cannot be read"),
    ],
)
def test_a_damaged_text_model_is_refused(tmp_path, file, old, new, said):
    model = tmp_path / "sparse"
    text_model(model)
    write_images(tmp_path / "images")
    path = model / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=said):
        load_scene(tmp_path)


def test_an_empty_model_is_refused(tmp_path):
    text_model(tmp_path / "sparse")
    (tmp_path / "sparse" / "images.txt").write_text("# nothing\n")
    (tmp_path / "sparse" / "points3D.txt").write_text("# nothing\n")
    with pytest.raises(InputError, match="no image with a pose"):
        load_scene(tmp_path)
