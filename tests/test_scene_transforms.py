import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encoders.errors import InputError
from splat.scene import images, load_scene
from splat.scene.transforms_json import read

FOX = Path(__file__).parents[2] / "shared" / "data" / "fox"


def pose(x=0.0, y=0.0, z=5.0):
    """OpenGL camera-to-world: at (x, y, z), looking along -z, y up."""
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    return matrix.tolist()


def photo(path, width=32, height=24, seed=0, **save):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **save)
    return pixels


def scene(folder, count=3, **keys):
    """A valid scene of ``count`` photos; returns the content of its transforms.json, which is written too."""
    frames = [{"file_path": f"images/{i:02d}.png", "transform_matrix": pose(x=0.1 * i)} for i in range(count)]
    for i, frame in enumerate(frames):
        photo(folder / frame["file_path"], seed=i)
    return write(
        folder,
        {"w": 32, "h": 24, "fl_x": 40.0, "fl_y": 41.0, "cx": 15.0, "cy": 13.0, "frames": frames, **keys},
    )


def write(folder, content):
    (folder / "transforms.json").write_text(json.dumps(content))
    return content


def load(folder, **options):
    return load_scene(folder, with_points=False, **options)


def test_opengl_poses_become_opencv_ones(tmp_path):
    # By hand: a camera at (1, 2, 5) turned by 90 degrees about the vertical looks along -x.
    turned = [[0, 0, 1, 1], [0, 1, 0, 2], [-1, 0, 0, 5], [0, 0, 0, 1]]
    content = scene(tmp_path, 2)
    content["frames"][1]["transform_matrix"] = turned
    write(tmp_path, content)
    straight, sideways = load(tmp_path).cameras
    np.testing.assert_allclose(straight.viewmat @ [0, 0, 0, 1], [0, 0, 5, 1], atol=1e-12)
    np.testing.assert_allclose(straight.viewmat @ [1, 1, 0, 1], [1, -1, 5, 1], atol=1e-12)  # right, and up
    np.testing.assert_allclose(sideways.center, [1, 2, 5], atol=1e-12)
    np.testing.assert_allclose(sideways.forward, [-1, 0, 0], atol=1e-12)
    # What lies at smaller z is to its right when it looks along -x with y up.
    np.testing.assert_allclose(sideways.viewmat @ [-2, 2, 4, 1], [1, 0, 3, 1], atol=1e-12)


def test_intrinsics_and_pixels_are_taken_as_they_are(tmp_path):
    scene(tmp_path)
    loaded = load(tmp_path)
    camera = loaded.cameras[0]
    np.testing.assert_array_equal(camera.K, [[40, 0, 15], [0, 41, 13], [0, 0, 1]])
    assert [c.name for c in loaded.cameras] == ["00", "01", "02"]
    for index in range(3):
        expected = np.asarray(Image.open(tmp_path / "images" / f"{index:02d}.png"))
        np.testing.assert_array_equal(loaded.image(index), expected)


def test_scale_resizes_images_and_cameras(tmp_path):
    scene(tmp_path)
    loaded = load(tmp_path, scale=0.5)
    np.testing.assert_array_equal(loaded.cameras[0].K, [[20, 0, 7.5], [0, 20.5, 6.5], [0, 0, 1]])
    whole = np.asarray(Image.open(tmp_path / "images" / "00.png")).astype(float)
    np.testing.assert_allclose(loaded.image(0), whole.reshape(12, 2, 16, 2, 3).mean(axis=(1, 3)), atol=0.51)


def test_angles_stand_in_for_focal_lengths(tmp_path):
    content = scene(tmp_path)
    for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
        del content[key]
    write(tmp_path, content | {"camera_angle_x": math.pi / 2})
    K = load(tmp_path).cameras[0].K
    np.testing.assert_allclose(K, [[16, 0, 16], [0, 16, 12], [0, 0, 1]])
    write(tmp_path, content | {"camera_angle_x": math.pi / 2, "camera_angle_y": 2 * math.atan(12 / 20)})
    np.testing.assert_allclose(load(tmp_path).cameras[0].K[1, 1], 20)


def test_a_frames_own_intrinsics_win(tmp_path):
    content = scene(tmp_path)
    content["frames"][1] |= {"fl_x": 50.0, "k1": 0.1}
    write(tmp_path, content)
    first, second, _ = read(tmp_path / "transforms.json").views
    assert first.lens.params == (40.0, 41.0, 15.0, 13.0, 0.0, 0.0, 0.0, 0.0)
    assert second.lens.params == (50.0, 41.0, 15.0, 13.0, 0.1, 0.0, 0.0, 0.0)


def test_fisheye_and_k3_choose_their_lens_models(tmp_path):
    scene(tmp_path, k1=0.1, k2=0.2, k3=0.3, k4=0.4, camera_model="OPENCV_FISHEYE")
    lens = read(tmp_path / "transforms.json").views[0].lens
    assert (lens.model, lens.params[4:]) == ("OPENCV_FISHEYE", (0.1, 0.2, 0.3, 0.4))
    scene(tmp_path, k1=0.1, k2=0.2, k3=0.3, p1=0.01, p2=0.02)
    lens = read(tmp_path / "transforms.json").views[0].lens
    assert (lens.model, lens.params[4:9]) == ("FULL_OPENCV", (0.1, 0.2, 0.01, 0.02, 0.3))
    scene(tmp_path, k4=0.3)
    with pytest.raises(InputError, match=r"transforms\.json has k4"):
        load(tmp_path)


def test_missing_images_are_left_out_and_counted(tmp_path):
    scene(tmp_path, 5)
    (tmp_path / "images" / "01.png").unlink()
    (tmp_path / "images" / "03.png").unlink()
    said = []
    loaded = load(tmp_path, report=lambda done, total, message: said.append(message))
    assert [c.name for c in loaded.cameras] == ["00", "02", "04"]
    assert any("2 of the 5 frames have no image" in message for message in said)


def test_extensions_may_be_left_out(tmp_path):
    content = scene(tmp_path)
    for frame in content["frames"]:
        frame["file_path"] = "./" + frame["file_path"].removesuffix(".png")
    write(tmp_path, content)
    assert [c.name for c in load(tmp_path).cameras] == ["00", "01", "02"]


def test_every_eighth_view_by_name_is_held_out(tmp_path):
    content = scene(tmp_path, 18)
    content["frames"].reverse()
    write(tmp_path, content)
    loaded = load(tmp_path)
    assert loaded.test_names == ["00", "08", "16"]
    assert sorted(loaded.train + loaded.test) == list(range(18))


@pytest.mark.parametrize("key", ["test_filenames", "val_filenames"])
def test_the_split_of_the_data_set_is_honoured(tmp_path, key):
    lists = {"train_filenames": ["images/00.png", "images/02.png"], key: ["images/03.png"]}
    scene(tmp_path, 5, **lists)
    loaded = load(tmp_path)
    assert (loaded.train, loaded.test) == ([0, 2], [3])
    scene(tmp_path, 5, **{key: ["./images/01.png"]})
    loaded = load(tmp_path)
    assert (loaded.train, loaded.test) == ([0, 2, 3, 4], [1])
    scene(tmp_path, 5, **{key: ["images/99.png"]})
    with pytest.raises(InputError, match=rf"99\.png.*{key}"):
        load(tmp_path)


def test_equal_stems_in_two_folders_get_different_names(tmp_path):
    content = scene(tmp_path, 1)
    photo(tmp_path / "left" / "a.png")
    photo(tmp_path / "right" / "a.png")
    content["frames"] += [{"file_path": f"{side}/a.png", "transform_matrix": pose()} for side in ("left", "right")]
    write(tmp_path, content)
    assert [c.name for c in load(tmp_path).cameras] == ["00", "left_a", "right_a"]


def test_points_come_from_the_named_cloud(tmp_path):
    header = "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\n"
    colours = "property uchar red\nproperty uchar green\nproperty uchar blue\n"
    (tmp_path / "cloud.ply").write_text(header + colours + "end_header\n1 2 3 10 20 30\n4 5 6 40 50 60\n")
    scene(tmp_path, ply_file_path="cloud.ply")
    loaded = load_scene(tmp_path)
    np.testing.assert_array_equal(loaded.points, [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(loaded.point_colors, [[10, 20, 30], [40, 50, 60]])
    (tmp_path / "cloud.ply").write_text(header + "end_header\n1 2 3\n")
    with pytest.raises(InputError, match=r"cloud\.ply"):
        load_scene(tmp_path)


def test_resized_images_resize_the_intrinsics(tmp_path):
    scene(tmp_path, w=64, h=48, fl_x=80.0, fl_y=82.0, cx=30.0, cy=26.0)
    np.testing.assert_allclose(load(tmp_path).cameras[0].K, [[40, 0, 15], [0, 41, 13], [0, 0, 1]])


def test_images_of_another_shape_are_refused(tmp_path):
    scene(tmp_path)
    photo(tmp_path / "images" / "01.png", width=32, height=26)
    with pytest.raises(InputError, match=r"01\.png has 32x26 pixels but its camera 32x24"):
        load(tmp_path)


@pytest.mark.parametrize(("w", "h"), [(32, 24), (24, 32)])
def test_photos_with_an_exif_turn_are_read_the_way_the_calibration_speaks_of(tmp_path, w, h):
    content = scene(tmp_path, w=w, h=h)
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = photo(tmp_path / "images" / "00.png", exif=exif)
    content["frames"] = content["frames"][:1]
    write(tmp_path, content)
    expected = stored if w == 32 else np.rot90(stored, -1)
    np.testing.assert_array_equal(load(tmp_path).image(0), expected)


BAD = {
    "frames": lambda d: d.pop("frames"),
    "frames ": lambda d: d.update(frames=[]),
    r"frames\.1\.transform_matrix": lambda d: d["frames"][1].pop("transform_matrix"),
    r"frames\.0\.file_path": lambda d: d["frames"][0].pop("file_path"),
    r"frames\.2\.transform_matrix\.0\.3": lambda d: d["frames"][2]["transform_matrix"][0].__setitem__(3, math.nan),
    r"frames\.2\.transform_matrix\.1\.1": lambda d: d["frames"][2]["transform_matrix"][1].__setitem__(1, math.inf),
    r"frames\.0\.transform_matrix: .*rotation": lambda d: d["frames"][0].update(
        transform_matrix=np.zeros((4, 4)).tolist()
    ),
    r"frames\.0\.transform_matrix: .*reflection": lambda d: d["frames"][0]["transform_matrix"][0].__setitem__(0, -1.0),
    r"frames\.0\.transform_matrix\.2": lambda d: d["frames"][0]["transform_matrix"][2].pop(),
    "fl_x": lambda d: (d.pop("fl_x"), d.pop("fl_y")),
    "fl_x: ": lambda d: d.update(fl_x=math.nan),
    "fl_y": lambda d: d.update(fl_y=-3.0),
    "w": lambda d: d.update(w=0),
    "k1": lambda d: d.update(k1="big"),
    r"00\.png 2 times": lambda d: d["frames"].append(d["frames"][0]),
    "camera_model": lambda d: d.update(camera_model="EQUIRECTANGULAR"),
    "cloud.ply": lambda d: d.update(ply_file_path="cloud.ply"),
    r"None of the 3 images.*nowhere": lambda d: [f.update(file_path="nowhere/" + f["file_path"]) for f in d["frames"]],
    "OPENCV lens": lambda d: d.update(k1=-50.0, k2=80.0, p2=3.0),
}


@pytest.mark.parametrize("said", BAD)
def test_bad_content_is_one_sentence_naming_the_file_and_the_key(tmp_path, said):
    content = scene(tmp_path)
    BAD[said](content)
    write(tmp_path, content)
    with pytest.raises(InputError, match=said.strip()) as caught:
        load_scene(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe\x00", b"null"])
def test_files_that_are_no_json_object_are_refused(tmp_path, content):
    (tmp_path / "transforms.json").write_bytes(content)
    with pytest.raises(InputError, match=r"transforms\.json"):
        load(tmp_path)


@pytest.mark.parametrize("keep", [0, 0.5])
def test_a_damaged_image_is_found_when_loading(tmp_path, keep):
    scene(tmp_path)
    path = tmp_path / "images" / "01.png"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(InputError, match=r"01\.png cannot be read"):
        load(tmp_path)


def test_paths_that_are_no_scene_are_refused(tmp_path):
    with pytest.raises(InputError, match="no scene at"):
        load(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no transforms\.json, no COLMAP model and no photos"):
        load(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"notes\.txt is neither"):
        load(tmp_path / "notes.txt")
    scene(tmp_path)
    for scale in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="scale"):
            load(tmp_path, scale=scale)


def test_the_cache_answers_the_second_time(tmp_path, monkeypatch):
    scene(tmp_path, k1=0.1)
    cache = tmp_path / "cache"
    first = load(tmp_path, cache_dir=cache, scale=0.5)
    pictures = [first.image(i) for i in range(3)]
    half_written = next((cache / "images").glob("01-*.png"))
    half_written.write_bytes(half_written.read_bytes()[:100])
    (cache / "images" / ".02.tmp.png").write_bytes(b"left by a killed process")

    straightened = []
    real = images.straighten

    def counting(image, *rest):
        straightened.append(image)
        return real(image, *rest)

    monkeypatch.setattr(images, "straighten", counting)
    second = load(tmp_path, cache_dir=cache, scale=0.5)
    for index, picture in enumerate(pictures):
        np.testing.assert_array_equal(second.image(index), picture)
    assert len(straightened) == 1  # the one that the disk spoilt
    assert second.fingerprint == first.fingerprint
    load(tmp_path, cache_dir=cache, scale=0.25)
    assert len(straightened) == 4


def test_images_with_long_names_are_cached(tmp_path):
    scene(tmp_path / "data", count=1)
    name = "ö" * 120  # 240 bytes
    (tmp_path / "data" / "images" / "00.png").rename(tmp_path / "data" / "images" / f"{name}.png")
    path = tmp_path / "data" / "transforms.json"
    path.write_text(path.read_text().replace("00.png", f"{name}.png"), encoding="utf-8")
    load_scene(tmp_path / "data", scale=0.5, cache_dir=tmp_path / "cache")
    assert len(list((tmp_path / "cache" / "images").iterdir())) == 1


def test_the_fingerprint_follows_what_matters(tmp_path):
    content = scene(tmp_path)
    seen = {
        load(tmp_path).fingerprint,
        load(tmp_path).fingerprint,
        load(tmp_path, cache_dir=tmp_path / "c").fingerprint,
    }
    assert len(seen) == 1
    seen.add(load(tmp_path, scale=0.5).fingerprint)
    content["frames"][0]["transform_matrix"][0][3] += 0.001
    write(tmp_path, content)
    seen.add(load(tmp_path).fingerprint)
    photo(tmp_path / "images" / "00.png", seed=77)
    seen.add(load(tmp_path).fingerprint)
    write(tmp_path, content | {"test_filenames": ["images/02.png"]})
    seen.add(load(tmp_path).fingerprint)
    assert len(seen) == 5


def test_memory_for_images_is_bounded(tmp_path):
    content = scene(tmp_path, 6)
    capture = read(tmp_path / "transforms.json")
    cameras = load(tmp_path).cameras
    size = content["w"] * content["h"] * 3
    store = images.ImageStore(capture.views, cameras, memory_bytes=2 * size)
    for index in [0, 1, 2, 3, 4, 5, 0, 5]:
        expected = np.asarray(Image.open(tmp_path / "images" / f"{index:02d}.png"))
        np.testing.assert_array_equal(store(index), expected)
        assert sum(image.nbytes for image in store._kept.values()) <= 2 * size
    assert list(store._kept) == [0, 5]


def test_extent_is_that_of_3dgs(tmp_path):
    content = scene(tmp_path, 4, test_filenames=["images/03.png"])
    for frame, x in zip(content["frames"], (0.0, 1.0, 5.0, 100.0), strict=True):
        frame["transform_matrix"] = pose(x=x)
    write(tmp_path, content)
    assert load(tmp_path).extent == pytest.approx(1.1 * 3.0)  # mean 2, the farthest training camera at 5


@pytest.mark.skipif(not FOX.is_dir(), reason="the fox capture is not on this machine")
def test_the_fox_capture_reads():
    said = []
    capture = read(FOX / "transforms.json", lambda done, total, message: said.append(message))
    assert len(capture.views) == 50
    assert said == ["17 of the 67 frames have no image file and are left out"]
