"""Features as LangSplat stores them, written from a run, and the pictures that they fit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splat.features import FeatureStore
from splat.interchange.exported import export_features
from splat.scene import load_cameras, load_scene

Dictsplat = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bent(tiny_scene: Path, tmp_path: Path) -> Path:
    """The tiny scene, of which it is said that it was taken with a lens that bends."""
    folder = shutil.copytree(tiny_scene, tmp_path / "bent")
    content = json.loads((folder / "transforms.json").read_text()) | {"k1": -0.12, "p2": 0.005}
    (folder / "transforms.json").write_text(json.dumps(content))
    return folder


def test_features_come_with_the_pictures_that_they_fit(
    dictsplat: Dictsplat, bent: Path, tiny_run: Path, tmp_path: Path
) -> None:
    run, out = tmp_path / "run", tmp_path / "language_features"
    options = ("--stages", "rgb,features", "--encoder", "colour", "--scale", 0.5)
    train = ("train", bent, *options, "--gaussians", tiny_run / "gaussians.ply")
    assert dictsplat(*train, "--out", run)[0] == 0
    code, _, err = dictsplat("export", run, out, "--as", "langsplat-features")
    assert code == 0, err
    scene = load_scene(bent, 0.5, with_points=False)
    cameras, held_out = load_cameras(out / "cameras.json")
    assert [camera.name for camera in cameras] == [scene.cameras[i].name for i in scene.train]
    assert not held_out
    for index, camera in zip(scene.train, cameras, strict=True):
        picture = np.asarray(Image.open(out / "images" / f"{camera.name}.png"))
        np.testing.assert_array_equal(picture, scene.image(index))
        assert np.load(out / f"{camera.name}_s.npy").shape == (4, *picture.shape[:2])
        np.testing.assert_array_equal(camera.K, scene.cameras[index].K)
    assert len(list((out / "images").iterdir())) == len(cameras)

    # They are of straightened photos, and when they come back they are not straightened again.
    again = tmp_path / "again"
    code, _, err = dictsplat(*train, "--out", again, "--features", out)
    assert code == 0, err
    mine, theirs = FeatureStore(again / "features"), FeatureStore(run / "features")
    for camera in cameras:
        np.testing.assert_array_equal(mine.read(camera.name).region_ids, theirs.read(camera.name).region_ids)


def test_features_of_photos_that_are_gone_come_without_pictures(spoiled: Path, tmp_path: Path) -> None:
    said: list[str] = []
    record = json.loads((spoiled / "run.json").read_text())
    record["config"]["scene"] = str(tmp_path / "gone")
    (spoiled / "run.json").write_text(json.dumps(record))
    export_features(spoiled, tmp_path / "out", lambda _done, _total, message: said.append(message))
    assert "without their pictures" in said[-1]
    assert str(tmp_path / "gone") in said[-1]
    assert len(list((tmp_path / "out").glob("*_s.npy"))) == 8
    assert not (tmp_path / "out" / "images").exists()


@pytest.mark.parametrize("name", ["{tmp}/evil", "../evil", "a\\evil", "a\nevil"])
def test_a_view_cannot_be_named_out_of_the_folder(
    refused: Callable[..., str], spoiled: Path, tmp_path: Path, name: str
) -> None:
    content = json.loads((spoiled / "cameras.json").read_text())
    camera = next(camera for camera in content["cameras"] if camera["name"] not in content["test"])
    store, name = FeatureStore(spoiled / "features"), name.format(tmp=tmp_path)
    store.write(name, store.read(camera["name"]))
    camera["name"] = name
    (spoiled / "cameras.json").write_text(json.dumps(content))
    assert "a name that no file may have" in refused("export", spoiled, tmp_path / "out", "--as", "langsplat-features")
    assert not list(tmp_path.rglob("*evil*_[sf].npy"))
    assert not (tmp_path / "out").exists()
