"""A training survives being killed anywhere, a full disk, and a second training beside it."""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import driver
import pytest

from splat.run import Run

STAGES_IN_ORDER = ("rgb", "features", "language")
KILLS = (
    ("rgb:30", 0),
    ("rename:gaussians.ply", 0),
    ("features:4", 1),
    ("rename:language.safetensors", 2),
    ("score:2", 3),
)
"""Where to kill a training, and how many stages must be finished by then."""


def train(scene: Path, out: Path, *options: str, fault: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, driver.__file__, *fault, "train", str(scene), "--out", str(out)]
    command += ["--preset", "fast", "--encoder", "colour", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def metrics(out: Path) -> dict[str, Any]:
    return json.loads((out / "metrics.json").read_text())


def finished(out: Path) -> list[str]:
    record = json.loads((out / "run.json").read_text())
    return [name for name in STAGES_IN_ORDER if record["stages"].get(name, {}).get("status") == "done"]


def files(out: Path, *names: str) -> dict[Path, int]:
    paths = [path for name in names for path in out.glob(name)]
    return {path: path.stat().st_mtime_ns for path in paths}


def test_killed_in_every_stage_it_continues_and_ends_the_same(tiny_scene: Path, tiny_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    kept: dict[Path, int] = {}
    for kill, done in KILLS:
        result = train(tiny_scene, out, fault=("--kill", kill))
        assert result.returncode == -signal.SIGKILL, f"{kill}: {result.stdout}{result.stderr}"
        assert finished(out) == list(STAGES_IN_ORDER[:done]), kill
        assert not (out / "metrics.json").exists()
        # What an earlier try finished is not made again.
        assert kept.items() <= files(out, "gaussians.ply", "features/*.npz").items(), kill
        kept = files(out, "gaussians.ply") if done else {}
        if kill.startswith("features"):
            partial = files(out, "features/*.npz")
            assert 0 < len(partial) < 8
            kept |= partial
    result = train(tiny_scene, out)
    assert result.returncode == 0, result.stderr
    assert kept.items() <= files(out, "gaussians.ply", "features/*.npz").items()
    killed, whole = metrics(out), metrics(tiny_run)
    assert killed["gaussians"] == pytest.approx(whole["gaussians"], rel=0.02)
    assert killed["psnr"] == pytest.approx(whole["psnr"], abs=0.1)
    assert killed["ssim"] == pytest.approx(whole["ssim"], abs=0.01)
    assert killed["miou"] == pytest.approx(whole["miou"], abs=0.03)
    # Nothing half-written is left lying about.
    assert not [path for path in out.rglob("*") if ".tmp" in path.name and path.is_file()]


def test_a_full_disk_ends_in_one_sentence_and_the_run_continues(tiny_scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "full"
    result = train(tiny_scene, out, fault=("--fill", "rgb:60000"))
    assert result.returncode == 2, result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    assert "full or over its quota" in result.stderr
    assert finished(out) == []
    result = train(tiny_scene, out, "--stages", "rgb,features")
    assert result.returncode == 0, result.stderr
    earlier = files(out, "gaussians.ply", "features/*.npz", "metrics.json")
    result = train(tiny_scene, out, "--stages", "language", fault=("--fill", "language:5000"))
    assert result.returncode == 2, result.stderr
    assert "full or over its quota" in result.stderr.splitlines()[-1]
    assert files(out, "gaussians.ply", "features/*.npz", "metrics.json") == earlier
    result = train(tiny_scene, out)
    assert result.returncode == 0, result.stderr
    assert finished(out) == list(STAGES_IN_ORDER)


def test_a_second_training_is_refused(tiny_scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "shared"
    with Run.locked(out):
        result = train(tiny_scene, out)
    assert result.returncode == 2
    assert result.stderr == (f"Another dictsplat process is training in {out}; wait for it or choose another --out.\n")
    assert not (out / "run.json").exists()
