"""Runs made from what other programs trained: they answer as the scene did that they were made from."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

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
    options = ("import", *levels, "--out", tmp_path / "run", "--encoder", "colour")
    code, _, err = dictsplat(*options, "--scene", tiny_scene)
    assert code == 0, err
    code, _, err = dictsplat("eval", tmp_path / "run")
    assert code == 0, err
    mine, yours = (json.loads((run / "metrics.json").read_text()) for run in (tmp_path / "run", tiny_run))
    assert mine["psnr"] == pytest.approx(yours["psnr"], abs=1e-4)
    assert mine["miou"] == pytest.approx(yours["miou"], abs=0.03)
    assert load_cameras(tmp_path / "run" / "cameras.json")[1] == load_cameras(tiny_run / "cameras.json")[1]


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
