"""Options that no training can use, each refused in one sentence before anything is computed."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from encoders.files import write_json
from splat.run import Run

Dictsplat = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--preset", "quick"], "--preset is 'quick'; give one of fast, default, paper"),
        (["--solver", "magic"], "--solver is"),
        (["--stages", "rgb,colour"], "--stages is 'colour'; give one of rgb, features, language"),
        (["--stages", ","], "--stages is empty"),
        (["--scale", "0"], "--scale is 0.0"),
        (["--atoms", "300"], "--atoms is 300"),
        (["--nonzeros", "0"], "--nonzeros is 0"),
        (["--device", "tpu"], "--device is 'tpu'"),
        (["--gaussians", "missing.ply"], "missing.ply"),
        (["--stages", "language"], "rgb stage of .* was not run"),
    ],
)
def test_options_no_training_can_use(
    refused: Callable[..., str], tiny_scene: Path, tmp_path: Path, options: list[str], says: str
) -> None:
    assert re.search(says, refused("train", tiny_scene, "--out", tmp_path / "run", *options))


def test_an_unknown_encoder_leaves_the_gaussians(
    refused: Callable[..., str], tiny_scene: Path, tiny_run: Path, tmp_path: Path
) -> None:
    ply = tiny_run / "gaussians.ply"
    options = ("train", tiny_scene, "--out", tmp_path / "run", "--gaussians", ply, "--encoder", "oracle")
    assert "no --encoder 'oracle'" in refused(*options)
    assert (tmp_path / "run" / "gaussians.ply").read_bytes() == ply.read_bytes()


def test_an_encoder_that_cannot_be_made_stops_before_the_fit(
    refused: Callable[..., str], tiny_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("splat.pipeline.fit_rgb", lambda *_: pytest.fail("the fit has begun"))
    options = ("train", tiny_scene, "--out", tmp_path / "run", "--preset", "fast")
    assert "no --encoder 'oracle'" in refused(*options, "--encoder", "oracle")
    missing = tmp_path / "no.pth"
    assert str(missing) in refused(*options, "--encoder", "colour", "--regions", f"sam:vit_b:{missing}")
    assert not (tmp_path / "run" / "run.json").exists()


def test_an_encoder_that_cannot_be_made_does_not_lock_the_run(
    dictsplat: Dictsplat, refused: Callable[..., str], tiny_scene: Path, tiny_run: Path, tmp_path: Path
) -> None:
    options = ("train", tiny_scene, "--out", tmp_path / "run", "--gaussians", tiny_run / "gaussians.ply")
    assert "no --encoder 'oracle'" in refused(*options, "--encoder", "oracle")
    code, _, err = dictsplat(*options, "--encoder", "colour")
    assert code == 0, err


def test_a_features_stage_without_a_view_may_change_its_encoder(
    dictsplat: Dictsplat, spoiled: Path, tiny_scene: Path
) -> None:
    record = json.loads((spoiled / "run.json").read_text())
    features = record["stages"]["features"]
    features["status"], features["inputs"]["encoder"] = "running", "oracle"
    write_json(spoiled / "run.json", record)
    for path in (spoiled / "features").glob("*.npz"):
        path.unlink()
    write_json(spoiled / "features" / "features.json", {"version": 1, "encoder": "oracle", "dim": 2, "regions": "x"})
    code, _, err = dictsplat("train", tiny_scene, "--out", spoiled, "--preset", "fast", "--encoder", "colour")
    assert code == 0, err


def test_a_second_training_in_the_same_folder(refused: Callable[..., str], tiny_scene: Path, tmp_path: Path) -> None:
    with Run.locked(tmp_path / "shared"):
        err = refused("train", tiny_scene, "--out", tmp_path / "shared")
    assert "Another dictsplat process is writing to" in err
    assert not (tmp_path / "shared" / "run.json").exists()


def test_the_scene_folder_is_no_place_for_the_run(refused: Callable[..., str], scene: Path) -> None:
    before = sorted(scene.rglob("*"))
    assert "is the scene folder" in refused("train", scene, "--out", scene)
    assert sorted(scene.rglob("*")) == before
