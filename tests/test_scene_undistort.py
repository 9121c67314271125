"""Undistortion against OpenCV's own projection, which shares no code with pycolmap's lens models."""

import cv2
import numpy as np
import pytest

from encoders.errors import InputError
from splat.scene.undistort import Lens, pinhole, straighten

W, H = 320, 240
F = (250.0, 255.0, 165.0, 117.0)

LENSES = [
    Lens("OPENCV", W, H, (*F, 0.12, -0.05, 0.002, -0.003)),
    Lens("OPENCV", W, H, (*F, -0.25, 0.06, -0.001, 0.002)),
    Lens("SIMPLE_RADIAL", W, H, (250.0, 165.0, 117.0, -0.1)),
    Lens("FULL_OPENCV", W, H, (*F, -0.2, 0.05, 0.001, 0.001, -0.01, 0.02, 0.0, 0.0)),
    Lens("OPENCV_FISHEYE", W, H, (150.0, 152.0, 165.0, 117.0, 0.05, -0.02, 0.003, -0.001)),
    Lens("OPENCV_FISHEYE", W, H, (150.0, 152.0, 165.0, 117.0, 0.0, 0.0, 0.0, 0.0)),
]


def opencv_project(lens, rays):
    """Where ``lens`` shows the directions rays [N, 3], in OpenCV's pixels (centres at integers)."""
    p = lens.params
    if lens.model == "SIMPLE_RADIAL":
        fx, fy, cx, cy, rest = p[0], p[0], p[1], p[2], (p[3], 0.0, 0.0, 0.0)
    else:
        fx, fy, cx, cy, rest = (*p[:4], p[4:])
    K = np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])
    project = cv2.fisheye.projectPoints if "FISHEYE" in lens.model else None
    zero = np.zeros(3)
    if project is not None:
        return project(rays[None], zero, zero, K, np.array(rest))[0][0]
    return cv2.projectPoints(rays, zero, zero, K, np.array(rest))[0][:, 0]


def block_means(values, size=20):
    height, width = values.shape
    return values.reshape(height // size, size, width // size, size).mean(axis=(1, 3))


@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("lens", LENSES, ids=lambda lens: f"{lens.model}{lens.params[-1]}")
def test_every_pixel_comes_from_where_opencv_says_the_lens_shows_it(lens, scale):
    # The bent image holds its own coordinates as grey values, so that each straight pixel tells where it was.
    y, x = np.mgrid[:H, :W]
    exact = np.stack([x * 255.0 / W, y * 255.0 / H, 0.0 * x], axis=2)
    # Grey values are 1.25 pixels apart; rounding at random keeps their local mean right.
    bent = np.floor(exact + np.random.default_rng(0).random(exact.shape)).astype(np.uint8)
    width, height = int(W * scale), int(H * scale)
    straight = straighten(bent, lens, width, height)
    assert straight.shape == (height, width, 3)
    K = pinhole(lens)
    v, u = (np.mgrid[:height, :width] + 0.5) / scale
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u)], axis=2).reshape(-1, 3)
    expected = opencv_project(lens, rays).reshape(height, width, 2)
    for axis, size in enumerate((W, H)):
        off = straight[:, :, axis] * (size / 255.0) - expected[:, :, axis]
        assert np.abs(off).max() < 3.0
        np.testing.assert_allclose(block_means(off), 0.0, atol=0.25)
        assert abs(off.mean()) < 0.04


@pytest.mark.parametrize("lens", LENSES, ids=lambda lens: f"{lens.model}{lens.params[-1]}")
def test_the_straight_image_shows_only_what_the_lens_saw_and_as_much_as_fits(lens):
    K = pinhole(lens)
    along = np.linspace(0, 1, 50)
    sides = [
        np.stack(side, axis=1) * [W, H]
        for side in [(along * 0, along), (along * 0 + 1, along), (along, along * 0), (along, along * 0 + 1)]
    ]
    slack = []
    for axis, size, side in [(0, W, sides[0]), (0, W, sides[1]), (1, H, sides[2]), (1, H, sides[3])]:
        rays = np.column_stack([(side - K[:2, 2]) / [K[0, 0], K[1, 1]], np.ones(len(side))])
        seen = opencv_project(lens, rays) + 0.5
        assert (seen > -0.1).all()
        assert (seen < [W + 0.1, H + 0.1]).all()
        slack.append(np.minimum(seen[:, axis], size - seen[:, axis]).min())
    np.testing.assert_allclose(slack, 0.0, atol=0.1)  # each side touches the image's border somewhere


@pytest.mark.parametrize(
    "lens",
    [
        Lens("PINHOLE", W, H, F),
        Lens("OPENCV", W, H, (*F, 0.0, 0.0, 0.0, 0.0)),
        Lens("SIMPLE_PINHOLE", W, H, (250.0, 165.0, 117.0)),
    ],
)
def test_without_distortion_no_pixel_is_touched(lens):
    image = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
    assert straighten(image, lens, W, H) is image
    K = pinhole(lens)
    assert (K[0, 0], K[0, 2], K[1, 2]) == (250.0, 165.0, 117.0)


def test_resize_averages_whole_pixels():
    image = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
    small = straighten(image, Lens("PINHOLE", W, H, F), W // 4, H // 4)
    blocks = image.reshape(H // 4, 4, W // 4, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(small, blocks, atol=0.51)


def test_a_wide_fisheye_is_cut_to_a_usable_pinhole():
    lens = Lens("OPENCV_FISHEYE", 400, 400, (130.0, 130.0, 200.0, 200.0, 0.0, 0.0, 0.0, 0.0))  # about 176 degrees
    K = pinhole(lens)
    assert 2 * np.degrees(np.arctan(200 / K[0, 0])) == pytest.approx(130.0, abs=0.5)


def test_a_lens_is_resized_with_its_image():
    lens = LENSES[0].resized(W // 2, H // 2)
    np.testing.assert_allclose(lens.params[:4], np.array(F) / 2)
    assert lens.params[4:] == LENSES[0].params[4:]


def test_a_lens_that_folds_the_image_is_refused():
    with pytest.raises(InputError, match="OPENCV lens"):
        pinhole(Lens("OPENCV", W, H, (*F, -50.0, 80.0, 0.0, 3.0)))
