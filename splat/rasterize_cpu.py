"""The rasteriser on the CPU: autograd around the native kernels. `splat.rasterize` is the interface to use."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from splat import _native
from splat.raster_inputs import EPS2D, FAR_PLANE, NEAR_PLANE, Geometry, View


class Project(torch.autograd.Function):
    """Gaussians to image ellipses: means2d [C, N, 2], depths [C, N], conics [C, N, 3], radii [C, N, 2]."""

    @staticmethod
    def forward(ctx: Any, means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor | None, view: View) -> Any:
        count = len(means)
        shapes = means.detach(), quats.detach(), scales.detach()
        radii = torch.empty(view.cameras, count, 2, dtype=torch.int32)
        means2d, conics = torch.empty(view.cameras, count, 2), torch.empty(view.cameras, count, 3)
        depths = torch.empty(view.cameras, count)
        _native.project(
            *shapes, None if opacities is None else opacities.detach(), view.viewmats, view.Ks, view.width,
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
        view: View = ctx.view
        v_means, v_quats, v_scales = torch.empty_like(means), torch.empty_like(quats), torch.empty_like(scales)
        _native.project_vjp(
            means, quats, scales, view.viewmats, view.Ks, view.width, view.height, EPS2D, radii,
            v_means2d.contiguous(), v_depths.contiguous(), v_conics.contiguous(), v_means, v_quats, v_scales,
        )  # fmt: skip
        return v_means, v_quats, v_scales, None, None


class _Shade(torch.autograd.Function):
    """Spherical harmonics to colours [C, N, 3] = max(SH + 0.5, 0) as seen from each camera."""

    @staticmethod
    def forward(ctx: Any, means: Tensor, sh: Tensor, radii: Tensor, degree: int, view: View) -> Tensor:
        means, sh = means.detach(), sh.detach()
        colors = torch.empty(view.cameras, len(means), 3)
        _native.shade(means, sh, view.viewmats, view.Ks, view.width, view.height, degree, radii, colors)
        ctx.save_for_backward(means, sh, radii, colors)
        ctx.degree, ctx.view = degree, view
        return colors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_colors: Tensor) -> Any:
        means, sh, radii, colors = ctx.saved_tensors
        view: View = ctx.view
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
        view: View,
    ) -> Any:
        splats = _native_splats(radii, means2d, depths, conics, opacities, view)
        colors, depths = colors.detach(), depths.detach()
        rgb, depth, alphas = view.empty(3), view.empty(1), view.empty(1)
        splats.blend(colors, depths, rgb, depth, alphas)
        ctx.save_for_backward(colors, depths, rgb, depth, alphas)
        ctx.splats = splats
        return rgb, depth, alphas

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_rgb: Tensor, v_depth: Tensor, v_alphas: Tensor) -> Any:
        saved = ctx.saved_tensors
        gradients = torch.empty(*saved[1].shape, 10)
        ctx.splats.blend_vjp(*saved, v_rgb.contiguous(), v_depth.contiguous(), v_alphas.contiguous(), gradients)
        v_means2d, v_conics, v_opacities = gradients[..., 0:2], gradients[..., 2:5], gradients[..., 5].sum(0)
        return v_means2d, v_conics, v_opacities, gradients[..., 6:9], gradients[..., 9], None, None


class _Codes(torch.autograd.Function):
    """Sparse codes to code maps; the gradient goes to the weights."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, indices: Tensor, atoms: int, splats: Any, view: View) -> Any:
        weights, levels = weights.detach(), indices.shape[1]
        codes, alphas = _pooled(view, levels * atoms), view.empty(1)
        splats.codes(indices, weights, levels, atoms, codes, alphas)
        ctx.save_for_backward(weights, indices)
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


def _pooled(view: View, channels: int) -> Tensor:
    """An uninitialised image [C, H, W, channels] in memory kept from the last one of its size."""
    memory: Tensor = _native.pooled_map(view.cameras * view.height * view.width * channels)
    return memory.view(view.cameras, view.height, view.width, channels)


def _native_splats(
    radii: Tensor, means2d: Tensor, depths: Tensor, conics: Tensor, opacities: Tensor, view: View
) -> Any:
    """Native tile lists and packed ellipses."""
    ellipses = (radii, means2d.detach(), depths.detach(), conics.detach(), opacities.detach())
    return _native.Splats(*ellipses, view.cameras, view.width, view.height)


def rgb(
    geometry: Geometry, sh: Tensor, view: View, degree: int, packed: bool, absgrad: bool
) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
    """`splat.rasterize.rasterize_rgb` without a background."""
    if packed or absgrad:
        raise ValueError("packed and absgrad are gsplat's and need Gaussians on a CUDA device")
    means, quats, scales, opacities = geometry
    means2d, depths, conics, radii = Project.apply(means, quats, scales, opacities, view)
    colors = _Shade.apply(means, sh, radii, degree, view)
    image, depth, alphas = _Blend.apply(means2d, conics, opacities, colors, depths, radii, view)
    info = {
        "means2d": means2d,
        "depths": depths,
        "conics": conics,
        "radii": radii,
        "width": view.width,
        "height": view.height,
        "n_cameras": view.cameras,
        "gaussian_ids": None,
    }
    return image, depth, alphas, info


class Splats:
    """Tile lists of Gaussians whose geometry takes no gradient, and what is splatted with them."""

    def __init__(self, geometry: Geometry, view: View) -> None:
        self._view = view
        with torch.no_grad():
            means2d, depths, conics, radii = Project.apply(*geometry, view)
            self.native = _native_splats(radii, means2d, depths, conics, geometry[3], view)
        self._gaussians = len(geometry[0])

    @property
    def nbytes(self) -> int:
        """Memory of the lists, as cuda/splats.h holds them, in about."""
        return 36 * self._view.cameras * self._gaussians + 8 * len(self.native.flatten_ids)

    def codes(self, indices: Tensor, weights: Tensor, atoms: int) -> tuple[Tensor, Tensor]:
        """`splat.rasterize.rasterize_codes`."""
        return _Codes.apply(weights, indices, atoms, self.native, self._view)

    def features(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """`splat.rasterize.rasterize_features`."""
        channels = features.shape[1]
        image, alphas = _pooled(self._view, channels), self._view.empty(1)
        self.native.features(features.detach(), channels, image, alphas)
        return image, alphas

    def lift(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """`splat.rasterize.lift`."""
        channels = values.shape[3]
        sums, mass = torch.zeros(self._gaussians, channels), torch.zeros(self._gaussians)
        self.native.lift(values.detach(), channels, sums, mass)
        return sums, mass

    def relevancy(
        self, indices: Tensor, weights: Tensor, scores: Tensor, gram: Tensor, positives: int, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """`splat.rasterize.rasterize_relevancy`."""
        levels, _, atoms = scores.shape
        view = self._view
        maps, alphas = torch.empty(view.cameras, positives, levels, view.height, view.width), view.empty(1)
        self.native.relevancy(
            indices, weights.detach(), scores.detach(), gram.detach(), positives, temperature, levels, atoms, maps,
            alphas,
        )  # fmt: skip
        return maps, alphas
