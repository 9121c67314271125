"""What every way of finding anomalies here has in common: tokens in, a map of anomaly out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.base import Encoder

MULTIPLE = 32
"""Sides of prepared images are multiples of it, so that every stage of a CNN divides them evenly."""
LONGEST = 4.0
"""Images longer than 4:1 are squashed to that; narrower ones would leave a CNN no context across."""
HIGHEST = 0.005
"""Share of a map's pixels that make the score of the image."""
BLUR = 2.0
"""Standard deviation of the smoothing of maps in pixels of the prepared image. The paper's 4 is for tokens of 14
pixels; with tokens of 8 it costs thin defects more than it saves (docs/dictas.md)."""


@dataclass(frozen=True)
class Batch:
    """Images of one size and what the frozen backbone sees in them.

    Attributes:
        images: the prepared images. uint8 [B, H, W, 3]
        tokens: patch tokens per layer, float32 [B, h*w, C], row by row on the grid.
        grid: (h, w).
    """

    images: NDArray[np.uint8]
    tokens: list[Tensor]
    grid: tuple[int, int]


class Detector(Protocol):
    """Learns what is normal from a few images and marks in others what is not.

    Attributes:
        name: the key of its results in tables.
    """

    name: str

    def remember(self, support: Sequence[Batch]) -> None:
        """Forget what was normal before; from now on it is what these images show (one image per batch or more)."""
        ...

    def maps(self, query: Batch) -> Tensor:
        """How anomalous each token is: float32 [B, h, w] on the token grid, 0 (normal) .. 1."""
        ...


@dataclass(frozen=True)
class Backbone:
    """A frozen encoder, the layers taken from it and the size at which it is shown images.

    Attributes:
        encoder: see `encoders.create`.
        layers: numbers of layers, from 1.
        size: prepared images have about ``size * size`` pixels.
        keep_aspect: keep the shape of images; encoders with one input size squash them to a square instead.
    """

    encoder: Encoder
    layers: tuple[int, ...]
    size: int
    keep_aspect: bool = True

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An image uint8 [H, W, 3] of any size, resized to what the encoder is shown."""
        height, width = self.prepared_size(*image.shape[:2])
        if (height, width) == image.shape[:2]:
            return image
        shrinks = height * width < image.shape[0] * image.shape[1]
        resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        return np.asarray(resized, np.uint8)

    def prepared_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width to which `prepare` brings an image of ``height`` x ``width``."""
        if not self.keep_aspect:
            return self.size, self.size
        aspect = min(max(height / width, 1 / LONGEST), LONGEST)
        rows = self.size * aspect**0.5
        return _multiple(rows), _multiple(rows / aspect)

    def batch(self, images: Sequence[NDArray[np.uint8]]) -> Batch:
        """Prepared images, all of one size, with their tokens."""
        stacked = np.stack(images)
        tokens = self.encoder.patch_tokens(stacked, self.layers)
        return Batch(stacked, tokens, self.encoder.patch_grid(*stacked.shape[1:3]))


def _multiple(side: float) -> int:
    return max(MULTIPLE, round(side / MULTIPLE) * MULTIPLE)


def pixel_map(token_map: Tensor, prepared: tuple[int, int], shape: tuple[int, int]) -> NDArray[np.float32]:
    """A map on the token grid [h, w] -> float32 [H, W] in the original image's pixels, smoothed.

    Args:
        token_map: one image's map.
        prepared: (height, width) of the prepared image; the smoothing is `BLUR` of its pixels wide.
        shape: (H, W) of the result.
    """
    rows = torch.nn.functional.interpolate(
        token_map[None, None].float(), prepared, mode="bilinear", align_corners=False
    )[0, 0]
    smooth = np.asarray(cv2.GaussianBlur(rows.cpu().numpy(), (0, 0), BLUR), np.float32)
    if prepared == shape:
        return smooth
    return np.asarray(cv2.resize(smooth, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR), np.float32)


def image_score(smooth_map: NDArray[np.float32]) -> float:
    """How anomalous the whole image is: the mean of the highest `HIGHEST` of its map.

    The maximum alone is one place's noise; AnomalyDINO (Damm et al. 2025) averages the highest hundredth, in which
    a speck would be lost.
    """
    count = max(1, round(HIGHEST * smooth_map.size))
    return float(np.partition(smooth_map.ravel(), -count)[-count:].mean())
