"""The parameters of a scene of 3D Gaussians, and the standard 3DGS PLY file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from plyfile import PlyData, PlyElement, PlyParseError
from torch import Tensor

from encoders.errors import InputError
from encoders.files import atomic_path

SH_BASES = 16
"""Spherical harmonics to degree 3."""
_CELLS = 1 << 10
SH_C0 = 0.28209479177387814
"""The constant basis function: colour = 0.5 + SH_C0 * sh[0]."""


@dataclass
class Gaussians:
    """N Gaussians as they are optimised and stored (before activation), all float32.

    Attributes:
        means: centres in world units [N, 3].
        quats: rotations (w, x, y, z), not necessarily of unit length [N, 4].
        log_scales: natural logarithm of the standard deviations [N, 3].
        logit_opacities: inverse sigmoid of the opacities [N].
        sh: colour coefficients [N, 16, 3].
    """

    means: Tensor
    quats: Tensor
    log_scales: Tensor
    logit_opacities: Tensor
    sh: Tensor

    def __len__(self) -> int:
        return len(self.means)

    @property
    def scales(self) -> Tensor:
        """Standard deviations [N, 3]."""
        return self.log_scales.exp()

    @property
    def opacities(self) -> Tensor:
        """Opacities in 0..1 [N]."""
        return self.logit_opacities.sigmoid()

    @property
    def geometry(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``means, quats, scales, opacities`` in the order every function of `splat.rasterize` takes them."""
        return self.means, self.quats, self.scales, self.opacities

    @property
    def device(self) -> torch.device:
        """Where they are, and so where they are splatted."""
        return self.means.device

    def to(self, device: str | torch.device) -> "Gaussians":
        """The same Gaussians on a device."""
        return Gaussians(*(tensor.to(device) for tensor in vars(self).values()))

    def in_spatial_order(self) -> "Gaussians":
        """The same Gaussians with neighbours in space beside each other, along a Z-order curve.

        A tile of an image reads Gaussians that are near each other. With the rows in this order it finds them in the
        same pages and cache lines, which makes splatting on a CPU about a tenth faster.
        """
        return self.subset(spatial_order(self.means))

    def subset(self, which: Tensor) -> "Gaussians":
        """Those selected by a boolean mask [N] or an index tensor, which must be on their device."""
        return Gaussians(*(tensor[which] for tensor in vars(self).values()))


def spatial_order(means: Tensor) -> Tensor:
    """The permutation [N] that sorts points [N, 3] along a Z-order (Morton) curve of 1,024 cells a side.

    The cells are cubes that span the middle 98 % of the points along the widest axis: a few Gaussians far away would
    otherwise put all others into one cell. Points outside count as in the outermost cells.
    """
    if not len(means):
        return torch.zeros(0, dtype=torch.int64, device=means.device)
    # Not torch.quantile, which refuses more than 2^24 values.
    ordered = means.detach().sort(dim=0).values
    low, high = ordered[len(means) // 100], ordered[-1 - len(means) // 100]
    side = float((high - low).max()) or 1.0
    cells = ((means.detach() - low) / side * _CELLS).clamp(0, _CELLS - 1).long()
    keys = torch.zeros(len(means), dtype=torch.int64, device=means.device)
    for bit in range(_CELLS.bit_length() - 1):
        for axis in range(3):
            keys |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    return keys.argsort(stable=True)


def _columns() -> list[str]:
    rest = [f"f_rest_{i}" for i in range(3 * (SH_BASES - 1))]
    names = ["x", "y", "z", "nx", "ny", "nz", *(f"f_dc_{i}" for i in range(3)), *rest, "opacity"]
    return [*names, *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]


def save_ply(path: Path, gaussians: Gaussians) -> None:
    """Write the binary PLY of the 3DGS authors, which viewers and editors open; atomically."""
    count, gaussians = len(gaussians), gaussians.to("cpu")
    # f_rest is channel-major: 15 coefficients of red, then green, then blue.
    rest = gaussians.sh[:, 1:].transpose(1, 2).reshape(count, -1)
    parts = [
        gaussians.means,
        torch.zeros(count, 3),
        gaussians.sh[:, 0],
        rest,
        gaussians.logit_opacities[:, None],
    ]
    table = torch.cat([*parts, gaussians.log_scales, gaussians.quats], dim=1).detach().float().numpy()
    vertices = np.ascontiguousarray(table, dtype="<f4").view([(name, "<f4") for name in _columns()])[:, 0]
    with atomic_path(Path(path)) as temporary:
        PlyData([PlyElement.describe(vertices, "vertex")]).write(str(temporary))


def ply_vertices(path: Path) -> PlyElement:
    """The vertices of a PLY file; of a binary one they are mapped, not read yet.

    Raises:
        InputError: the file is missing or is not a PLY.
    """
    try:
        return PlyData.read(str(path))["vertex"]
    except FileNotFoundError:
        raise InputError(f"The Gaussians {path} do not exist; train the scene first.") from None
    except (PlyParseError, KeyError, ValueError, OSError, OverflowError, MemoryError) as error:
        raise InputError(f"{path} is not a readable PLY file ({error}); export the scene again.") from error


def load_ply(path: Path) -> Gaussians:
    """Read a 3DGS PLY, whoever trained it; spherical harmonics of a lower degree are padded with zeros.

    Raises:
        InputError: the file is missing, is not such a PLY, or has values that are not finite.
    """
    vertices = ply_vertices(path).data
    names = set(vertices.dtype.names or ())
    missing = [name for name in _columns() if name not in names and not name.startswith(("n", "f_rest"))]
    if missing:
        raise InputError(
            f"{path} has no property {missing[0]!r}, so it is not a 3D Gaussian scene; export it as a 3DGS PLY."
        )
    rest_count = sum(name.startswith("f_rest_") for name in names)
    if rest_count not in (0, 9, 24, 45) or not {f"f_rest_{i}" for i in range(rest_count)} <= names:
        raise InputError(
            f"{path} has {rest_count} f_rest properties; spherical harmonics have 0, 9, 24 or 45 of them, "
            "counted from 0."
        )

    def columns(*wanted: str) -> Tensor:
        return torch.from_numpy(np.stack([np.asarray(vertices[name], dtype=np.float32) for name in wanted], axis=-1))

    count = len(vertices)
    sh = torch.zeros(count, SH_BASES, 3)
    sh[:, 0] = columns("f_dc_0", "f_dc_1", "f_dc_2")
    if rest_count:
        rest = columns(*(f"f_rest_{i}" for i in range(rest_count))).reshape(count, 3, rest_count // 3)
        sh[:, 1 : 1 + rest_count // 3] = rest.transpose(1, 2)
    gaussians = Gaussians(
        means=columns("x", "y", "z"),
        quats=columns("rot_0", "rot_1", "rot_2", "rot_3"),
        log_scales=columns("scale_0", "scale_1", "scale_2"),
        logit_opacities=columns("opacity")[:, 0],
        sh=sh,
    )
    # Some tools write fully opaque Gaussians with an infinite logit; anything else infinite is damage.
    gaussians.logit_opacities = gaussians.logit_opacities.clamp(-30.0, 30.0)
    for name, tensor in vars(gaussians).items():
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{path} has values in {name} that are not finite; export the scene again.")
    return gaussians
