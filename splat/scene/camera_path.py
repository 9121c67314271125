"""Camera paths for videos: smoothly through given cameras, or a sway around one view."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline, interp1d
from scipy.spatial.transform import Rotation, RotationSpline

from encoders.errors import InputError
from splat.scene.cameras import Camera
from splat.scene.orbit import orbit


def through(cameras: Sequence[Camera], frames: int) -> list[Camera]:
    """A path that visits ``cameras`` in order, with smooth speed and turning.

    The time between two cameras grows with how far they are apart and how much they differ in direction, so that the
    path is neither hasty nor slow. All frames have the size of the first camera; its lens changes into the others'.

    Args:
        cameras: two or more. Cameras that repeat the one before are left out.
        frames: two or more, the first and the last camera included.

    Raises:
        InputError: fewer than two different cameras, or fewer than two frames.
    """
    if frames < 2:
        raise InputError("A path needs two frames at least; choose a longer video.")
    keys = [_fitted(camera, cameras[0].width, cameras[0].height) for camera in cameras]
    keys = [keys[i] for i in range(len(keys)) if i == 0 or _apart(keys[i - 1], keys[i]) > 0]
    if len(keys) < 2:
        raise InputError("A path needs two different views at least; add another one.")
    centers = np.stack([camera.center for camera in keys])
    turns = Rotation.from_matrix(np.stack([camera.viewmat[:3, :3].T for camera in keys]))
    lenses = np.stack([camera.K for camera in keys])
    times = np.concatenate([[0.0], np.cumsum(_durations(centers, turns))])
    at = np.linspace(0.0, times[-1], frames)
    where = CubicSpline(times, centers, bc_type="natural")(at)
    matrices = RotationSpline(times, turns)(at).as_matrix()
    lens = interp1d(times, lenses, axis=0)(at)
    return [
        replace(keys[0], name=f"path_{i:04d}", K=lens[i], viewmat=_viewmat(matrices[i], where[i]))
        for i in range(frames)
    ]


def sway(
    camera: Camera, pivot: NDArray[np.float64], up: NDArray[np.float64], frames: int, reach: float = np.radians(12.0)
) -> list[Camera]:
    """A closed loop around ``camera`` that keeps the pivot in place: what moves tells how deep things are.

    Args:
        frames: the frame after the last would be the first one again.
        reach: how far to the left and right; a third of it up and down.
    """
    path = []
    for i in range(frames):
        phase = 2 * np.pi * i / frames
        moved = orbit(camera, pivot, up, reach * np.sin(phase), reach / 3 * np.sin(2 * phase))
        path.append(replace(moved, name=f"path_{i:04d}"))
    return path


def _fitted(camera: Camera, width: int, height: int) -> Camera:
    """The camera with a picture of another size: as high as before, cut or widened at its sides, never squeezed."""
    scale = height / camera.height
    K = camera.K.copy()
    K[:2] *= scale
    K[0, 2] += (width - scale * camera.width) / 2
    return replace(camera, width=width, height=height, K=K)


def _apart(one: Camera, other: Camera) -> float:
    return float(np.abs(one.viewmat - other.viewmat).max() + np.abs(one.K - other.K).max())


def _durations(centers: NDArray[np.float64], turns: Rotation) -> NDArray[np.float64]:
    """Relative time from each camera to the next: the larger of its share of the way and of the turning."""
    way = np.linalg.norm(np.diff(centers, axis=0), axis=1)
    angle = (turns[:-1].inv() * turns[1:]).magnitude()
    # At least a twentieth of the mean, or two cameras that nearly agree make a jerk.
    spans = np.maximum(way / max(way.sum(), 1e-12), angle / max(angle.sum(), 1e-12))
    return np.asarray(np.maximum(spans, spans.mean() / 20 if spans.any() else 1.0))


def _viewmat(turn: NDArray[np.float64], center: NDArray[np.float64]) -> NDArray[np.float64]:
    viewmat = np.eye(4)
    viewmat[:3, :3] = turn.T
    viewmat[:3, 3] = -turn.T @ center
    return viewmat
