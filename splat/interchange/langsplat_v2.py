"""Trained scenes of LangSplatV2: three ``chkpnt*.pth``, one per level, each with all Gaussians.

A checkpoint is what its authors' ``GaussianModel.capture(include_feature=True)`` gives: a tuple of Gaussians as they
are optimised, logits [N, L] over a codebook [1, L, D], and the optimiser's state. A Gaussian's code is
``renormalise(top-K(softmax(logits)))``, so its weights sum to one and the codebook's rows have any length; in
`LanguageField` the atoms have length one and the weights any sum. `read_levels` and `write_levels` convert.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from encoders.base import LEVELS
from encoders.errors import InputError
from encoders.files import atomic_path
from splat.codes import MAX_ATOMS, LanguageField, densify, sparsify
from splat.gaussians import SH_BASES, Gaussians
from splat.interchange.pickled import load_pickled

ITERATION = 10_000
"""What a written checkpoint calls its training steps; LangSplatV2's scripts look for this number."""
_FIELDS = 14
"""Of the tuple in a checkpoint with features; one of the RGB training has 12."""
_UNUSED = -30.0
"""Logit, beside those of the used atoms around 0, of an atom that a Gaussian does not use."""
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Checkpoint:
    """One level.

    Attributes:
        gaussians: N Gaussians.
        logits: float32 [N, L]. codebook: float32 [L, D].
    """

    gaussians: Gaussians
    logits: Tensor
    codebook: Tensor


def find_checkpoint(path: Path) -> Path:
    """The newest ``chkpnt*.pth`` of a model folder, or ``path`` itself if it is a file.

    Raises:
        InputError: there is none.
    """
    if path.is_file():
        return path
    numbered = [(file.stem.removeprefix("chkpnt"), file) for file in path.glob("chkpnt*.pth")]
    found = [(int(number), file) for number, file in numbered if number.isdigit()]
    if not found:
        raise InputError(f"{path} has no chkpnt*.pth; give a model folder of LangSplatV2, or the file itself.")
    return max(found)[1]


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one level's checkpoint.

    Raises:
        InputError: it cannot be read, is none of LangSplatV2's with features, or holds values that are not finite.
    """
    content = load_pickled(path)
    # A tensor can be taken apart as well, into as many as it claims to have.
    pair = isinstance(content, list | tuple) and len(content) == 2
    fields = content[0] if pair else None
    if not isinstance(fields, list | tuple):
        raise InputError(f"{path} is no checkpoint of LangSplatV2 (chkpnt*.pth).")
    if len(fields) != _FIELDS:
        raise InputError(
            f"{path} has {len(fields)} fields, a checkpoint of LangSplatV2 with language features has {_FIELDS}; "
            "give those of the runs with --include_feature."
        )
    _degree, means, dc, rest, log_scales, quats, opacities, logits, codebooks = fields[:9]
    shapes = {
        "means": (means, (None, 3)), "colours": (dc, (None, 1, 3)), "harmonics": (rest, (None, None, 3)),
        "scales": (log_scales, (None, 3)), "rotations": (quats, (None, 4)), "opacities": (opacities, (None, 1)),
        "logits": (logits, (None, None)), "codebook": (codebooks, (None, None, None)),
    }  # fmt: skip
    for name, (tensor, shape) in shapes.items():
        _check(path, name, tensor, shape)
    if len(codebooks) != 1:
        raise InputError(
            f"{path} has a codebook of {len(codebooks)} layers (--vq_layer_num); "
            "only one, as in the paper, can be read."
        )
    count, codebook = len(means), codebooks[0].detach().float()
    if {len(tensor) for name, (tensor, _) in shapes.items() if name != "codebook"} != {count}:
        raise InputError(f"{path} has tensors of different numbers of Gaussians; it is damaged.")
    if logits.shape[1] != len(codebook) or not 1 <= len(codebook) <= MAX_ATOMS:
        raise InputError(
            f"{path} has logits for {logits.shape[1]} atoms and a codebook of {len(codebook)}; "
            f"they must agree and be at most {MAX_ATOMS}."
        )
    if rest.shape[1] >= SH_BASES:
        raise InputError(
            f"{path} has {rest.shape[1] + 1} harmonics; degree 3 at most, which is {SH_BASES}, can be read."
        )
    sh = torch.zeros(count, SH_BASES, 3)
    sh[:, 0], sh[:, 1 : 1 + rest.shape[1]] = dc[:, 0].detach(), rest.detach()
    gaussians = Gaussians(
        means=means.detach().float(),
        quats=quats.detach().float(),
        log_scales=log_scales.detach().float(),
        logit_opacities=opacities.detach().float()[:, 0].clamp(-30.0, 30.0),
        sh=sh,
    )
    return Checkpoint(gaussians, logits.detach().float(), codebook)


def read_levels(paths: Sequence[Path], encoder: str, nonzeros: int = 4) -> tuple[Gaussians, LanguageField]:
    """Read a trained scene.

    Args:
        paths: a checkpoint or model folder per level: subpart, part, whole.
        encoder: name of the encoder whose features the scene was trained with, see `encoders.create`.
        nonzeros: K, ``--topk`` of the training.

    Returns:
        The Gaussians, and the codes of the levels. A pixel's feature is the same as in LangSplatV2.

    Raises:
        InputError: a checkpoint cannot be used, or they are of different scenes.
    """
    if not 1 <= len(paths) <= len(LEVELS):
        raise InputError(f"Give a checkpoint for each level ({', '.join(LEVELS)}), not {len(paths)}.")
    gaussians: Gaussians | None = None
    atoms: list[Tensor] = []
    indices, weights = [], []
    for path in map(find_checkpoint, paths):
        level = read_checkpoint(path)
        if gaussians is None:
            gaussians = level.gaussians
        elif level.gaussians.means.shape != gaussians.means.shape or not torch.equal(
            level.gaussians.means, gaussians.means
        ):
            raise InputError(f"{path} has other Gaussians than {paths[0]}; give the levels of one scene.")
        if atoms and level.codebook.shape != atoms[0].shape:
            raise InputError(
                f"{path} has a codebook of {list(level.codebook.shape)}, {paths[0]} one of {list(atoms[0].shape)}."
            )
        if not 1 <= nonzeros <= len(level.codebook):
            raise InputError(f"A code cannot have {nonzeros} of the {len(level.codebook)} atoms in {path}.")
        chosen, shares = sparsify(level.logits, nonzeros)
        lengths = level.codebook.norm(dim=1)
        atoms.append(level.codebook / lengths.clamp_min(1e-12)[:, None])
        indices.append(chosen)
        weights.append(shares * lengths[chosen.long()])
    assert gaussians is not None
    return gaussians, LanguageField(torch.stack(atoms), torch.stack(indices, 1), torch.stack(weights, 1), encoder)


def write_levels(paths: Sequence[Path], gaussians: Gaussians, field: LanguageField) -> list[float]:
    """Write a scene as checkpoints, one per level, for ``--include_feature --quick_render`` of LangSplatV2.

    There a code's weights sum to one. The lengths of the codebook's rows are chosen so that ours do, as nearly as
    they can (least squares): exactly for scenes that were read from checkpoints or fitted by the solver ``sgd``.

    Returns:
        Per level, by how much the sums still miss one (root of the mean square): what a Gaussian's feature gains or
        loses in length. Its direction is kept by whoever reads all K of its nonzeros (``--topk``); see `own_scripts`.

    Raises:
        InputError: a code has negative weights, or other than one path per level is given.
    """
    if len(paths) != field.levels:
        raise InputError(f"The scene has {field.levels} levels, but {len(paths)} files are given.")
    if bool((field.weights < 0).any()):
        raise InputError("Signed codes cannot be written for LangSplatV2, whose weights are a softmax.")
    missed = []
    for level, path in enumerate(paths):
        indices, weights = field.indices[:, level].cpu(), field.weights[:, level].detach().cpu().float()
        shares, miss = _shares_of_one(indices, weights, field.atoms.shape[1])
        missed.append(miss)
        scaled = weights * shares[indices.long()]
        total = scaled.sum(1, keepdim=True)
        logits = torch.full((len(field), field.atoms.shape[1]), _UNUSED)
        # The largest last: where a slot is unused (weight 0) it may name an atom that another slot uses.
        order = scaled.argsort(dim=1)
        values = (scaled / total.clamp_min(1e-30)).clamp_min(1e-12).log().gather(1, order)
        for slot in range(order.shape[1]):
            logits.scatter_(1, indices.long().gather(1, order)[:, slot : slot + 1], values[:, slot : slot + 1])
        codebook = field.atoms[level].detach().cpu().float() / shares[:, None]
        _save(path, Checkpoint(gaussians.to("cpu"), logits, codebook))
    return missed


def own_scripts(field: LanguageField) -> str:
    """Why LangSplatV2's own scripts cannot use a scene as checkpoints, in words; empty if they can.

    They have the size of features, of codebooks and of codes written into them.
    """
    (_, atoms, dim), nonzeros = field.atoms.shape, field.indices.shape[2]
    found = {"features of": (dim, 512), "atoms": (atoms, 64), "nonzeros": (nonzeros, 4)}
    other = [f"{name} {has}, not {wants}" for name, (has, wants) in found.items() if has != wants]
    return f"LangSplatV2's own scripts cannot use them ({'; '.join(other)})" if other else ""


def _shares_of_one(indices: Tensor, weights: Tensor, atoms: int) -> tuple[Tensor, float]:
    """Positive factors [atoms] that make the weights [N, K] of each code sum to one, in the sense of least squares."""
    gram, total = torch.zeros(atoms, atoms, dtype=torch.float64), torch.zeros(atoms, dtype=torch.float64)
    for start in range(0, len(weights), _CHUNK):
        dense = densify(indices[start : start + _CHUNK], weights[start : start + _CHUNK].double(), atoms)
        gram += dense.T @ dense
        total += dense.sum(0)
    used = total > 0
    mean = float(weights.double().sum(1).mean().clamp_min(1e-12)) if len(weights) else 1.0
    factors = torch.full((atoms,), 1.0 / mean, dtype=torch.float64)
    if bool(used.any()):
        solved = torch.linalg.lstsq(gram[used][:, used], total[used][:, None], driver="gelsd").solution[:, 0]
        # Lengths far from all others would only fit noise.
        if bool(((solved * mean > 0.02) & (solved * mean < 50)).all()):
            factors[used] = solved
    factors = factors.float()
    sums = (weights * factors[indices.long()]).sum(1)
    coded = weights.sum(1) > 0
    miss = (sums[coded] - 1).square().mean().sqrt() if bool(coded.any()) else torch.zeros(())
    return factors, float(miss)


def _save(path: Path, level: Checkpoint) -> None:
    one, count = level.gaussians, len(level.gaussians)
    parameters = [
        one.means, one.sh[:, :1], one.sh[:, 1:], one.log_scales, one.quats, one.logit_opacities[:, None],
        level.logits, level.codebook[None],
    ]  # fmt: skip
    statistics = [torch.zeros(count), torch.zeros(count, 1), torch.zeros(count, 1)]
    optimiser: dict[str, Any] = {"state": {}, "param_groups": []}
    tensors = [nn.Parameter(tensor.detach().contiguous().clone()) for tensor in parameters]
    with atomic_path(path) as temporary:
        torch.save(((3, *tensors, *statistics, optimiser, 1.0), ITERATION), temporary)


def _check(path: Path, name: str, tensor: Any, shape: tuple[int | None, ...]) -> None:
    fits = isinstance(tensor, Tensor) and tensor.ndim == len(shape) and tensor.is_floating_point()
    if not fits or any(want not in (None, size) for want, size in zip(shape, tensor.shape, strict=True)):
        raise InputError(f"{path} is no checkpoint of LangSplatV2: its {name} have another shape.")
    # A few bytes can claim to be any number of values: by a stride of 0, as zeros left out, or with no values at all.
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise InputError(f"{path} does not hold all values of its {name}; save the checkpoint again.")
    # Some tools write fully opaque Gaussians with an infinite logit.
    damaged = torch.isnan(tensor) if name == "opacities" else ~torch.isfinite(tensor)
    if bool(damaged.any()):
        raise InputError(f"{path} has values in its {name} that are not finite.")
