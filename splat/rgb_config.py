"""How a scene of Gaussians is optimised: 3DGS's schedule, and shorter ones for a plain CPU."""

from dataclasses import dataclass, replace
from typing import Literal

from encoders.errors import InputError


@dataclass(frozen=True)
class RgbConfig:
    """Settings of the RGB fit; the defaults are those of 3DGS (30,000 iterations).

    Attributes:
        iterations: optimisation steps, one view each.
        strategy: "default" densifies by image-plane gradients (3DGS), "mcmc" relocates and adds noise (Kheradmand et
            al. 2024; needs a GPU). `preset` sets what else belongs to it: regularisers, first Gaussians, schedule.
        sh_degree: spherical-harmonics degree reached, 0..3; raised by one every ``sh_every`` steps.
        refine_start, refine_stop, refine_every: when Gaussians are duplicated, split and pruned.
        reset_every: opacities are reset at this interval while refining; 0 never does.
        grow_grad2d: image-plane gradient (half image widths) above which a Gaussian is refined.
        absgrad: sum absolute gradients for that (AbsGS, needs a GPU), so that those of two sides of an edge do not
            cancel; takes a higher ``grow_grad2d``: gsplat's authors give 0.0008.
        max_gaussians: growth stops there, so that memory is bounded whatever the scene.
        coarse_until: images have half the size before this step.
        init_opacity, init_scale: of the first Gaussians; their size is multiplied by ``init_scale``.
        opacity_reg, scale_reg: weights in the loss of the mean opacity and of the mean standard deviation, in world
            units; 3DGS-MCMC needs them so that there are Gaussians to relocate.
        ssim_weight: w in (1 - w) L1 + w (1 - SSIM).
        lr_means: initial learning rate of the means per unit of scene extent; decays to ``lr_means_final``.
        lr_*: Adam learning rates.
        packed_from: with so many Gaussians or more a GPU keeps intermediate results of the visible ones only.
        seed: decides the order of the views and the placement of split Gaussians.
        checkpoint_seconds: time between checkpoints.
        device: "cpu" or "cuda".
    """

    iterations: int = 30_000
    strategy: Literal["default", "mcmc"] = "default"
    sh_degree: int = 3
    sh_every: int = 1000
    refine_start: int = 500
    refine_stop: int = 15_000
    refine_every: int = 100
    reset_every: int = 3000
    grow_grad2d: float = 0.0002
    absgrad: bool = False
    max_gaussians: int = 3_000_000
    coarse_until: int = 0
    init_opacity: float = 0.1
    init_scale: float = 1.0
    opacity_reg: float = 0.0
    scale_reg: float = 0.0
    ssim_weight: float = 0.2
    lr_means: float = 1.6e-4
    lr_means_final: float = 1.6e-6
    lr_scales: float = 5e-3
    lr_quats: float = 1e-3
    lr_opacities: float = 5e-2
    lr_sh: float = 2.5e-3
    packed_from: int = 1_000_000
    seed: int = 0
    checkpoint_seconds: float = 30.0
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Raises: InputError for what only gsplat's GPU code can do."""
        if self.device.startswith("cuda"):
            return
        if self.strategy == "mcmc":
            raise InputError(
                "The mcmc strategy needs a CUDA GPU, because gsplat relocates Gaussians there; use the default one."
            )
        if self.absgrad:
            raise InputError("Absolute gradients need a CUDA GPU, because gsplat sums them there; leave absgrad out.")

    @staticmethod
    def preset(
        name: str, *, seed: int = 0, device: str = "cpu", strategy: Literal["default", "mcmc"] = "default"
    ) -> "RgbConfig":
        """The settings behind ``--preset``: "fast" (minutes on two CPU cores), "default", "paper" (3DGS).

        For "mcmc" they are combined with those of 3DGS-MCMC's authors, as in gsplat's example trainer.
        """
        if name not in _PRESETS:
            raise InputError(f"--preset is {name!r}; choose one of {', '.join(_PRESETS)}.")
        config = replace(_PRESETS[name], seed=seed, device=device)
        if strategy == "default":
            return config
        # They refine for 25,000 of 30,000 steps.
        stop = config.iterations * 5 // 6
        return replace(
            config, strategy="mcmc", refine_stop=stop, init_opacity=0.5, init_scale=0.1, opacity_reg=0.01,
            scale_reg=0.01,
        )  # fmt: skip


_PRESETS = {
    # Short runs: denser and more opaque from the start, larger steps, no opacity reset to recover from.
    "fast": RgbConfig(
        iterations=2000,
        sh_degree=2,
        sh_every=500,
        refine_start=200,
        refine_stop=1400,
        refine_every=100,
        reset_every=0,
        grow_grad2d=0.0003,
        max_gaussians=120_000,
        coarse_until=600,
        lr_means=3.2e-4,
        lr_means_final=3.2e-6,
        lr_scales=1e-2,
        lr_quats=2e-3,
        lr_sh=5e-3,
    ),
    "default": RgbConfig(
        iterations=7000,
        refine_stop=5000,
        reset_every=0,
        max_gaussians=600_000,
        coarse_until=1500,
    ),
    "paper": RgbConfig(),
}
