"""Stands in for gsplat's compiled CUDA module where there is none, so that gsplat's own Python runs above it.

Functions have the signatures of gsplat 1.5's C++; projection, tile lists and spherical harmonics are its torch
reference, blending is written out tile by tile. Tensors may be CPU tensors or those of `pretend_cuda`.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import torch
from gsplat import fully_fused_projection, isect_offset_encode, isect_tiles
from gsplat.cuda._torch_impl import (
    _fully_fused_projection,
    _isect_offset_encode,
    _quat_scale_to_covar_preci,
    _spherical_harmonics,
)
from torch import Tensor

from splat.ops import Lists
from splat.raster_inputs import TILE, View

THRESHOLD = 1 / 255


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Called with tensors of either device, computes on the CPU, and gives back tensors like them."""

    @wraps(function)
    def call(*arguments: Any) -> Any:
        from pretend_cuda import OnCuda

        pretend = any(isinstance(each, OnCuda) for each in arguments)
        plain = [each.inner if isinstance(each, OnCuda) else each for each in arguments]
        assert all(each.is_contiguous() for each in plain if isinstance(each, Tensor)), function.__name__
        for each in arguments if pretend else ():
            # Autograd puts zeros where a gradient is missing, on the device that its C++ side knows of.
            assert isinstance(each, OnCuda) or not isinstance(each, Tensor) or not each.any(), function.__name__
        with torch.utils._python_dispatch._disable_current_modes(), torch.no_grad():
            results = function(*(each.detach() if isinstance(each, Tensor) else each for each in plain))

        def there(value: Any) -> Any:
            return OnCuda(value) if pretend and isinstance(value, Tensor) else value

        return tuple(map(there, results)) if isinstance(results, tuple) else there(results)

    return call


def _project(
    means: Tensor, quats: Tensor, scales: Tensor, viewmats: Tensor, Ks: Tensor, width: int, height: int, *planes: float
) -> tuple[Tensor, ...]:
    covars, _ = _quat_scale_to_covar_preci(quats, scales, True, False)
    return _fully_fused_projection(means, covars, viewmats, Ks, width, height, *planes)[:4]


@_compiled
def projection_ewa_3dgs_fused_fwd(
    means: Tensor, covars: None, quats: Tensor, scales: Tensor, opacities: Tensor | None, viewmats: Tensor, Ks: Tensor,
    width: int, height: int, eps2d: float, near: float, far: float, radius_clip: float, compensate: bool, model: Any,
) -> Any:  # fmt: skip
    assert covars is None
    assert radius_clip == 0
    assert not compensate
    assert model == "pinhole"
    radii, means2d, depths, conics = _project(means, quats, scales, viewmats, Ks, width, height, eps2d, near, far)
    if opacities is not None:
        # The reference does not know this part: the radius ends where alpha falls below 1/255.
        determinant = conics[..., 0] * conics[..., 2] - conics[..., 1] ** 2
        variances = torch.stack([conics[..., 2], conics[..., 0]], dim=-1) / determinant[..., None]
        # Of NaN and a number, a GPU's `min` is the number, and no comparison holds for NaN.
        far = torch.tensor(3.33)
        reach = torch.fmin((2 * (opacities / THRESHOLD).log()).clamp_min(0).sqrt(), far)[:, None]
        tight = (reach * variances.sqrt()).ceil()
        seen = (radii > 0).all(-1) & ~(opacities < THRESHOLD)
        size = torch.tensor([width, height])
        seen &= ((means2d + tight > 0) & (means2d - tight < size)).all(-1)
        radii = torch.where(seen[..., None], tight, 0.0).int()
    return radii, means2d, depths, conics, None


@_compiled
def projection_ewa_3dgs_fused_bwd(
    means: Tensor, covars: None, quats: Tensor, scales: Tensor, viewmats: Tensor, Ks: Tensor, width: int, height: int,
    eps2d: float, model: Any, radii: Tensor, conics: Tensor, compensations: None, v_means2d: Tensor, v_depths: Tensor,
    v_conics: Tensor, v_compensations: None, viewmats_grad: bool,
) -> Any:  # fmt: skip
    camera, gaussian = torch.nonzero((radii > 0).all(-1), as_tuple=True)
    upstream = [each[camera, gaussian] for each in (v_means2d, v_depths, v_conics)]
    return _projection_vjp(means, quats, scales, viewmats, Ks, width, height, eps2d, camera, gaussian, upstream)


def _projection_vjp(
    means: Tensor, quats: Tensor, scales: Tensor, viewmats: Tensor, Ks: Tensor, width: int, height: int, eps2d: float,
    camera: Tensor, gaussian: Tensor, upstream: list[Tensor],
) -> tuple[Tensor, None, Tensor, Tensor, None]:  # fmt: skip
    """Gradients of what gsplat projects, from those of the visible pairs of camera and Gaussian."""
    total = [torch.zeros_like(each) for each in (means, quats, scales)]
    for c in range(len(viewmats)):
        here = camera == c
        rows = gaussian[here]
        with torch.enable_grad():
            leaves = [each[rows].requires_grad_() for each in (means, quats, scales)]
            _, *found = _project(*leaves, viewmats[c : c + 1], Ks[c : c + 1], width, height, eps2d)
            outputs = [found[0][0], found[1][0], found[2][0]]
            gradients = torch.autograd.grad(outputs, leaves, [each[here] for each in upstream])
        for sums, gradient in zip(total, gradients, strict=True):
            sums.index_add_(0, rows, gradient)
    return total[0], None, total[1], total[2], None


@_compiled
def projection_ewa_3dgs_packed_fwd(
    means: Tensor, covars: None, quats: Tensor, scales: Tensor, opacities: Tensor | None, viewmats: Tensor, Ks: Tensor,
    *settings: Any,
) -> Any:  # fmt: skip
    radii, means2d, depths, conics, _ = projection_ewa_3dgs_fused_fwd(
        means, covars, quats, scales, opacities, viewmats, Ks, *settings
    )
    camera, gaussian = torch.nonzero((radii > 0).all(-1), as_tuple=True)
    indptr = torch.zeros(len(viewmats) + 1, dtype=torch.int32)
    dense = (each[camera, gaussian] for each in (radii, means2d, depths, conics))
    return indptr, torch.zeros_like(camera), camera, gaussian, *dense, None


@_compiled
def projection_ewa_3dgs_packed_bwd(
    means: Tensor, covars: None, quats: Tensor, scales: Tensor, viewmats: Tensor, Ks: Tensor, width: int, height: int,
    eps2d: float, model: Any, batch: Tensor, camera: Tensor, gaussian: Tensor, conics: Tensor, compensations: None,
    v_means2d: Tensor, v_depths: Tensor, v_conics: Tensor, v_compensations: None, viewmats_grad: bool, sparse: bool,
) -> Any:  # fmt: skip
    assert not sparse
    upstream = [v_means2d, v_depths, v_conics]
    return _projection_vjp(means, quats, scales, viewmats, Ks, width, height, eps2d, camera, gaussian, upstream)


@_compiled
def intersect_tile(
    means2d: Tensor, radii: Tensor, depths: Tensor, image_ids: Tensor | None, gaussian_ids: Tensor | None, images: int,
    tile_size: int, tiles_x: int, tiles_y: int, sort: bool, segmented: bool,
) -> Any:  # fmt: skip
    """As gsplat's `_isect_tiles`, which takes no packed splats and a second for a thousand others."""
    centres, reach = means2d.reshape(-1, 2) / tile_size, radii.reshape(-1, 2) / tile_size
    last = torch.tensor([tiles_x, tiles_y])
    span = (centres - reach).floor(), (centres + reach).ceil()
    lows, highs = (torch.minimum(each.long().clamp_min(0), last) for each in span)
    counts = (highs - lows).prod(1) * (reach > 0).all(1)
    ids = torch.repeat_interleave(torch.arange(len(counts)), counts)
    within = torch.arange(len(ids)) - (counts.cumsum(0) - counts)[ids]
    wide = (highs - lows)[ids, 0]
    tiles = (lows[ids, 1] + within // wide) * tiles_x + lows[ids, 0] + within % wide
    image = ids // means2d.shape[-2] if image_ids is None else image_ids[ids]
    bits = depths.reshape(-1)[ids].view(torch.int32).long() & 0xFFFFFFFF
    keys = (((image << (tiles_x * tiles_y).bit_length()) | tiles) << 32) | bits
    keys, order = torch.sort(keys, stable=True)
    return counts.int().view_as(depths), keys, ids[order].int()


@_compiled
def intersect_offset(keys: Tensor, images: int, tiles_x: int, tiles_y: int) -> Tensor:
    return _isect_offset_encode(keys, images, tiles_x, tiles_y)


def _tiles(offsets: Tensor, ids: Tensor, width: int, height: int, side: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(image, pixel centres [P, 2], splats) of every tile."""
    ends = torch.cat([offsets.flatten()[1:], torch.tensor([len(ids)])]).view_as(offsets)
    for image, y, x in torch.ones_like(offsets).nonzero().tolist():
        ys = torch.arange(y * side, min((y + 1) * side, height)) + 0.5
        xs = torch.arange(x * side, min((x + 1) * side, width)) + 0.5
        centres = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1).reshape(-1, 2)
        yield image, centres, ids[offsets[image, y, x] : ends[image, y, x]].long()


def _blending_weights(pixels: Tensor, means2d: Tensor, conics: Tensor, opacities: Tensor) -> Tensor:
    """[P, n] of splats front to back; ``means2d`` [P or 1, n, 2]."""
    dx, dy = (means2d - pixels[:, None]).unbind(-1)
    a, b, c = conics.unbind(-1)
    sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    alpha = torch.fmin(opacities * torch.exp(-sigma), torch.tensor(0.999))  # the number, if the other is NaN
    alpha = torch.where((sigma >= 0) & (alpha >= THRESHOLD), alpha, 0.0)
    after = torch.cumprod(1 - alpha, dim=1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], dim=1)
    return torch.where(after > 1e-4, before * alpha, 0.0)


@_compiled
def rasterize_to_pixels_3dgs_fwd(
    means2d: Tensor, conics: Tensor, colors: Tensor, opacities: Tensor, backgrounds: None, masks: None, width: int,
    height: int, side: int, offsets: Tensor, ids: Tensor,
) -> Any:  # fmt: skip
    channels = colors.shape[-1]
    render = torch.zeros(len(offsets), height, width, channels)
    alphas = torch.zeros(len(offsets), height, width, 1)
    flat = means2d.reshape(-1, 2), conics.reshape(-1, 3), colors.reshape(-1, channels), opacities.reshape(-1)
    for image, centres, rows in _tiles(offsets, ids, width, height, side):
        weights = _blending_weights(centres, flat[0][rows][None], flat[1][rows], flat[3][rows])
        x, y = centres.long().unbind(-1)
        render[image, y, x] = weights @ flat[2][rows]
        alphas[image, y, x] = weights.sum(1, keepdim=True)
    return render, alphas, torch.zeros(len(offsets), height, width, dtype=torch.int32)


@_compiled
def rasterize_to_pixels_3dgs_bwd(
    means2d: Tensor, conics: Tensor, colors: Tensor, opacities: Tensor, backgrounds: None, masks: None, width: int,
    height: int, side: int, offsets: Tensor, ids: Tensor, render_alphas: Tensor, last_ids: Tensor, v_render: Tensor,
    v_alphas: Tensor, absgrad: bool,
) -> Any:  # fmt: skip
    channels = colors.shape[-1]
    flat = means2d.reshape(-1, 2), conics.reshape(-1, 3), colors.reshape(-1, channels), opacities.reshape(-1)
    sums = [torch.zeros_like(each) for each in flat]
    absolute = torch.zeros_like(flat[0])
    for image, centres, rows in _tiles(offsets, ids, width, height, side):
        x, y = centres.long().unbind(-1)
        with torch.enable_grad():
            # A copy of the means per pixel, so that there is a gradient per pixel to take the absolute value of.
            means = flat[0][rows].expand(len(centres), -1, -1).clone().requires_grad_()
            others = [each[rows].requires_grad_() for each in flat[1:]]
            weights = _blending_weights(centres, means, others[0], others[2])
            outputs = [weights @ others[1], weights.sum(1, keepdim=True)]
            upstream = [v_render[image, y, x], v_alphas[image, y, x]]
            v_means, *rest = torch.autograd.grad(outputs, [means, *others], upstream)
        absolute.index_add_(0, rows, v_means.abs().sum(0))
        for total, part in zip(sums, [v_means.sum(0), *rest], strict=True):
            total.index_add_(0, rows, part)
    shaped = [total.view_as(each) for total, each in zip(sums, (means2d, conics, colors, opacities), strict=True)]
    return absolute.view_as(means2d) if absgrad else None, *shaped


@_compiled
def spherical_harmonics_fwd(degree: int, dirs: Tensor, coeffs: Tensor, masks: Tensor | None) -> Tensor:
    return _spherical_harmonics(degree, dirs, coeffs)


@_compiled
def spherical_harmonics_bwd(
    bases: int, degree: int, dirs: Tensor, coeffs: Tensor, masks: Tensor | None, v_colors: Tensor, want_dirs: bool
) -> Any:
    if masks is not None:
        v_colors = torch.where(masks[..., None], v_colors, 0.0)
    with torch.enable_grad():
        leaves = [coeffs.requires_grad_(), dirs.requires_grad_()]
        colors = _spherical_harmonics(degree, leaves[1], leaves[0])
        v_coeffs, v_dirs = torch.autograd.grad(colors, leaves, v_colors, allow_unused=True)
    if v_dirs is None:  # degree 0 does not look at them
        v_dirs = torch.zeros_like(dirs)
    return v_coeffs, v_dirs if want_dirs else None


@_compiled
def quat_scale_to_covar_preci_fwd(quats: Tensor, scales: Tensor, covar: bool, preci: bool, triu: bool) -> Any:
    return _quat_scale_to_covar_preci(quats, scales, covar, preci, triu)


@_compiled
def relocation(opacities: Tensor, scales: Tensor, ratios: Tensor, binoms: Tensor, most: int) -> Any:
    """Equation 9 of 3DGS as Markov Chain Monte Carlo."""
    new = 1 - (1 - opacities) ** (1 / ratios)
    factors = []
    for old, fresh, ratio in zip(opacities.tolist(), new.tolist(), ratios.tolist(), strict=True):
        terms = (
            float(binoms[i - 1, k]) * (-1) ** k / (k + 1) ** 0.5 * fresh ** (k + 1)
            for i in range(1, ratio + 1)
            for k in range(i)
        )
        factors.append(old / sum(terms))
    return new, scales * torch.tensor(factors)[:, None]


@contextmanager
def installed() -> Iterator[None]:
    """Let gsplat find these functions where it looks for its compiled module, which it would compile otherwise."""
    functions = {name: value for name, value in globals().items() if hasattr(value, "__wrapped__")}
    # gsplat looks up `CameraModelType.PINHOLE` as two names of the module.
    module = SimpleNamespace(**functions, CameraModelType=None, PINHOLE="pinhole")
    backend = ModuleType("gsplat.cuda._backend")
    backend._C = module  # type: ignore[attr-defined]
    with mock.patch.dict(sys.modules, {"gsplat.cuda._backend": backend}):
        yield


def splat_lists(geometry: tuple[Tensor, ...], view: View, packed: bool) -> Lists:
    """What `splat.ops` takes first, as gsplat makes it: of all C * N splats, or of the visible ones."""
    means, quats, scales, opacities = geometry
    where = (view.viewmats, view.Ks, view.width, view.height)
    with installed():
        projected = fully_fused_projection(means, None, quats, scales, *where, packed=packed, opacities=opacities)
        if packed:
            _, cameras, gaussians, radii, means2d, depths, conics, _ = projected
            whose = {"packed": True, "n_images": view.cameras, "image_ids": cameras, "gaussian_ids": gaussians}
            opacities = opacities[gaussians]
        else:
            radii, means2d, depths, conics, _ = projected
            gaussians, whose = None, {}
            opacities = opacities.expand(view.cameras, -1).flatten()
        _, keys, ids = isect_tiles(means2d, radii, depths, TILE, *view.tiles, **whose)
        offsets = isect_offset_encode(keys, view.cameras, *view.tiles)
    return means2d.reshape(-1, 2), conics.reshape(-1, 3), opacities, offsets, ids, gaussians
