import json

import cv2
import numpy as np
import pytest
import torch

from encoders.errors import InputError
from splat.scene.cameras import Camera, load_cameras, save_cameras, stack


def camera(name="a"):
    rotation = cv2.Rodrigues(np.array([0.2, -0.7, 0.4]))[0]
    viewmat = np.eye(4)
    viewmat[:3, :3], viewmat[:3, 3] = rotation, [0.3, -0.2, 2.0]
    return Camera(name, 101, 50, np.array([[80.0, 0, 47.5], [0, 82.0, 26.0], [0, 0, 1]]), viewmat)


def test_center_is_the_point_that_maps_to_the_camera_origin():
    c = camera()
    np.testing.assert_allclose(c.viewmat[:3, :3] @ c.center + c.viewmat[:3, 3], 0.0, atol=1e-12)
    ahead = c.viewmat[:3, :3] @ (c.center + 3.0 * c.forward) + c.viewmat[:3, 3]
    np.testing.assert_allclose(ahead, [0.0, 0.0, 3.0], atol=1e-12)


def test_scaled_moves_projections_with_the_image():
    c = camera()
    half = c.scaled(0.5)
    assert (half.width, half.height) == (50, 25)  # 50.5 rounds to even
    world = np.array([0.1, 0.2, 1.0])

    def relative(view):
        pixel = view.K @ (view.viewmat[:3, :3] @ world + view.viewmat[:3, 3])
        return pixel[:2] / pixel[2] / [view.width, view.height]

    np.testing.assert_allclose(relative(half), relative(c), rtol=1e-12)
    assert c.scaled(1e-6).width == 1


def test_stack_gives_float32_tensors():
    viewmats, Ks = stack([camera("a"), camera("b").scaled(0.5)])
    assert viewmats.shape == (2, 4, 4)
    assert Ks.shape == (2, 3, 3)
    assert viewmats.dtype == Ks.dtype == torch.float32
    assert Ks[1, 0, 0].item() == pytest.approx(80.0 * 50 / 101)


def test_saved_cameras_come_back_exactly(tmp_path):
    saved = [camera("first"), camera("zweite Ansicht")]
    save_cameras(tmp_path / "cameras.json", saved, ["first"])
    loaded, test = load_cameras(tmp_path / "cameras.json")
    assert test == ["first"]
    for before, after in zip(saved, loaded, strict=True):
        assert (before.name, before.width, before.height) == (after.name, after.width, after.height)
        np.testing.assert_array_equal(before.K, after.K)
        np.testing.assert_array_equal(before.viewmat, after.viewmat)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["cameras"][0].pop("K"), "K"),
        (lambda d: d["cameras"][0].update(width=0), "width"),
        (lambda d: d["cameras"][0].update(width=2**19, height=1), "width: .* less than or equal to 524287"),
        (lambda d: d["cameras"][0].update(height=2**32), "height: "),
        (lambda d: d["cameras"][0].update(width=20_000, height=10_001), "20000x10001 pixels are more than"),
        (lambda d: d["cameras"][0]["viewmat"].pop(), "viewmat"),
        (lambda d: d["cameras"][0]["viewmat"][0].__setitem__(0, float("nan")), "viewmat"),
        (lambda d: d.update(cameras=[]), "cameras"),
        (lambda d: d.update(version=2), "version"),
        (lambda d: d.update(test=["nobody"]), "nobody"),
        (lambda d: d["cameras"].append(d["cameras"][0]), "twice"),
    ],
)
def test_a_damaged_camera_file_is_named_with_the_key(tmp_path, change, said):
    path = tmp_path / "cameras.json"
    save_cameras(path, [camera()], [])
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"cameras\.json.*{said}"):
        load_cameras(path)


@pytest.mark.parametrize(("width", "height"), [(2**19 - 1, 381), (20_000, 10_000), (1, 1)])
def test_the_largest_pictures_are_taken(tmp_path, width, height):
    save_cameras(tmp_path / "cameras.json", [camera().resized(width, height)], [])
    (loaded,), _ = load_cameras(tmp_path / "cameras.json")
    assert (loaded.width, loaded.height) == (width, height)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff\xfe"])
def test_a_missing_or_foreign_camera_file_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "cameras.json").write_bytes(content)
    with pytest.raises(InputError, match=r"cameras\.json"):
        load_cameras(tmp_path / "cameras.json")
