"""Few vectors that stand for many: PatchCore's greedy coreset (Roth et al. 2022, section 3.2, algorithm 1)."""

import warnings

import torch
from torch import Tensor

PROJECTED = 128
"""Dimensions in which distances are compared while choosing (Johnson-Lindenstrauss), as in PatchCore's code."""
CANDIDATES = 1024
"""Points among which several are taken in one pass over all."""
CHUNK_VALUES = 2**24
"""Most numbers of one product."""


def coreset(vectors: Tensor, share: float, seed: int) -> Tensor:
    """Indices of ``share`` of the vectors [N, C], spread as evenly as `k_center` can in a random projection."""
    count = max(1, round(share * len(vectors)))
    return k_center(_projected(vectors, seed), count, seed)


def k_center(points: Tensor, count: int, seed: int) -> Tensor:
    """Begin anywhere, then take again and again the point that is farthest from all those taken.

    Args:
        points: [N, C].
        count: how many to take; all are taken if there are no more.
        seed: of the first one.

    Returns:
        Indices in the order of their choice, int64 [min(count, N)]. The largest distance from any point to the
        nearest one taken is at most twice the smallest possible (Gonzalez 1985).
    """
    count = min(count, len(points))
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(len(points), (1,), generator=generator).to(points.device)
    # Half the squared distance: it has the same order.
    half_squares = points.square().sum(dim=1) / 2
    nearest = torch.full_like(half_squares, torch.inf)
    taken = _take(points, half_squares, nearest, first)
    while len(taken) < count:
        chosen = _next_ones(points, half_squares, nearest, count - len(taken))
        taken = torch.cat([taken, _take(points, half_squares, nearest, chosen)])
    return taken


def _next_ones(points: Tensor, half_squares: Tensor, nearest: Tensor, most: int) -> Tensor:
    """The next points to take, at least one and ``most`` at most, found among the `CANDIDATES` farthest alone.

    Distances to the nearest one taken only shrink. So while the farthest candidate is no nearer than the nearest
    candidate was at first, no other point can be farther: the choice is the one that looking at all would make.
    """
    distances, candidates = nearest.topk(min(CANDIDATES, len(nearest)))
    bound = float(distances[-1]) if len(candidates) < len(nearest) else -torch.inf
    near, halves = points[candidates], half_squares[candidates]
    chosen: list[int] = []
    while len(chosen) < most:
        place = int(distances.argmax())
        if chosen and float(distances[place]) < bound:
            break
        chosen.append(place)
        distances = torch.minimum(distances, halves - near @ near[place] + halves[place])
        distances[place] = -torch.inf
    return candidates[chosen]


def _take(points: Tensor, half_squares: Tensor, nearest: Tensor, chosen: Tensor) -> Tensor:
    """Update the distances to the nearest one taken; one product for many points spares reading all for each."""
    for some in chosen.split(max(1, CHUNK_VALUES // len(points))):
        products = points @ points[some].T
        torch.minimum(nearest, (half_squares[some] - products).amin(dim=1) + half_squares, out=nearest)
    nearest[chosen] = -torch.inf
    return chosen


def _projected(vectors: Tensor, seed: int) -> Tensor:
    if vectors.shape[1] <= PROJECTED:
        return vectors
    from sklearn.exceptions import DataDimensionalityWarning
    from sklearn.random_projection import SparseRandomProjection

    projection = SparseRandomProjection(PROJECTED, random_state=seed, dense_output=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataDimensionalityWarning)
        projected = projection.fit_transform(vectors.cpu().numpy())
    return torch.from_numpy(projected).to(vectors)
