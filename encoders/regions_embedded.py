"""Regions without a large model: superpixels merged into a hierarchy that is cut at three heights.

Superpixels (SLIC) are described by inner layers of EfficientNet-Lite2, which tell one surface from another
better than colours do and keep an object with varied colours together; `encoders.merging` merges them.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from skimage.color import rgb2lab
from skimage.filters import sobel
from skimage.segmentation import slic
from torch import Tensor

from encoders.efficientnet import block_outputs, image_network, to_input
from encoders.merging import MergeOptions, merge_tree


@dataclass(frozen=True)
class RegionOptions:
    """How the hierarchy is made and where it is cut.

    Attributes:
        side: images are segmented at this length of their longer side; ids are scaled back up.
        superpixels: their number, about.
        compactness: of SLIC; higher gives squarer superpixels.
        magnify: the network sees the image this much larger, so that its grid is finer.
        blocks: blocks of the network whose outputs describe a superpixel; each weighs the same.
        heights: merge costs at which the tree is cut, for subpart, part and whole.
        merge: the cost of merging.
    """

    side: int = 480
    superpixels: int = 700
    compactness: float = 8.0
    magnify: float = 2.0
    blocks: tuple[int, ...] = (5, 8)
    heights: tuple[float, float, float] = (0.018, 0.03, 0.055)
    merge: MergeOptions = field(default_factory=MergeOptions)


class EmbeddedRegions:
    """See the module; implements `encoders.base.Regions`. Every pixel has a region on every level."""

    name = "embedded"

    def __init__(self, options: RegionOptions | None = None, device: str = "cpu") -> None:
        self.options = options or RegionOptions()
        self._device = device
        self._network = image_network(device)

    def segment(self, image: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Image uint8 [H, W, 3] -> region ids int32 [3, H, W]."""
        options = self.options
        height, width = image.shape[:2]
        small = _longer_side(image, options.side)
        superpixels = slic(
            small,
            n_segments=options.superpixels,
            compactness=options.compactness,
            sigma=0.7,
            start_label=0,
        )
        tree = merge_tree(superpixels, self._describe(small, superpixels), _edges(small), options.merge)
        levels, first = [], 0
        for cut in options.heights:
            regions = tree.cut(cut)
            ids = regions[superpixels] + first
            first += int(regions.max()) + 1
            levels.append(cv2.resize(ids.astype(np.int32), (width, height), interpolation=cv2.INTER_NEAREST))
        return _numbered(np.stack(levels))

    @torch.inference_mode()
    def _describe(self, image: NDArray[np.uint8], superpixels: NDArray[np.integer]) -> NDArray[np.float32]:
        """A vector per superpixel [N, D]; per block the vectors have mean 0 and mean square length 1."""
        longer = round(max(image.shape[:2]) * self.options.magnify)
        outputs = block_outputs(
            self._network, to_input(_longer_side(image, longer)[None], self._device), self.options.blocks
        )
        parts = []
        for block in self.options.blocks:
            means = _means(outputs[block][0], superpixels)
            means -= means.mean(axis=0)
            parts.append(means / np.sqrt((means**2).sum(axis=1).mean() + 1e-12))
        return np.concatenate(parts, axis=1)


def _means(features: Tensor, superpixels: NDArray[np.integer], step: int = 4) -> NDArray[np.float32]:
    """Mean of a feature map [C, h, w] over each superpixel [N, C], sampled at every ``step``-th pixel."""
    height, width = superpixels.shape
    grid = (-(-height // step), -(-width // step))
    fine = torch.nn.functional.interpolate(features[None], grid, mode="bilinear", align_corners=False)[0]
    values = fine.flatten(1).T.float().cpu().numpy()
    # Sampled at cell centres; the last cell of a row may be cut by the border.
    rows = np.minimum(np.arange(grid[0]) * step + step // 2, height - 1)
    columns = np.minimum(np.arange(grid[1]) * step + step // 2, width - 1)
    ids = superpixels[np.ix_(rows, columns)].ravel()
    count = int(superpixels.max()) + 1
    member = sparse.csr_matrix((np.ones(len(ids), np.float32), (ids, np.arange(len(ids)))), (count, len(ids)))
    samples = np.asarray(member.sum(axis=1))
    means = np.asarray(member @ values) / np.maximum(samples, 1)
    means[samples[:, 0] == 0] = values.mean(axis=0)  # too small to be hit by a sample
    return means.astype(np.float32)


def _edges(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Length of the colour gradient per pixel, in units of the lightness range."""
    lab = rgb2lab(image) / 100
    return np.sqrt(sum(sobel(lab[..., channel]) ** 2 for channel in range(3))).astype(np.float32)


def _longer_side(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The image resized so that its longer side has ``side`` pixels."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale == 1.0:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=method), dtype=np.uint8)


def _numbered(ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """Ids 0..R-1 without gaps, in order; scaling may lose a region of a few pixels."""
    return np.unique(ids, return_inverse=True)[1].reshape(ids.shape).astype(np.int32)
