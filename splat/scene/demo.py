"""The demo scene: a furnished room with ground truth, made from pictures that installed packages ship.

Seven photos (scikit-image's and scikit-learn's samples) are printed on boxes and panels that stand and hang
in a room of matte walls. Every view is ray-cast exactly, so cameras, instance masks and boxes are exact too.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from encoders.errors import InputError
from encoders.files import write_json, write_png
from encoders.progress import Report, silent
from splat.scene.raycast import Face, render
from splat.scene.room import CATEGORIES, build_room

TRAIN_HEIGHTS = (1.1, 1.65, 2.2)
TEST_HEIGHTS = (1.4, 1.95)
FIELD_OF_VIEW = math.radians(64)
TARGET = np.array([0.0, 0.9, 0.95])


@dataclass(frozen=True)
class DemoConfig:
    """Size of the demo scene; ``samples**2`` rays per pixel. ``version`` changes when the room does."""

    width: int = 480
    height: int = 360
    train_views: int = 60
    test_views: int = 12
    samples: int = 3
    version: int = 1


def write_demo_scene(
    out_dir: Path,
    report: Report = silent,
    width: int = 480,
    height: int = 360,
    train_views: int = 60,
    test_views: int = 12,
    samples: int = 3,
) -> Path:
    """Make the demo scene in ``out_dir`` (or finish it, or leave it alone if it is complete).

    Writes ``images/{train,test}_000.png`` ..., ``transforms.json`` (OpenGL poses, nerfstudio's
    ``train_filenames`` and ``test_filenames``), and for each held-out view ``labels/test_000.json`` (LERF's
    format: polygons per category, a box each) with exact 8-bit masks in ``labels/test_000/CATEGORY.png``.

    Returns:
        ``out_dir``, a scene folder for `load_scene`.

    Raises:
        InputError: a size that makes no picture.
    """
    if min(width, height, train_views, samples) < 1 or test_views < 0:
        raise InputError("The demo scene needs a positive size, one training view and one sample at least.")
    out_dir = Path(out_dir)
    config = DemoConfig(width, height, train_views, test_views, samples)
    if _settings(out_dir) != asdict(config):
        _forget(out_dir)
        write_json(out_dir / "demo.json", asdict(config))
    K = _intrinsics(config)
    cameras = demo_cameras(train_views, test_views)
    missing = [name for name in cameras if not _complete(out_dir, name)]
    faces: list[Face] = build_room() if missing else []
    for done, name in enumerate(missing):
        report(done, len(missing), f"ray-casting {name}")
        picture, labels = render(faces, K, cameras[name], width, height, samples)
        if name.startswith("test"):
            _write_labels(out_dir / "labels", name, labels)
        write_png(out_dir / "images" / f"{name}.png", picture)
    if missing or not (out_dir / "transforms.json").exists():
        write_json(out_dir / "transforms.json", _transforms(config, K, cameras))
    report(len(missing), len(missing), "demo scene ready")
    return out_dir


def demo_cameras(train_views: int, test_views: int) -> dict[str, np.ndarray]:
    """World-to-camera matrices (OpenCV axes, z up in the world) by view name.

    Training views sweep three arcs, to and fro, as someone filming would; held-out views lie on two arcs
    between them.
    """
    cameras = {f"train_{i:03d}": pose for i, pose in enumerate(_arcs(train_views, TRAIN_HEIGHTS, 33.0))}
    cameras |= {f"test_{i:03d}": pose for i, pose in enumerate(_arcs(test_views, TEST_HEIGHTS, 28.5))}
    return cameras


def _arcs(count: int, heights: tuple[float, ...], widest: float) -> list[np.ndarray]:
    poses = []
    for arc, group in enumerate(np.array_split(np.arange(count), len(heights))):
        sweep = np.linspace(-1, 1, len(group)) if len(group) > 1 else np.zeros(len(group))
        for step in sweep if arc % 2 == 0 else -sweep:
            angle = math.radians(widest) * step
            radius = 4.1 + 0.2 * math.cos(3 * angle)
            centre = np.array([radius * math.sin(angle), TARGET[1] - radius * math.cos(angle), heights[arc]])
            centre[2] += 0.08 * math.sin(5 * angle + arc)
            poses.append(_look_at(centre, TARGET + np.array([0.25 * math.sin(angle), 0.0, 0.0])))
    return poses


def _look_at(centre: np.ndarray, target: np.ndarray) -> np.ndarray:
    forward = (target - centre) / np.linalg.norm(target - centre)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    viewmat = np.eye(4)
    viewmat[:3, :3] = [right, np.cross(forward, right), forward]
    viewmat[:3, 3] = -viewmat[:3, :3] @ centre
    return viewmat


def _intrinsics(config: DemoConfig) -> np.ndarray:
    focal = config.width / (2 * math.tan(FIELD_OF_VIEW / 2))
    return np.array([[focal, 0, config.width / 2], [0, focal, config.height / 2], [0, 0, 1]])


def _transforms(config: DemoConfig, K: np.ndarray, cameras: dict[str, np.ndarray]) -> dict[str, Any]:
    turned = np.diag([1.0, -1.0, -1.0, 1.0])
    files = {name: f"images/{name}.png" for name in cameras}
    return {
        "camera_model": "OPENCV",
        "fl_x": K[0, 0],
        "fl_y": K[1, 1],
        "cx": K[0, 2],
        "cy": K[1, 2],
        "w": config.width,
        "h": config.height,
        **dict.fromkeys(("k1", "k2", "p1", "p2"), 0.0),
        "frames": [
            # OpenGL cameras look along -z with y up: two axes of the camera-to-world matrix turn over.
            {"file_path": files[name], "transform_matrix": (np.linalg.inv(pose) @ turned).tolist()}
            for name, pose in cameras.items()
        ],
        "train_filenames": [file for name, file in files.items() if name.startswith("train")],
        "test_filenames": [file for name, file in files.items() if name.startswith("test")],
    }


def _write_labels(folder: Path, name: str, labels: np.ndarray) -> None:
    """Masks first, the JSON last: the JSON's presence says that the view's labels are complete."""
    height, width = labels.shape
    objects = []
    for label, category in enumerate(CATEGORIES, start=1):
        mask = (labels == label).astype(np.uint8)
        if not mask.any():
            continue
        write_png(folder / name / f"{category}.png", mask * 255)
        # Filling a traced outline gives back its piece pixel for pixel, as long as the piece has no hole.
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        for outline in outlines:
            points = outline[:, 0, :]
            box = [*points.min(axis=0).tolist(), *points.max(axis=0).tolist()]
            objects.append({"category": category, "segmentation": points.tolist(), "bbox": box})
    info = {"name": f"{name}.png", "width": width, "height": height}
    write_json(folder / f"{name}.json", {"info": info, "objects": objects})


def _complete(out_dir: Path, name: str) -> bool:
    labelled = not name.startswith("test") or (out_dir / "labels" / f"{name}.json").exists()
    return labelled and (out_dir / "images" / f"{name}.png").exists()


def _settings(out_dir: Path) -> Any:
    try:
        return json.loads((out_dir / "demo.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _forget(out_dir: Path) -> None:
    """Remove the views of a demo scene made with other settings; nothing else in the folder is touched."""
    (out_dir / "transforms.json").unlink(missing_ok=True)
    views = ("images/train_???.png", "images/test_???.png", "labels/test_???.json", "labels/test_???/*.png")
    for pattern in views:
        for path in out_dir.glob(pattern):
            path.unlink()
