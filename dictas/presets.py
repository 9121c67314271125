"""Detectors that are worth training, by name."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from dictas.checkpoint import check_size, token_channels
from dictas.episodes import EpisodeConfig, split_photos
from dictas.fit import FitConfig
from dictas.model import ModelConfig
from encoders.base import Encoder
from encoders.errors import InputError

Preset = Literal["default", "paper"]
EMBEDDED_LAYERS = (3, 5, 11, 15)
"""Blocks of EfficientNet-Lite2 at strides 4, 8, 16 and 16: what they see goes from scratches to parts."""
SIDE = 384
"""Working size where the encoder leaves it open."""
TRAINING_SIDE = 256
"""Of training images then; generators see 5 x 5 tokens, whatever the size around them."""


def model_config(
    encoder: Encoder, preset: Preset, layers: tuple[int, ...] | None = None, size: int | None = None
) -> ModelConfig:
    """What to train on an encoder.

    "default" looks all layers up at once with small generators; "paper" is DictAS: a lookup for each layer and
    neighbourhood, generators as wide as the tokens with attention.

    Args:
        encoder: any.
        preset: see above.
        layers: of the encoder, from 1. Default: `EMBEDDED_LAYERS`, or the ends of the four quarters (6, 12, 18
            and 24 of ViT-L).
        size: working size; encoders with one input size have theirs.

    Raises:
        InputError: the encoder has no patch tokens or not these layers.
    """
    side = encoder.patch_side
    if layers is None:
        quarters = tuple(max(1, encoder.layers * quarter // 4) for quarter in (1, 2, 3, 4))
        layers = EMBEDDED_LAYERS if side is None else quarters
    if size is not None:
        check_size(encoder, size)
    shown = side or (SIDE if size is None else size)
    config = ModelConfig(encoder.name, layers, token_channels(encoder, layers), shown, keep_aspect=side is None)
    if preset == "paper":
        return replace(config, joint=False, neighbourhoods=(1, 3), generators="paper", block="attention", max_entries=0)
    return config


def fit_config(encoder: Encoder, preset: Preset, images: Path | None) -> FitConfig:
    """How to train on an encoder.

    Raises:
        InputError: "paper" without a folder of images, over which it counts its epochs.
    """
    side = encoder.patch_side or TRAINING_SIDE
    if preset == "paper":
        if images is None:
            raise InputError("The paper preset trains on photos; name a folder of them with --images.")
        config = FitConfig.paper(len(split_photos(images)[0]))
        return replace(config, episode=replace(config.episode, side=side))
    return FitConfig(EpisodeConfig(side=side))
