"""A training survives being killed anywhere and a full disk."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import driver
import pytest

STAGES_IN_ORDER = ("rgb", "features", "language")
FAULTS = (
    (("--fill", "rgb:60000"), 0),
    (("--kill", "rgb:30"), 0),
    (("--kill", "rename:gaussians.ply"), 0),
    (("--kill", "features:4"), 1),
    (("--kill", "rename:language.safetensors"), 2),
)
"""What goes wrong at each try of a training, and how many stages are finished by then."""


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


def test_whatever_stops_it_a_training_continues_and_ends_the_same(
    tiny_scene: Path, tiny_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "stopped"
    kept: dict[Path, int] = {}
    for fault, done in FAULTS:
        result = train(tiny_scene, out, fault=fault)
        if fault[0] == "--kill":
            assert result.returncode == -signal.SIGKILL, f"{fault}: {result.stdout}{result.stderr}"
        else:
            assert result.returncode == 2, result.stderr
            assert result.stderr.startswith(f"The disk with {out} is full or over its quota")
            assert result.stderr.count("\n") == 1
        assert finished(out) == list(STAGES_IN_ORDER[:done]), fault
        assert not (out / "metrics.json").exists()
        # What an earlier try finished is not made again.
        now = files(out, "gaussians.ply", "features/*.npz")
        assert kept.items() <= now.items(), fault
        kept = now if done else {}
    assert len(kept) == 1 + 8
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


def test_a_full_disk_keeps_earlier_results(tiny_run: Path, tiny_scene: Path, tmp_path: Path) -> None:
    out = shutil.copytree(tiny_run, tmp_path / "full")
    earlier = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != "run.json"}
    result = train(tiny_scene, out, "--atoms", "16", fault=("--fill", "language:5000"))
    assert result.returncode == 2, result.stderr
    assert "full or over its quota" in result.stderr
    assert result.stderr.count("\n") == 1
    assert {path: path.read_bytes() for path in earlier} == earlier
