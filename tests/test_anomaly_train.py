"""`dictsplat anomaly train`: what it writes, how it goes on, and one sentence for what it cannot use."""

import importlib
import json
from pathlib import Path

import fitting
import pytest
from inspection import save, texture
from safetensors import safe_open
from safetensors.torch import load_file

import encoders
from app.cli import main
from dictas.checkpoint import shipped_detector
from dictas.episodes import EpisodeConfig
from dictas.fit import FitConfig


@pytest.fixture
def train(monkeypatch, capsys):
    """Runs the command in this process on the encoder ``cells``: (exit status, stdout, stderr)."""
    fitting.install(monkeypatch.setitem)
    fitting.shorten(monkeypatch.setattr, steps=4, batch=1, validation=3)

    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(["anomaly", "train", "--encoder", "cells", "--workers", "0", "--device", "cpu", *map(str, arguments)])
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run


@pytest.fixture
def refused(train, tmp_path):
    """Runs a command that must end with status 2, one line on stderr and nothing written."""

    def run(*arguments):
        code, _, err = train("--out", tmp_path / "never", *arguments)
        assert code == 2, err
        assert err.count("\n") == 1, err
        assert not (tmp_path / "never").exists()
        return err

    return run


@pytest.fixture
def photos(tmp_path):
    for number in range(4):
        save(tmp_path / "photos" / f"{number}.jpg", texture(number))
    return tmp_path / "photos"


def metadata(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def test_a_detector_is_trained_and_can_be_used(train, photos, tmp_path, capsys):
    out = tmp_path / "trained"
    code, printed, err = train("--out", out, "--size", "64", "--projection", "softmax")
    assert (code, err) == (0, "")
    assert f"--checkpoint {out / 'detector.safetensors'}" in printed
    assert {path.name for path in out.iterdir()} - {"training.previous.safetensors"} == {
        ".lock",
        "detector.safetensors",
        "training.safetensors",
    }
    config = json.loads(metadata(out / "detector.safetensors")["config"])
    assert config["encoder"] == "cells"
    assert (config["layers"], config["size"], config["projection"]) == ([1, 2], 64, "softmax")
    identity = json.loads(metadata(out / "training.safetensors")["identity"])
    assert (identity["fit"]["steps"], identity["fit"]["seed"]) == (4, 0)
    assert any(name.startswith("weights.alignment") for name in load_file(out / "training.safetensors"))

    arguments = ["--support", photos, "--query", photos, "--out", tmp_path / "results", "--workers", "0"]
    with pytest.raises(SystemExit) as stop:
        main(["anomaly", "predict", *map(str, arguments), "--checkpoint", str(out / "detector.safetensors")])
    assert not stop.value.code, capsys.readouterr()
    results = json.loads((tmp_path / "results/results.json").read_text())
    assert results["counts"]["ok"] == 4


def test_options_reach_the_training(train, photos, tmp_path):
    out = tmp_path / "trained"
    code, _, err = train(
        "--out", out, "--images", photos, "--textures", photos, "--layers", "2", "--steps", "2", "--seed", "7"
    )
    assert (code, err) == (0, "")
    assert json.loads(metadata(out / "detector.safetensors")["config"])["layers"] == [2]
    identity = json.loads(metadata(out / "training.safetensors")["identity"])
    assert (identity["fit"]["steps"], identity["fit"]["seed"], identity["fit"]["validate_every"]) == (2, 7, 1)
    assert identity["images"] == identity["textures"] == str(photos)


@pytest.mark.parametrize("count", [9, 10])
def test_it_says_what_the_validation_used(train, tmp_path, count):
    for number in range(count):
        save(tmp_path / "photos" / f"{number}.jpg", texture(number))
    code, printed, err = train("--out", tmp_path / "out", "--images", tmp_path / "photos", "--steps", "1")
    assert (code, err) == (0, "")
    assert ("fewer than 10 photos none was kept" in printed) == (count < 10)
    assert ("defects and photos it was not trained on" in printed) == (count >= 10)


def test_it_goes_on_and_ends_where_an_unbroken_one_does(train, photos, tmp_path, monkeypatch):
    from dictas.fit_state import TrainingState

    command = ("--images", photos, "--textures", photos, "--steps", "4")
    assert train("--out", tmp_path / "whole", *command)[0] == 0
    real = TrainingState.save

    def interrupted(self):
        real(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "save", interrupted)
        code, _, err = train("--out", tmp_path / "stopped", *command)
    assert code == 130
    assert err == "Interrupted; run the same command again to continue.\n"
    begun = json.loads(metadata(tmp_path / "stopped/training.safetensors")["progress"])
    assert begun["step"] == 1
    assert train("--out", tmp_path / "stopped", *command)[0] == 0
    for name in ("detector.safetensors", "training.safetensors"):
        whole, stopped = load_file(tmp_path / "whole" / name), load_file(tmp_path / "stopped" / name)
        assert whole.keys() == stopped.keys()
        assert all((value == stopped[key]).all() for key, value in whole.items())
    code, _, err = train("--out", tmp_path / "stopped", *command, "--seed", "1")
    assert code == 2
    assert "training with other options" in err


def test_the_paper_counts_epochs_over_its_photos(refused):
    assert "--images" in refused("--preset", "paper")
    assert FitConfig.paper(2400).steps == 3000
    assert FitConfig.paper(2400).validate_every == 100
    assert FitConfig.paper(2400).episode == EpisodeConfig(
        side=336, shots=1, queries=1, anomalous=0.5, kinds=("perlin",)
    )


def test_the_script_for_the_shipped_weights_installs_them_when_asked_to(train, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "data_scripts")
    script = importlib.import_module("train_embedded_detector")
    assert script.WEIGHTS.parts[-3:] == shipped_detector().parts[-3:]
    monkeypatch.setattr(script, "WEIGHTS", tmp_path / "weights/embedded.safetensors")
    monkeypatch.setitem(encoders.ENCODERS, "embedded", encoders.ENCODERS["cells"])
    command = ["--out", str(tmp_path / "out"), "--steps", "1", "--workers", "0"]
    assert script.main(command) == 0
    assert not script.WEIGHTS.parent.exists()
    assert script.main([*command, "--install"]) == 0
    assert script.WEIGHTS.read_bytes() == (tmp_path / "out/detector.safetensors").read_bytes()
    assert script.main([*command[:3], "0"]) == 2
    assert "--steps 0 trains nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--steps", "0", "--steps 0 trains nothing"),
        ("--layers", "one,two", "--layers 'one,two' is not a list of numbers"),
        ("--layers", "", "is not a list of numbers"),
        ("--layers", "1,3", "3 was asked for"),
        ("--preset", "best", "no preset 'best'"),
        ("--projection", "argmax", "no projection 'argmax'"),
        ("--encoder", "clip", "no --encoder 'clip'"),
        ("--device", "cuda:99", "cuda:99"),
        ("--size", "0", "--size 0 leaves nothing to see"),
        ("--size", "-5", "--size -5"),
        ("--workers", "-1", "--workers is -1"),
        ("--seed", "-1", "--seed is -1"),
        ("--images", "/nowhere/photos", "no folder /nowhere/photos"),
        ("--textures", "/nowhere/textures", "/nowhere/textures does not exist"),
    ],
)
def test_unusable_options_end_with_status_2(refused, option, value, said):
    assert said in refused(option, value)


def test_folders_without_images_end_with_status_2(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    assert f"no images in {tmp_path / 'empty'}" in refused("--images", tmp_path / "empty")
    assert "holds no readable image" in refused("--textures", tmp_path / "empty")


def test_a_file_in_place_of_the_folder_is_refused(train, tmp_path, photos):
    (tmp_path / "taken").write_text("notes")
    code, _, err = train("--out", tmp_path / "taken", "--images", photos, "--textures", photos, "--steps", "1")
    assert code == 2
    assert "taken" in err
    assert (tmp_path / "taken").read_text() == "notes"
