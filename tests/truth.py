"""What is true of the painted run, worked out without the app: where things are, how far, what lies behind them."""

from pathlib import Path

import cv2
import numpy as np

VIEW = "test_000"
"""Where a visitor begins."""


def true_mask(painted: Path, name: str, shape: tuple[int, ...], view: str = VIEW) -> np.ndarray:
    """Where a thing of the demo scene is in a view whose picture is so large. bool [H, W]"""
    mask = cv2.imread(str(painted / "scene" / "labels" / view / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
    return cv2.resize(mask, shape[1::-1], interpolation=cv2.INTER_LINEAR) > 127


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two masks."""
    return float((one & other).sum() / (one | other).sum())
