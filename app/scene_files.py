"""Files of a scene that a visitor takes home: the picture, relevancy, selected Gaussians, a video, a model to turn."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from app.frames import Painter, fitted
from app.pictures import coloured
from app.selection import ONLY, apply, write_selection
from app.visits import Stand
from encoders.base import LEVELS
from encoders.errors import InputError
from encoders.files import atomic_path, write_png
from splat.prepared import find, prepared_maps
from splat.recolor import recolor
from splat.scene import Camera
from splat.scene.camera_path import sway, through
from splat.select import gaussian_relevancy
from splat.web_splat import placed, save_splat

PICTURE, RELEVANCY = "picture (PNG)", "relevancy (npz)"
SELECTION, REST = "selected Gaussians (PLY)", "all other Gaussians (PLY)"
KINDS = (PICTURE, RELEVANCY, SELECTION, REST)
"""What can be written."""

SWAY, VIEWS, MINE = "sway around this view", "through the photos' places", "through my views"
PATHS = (SWAY, VIEWS, MINE)
"""How a video moves."""

RATE = 24
"""Frames per second of a video."""
SECONDS = (2, 10)
"""How short and how long a video may be."""
MODEL_AZIMUTH, MODEL_DISTANCE = 0.5, 2.5
"""Where `gr.Model3D` takes the visitor to stand. Its camera stands twice as far off, for it has a longer lens."""
STOPS = 8
"""A video through the photos' places stops at so many of them, evenly spread."""


def write_file(folder: Path, kind: str, stand: Stand, painter: Painter, width: int) -> Path:
    """Write one of `KINDS` into a folder.

    Raises:
        InputError: there is nothing to write yet.
    """
    if kind not in KINDS:
        raise InputError(f"There is no file {kind!r}; choose one of {', '.join(KINDS)}.")
    if kind == PICTURE:
        path = folder / f"{_stem(stand)}.png"
        write_png(path, painter.draw(stand, width).picture)
    elif kind == RELEVANCY:
        path = folder / f"{_stem(stand)}-relevancy.npz"
        write_relevancy(path, stand)
    else:
        rest = kind == REST
        path = folder / f"{_stem(stand)}-{'rest' if rest else 'selection'}.ply"
        write_selection(path, stand.scene, stand.selection, rest)
    return path


def write_relevancy(path: Path, stand: Stand) -> None:
    """Write what was found in the view as numbers.

    ``names`` [P]; ``relevancy`` float32 [P, levels, H, W] as it was splatted; ``smoothed`` float32 [P, H, W] and
    ``mask`` bool [P, H, W] of the level that answered, ``level`` [P]; ``confidence`` [P]; ``point`` [P, 2] (x, y); and
    the camera's ``K`` [3, 3] and ``viewmat`` [4, 4].

    Raises:
        InputError: nothing is looked for.
    """
    if stand.prepared is None:
        raise InputError("Look for something first; its relevancy can then be saved.")
    trained, camera, look = stand.scene.trained, stand.camera, stand.look
    gaussians = apply(stand.scene, stand.selection)
    maps = prepared_maps(stand.prepared, gaussians, trained.field, camera).cpu().numpy()
    levels = None if look.level is None else [look.level] * len(stand.prepared)
    results = find(stand.prepared, gaussians, trained.field, camera, look.threshold, levels)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            names=np.array(stand.prepared.names),
            levels=np.array(LEVELS[: trained.field.levels]),
            relevancy=maps,
            smoothed=np.stack([result.relevancy for result in results]),
            mask=np.stack([result.mask for result in results]),
            level=np.array([result.level for result in results]),
            confidence=np.array([result.confidence for result in results], np.float32),
            point=np.array([result.point for result in results]),
            K=camera.K,
            viewmat=camera.viewmat,
        )


def camera_path(stand: Stand, way: str, seconds: float) -> list[Camera]:
    """The cameras of a video.

    Raises:
        InputError: no such way, too long or too short, or too few views for it.
    """
    if not SECONDS[0] <= seconds <= SECONDS[1]:
        raise InputError(f"A video takes {SECONDS[0]} to {SECONDS[1]} seconds.")
    frames = round(seconds * RATE)
    if way == SWAY:
        return sway(stand.camera, stand.pivot, stand.scene.up, frames)
    if way == VIEWS:
        cameras = stand.scene.trained.cameras
        chosen = np.linspace(0, len(cameras) - 1, min(STOPS, len(cameras))).round().astype(int)
        return through([cameras[i] for i in chosen], frames)
    if way == MINE:
        if len(stand.path) < 2:
            raise InputError("Add two views at least; the video goes from one to the next.")
        return through(stand.path, frames)
    raise InputError(f"There is no video {way!r}; choose one of {', '.join(PATHS)}.")


def write_video(
    path: Path,
    stand: Stand,
    cameras: Sequence[Camera],
    painter: Painter,
    width: int,
    report: Callable[[int, int], None] = lambda _done, _total: None,
) -> None:
    """Write a video (H.264 in MP4) of what the visitor sees, along a path.

    Args:
        report: called with the number of frames that are done, and of all.
    """
    import imageio.v2 as imageio

    with atomic_path(path) as temporary:
        # H.264 in browsers needs even sides.
        camera = fitted(cameras[0], width)
        even = (camera.width // 2 * 2, camera.height // 2 * 2)
        writer = imageio.get_writer(
            temporary, format="FFMPEG", mode="I", fps=RATE, codec="libx264", quality=8, macro_block_size=2,
            ffmpeg_log_level="error",
        )  # fmt: skip
        with writer:
            for done, each in enumerate(cameras):
                report(done, len(cameras))
                picture = painter.draw(replace(stand, camera=each), width, quick=True).picture
                writer.append_data(picture[: even[1], : even[0]])
    report(len(cameras), len(cameras))


def write_model(path: Path, stand: Stand) -> None:
    """Write what the visitor sees as a ``.splat`` file for `gr.Model3D`, which draws it on the visitor's machine.

    Hidden Gaussians are left out; where relevancy is shown, Gaussians have its colours. In the middle is what the
    visitor turns around, or the selection if it is shown alone.
    """
    gaussians = apply(stand.scene, stand.selection)
    if stand.look.mode == "relevancy" and stand.prepared is not None:
        gaussians = recolor(gaussians, relevancy_colors(stand), strength=stand.look.opacity)
    seen = gaussians.opacities > 1 / 255  # what splats less is nowhere seen
    gaussians, pivot = gaussians.subset(seen), stand.pivot
    if stand.selection is not None and stand.selection.way == ONLY and len(gaussians):
        pivot = gaussians.means.detach().double().median(dim=0).values.cpu().numpy()
    front = placed(gaussians, stand.camera, pivot, stand.scene.up, MODEL_AZIMUTH, MODEL_DISTANCE)
    save_splat(path, front)


def relevancy_colors(stand: Stand) -> torch.Tensor:
    """Each Gaussian's own relevancy as a colour from blue to red, as of the map. RGB 0..1 [N, 3]"""
    assert stand.prepared is not None
    field = stand.scene.trained.field
    strongest = torch.zeros(len(field))
    for positions, scores in stand.prepared.groups:
        found = gaussian_relevancy(field, scores, len(positions)).cpu()
        for row, position in enumerate(positions):
            level = stand.look.level
            if level is None:
                level = stand.levels[position] if stand.levels else int(found[row].amax(0).argmax())
            strongest = torch.maximum(strongest, found[row, :, level])
    low, high = float(strongest.min()), float(strongest.max())
    values = ((strongest - low) / max(high - low, 1e-9)).numpy()[None]
    return torch.from_numpy(coloured(values, cv2.COLORMAP_TURBO)[0].astype(np.float32) / 255)


def _stem(stand: Stand) -> str:
    """A file name from the scene and what is looked for: letters and digits only."""
    words = [stand.scene.name, *(stand.prepared.names if stand.prepared is not None else ())]
    return re.sub(r"[^\w]+", "-", "-".join(words), flags=re.UNICODE).strip("-").lower()[:60] or "scene"
