"""The view that was fitted last, as it is rendered, beside its photo: what people watch while they wait."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from torch import Tensor

from encoders.files import atomic_path

PREVIEW_SECONDS = 10.0
"""How often a fit leaves a preview; one takes it some milliseconds."""

SIDE = 480
"""Pixels of the longer side of each of the two pictures, at most."""


def write_preview(path: Path, rendered: Tensor, photo: Tensor) -> None:
    """Write ``rendered`` and to its right ``photo``, both [H, W, 3] in 0..1, as one JPEG; atomically."""
    pair = np.concatenate([_small(rendered), _small(photo)], axis=1)
    with atomic_path(path) as temporary:
        Image.fromarray(pair).save(temporary, format="JPEG", quality=85)


def _small(picture: Tensor) -> np.ndarray:
    height, width = picture.shape[:2]
    pixels = (picture.detach().clamp(0.0, 1.0) * 255.0 + 0.5).byte().cpu().numpy()
    factor = min(1.0, SIDE / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
