"""Ways to choose a Gaussian's few atoms and their weights, given its feature's correlations with all atoms.

- ``nonnegative``: matching pursuit that keeps weights at 0 or above (`splat.omp`), as LangSplatV2's codes are.
- ``signed``: matching pursuit with weights of either sign.
- ``abs-topk``: the K atoms with the largest correlations of either sign, at once (as in AbsTopK autoencoders, 2025),
  weighted by least squares. Atoms then stand for two opposite things.
"""

from typing import Literal, get_args

import torch

from splat.omp import in_chunks, least_squares, omp

Coding = Literal["nonnegative", "signed", "abs-topk"]
CODINGS: tuple[Coding, ...] = get_args(Coding)


def code(
    correlations: torch.Tensor, gram: torch.Tensor, nonzeros: int, coding: Coding = "nonnegative"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Code each row with at most ``nonzeros`` atoms.

    Args:
        correlations: inner products of each vector with the unit-norm atoms. float [N, L]
        gram: inner products of the atoms. float [L, L]
        nonzeros: K, 1..L.

    Returns:
        indices: uint8 [N, K]; unused slots are 0
        weights: float [N, K]; unused slots are 0
    """
    if coding == "abs-topk":
        return abs_topk(correlations, gram, nonzeros)
    return omp(correlations, gram, nonzeros, nonnegative=coding == "nonnegative")


def abs_topk(
    correlations: torch.Tensor, gram: torch.Tensor, nonzeros: int, tolerance: float = 1e-4, chunk: int = 65536
) -> tuple[torch.Tensor, torch.Tensor]:
    """The atoms with the largest correlations of either sign, weighted by least squares.

    Args:
        tolerance: atoms with a smaller correlation are not used.
        chunk: rows coded at a time.
        correlations, gram, nonzeros: as for `code`, which also has what is returned.
    """

    def work(part: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        strengths, chosen = part.abs().topk(nonzeros, dim=1)
        used = strengths > tolerance
        little = gram[chosen[:, :, None], chosen[:, None, :]]
        return chosen.masked_fill(~used, 0), least_squares(little, part.gather(1, chosen), used)

    return in_chunks(work, correlations, nonzeros, chunk)
