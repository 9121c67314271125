"""Runs that are damaged or do not fit, and questions that make no sense, each refused in one sentence."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from encoders.files import write_json
from splat.gaussians import load_ply, save_ply
from splat.run import SCHEMA_VERSION, STAGES, Run
from splat.train_config import TrainConfig

Dictsplat = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([""], "phrase is empty"),
        (["   "], "phrase is empty"),
        (["cat", ""], "phrase is empty"),
        (["one two three four five six"], "more than 5"),
        (["cat", "--negative", ""], "phrase is empty"),
        (["cat", "--view", "nowhere"], "has no view 'nowhere'; its 10 views are test_000"),
        (["cat", "--view", "test_000", "--camera", "x.json"], "use one of them"),
        (["cat", "--camera", "x.json"], "x.json"),
        (["cat", "--level", "7"], "--level is 7"),
        (["cat", "--threshold", "2"], "--threshold is 2.0"),
    ],
)
def test_questions_that_make_no_sense(
    refused: Callable[..., str], tiny_run: Path, arguments: list[str], says: str
) -> None:
    assert says in refused("query", tiny_run, *arguments)


def test_a_camera_file_with_many_cameras(refused: Callable[..., str], tiny_run: Path) -> None:
    assert "holds 10 cameras" in refused("query", tiny_run, "red", "--camera", tiny_run / "cameras.json")


def test_select_wants_a_ply_and_a_find(refused: Callable[..., str], tiny_run: Path, tmp_path: Path) -> None:
    assert "ends in .ply" in refused("select", tiny_run, "red", "--out", tmp_path / "red.obj")
    assert "phrase is empty" in refused("select", tiny_run, " ", "--out", tmp_path / "x.ply")


def test_folders_that_are_no_run(refused: Callable[..., str], tmp_path: Path) -> None:
    for command in (
        ("query", tmp_path, "cat"),
        ("eval", tmp_path),
        ("select", tmp_path, "cat", "--out", "x.ply"),
    ):
        assert "is not a run folder" in refused(*command)
    assert "no run folder" in refused("query", tmp_path / "missing", "cat")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda config: config.pop("scene"), "run.json is damaged (config.scene: Field required)"),
        (lambda config: config.update(stages=3), "run.json is damaged (config.stages"),
        (lambda config: config.update(atoms="many"), "run.json is damaged (config.atoms"),
        (lambda config: config.update(solver="magic"), "run.json is damaged (config.solver"),
        (lambda config: config.update(sharpness=1), "run.json has an option 'sharpness'"),
    ],
)
def test_a_config_that_is_damaged_or_newer(
    refused: Callable[..., str], spoiled: Path, tiny_scene: Path, change: Callable[[dict[str, Any]], None], says: str
) -> None:
    record = json.loads((spoiled / "run.json").read_text())
    change(record["config"])
    write_json(spoiled / "run.json", record)
    for command in (
        ("train", "--out", spoiled, "--resume"),
        ("train", tiny_scene, "--out", spoiled),
        ("eval", spoiled),
    ):
        assert says in refused(*command)


def test_a_config_without_later_options_gets_their_defaults(spoiled: Path) -> None:
    config = json.loads((spoiled / "run.json").read_text())["config"]
    del config["seed"], config["gaussians"]
    read = TrainConfig.from_json(config, spoiled / "run.json")
    assert (read.seed, read.gaussians, read.scene, read.stages) == (0, None, Path(config["scene"]), STAGES)


def test_the_scale_of_a_run_stays_when_the_guess_would_differ(
    dictsplat: Dictsplat, spoiled: Path, tiny_scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("splat.pipeline.automatic_scale", lambda _: 0.5)
    code, _, err = dictsplat("train", tiny_scene, "--out", spoiled, "--preset", "fast", "--encoder", "colour")
    assert code == 0, err
    assert json.loads((spoiled / "run.json").read_text())["config"]["scale"] == 1.0


def test_eval_does_not_write_while_a_training_does(refused: Callable[..., str], spoiled: Path) -> None:
    before = (spoiled / "metrics.json").stat().st_mtime_ns
    with Run.locked(spoiled):
        assert "Another dictsplat process" in refused("eval", spoiled)
    assert (spoiled / "metrics.json").stat().st_mtime_ns == before


def test_a_run_from_a_newer_version(refused: Callable[..., str], spoiled: Path, tiny_scene: Path) -> None:
    record = json.loads((spoiled / "run.json").read_text())
    record["schema_version"] = SCHEMA_VERSION + 1
    text = json.dumps(record)
    (spoiled / "run.json").write_text(text)
    for command in (("query", spoiled, "red"), ("eval", spoiled), ("train", tiny_scene, "--out", spoiled)):
        assert "newer dictsplat" in refused(*command)
    assert (spoiled / "run.json").read_text() == text


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("run.json", "run.json is damaged"),
        ("gaussians.ply", "gaussians.ply is not a readable PLY"),
        ("language.safetensors", "language.safetensors cannot be read"),
        ("cameras.json", "cameras.json is not valid"),
    ],
)
def test_a_half_written_file(refused: Callable[..., str], spoiled: Path, name: str, says: str) -> None:
    path = spoiled / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert says in refused("query", spoiled, "red")


@pytest.mark.parametrize("name", ["gaussians.ply", "language.safetensors", "cameras.json"])
def test_a_missing_file(refused: Callable[..., str], spoiled: Path, name: str) -> None:
    (spoiled / name).unlink()
    assert name in refused("query", spoiled, "red")


def test_codes_of_other_gaussians(refused: Callable[..., str], spoiled: Path) -> None:
    gaussians = load_ply(spoiled / "gaussians.ply")
    save_ply(spoiled / "gaussians.ply", gaussians.subset(torch.arange(50)))
    assert "has 50 Gaussians but" in refused("query", spoiled, "red")


def test_codes_of_as_many_other_gaussians(
    dictsplat: Dictsplat, refused: Callable[..., str], spoiled: Path, tiny_scene: Path
) -> None:
    gaussians = load_ply(spoiled / "gaussians.ply")
    save_ply(spoiled / "gaussians.ply", gaussians.subset(torch.arange(len(gaussians)).flip(0)))
    options = ("train", tiny_scene, "--out", spoiled, "--preset", "fast", "--encoder", "colour")
    code, out, err = dictsplat(*options, "--stages", "rgb")
    assert code == 0, err
    assert "answers are not scored" in " ".join((out + err).split())
    assert "miou" not in json.loads((spoiled / "metrics.json").read_text())
    for command in (
        ("query", spoiled, "red"),
        ("select", spoiled, "red", "--out", spoiled / "red.ply"),
        ("eval", spoiled, "--labels", tiny_scene / "labels"),
    ):
        assert "was fitted to other Gaussians" in refused(*command)
    assert dictsplat("train", "--out", spoiled, "--resume")[0] == 0
    assert dictsplat("query", spoiled, "red", "--json")[0] == 0


def test_labels_for_other_views(refused: Callable[..., str], tiny_run: Path, tmp_path: Path) -> None:
    assert "no label files" in refused("eval", tiny_run, "--labels", tmp_path)
    shutil.copy(Path(tiny_run) / "cameras.json", tmp_path / "x.json")
    assert "x.json" in refused("eval", tiny_run, "--labels", tmp_path)


def test_a_scene_that_moved(dictsplat: Dictsplat, refused: Callable[..., str], spoiled: Path, scene: Path) -> None:
    record = json.loads((spoiled / "run.json").read_text())
    record["config"]["scene"] = str(scene.parent / "gone")
    write_json(spoiled / "run.json", record)
    assert "say where it is now with --scene" in refused("eval", spoiled)
    code, _, err = dictsplat("eval", spoiled, "--scene", scene)
    assert code == 0, err


def test_a_folder_nobody_may_write_to(refused: Callable[..., str], tiny_run: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        blocked = tmp_path / "file"
        blocked.write_text("not a folder")
        assert str(blocked) in refused("query", tiny_run, "red", "--out", blocked)
        return
    tmp_path.chmod(0o500)
    assert str(tmp_path) in refused("query", tiny_run, "red", "--out", tmp_path / "answer")
