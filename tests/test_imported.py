"""Runs made from what other programs trained: they answer as the scene did that they were made from."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from encoders.errors import InputError
from splat.evaluate import renderer
from splat.gaussians import load_ply, save_ply
from splat.interchange.imported import read_3dgs_cameras
from splat.interchange.langsplat_v2 import write_levels
from splat.scene import Camera, load_cameras
from splat.trained import Trained

Dictsplat = Callable[..., tuple[int, str, str]]


def write_3dgs_cameras(path: Path, cameras: list[Camera]) -> None:
    """As ``camera_to_JSON`` of 3DGS does."""
    records = []
    for number, camera in enumerate(cameras):
        pose = np.linalg.inv(camera.viewmat)
        records.append(
            {
                "id": number, "img_name": f"{camera.name}.png", "width": camera.width, "height": camera.height,
                "position": pose[:3, 3].tolist(), "rotation": pose[:3, :3].tolist(),
                "fx": camera.K[0, 0], "fy": camera.K[1, 1],
            }
        )  # fmt: skip
    path.write_text(json.dumps(records))


@pytest.fixture
def levels(tiny_run: Path, tmp_path: Path) -> list[Path]:
    """The tiny run as model folders of LangSplatV2."""
    trained = Trained.load(tiny_run)
    folders = [tmp_path / f"tiny_0_{level}" for level in (1, 2, 3)]
    write_levels([folder / "chkpnt10000.pth" for folder in folders], trained.gaussians, trained.field)
    write_3dgs_cameras(folders[0] / "cameras.json", trained.cameras)
    return folders


def answers(dictsplat: Dictsplat, run: Path) -> list[tuple[list[int], float]]:
    """Of each level; which one is best may be a near tie."""
    found = []
    for level in range(3):
        code, out, err = dictsplat("query", run, "red", "green", "--view", "test_000", "--level", level, "--json")
        assert code == 0, err
        found += [(answer["point"], answer["confidence"]) for answer in json.loads(out)["results"]]
    return found


def test_an_imported_run_answers_as_it_did(
    dictsplat: Dictsplat, tiny_run: Path, levels: list[Path], tmp_path: Path
) -> None:
    code, _, err = dictsplat("import", *levels, "--out", tmp_path / "run", "--encoder", "colour")
    assert code == 0, err
    ours, theirs = Trained.load(tmp_path / "run"), Trained.load(tiny_run)
    for mine, yours in zip(ours.cameras, theirs.cameras, strict=True):
        assert (mine.name, mine.width, mine.height) == (yours.name, yours.width, yours.height)
        np.testing.assert_allclose(mine.viewmat, yours.viewmat, atol=1e-9)
        np.testing.assert_allclose(mine.K, yours.K, atol=1e-9)
    lengths = [each.field.decode().norm(dim=2, keepdim=True) for each in (ours, theirs)]
    directions = [each.field.decode() / length for each, length in zip((ours, theirs), lengths, strict=True)]
    coded = lengths[1][..., 0] > 0
    assert (directions[0] - directions[1]).abs().amax(2)[coded].max() < 2e-3  # of half precision
    for mine, yours in zip(answers(dictsplat, tmp_path / "run"), answers(dictsplat, tiny_run), strict=True):
        assert mine[0] == pytest.approx(yours[0], abs=3)
        assert mine[1] == pytest.approx(yours[1], abs=0.02)


def test_with_its_photos_an_imported_run_is_scored(
    dictsplat: Dictsplat, tiny_scene: Path, tiny_run: Path, levels: list[Path], tmp_path: Path
) -> None:
    (levels[0] / "cameras.json").unlink()
    options = ("import", *levels, "--encoder", "colour", "--scene", tiny_scene)
    yours = json.loads((tiny_run / "metrics.json").read_text())
    names = [camera.name for camera in load_cameras(tiny_run / "cameras.json")[0]]
    for hold_out, wanted in ((None, []), (5, names[::5])):
        run = tmp_path / f"run-{hold_out}"
        code, _, err = dictsplat(*options, "--out", run, *(() if hold_out is None else ("--hold-out", hold_out)))
        assert code == 0, err
        # Which views the training saw is not known; the scene's own list of held-out ones tells nothing about it.
        assert load_cameras(run / "cameras.json")[1] == wanted
        code, _, err = dictsplat("eval", run)
        assert code == 0, err
        mine = json.loads((run / "metrics.json").read_text())
        assert mine["miou"] == pytest.approx(yours["miou"], abs=0.03)
        assert ("psnr" in mine) == bool(wanted)
    render, cameras = renderer(load_ply(tiny_run / "gaussians.ply")), load_cameras(tiny_run / "cameras.json")[0]
    decibels = []
    for camera in cameras[::5]:
        photo = np.asarray(Image.open(tiny_scene / "images" / f"{camera.name}.png").convert("RGB")) / 255
        decibels.append(-10 * np.log10(((render(camera) - photo) ** 2).mean()))
    assert mine["psnr"] == pytest.approx(np.mean(decibels), abs=0.05)


@pytest.fixture
def imported(dictsplat: Dictsplat, tiny_scene: Path, levels: list[Path], tmp_path: Path) -> Path:
    """The tiny run, imported with its photos."""
    run = tmp_path / "imported"
    code, _, err = dictsplat("import", *levels, "--out", run, "--encoder", "colour", "--scene", tiny_scene)
    assert code == 0, err
    return run


def test_training_an_imported_run_keeps_what_was_imported(
    dictsplat: Dictsplat, tiny_scene: Path, imported: Path
) -> None:
    files = [imported / "language.safetensors", imported / "gaussians.ply"]
    before = [file.read_bytes() for file in files]
    hold_out = ("--hold-out", 0)
    for options in (("--resume",), (tiny_scene, "--encoder", "colour", *hold_out)):
        code, _, err = dictsplat("train", "--out", imported, *options)
        assert code == 0, err
        assert [file.read_bytes() for file in files] == before
    assert not (imported / "features").exists()
    assert "imported" in json.loads((imported / "run.json").read_text())["stages"]["language"]["inputs"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--atoms", 32), "imported with --atoms 64 and you ask for 32"),
        (("--encoder", "embedded"), "imported with --encoder colour"),
        (("--solver", "sgd"), "imported with --solver lift"),
        (("--hold-out", 5), "--hold-out 5"),
    ],
)
def test_another_field_does_not_replace_the_imported_one(
    refused: Callable[..., str], imported: Path, options: tuple[Any, ...], sentence: str
) -> None:
    before = (imported / "language.safetensors").read_bytes()
    assert sentence in refused("train", "--out", imported, "--resume", *options)
    assert (imported / "language.safetensors").read_bytes() == before


def test_other_gaussians_do_not_get_the_imported_field(
    refused: Callable[..., str], tiny_run: Path, imported: Path, tmp_path: Path
) -> None:
    fewer = load_ply(tiny_run / "gaussians.ply").subset(slice(0, 500))
    save_ply(tmp_path / "fewer.ply", fewer)
    before = (imported / "gaussians.ply").read_bytes()
    resume = ("train", "--out", imported, "--resume")
    assert "imported with --gaussians" in refused(*resume, "--gaussians", tmp_path / "fewer.ply")
    assert (imported / "gaussians.ply").read_bytes() == before
    shutil.copyfile(tmp_path / "fewer.ply", imported / "gaussians.ply")
    assert "other Gaussians than were imported" in refused(*resume)


@pytest.mark.parametrize("gone", ["language.safetensors", "gaussians.ply", "cameras.json"])
def test_what_is_missing_of_an_imported_run_is_not_said_to_be_trained(
    refused: Callable[..., str], imported: Path, gone: str
) -> None:
    (imported / gone).unlink()
    told = refused("query", imported, "red", "--json")
    assert gone in told
    assert "again into another --out" in told
    assert "--resume" not in told
    if gone != "cameras.json":
        assert "again into another --out" in refused("train", "--out", imported, "--resume")


def test_without_photos_there_is_nothing_to_train(
    dictsplat: Dictsplat, refused: Callable[..., str], tiny_scene: Path, levels: list[Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert dictsplat("import", *levels, "--out", run, "--encoder", "colour", "--hold-out", 4)[0] == 0
    cameras, held_out = load_cameras(run / "cameras.json")
    assert held_out == [camera.name for camera in cameras[::4]]
    assert "imported without its photos" in refused("train", "--out", run, "--resume")
    assert "imported without its photos" in refused("train", tiny_scene, "--out", run, "--encoder", "colour")
    told = refused("export", run, tmp_path / "out", "--as", "langsplat-features")
    assert "was not run" in told
    assert "--resume" not in told


def test_a_scale_without_photos_or_out_of_range_is_refused(
    refused: Callable[..., str], tiny_scene: Path, levels: list[Path], tmp_path: Path
) -> None:
    options = ("import", *levels, "--out", tmp_path / "run", "--encoder", "colour")
    assert "--scene" in refused(*options, "--scale", 0.5)
    for scale in (5, -3, 0, "nan"):
        assert "--scale is" in refused(*options, "--scene", tiny_scene, "--scale", scale)
    assert "--hold-out is" in refused(*options, "--hold-out", 1)
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_imported_is_refused(
    refused: Callable[..., str], tiny_run: Path, levels: list[Path], tmp_path: Path
) -> None:
    options = ("--encoder", "colour")
    assert "is a run already" in refused("import", *levels, "--out", tiny_run, *options)
    out = ("--out", tmp_path / "run")
    assert "dimensions" in refused("import", *levels, *out, "--encoder", "embedded")
    assert "has no chkpnt" in refused("import", tmp_path, *out, *options)
    assert "a checkpoint for each level" in refused("import", *levels, levels[0], *out, *options)
    (levels[0] / "cameras.json").write_text('[{"img_name": "a"}]')
    assert "no cameras.json of 3DGS" in refused("import", *levels, *out, *options)
    (levels[0] / "cameras.json").unlink()
    assert "--scene" in refused("import", *levels, *out, *options)
    assert not (tmp_path / "run" / "run.json").exists()


def test_cameras_of_3dgs_stand_where_they_say(tmp_path: Path) -> None:
    quarter = [[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]  # looks along the world's x
    record = {"id": 0, "img_name": "a", "width": 40, "height": 30, "position": [1, 2, 3], "rotation": quarter}
    (tmp_path / "cameras.json").write_text(json.dumps([record | {"fx": 50, "fy": 51}]))
    (camera,) = read_3dgs_cameras(tmp_path / "cameras.json")
    np.testing.assert_allclose(camera.center, [1, 2, 3], atol=1e-12)
    np.testing.assert_allclose(camera.forward, [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(camera.K, [[50, 0, 20], [0, 51, 15], [0, 0, 1]])


def named(path: Path, *images: str) -> list[str]:
    """Names of the cameras of these images, which stand at x = 0, 1, 2, ... and are sorted by that."""
    record = {"width": 4, "height": 3, "rotation": np.eye(3).tolist(), "fx": 5, "fy": 5}
    path.write_text(json.dumps([record | {"img_name": name, "position": [i, 0, 0]} for i, name in enumerate(images)]))
    cameras = read_3dgs_cameras(path)
    assert [camera.name for camera in cameras] == sorted(camera.name for camera in cameras)
    return [camera.name for camera in sorted(cameras, key=lambda camera: float(camera.center[0]))]


def test_every_camera_of_3dgs_gets_a_name(tmp_path: Path) -> None:
    path = tmp_path / "cameras.json"
    assert named(path, "frame_2.JPG", "frame_1") == ["frame_2", "frame_1"]
    assert named(path, "cam0/0001.jpg", "cam1/0001.jpg", "cam1\\0002.jpg") == ["cam0_0001", "cam1_0001", "0002"]
    assert named(path, "IMG.0001", "IMG.0002", "a.b.png") == ["IMG.0001", "IMG.0002", "a.b"]
    assert named(path, "IMG.0001", "a") == ["IMG.0001", "a"]
    with pytest.raises(InputError, match=r"2 cameras for the image a, .*--scene"):
        named(path, "a", "b", "a")


@pytest.mark.parametrize("images", [("/",), ("cam0/",), ("..",), ("a", "a"), ("0001.jpg", "0002.jpg", "0001.jpg")])
def test_cameras_without_a_name_of_their_own_are_refused(images: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=str(tmp_path)):
        named(tmp_path / "cameras.json", *images)
