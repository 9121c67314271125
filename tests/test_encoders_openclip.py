"""The open_clip encoder with a tiny random model that is really saved to and loaded from disk."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import encoders
from encoders.crops import CropOptions, region_crops
from encoders.errors import InputError

CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    (folder / "tiny-clip.json").write_text(json.dumps(CONFIG))
    torch.manual_seed(0)
    open_clip.add_model_config(folder / "tiny-clip.json")
    model = open_clip.create_model("tiny-clip")
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, folder / "weights.safetensors")
    torch.save({"state_dict": state, "epoch": 3}, folder / "weights.pt")
    local = folder / "local"
    local.mkdir()
    (local / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {}}))
    save_file(state, local / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def encoder(folder):
    return encoders.create(f"openclip:{folder}/tiny-clip.json:{folder}/weights.safetensors")


@pytest.fixture(scope="module")
def reference(folder):
    """(model, preprocess) straight from the library."""
    model, _, preprocess = open_clip.create_model_and_transforms("tiny-clip", pretrained=str(folder / "weights.pt"))
    return model.eval(), preprocess


def random_images(*sizes: tuple[int, int]) -> list[np.ndarray]:
    generator = np.random.default_rng(1)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def unit(vectors: torch.Tensor) -> np.ndarray:
    return (vectors / vectors.norm(dim=-1, keepdim=True)).detach().numpy()


def test_images_and_phrases_are_encoded_as_by_the_library(encoder, reference):
    model, preprocess = reference
    images = random_images((32, 32), (50, 80), (90, 40))
    batch = torch.stack([preprocess(Image.fromarray(image)) for image in images])
    np.testing.assert_allclose(encoder.encode_image(images), unit(model.encode_image(batch)), atol=1e-5)
    phrases = ["coffee cup", "a red fox"]
    expected = unit(model.encode_text(open_clip.get_tokenizer("tiny-clip")(phrases)))
    np.testing.assert_allclose(encoder.encode_text(phrases), expected, atol=1e-5)
    assert encoder.dim == 24
    assert isinstance(encoder, encoders.Encoder)


@pytest.mark.parametrize("options", ["{0}/tiny-clip.json:{0}/weights.pt", "{0}/local", "local-dir:{0}/local"])
def test_every_way_to_name_local_weights_gives_the_same_model(folder, encoder, options):
    other = encoders.create("openclip:" + options.format(folder))
    images = random_images((32, 32))
    np.testing.assert_allclose(other.encode_image(images), encoder.encode_image(images), atol=1e-6)
    np.testing.assert_allclose(other.encode_text(["fox"]), encoder.encode_text(["fox"]), atol=1e-6)


def test_regions_are_cropped_on_black(encoder, reference):
    model, preprocess = reference
    (image,) = random_images((60, 70))
    ids = np.full((3, 60, 70), -1)
    ids[0, 5:25, 10:60] = 0
    ids[2, 5:55, 10:60] = 1
    crops = [picture for _, picture in region_crops(image, ids, CropOptions(size=32))]
    batch = torch.stack([preprocess(Image.fromarray(crop)) for crop in crops])
    expected = unit(model.encode_image(batch))
    np.testing.assert_allclose(encoder.encode_regions(image, ids), expected, atol=1e-5)


def block_outputs(model, images: np.ndarray) -> list[torch.Tensor]:
    """Token sequences [B, 1 + P, C] after each block, collected by forward hooks."""
    outputs: list[torch.Tensor] = []
    blocks = model.visual.transformer.resblocks
    hooks = [block.register_forward_hook(lambda *args: outputs.append(args[2])) for block in blocks]
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN)
    std = torch.tensor(open_clip.OPENAI_DATASET_STD)
    batch = ((torch.tensor(images) / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        model.visual(batch)
    for hook in hooks:
        hook.remove()
    return outputs


def test_patch_tokens_are_block_outputs_without_the_class_token(encoder, reference):
    images = np.stack(random_images((32, 32), (32, 32)))
    outputs = block_outputs(reference[0], images)
    last, first = encoder.patch_tokens(images, [3, 1])
    torch.testing.assert_close(last, outputs[2][:, 1:], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(first, outputs[0][:, 1:], atol=1e-5, rtol=1e-4)
    assert encoder.patch_grid(32, 32) == (4, 4)
    assert not last.requires_grad
    assert not last.is_inference()  # or nothing that trains could take it as input
    with pytest.raises(InputError, match="layers 1 to 3; 4"):
        encoder.patch_tokens(images, [4])


def test_dense_vectors_are_projected_tokens(encoder, reference):
    (image,) = random_images((32, 32))
    model = reference[0]
    tokens = block_outputs(model, image[None])[-1][0, 1:]
    expected = unit(model.visual.ln_post(tokens) @ model.visual.proj).reshape(4, 4, 24)
    np.testing.assert_allclose(encoder.encode_dense(image), expected, atol=1e-5)
    assert encoder.encode_dense(random_images((50, 70))[0]).shape == (4, 4, 24)


def test_phrases_that_cannot_be_encoded_are_refused(encoder):
    with pytest.raises(InputError, match="empty"):
        encoder.encode_text(["  "])
    # 15 words, start and end of text.
    with pytest.raises(InputError, match="has 17 tokens and the encoder takes 16"):
        encoder.encode_text(["fox " * 15])
    assert encoder.encode_text(["fox " * 14]).shape == (1, 24)
    assert encoder.encode_text([]).shape == (0, 24)


def test_files_that_are_no_checkpoints_are_refused(folder, tmp_path):
    config = folder / "tiny-clip.json"
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes((folder / "weights.safetensors").read_bytes()[:5000])
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, other)
    for path in (damaged, other):
        with pytest.raises(InputError, match="cannot be loaded"):
            encoders.create(f"openclip:{config}:{path}")


class _Payload:
    """Unpickling it makes a folder, which no checkpoint may do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_checkpoints_cannot_run_code(folder, tmp_path):
    path = tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps({"state_dict": _Payload(tmp_path / "made")}, protocol=2))
    with pytest.raises(InputError, match="cannot be loaded"):
        encoders.create(f"openclip:{folder}/tiny-clip.json:{path}")
    assert not (tmp_path / "made").exists()


def test_names_that_mean_nothing_are_explained(folder, tmp_path):
    with pytest.raises(InputError, match="knows no model 'ViT-Z-99'"):
        encoders.create("openclip:ViT-Z-99")
    with pytest.raises(InputError, match=r"neither a file nor a pretrained tag of ViT-B-16; .*laion2b"):
        encoders.create("openclip:ViT-B-16:/no/such/file.pt")
    with pytest.raises(InputError, match="no open_clip config"):
        encoders.create(f"openclip:{tmp_path}/none.json:{folder}/weights.pt")
    with pytest.raises(InputError, match="Name a checkpoint after the config"):
        encoders.create(f"openclip:{folder}/tiny-clip.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="cannot be loaded"):
        encoders.create(f"openclip:{tmp_path}/empty")


def test_a_failed_download_says_how_to_go_on(monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setattr("open_clip.factory.download_pretrained", fail)
    with pytest.raises(InputError, match=r"could not be downloaded \(.*unreachable.*openclip:ViT-B-16:/path/to"):
        encoders.create("openclip:")
