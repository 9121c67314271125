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

PACKED_FROM = 1_000_000
"""Of so many Gaussians or more, only lists of the visible ones are made: a view sees a part of a scene of that size."""


def _without_nan(opacities: Tensor) -> Tensor:
    """Opacities with NaN as 0: gsplat takes the smaller of 0.999 and alpha, which for NaN is 0.999 on a GPU."""
    return torch.nan_to_num(opacities, nan=0.0)


def rgb(
    geometry: Geometry, sh: Tensor, view: View, degree: int, packed: bool, absgrad: bool
) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
    """`splat.rasterize.rasterize_rgb` without a background."""
    *shape, opacities = geometry
    image, alphas, info = rasterization(
        *shape,
        _without_nan(opacities),
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
    """gsplat's splat lists of Gaussians whose geometry takes no gradient, and what is splatted with them.

    Attributes:
        lists: what every operator of `splat.ops` takes first.
    """

    @torch.no_grad()
    def __init__(self, geometry: Geometry, view: View) -> None:
        means, quats, scales, opacities = geometry
        opacities = _without_nan(opacities)
        self._view = view
        self._gaussians = len(means)
        packed = self._gaussians >= PACKED_FROM
        projected = fully_fused_projection(
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
            packed=packed,
            opacities=opacities,
        )
        whose: dict[str, Any] = {}
        if packed:
            _, cameras, gaussians, radii, means2d, depths, conics, _ = projected
            whose = {"packed": True, "n_images": view.cameras, "image_ids": cameras, "gaussian_ids": gaussians}
            opacities = opacities[gaussians]
        else:
            radii, means2d, depths, conics, _ = projected
            opacities = opacities.expand(view.cameras, -1).flatten()
        _, keys, flatten_ids = isect_tiles(means2d, radii, depths, TILE, *view.tiles, **whose)
        self.lists: ops.Lists = (
            means2d.reshape(-1, 2),
            conics.reshape(-1, 3),
            opacities,
            isect_offset_encode(keys, view.cameras, *view.tiles),
            flatten_ids,
            gaussians.int() if packed else None,  # as the kernels take them
        )

    @property
    def nbytes(self) -> int:
        """Memory of the lists."""
        return sum(each.nbytes for each in self.lists if each is not None)

    def codes(self, indices: Tensor, weights: Tensor, atoms: int) -> tuple[Tensor, Tensor]:
        """`splat.rasterize.rasterize_codes`."""
        return ops.codes(*self.lists, indices, weights, self._view.width, self._view.height, atoms)

    @torch.no_grad()
    def features(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """`splat.rasterize.rasterize_features`."""
        view, channels = self._view, features.shape[1]
        means2d, conics, opacities, isect_offsets, flatten_ids, gaussians = self.lists
        image = view.empty(channels)
        for start in range(0, channels, CHANNELS):
            part = features[:, start : start + CHANNELS]
            of_splats = part.repeat(view.cameras, 1) if gaussians is None else part[gaussians]
            image[..., start : start + CHANNELS], alphas = rasterize_to_pixels(
                means2d,
                conics,
                of_splats,
                opacities,
                view.width,
                view.height,
                TILE,
                isect_offsets,
                flatten_ids,
                packed=True,  # splats of all cameras in one row, whether all of them are there or the visible ones
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
