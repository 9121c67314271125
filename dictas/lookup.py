"""Sparse lookup: each query is rebuilt from the few dictionary entries that it resembles (DictAS, section 3.2).

``retrieved = projection(Q Kᵀ · scale) V``. The projection turns a row of similarities into weights that sum to 1;
a sparse one leaves almost all of them exactly 0, so a query that is like no entry cannot be rebuilt by mixing many.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.utils.checkpoint import checkpoint

CHUNK_VALUES = 1 << 21
"""Similarities held at once, 8 MiB: memory stays the same however large the dictionary is, and caches like it."""
CANDIDATES = 32
"""Best entries per query among which sparsemax is first looked for; trained generators leave about five."""
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
    def setup_context(ctx: FunctionCtx, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
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


def lookup(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    projection: str = "sparsemax",
    scale: float | Tensor = 1.0,
) -> Tensor:
    """Rebuild each query from the values whose keys it resembles.

    Queries are taken some at a time; memory is bounded by `CHUNK_VALUES` and does not grow with P times M, in
    training either: of a sparse projection only the weights above 0 are kept for the gradient, for a dense one
    similarities are computed again.

    Args:
        queries: [P, C].
        keys: [M, C].
        values: [M, D].
        projection: one of `PROJECTIONS`.
        scale: factor on the similarities, C^-½ in the paper.

    Returns:
        [P, D]; differentiable in queries, keys, values and scale.
    """
    if projection == "sparsemax":
        return _sparsemax_lookup(queries * scale, keys, values)
    project = PROJECTIONS[projection]

    def retrieve(some: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return project(some @ keys.T) @ values

    parts = (queries * scale).split(_rows(keys))
    if not torch.is_grad_enabled():
        return torch.cat([retrieve(some, keys, values) for some in parts])
    return torch.cat([checkpoint(retrieve, some, keys, values, use_reentrant=False) for some in parts])


def _rows(keys: Tensor) -> int:
    return max(1, CHUNK_VALUES // len(keys))


def _sparsemax_lookup(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    with torch.no_grad():
        found = [_support(some @ keys.T) for some in queries.split(_rows(keys))]
        width = max(indices.shape[1] for indices in found)
        indices = torch.cat([torch.nn.functional.pad(some, (0, width - some.shape[1]), value=-1) for some in found])
    retrieved, _ = _Retrieve.apply(queries, keys, values, indices)
    return retrieved


def _support(scores: Tensor) -> Tensor:
    """Which entries sparsemax gives weight: int64 [P, S], those of a row best first, filled up with -1.

    Sorted scores z_1 >= z_2 >= ... are in the support as long as ``1 + k z_k > Σ_{j<=k} z_j``. If the first few
    end before the last of them, nothing after them can belong to it, so only rows where they do not are sorted
    further.
    """
    width = min(CANDIDATES, scores.shape[1])
    while True:
        best, indices = scores.topk(width, dim=1)
        ranks = torch.arange(1, width + 1, device=scores.device)
        # Relative to the best score, so that a large common offset costs no digits.
        best = best - best[:, :1]
        inside = 1.0 + ranks * best > best.cumsum(1)
        longest = int(inside.sum(1).max())
        if longest < width or width == scores.shape[1]:
            return torch.where(inside, indices, -1)[:, :longest]
        width = min(4 * width, scores.shape[1])


class _Retrieve(torch.autograd.Function):
    """``Σ_j w_j values_j`` with sparsemax weights over a known support; gradients touch the support only."""

    @staticmethod
    def forward(queries: Tensor, keys: Tensor, values: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        inside = indices >= 0
        entries = indices.clamp_min(0)
        scores = torch.bmm(keys[entries], queries[:, :, None])[:, :, 0]
        size = inside.sum(1, keepdim=True)
        # The best is subtracted first: the differences are small where the scores may be large.
        scores = torch.where(inside, scores - scores[:, :1], 0.0)
        threshold = (scores.sum(1, keepdim=True) - 1.0) / size
        weights = torch.where(inside, (scores - threshold).clamp_min(0.0), 0.0)
        return torch.nn.functional.embedding_bag(entries, values, mode="sum", per_sample_weights=weights), weights

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        queries, keys, values, indices = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(queries, keys, values, indices, output[1])

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor, _weights: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        queries, keys, values, indices, weights = ctx.saved_tensors  # type: ignore[attr-defined]
        inside = indices >= 0
        entries = indices.clamp_min(0)
        by_weight = torch.bmm(values[entries], gradient[:, :, None])[:, :, 0]
        mean = torch.where(inside, by_weight, 0.0).sum(1, keepdim=True) / inside.sum(1, keepdim=True)
        by_score = torch.where(inside, by_weight - mean, 0.0)
        flat = entries.flatten()
        to_queries = torch.bmm(by_score[:, None], keys[entries])[:, 0]
        to_keys = torch.zeros_like(keys).index_add_(0, flat, (by_score[:, :, None] * queries[:, None]).flatten(0, 1))
        to_values = torch.zeros_like(values).index_add_(
            0, flat, (weights[:, :, None] * gradient[:, None]).flatten(0, 1)
        )
        return to_queries, to_keys, to_values, None
