"""Small label files, and a lens that bends, for tests of labels and of scores."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from encoders.files import write_png
from splat.scene.cameras import Camera
from splat.scene.undistort import Lens, pinhole


def write_lerf(folder: Path, name: str, objects: list[dict[str, Any]], width: int = 60, height: int = 40) -> None:
    """A view's labels as LERF_OVS has them."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"info": {"name": f"{name}.jpg", "width": width, "height": height}, "objects": objects}
    (folder / f"{name}.json").write_text(json.dumps(content))


def rectangle(category: str, x0: float, y0: float, x1: float, y1: float) -> dict[str, Any]:
    """An object of a label file."""
    outline = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
    return {"category": category, "segmentation": outline, "bbox": [x0, y0, x1, y1]}


def write_masks(folder: Path, views: dict[str, dict[str, np.ndarray]], classes: list[str] | None = None) -> Path:
    """Masks as 3D-OVS has them, of grey values or bool; by default ``classes.txt`` names all of them."""
    for view, masks in views.items():
        for name, mask in masks.items():
            grey = np.where(mask, 255, 0) if mask.dtype == bool else mask
            write_png(folder / view / f"{name}.png", grey.astype(np.uint8))
    names = classes or sorted({name for masks in views.values() for name in masks})
    (folder / "classes.txt").write_text("\n".join(names) + "\n")
    return folder


def camera(name: str, width: int = 60, height: int = 40) -> Camera:
    """A view."""
    return Camera(name, width, height, np.diag([50.0, 50.0, 1.0]), np.eye(4))


def block(x0: int, y0: int, x1: int, y1: int, width: int = 60, height: int = 40) -> np.ndarray:
    """A rectangle, ends included. bool [H, W]"""
    mask = np.zeros((height, width), bool)
    mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask


def radial(k: float, width: int = 400, height: int = 300) -> Lens:
    """A lens that moves what lies at distance r from the axis to r (1 + k r^2)."""
    return Lens("SIMPLE_RADIAL", width, height, (350.0, width / 2, height / 2, k))


def in_photo(lens: Lens, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Where a photo taken with a `radial` lens shows each pixel of its straightened view: x and y, from the formula."""
    focal, cx, cy, k = lens.params
    K = pinhole(lens)
    x = ((np.arange(width) + 0.5) * lens.width / width - K[0, 2]) / K[0, 0]
    y = ((np.arange(height) + 0.5) * lens.height / height - K[1, 2]) / K[1, 1]
    x, y = np.meshgrid(x, y)
    bend = 1 + k * (x * x + y * y)
    return focal * x * bend + cx, focal * y * bend + cy
