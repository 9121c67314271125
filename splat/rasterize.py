"""Splatting of 3D Gaussians: colours, sparse codes, text relevancy, and values back onto the Gaussians.

All functions take plain tensors with gsplat's names and conventions:

- ``means`` [N, 3] world positions, ``quats`` [N, 4] rotations (w, x, y, z) of any length, ``scales``
  [N, 3] standard deviations, ``opacities`` [N] in 0..1;
- ``viewmats`` [C, 4, 4] world-to-camera in OpenCV axes, ``Ks`` [C, 3, 3] intrinsics in pixels, the
  centre of the first pixel at (0.5, 0.5).

The native CPU backend works on contiguous float32 tensors; anything else is converted. Results do not
depend on the number of threads. Blending follows 3DGS: front to back, contributions with alpha below
1/255 skipped, a pixel finished when its transmittance would fall to 1e-4.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from splat import _native

EPS2D = 0.3
"""Added to the diagonal of every image covariance, in square pixels (gsplat's default)."""
NEAR_PLANE = 0.01
FAR_PLANE = 1e10


@dataclass(frozen=True)
class _View:
    """Cameras of one render, as the native code reads them."""

    viewmats: Tensor
    Ks: Tensor
    width: int
    height: int

    @property
    def cameras(self) -> int:
        return len(self.viewmats)

    def empty(self, *channels: int) -> Tensor:
        return torch.empty(self.cameras, self.height, self.width, *channels)


def _plain(tensor: Tensor, *shape: int) -> Tensor:
    """``tensor`` as a detached contiguous float32 CPU tensor; -1 in ``shape`` matches any size."""
    if tensor.ndim != len(shape) or any(want not in (-1, have) for want, have in zip(shape, tensor.shape, strict=True)):
        raise ValueError(f"expected a tensor of shape {list(shape)}, got {list(tensor.shape)}")
    return tensor.detach().to("cpu", torch.float32).contiguous()


def _view(viewmats: Tensor, Ks: Tensor, width: int, height: int) -> _View:
    return _View(_plain(viewmats, -1, 4, 4), _plain(Ks, len(viewmats), 3, 3), width, height)


class _Project(torch.autograd.Function):
    """Gaussians to image ellipses: means2d [C, N, 2], depths [C, N], conics [C, N, 3], radii [C, N, 2]."""

    @staticmethod
    def forward(ctx: Any, means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor | None, view: _View) -> Any:
        count = len(means)
        shapes = (_plain(means, -1, 3), _plain(quats, count, 4), _plain(scales, count, 3))
        radii = torch.empty(view.cameras, count, 2, dtype=torch.int32)
        means2d, conics = torch.empty(view.cameras, count, 2), torch.empty(view.cameras, count, 3)
        depths = torch.empty(view.cameras, count)
        _native.project(
            *shapes, None if opacities is None else _plain(opacities, count), view.viewmats, view.Ks, view.width,
            view.height, EPS2D, NEAR_PLANE, FAR_PLANE, radii, means2d, depths, conics,
        )  # fmt: skip
        ctx.save_for_backward(*shapes, radii)
        ctx.view = view
        ctx.mark_non_differentiable(radii)
        return means2d, depths, conics, radii

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_means2d: Tensor, v_depths: Tensor, v_conics: Tensor, _radii: Tensor) -> Any:
        means, quats, scales, radii = ctx.saved_tensors
        view: _View = ctx.view
        v_means, v_quats, v_scales = (
            torch.empty_like(means),
            torch.empty_like(quats),
            torch.empty_like(scales),
        )
        _native.project_vjp(
            means, quats, scales, view.viewmats, view.Ks, view.width, view.height, EPS2D, radii,
            v_means2d.contiguous(), v_depths.contiguous(), v_conics.contiguous(), v_means, v_quats, v_scales,
        )  # fmt: skip
        return v_means, v_quats, v_scales, None, None


class _Shade(torch.autograd.Function):
    """Spherical harmonics to colours [C, N, 3] = max(SH + 0.5, 0) as seen from each camera."""

    @staticmethod
    def forward(ctx: Any, means: Tensor, sh: Tensor, radii: Tensor, degree: int, view: _View) -> Tensor:
        means, sh = _plain(means, -1, 3), _plain(sh, len(means), -1, 3)
        colors = torch.empty(view.cameras, len(means), 3)
        _native.shade(means, sh, view.viewmats, view.Ks, view.width, view.height, degree, radii, colors)
        ctx.save_for_backward(means, sh, radii, colors)
        ctx.degree, ctx.view = degree, view
        return colors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_colors: Tensor) -> Any:
        means, sh, radii, colors = ctx.saved_tensors
        view: _View = ctx.view
        v_means, v_sh = torch.empty_like(means), torch.empty_like(sh)
        _native.shade_vjp(
            means, sh, view.viewmats, view.Ks, view.width, view.height, ctx.degree, radii, colors,
            v_colors.contiguous(), v_means, v_sh,
        )  # fmt: skip
        return v_means, v_sh, None, None, None


class _Blend(torch.autograd.Function):
    """Ellipses and colours to pixels: rgb [C, H, W, 3], depth [C, H, W, 1], alphas [C, H, W, 1]."""

    @staticmethod
    def forward(
        ctx: Any,
        means2d: Tensor,
        conics: Tensor,
        opacities: Tensor,
        colors: Tensor,
        depths: Tensor,
        radii: Tensor,
        view: _View,
    ) -> Any:
        splats = _splats(radii, means2d, depths, conics, opacities, view)
        colors, depths = colors.detach(), depths.detach()
        rgb, depth, alphas = view.empty(3), view.empty(1), view.empty(1)
        splats.blend(colors, depths, rgb, depth, alphas)
        ctx.save_for_backward(colors, depths, rgb, depth, alphas)
        ctx.splats = splats
        return rgb, depth, alphas

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_rgb: Tensor, v_depth: Tensor, v_alphas: Tensor) -> Any:
        colors, depths, rgb, depth, alphas = ctx.saved_tensors
        gradients = torch.empty(*depths.shape, 10)
        ctx.splats.blend_vjp(
            colors,
            depths,
            rgb,
            depth,
            alphas,
            v_rgb.contiguous(),
            v_depth.contiguous(),
            v_alphas.contiguous(),
            gradients,
        )
        v_means2d, v_conics, v_opacities = gradients[..., 0:2], gradients[..., 2:5], gradients[..., 5].sum(0)
        return v_means2d, v_conics, v_opacities, gradients[..., 6:9], gradients[..., 9], None, None


class _Codes(torch.autograd.Function):
    """Sparse codes to code maps; the gradient goes to the weights."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, indices: Tensor, atoms: int, splats: Any, view: _View) -> Any:
        plain = _plain(weights, *indices.shape)
        codes = _native.pooled_map(view.cameras * view.height * view.width * indices.shape[1] * atoms)
        codes, alphas = codes.view(view.cameras, view.height, view.width, -1), view.empty(1)
        splats.codes(indices, plain, indices.shape[1], atoms, codes, alphas)
        ctx.save_for_backward(plain, indices)
        ctx.atoms, ctx.splats, ctx.cameras = atoms, splats, view.cameras
        ctx.mark_non_differentiable(alphas)
        return codes, alphas

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_codes: Tensor, _alphas: Tensor) -> Any:
        weights, indices = ctx.saved_tensors
        v_weights = torch.empty(ctx.cameras, *weights.shape)
        ctx.splats.codes_vjp(indices, weights, indices.shape[1], ctx.atoms, v_codes.contiguous(), v_weights)
        return v_weights.sum(0), None, None, None, None


def _splats(radii: Tensor, means2d: Tensor, depths: Tensor, conics: Tensor, opacities: Tensor, view: _View) -> Any:
    """Native tile lists and packed ellipses."""
    return _native.Splats(
        radii, means2d.detach(), depths.detach(), conics.detach(), _plain(opacities, radii.shape[1]),
        view.cameras, view.width, view.height,
    )  # fmt: skip


def _frozen_splats(means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, view: _View) -> Any:
    """Tile lists of Gaussians whose geometry takes no gradient."""
    with torch.no_grad():
        means2d, depths, conics, radii = _Project.apply(means, quats, scales, opacities, view)
        return _splats(radii, means2d, depths, conics, opacities, view)


def _plain_indices(indices: Tensor, count: int) -> Tensor:
    if indices.ndim != 3 or len(indices) != count or indices.dtype != torch.uint8:
        raise ValueError(
            f"indices must be uint8 [{count}, levels, nonzeros], got {indices.dtype} {list(indices.shape)}"
        )
    return indices.contiguous()


def rasterize_rgb(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    sh: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    *,
    sh_degree: int = 3,
    background: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
    """Render colours, differentiable in all five Gaussian parameters.

    Args:
        sh: spherical-harmonics coefficients [N, (degree + 1)^2 or more, 3].
        sh_degree: degree used, 0..3.
        background: colour [3] behind the Gaussians; black when None.

    Returns:
        ``rgb`` [C, H, W, 3] (not clipped above 1); ``depth`` [C, H, W, 1], the blended camera z (divide by alpha
        for a mean); ``alphas`` [C, H, W, 1]; ``info`` with the intermediate ``means2d`` [C, N, 2], ``depths``,
        ``conics``, ``radii`` [C, N, 2] (0 where invisible), ``width``, ``height``, ``n_cameras`` and
        ``gaussian_ids``, which is what gsplat's densification strategies ask for.
    """
    view = _view(viewmats, Ks, width, height)
    means2d, depths, conics, radii = _Project.apply(means, quats, scales, opacities, view)
    colors = _Shade.apply(means, sh, radii, sh_degree, view)
    rgb, depth, alphas = _Blend.apply(means2d, conics, opacities, colors, depths, radii, view)
    if background is not None:
        rgb = rgb + (1.0 - alphas) * background
    info = {
        "means2d": means2d,
        "depths": depths,
        "conics": conics,
        "radii": radii,
        "width": width,
        "height": height,
        "n_cameras": view.cameras,
        "gaussian_ids": None,
    }
    return rgb, depth, alphas, info


def rasterize_codes(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    indices: Tensor,
    weights: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    *,
    atoms: int = 64,
) -> tuple[Tensor, Tensor]:
    """Splat sparse codes (LangSplatV2, section 3.3), differentiable in ``weights``.

    Args:
        indices: uint8 [N, levels, nonzeros], each below ``atoms``; repeated indices add up.
        weights: [N, levels, nonzeros].
        atoms: size of each level's dictionary, at most 256.

    Returns:
        ``codes`` [C, H, W, levels * atoms], level-major: the pixel code W_p = sum_i w_pi c_i per level;
        ``alphas`` [C, H, W, 1].
    """
    view = _view(viewmats, Ks, width, height)
    indices = _plain_indices(indices, len(means))
    splats = _frozen_splats(means, quats, scales, opacities, view)
    return _Codes.apply(weights, indices, atoms, splats, view)


def lift(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    values: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
) -> tuple[Tensor, Tensor]:
    """Splat pixel values back onto the Gaussians that show them: the adjoint of blending.

    Args:
        values: [C, H, W, V], any V.

    Returns:
        ``sums`` [N, V] = sum_p w_pi values_p and ``mass`` [N] = sum_p w_pi over all pixels of all cameras.
    """
    _, height, width, channels = values.shape
    view = _view(viewmats, Ks, width, height)
    splats = _frozen_splats(means, quats, scales, opacities, view)
    sums, mass = torch.zeros(len(means), channels), torch.zeros(len(means))
    splats.lift(_plain(values, view.cameras, height, width, channels), channels, sums, mass)
    return sums, mass


def rasterize_relevancy(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    indices: Tensor,
    weights: Tensor,
    scores: Tensor,
    gram: Tensor,
    positives: int,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    *,
    temperature: float = 10.0,
) -> tuple[Tensor, Tensor]:
    """Text relevancy of every pixel and level, straight from the code splat.

    ``cos(F_p, t) = (W_p . A t) / sqrt(W_p^T G W_p)`` with G = A A^T is exact, so no feature map exists.
    Relevancy is LERF's ``min_n softmax(temperature [s_phrase, s_negative_n])[0]``.

    Args:
        scores: [levels, T, atoms], A t for each text; the first ``positives`` texts are phrases, the others
            negatives (at least one of each).
        gram: [levels, atoms, atoms], A A^T.

    Returns:
        ``relevancy`` [C, positives, levels, H, W] in 0..1, 0 where no code reaches the pixel; ``alphas``
        [C, H, W, 1].
    """
    view = _view(viewmats, Ks, width, height)
    indices = _plain_indices(indices, len(means))
    levels, _, atoms = scores.shape
    if levels != indices.shape[1]:
        raise ValueError(f"scores have {levels} levels, the codes {indices.shape[1]}")
    splats = _frozen_splats(means, quats, scales, opacities, view)
    relevancy = torch.empty(view.cameras, positives, levels, height, width)
    alphas = view.empty(1)
    splats.relevancy(
        indices, _plain(weights, *indices.shape), _plain(scores, levels, -1, atoms), _plain(gram, levels, atoms, atoms),
        positives, temperature, levels, atoms, relevancy, alphas,
    )  # fmt: skip
    return relevancy, alphas
