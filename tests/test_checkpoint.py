"""Detectors as files: what comes back, and one sentence for what is no such file."""

import dataclasses
import json
import pickle

import fitting
import numpy as np
import open_clip
import pytest
import torch
from fitting import MODEL, backbone
from safetensors.torch import load_file, save_file
from test_encoders_openclip import CONFIG

import encoders
from dictas.checkpoint import FORMAT, load_detector, save_detector, token_channels
from dictas.model import DictAS, ModelConfig
from encoders.errors import InputError


@pytest.fixture(autouse=True)
def cells(monkeypatch):
    fitting.install(monkeypatch.setitem)


@pytest.fixture
def model():
    torch.manual_seed(3)
    model = DictAS(MODEL)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.generators[0].standardise.fit(torch.randn(50, 9) * 0.2 + 0.5)
    return model


@pytest.fixture
def path(model, tmp_path):
    save_detector(tmp_path / "detector.safetensors", model)
    return tmp_path / "detector.safetensors"


def images(seed):
    rng = np.random.default_rng(seed)
    return backbone().batch([rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)])


def refused(*arguments, **options) -> str:
    with pytest.raises(InputError) as error:
        load_detector(*arguments, **options)
    sentence = str(error.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def rewritten(path, tensors=None, **metadata):
    """The file with other tensors or metadata."""
    config = json.dumps(dataclasses.asdict(MODEL))
    save_file(load_file(path) if tensors is None else tensors, path, {"format": FORMAT, "config": config, **metadata})
    return path


def test_a_detector_comes_back_in_half_precision(path, model):
    loaded_backbone, loaded = load_detector(path)
    assert loaded.config == MODEL
    assert (loaded_backbone.layers, loaded_backbone.size, loaded_backbone.keep_aspect) == ((1, 2), 32, True)
    assert not loaded.training
    for name, value in model.state_dict().items():
        found = loaded.state_dict()[name]
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, value, rtol=2**-11, atol=1e-7)
        assert torch.equal(found, value.half().float())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    for detector in (model, loaded):
        detector.remember([images(0)])
    torch.testing.assert_close(loaded.maps(images(1)), model.maps(images(1)), atol=5e-3, rtol=0)
    assert path.stat().st_size < 2 * sum(value.numel() for value in model.state_dict().values()) + 8192


def test_the_dictionary_is_not_saved(path, model):
    model.remember([images(0)])
    save_detector(path, model)
    assert load_detector(path)[1].dictionary_state() == {}


def test_size_and_projection_can_be_chosen(path):
    loaded_backbone, loaded = load_detector(path, size=96, projection="softmax")
    assert (loaded_backbone.size, loaded.config.size, loaded.config.projection) == (96, 96, "softmax")


def test_unknown_projections_are_named_wherever_they_come_from(path):
    assert "no projection 'hardmax'; known are sparsemax, softmax" in refused(path, projection="hardmax")
    rewritten(path, config=json.dumps(dataclasses.asdict(dataclasses.replace(MODEL, projection="argmax"))))
    assert "no projection 'argmax'" in refused(path)


@pytest.mark.parametrize("size", [0, -4, 31])
def test_sizes_that_leave_nothing_to_see_are_refused(path, size):
    assert f"--size {size}" in refused(path, size=size)


def test_an_encoder_with_other_tokens_is_refused_naming_both(path, monkeypatch):
    class Wide(fitting.Cells):
        def patch_tokens(self, images, layers):
            return [tokens.repeat(1, 1, 2) for tokens in super().patch_tokens(images, layers)]

    class Shallow(fitting.Cells):
        def patch_tokens(self, images, layers):
            raise InputError("wide has layers 1 to 1; 2 was asked for.")

    for encoder in (Wide, Shallow):
        monkeypatch.setitem(fitting.encoders.ENCODERS, "wide", lambda *_, kind=encoder: kind())
        sentence = refused(path, encoder="wide:large")
        assert str(path) in sentence
        assert "trained on cells" in sentence
        assert "does not fit wide:large" in sentence


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Folder of models that differ in what channels do not tell, with weights: names known to the library."""
    folder = tmp_path_factory.mktemp("clips")
    for name, changed in {
        "clip-a": {},
        "clip-a-quickgelu": {},
        "clip-b": {},
        "clip-coarse": {"patch_size": 16},
        "clip-deep": {"layers": 4},
        "clip-large": {"image_size": 48},
    }.items():
        config = CONFIG | {"vision_cfg": CONFIG["vision_cfg"] | changed, "quick_gelu": name.endswith("quickgelu")}
        (folder / f"{name}.json").write_text(json.dumps(config))
        open_clip.add_model_config(folder / f"{name}.json")
        torch.manual_seed(0)
        state = open_clip.create_model(name).state_dict()
        save_file({key: value.contiguous() for key, value in state.items()}, folder / f"{name}.safetensors")
    (folder / "mine.json").write_text(json.dumps(CONFIG))
    return folder


@pytest.fixture
def on_clip(clips, tmp_path):
    """Writes a detector that was trained on the encoder of this name, of 32 pixels and 3 layers."""

    def write(encoder):
        config = ModelConfig(encoder, (1, 3), (32, 32), 32, keep_aspect=False, width=16, key_dim=8, value_dim=8)
        save_detector(tmp_path / "clip.safetensors", DictAS(config))
        return tmp_path / "clip.safetensors"

    return write


@pytest.mark.parametrize("known", ["clip-a:openai", "{folder}/clip-a.json:{folder}/clip-a.safetensors"])
@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("clip-coarse", "it has 16 pixels a patch, not 8"),
        ("clip-deep", "it has 4 layers, not 3"),
        ("clip-large", "it has 48 pixels a side, not 32"),
    ],
)
def test_another_architecture_with_the_same_channels_is_refused(on_clip, clips, known, other, said):
    known = f"openclip:{known.format(folder=clips)}"
    wanted = f"openclip:{clips}/{other}.json:{clips}/{other}.safetensors"
    sentence = refused(on_clip(known), encoder=wanted)
    assert f"trained on {known} and does not fit {wanted}: {said};" in sentence


@pytest.mark.parametrize("other", ["clip-b", "clip-coarse"])
def test_another_model_is_refused_by_name(on_clip, clips, other):
    sentence = refused(on_clip("openclip:clip-a:openai"), encoder=f"openclip:{other}:{clips}/{other}.safetensors")
    assert f"clip-a and {other} are different models" in sentence


def test_other_weights_by_tag_are_refused(clips, monkeypatch):
    encoder = encoders.create(f"openclip:clip-a:{clips}/clip-a.safetensors")
    monkeypatch.setattr(open_clip, "list_pretrained_tags_by_model", lambda _model: ["openai", "laion"])
    encoder.name = "openclip:clip-a:laion"
    assert encoders.difference("openclip:clip-a:openai", encoder) == "openai and laion are different weights"
    assert encoders.difference("openclip:clip-a:laion", encoder) == ""
    assert encoders.difference("embedded", encoder) == "they are of different kinds"


@pytest.mark.parametrize("model", ["clip-a", "clip-a-quickgelu", "{folder}/clip-a.json", "{folder}/mine.json"])
def test_the_same_model_under_a_local_name_fits(on_clip, clips, model):
    path = on_clip("openclip:clip-a:openai")
    name = f"openclip:{model.format(folder=clips)}:{clips}/clip-a.safetensors"
    assert load_detector(path, encoder=name)[0].encoder.name == name


def test_a_size_that_the_encoder_cannot_have_is_refused(on_clip, clips):
    path = on_clip(f"openclip:clip-a:{clips}/clip-a.safetensors")
    assert "is shown images of 32 x 32 pixels; leave --size out" in refused(path, size=64)
    assert load_detector(path, size=32)[0].size == 32


def test_channels_are_those_of_the_layers():
    assert token_channels(backbone().encoder, backbone().layers) == (6, 3)


def test_missing_files_and_folders_are_refused(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        assert f"no detector at {path}" in refused(path)


def test_other_files_are_refused(path, tmp_path):
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.ones(3)}, foreign)
    assert f"{foreign} is not a detector" in refused(foreign)
    foreign.write_bytes(b"")
    assert f"{foreign} is not a safetensors file" in refused(foreign)
    whole = path.read_bytes()
    for length in (5, 200, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert f"{path} is not a safetensors file" in refused(path)


class Trap:
    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_pickles_are_refused_unopened(tmp_path, how):
    trap = Trap()
    trap.path = str(tmp_path / "sprung")
    path = tmp_path / "detector.safetensors"
    if how == "pickle":
        path.write_bytes(pickle.dumps(trap))
    else:
        torch.save({"weight": torch.ones(3), "trap": trap}, path)
    assert "is not a safetensors file" in refused(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "config", ["", "{}", "[1]", '{"encoder": "cells", "layers": "all", "channels": [1], "size": 3}']
)
def test_a_damaged_configuration_is_refused(path, config):
    assert f"The configuration in {path} is damaged" in refused(rewritten(path, config=config))


def test_missing_and_misshapen_tensors_are_refused(path):
    tensors = load_file(path)
    name = "generators.0.stem.linear.weight"
    for changed in (
        {key: value for key, value in tensors.items() if key != name},
        tensors | {name: torch.ones(2, 2)},
        tensors | {"more": torch.ones(1)},
    ):
        assert "incomplete or of another version" in refused(rewritten(path, changed))


def test_an_unwritable_folder_leaves_no_half_file(path, model, monkeypatch):
    before = path.read_bytes()

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dictas.checkpoint.save_file", fails)
    with pytest.raises(OSError, match="No space left"):
        save_detector(path, model)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]
