"""LangSplat's feature folders: regions and embeddings that another program made."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from encoders.errors import InputError
from splat.features import FeatureStore, ViewFeatures
from splat.interchange.langsplat_features import features_digest, import_features, read_view, write_view
from splat.scene import load_cameras, load_scene
from splat.scene.undistort import Lens

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


BENT = {"k1": -0.12, "k2": 0.03, "p1": 0.004, "p2": -0.006}


def on_the_photo(x: np.ndarray, y: np.ndarray, K: np.ndarray, lens: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Where a photo shows what a straight view with calibration K has at (x, y): Brown's model, as in OpenCV's manual.

    Both count from the corner of the first pixel.
    """
    x, y = (x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1]
    r2 = x * x + y * y
    radial = 1 + lens["k1"] * r2 + lens["k2"] * r2 * r2
    bent_x = x * radial + 2 * lens["p1"] * x * y + lens["p2"] * (r2 + 2 * x * x)
    bent_y = y * radial + lens["p1"] * (r2 + 2 * y * y) + 2 * lens["p2"] * x * y
    return lens["fl_x"] * bent_x + lens["cx"], lens["fl_y"] * bent_y + lens["cy"]


@pytest.mark.parametrize(("map_scale", "scale"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.5), (0.5, 0.25)])
def test_maps_of_a_bent_photo_are_straightened(
    tiny_scene: Path, tmp_path: Path, map_scale: float, scale: float
) -> None:
    folder = shutil.copytree(tiny_scene, tmp_path / "scene")
    content = json.loads((folder / "transforms.json").read_text()) | BENT
    (folder / "transforms.json").write_text(json.dumps(content))
    scene = load_scene(folder, scale, with_points=False)
    camera, lens = scene.cameras[3], scene.lenses[3]
    # Every pixel of the map is a region of its own.
    rows, columns = round(content["h"] * map_scale), round(content["w"] * map_scale)
    every = np.broadcast_to(np.arange(rows * columns, dtype=np.int32).reshape(rows, columns), (3, rows, columns))
    embeddings = np.eye(rows * columns, 2, dtype=np.float16) + 1
    write_view(tmp_path / "maps", camera.name, ViewFeatures(every, embeddings))
    found = read_view(tmp_path / "maps", camera.name, camera.width, camera.height, lens).region_ids

    K = camera.K
    y, x = np.mgrid[: camera.height, : camera.width] + 0.5
    x, y = (place * map_scale for place in on_the_photo(x, y, K, content))
    clear = np.minimum(np.abs(x - x.round()), np.abs(y - y.round())) > 1e-3  # of the border between two pixels
    wanted = np.floor(y).astype(int) * columns + np.floor(x).astype(int)
    assert clear.mean() > 0.98
    for level in found:
        np.testing.assert_array_equal(level[clear], wanted[clear])
    unbent = read_view(tmp_path / "maps", camera.name, camera.width, camera.height).region_ids
    assert (unbent[0] != found[0]).mean() > 0.2


@pytest.mark.parametrize("lens", [None, Lens("OPENCV", 80, 60, (80.0, 80.0, 40.0, 30.0, -0.1, 0.0, 0.0, 0.0))])
def test_maps_of_a_photo_of_another_shape_are_refused(lens: Lens | None, tmp_path: Path) -> None:
    maps, _ = preprocessed(tmp_path, "a")
    view = read_view(tmp_path, "a", 80, 60, lens)  # a photo of twice the size
    assert view.region_ids.shape == (3, 60, 80)
    np.save(tmp_path / "a_s.npy", np.transpose(maps, (0, 2, 1)))
    with pytest.raises(InputError, match=r"a_s\.npy has maps of 30x40 pixels, but the photo has 80x60"):
        read_view(tmp_path, "a", 80, 60, lens)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    preprocessed(tmp_path, "a")
    view = read_view(tmp_path, "a", WIDTH, HEIGHT)
    write_view(tmp_path, "b", view)
    again = read_view(tmp_path, "b", WIDTH, HEIGHT)
    np.testing.assert_array_equal(again.region_ids, view.region_ids)
    np.testing.assert_allclose(again.embeddings, view.embeddings, atol=1e-3)
    maps = np.load(tmp_path / "b_s.npy")
    assert (maps.shape, maps.dtype, maps[0].max()) == ((4, HEIGHT, WIDTH), np.float32, -1)


def test_nothing_is_written_out_of_the_folder(tmp_path: Path) -> None:
    view = ViewFeatures(np.zeros((3, 6, 8), np.int32), np.ones((1, 4), np.float16))
    for name in (f"{tmp_path}/evil", "../evil"):
        with pytest.raises(InputError, match="a name that no file may have"):
            write_view(tmp_path / "out", name, view)
    assert not list(tmp_path.rglob("*.npy"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def pickled(path: Path) -> None:
    np.save(path, np.array([{}], object), allow_pickle=True)


def zipped(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, maps=np.zeros((4, HEIGHT, WIDTH)))


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
        (zipped, "is no array but a zip"),
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


def exported(run: Path, folder: Path, turn: int = 0) -> list[str]:
    """The features of a run's training views as LangSplat's, whose names are returned; those of each view are of the
    ``turn``-th after it."""
    ours = FeatureStore(run / "features")
    cameras, held_out = load_cameras(run / "cameras.json")
    names = [camera.name for camera in cameras if camera.name not in held_out]
    for name, other in zip(names, names[turn:] + names[:turn], strict=True):
        write_view(folder, name, ours.read(other))
    return names


def test_a_scene_is_trained_with_them(
    dictsplat: Callable[..., tuple[int, str, str]],
    tiny_scene: Path,
    tiny_run: Path,
    tmp_path: Path,
) -> None:
    folder, out = tmp_path / "language_features", tmp_path / "run"
    exported(tiny_run, folder)
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
    view = ViewFeatures(np.zeros((3, 6, 8), np.int32), np.ones((1, 8), np.float16))
    for name in names[:-1]:
        write_view(tmp_path, name, view)
    options = ("train", tiny_scene, "--out", tmp_path / "run", "--encoder", "colour", "--gaussians")
    assert f"{names[-1]}_s.npy" in refused(*options, tiny_run / "gaussians.ply", "--features", tmp_path)
    assert "does not exist" in refused(*options, tiny_run / "gaussians.ply", "--features", tmp_path / "none")


def given(scene: Path, run: Path, out: Path, encoder: str = "colour") -> tuple[object, ...]:
    gaussians = ("--gaussians", run / "gaussians.ply")
    return ("train", scene, "--out", out, "--stages", "rgb,features", "--encoder", encoder, *gaussians, "--features")


def test_embeddings_of_another_encoder_are_refused_before_the_scene_is_read(
    refused: Callable[..., str], tiny_run: Path, tmp_path: Path
) -> None:
    for name in ("empty", "none", "dim3"):
        (tmp_path / name).mkdir()
    preprocessed(tmp_path, "frame_00001")
    # Nothing could be read from an empty folder, and the sentence would be about that.
    train = given(tmp_path / "empty", tiny_run, tmp_path / "run")
    told = refused(*train, tmp_path)
    assert "frame_00001_f.npy" in told
    assert "512 numbers" in told
    assert "--encoder" in told
    assert "--encoder" in refused(*given(tmp_path / "empty", tiny_run, tmp_path / "run", "embedded"), tmp_path)
    write_view(tmp_path / "dim3", "a", ViewFeatures(np.zeros((3, 6, 8), np.int32), np.ones((1, 3), np.float16)))
    assert "autoencoder" in refused(*train, tmp_path / "dim3")
    assert "holds no *_f.npy" in refused(*train, tmp_path / "none")
    assert not (tmp_path / "run" / "run.json").exists()


def test_features_of_two_folders_are_never_mixed(
    dictsplat: Callable[..., tuple[int, str, str]],
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    tiny_scene: Path,
    tiny_run: Path,
    tmp_path: Path,
) -> None:
    names = exported(tiny_run, tmp_path / "one")
    exported(tiny_run, tmp_path / "two", turn=3)
    train = given(tiny_scene, tiny_run, tmp_path / "run")
    write, written = FeatureStore.write, []

    def stop(store: FeatureStore, name: str, features: ViewFeatures) -> None:
        if len(written) == 3:
            raise InputError("The power went.")
        written.append(name)
        write(store, name, features)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureStore, "write", stop)
        assert "The power went" in refused(*train, tmp_path / "one")
    present = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "features").glob("*.npz")}
    assert len(present) == 3
    assert f"other features than {tmp_path / 'two'} holds now" in refused(*train, tmp_path / "two")
    code, _, err = dictsplat(*train, tmp_path / "one")  # goes on where it was stopped
    assert code == 0, err
    assert {path: path.stat().st_mtime_ns for path in present} == present
    store, ours = FeatureStore(tmp_path / "run" / "features"), FeatureStore(tiny_run / "features")
    for name in names:
        np.testing.assert_array_equal(store.read(name).region_ids, ours.read(name).region_ids)
    # Done, and still bound to what it was made of, wherever that lies now.
    assert "other features" in refused(*train, tmp_path / "two")
    (tmp_path / "one").rename(tmp_path / "moved")
    assert dictsplat(*train, tmp_path / "moved")[0] == 0
    shutil.copyfile(tmp_path / "two" / f"{names[0]}_s.npy", tmp_path / "moved" / f"{names[0]}_s.npy")
    assert "other features" in refused(*train, tmp_path / "moved")


def test_a_store_keeps_to_one_folder_without_a_record_of_it(tiny_scene: Path, tiny_run: Path, tmp_path: Path) -> None:
    names = exported(tiny_run, tmp_path / "one")
    exported(tiny_run, tmp_path / "two", turn=3)
    scene = load_scene(tiny_scene, with_points=False)
    views = [(scene.cameras[i], scene.lenses[i]) for i in scene.train]
    store, digests = FeatureStore(tmp_path / "store"), [features_digest(tmp_path / f, names) for f in ("one", "two")]
    assert len(set(digests)) == 2
    import_features(tmp_path / "one", views[:2], "colour", store, digests[0])
    with pytest.raises(InputError, match="holds features of colour"):
        import_features(tmp_path / "two", views, "colour", store, digests[1])
