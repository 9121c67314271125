"""A trained detector as one file: safetensors with its configuration in the metadata."""

import dataclasses
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

import encoders
from dictas.detector import MULTIPLE, Backbone
from dictas.lookup import PROJECTIONS
from dictas.model import DictAS, ModelConfig
from encoders.errors import InputError
from encoders.files import atomic_path

FORMAT = "dictsplat detector 1"
SHIPPED = "weights/embedded.safetensors"
"""Trained by data_scripts/train_embedded_detector.py on images that programs drew; see docs/dictas.md."""


def save_detector(path: Path, model: DictAS) -> None:
    """Write the generators (not the dictionary) in half precision, atomically."""
    tensors = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    metadata = {"format": FORMAT, "config": json.dumps(dataclasses.asdict(model.config))}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata)


def shipped_detector() -> Path:
    """The checkpoint for the embedded encoder that comes with the program."""
    return Path(str(files("dictas").joinpath(SHIPPED)))


def load_detector(
    checkpoint: Path | None = None,
    device: str = "cpu",
    encoder: str | None = None,
    size: int | None = None,
    projection: str | None = None,
) -> tuple[Backbone, DictAS]:
    """Read a checkpoint and load the encoder that it was trained with.

    Args:
        checkpoint: file of `save_detector` or ``anomaly train``; None for `shipped_detector`.
        device: where both will run.
        encoder: another name of the same encoder, such as one with a local path to its weights.
        size: another working size than the checkpoint's.
        projection: another of `dictas.lookup.PROJECTIONS` than the checkpoint's.

    Raises:
        InputError: no such file, not a detector, or one for another encoder or size.
    """
    path = shipped_detector() if checkpoint is None else Path(checkpoint)
    config, tensors = _read(path)
    wanted = encoder or config.encoder
    foreign = f"The checkpoint {path} was trained on {config.encoder} and does not fit {wanted}"
    loaded = encoders.create(wanted, device)
    difference = "" if wanted == config.encoder else encoders.difference(config.encoder, loaded)
    if difference:
        raise InputError(f"{foreign}: {difference}; choose that encoder or train one.")
    if loaded.patch_side not in (None, config.size):
        raise InputError(
            f"{foreign}: it is shown {loaded.patch_side} x {loaded.patch_side} pixels, not {config.size} x "
            f"{config.size}; choose that encoder or train one."
        )
    if size is not None:
        check_size(loaded, size)
    config = dataclasses.replace(
        config, projection=projection or config.projection, size=config.size if size is None else size
    )
    if config.projection not in PROJECTIONS:
        raise InputError(f"There is no projection {config.projection!r}; known are {', '.join(PROJECTIONS)}.")
    backbone = make_backbone(loaded, config)
    try:
        channels = token_channels(loaded, config.layers)
    except InputError as error:
        raise InputError(f"{foreign} ({str(error).rstrip('.')}); choose that encoder or train one.") from error
    if channels != config.channels:
        raise InputError(
            f"{foreign}: tokens of layers {config.layers} have {channels} channels, not {config.channels}; choose "
            "that encoder or train one."
        )
    try:
        model = DictAS(config)
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except (RuntimeError, ValueError) as error:
        raise InputError(f"The checkpoint {path} is incomplete or of another version; train it again.") from error
    return backbone, model.to(device).eval().requires_grad_(False)


def make_backbone(encoder: encoders.Encoder, config: ModelConfig) -> Backbone:
    """The encoder at the size and layers of ``config``.

    Raises:
        InputError: images would be too small.
    """
    if config.size < MULTIPLE:
        raise InputError(f"--size {config.size} leaves nothing to see; give at least {MULTIPLE}.")
    return Backbone(encoder, config.layers, config.size, config.keep_aspect)


def check_size(encoder: encoders.Encoder, size: int) -> None:
    """Refuse another working size than the encoder's only one.

    Raises:
        InputError: ``encoder`` is shown images of another size, whatever is asked for.
    """
    side = encoder.patch_side
    if side not in (None, size):
        raise InputError(f"{encoder.name} is shown images of {side} x {side} pixels; leave --size out.")


def token_channels(encoder: encoders.Encoder, layers: tuple[int, ...]) -> tuple[int, ...]:
    """Channels of the tokens of each layer, seen on a small black image."""
    blank = np.zeros((1, 64, 64, 3), np.uint8)
    return tuple(tokens.shape[-1] for tokens in encoder.patch_tokens(blank, layers))


def _read(path: Path) -> tuple[ModelConfig, dict[str, torch.Tensor]]:
    if not path.is_file():
        raise InputError(f"There is no detector at {path}; give a .safetensors file made by anomaly train.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a safetensors file ({error}); give one made by anomaly train.") from error
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path} is not a detector of this program; give a file made by anomaly train.")
    try:
        return TypeAdapter(ModelConfig).validate_json(metadata.get("config", "")), tensors
    except ValidationError as error:
        raise InputError(f"The configuration in {path} is damaged; train the detector again.") from error
