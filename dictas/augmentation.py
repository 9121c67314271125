"""The paper's support image when there is but one normal photo: the query itself, strongly augmented."""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms import v2

MARGIN = 0.3
"""Mirrored margin as a part of the side, from which turned photos take their corners."""


def augment_support(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Another view of the same normal surface (paper, section on training): moved, turned, flipped, tilted, relit.

    Args:
        image: uint8 [H, W, 3], at least 16 pixels a side.
        rng: the same state gives the same view; torch's own generator is left as it was.

    Returns:
        uint8 [H, W, 3].
    """
    height, width = image.shape[:2]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**63)))
        view = _transform(height, width)(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))))
        if torch.rand(()) < 0.3:
            view = torch.rot90(view, int(torch.randint(1, 4, ())), (1, 2))
            view = v2.functional.resize(view, [height, width], antialias=True)
        gamma = float(torch.empty(()).uniform_(-0.35, 0.35).exp())
        noise = torch.randn(view.shape) * torch.rand(()) * 6
    noisy = 255 * (view.float() / 255) ** gamma + noise
    return np.ascontiguousarray(noisy.round().clamp(0, 255).byte().permute(1, 2, 0).numpy())


@cache
def _transform(height: int, width: int) -> v2.Transform:
    down, across = int(MARGIN * height), int(MARGIN * width)
    return v2.Compose(
        [
            v2.Pad([across, down], padding_mode="reflect"),
            v2.RandomAffine(
                degrees=20, translate=(0.08, 0.08), scale=(0.85, 1.15), interpolation=v2.InterpolationMode.BILINEAR
            ),
            v2.RandomPerspective(0.15, p=0.4),
            v2.CenterCrop([height, width]),
            v2.RandomResizedCrop([height, width], scale=(0.5, 1.0), ratio=(0.8, 1.25), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.ColorJitter(brightness=(0.65, 1.2), contrast=(0.75, 1.2), saturation=0.15, hue=0.02),
            v2.RandomApply([v2.GaussianBlur(5, (0.2, 1.2))], p=0.4),
        ]
    )
