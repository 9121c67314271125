"""Optimises 3D Gaussians so that their renders look like the photos (3DGS, Kerbl et al. 2023).

The loss, learning rates and schedules are those of 3DGS; gsplat's strategies decide where Gaussians are added and
removed. The run can be killed at any time: it continues from its last checkpoint.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gsplat.strategy import DefaultStrategy, MCMCStrategy
from gsplat.strategy.ops import reset_opa
from scipy.spatial import cKDTree
from torch import Tensor

from encoders.errors import InputError
from encoders.progress import Report, silent
from splat.fit_checkpoint import load_checkpoint, save_checkpoint
from splat.fit_views import FitViews, RecentFit
from splat.gaussians import SH_BASES, SH_C0, Gaussians
from splat.photometric import photometric_loss
from splat.preview import PREVIEW_SECONDS, write_preview
from splat.rasterize import rasterize_rgb
from splat.rgb_config import RgbConfig
from splat.scene.scene import Scene

__all__ = ["RgbConfig", "fit_rgb", "initial_gaussians"]

MIN_POINTS = 4
"""Fewer starting points than this cannot give a Gaussian a size from its three neighbours."""


def initial_gaussians(points: np.ndarray, colors: np.ndarray, opacity: float, scale: float = 1.0) -> Gaussians:
    """Round Gaussians on points, as wide as the mean distance to their three nearest neighbours (3DGS).

    Args:
        points: [P, 3] with P >= 4.
        colors: uint8 [P, 3].
        opacity: in 0..1.
        scale: their width is multiplied by it.
    """
    if len(points) < MIN_POINTS:
        raise InputError(f"The scene has {len(points)} points to start from; at least {MIN_POINTS} are needed.")
    distances, _ = cKDTree(points).query(points, k=4)
    width = scale * np.sqrt(np.clip((distances[:, 1:] ** 2).mean(axis=1), 1e-7, None))
    count = len(points)
    quats = torch.zeros(count, 4)
    quats[:, 0] = 1.0
    sh = torch.zeros(count, SH_BASES, 3)
    sh[:, 0] = torch.from_numpy((colors.astype(np.float32) / 255.0 - 0.5) / SH_C0)
    return Gaussians(
        means=torch.from_numpy(points.astype(np.float32)),
        quats=quats,
        log_scales=torch.from_numpy(np.log(width).astype(np.float32))[:, None].repeat(1, 3),
        logit_opacities=torch.full((count,), math.log(opacity / (1.0 - opacity))),
        sh=sh,
    )


@dataclass
class _Fit:
    """Parameters with their optimisers, as gsplat's strategies want them: one Adam per parameter."""

    params: torch.nn.ParameterDict
    optimizers: dict[str, torch.optim.Optimizer]

    @staticmethod
    def start(gaussians: Gaussians, config: RgbConfig, extent: float) -> "_Fit":
        gaussians = gaussians.to(config.device)
        values = {
            "means": gaussians.means,
            "scales": gaussians.log_scales,
            "quats": gaussians.quats,
            "opacities": gaussians.logit_opacities,
            "sh0": gaussians.sh[:, :1],
            "shN": gaussians.sh[:, 1:],
        }
        rates = {
            "means": config.lr_means * extent,
            "scales": config.lr_scales,
            "quats": config.lr_quats,
            "opacities": config.lr_opacities,
            "sh0": config.lr_sh,
            "shN": config.lr_sh / 20.0,
        }
        params = torch.nn.ParameterDict({k: torch.nn.Parameter(v.clone().contiguous()) for k, v in values.items()})
        optimizers: dict[str, torch.optim.Optimizer] = {
            k: torch.optim.Adam([{"params": p, "lr": rates[k], "name": k}], eps=1e-15, fused=True)
            for k, p in params.items()
        }
        return _Fit(params, optimizers)

    def gaussians(self) -> Gaussians:
        p = {name: value.detach() for name, value in self.params.items()}
        return Gaussians(p["means"], p["quats"], p["scales"], p["opacities"], torch.cat([p["sh0"], p["shN"]], dim=1))

    def penalty(self, config: RgbConfig) -> Tensor | float:
        """3DGS-MCMC's regularisers (section 3.3), with gsplat's means over all Gaussians."""
        total: Tensor | float = 0.0
        if config.opacity_reg:
            total = total + config.opacity_reg * self.params["opacities"].sigmoid().mean()
        if config.scale_reg:
            total = total + config.scale_reg * self.params["scales"].exp().mean()
        return total

    def render(
        self, viewmats: Tensor, Ks: Tensor, width: int, height: int, degree: int, packed: bool, absgrad: bool
    ) -> tuple[Tensor, dict[str, Any]]:
        p = self.params
        bases = (degree + 1) ** 2
        sh = torch.cat([p["sh0"], p["shN"][:, : bases - 1]], dim=1) if degree else p["sh0"]
        rgb, _, _, info = rasterize_rgb(
            p["means"], p["quats"], p["scales"].exp(), p["opacities"].sigmoid(), sh, viewmats, Ks, width, height,
            sh_degree=degree, packed=packed, absgrad=absgrad,
        )  # fmt: skip
        return rgb[0], info


def _strategy(config: RgbConfig) -> DefaultStrategy | MCMCStrategy:
    if config.strategy == "mcmc":
        return MCMCStrategy(
            cap_max=config.max_gaussians,
            refine_start_iter=config.refine_start,
            refine_stop_iter=config.refine_stop,
            refine_every=config.refine_every,
        )
    return DefaultStrategy(
        grow_grad2d=config.grow_grad2d,
        absgrad=config.absgrad,
        refine_start_iter=config.refine_start,
        refine_stop_iter=config.refine_stop,
        refine_every=config.refine_every,
        # Pruning by world size starts after this; opacities are reset by `fit_rgb`, see there.
        reset_every=config.reset_every or config.refine_stop,
    )


def _order(views: list[int], epoch: int, seed: int) -> list[int]:
    """A fresh permutation per epoch that depends on nothing else, so that a resumed run sees the same views."""
    generator = np.random.default_rng((seed, epoch))
    return [views[i] for i in generator.permutation(len(views))]


def fit_rgb(
    scene: Scene, config: RgbConfig, checkpoint_dir: Path, report: Report = silent
) -> tuple[Gaussians, dict[str, float | int]]:
    """Fit Gaussians to the training views of ``scene``.

    Args:
        checkpoint_dir: where the run leaves checkpoints; an interrupted run with the same settings continues there.
            Beside them, ``preview.jpg`` shows a view as it is now (`splat.preview`).
        report: told the step, and loss, PSNR of the last views and number of Gaussians; on a GPU, loss and PSNR lag
            up to `splat.fit_views.READ_EVERY` steps.

    Returns:
        The Gaussians, on the CPU and in spatial order, and ``iterations``, ``loss`` and ``train_psnr`` (dB), means of
        the last 50 steps.

    Raises:
        InputError: no training views, or too few points.
    """
    if not scene.train:
        raise InputError(f"{scene.path} has no training views; give it more photos.")
    torch.manual_seed(config.seed)
    extent = scene.extent
    start = initial_gaussians(scene.points, scene.point_colors, config.init_opacity, config.init_scale)
    fit = _Fit.start(start, config, extent)
    strategy = _strategy(config)
    strategy.check_sanity(fit.params, fit.optimizers)
    # 3DGS widens the camera radius by 10 % once more for the densification thresholds; `extent` has it already.
    state = (
        strategy.initialize_state(scene_scale=extent) if config.strategy == "default" else strategy.initialize_state()
    )
    checkpoint = checkpoint_dir / "rgb.safetensors"
    # Without the device: a run may go on on another one.
    identity = f"{replace(config, device='cuda')!r} {scene.fingerprint} {len(scene.points)}"
    first_step, note = load_checkpoint(checkpoint, identity, fit.params, fit.optimizers, state)
    if note:
        report(first_step, config.iterations, note)

    decay = (config.lr_means_final / config.lr_means) ** (1.0 / config.iterations)
    views, recent = FitViews(scene, config.device), RecentFit(config.device)
    order, order_epoch = scene.train, -1
    saved, shown = time.monotonic(), -math.inf
    for step in range(first_step, config.iterations):
        epoch, position = divmod(step, len(scene.train))
        if epoch != order_epoch:
            order, order_epoch = _order(scene.train, epoch, config.seed), epoch
        truth, viewmats, Ks = views[order[position], step < config.coarse_until]
        degree = min(config.sh_degree, step // config.sh_every)
        packed = truth.is_cuda and len(fit.params["means"]) >= config.packed_from
        height, width, _ = truth.shape
        image, info = fit.render(viewmats, Ks, width, height, degree, packed, config.absgrad)
        loss = photometric_loss(image, truth, config.ssim_weight) + fit.penalty(config)
        fit.optimizers["means"].param_groups[0]["lr"] = config.lr_means * extent * decay**step
        _step_strategy(strategy, fit, state, step, info, config, loss.backward, packed)
        for optimizer in fit.optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        recent.add(loss.detach(), image, truth)
        mean_loss, mean_psnr = recent.means
        count = len(fit.params["means"])
        report(step + 1, config.iterations, f"loss {mean_loss:.4f}  PSNR {mean_psnr:.1f} dB  {count:,} Gaussians")
        if time.monotonic() - saved > config.checkpoint_seconds:
            save_checkpoint(checkpoint, identity, step + 1, fit.params, fit.optimizers, state)
            saved = time.monotonic()
        if time.monotonic() - shown > PREVIEW_SECONDS or step + 1 == config.iterations:
            write_preview(checkpoint_dir / "preview.jpg", image, truth)
            shown = time.monotonic()
    save_checkpoint(checkpoint, identity, config.iterations, fit.params, fit.optimizers, state)
    stats: dict[str, float | int] = {"iterations": config.iterations}
    if first_step < config.iterations:
        recent.read()
        stats["loss"], stats["train_psnr"] = recent.means
    return fit.gaussians().to("cpu").in_spatial_order(), stats


def _step_strategy(
    strategy: DefaultStrategy | MCMCStrategy,
    fit: _Fit,
    state: dict[str, Any],
    step: int,
    info: dict[str, Any],
    config: RgbConfig,
    backward: Callable[[], None],
    packed: bool,
) -> None:
    """The strategy's two callbacks around the backward pass, with the bounds gsplat leaves to the caller."""
    if isinstance(strategy, MCMCStrategy):
        backward()
        rate = fit.optimizers["means"].param_groups[0]["lr"]
        strategy.step_post_backward(fit.params, fit.optimizers, state, step, info, lr=rate)
        return
    strategy.grow_grad2d = config.grow_grad2d if len(fit.params["means"]) < config.max_gaussians else math.inf
    strategy.step_pre_backward(fit.params, fit.optimizers, state, step, info)
    backward()
    strategy.step_post_backward(fit.params, fit.optimizers, state, step, info, packed=packed)
    # gsplat 1.5 writes this condition with a bitwise and, which is never true.
    if config.reset_every and 0 < step < config.refine_stop and step % config.reset_every == 0:
        reset_opa(fit.params, fit.optimizers, state, value=2.0 * strategy.prune_opa)
