"""Sparse lookup: each query is rebuilt from the few dictionary entries that it resembles (DictAS, section 3.2).

``retrieved = projection(Q Kᵀ · scale) V``. The projection turns a row of similarities into weights that sum to 1;
a sparse one leaves almost all of them exactly 0, so a query that is like no entry cannot be rebuilt by mixing many.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK_VALUES = 1 << 21
"""Similarities held at once, 8 MiB: memory stays the same however large the dictionary is, and caches like it."""
TOP_K = 8
"""Entries that the "top-k" projection mixes."""


class _Sparsemax(torch.autograd.Function):
    """Euclidean projection onto the simplex (Martins & Astudillo 2016), without sorting.

    The threshold τ with ``Σ max(z - τ, 0) = 1`` is the root of a convex, piecewise linear function. Newton's
    method from the left, where ``max(z) - 1`` lies, never overshoots, so it ends at the exact threshold after
    finitely many steps (Michelot 1986).
    """

    @staticmethod
    def forward(scores: Tensor) -> Tensor:
        threshold = scores.amax(-1, keepdim=True) - 1.0
        size = torch.zeros_like(threshold)
        while True:
            above = scores > threshold
            new_size = above.sum(-1, keepdim=True).to(scores.dtype)
            if torch.equal(new_size, size):
                return (scores - threshold).clamp_min_(0.0)
            total = torch.where(above, scores, 0.0).sum(-1, keepdim=True)
            threshold, size = (total - 1.0) / new_size, new_size

    @staticmethod
    def setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        (weights,) = ctx.saved_tensors  # type: ignore[attr-defined]
        support = (weights > 0).to(gradient.dtype)
        mean = (gradient * support).sum(-1, keepdim=True) / support.sum(-1, keepdim=True)
        return support * (gradient - mean)


def sparsemax(scores: Tensor) -> Tensor:
    """Scores [..., M] -> weights [..., M] >= 0 that sum to 1, most of them exactly 0."""
    return _Sparsemax.apply(scores)


def _entmax15(scores: Tensor) -> Tensor:
    from entmax import entmax15  # only the ablation wants it

    return entmax15(scores, dim=-1)


def _top_k(scores: Tensor) -> Tensor:
    best, indices = scores.topk(min(TOP_K, scores.shape[-1]), dim=-1)
    return torch.zeros_like(scores).scatter(-1, indices, best.softmax(-1))


def _max(scores: Tensor) -> Tensor:
    best, indices = scores.max(dim=-1, keepdim=True)
    # A weight of exactly 1 that passes the gradient of the best score on, as if it were multiplied by it.
    return torch.zeros_like(scores).scatter(-1, indices, 1.0 + best - best.detach())


PROJECTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sparsemax": sparsemax,
    "softmax": lambda scores: scores.softmax(-1),
    "top-k": _top_k,
    "entmax15": _entmax15,
    "max": _max,
}
"""Similarities [..., M] -> weights [..., M]: the paper's, and those of its ablation."""


def lookup(queries: Tensor, keys: Tensor, values: Tensor, projection: str = "sparsemax", scale: float = 1.0) -> Tensor:
    """Rebuild each query from the values whose keys it resembles.

    Queries are taken some at a time, in training too, where their similarities are computed again for the
    gradient: memory is bounded by `CHUNK_VALUES` and does not grow with P times M.

    Args:
        queries: [P, C].
        keys: [M, C].
        values: [M, D].
        projection: one of `PROJECTIONS`.
        scale: factor on the similarities, C^-½ in the paper.

    Returns:
        [P, D]; differentiable in queries, keys and values.
    """
    project = PROJECTIONS[projection]

    def retrieve(some: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return project(some @ keys.T * scale) @ values

    rows = max(1, CHUNK_VALUES // len(keys))
    if len(queries) <= rows:
        return retrieve(queries, keys, values)
    if not torch.is_grad_enabled():
        return torch.cat([retrieve(some, keys, values) for some in queries.split(rows)])
    parts = [checkpoint(retrieve, some, keys, values, use_reentrant=False) for some in queries.split(rows)]
    return torch.cat(parts)
