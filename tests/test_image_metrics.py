"""PSNR and SSIM against their formulas, and their means over held-out views."""

import numpy as np
import pytest
from scipy import ndimage

from encoders.errors import InputError
from splat.evaluate import ViewScore, evaluate_views
from splat.image_metrics import psnr, ssim
from splat.scene.cameras import Camera


def camera(name, width=60, height=40):
    return Camera(name, width, height, np.diag([50.0, 50.0, 1.0]), np.eye(4))


def noisy_pair(height=37, width=50):
    rng = np.random.default_rng(0)
    truth = ndimage.gaussian_filter(rng.uniform(size=(height, width, 3)), (2, 2, 0))
    truth = (truth - truth.min()) / (truth.max() - truth.min())
    return np.clip(truth + rng.normal(scale=0.05, size=truth.shape), 0, 1), truth


def test_psnr_is_the_formula():
    picture, truth = noisy_pair()
    assert psnr(picture, truth) == pytest.approx(-10 * np.log10(np.mean((picture - truth) ** 2)), abs=1e-6)
    half = np.full((20, 20, 3), 128, np.uint8)
    assert psnr(half, half.astype(np.float32) / 255) > 99
    assert psnr(half, half + np.uint8(2)) == pytest.approx(20 * np.log10(255 / 2), abs=1e-6)


def test_ssim_is_the_formula_with_a_gaussian_window():
    """Wang et al. 2004, eq. 13, with the window laid over every position where it fits."""
    picture, truth = noisy_pair()
    axis = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(axis, axis) / axis.sum() ** 2
    values = []
    for channel in range(3):
        a, b = (np.lib.stride_tricks.sliding_window_view(p[..., channel], (11, 11)) for p in (picture, truth))
        mean_a, mean_b = (np.einsum("yxij,ij->yx", w, window) for w in (a, b))
        var_a = np.einsum("yxij,ij->yx", a * a, window) - mean_a**2
        var_b = np.einsum("yxij,ij->yx", b * b, window) - mean_b**2
        cov = np.einsum("yxij,ij->yx", a * b, window) - mean_a * mean_b
        c1, c2 = 0.01**2, 0.03**2
        top = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
        values.append(top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))
    assert ssim(picture, truth) == pytest.approx(np.mean(values), abs=1e-6)
    assert ssim(truth, truth) == pytest.approx(1)
    with pytest.raises(InputError, match="larger --scale"):
        ssim(picture[:10], truth[:10])


class TwoViews:
    """As much of a `Scene` as scoring its views needs."""

    def __init__(self, truth):
        self.cameras = [camera("a"), camera("b"), camera("c")]
        self.test = [0, 2]
        self.truth = truth

    def image(self, index):
        return self.truth[index]


def test_views_are_averaged_and_watched():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 256, size=(3, 40, 60, 3), dtype=np.uint8)
    rendered = {name: rng.uniform(-0.2, 1.2, size=(40, 60, 3)).astype(np.float32) for name in "abc"}
    seen: list[ViewScore] = []
    result = evaluate_views(lambda view: rendered[view.name], TwoViews(truth), watch=seen.append)
    expected = [
        -10 * np.log10(np.mean((np.clip(rendered[name], 0, 1) - truth[index] / 255) ** 2))
        for name, index in (("a", 0), ("c", 2))
    ]
    assert result["psnr"] == pytest.approx(np.mean(expected), abs=1e-5)
    assert [score.camera.name for score in seen] == ["a", "c"]
    assert [score.psnr for score in seen] == pytest.approx(expected, abs=1e-5)
    assert seen[1].rendered.dtype == np.uint8
    scene = TwoViews(truth)
    scene.test = []
    assert evaluate_views(lambda view: rendered[view.name], scene) == {}
