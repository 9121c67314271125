"""`.splat` files byte by byte, and where a browser's camera sees what the visitor saw."""

import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from test_orbit import UP, level
from test_query import make_scene

from splat.scene.orbit import orbit
from splat.web_splat import placed, save_splat


def test_rows_hold_what_the_gaussians_are(tmp_path):
    gaussians, _ = make_scene(40)
    save_splat(tmp_path / "scene.splat", gaussians)
    content = (tmp_path / "scene.splat").read_bytes()
    assert len(content) == 40 * 32
    rows = [struct.unpack("<6f8B", content[start : start + 32]) for start in range(0, len(content), 32)]
    means = np.array([row[:3] for row in rows])
    order = [int(np.abs(gaussians.means.numpy() - mean).sum(1).argmin()) for mean in means]
    assert sorted(order) == list(range(40))
    np.testing.assert_array_equal(means, gaussians.means.numpy()[order])
    scales = np.exp(gaussians.log_scales.double().numpy())[order]
    np.testing.assert_allclose([row[3:6] for row in rows], scales, rtol=1e-6)
    colors = np.clip(0.5 + 0.28209479177387814 * gaussians.sh[:, 0].double().numpy(), 0, 1)[order] * 255
    np.testing.assert_allclose([row[6:9] for row in rows], colors, atol=0.51)
    alphas = 255 / (1 + np.exp(-gaussians.logit_opacities.double().numpy()))[order]
    np.testing.assert_allclose([row[9] for row in rows], alphas, atol=0.51)
    decoded = (np.array([row[10:14] for row in rows]) - 128.0) / 128.0
    quats = gaussians.quats.double().numpy()[order]
    cosines = (decoded * quats).sum(1) / np.linalg.norm(decoded, axis=1) / np.linalg.norm(quats, axis=1)
    assert cosines.min() > 0.9995
    shows = alphas * np.sort(scales, axis=1)[:, 1:].prod(1)
    assert (np.diff(shows) <= 1e-3 * shows[:-1]).all()


def viewer_axes(azimuth: float, tilt: float, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Where gsplat.js puts its camera, and its axes (right, down, forward) as rows; it looks at the origin."""
    position = distance * np.array([np.sin(azimuth) * np.cos(tilt), -np.sin(tilt), -np.cos(azimuth) * np.cos(tilt)])
    forward = -position / distance
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    return position, np.stack([right, np.cross(forward, right), forward])


@pytest.mark.parametrize("azimuth", [0.0, 0.5])
def test_a_level_view_is_the_same_view_in_the_browser(azimuth):
    gaussians, _ = make_scene(60)
    pivot = np.array([0.3, -0.2, 1.1])
    camera = orbit(level((0.3, -4.2, 1.1)), pivot, UP, 0.7, 0.0)
    moved = placed(gaussians, camera, pivot, UP, azimuth, 5.0)
    position, axes = viewer_axes(azimuth, 0.0, 5.0)
    seen = (moved.means.double().numpy() - position) @ axes.T
    expected = gaussians.means.double().numpy() @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]
    np.testing.assert_allclose(seen, expected * 5.0 / 4.0, atol=1e-4)
    torch.testing.assert_close(moved.scales, gaussians.scales * 1.25, rtol=1e-4, atol=0)
    # Ellipsoids turn with their centres.
    turn = axes.T @ camera.viewmat[:3, :3]
    for quat, was in zip(moved.quats.numpy(), gaussians.quats.numpy(), strict=True):
        found = Rotation.from_quat(quat, scalar_first=True).as_matrix()
        start = Rotation.from_quat(was, scalar_first=True).as_matrix()
        np.testing.assert_allclose(found, turn @ start, atol=1e-5)
    assert not moved.sh[:, 1:].any()
    torch.testing.assert_close(moved.sh[:, 0], gaussians.sh[:, 0])


def test_up_is_up_from_above_and_from_straight_above():
    gaussians, _ = make_scene(10)
    pivot = np.zeros(3)
    gaussians.means[0] = torch.tensor([0.0, 0.0, 1.0])
    steep = orbit(level((0.0, -4.0, 0.0)), pivot, UP, 0.0, np.radians(60))
    straight = np.eye(4)
    straight[:3, :3], straight[:3, 3] = [[1, 0, 0], [0, -1, 0], [0, 0, -1]], [0, 0, 4.0]
    for camera in (steep, replace(steep, viewmat=straight)):
        moved = placed(gaussians, camera, pivot, UP, 0.0, 4.0)
        np.testing.assert_allclose(moved.means[0], [0.0, -1.0, 0.0], atol=1e-5)
        right = placed(replace(gaussians, means=torch.tensor([[1.0, 0, 0]] * 10)), camera, pivot, UP, 0.0, 4.0)
        np.testing.assert_allclose(right.means[0], [1.0, 0.0, 0.0], atol=1e-5)
