"""Gaussians in the files of other programs: 3DGS PLY, PlayCanvas' compressed PLY, ``.splat`` and SPZ.

- ``.ply``: of the 3DGS authors; nothing is lost.
- ``.compressed.ply``: of PlayCanvas and SuperSplat, a quarter of the size. Without what is never drawn (opacity below
  1/255).
- ``.spz``: of Niantic, a quarter of the size before it is zipped; in axes of its own (right, up, back). Places are
  numbers of 24 bits, as fine as the farthest Gaussian allows, and scales lie between e^-10 and e^5.9.
- ``.splat``: of web viewers, an eighth of the size, with one colour from all sides.

gsplat writes compressed PLYs. SPZ and the reading of compressed PLYs need gsply (``pip install dictsplat[formats]``).
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.errors import InputError
from encoders.files import atomic_path
from splat.gaussians import SH_BASES, SH_C0, Gaussians, load_ply, save_ply
from splat.ply_promise import check_promise
from splat.web_splat import ROW, save_splat

COMPRESSED = ".compressed.ply"
SUFFIXES = (COMPRESSED, ".ply", ".splat", ".spz")
"""Of files that can be read and written."""
_HEADER = 4096
"""Bytes in which a compressed PLY says what it holds."""
_MIRRORED = (-1.0, -1.0, 1.0, -1.0, 1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, -1.0, 1.0, -1.0, 1.0)
"""Signs of the harmonics of degrees 1 to 3 when y and z change theirs."""

_SPZ_FINEST = 12
"""Bits below one of a place in SPZ, as its authors write: to 1/4096 of a unit, up to 2,048 units away."""
_SPZ_FARTHEST = (1 << 23) - 1
"""Largest place in SPZ, counted in steps."""
_SPZ_SCALES = (-10.0, -10.0 + 255 / 16)
"""Natural logarithms of the scales that SPZ can say."""


@dataclass(frozen=True)
class Written:
    """What a file has.

    Attributes:
        count: of its Gaussians.
        note: what this scene loses beyond the rounding that all lose, in words; empty if nothing.
    """

    count: int
    note: str = ""


def read_gaussians(path: Path) -> Gaussians:
    """Read one of `SUFFIXES`; a compressed PLY may also be called ``.ply``.

    Raises:
        InputError: the file is missing, damaged, of no such kind, or of one whose library is not installed.
    """
    kind = _kind(path)
    if not path.is_file():
        raise InputError(f"The Gaussians {path} do not exist; check the path.")
    if kind == ".splat":
        return _checked(path, _read_splat(path))
    if kind == ".spz":
        return _checked(path, turned(_read_with_gsply(path, "read_spz")))
    if is_plain_ply(path):
        return load_ply(path)
    with path.open("rb") as file:
        if b"end_header" not in file.read(_HEADER):  # gsply would look for it forever
            raise InputError(f"{path} cannot be read (its header does not end).")
    check_promise(path)
    return _checked(path, _read_with_gsply(path, "plyread"))


def is_plain_ply(path: Path) -> bool:
    """Whether a file is a 3DGS PLY, and not a compressed one that is called like it."""
    if _kind(path) not in (".ply", COMPRESSED):
        return False
    with path.open("rb") as file:
        return b"packed_position" not in file.read(_HEADER)


def write_gaussians(path: Path, gaussians: Gaussians) -> Written:
    """Write one of `SUFFIXES`, atomically.

    Raises:
        InputError: the path has none of them, its library is not installed, or a Gaussian is so far away that the
            format cannot say it.
    """
    kind, one = _kind(path), gaussians.to("cpu")
    if kind == ".spz":
        return _write_spz(path, one)
    if kind == COMPRESSED:
        from gsplat.exporter import export_splats

        parts = one.means, one.log_scales, one.quats, one.logit_opacities, one.sh[:, :1], one.sh[:, 1:]
        content = export_splats(*(part.detach() for part in parts), format="ply_compressed")
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
        return _compressed(content, len(one))
    if kind == ".splat":
        save_splat(path, one)
    else:
        save_ply(path, one)
    return Written(len(one))


def _compressed(content: bytes, given: int) -> Written:
    """What a compressed PLY says that it has: its writer leaves some out."""
    told = re.search(rb"^element vertex (\d+)$", content[:_HEADER], re.MULTILINE)
    assert told is not None
    count = int(told[1])
    return Written(count, f"{given - count:,} are never drawn (opacity below 1/255)" if count < given else "")


def _write_spz(path: Path, gaussians: Gaussians) -> Written:
    library = _gsply()
    farthest = float(gaussians.means.detach().abs().max()) if len(gaussians) else 0.0
    bits = next((bits for bits in range(_SPZ_FINEST, 0, -1) if farthest * (1 << bits) <= _SPZ_FARTHEST), 0)
    if not bits:
        raise InputError(
            f"A Gaussian lies {farthest:,.0f} units from the origin, and SPZ has places up to {_SPZ_FARTHEST // 2:,}; "
            f"write a .ply instead of {path}."
        )
    with atomic_path(path) as temporary:
        library.write_spz(temporary, _to_gsply(turned(gaussians)), fractional_bits=bits)
    notes = [f"places to 1/{1 << bits} of a unit, because of Gaussians up to {farthest:,.0f} away"]
    scales = gaussians.log_scales.detach()
    cut = int(((scales < _SPZ_SCALES[0]) | (scales > _SPZ_SCALES[1])).any(dim=1).sum())
    if cut:
        notes.append(f"{cut:,} have a scale that is cut to e^-10 or e^5.9")
    return Written(len(gaussians), "; ".join(notes if bits < _SPZ_FINEST else notes[1:]))


def turned(gaussians: Gaussians) -> Gaussians:
    """The scene turned by half a turn about x: between 3DGS' axes (right, down, ahead) and SPZ's (right, up, back)."""
    means, quats, sh = gaussians.means.clone(), gaussians.quats.clone(), gaussians.sh.clone()
    means[:, 1:] *= -1
    quats[:, 2:] *= -1
    sh[:, 1:] *= sh.new_tensor(_MIRRORED)[None, :, None]
    return replace(gaussians, means=means, quats=quats, sh=sh)


def _kind(path: Path) -> str:
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix):
            return suffix
    raise InputError(f"{path} has no ending that Gaussians have: {', '.join(SUFFIXES)}.")


def _read_splat(path: Path) -> Gaussians:
    content = path.read_bytes()
    if not content or len(content) % ROW.itemsize:
        raise InputError(f"{path} is no .splat file: its {len(content)} bytes are no rows of {ROW.itemsize}.")
    rows = np.frombuffer(content, ROW)
    colors = torch.from_numpy(rows["rgba"].astype(np.float32) / 255)
    sh = torch.zeros(len(rows), SH_BASES, 3)
    sh[:, 0] = (colors[:, :3] - 0.5) / SH_C0
    return Gaussians(
        means=_tensor(rows["mean"]),
        quats=torch.from_numpy(rows["quat"].astype(np.float32) - 128) / 128,
        log_scales=_tensor(rows["scale"]).clamp_min(1e-12).log(),
        logit_opacities=torch.logit(colors[:, 3], eps=1e-6),
        sh=sh,
    )


def _read_with_gsply(path: Path, function: str) -> Gaussians:
    library = _gsply()
    try:
        found = getattr(library, function)(path)
    except Exception as error:  # hostile files may make it fail in any way, and ask for all memory
        raise InputError(f"{path} cannot be read ({type(error).__name__}: {error}).") from error
    count = len(found.means)
    sh = torch.zeros(count, SH_BASES, 3)
    sh[:, 0] = _tensor(found.sh0)
    if found.shN is not None and found.shN.size:
        # SPZ may have a degree more, which nothing here draws.
        rest = _tensor(found.shN)[:, : SH_BASES - 1]
        sh[:, 1 : 1 + rest.shape[1]] = rest
    return Gaussians(
        means=_tensor(found.means),
        quats=_tensor(found.quats),
        log_scales=_tensor(found.scales),
        logit_opacities=_tensor(found.opacities).reshape(count).clamp(-30.0, 30.0),
        sh=sh,
    )


def _to_gsply(gaussians: Gaussians) -> Any:
    library = _gsply()
    arrays = {
        "means": gaussians.means, "scales": gaussians.log_scales, "quats": gaussians.quats,
        "opacities": gaussians.logit_opacities, "sh0": gaussians.sh[:, 0], "shN": gaussians.sh[:, 1:],
    }  # fmt: skip
    numbers = {name: np.ascontiguousarray(tensor.detach().numpy(), np.float32) for name, tensor in arrays.items()}
    return library.GSData(**numbers, _format=library.create_ply_format(sh_degree=3))


def _gsply() -> Any:
    try:
        import gsply
    except ImportError:
        raise InputError(
            "SPZ files, and compressed PLYs to be read, need another library; install it with: "
            "pip install 'dictsplat[formats]'"
        ) from None
    return gsply


def _checked(path: Path, gaussians: Gaussians) -> Gaussians:
    for name, tensor in vars(gaussians).items():
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{path} has values in {name} that are not finite; export the scene again.")
    return gaussians


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32))
