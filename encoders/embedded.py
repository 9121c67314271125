"""The encoder that comes with the program: EfficientNet-Lite2 and MiniLM joined in ImageNet's class space.

An image region is described by how much more than average the classifier sees each of 1,000 classes in it, a
phrase by how much it means each class (`encoders.class_space`). Both are non-negative, nearly sparse vectors.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.class_space import CLASSES, MAX_TOKENS, ClassSpace
from encoders.crops import CropOptions, region_crops, resized
from encoders.efficientnet import INPUT, block_outputs, image_network, to_input
from encoders.errors import InputError

STRIDE = 8
"""Pixels per patch token: small enough for small defects, large enough to compare all tokens of two images."""
BATCH = 8
"""Pictures at once; on a CPU more do not fit the cache and are slower."""
REGION_CROPS = CropOptions(size=224, context=0.1, outside=0.0, fill=127)
"""Regions alone on mid-grey: of what was tried, the classifier is least misled by it (docs/encoders.md)."""
CONTEXT = 0.75
"""How much of the vector of the object around it a part takes on; see `with_context`."""


def class_vectors(logits: Tensor) -> Tensor:
    """Classifier outputs [..., 1000] -> unit vectors: log-probabilities above their mean, the rest 0."""
    centred = logits - logits.mean(dim=-1, keepdim=True)
    return torch.nn.functional.normalize(centred.clamp_min(0.0), dim=-1)


def with_context(vectors: NDArray[np.float32], region_ids: NDArray[np.integer], share: float) -> NDArray[np.float32]:
    """Let parts know what they are parts of: ``v + share * v_whole``, of unit length again.

    A fragment seen alone is often taken for something else; together with the region of the last level that
    it mostly lies in, it still differs from its siblings but agrees with them on the object.

    Args:
        vectors: unit vectors by region id. [R, D]
        region_ids: ids per level, whole objects last. [levels, H, W]
        share: weight of the whole.
    """
    whole = region_ids[-1].ravel().astype(np.int64)
    mixed = vectors.copy()
    for level in region_ids[:-1]:
        parts = level.ravel().astype(np.int64)
        both = (parts >= 0) & (whole >= 0)
        pairs, counts = np.unique(parts[both] * len(vectors) + whole[both], return_counts=True)
        part, parent = np.divmod(pairs, max(len(vectors), 1))
        # Sorted by overlap: of a part's several assignments the largest overlap comes last and stays.
        order = np.argsort(counts, kind="stable")
        around = np.full(len(vectors), -1)
        around[part[order]] = parent[order]
        inside = np.flatnonzero(around >= 0)
        mixed[inside] += share * vectors[around[inside]]
    lengths = np.linalg.norm(mixed, axis=1, keepdims=True)
    return np.divide(mixed, lengths, out=np.zeros_like(mixed), where=lengths > 0)


class EmbeddedEncoder:
    """See the module; implements `encoders.base.Encoder` with D = 1000."""

    name = "embedded"
    dim = CLASSES
    max_text_tokens = MAX_TOKENS
    patch_side = None

    def __init__(self, device: str = "cpu") -> None:
        self._device = device
        self._network = image_network(device)

    @property
    def layers(self) -> int:
        """Blocks of the network."""
        return len(self._network._blocks)

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
        return class_vectors(self._logits(images, INPUT)).cpu().numpy()

    @torch.inference_mode()
    def encode_dense(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The classifier applied before pooling: unit vectors float32 [ceil(H / 32), ceil(W / 32), 1000]."""
        features = self._network.extract_features(to_input(image[None], self._device))[0]
        return class_vectors(self._network._fc(features.permute(1, 2, 0))).cpu().numpy()

    @torch.inference_mode()
    def encode_regions(self, image: NDArray[np.uint8], region_ids: NDArray[np.integer]) -> NDArray[np.float32]:
        """Regions cut out with `REGION_CROPS`, parts `with_context` -> unit vectors float32 [R, 1000]."""
        vectors = np.zeros((int(region_ids.max(initial=-1)) + 1, CLASSES), np.float32)
        crops = list(region_crops(image, region_ids, REGION_CROPS))
        found = class_vectors(self._logits([picture for _, picture in crops], REGION_CROPS.size)).cpu().numpy()
        for (regions, _), vector in zip(crops, found, strict=True):
            vectors[regions] = vector
        return with_context(vectors, region_ids, CONTEXT)

    def _logits(self, images: Sequence[NDArray[np.uint8]], size: int) -> Tensor:
        """Classifier outputs float32 [B, 1000] of images resized to ``size`` x ``size``."""
        outputs = [torch.zeros(0, CLASSES, device=self._device)]
        for start in range(0, len(images), BATCH):
            pictures = [resized(image, size) for image in images[start : start + BATCH]]
            features = self._network.extract_features(to_input(np.stack(pictures), self._device))
            outputs.append(self._network._fc(features.mean(dim=(2, 3))))
        return torch.cat(outputs)

    @torch.no_grad()
    def patch_tokens(self, images: NDArray[np.uint8], layers: Sequence[int]) -> list[Tensor]:
        """Outputs of the network's blocks (1..21) on one grid of a token per 8 x 8 pixels.

        Coarser outputs are interpolated. Of finer ones (blocks 1 to 4) a token holds all that lie in it, row by
        row: nothing small is averaged away.
        """
        wrong = [layer for layer in layers if not 1 <= layer <= self.layers]
        if wrong:
            raise InputError(f"The embedded encoder has layers 1 to {self.layers}; {wrong[0]} was asked for.")
        grid = self.patch_grid(*images.shape[1:3])
        outputs = block_outputs(self._network, to_input(images, self._device), layers)
        return [_tokens(outputs[layer], grid) for layer in layers]

    def patch_grid(self, height: int, width: int) -> tuple[int, int]:
        """One token per 8 x 8 pixels, the last row and column may be cut."""
        return -(-height // STRIDE), -(-width // STRIDE)


def _tokens(features: Tensor, grid: tuple[int, int]) -> Tensor:
    """Features [B, C, h, w] -> [B, P, C * n²], where n features per side lie in a token of the grid."""
    finer = max(1, round(features.shape[-2] / grid[0]))
    inner = (grid[0] * finer, grid[1] * finer)
    if features.shape[-2:] != inner:
        features = torch.nn.functional.interpolate(features, inner, mode="bilinear", align_corners=False)
    if finer > 1:
        features = torch.nn.functional.pixel_unshuffle(features, finer)
    return features.flatten(2).transpose(1, 2).contiguous()
