"""Orbit, pan and zoom against closed forms: where points of the world must appear in the picture afterwards."""

from dataclasses import replace

import numpy as np
import pytest

from splat.scene.cameras import Camera
from splat.scene.demo import demo_cameras
from splat.scene.orbit import orbit, pan, point_ahead, roll, scene_up, zoom

UP = np.array([0.0, 0.0, 1.0])
K = np.array([[400.0, 0.0, 240.0], [0.0, 410.0, 180.0], [0.0, 0.0, 1.0]])


def level(eye=(0.0, -4.0, 1.5)) -> Camera:
    """At (0, -4, 1.5), looking along +y, z up."""
    viewmat = np.eye(4)
    viewmat[:3, :3] = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
    viewmat[:3, 3] = -viewmat[:3, :3] @ np.asarray(eye)
    return Camera("level", 480, 360, K, viewmat)


def pixel(camera: Camera, point) -> np.ndarray:
    homogeneous = camera.K @ (camera.viewmat[:3, :3] @ np.asarray(point) + camera.viewmat[:3, 3])
    return homogeneous[:2] / homogeneous[2]


def is_rotation(camera: Camera) -> bool:
    turn = camera.viewmat[:3, :3]
    return np.allclose(turn @ turn.T, np.eye(3), atol=1e-12) and np.linalg.det(turn) > 0


def test_a_quarter_turn_walks_to_the_right_side():
    pivot = np.array([0.0, 0.0, 1.5])
    moved = orbit(level(), pivot, UP, np.pi / 2, 0.0)
    np.testing.assert_allclose(moved.center, [4.0, 0.0, 1.5], atol=1e-12)
    np.testing.assert_allclose(moved.forward, [-1.0, 0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(moved.viewmat[1, :3], -UP, atol=1e-12)


def test_elevation_climbs_on_a_circle_and_keeps_the_pivot_in_place():
    pivot = np.array([0.2, 0.0, 1.4])
    camera = level()
    moved = orbit(camera, pivot, UP, 0.0, 0.5)
    offset = camera.center - pivot
    expected = [offset[0], offset[1] * np.cos(0.5) + offset[2] * np.sin(0.5), offset[2] * np.cos(0.5) + 4 * np.sin(0.5)]
    np.testing.assert_allclose(moved.center - pivot, expected, atol=1e-12)
    np.testing.assert_allclose(pixel(moved, pivot), pixel(camera, pivot), atol=1e-9)


def test_many_small_turns_are_one_large_turn_and_stay_rotations():
    pivot = np.array([0.1, 0.3, 0.9])
    small = level()
    for _ in range(500):
        small = orbit(small, pivot, UP, 0.002, 0.001)
    large = orbit(level(), pivot, UP, 1.0, 0.5)
    assert is_rotation(small)
    np.testing.assert_allclose(small.viewmat, large.viewmat, atol=1e-9)


@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_the_camera_stops_before_the_pole_and_comes_back(direction):
    pivot = np.array([0.0, 0.0, 1.5])
    top = level()
    for _ in range(100):
        top = orbit(top, pivot, UP, 0.0, direction * 0.1)
    assert np.degrees(np.arccos(abs(top.forward @ UP))) == pytest.approx(3.0, abs=1e-6)
    assert top.viewmat[0, 0] > 0.999  # never upside down: its right is still the world's
    back = orbit(top, pivot, UP, 0.0, -direction * np.radians(87.0))
    np.testing.assert_allclose(back.viewmat, level().viewmat, atol=1e-9)


def test_pan_moves_what_is_as_deep_as_the_pivot_with_the_pointer():
    camera, pivot = orbit(level(), np.zeros(3), UP, 0.4, 0.3), np.array([0.3, 0.2, 0.8])
    moved, carried = pan(camera, pivot, 25.0, -40.0)
    np.testing.assert_allclose(pixel(moved, pivot), pixel(camera, pivot) + np.array([25.0, -40.0]), atol=1e-9)
    np.testing.assert_allclose(pixel(moved, carried), pixel(camera, pivot), atol=1e-9)
    np.testing.assert_array_equal(moved.viewmat[:3, :3], camera.viewmat[:3, :3])


def test_zoom_divides_the_distance_and_stops_at_the_nearest():
    camera, pivot = level(), np.array([0.0, 0.0, 1.5])
    np.testing.assert_allclose(zoom(camera, pivot, 2.0).center, [0.0, -2.0, 1.5], atol=1e-12)
    np.testing.assert_allclose(zoom(zoom(camera, pivot, 2.0), pivot, 0.5).viewmat, camera.viewmat, atol=1e-12)
    assert np.linalg.norm(zoom(camera, pivot, 1e9, nearest=0.25).center - pivot) == pytest.approx(0.25)
    at_pivot = replace(camera, viewmat=level(pivot).viewmat)
    assert zoom(at_pivot, pivot, 2.0) is at_pivot


def test_roll_turns_the_picture_about_its_centre():
    camera = level()
    turned = roll(camera, np.pi / 2)
    np.testing.assert_allclose(turned.center, camera.center, atol=1e-12)
    # Clockwise from behind: what was to the camera's right is now up.
    np.testing.assert_allclose(turned.viewmat[0, :3], -UP, atol=1e-12)


def test_up_is_found_from_how_cameras_are_held():
    cameras = [Camera(name, 480, 360, K, viewmat) for name, viewmat in demo_cameras(12, 2).items()]
    np.testing.assert_allclose(scene_up(cameras), UP, atol=1e-9)
    tilted = np.array([[1, 0, 0], [0, 0.6, -0.8], [0, 0.8, 0.6]])
    turned = [replace(c, viewmat=c.viewmat @ np.block([[tilted, np.zeros((3, 1))], [0, 0, 0, 1]])) for c in cameras]
    np.testing.assert_allclose(scene_up(turned), tilted.T @ UP, atol=1e-9)
    # Cameras that all look the same way say no more than their own upright.
    np.testing.assert_allclose(scene_up([level(), level((1.0, -4.0, 2.0))]), UP, atol=1e-12)


def test_the_point_ahead_is_in_the_middle_of_the_picture():
    camera = orbit(level(), np.zeros(3), UP, 0.7, 0.2)
    point = point_ahead(camera, 3.0)
    np.testing.assert_allclose(pixel(camera, point), [240.0, 180.0], atol=1e-9)
    assert np.linalg.norm(point - camera.center) == pytest.approx(3.0)
