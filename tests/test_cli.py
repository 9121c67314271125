"""The commands, end to end, on the corner of a room."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import encoders
from encoders.files import write_json
from splat.gaussians import load_ply
from splat.scene import load_cameras

Dictsplat = Callable[..., tuple[int, str, str]]


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
