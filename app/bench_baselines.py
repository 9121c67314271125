"""What dictsplat is timed against: the ways a feature field or a colour image is rendered without it.

Frames tell a `Lap` when a stage ends: "rendering" is splatting, "decoding" makes unit features of what was splatted,
"relevancy" compares these with the texts. Feature maps are made a level and some pixels at a time. LangSplat's own
code makes whole maps, which on a CPU takes two to six times as long, most of it for clearing memory.
"""

import itertools
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci, _spherical_harmonics
from torch import Tensor, nn

from app.bench_clock import Lap, no_lap
from splat.rasterize import rasterize_codes, rasterize_rgb

TILE = 16
SLABS = {"cpu": 1 << 12, "cuda": 1 << 19}
"""Pixels whose features are made at a time: what stays in a cache, or enough to keep a GPU busy."""
DEGREE_0 = 0.28209479177387814
"""The constant spherical harmonic."""

Geometry = tuple[Tensor, Tensor, Tensor, Tensor]
"""means, quats, scales, opacities."""


def langsplat_decoder(dim: int = 512) -> nn.Sequential:
    """LangSplat's per-pixel decoder from 3-D latents to ``dim``-D features (its autoencoder's default widths)."""
    widths = [3, 16, 32, 64, 128, 256, 256, dim]
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def relevancy_of_features(features: Tensor, texts: Tensor, phrases: int) -> Tensor:
    """LERF's relevancy [phrases, ...] of unit features [..., D] against unit texts [T, D], phrases first."""
    cosine = features @ texts.T
    rival = cosine[..., phrases:].amax(-1, keepdim=True)
    return torch.sigmoid(10.0 * (cosine[..., :phrases] - rival)).movedim(-1, 0)


def _relevancy_of_pixels(
    pixels: Tensor, decode: Callable[[Tensor], Tensor], texts: Tensor, phrases: int, lap: Lap
) -> Tensor:
    """Relevancy [phrases, pixels] of splatted values [pixels, V]."""
    maps = []
    for slab in pixels.split(SLABS[pixels.device.type]):
        features = F.normalize(decode(slab), dim=-1)
        lap("decoding")
        maps.append(relevancy_of_features(features, texts, phrases))
        lap("relevancy")
    return torch.cat(maps, dim=-1)


@torch.inference_mode()
def langsplat_query(
    geometry: Geometry, latents: Tensor, decoders: list[nn.Sequential], texts: Tensor, phrases: int,
    viewmats: Tensor, Ks: Tensor, width: int, height: int, lap: Lap = no_lap,
) -> Tensor:  # fmt: skip
    """LangSplat: per level, splat 3-D latents [levels, N, 3], 0 or more, decode every pixel, compare in 512 dimensions.

    Latents are splatted as colours are, which for three channels is the quickest there is. Returns relevancy
    [phrases, levels, H, W].
    """
    maps = []
    for level, decoder in zip(latents, decoders, strict=True):
        harmonics = (level[:, None] - 0.5) / DEGREE_0
        image, _, _, _ = rasterize_rgb(*geometry, harmonics, viewmats, Ks, width, height, sh_degree=0)
        lap("rendering")
        maps.append(_relevancy_of_pixels(image.flatten(0, 2), decoder, texts, phrases, lap))
    return torch.stack(maps, dim=1).unflatten(-1, (height, width))


@torch.inference_mode()
def materialised_query(
    geometry: Geometry, indices: Tensor, weights: Tensor, dictionary: Tensor, texts: Tensor, phrases: int,
    viewmats: Tensor, Ks: Tensor, width: int, height: int, lap: Lap = no_lap,
) -> Tensor:  # fmt: skip
    """LangSplatV2 as published: splat codes, multiply out the [levels, H, W, 512] features, compare there.

    Returns relevancy [phrases, levels, H, W].
    """
    levels, atoms, _ = dictionary.shape
    codes, _ = rasterize_codes(*geometry, indices, weights, viewmats, Ks, width, height, atoms=atoms)
    lap("rendering")
    per_level = codes.flatten(0, 2).unflatten(-1, (levels, atoms))
    maps = [
        _relevancy_of_pixels(per_level[:, level], partial(torch.matmul, other=matrix), texts, phrases, lap)
        for level, matrix in enumerate(dictionary)
    ]
    return torch.stack(maps, dim=1).unflatten(-1, (height, width))


def torch_rasterize_rgb(geometry: Geometry, sh: Tensor, viewmat: Tensor, K: Tensor, width: int, height: int) -> Tensor:
    """The straightforward differentiable renderer: gsplat's torch projection, then each tile as one dense
    [256 pixels, its Gaussians] block of tensors. Returns [H, W, 3]."""
    means, quats, scales, opacities = geometry
    covars, _ = _quat_scale_to_covar_preci(quats, scales, True, False)
    radii, means2d, depths, conics, _ = _fully_fused_projection(means, covars, viewmat[None], K[None], width, height)
    radii, means2d, depths, conics = radii[0], means2d[0], depths[0], conics[0]
    center = -viewmat[:3, :3].T @ viewmat[:3, 3]
    colors = (_spherical_harmonics(3, means - center, sh) + 0.5).clamp(min=0.0)
    order = torch.argsort(depths, stable=True)  # a wall has many Gaussians of the same depth
    order = order[(radii[order] > 0).all(-1)]
    low, high = (means2d - radii)[order], (means2d + radii)[order]
    rows = []
    for y in range(0, height, TILE):
        in_row = order[(high[:, 1] > y) & (low[:, 1] < y + TILE)]
        row = []
        for x in range(0, width, TILE):
            ids = in_row[
                (means2d[in_row, 0] + radii[in_row, 0] > x) & (means2d[in_row, 0] - radii[in_row, 0] < x + TILE)
            ]
            ys, xs = torch.meshgrid(
                torch.arange(y, min(y + TILE, height), device=means.device) + 0.5,
                torch.arange(x, min(x + TILE, width), device=means.device) + 0.5,
                indexing="ij",
            )
            dx = means2d[ids, 0] - xs.reshape(-1, 1)
            dy = means2d[ids, 1] - ys.reshape(-1, 1)
            a, b, c = conics[ids].unbind(-1)
            alpha = (opacities[ids] * torch.exp(-(0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy))).clamp(max=0.999)
            alpha = torch.where(alpha >= 1.0 / 255.0, alpha, 0.0)
            after = torch.cumprod(1.0 - alpha, dim=1)
            before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], dim=1)
            blended = torch.where(after > 1e-4, before * alpha, 0.0) @ colors[ids]
            row.append(blended.reshape(*ys.shape, 3))
        rows.append(torch.cat(row, dim=1))
    return torch.cat(rows, dim=0)
