"""The rasteriser on a GPU: gsplat projects, makes tile lists and splats colours and dense features; sparse codes,
their adjoints and relevancy are splatted by `splat.ops` over the same lists. `splat.rasterize` is the interface to use.
"""

from typing import Any

import torch
from gsplat import fully_fused_projection, isect_offset_encode, isect_tiles, rasterization, rasterize_to_pixels
from torch import Tensor

from splat import ops
from splat.raster_inputs import EPS2D, FAR_PLANE, NEAR_PLANE, TILE, Geometry, View

CHANNELS = 32
"""Dense channels per pass. gsplat's kernel keeps a pixel's channels in registers: it takes 512 and is slow beyond
these, which are also the default of `gsplat.rasterization`."""


def rgb(
    geometry: Geometry, sh: Tensor, view: View, degree: int, packed: bool, absgrad: bool
) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
    """`splat.rasterize.rasterize_rgb` without a background."""
    image, alphas, info = rasterization(
        *geometry,
        sh,
        view.viewmats,
        view.Ks,
        view.width,
        view.height,
        near_plane=NEAR_PLANE,
        far_plane=FAR_PLANE,
        eps2d=EPS2D,
        sh_degree=degree,
        packed=packed,
        tile_size=TILE,
        render_mode="RGB+D",
        absgrad=absgrad,
    )
    return image[..., :3], image[..., 3:], alphas, info


class Splats:
    """gsplat's splat lists of Gaussians whose geometry takes no gradient, and what is splatted with them."""

    @torch.no_grad()
    def __init__(self, geometry: Geometry, view: View) -> None:
        means, quats, scales, opacities = geometry
        self._view = view
        self._gaussians = len(means)
        radii, self._means2d, depths, self._conics, _ = fully_fused_projection(
            means,
            None,
            quats,
            scales,
            view.viewmats,
            view.Ks,
            view.width,
            view.height,
            eps2d=EPS2D,
            near_plane=NEAR_PLANE,
            far_plane=FAR_PLANE,
            opacities=opacities,
        )
        self._opacities = opacities.expand(view.cameras, -1).contiguous()
        _, keys, self._flatten_ids = isect_tiles(self._means2d, radii, depths, TILE, *view.tiles)
        self._isect_offsets = isect_offset_encode(keys, view.cameras, *view.tiles)

    @property
    def lists(self) -> ops.Lists:
        """What every operator of `splat.ops` takes first."""
        flat = self._means2d.view(-1, 2), self._conics.view(-1, 3), self._opacities.view(-1)
        return *flat, self._isect_offsets, self._flatten_ids, None

    def codes(self, indices: Tensor, weights: Tensor, atoms: int) -> tuple[Tensor, Tensor]:
        """`splat.rasterize.rasterize_codes`."""
        return ops.codes(*self.lists, indices, weights, self._view.width, self._view.height, atoms)

    @torch.no_grad()
    def features(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """`splat.rasterize.rasterize_features`."""
        view, channels = self._view, features.shape[1]
        image = view.empty(channels)
        for start in range(0, channels, CHANNELS):
            part = slice(start, start + CHANNELS)
            image[..., part], alphas = rasterize_to_pixels(
                self._means2d,
                self._conics,
                features[:, part].expand(view.cameras, -1, -1),
                self._opacities,
                view.width,
                view.height,
                TILE,
                self._isect_offsets,
                self._flatten_ids,
            )
        return image, alphas

    def lift(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """`splat.rasterize.lift`."""
        return ops.lift(*self.lists, values, self._gaussians)

    def relevancy(
        self, indices: Tensor, weights: Tensor, scores: Tensor, gram: Tensor, positives: int, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """`splat.rasterize.rasterize_relevancy`."""
        query = (indices, weights, scores, gram, positives, temperature)
        return ops.relevancy(*self.lists, *query, self._view.width, self._view.height)
