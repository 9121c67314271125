"""The RGB fit on a scene made of Gaussians, so that the truth is known exactly."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from encoders.checkpoints import previous_path
from encoders.errors import InputError
from splat.fit_checkpoint import load_checkpoint
from splat.fit_rgb import RgbConfig, fit_rgb, initial_gaussians
from splat.gaussians import Gaussians
from splat.image_metrics import psnr
from splat.rasterize import rasterize_rgb
from splat.scene.cameras import Camera, stack
from splat.scene.scene import Scene

CONFIG = replace(
    RgbConfig.preset("fast"), iterations=150, refine_start=30, refine_stop=120, refine_every=30, coarse_until=40,
    sh_every=60, checkpoint_seconds=0.0, max_gaussians=2000,
)  # fmt: skip


def render(gaussians: Gaussians, camera: Camera) -> np.ndarray:
    with torch.no_grad():
        rgb, _, _, _ = rasterize_rgb(*gaussians.geometry, gaussians.sh, *stack([camera]), camera.width, camera.height)
    return rgb[0].clamp(0, 1).numpy()


def cameras(count: int) -> list[Camera]:
    views = []
    for i in range(count):
        angle = 0.5 * (i / (count - 1) - 0.5)
        viewmat = np.eye(4)
        viewmat[:3, :3] = [
            [math.cos(angle), 0, math.sin(angle)],
            [0, 1, 0],
            [-math.sin(angle), 0, math.cos(angle)],
        ]
        viewmat[:3, 3] = [0.0, 0.05 * math.sin(3 * i), 3.0]
        views.append(Camera(f"view_{i}", 64, 48, np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]]), viewmat))
    return views


@pytest.fixture(scope="module")
def scene() -> Scene:
    g = torch.Generator().manual_seed(0)
    points = (torch.rand(300, 3, generator=g).numpy() - 0.5) * [3.0, 2.0, 0.6]
    colors = (np.random.default_rng(0).random((300, 3)) * 255).astype(np.uint8)
    truth = initial_gaussians(points, colors, 0.8)
    views = cameras(9)
    images = [(render(truth, camera) * 255).round().astype(np.uint8) for camera in views]
    noise = np.random.default_rng(1).normal(scale=0.05, size=points.shape)
    return Scene(
        Path("made"), views, [0, 1, 2, 3, 5, 6, 7, 8], [4], (points + noise).astype(np.float32),
        np.full((300, 3), 128, np.uint8), "fingerprint", lambda i: images[i],
    )  # fmt: skip


def test_held_out_view_gets_close_to_the_truth(scene: Scene, tmp_path: Path) -> None:
    messages: list[str] = []

    def report(done: int, total: int, text: str) -> None:
        messages.append(f"{done}/{total} {text}")

    start = initial_gaussians(scene.points, scene.point_colors, CONFIG.init_opacity)
    before = psnr(render(start, scene.cameras[4]), scene.image(4))
    gaussians, stats = fit_rgb(scene, CONFIG, tmp_path, report)
    after = psnr(render(gaussians, scene.cameras[4]), scene.image(4))
    assert after > 24.0 > before
    assert len(gaussians) > 300, "nothing was densified"
    assert stats["iterations"] == 150
    assert messages[-1].startswith("150/150 loss 0.")
    assert messages[-1].endswith(f"{len(gaussians):,} Gaussians")


class Killed(Exception):
    pass


def test_a_killed_run_continues_and_ends_the_same(scene: Scene, tmp_path: Path) -> None:
    whole, _ = fit_rgb(scene, CONFIG, tmp_path / "whole")

    def die(done: int, _total: int, _message: str) -> None:
        if done == 77:
            raise Killed

    with pytest.raises(Killed):
        fit_rgb(scene, CONFIG, tmp_path / "cut", die)
    steps: list[int] = []
    torch.rand(5)  # the random state of the process must not matter
    resumed, _ = fit_rgb(scene, CONFIG, tmp_path / "cut", lambda done, _total, _message: steps.append(done))
    assert steps[0] == 77
    for name, value in vars(whole).items():
        assert torch.equal(getattr(resumed, name), value), name


def test_damaged_or_foreign_checkpoints_start_again(scene: Scene, tmp_path: Path) -> None:
    short = replace(CONFIG, iterations=3)
    fit_rgb(scene, short, tmp_path)
    path = tmp_path / "rgb.safetensors"
    data = path.read_bytes()
    steps: list[int] = []
    fit_rgb(scene, replace(short, lr_sh=1e-3), tmp_path, lambda done, _total, _message: steps.append(done))
    path.write_bytes(data[:100])
    previous_path(path).write_bytes(data[:-1])
    fit_rgb(scene, short, tmp_path, lambda done, _total, _message: steps.append(done))
    assert steps == [1, 2, 3, 0, 1, 2, 3]
    assert load_checkpoint(tmp_path / "none", "", torch.nn.ParameterDict(), {}, {}) == (0, "")


def test_first_sizes_are_the_distance_to_three_neighbours() -> None:
    points = np.random.default_rng(3).random((40, 3)).astype(np.float32)
    gaussians = initial_gaussians(points, np.zeros((40, 3), np.uint8), 0.1)
    nearest = np.sort(cdist(points, points), axis=1)[:, 1:4]
    np.testing.assert_allclose(gaussians.scales[:, 0].numpy(), np.sqrt((nearest**2).mean(1)), rtol=1e-4)
    assert float(gaussians.opacities[0]) == pytest.approx(0.1)


def test_impossible_fits_are_refused(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no training views"):
        fit_rgb(replace(scene, train=[]), CONFIG, tmp_path)
    with pytest.raises(InputError, match="at least 4"):
        fit_rgb(replace(scene, points=scene.points[:2], point_colors=scene.point_colors[:2]), CONFIG, tmp_path)
    with pytest.raises(InputError, match="CUDA"):
        fit_rgb(scene, replace(CONFIG, strategy="mcmc"), tmp_path)
    with pytest.raises(InputError, match="choose one of fast, default, paper"):
        RgbConfig.preset("quick")
    with pytest.raises(InputError, match="mcmc strategy needs a CUDA GPU"):
        RgbConfig.preset("fast", strategy="mcmc")


def test_regularisers_make_gaussians_transparent_and_small(scene: Scene, tmp_path: Path) -> None:
    """So heavy that nothing else counts, they move everything against its gradient: by Adam's first step, its rate."""
    one = replace(CONFIG, iterations=1, opacity_reg=1e6, scale_reg=1e6)
    start = initial_gaussians(scene.points, scene.point_colors, CONFIG.init_opacity)
    gaussians, _ = fit_rgb(scene, one, tmp_path)
    torch.testing.assert_close(gaussians.logit_opacities, start.logit_opacities - CONFIG.lr_opacities)
    # They come in another order.
    widths = [scales.sort(dim=0).values for scales in (gaussians.log_scales, start.log_scales - CONFIG.lr_scales)]
    torch.testing.assert_close(*widths)


def test_regularisers_are_means_over_gaussians(scene: Scene, tmp_path: Path) -> None:
    losses = []
    for weights in ((0.0, 0.0), (0.3, 0.0), (0.0, 0.2)):
        config = replace(CONFIG, iterations=1, opacity_reg=weights[0], scale_reg=weights[1], init_opacity=0.25)
        losses.append(float(fit_rgb(scene, config, tmp_path / str(weights))[1]["loss"]))
    widths = initial_gaussians(scene.points, scene.point_colors, 0.25).scales
    assert losses[1] - losses[0] == pytest.approx(0.3 * 0.25, rel=1e-4)
    assert losses[2] - losses[0] == pytest.approx(0.2 * float(widths.mean()), rel=1e-3)


@pytest.mark.parametrize(("name", "stop"), [("fast", 1666), ("default", 5833), ("paper", 25_000)])
def test_mcmc_comes_with_its_own_settings(name: str, stop: int) -> None:
    config = RgbConfig.preset(name, device="cuda", strategy="mcmc")
    assert (config.init_opacity, config.init_scale, config.opacity_reg, config.scale_reg) == (0.5, 0.1, 0.01, 0.01)
    assert config.refine_stop == stop
    plain = RgbConfig.preset(name, device="cuda")
    assert (plain.init_opacity, plain.init_scale, plain.opacity_reg, plain.scale_reg) == (0.1, 1.0, 0.0, 0.0)


def test_first_gaussians_can_be_made_smaller() -> None:
    points, colors = np.random.default_rng(3).random((40, 3)), np.zeros((40, 3), np.uint8)
    small, large = (initial_gaussians(points, colors, 0.1, scale).scales for scale in (0.1, 1.0))
    torch.testing.assert_close(small, 0.1 * large)
