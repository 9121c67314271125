"""Slow, plain float64 splatting that the tests compare the native code with; differentiable by autograd.

Projection and spherical harmonics come from gsplat's own torch code, blending is written out over all
pixel-Gaussian pairs. Nothing here shares code with the product.
"""

import torch
from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci, _spherical_harmonics
from torch import Tensor


def project(
    means: Tensor, quats: Tensor, scales: Tensor, viewmat: Tensor, K: Tensor, width: int, height: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """radii, means2d, depths, conics of one camera."""
    covars, _ = _quat_scale_to_covar_preci(quats, scales, True, False)
    radii, means2d, depths, conics, _ = _fully_fused_projection(means, covars, viewmat[None], K[None], width, height)
    return radii[0], means2d[0], depths[0], conics[0]


def blending_weights(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    viewmat: Tensor,
    K: Tensor,
    width: int,
    height: int,
) -> Tensor:
    """w [H * W, N] = alpha_i prod_{j < i} (1 - alpha_j), front to back, by the rules of 3DGS."""
    radii, means2d, depths, conics = project(means, quats, scales, viewmat, K, width, height)
    order = torch.argsort(depths.detach().float(), stable=True)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([x, y], dim=-1).reshape(-1, 1, 2).to(means) + 0.5
    delta = means2d[order] - pixels
    a, b, c = conics[order].unbind(-1)
    sigma = 0.5 * (a * delta[..., 0] ** 2 + c * delta[..., 1] ** 2) + b * delta[..., 0] * delta[..., 1]
    alpha = (opacities[order] * torch.exp(-sigma)).clamp(max=0.999)
    counts = (alpha >= 1 / 255) & (radii[order] > 0).all(-1)
    alpha = torch.where(counts, alpha, torch.zeros_like(alpha))
    after = torch.cumprod(1 - alpha, dim=1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], dim=1)
    weights = torch.where(after > 1e-4, before * alpha, torch.zeros_like(alpha))
    return torch.zeros_like(weights).index_copy(1, order, weights)


def colors(means: Tensor, sh: Tensor, viewmat: Tensor, degree: int) -> Tensor:
    """Colours [N, 3] seen from one camera."""
    center = -viewmat[:3, :3].T @ viewmat[:3, 3]
    return (_spherical_harmonics(degree, means - center, sh) + 0.5).clamp(min=0)


def random_scene(count: int, seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Gaussians in front of, beside and behind a camera at the origin."""
    g = torch.Generator().manual_seed(seed)

    def uniform(*shape: int, low: float, high: float) -> Tensor:
        return (torch.rand(*shape, generator=g) * (high - low) + low).to(dtype)

    depth = torch.linspace(-0.5, 5.0, count)[torch.randperm(count, generator=g), None].to(dtype)
    means = torch.cat([uniform(count, 2, low=-1.6, high=1.6), depth], dim=1)
    return {
        "means": means,
        "quats": torch.randn(count, 4, generator=g).to(dtype),
        "scales": uniform(count, 3, low=-4.5, high=-0.6).exp(),
        "opacities": uniform(count, low=0.02, high=1.0),
        "sh": (torch.randn(count, 16, 3, generator=g) * 0.3).to(dtype),
    }


def camera(angle: float, width: int, height: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """A world-to-camera matrix turned by ``angle`` about y and shifted, and intrinsics off centre."""
    cos, sin = torch.cos(torch.tensor(angle)), torch.sin(torch.tensor(angle))
    viewmat = torch.eye(4, dtype=dtype)
    viewmat[:3, :3] = torch.tensor([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]], dtype=dtype)
    viewmat[:3, 3] = torch.tensor([0.1, -0.05, 0.3], dtype=dtype)
    focal = 0.9 * width
    K = torch.tensor([[focal, 0, 0.47 * width], [0, 1.05 * focal, 0.55 * height], [0, 0, 1]], dtype=dtype)
    return viewmat, K
