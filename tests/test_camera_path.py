"""Camera paths: they visit the cameras they were given, and move evenly in between."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from encoders.errors import InputError
from splat.scene.camera_path import sway, through
from splat.scene.cameras import Camera

K = np.array([[100.0, 0.0, 60.0], [0.0, 100.0, 40.0], [0.0, 0.0, 1.0]])
UP = np.array([0.0, 0.0, 1.0])


def looking(center, turn: Rotation, K=K, size=(120, 80)) -> Camera:
    """A camera whose axes are the columns of ``turn``."""
    viewmat = np.eye(4)
    viewmat[:3, :3] = turn.as_matrix().T
    viewmat[:3, 3] = -viewmat[:3, :3] @ np.asarray(center, float)
    return Camera("key", *size, K, viewmat)


def keys() -> list[Camera]:
    turns = Rotation.from_euler("xyz", [[0, 0, 0], [0.1, 0.5, 0], [0.3, 0.9, 0.1], [0.0, 1.6, 0.0]])
    centers = [[0, 0, 0], [1, 0.2, 0], [2, 0.0, 0.4], [3, -0.5, 0.2]]
    return [looking(center, turn) for center, turn in zip(centers, turns, strict=True)]


def test_two_cameras_are_joined_at_constant_speed():
    turn = Rotation.from_rotvec([0.0, 0.0, 1.2])
    path = through([looking([0, 0, 0], Rotation.identity()), looking([2, 4, 0], turn)], 5)
    for step, camera in enumerate(path):
        np.testing.assert_allclose(camera.center, np.array([2, 4, 0]) * step / 4, atol=1e-9)
        expected = Rotation.from_rotvec([0.0, 0.0, 1.2 * step / 4]).as_matrix()
        np.testing.assert_allclose(camera.viewmat[:3, :3].T, expected, atol=1e-9)


def test_a_path_visits_its_cameras_without_jumps():
    given = keys()
    path = through(given, 400)
    np.testing.assert_allclose(path[0].viewmat, given[0].viewmat, atol=1e-9)
    np.testing.assert_allclose(path[-1].viewmat, given[-1].viewmat, atol=1e-9)
    centers = np.stack([camera.center for camera in path])
    turns = Rotation.from_matrix(np.stack([camera.viewmat[:3, :3].T for camera in path]))
    for key in given[1:-1]:
        nearest = int(np.linalg.norm(centers - key.center, axis=1).argmin())
        assert np.linalg.norm(centers[nearest] - key.center) < 0.01
        assert (Rotation.from_matrix(key.viewmat[:3, :3]) * turns[nearest]).magnitude() < 0.02
    steps = np.linalg.norm(np.diff(centers, axis=0), axis=1)
    assert steps.max() < 2.5 * np.median(steps)
    # Smooth: from one frame to the next the step itself hardly changes.
    assert np.linalg.norm(np.diff(centers, 2, axis=0), axis=1).max() < 0.05 * np.median(steps)
    assert len({camera.name for camera in path}) == 400


def test_pictures_of_another_size_are_cut_not_squeezed():
    wide = looking([0, 0, 0], Rotation.identity())
    tall = looking([1, 0, 0], Rotation.identity(), K * [[2], [2], [1]], (120, 160))
    last = through([wide, tall], 3)[-1]
    assert (last.width, last.height) == (120, 80)
    # At half its size the tall picture is 60 wide, so that 30 columns are added at either side.
    np.testing.assert_allclose(last.K, [[100, 0, 60 + 30], [0, 100, 40], [0, 0, 1]])


def test_a_path_needs_two_views():
    camera = keys()[0]
    with pytest.raises(InputError, match="two different views"):
        through([camera, replace(camera, name="again")], 10)
    with pytest.raises(InputError, match="two frames"):
        through(keys(), 1)
    assert len(through([keys()[0], keys()[0], keys()[1]], 2)) == 2


def test_sway_is_a_closed_loop_around_the_pivot():
    camera = looking([0, -3, 1], Rotation.from_matrix(np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])))
    pivot = np.array([0.0, 0.0, 1.0])
    path = sway(camera, pivot, UP, 48, reach=0.2)
    np.testing.assert_allclose(path[0].viewmat, camera.viewmat, atol=1e-12)
    distances = [np.linalg.norm(step.center - pivot) for step in path]
    np.testing.assert_allclose(distances, 3.0, atol=1e-9)
    angles = [np.arctan2(step.center[0], -step.center[1]) for step in path]
    assert max(angles) == pytest.approx(0.2, abs=1e-3)
    assert min(angles) == pytest.approx(-0.2, abs=1e-3)
    steps = np.linalg.norm(np.diff([s.center for s in [*path, path[0]]], axis=0), axis=1)
    assert steps[-1] < 1.1 * steps.max()
