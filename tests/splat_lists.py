"""Splats in image space with gsplat's tile lists, and what blending them gives in float64, written out pixel by pixel.

Shared by the tests of the kernels. Nothing here shares code with the product; tile lists are gsplat's torch code.
"""

from dataclasses import dataclass

import torch
from gsplat.cuda._torch_impl import _isect_offset_encode, _isect_tiles
from torch import Tensor

TILE = 16


@dataclass(frozen=True)
class Splats:
    """What gsplat hands to a rasteriser, unpacked: S = cameras * gaussians."""

    means2d: Tensor  # [S, 2]
    conics: Tensor  # [S, 3]
    opacities: Tensor  # [S]
    isect_offsets: Tensor  # int32 [C, tiles_y, tiles_x]
    flatten_ids: Tensor  # int32 [I]
    gaussians: int
    width: int
    height: int

    @property
    def cameras(self) -> int:
        return len(self.isect_offsets)

    @property
    def lists(self) -> tuple[Tensor, ...]:
        return self.means2d, self.conics, self.opacities, self.isect_offsets, self.flatten_ids


def make_splats(
    means2d: Tensor, covariances: Tensor, opacities: Tensor, depths: Tensor, width: int, height: int
) -> Splats:
    """Splats [C, N, ...] with covariances [C, N, 3] (xx, xy, yy) in square pixels."""
    cameras, count = depths.shape
    xx, xy, yy = covariances.unbind(-1)
    det = xx * yy - xy * xy
    conics = torch.stack([yy, -xy, xx], dim=-1) / det[..., None]
    radii = (3.33 * torch.stack([xx, yy], dim=-1).sqrt()).ceil()
    radii = torch.where(radii.isfinite() & means2d.isfinite(), radii, 0).int()
    tiles_x, tiles_y = -(-width // TILE), -(-height // TILE)
    if count:
        _, keys, ids = _isect_tiles(means2d.nan_to_num(), radii, depths, TILE, tiles_x, tiles_y, sort=False)
        keys, order = torch.sort(keys, stable=True)
        offsets, ids = _isect_offset_encode(keys, cameras, tiles_x, tiles_y), ids[order]
    else:
        offsets, ids = torch.zeros(cameras, tiles_y, tiles_x), torch.zeros(0)
    return Splats(
        means2d.reshape(-1, 2), conics.reshape(-1, 3), opacities.reshape(-1).contiguous(),
        offsets.reshape(cameras, tiles_y, tiles_x).int().contiguous(), ids.int().contiguous(), count, width, height,
    )  # fmt: skip


def random_splats(seed: int, cameras: int, count: int, width: int, height: int, sizes: tuple[float, float]) -> Splats:
    """Ellipses all over the image and a little beyond, with standard deviations in ``sizes`` pixels."""
    g = torch.Generator().manual_seed(seed)
    means2d = (torch.rand(cameras, count, 2, generator=g) * 1.4 - 0.2) * torch.tensor([width, height])
    low, high = sizes
    axes = low * (high / low) ** torch.rand(cameras, count, 2, generator=g)
    angle = torch.rand(cameras, count, generator=g) * 3.14159
    cos, sin = angle.cos(), angle.sin()
    u, v = axes.square().unbind(-1)
    covariances = torch.stack([u * cos**2 + v * sin**2, (u - v) * cos * sin, u * sin**2 + v * cos**2], dim=-1)
    opacities = torch.rand(cameras, count, generator=g)
    return make_splats(means2d, covariances, opacities, torch.rand(cameras, count, generator=g), width, height)


@dataclass(frozen=True)
class Blending:
    """weights [C, H * W, N] float64; unsure [C, H, W]: a rounding error may decide there whether a splat counts."""

    weights: Tensor
    unsure: Tensor


def blend(splats: Splats) -> Blending:
    """w_pi = alpha_i prod_{j < i} (1 - alpha_j) over each pixel's tile list, by the rules of 3DGS."""
    width, height, count = splats.width, splats.height, splats.gaussians
    weights = torch.zeros(splats.cameras, height, width, count, dtype=torch.float64)
    unsure = torch.zeros(splats.cameras, height, width, dtype=torch.bool)
    bounds = [*splats.isect_offsets.flatten().tolist(), len(splats.flatten_ids)]
    tiles_y, tiles_x = splats.isect_offsets.shape[1:]
    for tile in range(splats.isect_offsets.numel()):
        camera, in_camera = divmod(tile, tiles_y * tiles_x)
        top, left = in_camera // tiles_x * TILE, in_camera % tiles_x * TILE
        ids = splats.flatten_ids[bounds[tile] : bounds[tile + 1]].long()
        if not len(ids):
            continue
        rows, columns = min(TILE, height - top), min(TILE, width - left)
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        pixels = torch.stack([x + left, y + top], dim=-1).reshape(-1, 1, 2).double() + 0.5
        delta = splats.means2d[ids].double() - pixels
        a, b, c = splats.conics[ids].double().unbind(-1)
        sigma = 0.5 * (a * delta[..., 0] ** 2 + c * delta[..., 1] ** 2) + b * delta[..., 0] * delta[..., 1]
        raw = (splats.opacities[ids].double() * torch.exp(-sigma)).clamp(max=0.999)
        alpha = torch.where((sigma >= 0) & (raw >= 1 / 255), raw, 0.0)
        after = torch.cumprod(1 - alpha, dim=1)
        before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], dim=1)
        blended = torch.where(after > 1e-4, before * alpha, 0.0)
        close = ((raw * 255 - 1).abs() < 1e-3) | ((alpha > 0) & ((after / 1e-4 - 1).abs() < 1e-2))
        window = (camera, slice(top, top + rows), slice(left, left + columns))
        # Without the index of the camera in the splat's number; a Gaussian is in a list once.
        weights[window] = torch.zeros(len(blended), count, dtype=torch.float64).index_copy(
            1, ids - camera * count, blended
        ).reshape(rows, columns, count)  # fmt: skip
        unsure[window] = close.any(1).reshape(rows, columns)
    return Blending(weights.flatten(1, 2), unsure)
