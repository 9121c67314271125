"""Sparse coding of many vectors at once without ever seeing the vectors.

Orthogonal matching pursuit needs a vector f only through its correlations with the atoms, ``b = A f``, and
the atoms only through their Gram matrix, ``G = A A^T`` ("batch OMP", Rubinstein et al. 2008). That is what
makes coding a million 512-dimensional features possible in N x L memory.
"""

from collections.abc import Callable

import torch

_RIDGE = 1e-6
"""Added to the diagonal of the little systems: two atoms may be nearly the same direction."""


def omp(
    correlations: torch.Tensor,
    gram: torch.Tensor,
    nonzeros: int,
    nonnegative: bool = True,
    tolerance: float = 1e-4,
    chunk: int = 65536,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Code each row with at most `nonzeros` atoms, greedily, minimising ``|f - w A|^2``.

    Non-negative coding is the active-set algorithm of Lawson and Hanson stopped at K atoms: whenever the
    least squares solution on the chosen atoms would turn a weight negative, that atom leaves again. So on
    its support the result is the non-negative least squares solution.

    Args:
        correlations: inner products of each vector with the unit-norm atoms. float [N, L]
        gram: inner products of the atoms. float [L, L]
        nonzeros: K, 1..L.
        nonnegative: keep weights >= 0; otherwise signed OMP.
        tolerance: stop adding atoms to a row once the residual's best correlation is below this.
        chunk: rows coded at a time; memory is about ``chunk * 3 L`` floats.

    Returns:
        indices: uint8 [N, K]; unused slots are 0
        weights: float [N, K]; unused slots are 0
    """

    def work(part: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return _omp_chunk(part, gram, nonzeros, nonnegative, tolerance)

    return in_chunks(work, correlations, nonzeros, chunk)


def in_chunks(
    work: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    correlations: torch.Tensor,
    nonzeros: int,
    chunk: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Code `chunk` rows at a time with ``work``: indices uint8 [N, K] and weights float [N, K].

    Raises:
        ValueError: `nonzeros` is not in 1..L.
    """
    rows, atoms = correlations.shape
    if not 1 <= nonzeros <= atoms:
        raise ValueError(f"nonzeros is {nonzeros}, the dictionary has {atoms} atoms")
    indices = torch.zeros(rows, nonzeros, dtype=torch.uint8, device=correlations.device)
    weights = torch.zeros(rows, nonzeros, dtype=correlations.dtype, device=correlations.device)
    for start in range(0, rows, chunk):
        part = slice(start, start + chunk)
        found, values = work(correlations[part])
        indices[part], weights[part] = found.to(torch.uint8), values
    return indices, weights


def coding_residual(
    correlations: torch.Tensor, gram: torch.Tensor, indices: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """What the code leaves unexplained, as correlations with the atoms: ``b - w G``. [N, L]"""
    dense = weights.new_zeros(correlations.shape).scatter_add_(1, indices.long(), weights)
    return torch.addmm(correlations, dense, gram, alpha=-1)


def code_cosine(
    correlations: torch.Tensor, gram: torch.Tensor, indices: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """``<f, w A> / |w A|``, the cosine between vector and code times the vector's norm. [N]; 0 if empty."""
    chosen = indices.long()
    along = (correlations.gather(1, chosen) * weights).sum(1)
    little = gram[chosen[:, :, None], chosen[:, None, :]]
    norm2 = torch.einsum("nk,nkj,nj->n", weights, little, weights)
    return torch.where(norm2 > 0, along / norm2.clamp_min(1e-20).sqrt(), torch.zeros_like(along))


def _omp_chunk(
    b: torch.Tensor, gram: torch.Tensor, nonzeros: int, nonnegative: bool, tolerance: float
) -> tuple[torch.Tensor, torch.Tensor]:
    rows = b.shape[0]
    indices = torch.zeros(rows, nonzeros, dtype=torch.long, device=b.device)
    weights = torch.zeros(rows, nonzeros, dtype=b.dtype, device=b.device)
    used = torch.zeros(rows, nonzeros, dtype=torch.bool, device=b.device)
    open_rows = torch.arange(rows, device=b.device)
    # An atom that left frees its slot, so a few more than K steps may be needed to fill K slots.
    for _ in range(nonzeros if not nonnegative else 2 * nonzeros):
        residual = coding_residual(b[open_rows], gram, indices[open_rows], weights[open_rows])
        # Unused slots point at atom 0 too, hence adding rather than writing.
        counts = torch.zeros_like(residual).scatter_add_(1, indices[open_rows], used[open_rows].to(b.dtype))
        score = (residual if nonnegative else residual.abs()).masked_fill(counts > 0, -1.0)
        best, atom = score.max(1)
        go = best > tolerance
        open_rows, atom = open_rows[go], atom[go]
        if not len(open_rows):
            break
        slot = used[open_rows].to(torch.int8).argmin(1)  # first free one
        indices[open_rows, slot] = atom
        used[open_rows, slot] = True
        fresh, kept = _solve(b[open_rows], gram, indices[open_rows], used[open_rows], weights[open_rows], nonnegative)
        weights[open_rows], used[open_rows] = fresh, kept
        open_rows = open_rows[~kept.all(1)]
        if not len(open_rows):
            break
    return indices.masked_fill_(~used, 0), weights.masked_fill_(~used, 0.0)


def _solve(
    b: torch.Tensor,
    gram: torch.Tensor,
    indices: torch.Tensor,
    used: torch.Tensor,
    old: torch.Tensor,
    nonnegative: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(Non-negative) least squares on the used slots: weights [n, K] and which slots stay used."""
    target = b.gather(1, indices)
    little = gram[indices[:, :, None], indices[:, None, :]]
    if not nonnegative:
        return least_squares(little, target, used), used
    weights, used = old.clone(), used.clone()
    todo = torch.arange(len(b), device=b.device)
    for _ in range(used.shape[1] + 1):
        fit = least_squares(little[todo], target[todo], used[todo])
        bad = used[todo] & (fit <= 0)
        good = ~bad.any(1)
        weights[todo[good]] = fit[good]
        todo, fit, bad = todo[~good], fit[~good], bad[~good]
        if not len(todo):
            break
        # Walk from the old weights towards the fit until the first weight reaches zero; that atom leaves.
        before = weights[todo]
        ratio = torch.where(bad, before / (before - fit).clamp_min(1e-20), torch.full_like(fit, torch.inf))
        step, first = ratio.min(1)
        weights[todo] = before + step[:, None] * (fit - before)
        used[todo, first] = False
        weights[todo] = weights[todo].masked_fill(~used[todo], 0.0).clamp_min(0.0)
    return weights, used


def least_squares(little: torch.Tensor, target: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
    """Weights of the used slots that fit best, 0 elsewhere.

    Args:
        little: inner products of a row's atoms [n, K, K]. target: their inner products with its vector [n, K].
        used: bool [n, K].
    """
    eye = torch.eye(used.shape[1], dtype=little.dtype, device=little.device)
    both = used[:, :, None] & used[:, None, :]
    diagonal = eye * torch.where(used, _RIDGE, 1.0)[:, :, None]
    system = torch.where(both, little, torch.zeros_like(little)) + diagonal
    return torch.linalg.solve(system, target.masked_fill(~used, 0.0))
