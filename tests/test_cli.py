"""The command line: what it prints and writes, and one sentence for everything it cannot use."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import driver
import numpy as np
import pytest
import torch
from PIL import Image

import encoders
from encoders.files import write_json, write_png
from splat.gaussians import load_ply, save_ply
from splat.run import SCHEMA_VERSION, STAGES, Run
from splat.scene import load_cameras
from splat.train_config import TrainConfig

Dictsplat = Callable[..., tuple[int, str, str]]

# --- what commands print and write -------------------------------------------------------------


def test_help_needs_no_torch_and_names_every_command() -> None:
    code = "from app.cli import main; main(['--help'])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    for name in ("demo", "train", "query", "select", "eval", "bench", "doctor"):
        assert name in result.stdout
    heavy = "import sys, app.cli; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", heavy], timeout=60).returncode == 0


def test_version(dictsplat: Dictsplat) -> None:
    assert dictsplat("--version") == (0, "dictsplat 0.1.0\n", "")


@pytest.mark.parametrize("command", ["demo", "train", "query", "select", "eval", "bench", "doctor"])
def test_every_command_has_help(dictsplat: Dictsplat, command: str) -> None:
    code, out, _ = dictsplat(command, "--help")
    assert code == 0
    assert f"dictsplat {command}" in out


def test_train_leaves_a_run_folder(tiny_run: Path) -> None:
    for name in (
        "run.json",
        "gaussians.ply",
        "language.safetensors",
        "cameras.json",
        "features",
        "report.html",
    ):
        assert (tiny_run / name).exists(), name
    metrics = json.loads((tiny_run / "metrics.json").read_text())
    assert metrics["psnr"] > 8
    assert 0 < metrics["ssim"] < 1
    assert metrics["gaussians"] == len(load_ply(tiny_run / "gaussians.ply"))
    assert set(metrics["seconds"]) == {"rgb", "features", "language", "query"}
    assert all(seconds > 0 for seconds in metrics["seconds"].values())
    assert metrics["peak_rss_mb"] > 50
    assert {"query", "iou", "hit", "level"} <= set(metrics["per_query"][0])
    record = json.loads((tiny_run / "run.json").read_text())
    assert {stage: entry["status"] for stage, entry in record["stages"].items()} == {
        "rgb": "done",
        "features": "done",
        "language": "done",
    }


def test_query_json_is_one_object_and_nothing_else(dictsplat: Dictsplat, tiny_run: Path) -> None:
    code, out, err = dictsplat("query", tiny_run, "red", "green", "--json", "--view", "test_001")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert [result["phrase"] for result in answer["results"]] == ["red", "green"]
    for result in answer["results"]:
        assert result["view"] == "test_001"
        assert 0 <= result["confidence"] <= 1
        x, y = result["point"]
        assert 0 <= x < result["width"] == 96
        assert 0 <= y < result["height"] == 72
        assert result["level"] in (0, 1, 2)


def test_query_writes_pictures_of_the_views_size(dictsplat: Dictsplat, tiny_run: Path, tmp_path: Path) -> None:
    code, out, _ = dictsplat("query", tiny_run, "red", "--out", tmp_path / "answer")
    assert code == 0
    assert "red" in out
    assert {path.name for path in (tmp_path / "answer").iterdir()} == {
        "overlay.png",
        "relevancy.png",
        "mask.png",
        "query.json",
    }
    mask = np.array(Image.open(tmp_path / "answer" / "mask.png"))
    result = json.loads((tmp_path / "answer" / "query.json").read_text())
    assert mask.dtype == np.uint8
    assert mask.shape == (72, 96)
    assert set(np.unique(mask)) <= {0, 255}
    assert int((mask == 255).sum()) == result["pixels"]
    if result["box"] is not None:
        x0, y0, x1, y1 = result["box"]
        rows, columns = np.nonzero(mask)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x0, y0, x1, y1)
    assert Image.open(tmp_path / "answer" / "overlay.png").size == (96, 72)
    assert Image.open(tmp_path / "answer" / "relevancy.png").size == (96, 72)


def test_several_phrases_get_a_folder_each(dictsplat: Dictsplat, tiny_run: Path, tmp_path: Path) -> None:
    code, _, err = dictsplat("query", tiny_run, "red", "Red!", "a/b ../c", "--out", tmp_path)
    assert code == 0, err
    assert {path.name for path in tmp_path.iterdir()} == {"red", "red-2", "a-b-c"}


def test_query_without_a_view_takes_the_one_that_is_surest(dictsplat: Dictsplat, tiny_run: Path) -> None:
    best = json.loads(dictsplat("query", tiny_run, "blue", "--json")[1])["results"][0]
    each = [
        json.loads(dictsplat("query", tiny_run, "blue", "--json", "--view", f"test_00{i}")[1])["results"][0]
        for i in range(2)
    ]
    assert best["confidence"] == max(result["confidence"] for result in each)
    assert best["held_out"]


def test_query_from_a_camera_file(dictsplat: Dictsplat, tiny_run: Path, tmp_path: Path) -> None:
    cameras = json.loads((tiny_run / "cameras.json").read_text())
    one = next(camera for camera in cameras["cameras"] if camera["name"] == "test_001")
    write_json(tmp_path / "one.json", {"version": 1, "cameras": [one]})
    by_file = json.loads(dictsplat("query", tiny_run, "red", "--json", "--camera", tmp_path / "one.json")[1])
    by_name = json.loads(dictsplat("query", tiny_run, "red", "--json", "--view", "test_001")[1])
    keys = ("view", "point", "box", "confidence", "level")
    assert [by_file["results"][0][key] for key in keys] == [by_name["results"][0][key] for key in keys]


def test_negatives_and_level_change_the_answer(dictsplat: Dictsplat, tiny_run: Path) -> None:
    plain = json.loads(dictsplat("query", tiny_run, "red", "--json", "--view", "test_001")[1])["results"][0]
    against = ("query", tiny_run, "red", "--json", "--view", "test_001", "--negative", "red")
    same = json.loads(dictsplat(*against)[1])["results"][0]
    # Nothing is likelier to be red than to be red.
    assert same["confidence"] == pytest.approx(0.5, abs=1e-3)
    assert plain["confidence"] != same["confidence"]
    level = json.loads(dictsplat("query", tiny_run, "red", "--json", "--level", 2)[1])["results"][0]["level"]
    assert level == 2


def test_select_and_its_inverse_share_the_scene(dictsplat: Dictsplat, tiny_run: Path, tmp_path: Path) -> None:
    options = ("select", tiny_run, "white", "--threshold", "0.05")
    code, out, err = dictsplat(*options, "--out", tmp_path / "in.ply")
    assert code == 0, err
    assert "Gaussians answer to 'white'" in out
    assert dictsplat(*options, "--out", tmp_path / "rest.ply", "--invert")[0] == 0
    inside, rest = load_ply(tmp_path / "in.ply"), load_ply(tmp_path / "rest.ply")
    assert len(inside) > 0
    assert len(inside) + len(rest) == len(load_ply(tiny_run / "gaussians.ply"))


def test_eval_repeats_the_scores_of_train(dictsplat: Dictsplat, tiny_run: Path) -> None:
    before = json.loads((tiny_run / "metrics.json").read_text())
    code, out, err = dictsplat("eval", tiny_run, "--json")
    assert (code, err) == (0, "")
    metrics = json.loads(out)
    for key in ("psnr", "ssim", "miou", "localization_accuracy", "gaussians"):
        assert metrics[key] == pytest.approx(before[key], rel=1e-5), key
    assert metrics == json.loads((tiny_run / "metrics.json").read_text())


def test_another_solver_setting_reruns_only_the_language_stage(
    dictsplat: Dictsplat, tiny_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    kept = [run / "gaussians.ply", *(run / "features").iterdir()]
    before = {path: path.stat().st_mtime_ns for path in kept}
    code, _, err = dictsplat("train", "--out", run, "--resume", "--atoms", "16", "--nonzeros", "2")
    assert code == 0, err
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    record = json.loads((run / "run.json").read_text())
    assert record["stages"]["language"]["inputs"]["atoms"] == 16
    assert dictsplat("query", run, "red", "--json")[0] == 0


def test_gaussians_trained_elsewhere_replace_the_rgb_stage(
    dictsplat: Dictsplat, tiny_scene: Path, tiny_run: Path, tmp_path: Path
) -> None:
    ply, out = tiny_run / "gaussians.ply", tmp_path / "run"
    options = ("train", tiny_scene, "--out", out, "--encoder", "colour")
    code, _, err = dictsplat(*options, "--gaussians", ply)
    assert code == 0, err
    assert (out / "gaussians.ply").read_bytes() == ply.read_bytes()
    metrics, theirs = (json.loads((folder / "metrics.json").read_text()) for folder in (out, tiny_run))
    assert metrics["psnr"] == pytest.approx(theirs["psnr"])
    assert metrics["miou"] == pytest.approx(theirs["miou"], abs=0.02)
    assert metrics["seconds"]["rgb"] == 0.0
    # The same file found in the folder is the same thing.
    placed = tmp_path / "placed"
    placed.mkdir()
    shutil.copy(ply, placed)
    code, _, err = dictsplat("train", tiny_scene, "--out", placed, "--encoder", "colour", "--stages", "rgb")
    assert code == 0, err
    assert (placed / "gaussians.ply").read_bytes() == ply.read_bytes()
    assert not (placed / "language.safetensors").exists()


def test_doctor_finds_nothing_broken(dictsplat: Dictsplat, monkeypatch: pytest.MonkeyPatch) -> None:
    # The embedded encoder takes seconds to load; it and the detector made for it have tests of their own.
    monkeypatch.setitem(encoders.ENCODERS, "embedded", encoders.ENCODERS["colour"])
    monkeypatch.setattr("dictas.checkpoint.load_detector", lambda: (None, torch.nn.Linear(6, 7)))
    code, out, err = dictsplat("doctor")
    assert (code, err) == (0, "")
    assert "native rasteriser" in out
    assert "works, 49 trained parameters" in " ".join(out.split())


def test_doctor_names_what_is_broken(dictsplat: Dictsplat, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_options: str, _device: str) -> None:
        raise OSError("weights are gone")

    monkeypatch.setitem(encoders.ENCODERS, "embedded", missing)
    code, out, err = dictsplat("doctor")
    assert code == 2
    assert "does not work: weights are gone" in " ".join(out.split())
    assert "is broken" in err


# --- bad input: scenes -------------------------------------------------------------------------


def transforms(scene: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = scene / "transforms.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def scene(tiny_scene: Path, tmp_path: Path) -> Path:
    """A copy of the tiny scene that a test may spoil."""
    return shutil.copytree(tiny_scene, tmp_path / "scene")


def test_a_scene_that_is_not_there(refused: Callable[..., str], tmp_path: Path) -> None:
    assert f"no scene at {tmp_path / 'nope'}" in refused("train", tmp_path / "nope", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert "no scene to train on" in refused("train", "--out", tmp_path / "run")
    assert "no run folder" in refused("train", "--out", tmp_path / "run", "--resume")


def test_an_empty_folder(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    assert "no photos" in refused("train", tmp_path / "photos", "--out", tmp_path / "run")


def test_a_truncated_image(refused: Callable[..., str], scene: Path, tmp_path: Path) -> None:
    image = scene / "images" / "train_003.png"
    image.write_bytes(image.read_bytes()[:500])
    assert "train_003.png" in refused("train", scene, "--out", tmp_path / "run", "--encoder", "colour")


def test_an_image_that_is_empty(refused: Callable[..., str], scene: Path, tmp_path: Path) -> None:
    (scene / "images" / "train_003.png").write_bytes(b"")
    assert "train_003.png" in refused("train", scene, "--out", tmp_path / "run", "--encoder", "colour")


def test_views_too_small_to_score_stop_before_the_fit(
    refused: Callable[..., str], tiny_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("splat.pipeline.fit_rgb", lambda *_: pytest.fail("the fit has begun"))
    options = ("--encoder", "colour", "--preset", "fast", "--scale", "0.14")
    err = refused("train", tiny_scene, "--out", tmp_path / "run", *options)
    assert "test_000 has 13 x 10 pixels at --scale 0.14, and scoring takes at least 11 x 11" in err


def test_an_image_of_another_size(refused: Callable[..., str], scene: Path, tmp_path: Path) -> None:
    write_png(scene / "images" / "train_003.png", np.zeros((50, 96, 3), np.uint8))
    err = refused("train", scene, "--out", tmp_path / "run")
    assert "train_003.png has 96x50 pixels but its camera 96x72" in err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c.pop("frames"), "frames"),
        (lambda c: c["frames"][2].pop("transform_matrix"), "transform_matrix"),
        (lambda c: c.pop("fl_x") and c.pop("fl_y"), "fl_x|focal|camera_angle_x"),
        (lambda c: c["frames"][1]["transform_matrix"][0].__setitem__(3, float("nan")), "finite"),
    ],
)
def test_a_broken_transforms_json(
    dictsplat: Dictsplat, scene: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], says: str
) -> None:
    transforms(scene, change)
    code, _, err = dictsplat("train", scene, "--out", tmp_path / "run")
    assert code == 2
    assert err.count("\n") == 1
    assert "transforms.json" in err
    assert any(word in err for word in says.split("|")), err


def test_photos_without_overlap(tmp_path: Path) -> None:
    """Pure noise shares nothing; in its own process, because the reconstruction logs where it likes."""
    rng = np.random.default_rng(0)
    for index in range(4):
        write_png(tmp_path / "photos" / f"{index}.png", rng.integers(0, 255, (80, 120, 3), dtype=np.uint8))
    command = [sys.executable, driver.__file__, "train", tmp_path / "photos", "--out", tmp_path / "run"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2, result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    assert "overlap" in result.stderr


# --- bad input: options ------------------------------------------------------------------------


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
    assert "Another dictsplat process is training in" in err
    assert not (tmp_path / "shared" / "run.json").exists()


def test_the_scene_folder_is_no_place_for_the_run(refused: Callable[..., str], scene: Path) -> None:
    before = sorted(scene.rglob("*"))
    assert "is the scene folder" in refused("train", scene, "--out", scene)
    assert sorted(scene.rglob("*")) == before


# --- bad input: runs and queries ---------------------------------------------------------------


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


@pytest.fixture
def spoiled(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the tiny run that a test may spoil."""
    return shutil.copytree(tiny_run, tmp_path / "run")


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


def test_another_preset_or_scene_is_refused(
    refused: Callable[..., str], spoiled: Path, scene: Path, tiny_scene: Path
) -> None:
    before = (spoiled / "run.json").read_text()
    err = refused("train", tiny_scene, "--out", spoiled, "--preset", "paper", "--encoder", "colour")
    assert "was trained with --preset fast and you ask for --preset paper; choose another --out" in err
    err = refused("train", tiny_scene, "--out", spoiled, "--preset", "fast")
    assert "--encoder colour and you ask for --encoder embedded" in err
    transforms(scene, lambda content: content["frames"][0]["transform_matrix"][0].__setitem__(3, 9.0))
    assert "other photos, cameras or another --scale" in refused(
        "train", scene, "--out", spoiled, "--preset", "fast", "--encoder", "colour"
    )
    assert (spoiled / "run.json").read_text() == before


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


def test_a_fault_of_ours_is_no_input_error(
    dictsplat: Dictsplat, tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("app.ask.query", broken)
    code, _, err = dictsplat("query", tiny_run, "red")
    assert code == 1
    assert err == "dictsplat has a fault: ZeroDivisionError: oops (add --debug to see where).\n"
    code, _, err = dictsplat("query", tiny_run, "red", "--debug")
    assert code == 1
    assert "Traceback" in err


def test_debug_shows_where(dictsplat: Dictsplat, tiny_run: Path) -> None:
    code, _, err = dictsplat("query", tiny_run, "", "--debug")
    assert code == 2
    assert "Traceback" in err
    assert "phrase is empty" in err.splitlines()[-1]


def test_cameras_file_is_what_load_cameras_reads(tiny_run: Path) -> None:
    cameras, held_out = load_cameras(tiny_run / "cameras.json")
    assert len(cameras) == 10
    assert held_out == ["test_000", "test_001"]
