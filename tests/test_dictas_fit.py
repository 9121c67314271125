"""Training a detector: what it keeps, when it stops, and how it goes on."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import fitting
import numpy as np
import open_clip
import pytest
import torch
from fitting import FIT, MODEL, Cells, backbone, striped, weights
from inspection import save, texture
from safetensors.torch import load_file, save_file
from test_encoders_openclip import CONFIG

import encoders
from dictas.checkpoint import load_detector, make_backbone
from dictas.episodes import HELD_OUT, EpisodeConfig, material
from dictas.fit import FitConfig, Trainer, _validate, fit, learning_rate
from dictas.fit_state import TrainingState
from dictas.model import DictAS
from dictas.presets import fit_config, model_config
from encoders.errors import InputError
from encoders.state_prompts import state_vectors


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_training_finds_defects_better_than_the_start(tmp_path, monkeypatch):
    fitting.install(monkeypatch.setitem)
    config = dataclasses.replace(FIT, steps=100, learning_rate=1e-2, validate_every=25, validation=12)
    told = []
    progress = fitting.run(tmp_path, config, report=lambda *line: told.append(line))
    assert [step for step, _ in progress.scores] == [25, 50, 75, 100]
    assert progress.best == max(score for _, score in progress.scores)
    assert [line[:2] for line in told] == [(step, 100) for step in range(1, 101)]

    loaded_backbone, trained = load_detector(tmp_path / "detector.safetensors")
    held_out = [striped(config)[HELD_OUT + number] for number in range(12)]
    torch.manual_seed(config.seed)
    start = Trainer(DictAS(MODEL), backbone(), config, None).score(held_out)
    kept = Trainer(trained, loaded_backbone, config, None).score(held_out)
    assert kept == pytest.approx(progress.best, abs=0.02)  # half precision
    assert kept > start + 0.15


def test_the_best_weights_are_kept_not_the_last(tmp_path):
    model, state = _state(tmp_path)
    kept = {}
    for step, score in enumerate([0.2, 0.5, 0.3, 0.5], 1):
        _nudge(state, model)
        _validate(state, lambda score=score: score, model, FIT, tmp_path)
        kept[step] = load_file(tmp_path / "detector.safetensors")
    assert not same(kept[1], kept[2])
    assert same(kept[2], kept[3])
    assert same(kept[2], kept[4])
    assert (state.progress.best, state.progress.scores) == (0.5, [(1, 0.2), (2, 0.5), (3, 0.3), (4, 0.5)])


def test_what_is_kept_is_the_running_mean(tmp_path):
    model, state = _state(tmp_path)
    means = {name: value.clone() for name, value in model.state_dict().items()}
    for step in range(1, 6):
        _nudge(state, model)
        keep = min(FIT.ema, step / (step + 20))
        means = {name: keep * means[name] + (1 - keep) * value for name, value in model.state_dict().items()}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    _validate(state, lambda: 0.5, model, FIT, tmp_path)
    found = load_file(tmp_path / "detector.safetensors")
    for name, value in means.items():
        torch.testing.assert_close(found[name].float(), value, rtol=1e-3, atol=1e-6)
    assert same(before, model.state_dict())


def test_the_learning_rate_warms_up_and_falls_along_a_cosine():
    config = dataclasses.replace(FIT, steps=200, learning_rate=0.5)
    rates = [learning_rate(step, config) for step in range(200)]
    np.testing.assert_allclose(rates[:10], 0.05 * np.arange(1, 11))
    np.testing.assert_allclose(rates[10:], 0.25 * (1 + np.cos(np.pi * np.arange(190) / 190)))
    assert learning_rate(0, dataclasses.replace(config, steps=1)) == 0.5
    constant = dataclasses.replace(config, schedule="constant")
    assert {learning_rate(step, constant) for step in range(200)} == {0.5}


@pytest.mark.parametrize("clip", [0.0, 1e-3])
def test_gradients_are_clipped_if_asked_to(tmp_path, monkeypatch, clip):
    lengths = []
    real = torch.optim.AdamW.step

    def step(self, *arguments):
        parts = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        lengths.append(float(torch.cat([part.flatten() for part in parts]).norm()))
        return real(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    fitting.run(tmp_path, dataclasses.replace(FIT, steps=3, clip=clip))
    assert all((length <= 1.001e-3) == (clip > 0) for length in lengths)
    assert len(lengths) == 3


def _state(out, config=FIT, model=None):
    torch.manual_seed(0)
    model = model or DictAS(MODEL)
    trainer = Trainer(model, backbone(), config, fitting.TEXTS)
    state = TrainingState(out, {}, trainer.trained, config.ema)
    state.begin("cpu")
    state.optimizer(config.learning_rate, config.betas, config.weight_decay)
    return model, state


def _nudge(state, model):
    """A step in the same direction for all that is trained."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * parameter.requires_grad)
    state.stepped()


def test_values_freeze_at_the_first_drop_and_stay_so(tmp_path):
    model, state = _state(tmp_path)
    values = model.generators[0].value_parameters()
    frozen = []
    for score in (0.2, 0.4, 0.4, 0.3, 0.9):
        _nudge(state, model)
        _validate(state, lambda score=score: score, model, FIT, tmp_path)
        frozen.append([not value.requires_grad for value in values])
    assert frozen == [[number >= 3] * len(values) for number in range(5)]
    others = {id(parameter) for parameter in model.parameters()} - {id(value) for value in values}
    assert all(parameter.requires_grad for parameter in model.parameters() if id(parameter) in others)


def test_values_never_freeze_if_not_asked_to(tmp_path):
    config = dataclasses.replace(FIT, freeze_values=False)
    model, state = _state(tmp_path, config)
    for score in (0.4, 0.3):
        _nudge(state, model)
        _validate(state, lambda score=score: score, model, config, tmp_path)
    assert not state.progress.values_frozen


def scripted(monkeypatch, scores):
    """Validations find these scores, in training as it is otherwise."""
    waiting = iter(scores)
    monkeypatch.setattr(Trainer, "score", lambda *_: next(waiting))


def values_of(out):
    return {name: value for name, value in weights(out).items() if name.startswith("weights.") and "to_value" in name}


def test_frozen_values_are_bit_identical_while_the_rest_moves_on(tmp_path, monkeypatch):
    scripted(monkeypatch, [0.5, 0.4, 0.6])
    seen = {}

    def report(step, *_):
        if step % FIT.validate_every == 0:
            seen[step] = weights(tmp_path)

    assert fitting.run(tmp_path, report=report).values_frozen
    for name, value in seen[8].items():
        if name.startswith("weights.model.generators"):
            moves = "to_value" not in name and "standardise" not in name
            assert torch.equal(value, seen[12][name]) != moves, name
    assert any(not torch.equal(seen[4][name], seen[8][name]) for name in values_of(tmp_path))


class Stop(Exception):
    pass


@pytest.mark.parametrize("stop", [3, 4, 5, 9, 11])
def test_a_stopped_training_ends_with_the_weights_of_an_unbroken_one(tmp_path, monkeypatch, stop):
    def report(step, *_):
        if step == stop:
            raise Stop

    # The second score is a drop, so values freeze at step 8: before some of the stops, after others.
    scores = [0.5, 0.4, 0.6]
    scripted(monkeypatch, scores)
    whole = fitting.run(tmp_path / "whole")
    scripted(monkeypatch, scores)
    with pytest.raises(Stop):
        fitting.run(tmp_path / "stopped", report=report)
    scripted(monkeypatch, scores[stop // FIT.validate_every :])
    resumed = fitting.run(tmp_path / "stopped")
    assert resumed == whole
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "stopped"))
    kept = [load_file(tmp_path / name / "detector.safetensors") for name in ("whole", "stopped")]
    assert same(*kept)


def test_a_killed_training_ends_with_the_weights_of_an_unbroken_one(tmp_path):
    program = [sys.executable, fitting.__file__]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    killed = subprocess.run([*program, tmp_path / "out", "--kill", "7"], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "out" / "training.safetensors").exists()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        resumed, whole = fitting.run(tmp_path / "out"), fitting.run(tmp_path / "whole")
    finally:
        torch.set_num_threads(threads)
    assert resumed == whole
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "out"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_training_goes_on_on_a_gpu(tmp_path, monkeypatch):
    def report(step, *_):
        if step == 5:
            raise Stop

    real = Cells.patch_tokens
    monkeypatch.setattr(Cells, "patch_tokens", lambda *arguments: [tokens.cuda() for tokens in real(*arguments)])
    with pytest.raises(Stop):
        fitting.run(tmp_path, report=report, device="cuda")
    assert fitting.run(tmp_path, device="cuda").step == FIT.steps


def test_a_finished_training_is_left_as_it_is(tmp_path):
    first = fitting.run(tmp_path)
    before = (tmp_path / "training.safetensors").read_bytes()
    assert fitting.run(tmp_path) == first
    assert (tmp_path / "training.safetensors").read_bytes() == before


def test_a_folder_with_another_training_is_refused(tmp_path):
    fitting.run(tmp_path)
    before = weights(tmp_path)
    others = [
        {"config": dataclasses.replace(FIT, seed=1)},
        {"config": dataclasses.replace(FIT, episode=dataclasses.replace(FIT.episode, shots=1))},
        {"model": dataclasses.replace(MODEL, width=8)},
        {"model": dataclasses.replace(MODEL, projection="softmax")},
    ]
    for other in others:
        with pytest.raises(InputError, match="holds a training with other options"):
            fitting.run(tmp_path, **other)
    assert same(before, weights(tmp_path))


@pytest.mark.parametrize("changed", ["images", "textures"])
def test_a_folder_with_a_training_on_other_photos_is_refused(tmp_path, changed):
    for name in ("one", "two"):
        save(tmp_path / name / "photo.png", texture(1))
    folders = {"images": tmp_path / "one", "textures": tmp_path / "one"}
    config = dataclasses.replace(FIT, steps=1, validation=4)

    def train(images, textures):
        return fit(backbone(), MODEL, material(images, textures), config, tmp_path / "out", workers=0)

    assert train(**folders).step == train(**folders).step == 1
    with pytest.raises(InputError, match="holds a training with other options"):
        train(**folders | {changed: tmp_path / "two"})


@pytest.mark.parametrize("length", [0, 4, 5000])
def test_a_damaged_training_is_refused(tmp_path, length):
    fitting.run(tmp_path, dataclasses.replace(FIT, steps=1))
    path = tmp_path / "training.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match=r"is damaged .* remove it to start again"):
        fitting.run(tmp_path, dataclasses.replace(FIT, steps=1))


def test_training_that_diverges_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "loss", lambda *_: torch.tensor(math.nan, requires_grad=True))
    with pytest.raises(InputError, match="diverged at step 1; start it anew with another --seed and --out"):
        fitting.run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """The tiny random CLIP of the encoder's own tests."""
    folder = tmp_path_factory.mktemp("vit")
    (folder / "tiny-clip.json").write_text(json.dumps(CONFIG))
    torch.manual_seed(0)
    open_clip.add_model_config(folder / "tiny-clip.json")
    state = open_clip.create_model("tiny-clip").state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "weights.safetensors")
    return encoders.create(f"openclip:{folder}/tiny-clip.json:{folder}/weights.safetensors")


@pytest.fixture
def photos(tmp_path):
    for number in range(5):
        save(tmp_path / "photos" / f"{number}.png", texture(number, 48, 64))
    return tmp_path / "photos"


@pytest.mark.parametrize("text", [True, False])
def test_the_paper_trains_on_a_vit(tmp_path, vit, photos, text):
    model = model_config(vit, "paper", layers=(1, 3))
    assert (model.joint, model.neighbourhoods, model.generators, model.block) == (False, (1, 3), "paper", "attention")
    assert (model.channels, model.size, model.keep_aspect, model.max_entries) == ((32, 32), 32, False, 0)
    config = fit_config(vit, "paper", photos)
    assert (config.steps, config.batch, config.segmentation) == (6, 24, 0.0)  # 30 epochs of 5 photos
    assert (config.schedule, config.clip, config.weight_decay) == ("constant", 0.0, 0.0)
    assert config.episode == EpisodeConfig(side=32, shots=1, queries=1, anomalous=0.5, kinds=("perlin",))
    config = dataclasses.replace(config, steps=1, batch=3, validation=12)
    torch.manual_seed(config.seed)
    start = DictAS(model).state_dict()
    texts = state_vectors(vit) if text else None
    out = tmp_path / "out"
    assert fit(make_backbone(vit, model), model, material(photos, None), config, out, texts, workers=0).step == 1
    moved = weights(out)
    assert ("weights.alignment.fuse.weight" in moved) == text
    for name, value in start.items():
        if name.endswith("mixed.weight"):  # of each of g_Q, g_K and g_V of each layer
            assert not torch.equal(moved[f"weights.model.{name}"], value), name
        if name.endswith(("standardise.mean", "standardise.scale")):  # raw tokens are compared
            assert torch.equal(moved[f"weights.model.{name}"], value), name
    loaded, detector = load_detector(out / "detector.safetensors")
    support = loaded.batch([loaded.prepare(texture(1))])
    detector.remember([support])
    assert len(detector.dictionary_state()) == 8
    maps = detector.maps(support)
    assert maps.shape == (1, 4, 4)
    assert torch.isfinite(maps).all()


def test_presets_fit_the_encoder(vit):
    assert model_config(vit, "default").size == 32
    with pytest.raises(InputError, match="leave --size out"):
        model_config(vit, "default", size=64)
    cells = model_config(Cells(), "default", layers=(2, 1), size=64)
    assert (cells.layers, cells.channels, cells.size, cells.keep_aspect) == ((2, 1), (3, 6), 64, True)
    assert cells.joint
    assert fit_config(vit, "default", None) == FitConfig(EpisodeConfig(side=32))
    with pytest.raises(InputError, match="--images"):
        fit_config(vit, "paper", None)
    with pytest.raises(InputError, match="layers 1 to 2; 3 was asked for"):
        model_config(Cells(), "default", layers=(3,))
