"""Moving a camera by hand: orbit around a pivot, pan, zoom. Pure functions from camera to camera.

A pivot is a point of the world, float64 [3], that stays where it is in the picture while one orbits or zooms. ``up``
is the unit vector of the world that stays upright. Angles are radians.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from splat.scene.cameras import Camera

POLE = np.radians(3.0)
"""A camera is not tilted closer than this to looking straight up or down, where "upright" has no meaning."""

Vector = NDArray[np.float64]


def scene_up(cameras: Sequence[Camera]) -> Vector:
    """The direction that people who held these cameras would call up, a unit vector float64 [3].

    Level cameras may look anywhere, but their right axes stay horizontal: up is what these have least of. When they do
    not span a plane (all cameras look the same way), it is the mean of the cameras' own up axes.
    """
    axes = np.stack([camera.viewmat[:3, :3] for camera in cameras])
    mean = -axes[:, 1].sum(axis=0)
    spread, directions = np.linalg.eigh(axes[:, 0].T @ axes[:, 0] / len(cameras))
    if spread[1] < 1e-3 or abs(directions[:, 0] @ mean) < 0.5 * np.linalg.norm(mean):
        length = np.linalg.norm(mean)
        return np.asarray(mean / length) if length > 1e-9 else np.asarray(-axes[0, 1])
    up = directions[:, 0]
    return np.asarray(up if up @ mean > 0 else -up)


def point_ahead(camera: Camera, distance: float) -> Vector:
    """The point of the world at ``distance`` along the camera's optical axis, float64 [3]."""
    return np.asarray(camera.center + distance * camera.forward)


def orbit(camera: Camera, pivot: Vector, up: Vector, azimuth: float, elevation: float) -> Camera:
    """Walk around the pivot, which keeps its place in the picture.

    Args:
        azimuth: turn about ``up``; positive moves the camera to its right (and turns the scene to the left).
        elevation: positive moves the camera upwards; stops `POLE` before the axis through ``up``.
    """
    tilt = np.arccos(np.clip(camera.forward @ up, -1.0, 1.0))  # 0 looks up, pi looks down
    # A camera beyond the limit may only turn back from it.
    elevation = np.clip(elevation, min(0.0, POLE - tilt), max(0.0, np.pi - POLE - tilt))
    # Moving up means turning down around the pivot, about the camera's right axis.
    lift = Rotation.from_rotvec(-elevation * camera.viewmat[0, :3])
    around = Rotation.from_rotvec(azimuth * up)
    return _turned(camera, pivot, around * lift)


def roll(camera: Camera, angle: float) -> Camera:
    """Turn the camera about its optical axis, clockwise as seen from behind it."""
    return _turned(camera, camera.center, Rotation.from_rotvec(angle * camera.forward))


def pan(camera: Camera, pivot: Vector, dx: float, dy: float) -> tuple[Camera, Vector]:
    """Move camera and pivot sideways, so that what is as far away as the pivot moves with the pointer.

    Args:
        dx, dy: how far the picture moves to the right and down, in pixels of ``camera``.

    Returns:
        The camera and the pivot, which is where it was in the picture.
    """
    depth = _depth(camera, pivot)
    right, down = camera.viewmat[0, :3], camera.viewmat[1, :3]
    step = -depth * (dx / camera.K[0, 0] * right + dy / camera.K[1, 1] * down)
    return _moved(camera, step), pivot + step


def zoom(camera: Camera, pivot: Vector, factor: float, nearest: float = 1e-3) -> Camera:
    """Move towards the pivot until the distance to it is divided by ``factor`` > 0; the lens stays as it is.

    Args:
        nearest: the camera does not come closer to the pivot than this.
    """
    offset = camera.center - pivot
    distance = float(np.linalg.norm(offset))
    if distance < 1e-12:
        return camera
    wanted = max(distance / factor, min(nearest, distance))
    return _moved(camera, offset * (wanted / distance - 1.0))


def _depth(camera: Camera, pivot: Vector) -> float:
    """How far in front of the camera the pivot is; its distance if it is beside or behind."""
    depth = float(camera.viewmat[2, :3] @ pivot + camera.viewmat[2, 3])
    distance = float(np.linalg.norm(pivot - camera.center))
    return depth if depth > 0.05 * distance else distance


def _moved(camera: Camera, step: Vector) -> Camera:
    viewmat = camera.viewmat.copy()
    viewmat[:3, 3] -= viewmat[:3, :3] @ step
    return replace(camera, viewmat=viewmat)


def _turned(camera: Camera, pivot: Vector, rotation: Rotation) -> Camera:
    """The camera carried around the pivot by a rotation of the world."""
    turn = rotation.as_matrix()
    viewmat = np.eye(4)
    # Thousands of small turns add up to a matrix that is no rotation any more, hence the clean-up.
    viewmat[:3, :3] = Rotation.from_matrix(camera.viewmat[:3, :3] @ turn.T).as_matrix()
    center = pivot + turn @ (camera.center - pivot)
    viewmat[:3, 3] = -viewmat[:3, :3] @ center
    return replace(camera, viewmat=viewmat)
