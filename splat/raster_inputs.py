"""What every rasteriser backend is given: checked tensors of one type on one device, and the cameras of a render."""

from dataclasses import dataclass

import torch
from torch import Tensor

EPS2D = 0.3
"""Added to the diagonal of every image covariance, in square pixels (gsplat's default)."""
NEAR_PLANE = 0.01
FAR_PLANE = 1e10
TILE = 16
"""Side of a tile, pixels."""

Geometry = tuple[Tensor, Tensor, Tensor, Tensor]
"""means [N, 3], quats [N, 4], scales [N, 3], opacities [N]: contiguous float32 on one device."""


@dataclass(frozen=True)
class View:
    """Cameras of one render: viewmats [C, 4, 4] and Ks [C, 3, 3], contiguous float32 on the Gaussians' device."""

    viewmats: Tensor
    Ks: Tensor
    width: int
    height: int

    @property
    def cameras(self) -> int:
        """Number of cameras, C."""
        return len(self.viewmats)

    @property
    def tiles(self) -> tuple[int, int]:
        """Tiles in x and in y."""
        return -(-self.width // TILE), -(-self.height // TILE)

    def empty(self, *channels: int) -> Tensor:
        """An uninitialised image [C, H, W, *channels]."""
        return torch.empty(self.cameras, self.height, self.width, *channels, device=self.viewmats.device)


def plain(tensor: Tensor, device: torch.device, *shape: int) -> Tensor:
    """``tensor`` as contiguous float32 on ``device``; gradients pass. -1 in ``shape`` matches any size.

    Raises:
        ValueError: another shape.
    """
    if tensor.ndim != len(shape) or any(want not in (-1, have) for want, have in zip(shape, tensor.shape, strict=True)):
        raise ValueError(f"expected a tensor of shape {list(shape)}, got {list(tensor.shape)}")
    return tensor.to(device, torch.float32).contiguous()


def plain_inputs(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
) -> tuple[Geometry, View]:
    """Gaussians and cameras, checked against each other, on the device of ``means``; no gradient goes to cameras."""
    count, device, cameras = len(means), means.device, len(viewmats)
    geometry = (
        plain(means, device, -1, 3),
        plain(quats, device, count, 4),
        plain(scales, device, count, 3),
        plain(opacities, device, count),
    )
    viewmats, Ks = plain(viewmats.detach(), device, -1, 4, 4), plain(Ks.detach(), device, cameras, 3, 3)
    return geometry, View(viewmats, Ks, width, height)


def plain_indices(indices: Tensor, count: int, device: torch.device) -> Tensor:
    """Atom indices uint8 [count, levels, nonzeros], contiguous on a device.

    Raises:
        ValueError: another shape or type.
    """
    if indices.ndim != 3 or len(indices) != count or indices.dtype != torch.uint8:
        raise ValueError(
            f"indices must be uint8 [{count}, levels, nonzeros], got {indices.dtype} {list(indices.shape)}"
        )
    return indices.to(device).contiguous()
