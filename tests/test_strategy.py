"""The strategy a training is asked for: where it is impossible, and in runs that were trained before there was one."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import driver
import pytest

from encoders.errors import InputError
from splat import pipeline
from splat.pipeline import train
from splat.train_config import TrainConfig


def test_mcmc_on_a_cpu_is_refused_before_the_scene_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "automatic_scale", pytest.fail)
    with pytest.raises(InputError, match="mcmc strategy needs a CUDA GPU"):
        train(tmp_path / "run", TrainConfig(tmp_path, strategy="mcmc", device="cpu"))
    with pytest.raises(InputError, match="--strategy is 'adc'; give one of default, mcmc"):
        TrainConfig(tmp_path, strategy="adc").check()  # type: ignore[arg-type]


def test_a_run_keeps_its_strategy(
    tiny_scene: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    driver.install(monkeypatch.setattr)
    monkeypatch.setattr(pipeline, "splat_device", lambda _name: "cuda")
    record = json.loads((run / "run.json").read_text())
    assert record["stages"]["rgb"]["inputs"].pop("strategy") == "default"
    record["config"].pop("strategy")
    (run / "run.json").write_text(json.dumps(record))
    config = TrainConfig(tiny_scene, preset="fast", encoder="colour", stages=("rgb",))
    with pytest.raises(InputError, match="was trained with --strategy default and you ask for --strategy mcmc"):
        train(run, replace(config, strategy="mcmc"))
    train(run, config, scorer=lambda *_: {})
