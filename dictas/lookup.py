"""Sparse lookup: each query is rebuilt from the few dictionary entries that it resembles (DictAS, section 3.2).

``retrieved = projection(Q Kᵀ · scale) V``. The projection turns a row of similarities into weights that sum to 1;
a sparse one leaves almost all of them exactly 0, so a query that is like no entry cannot be rebuilt by mixing many.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from dictas import _native

CHUNK_VALUES = 1 << 21
"""Similarities held at once, 8 MiB: memory stays the same however large the dictionary is, and caches like it."""
CHUNK_WEIGHTS = 1 << 25
"""Weights that the native lookup may find at once if all keys of all queries get one, 256 MiB."""
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
        # From the best score: its digits are not spent on what all scores share.
        scores = scores - scores.amax(-1, keepdim=True)
        threshold = torch.full_like(scores[..., :1], -1.0)
        size = torch.full_like(threshold, torch.inf)
        while True:
            above = scores > threshold
            new_size = above.sum(-1, keepdim=True).to(scores.dtype)
            # Sets only shrink; where one seems to grow again, rounding has had its say.
            shrinks = new_size < size
            if not shrinks.any():
                return (scores - threshold).clamp_min_(0.0)
            total = torch.where(above, scores, 0.0).sum(-1, keepdim=True)
            threshold = torch.where(shrinks, (total - 1.0) / new_size, threshold)
            size = torch.where(shrinks, new_size, size)

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
    training either: of sparsemax only the weights above 0 are kept for the gradient, for the other projections
    similarities are computed again. Sparsemax of float32 on a CPU takes about as long as the product alone.

    Args:
        queries: [P, C].
        keys: [M, C].
        values: [M, D].
        projection: one of `PROJECTIONS`.
        scale: factor on the similarities, C^-½ in the paper.

    Returns:
        [P, D]; differentiable in queries, keys, values and scale. NaN for a query whose similarities are not all
        finite numbers.
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


def _rows(keys: Tensor, chunk: int = CHUNK_VALUES) -> int:
    return max(1, chunk // len(keys))


Support = tuple[Tensor, Tensor, Tensor]
"""The weights above 0 of P queries: where each query's begin [P + 1], their entries [N], and the weights [N]."""


def _sparsemax_lookup(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    native = all(tensor.dtype == torch.float32 and tensor.device.type == "cpu" for tensor in (queries, keys, values))
    find = (_native_support_in if native else _support_in)(keys.detach())
    rows = _rows(keys, CHUNK_WEIGHTS if native else CHUNK_VALUES)

    def retrieve(some: Tensor) -> Tensor:
        offsets, indices, weights = find(some.detach())
        return _mix(values, indices, offsets, _Weights.apply(some, keys, offsets, indices, weights))

    return torch.cat([retrieve(some) for some in queries.split(rows)])


def _native_support_in(keys: Tensor) -> Callable[[Tensor], Support]:
    packed = _native.PackedKeys(keys.contiguous())
    return lambda queries: packed.support(queries.contiguous(), torch.get_num_threads())


def _support_in(keys: Tensor) -> Callable[[Tensor], Support]:
    return lambda queries: _support(queries @ keys.T)


def _support(scores: Tensor) -> Support:
    """The weights above 0 of sparsemax over scores [P, M], those of a query best first.

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
        inside[:, 0] = True  # in doubt only where it is no number, and then nor is the weight
        sizes = inside.sum(1, keepdim=True)
        if not (sizes >= width).any() or width == scores.shape[1]:
            threshold = (torch.where(inside, best, 0.0).sum(1, keepdim=True) - 1.0) / sizes
            return _offsets(sizes[:, 0]), indices[inside], (best - threshold)[inside]
        width = min(4 * width, scores.shape[1])


def _offsets(sizes: Tensor) -> Tensor:
    return functional.pad(sizes.cumsum(0, dtype=sizes.dtype), (1, 0))


def _mix(rows: Tensor, indices: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """``out_i = Σ_n weights_n rows[indices_n]`` over the n from offsets_i to offsets_{i+1}."""
    return functional.embedding_bag(
        indices, rows, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
    )


class _Weights(torch.autograd.Function):
    """Known sparsemax weights as a function of queries and keys; its gradient touches the support only."""

    @staticmethod
    def forward(queries: Tensor, keys: Tensor, offsets: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        return weights.view_as(weights)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:4])

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        queries, keys, offsets, indices = ctx.saved_tensors  # type: ignore[attr-defined]
        sizes = offsets.diff()
        owners = torch.repeat_interleave(sizes)
        mean = gradient.new_zeros(len(queries)).index_add_(0, owners, gradient) / sizes
        by_score = gradient - mean[owners]
        to_queries = _mix(keys, indices, offsets, by_score)
        # The same weights seen from the keys: which queries each one is used by.
        order = indices.argsort(stable=True)
        used = _offsets(torch.bincount(indices, minlength=len(keys)).to(indices.dtype))
        return to_queries, _mix(queries, owners[order], used, by_score[order]), None, None, None
