"""Dictionaries: where they start (k-means over the regions' embeddings) and how least squares improves them."""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans

from encoders.errors import InputError
from encoders.progress import Report, silent
from splat.region_views import NO_REGIONS, RegionViews

KMEANS_ROWS = 100_000
"""At most this many regions per level take part in k-means, drawn by area."""

_RIDGE = 1e-3
"""Pull of an updated atom towards its old self, relative to the mean usage of an atom."""


def kmeans_dictionary(
    views: RegionViews, levels: int, atoms: int, seed: int = 0, report: Report = silent
) -> torch.Tensor:
    """Cluster the embeddings of all regions of all views, one dictionary per level (LangSplatV2, sec. 3.3).

    A region counts by its area in pixels. A level with fewer regions than atoms keeps random directions in the
    unused atoms; no code will choose them until a dictionary update gives them a purpose.

    Returns:
        unit-norm atoms, on the device of the views. float32 [levels, L, D]

    Raises:
        InputError: no view has a region at any level.
    """
    gathered: list[list[torch.Tensor]] = [[] for _ in range(levels)]
    areas: list[list[torch.Tensor]] = [[] for _ in range(levels)]
    for index in range(len(views)):
        view = views.view(index)
        for level in range(levels):
            area = view.areas(level)
            present = area > 0
            gathered[level].append(view.embeddings[present].half().cpu())
            areas[level].append(area[present].cpu())
        report(index + 1, len(views) + levels, "gathering regions")
    if not any(len(rows) for level in gathered for rows in level):
        raise InputError(NO_REGIONS)
    random = np.random.default_rng(seed)
    dictionaries = []
    for level in range(levels):
        rows, weight = torch.cat(gathered[level]), torch.cat(areas[level]).double().numpy()
        if len(rows) > KMEANS_ROWS:
            chosen = random.choice(len(rows), KMEANS_ROWS, replace=False, p=weight / weight.sum())
            rows, weight = rows[chosen], np.ones(KMEANS_ROWS)
        dictionaries.append(_cluster(rows.float().numpy(), weight, atoms, seed))
        report(len(views) + level + 1, len(views) + levels, "clustering regions")
    return torch.from_numpy(np.stack(dictionaries)).to(views.device)


def _cluster(rows: np.ndarray, weight: np.ndarray, atoms: int, seed: int) -> np.ndarray:
    filler = np.random.default_rng(seed).standard_normal((atoms, rows.shape[1])).astype(np.float32)
    clusters = min(atoms, len(np.unique(rows, axis=0)))
    if clusters > 0:
        means = MiniBatchKMeans(clusters, random_state=seed, batch_size=4096, n_init=3, max_iter=50)
        filler[:clusters] = means.fit(rows, sample_weight=weight / weight.mean()).cluster_centers_
    return filler / np.maximum(np.linalg.norm(filler, axis=1, keepdims=True), 1e-12)


@dataclass
class DictionaryUpdate:
    """Least squares for the atoms given the codes, ``min_A sum_p |W_p A - target_p|^2`` (MOD, Engan 1999).

    It needs ``sum_p W_p^T W_p`` (L x L) and ``sum_p W_p^T target_p`` (L x D). The second sum is taken per
    region first, because all pixels of a region share one target: no pixel ever has a D-vector.
    """

    products: torch.Tensor
    targets: torch.Tensor
    worst: torch.Tensor
    worst_errors: torch.Tensor

    @classmethod
    def start(cls, dictionary: torch.Tensor) -> "DictionaryUpdate":
        """Empty sums for a dictionary [levels, L, D], on its device."""
        levels, atoms, _ = dictionary.shape
        return cls(
            dictionary.new_zeros(levels, atoms, atoms, dtype=torch.float64),
            torch.zeros_like(dictionary, dtype=torch.float64),
            torch.zeros_like(dictionary),
            dictionary.new_zeros(levels, atoms),
        )

    def add(
        self, level: int, codes: torch.Tensor, ids: torch.Tensor, embeddings: torch.Tensor, atoms: torch.Tensor
    ) -> None:
        """Add a view's pixels that have a region: codes [M, L], ids [M], embeddings [R, D], atoms [L, D]."""
        per_region = codes.new_zeros(len(embeddings), codes.shape[1]).index_add_(0, ids, codes)
        self.products[level] += (codes.T @ codes).double()
        self.targets[level] += (per_region.T @ embeddings).double()
        # Remember the regions that are coded worst: they are what a dead atom should become.
        area = torch.bincount(ids, minlength=len(embeddings)).float()
        similarity = torch.nn.functional.cosine_similarity(per_region @ atoms, embeddings, dim=1)
        errors = torch.cat([self.worst_errors[level], area * (1 - similarity)])
        keep = errors.topk(len(self.worst_errors[level])).indices
        self.worst[level] = torch.cat([self.worst[level], embeddings])[keep]
        self.worst_errors[level] = errors[keep]

    def solve(self, atoms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """New unit-norm atoms [levels, L, D], and the norms that the codes' weights take over [levels, L]."""
        levels, count, _ = atoms.shape
        usage = self.products.diagonal(dim1=1, dim2=2)
        pull = _RIDGE * usage.mean(1).clamp_min(1e-12)
        system = self.products + pull[:, None, None] * torch.eye(count, dtype=torch.float64, device=atoms.device)
        fresh = torch.linalg.solve(system, self.targets + pull[:, None, None] * atoms.double()).float()
        norms = fresh.norm(dim=2)
        for level in range(levels):
            dead = torch.nonzero((usage[level] < 1e-4 * usage[level].mean()) | (norms[level] < 1e-6))[:, 0]
            spare = _distinct(self.worst[level][self.worst_errors[level] > 0].cpu(), len(dead)).to(atoms.device)
            fresh[level, dead] = atoms[level, dead]
            fresh[level, dead[: len(spare)]] = spare
            norms[level, dead] = 1.0
        return torch.nn.functional.normalize(fresh, dim=2), norms


def _distinct(rows: torch.Tensor, count: int) -> torch.Tensor:
    """Up to `count` rows, worst first, leaving out near copies: views show the same region again and again."""
    kept: list[torch.Tensor] = []
    for row in rows:
        if len(kept) == count:
            break
        if all(float(row @ other) < 0.95 for other in kept):
            kept.append(row)
    return torch.stack(kept) if kept else rows[:0]
