"""One frame of the viewport: the picture of the scene, what is drawn over it, and what there is to say about it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from app import layers
from app.selection import Changed
from app.visits import Stand
from encoders.base import LEVELS
from splat.gaussians import Gaussians
from splat.prepared import find, likeliest_levels, prepared_maps
from splat.query import QueryResult
from splat.rasterize import rasterize_features, rasterize_rgb
from splat.scene import Camera, stack

LARGEST = 1920
"""Pixels of a frame's longer side."""

QUICK = 240
"""While the camera moves, what is drawn over the picture is splatted at most this wide."""


@dataclass(frozen=True)
class Frame:
    """A picture, uint8 [H, W, 3], and what to say about it: ``legend`` and ``answers``, ready for JSON."""

    picture: NDArray[np.uint8]
    info: dict[str, Any]
    results: Sequence[QueryResult] = ()


MISSING = {
    "relevancy": "Look for something to see its relevancy.",
    "mask": "Look for something to see its mask.",
    "levels": "Look for something to see at which level it is found.",
}
"""The legend of modes that have nothing to draw yet, because nothing is looked for."""


class Stale(Exception):
    """Nobody waits for this frame any more."""


class Painter:
    """Draws frames; remembers changed scenes from one to the next."""

    def __init__(self) -> None:
        self.changed = Changed()

    def draw(self, stand: Stand, width: int, quick: bool = False, stale: Callable[[], bool] = lambda: False) -> Frame:
        """A frame of what a visitor sees.

        Args:
            width: of the picture in pixels; it has the proportions of the camera's, and no side over `LARGEST`.
            quick: what is looked for is splatted small (`QUICK`), and only at the levels that answered last time.
            stale: asked between the steps of the work.

        Raises:
            Stale: as soon as ``stale`` says so.
        """
        started = time.perf_counter()
        gaussians = self.changed(stand.scene, stand.selection)
        camera = fitted(stand.camera, width)
        picture, depth, seen = _picture(gaussians, camera)
        if stale():
            raise Stale
        results: list[QueryResult] = []
        legend: dict[str, Any] | None = None
        look = stand.look
        # Of a plain picture the answers are only its marks, of levels nothing: while moving, speed is worth more.
        asked = stand.prepared is not None and look.mode in ("relevancy", "mask") + (
            () if quick else ("picture", "levels")
        )
        if asked:
            results = self._answers(stand, gaussians, quick)
            if stale():
                raise Stale
        if look.mode == "depth":
            layer, legend = layers.depths(depth, seen)
            picture = layers.blend(picture, layer, look.opacity, seen)
        elif look.mode == "features":
            layer, seen = _features(stand, gaussians, fitted(camera, min(camera.width, QUICK)) if quick else camera)
            layer, seen = (layers.resized(each, camera.width, camera.height) for each in (layer, seen))
            picture = layers.blend(picture, layer, look.opacity, seen)
            legend = {"title": f"Features ({LEVELS[_feature_level(stand)]}): like colours, like features"}
        elif asked and look.mode == "relevancy":
            strongest = np.maximum.reduce([result.relevancy for result in results])
            layer, legend = layers.heat(layers.resized(strongest, camera.width, camera.height))
            picture = layers.blend(picture, layer, look.opacity)
        elif stand.prepared is not None and look.mode == "levels":
            layer, legend = self._levels(stand, gaussians, quick, camera)
            picture = layers.blend(picture, layer, look.opacity)
        elif asked and look.mode == "mask":
            masks = [layers.resized(result.mask, camera.width, camera.height) for result in results]
            picture = layers.masks(picture, masks, look.opacity)
        elif look.mode in MISSING and stand.prepared is None:
            legend = {"title": MISSING[look.mode]}
        if asked and look.marks:
            _mark(picture, results, stand.camera)
        info = {
            "mode": look.mode,
            "view": stand.camera.name,
            "width": camera.width,
            "height": camera.height,
            "ratio": round(stand.camera.width / stand.camera.height, 4),
            "legend": legend,
            "answers": [_answer(result, number) for number, result in enumerate(results)],
            "milliseconds": round(1000 * (time.perf_counter() - started)),
        }
        return Frame(picture, info, results)

    def _answers(self, stand: Stand, gaussians: Gaussians, quick: bool) -> list[QueryResult]:
        assert stand.prepared is not None
        look = stand.look
        wanted: Sequence[int] | None = None if look.level is None else [look.level] * len(stand.prepared)
        if quick and wanted is None:
            wanted = stand.levels
        width = QUICK if quick else None
        return find(stand.prepared, gaussians, stand.scene.trained.field, stand.camera, look.threshold, wanted, width)

    def _levels(
        self, stand: Stand, gaussians: Gaussians, quick: bool, camera: Camera
    ) -> tuple[layers.Picture, dict[str, Any]]:
        assert stand.prepared is not None
        field = stand.scene.trained.field
        # All levels and not one: as many numbers as answers take need a smaller picture.
        small = min(1.0, QUICK / np.sqrt(field.levels) / stand.camera.width)
        seen = stand.camera.scaled(small) if quick else stand.camera
        maps = prepared_maps(stand.prepared, gaussians, field, seen)
        best = likeliest_levels(maps.amax(0))
        return layers.levels(layers.resized(best, camera.width, camera.height, smooth=False), LEVELS[: field.levels])


def fitted(camera: Camera, width: int) -> Camera:
    """The camera with a picture about ``width`` wide, no side over `LARGEST`."""
    width = min(width, LARGEST, round(LARGEST * camera.width / camera.height))
    return camera.resized(max(1, width), max(1, round(camera.height * width / camera.width)))


def _picture(gaussians: Gaussians, camera: Camera) -> tuple[layers.Picture, NDArray[np.float32], NDArray[np.bool_]]:
    """The picture on black, the distance of what is seen in it, and where anything is seen."""
    with torch.inference_mode():
        rgb, depth, alphas, _ = rasterize_rgb(
            *gaussians.geometry, gaussians.sh, *stack([camera]), camera.width, camera.height
        )
        picture = (rgb[0].clamp_(0, 1) * 255 + 0.5).to(torch.uint8).cpu().numpy()
        cover = alphas[0, ..., 0]
        distance = (depth[0, ..., 0] / cover.clamp_min(1e-6)).cpu().numpy()
    return picture, distance, (cover > 0.5).cpu().numpy()


def _features(stand: Stand, gaussians: Gaussians, camera: Camera) -> tuple[layers.Picture, NDArray[np.bool_]]:
    colors = stand.scene.feature_colors(_feature_level(stand))
    with torch.inference_mode():
        image, alphas = rasterize_features(*gaussians.geometry, colors, *stack([camera]), camera.width, camera.height)
        cover = alphas[0].clamp_min(1e-6)
        layer = ((image[0] / cover).clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().numpy()
    return layer, (alphas[0, ..., 0] > 0.5).cpu().numpy()


def _feature_level(stand: Stand) -> int:
    """Wholes, unless a level was chosen: their features are the calmest to look at."""
    last = stand.scene.trained.field.levels - 1
    return last if stand.look.level is None else min(stand.look.level, last)


def _mark(picture: layers.Picture, results: Sequence[QueryResult], camera: Camera) -> None:
    """Draw points and boxes, which are in pixels of ``camera``."""
    x, y = picture.shape[1] / camera.width, picture.shape[0] / camera.height
    for number, result in enumerate(results):
        box = result.box and (result.box[0] * x, result.box[1] * y, result.box[2] * x, result.box[3] * y)
        layers.mark(picture, number, ((result.point[0] + 0.5) * x, (result.point[1] + 0.5) * y), box)


def _answer(result: QueryResult, number: int) -> dict[str, Any]:
    return {
        "phrase": result.phrase,
        "color": layers.hexadecimal(layers.COLORS[number % len(layers.COLORS)]),
        "confidence": round(result.confidence, 3),
        "present": result.present,
        "level": LEVELS[result.level],
        "point": [int(value) for value in result.point],
        "box": None if result.box is None else [int(value) for value in result.box],
        "pixels": int(result.mask.sum()),
        "milliseconds": round(1000 * result.seconds),
    }
