"""Regions without a large model: superpixels merged into a hierarchy that is cut at three scales."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import felzenszwalb


@dataclass(frozen=True)
class RegionOptions:
    """Scales of the three levels for `skimage.segmentation.felzenszwalb`, in pixels of a 480-wide image."""

    scales: tuple[float, float, float] = (150.0, 600.0, 2400.0)
    min_sizes: tuple[int, int, int] = (150, 400, 1200)


class EmbeddedRegions:
    """See the module; implements `encoders.base.Regions`."""

    name = "embedded"

    def __init__(self, options: RegionOptions | None = None, device: str = "cpu") -> None:
        self.options = options or RegionOptions()

    def segment(self, image: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Image uint8 [H, W, 3] -> region ids int32 [3, H, W]; every pixel has a region on every level."""
        levels, first = [], 0
        for scale, min_size in zip(self.options.scales, self.options.min_sizes, strict=True):
            ids = felzenszwalb(image, scale=scale, sigma=0.8, min_size=min_size)
            levels.append(ids + first)
            first += int(ids.max()) + 1
        return np.stack(levels).astype(np.int32)
