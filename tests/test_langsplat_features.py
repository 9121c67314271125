"""LangSplat's feature folders: regions and embeddings that another program made."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from encoders.errors import InputError
from splat.features import FeatureStore, ViewFeatures
from splat.interchange.langsplat_features import read_view, write_view
from splat.scene import load_cameras

HEIGHT, WIDTH, DIM = 30, 40, 512


def preprocessed(folder: Path, name: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """What ``preprocess.py`` writes: four maps, each counting on from the one before, and all embeddings."""
    random = np.random.default_rng(seed)
    counts, maps, first = (9, 7, 5, 3), [], 0
    for count in counts:
        level = random.integers(-1, count, (HEIGHT, WIDTH))
        level[:count, 0] = range(count)
        maps.append(np.where(level < 0, -1, level + first))
        first += count
    embeddings = random.normal(size=(first, DIM))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    np.save(folder / f"{name}_s.npy", np.stack(maps).astype(np.float32))
    np.save(folder / f"{name}_f.npy", embeddings.astype(np.float32))
    return np.stack(maps), embeddings


def dense(ids: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """The feature of every pixel, zero where there is no region. [..., D]"""
    return np.where(ids[..., None] >= 0, embeddings[ids], 0)


def test_every_pixel_has_the_feature_it_has_in_langsplat(tmp_path: Path) -> None:
    maps, embeddings = preprocessed(tmp_path, "frame_00001")
    view = read_view(tmp_path, "frame_00001", WIDTH, HEIGHT)
    assert len(view.embeddings) == 7 + 5 + 3
    np.testing.assert_allclose(dense(view.region_ids, view.embeddings), dense(maps[1:], embeddings), atol=5e-4)


def test_regions_are_resized_to_the_camera(tmp_path: Path) -> None:
    maps, embeddings = preprocessed(tmp_path, "frame_00001")
    view = read_view(tmp_path, "frame_00001", WIDTH // 2, HEIGHT // 2)
    # A pixel of half the size covers four; the nearest to its centre is one of them.
    wanted = dense(maps[1:], embeddings).reshape(3, HEIGHT // 2, 2, WIDTH // 2, 2, DIM)
    found = dense(view.region_ids, view.embeddings)[:, :, None, :, None]
    assert (np.abs(found - wanted).max(-1).min((2, 4)) < 1e-3).all()


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    preprocessed(tmp_path, "a")
    view = read_view(tmp_path, "a", WIDTH, HEIGHT)
    write_view(tmp_path, "b", view)
    again = read_view(tmp_path, "b", WIDTH, HEIGHT)
    np.testing.assert_array_equal(again.region_ids, view.region_ids)
    np.testing.assert_allclose(again.embeddings, view.embeddings, atol=1e-3)
    maps = np.load(tmp_path / "b_s.npy")
    assert (maps.shape, maps.dtype, maps[0].max()) == ((4, HEIGHT, WIDTH), np.float32, -1)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def pickled(path: Path) -> None:
    np.save(path, np.array([{}], object), allow_pickle=True)


def three_maps(path: Path) -> None:
    np.save(path, np.load(path)[:3])


def beyond(path: Path) -> None:
    maps = np.load(path)
    maps[2, 3, 4] = 24
    np.save(path, maps)


def half_a_region(path: Path) -> None:
    np.save(path, np.load(path) + 0.5)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (Path.unlink, "does not exist"),
        (cut, "cannot be read"),
        (pickled, "cannot be read"),
        (three_maps, "has 3 maps"),
        (beyond, "of 24 rows"),
        (half_a_region, "of 24 rows"),
    ],
)
def test_a_damaged_file_is_named(spoil: Callable[[Path], None], sentence: str, tmp_path: Path) -> None:
    preprocessed(tmp_path, "frame_00001")
    spoil(tmp_path / "frame_00001_s.npy")
    with pytest.raises(InputError, match=f"frame_00001_s.npy.*{sentence}"):
        read_view(tmp_path, "frame_00001", WIDTH, HEIGHT)


def test_a_scene_is_trained_with_them(
    dictsplat: Callable[..., tuple[int, str, str]],
    tiny_scene: Path,
    tiny_run: Path,
    tmp_path: Path,
) -> None:
    ours, folder, out = FeatureStore(tiny_run / "features"), tmp_path / "language_features", tmp_path / "run"
    cameras, held_out = load_cameras(tiny_run / "cameras.json")
    for camera in cameras:
        if camera.name not in held_out:
            write_view(folder, camera.name, ours.read(camera.name))
    options = ("train", tiny_scene, "--out", out, "--encoder", "colour", "--gaussians", tiny_run / "gaussians.ply")
    code, _, err = dictsplat(*options, "--features", folder)
    assert code == 0, err
    metrics, theirs = (json.loads((run / "metrics.json").read_text()) for run in (out, tiny_run))
    assert metrics["miou"] == pytest.approx(theirs["miou"], abs=0.03)
    record = json.loads((out / "run.json").read_text())
    assert record["stages"]["features"]["inputs"]["regions"] == "langsplat"
    # Again, and without the folder: nothing is made anew.
    before = {path: path.stat().st_mtime_ns for path in (out / "features").iterdir()}
    assert dictsplat("train", "--out", out, "--resume")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "features").iterdir()} == before


def test_a_view_without_features_is_named(
    refused: Callable[..., str],
    tiny_scene: Path,
    tiny_run: Path,
    tmp_path: Path,
) -> None:
    cameras, held_out = load_cameras(tiny_run / "cameras.json")
    names = [camera.name for camera in cameras if camera.name not in held_out]
    view = ViewFeatures(np.zeros((3, 8, 8), np.int32), np.ones((1, 4), np.float16))
    for name in names[:-1]:
        write_view(tmp_path, name, view)
    options = ("train", tiny_scene, "--out", tmp_path / "run", "--encoder", "colour", "--gaussians")
    assert f"{names[-1]}_s.npy" in refused(*options, tiny_run / "gaussians.ply", "--features", tmp_path)
    assert "does not exist" in refused(*options, tiny_run / "gaussians.ply", "--features", tmp_path / "none")
