"""Scenes that cannot be trained on, each refused in one sentence."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import driver
import numpy as np
import pytest

from encoders.files import write_png

Dictsplat = Callable[..., tuple[int, str, str]]


def transforms(scene: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = scene / "transforms.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


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
