"""Few vectors that stand for many: PatchCore's greedy coreset (Roth et al. 2022, section 3.2, algorithm 1)."""

import warnings

import torch
from torch import Tensor

PROJECTED = 128
"""Dimensions in which distances are compared while choosing (Johnson-Lindenstrauss), as in PatchCore's code."""


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
    index = torch.randint(len(points), (1,), generator=generator).to(points.device)
    half_squares = points.square().sum(dim=1) / 2
    nearest = torch.full_like(half_squares, torch.inf)
    taken = torch.empty(count, dtype=torch.int64, device=points.device)
    for step in range(count):
        taken[step] = index[0]
        # Half the squared distance: it has the same order. Indices stay on the device, nothing waits for them.
        distance = half_squares - points @ points[index][0] + half_squares[index]
        nearest = torch.minimum(nearest, distance).index_fill_(0, index, -torch.inf)
        index = nearest.argmax(dim=0, keepdim=True)
    return taken


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
