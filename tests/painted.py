"""A run of the demo scene made from its answers: exact Gaussians, exact regions, only the encoder is real.

The room's rectangles become Gaussians directly and its true instance masks stand in for a segmenter, so that a run on
which words work takes seconds. `write_painted_run` also says which Gaussian belongs to which thing.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import encoders
from splat.gaussians import SH_BASES, SH_C0, Gaussians, save_ply
from splat.pipeline import train
from splat.scene import load_scene
from splat.scene.demo import write_demo_scene
from splat.scene.raycast import Face, render
from splat.scene.room import build_room
from splat.train_config import TrainConfig

WIDTH, HEIGHT = 240, 180
SPACING = 0.06
"""Metres between neighbouring Gaussians."""


class TrueRegions:
    """A segmenter that knows the pictures of one scene: its things, and all else as one region, at each level."""

    name = "true"

    def __init__(self, scene: Path, faces: list[Face]) -> None:
        loaded = load_scene(scene, with_points=False)
        self._labels: dict[bytes, np.ndarray] = {}
        for camera in loaded.cameras:
            picture, labels = render(faces, camera.K, camera.viewmat, camera.width, camera.height, samples=1)
            self._labels[picture.tobytes()] = labels

    def segment(self, image: np.ndarray) -> np.ndarray:
        labels = self._labels[image.tobytes()]
        levels = []
        for level in range(len(encoders.LEVELS)):
            present, ids = np.unique(labels, return_inverse=True)
            levels.append(ids.reshape(labels.shape) + level * len(present))
        return np.stack(levels).astype(np.int32)


def painted_gaussians(faces: list[Face], spacing: float = SPACING) -> tuple[Gaussians, torch.Tensor]:
    """Faces as grids of flat opaque Gaussians, and the label of each Gaussian's face, int64 [N]."""
    parts = []
    for face in faces:
        across, down = np.linalg.norm(face.right), np.linalg.norm(face.down)
        columns, rows = max(2, round(across / spacing)), max(2, round(down / spacing))
        grid = np.meshgrid((np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows)
        s, t = (axis.ravel().astype(np.float32) for axis in grid)
        count = len(s)
        texels = max(face.texture.image.shape[1] / columns, face.texture.image.shape[0] / rows)
        rgb = face.texture.sample(s, t, np.full(count, np.log2(max(texels, 1.0)), np.float32)) / 255
        right, below = face.right / across, face.down / down
        axes = Rotation.from_matrix(np.stack([right, below, np.cross(right, below)], axis=1))
        scales = np.log([0.6 * across / columns, 0.6 * down / rows, 0.05 * spacing])
        means = face.corner + s[:, None] * face.right + t[:, None] * face.down
        quats = np.tile(axes.as_quat(scalar_first=True), (count, 1))
        parts.append((means, quats, np.tile(scales, (count, 1)), rgb, np.full(count, face.label)))
    whole = (torch.from_numpy(np.concatenate(column)) for column in zip(*parts, strict=True))
    means, quats, scales, rgb, labels = whole
    sh = torch.zeros(len(means), SH_BASES, 3)
    sh[:, 0] = (rgb - 0.5) / SH_C0
    opaque = torch.full((len(means),), 4.0)
    return Gaussians(means.float(), quats.float(), scales.float(), opaque, sh), labels.long()


def write_painted_run(folder: Path, train_views: int = 6, test_views: int = 3) -> None:
    """Make ``folder/scene``, ``folder/run`` and ``folder/labels.npy``: each Gaussian's instance, 0 for none."""
    faces = build_room()
    scene = write_demo_scene(
        folder / "scene", width=WIDTH, height=HEIGHT, train_views=train_views, test_views=test_views, samples=1
    )
    gaussians, labels = painted_gaussians(faces)
    np.save(folder / "labels.npy", labels.numpy())
    save_ply(folder / "painted.ply", gaussians)
    with pytest.MonkeyPatch.context() as patch:
        table = encoders.REGIONS | {"true": lambda _options, _device: TrueRegions(scene, faces)}
        patch.setattr(encoders, "REGIONS", table)
        # What tests expect of colours and ranges was read off k-means.
        options = TrainConfig(scene, scale=1.0, regions="true", dictionary="kmeans", device="cpu")
        train(folder / "run", replace(options, gaussians=folder / "painted.ply"))
