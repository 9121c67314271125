"""Regions from Segment Anything, by LangSplat's recipe (Qin et al. 2024, section 3.2).

SAM answers every point prompt with three masks: subpart, part, whole. The library's generator throws the
three into one list; here it runs once per scale, on models that share everything but the choice of the mask,
so that each scale keeps its own non-maximum suppression and becomes one level.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamAutomaticMaskGenerator, sam_model_registry
from segment_anything.modeling import Sam
from torch import Tensor, nn

from encoders.base import LEVELS
from encoders.errors import InputError


@dataclass(frozen=True)
class SamOptions:
    """LangSplat's settings.

    Attributes:
        points_per_side, pred_iou, stability, crop_layers, min_area: of `SamAutomaticMaskGenerator`.
        nms_iou: of two masks that overlap more than this, the better one stays.
        nms_score: masks with predicted IoU x stability below this go.
        nms_inner: how strongly a mask must lie inside a much larger one to go; see `mask_nms`.
    """

    points_per_side: int = 32
    pred_iou: float = 0.7
    stability: float = 0.85
    crop_layers: int = 1
    min_area: int = 100
    nms_iou: float = 0.8
    nms_score: float = 0.7
    nms_inner: float = 0.5


class SamRegions:
    """``sam:TYPE:PATH``: a model type of the library (vit_b, vit_l, vit_h) and its checkpoint file.

    Implements `encoders.base.Regions`. Pixels that no mask covers have no region.
    """

    def __init__(self, name: str, device: str = "cpu", options: SamOptions | None = None) -> None:
        """Load a checkpoint; ``name`` is ``TYPE:PATH``.

        Raises:
            InputError: no such type or file, or the file holds another model.
        """
        self.name = f"sam:{name}"
        self.options = options or SamOptions()
        self._sam = load_sam(name).to(device)

    def segment(self, image: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Image uint8 [H, W, 3] -> region ids int32 [3, H, W]."""
        levels = np.full((len(LEVELS), *image.shape[:2]), -1, dtype=np.int32)
        first = 0
        encoder = _RememberingEncoder(self._sam.image_encoder)
        for level in range(len(LEVELS)):
            masks, scores = self._masks(image, level, encoder)
            kept = masks[mask_nms(masks, scores, self.options)]
            # Large masks first, so that small ones stay visible on top of them.
            for mask in kept[np.argsort(-kept.sum(axis=(1, 2)), kind="stable")]:
                levels[level][mask] = first
                first += 1
        return _without_gaps(levels)

    def _masks(
        self, image: NDArray[np.uint8], level: int, encoder: "_RememberingEncoder"
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        # A generator per call: its predictor holds the image, and calls may come from several threads.
        generator = SamAutomaticMaskGenerator(
            _at_scale(self._sam, level, encoder),
            points_per_side=self.options.points_per_side,
            pred_iou_thresh=self.options.pred_iou,
            box_nms_thresh=0.7,
            stability_score_thresh=self.options.stability,
            crop_n_layers=self.options.crop_layers,
            crop_n_points_downscale_factor=1,
            min_mask_region_area=self.options.min_area,
        )
        found = generator.generate(np.array(image))
        if not found:
            return np.zeros((0, *image.shape[:2]), dtype=bool), np.zeros(0)
        scores = [mask["predicted_iou"] * mask["stability_score"] for mask in found]
        return np.stack([mask["segmentation"] for mask in found]).astype(bool), np.array(scores)


def load_sam(name: str) -> Any:
    """A frozen SAM from ``TYPE:PATH``. The file is loaded as tensors only, never unpickled freely.

    Raises:
        InputError: no such type or file, or the file holds another model.
    """
    kind, _, path = name.partition(":")
    if kind not in sam_model_registry or not path:
        known = ", ".join(sorted(sam_model_registry))
        raise InputError(f"--regions sam:{name} is not sam:TYPE:PATH with a TYPE of {known}.")
    if not Path(path).is_file():
        raise InputError(f"There is no Segment Anything checkpoint at {path}; correct the path.")
    sam = sam_model_registry[kind](checkpoint=None)
    try:
        sam.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # whatever a damaged or foreign file makes torch raise
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path} is not a {kind} checkpoint of Segment Anything ({reason}).") from error
    return sam.requires_grad_(False).eval()


def mask_nms(masks: NDArray[np.bool_], scores: NDArray[np.float64], options: SamOptions) -> NDArray[np.intp]:
    """Indices of the masks [M, H, W] to keep, best score first (LangSplat's mask suppression).

    A mask goes if a better one overlaps it with IoU above ``nms_iou``; if its score is not above
    ``nms_score`` (the best three stay if all fail); or if a share a >= 0.85 of it lies inside a mask of which
    that is a share b < 0.5, and ``1 - a b > 1 - nms_inner``.
    """
    order = np.argsort(-scores, kind="stable")
    if not len(order):
        return order
    flat = torch.from_numpy(masks[order].reshape(len(order), -1)).float()
    shared = (flat @ flat.T).numpy().astype(np.float64)
    area = np.maximum(np.diag(shared), 1.0)
    iou = shared / (area[:, None] + area[None, :] - shared)
    duplicate = np.triu(iou, k=1).max(axis=0) > options.nms_iou

    within = shared / area[:, None]  # [i, j]: fraction of mask i that lies inside mask j
    nested = (within >= 0.85) & (within.T < 0.5)
    inner = np.where(nested, 1 - within * within.T, 0.0).max(axis=1) > 1 - options.nms_inner

    good = scores[order] > options.nms_score
    if not good.any():
        good[:3] = True
    return order[good & ~duplicate & ~inner]


class _RememberingEncoder(nn.Module):
    """An image encoder that answers from memory when it sees a picture again: three scales, one encoding."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.img_size = encoder.img_size
        self._memory: dict[bytes, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        digest = hashlib.sha1(x.cpu().numpy().tobytes()).digest()
        if digest not in self._memory:
            self._memory[digest] = self.encoder(x)
        return self._memory[digest]


class _OneMask(nn.Module):
    """A mask decoder that keeps one of its three answers."""

    def __init__(self, decoder: nn.Module, level: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.level = level

    def forward(self, **inputs: Any) -> tuple[Tensor, Tensor]:
        masks, quality = self.decoder(**inputs)
        return masks[:, self.level : self.level + 1], quality[:, self.level : self.level + 1]


def _at_scale(sam: Any, level: int, encoder: _RememberingEncoder) -> Any:
    scaled = Sam(encoder, sam.prompt_encoder, _OneMask(sam.mask_decoder, level))
    scaled.pixel_mean, scaled.pixel_std = sam.pixel_mean, sam.pixel_std
    scaled.mask_threshold = sam.mask_threshold
    return scaled.eval()


def _without_gaps(ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """Renumber 0..R-1 in order, since a mask may be painted over entirely."""
    present = np.unique(ids[ids >= 0])
    table = np.full(int(ids.max(initial=-1)) + 2, -1, dtype=np.int32)  # the last entry answers id -1
    table[present] = np.arange(len(present))
    return table[ids]
