"""What is true of the painted run, worked out without the app: where things are, how far, what lies behind them."""

from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

import encoders
from encoders.base import Encoder
from encoders.text_prompts import NEGATIVES
from splat.rasterize import rasterize_codes
from splat.scene import Camera, stack
from splat.scene.raycast import render
from splat.scene.room import CATEGORIES, build_room
from splat.trained import Trained

VIEW = "test_000"
"""Where a visitor begins."""
WINDOW = 29
"""Pixels over which LERF's protocol averages."""


def true_mask(painted: Path, name: str, shape: tuple[int, ...], view: str = VIEW) -> np.ndarray:
    """Where a thing of the demo scene is in a view whose picture is so large. bool [H, W]"""
    mask = cv2.imread(str(painted / "scene" / "labels" / view / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
    return cv2.resize(mask, shape[1::-1], interpolation=cv2.INTER_LINEAR) > 127


def inner_mask(painted: Path, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """`true_mask` without the rim, where splats and JPEG mix what is on both sides."""
    rim = max(3, shape[1] // 60)
    return cv2.erode(true_mask(painted, name, shape).astype(np.uint8), np.ones((rim, rim))) > 0


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two masks."""
    return float((one & other).sum() / (one | other).sum())


def true_depth(camera: Camera) -> NDArray[np.float64]:
    """How far ahead the room's rectangles are, where rays meet them. metres [H, W]"""
    x, y = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(camera.K).T
    nearness = np.zeros(x.shape)
    for face in build_room():
        corner = camera.viewmat[:3, :3] @ face.corner + camera.viewmat[:3, 3]
        edges = np.stack([camera.viewmat[:3, :3] @ face.right, camera.viewmat[:3, :3] @ face.down, corner], axis=1)
        if np.linalg.det(edges) > 0:  # one sees its front
            # z d = s u + t v + o, so [s, t, 1] / z = [u v o]^-1 d.
            s, t, w = np.moveaxis(rays @ np.linalg.inv(edges).T, -1, 0)
            hit = (s >= 0) & (s <= w) & (t >= 0) & (t <= w)
            nearness = np.where(hit, np.maximum(nearness, w), nearness)
    return 1 / nearness


def room_without(name: str, camera: Camera) -> np.ndarray:
    """A photo of the room from which one thing was taken. uint8 [H, W, 3]"""
    faces = [face for face in build_room() if face.label != 1 + CATEGORIES.index(name)]
    return render(faces, camera.K, camera.viewmat, camera.width, camera.height, samples=1)[0]


@cache
def encoder_of(name: str) -> Encoder:
    """The encoder that a run is asked with, loaded once for all tests."""
    return encoders.create(name, device="cpu")


def true_relevancy(trained: Trained, encoder: Encoder, camera: Camera, phrase: str, level: int) -> NDArray[np.float64]:
    """Smoothed relevancy of a phrase through the feature map itself, by LERF's formula. [H, W]"""
    field, count = trained.field, trained.field.atoms.shape[1]
    with torch.inference_mode():
        splatted = (*trained.gaussians.geometry, field.indices, field.weights, *stack([camera]))
        codes, _ = rasterize_codes(*splatted, camera.width, camera.height, atoms=count)
    codes = codes[0].numpy().astype(np.float64)[..., level * count : (level + 1) * count]
    features = codes @ field.atoms[level].numpy().astype(np.float64)
    features /= np.linalg.norm(features, axis=-1, keepdims=True)
    texts = encoder.encode_text([phrase, *NEGATIVES]).astype(np.float64)
    similar = np.exp(10 * features @ texts.T)
    relevancy = (similar[..., :1] / (similar[..., :1] + similar[..., 1:])).min(-1)
    return 0.5 * (relevancy + _window_means(relevancy))


def _window_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    sums = cv2.boxFilter(values, -1, (WINDOW, WINDOW), normalize=False, borderType=cv2.BORDER_CONSTANT)
    ones = np.ones_like(values)
    return sums / cv2.boxFilter(ones, -1, (WINDOW, WINDOW), normalize=False, borderType=cv2.BORDER_CONSTANT)
