"""The scripts for sets of scenes, on archives of the demo scene: what they leave is read by training and scoring."""

import importlib
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_archives

from encoders.files import write_png
from splat.protocols import read_benchmark
from splat.scene import load_scene

scenes = importlib.import_module("scenes")


def get(name: str, *arguments: object) -> int:
    return int(small_archives.get(small_archives.script(name), *arguments, convert=scenes.to_scenes))


def packed(archive: Path, **folders: Path) -> Path:
    """A zip of folders, each under a name in which __ stands for a slash."""
    with zipfile.ZipFile(archive, "w") as bundle:
        for name, folder in folders.items():
            for file in sorted(folder.rglob("*")):
                bundle.write(file, f"{name.replace('__', '/')}/{file.relative_to(folder)}")
    return archive


@pytest.fixture
def scene(tiny_scene: Path, tmp_path: Path) -> Path:
    """A scene without its labels, with things that are not wanted."""
    folder = shutil.copytree(tiny_scene, tmp_path / "scene", ignore=shutil.ignore_patterns("labels"))
    for extra in ("output", "images_4", "language_features"):
        write_png(folder / extra / "big.png", np.zeros((4, 4, 3), np.uint8))
    return folder


@pytest.fixture
def labels(tiny_scene: Path, tmp_path: Path) -> Path:
    """As in LERF_OVS: JSON files, and the photos they were drawn on."""
    folder = tmp_path / "label"
    folder.mkdir()
    for path in (tiny_scene / "labels").glob("*.json"):
        shutil.copy(path, folder)
        shutil.copy(next((tiny_scene / "images").glob(f"{path.stem}.*")), folder)
    return folder


def test_lerf_ovs(scene: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = packed(
        tmp_path / "lerf_ovs.zip", lerf_ovs__ramen=scene, lerf_ovs__teatime=scene, lerf_ovs__other=scene,
        lerf_ovs__label__ramen=labels,
    )  # fmt: skip
    out = tmp_path / "data" / "lerf_ovs"
    assert get("lerf_ovs", "--archive", archive, "--out", out) == 0
    assert "2 scenes, 1 without labels; not in it: figurines waldo_kitchen" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["SOURCE.txt", "ramen", "teatime"]
    assert sorted(path.name for path in (out / "ramen").iterdir()) == ["images", "labels", "transforms.json"]
    loaded = load_scene(out / "ramen", with_points=False)
    names = {camera.name for camera in loaded.cameras}
    assert loaded.image(0).shape == (72, 96, 3)
    views = read_benchmark(out / "ramen" / "labels").labels
    assert {view.name for view in views} <= names
    assert len(views) == 2


def test_3d_ovs(scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = scene / "segmentations"
    write_png(folder / "test_000" / "blue grape.png", np.full((72, 96), 255, np.uint8))
    (folder / "classes.txt").write_text("blue grape\n")
    archives = [packed(tmp_path / f"{name}.zip", **{name: scene}) for name in ("bed", "sofa")]
    assert get("ovs3d", "--archive", *archives, "--out", tmp_path / "out") == 0
    assert "2 scenes\n" in capsys.readouterr().out
    benchmark = read_benchmark(tmp_path / "out" / "sofa" / "segmentations")
    assert benchmark.protocol.name == "3d-ovs"
    shown = benchmark.labels[0].shown("blue grape", 96, 72)
    assert shown is not None
    assert shown.mask.all()
    assert not (tmp_path / "out" / "sofa" / "output").exists()


def nothing(folder: Path) -> None:
    shutil.rmtree(folder / "images")


def without_cameras(folder: Path) -> None:
    (folder / "transforms.json").unlink()


@pytest.mark.parametrize("spoil", [nothing, without_cameras])
def test_an_archive_without_scenes_leaves_nothing(
    spoil: Callable[[Path], Any], scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(scene)
    archive = packed(tmp_path / "bed.zip", bed=scene)
    assert get("ovs3d", "--archive", archive, "--out", tmp_path / "data" / "out") == 2
    said = capsys.readouterr().err
    assert "there is no scene in it" in said
    assert str(archive) in said
    assert list((tmp_path / "data").iterdir()) == []


def test_what_has_to_be_downloaded_by_hand_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("lerf_ovs", "ovs3d"):
        assert get(name, "--out", tmp_path / "out") == 2
        assert "--from-archive FILE" in capsys.readouterr().err
