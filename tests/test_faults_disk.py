"""A full, a read-only and a damaged disk, and clocks that are set: what a training and a prediction make of them."""

import itertools
import json
import shutil
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import fitting
import inspection
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_faults import metrics, train
from test_imported import write_3dgs_cameras

from app.progress_file import VARIABLE, read_progress
from encoders.checkpoints import previous_path
from splat.interchange.langsplat_v2 import write_levels
from splat.trained import Trained

Dictsplat = Callable[..., tuple[int, str, str]]


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that holds 192 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        mount("-t", "tmpfs", "-o", "size=192k", "tmpfs", place)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root may mount a small file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def predicting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments of an `anomaly predict` without ``--out``, by a detector that needs no weights."""
    for kind, count in (("support", 2), ("query", 30)):
        for number in range(count):
            inspection.save(tmp_path / kind / f"{number}.png", inspection.texture(number))
    use_detector(monkeypatch)
    given = ["--support", str(tmp_path / "support"), "--query", str(tmp_path / "query")]
    return ["anomaly", "predict", *given, "--workers", "0", "--batch", "3"]


def results(out: Path) -> dict[str, bytes]:
    kinds = ("results.csv", "maps", "masks", "overlays")
    files = [path for kind in kinds for path in [out / kind, *(out / kind).rglob("*")] if path.is_file()]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def test_a_prediction_on_a_full_disk_goes_on_when_there_is_room(
    dictsplat: Dictsplat, refused: Callable[..., str], predicting: list[str], small_disk: Path, tmp_path: Path
) -> None:
    assert dictsplat(*predicting, "--out", tmp_path / "whole")[0] == 0
    out = small_disk / "out"
    for _ in range(2):
        assert "No space left on device" in refused(*predicting, "--out", out)
    assert not (out / "results.csv").exists()
    mount("-o", "remount,size=20m", small_disk)
    assert dictsplat(*predicting, "--out", out)[0] == 0
    assert results(out) == results(tmp_path / "whole")


def test_a_training_on_a_full_disk_goes_on_when_there_is_room(
    dictsplat: Dictsplat, refused: Callable[..., str], tiny_scene: Path, small_disk: Path
) -> None:
    command = ["train", tiny_scene, "--out", small_disk / "run", "--preset", "fast", "--encoder", "colour"]
    assert refused(*command).startswith(f"The disk with {small_disk / 'run'} is full or over its quota")
    mount("-o", "remount,size=80m", small_disk)
    assert dictsplat(*command)[0] == 0
    assert metrics(small_disk / "run")["gaussians"] > 0


def test_a_disk_that_may_only_be_read_is_named(
    refused: Callable[..., str], predicting: list[str], tiny_scene: Path, small_disk: Path
) -> None:
    (small_disk / "run").mkdir()
    mount("-o", "remount,ro", small_disk)
    training = ["train", tiny_scene, "--preset", "fast", "--encoder", "colour"]
    for command, out in itertools.product((predicting, training), (small_disk / "run", small_disk / "new")):
        said = refused(*command, "--out", out)
        assert str(small_disk) in said
        assert "Read-only file system" in said


Command = Callable[[Path], list[object]]
"""Arguments, given where to write."""


def use_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("dictas.checkpoint")
    vars(module)["load_detector"] = lambda *_, **__: (inspection.backbone(), inspection.ColourDistance())
    monkeypatch.setitem(sys.modules, "dictas.checkpoint", module)


def training_a_detector(_folder: Path, _run: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    fitting.install(monkeypatch.setitem)
    fitting.shorten(monkeypatch.setattr, steps=4, batch=1, validation=3, validate_every=2)
    return lambda out: ["anomaly", "train", "--encoder", "cells", "--device", "cpu", "--workers", 0, "--out", out]


def measuring(folder: Path, _run: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    use_detector(monkeypatch)
    for place, seed, spot in (("train/good", 1, None), ("test/good", 2, None), ("test/spot", 3, (20, 30))):
        inspection.save(folder / "bolt" / place / "0.png", inspection.texture(seed, spot=spot))
    mask = np.zeros((64, 64), np.uint8)
    mask[20:36, 30:46] = 255
    inspection.save(folder / "bolt" / "ground_truth" / "spot" / "0_mask.png", mask)
    given = ["--shots", 1, "--baselines", "none", "--workers", 0]
    return lambda out: ["anomaly", "eval", folder / "bolt", *given, "--out", out]


def importing(folder: Path, run: Path, _monkeypatch: pytest.MonkeyPatch) -> Command:
    trained = Trained.load(run)
    models = [folder / f"tiny_0_{level}" for level in (1, 2, 3)]
    write_levels([model / "chkpnt10000.pth" for model in models], trained.gaussians, trained.field)
    write_3dgs_cameras(models[0] / "cameras.json", trained.cameras)
    return lambda out: ["import", *models, "--encoder", "colour", "--out", out]


def exporting(name: str, *options: str) -> Callable[[Path, Path, pytest.MonkeyPatch], Command]:
    def command(_folder: Path, run: Path, _monkeypatch: pytest.MonkeyPatch) -> Command:
        return lambda out: ["export", run, out / name, *options]

    return command


def training_scenes(folder: Path, run: Path, _monkeypatch: pytest.MonkeyPatch) -> Command:
    scene = json.loads((run / "run.json").read_text())["config"]["scene"]
    (folder / "list.txt").write_text(f"{scene}\tone\n")
    given = ["--preset", "fast", "--encoder", "colour", "--stages", "rgb"]
    return lambda out: ["train", "--scenes", folder / "list.txt", *given, "--out", out]


COMMANDS = {
    "anomaly train": training_a_detector,
    "anomaly eval": measuring,
    "import": importing,
    "export ply": exporting("scene.ply"),
    "export compressed ply": exporting("scene.compressed.ply"),
    "export spz": exporting("scene.spz"),
    "export splat": exporting("scene.splat"),
    "export langsplat-v2": exporting("levels", "--as", "langsplat-v2"),
    "export langsplat-features": exporting("features", "--as", "langsplat-features"),
    "train --scenes": training_scenes,
}


@pytest.mark.parametrize("name", COMMANDS)
def test_on_a_full_or_read_only_disk_a_command_says_so_and_leaves_nothing_half_written(
    dictsplat: Dictsplat,
    refused: Callable[..., str],
    tiny_run: Path,
    small_disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    command = COMMANDS[name](tmp_path, tiny_run, monkeypatch)
    out, filler = small_disk / "out", small_disk / "filler"
    out.mkdir()
    mount("-o", "remount,ro", small_disk)
    said = refused(*command(out))
    assert str(small_disk) in said
    assert "Read-only file system" in said
    mount("-o", "remount,rw", small_disk)
    room = 8 * 1024
    filler.write_bytes(bytes(192 * 1024 - room))
    said = refused(*command(out))
    assert str(small_disk) in said
    assert "No space left on device" in said or "full or over its quota" in said
    assert not [path for path in out.rglob("*.tmp*") if path.is_file()]
    filler.unlink()
    mount("-o", "remount,size=80m", small_disk)
    code, _, err = dictsplat(*command(out))
    assert (code, err) == (0, "")


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def test_a_training_with_a_damaged_checkpoint_goes_on_from_the_one_before(
    dictsplat: Dictsplat, tiny_scene: Path, tiny_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert train(tiny_scene, out, fault=("--kill", "rgb:40")).returncode == -signal.SIGKILL
    checkpoint = out / "checkpoints" / "rgb" / "rgb.safetensors"
    flip(checkpoint)
    code, said, err = dictsplat("train", tiny_scene, "--out", out, "--preset", "fast", "--encoder", "colour")
    assert (code, err) == (0, "")
    assert "rgb       38/60 the last checkpoint is damaged, going on from the one before\n" in said
    assert metrics(out)["psnr"] == pytest.approx(metrics(tiny_run)["psnr"], abs=0.1)


class Stop(Exception):
    pass


def test_a_detectors_training_with_a_damaged_checkpoint_ends_the_same(tmp_path: Path) -> None:
    def stop(step: int, *_: object) -> None:
        if step == 9:
            raise Stop

    whole = fitting.run(tmp_path / "whole")
    with pytest.raises(Stop):
        fitting.run(tmp_path / "out", report=stop)
    path = tmp_path / "out" / "training.safetensors"
    assert previous_path(path).exists()
    flip(path)
    told: list[tuple[int, str]] = []
    resumed = fitting.run(tmp_path / "out", report=lambda step, _total, text: told.append((step, text)))
    assert told[0] == (4, "the last checkpoint is damaged, going on from the one before")
    assert resumed == whole
    for name in ("training.safetensors", "detector.safetensors"):
        ours, theirs = load_file(tmp_path / "out" / name), load_file(tmp_path / "whole" / name)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours.keys() | theirs.keys())


@pytest.mark.parametrize("name", ["run.json", "cameras.json", "gaussians.ply", "language.safetensors"])
def test_a_file_that_ends_in_its_middle_is_named(
    refused: Callable[..., str], tiny_run: Path, tmp_path: Path, name: str
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (run / name).write_bytes((run / name).read_bytes()[: (run / name).stat().st_size // 2])
    assert str(run / name) in refused("query", run, "red", "--out", tmp_path / "pictures")


def test_nothing_depends_on_the_time_of_day(
    dictsplat: Dictsplat, tiny_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps = itertools.cycle([0.0, 3e6, -3e6, 86400.0, -1e9])
    real = time.time
    monkeypatch.setattr(time, "time", lambda: max(0.0, real() + next(jumps)))
    progress = tmp_path / "progress.jsonl"
    monkeypatch.setenv(VARIABLE, str(progress))
    monkeypatch.setattr("app.progress_file.SHORTEST", 0.0)
    monkeypatch.setattr("app.progress_file.LINES_PER_TIME", 10**9)
    before = signal.getsignal(signal.SIGTERM)
    try:
        command = ("train", tiny_scene, "--out", tmp_path / "run", "--preset", "fast", "--encoder", "colour")
        assert dictsplat(*command)[0] == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    lines = progress.read_text().splitlines(keepends=True)
    assert len(lines) > 60
    for end in range(1, len(lines)):
        (tmp_path / "part.jsonl").write_text("".join(lines[:end]))
        left = read_progress(tmp_path / "part.jsonl").stages[-1].seconds_left
        assert left is None or 0 <= left < 600
