"""The closed-form solver: lift the regions onto the Gaussians, code them, improve the dictionary, repeat.

Geometry is frozen, so per-Gaussian features are a linear least squares problem, and everything about it that
coding needs fits in dictionary space. See docs/language_field.md for the derivation.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from scipy.spatial import cKDTree

from encoders.progress import Report, silent
from splat.codes import Codes, densify
from splat.coding import Coding, code
from splat.dictionary import DictionaryUpdate
from splat.region_views import RegionView, RegionViews, pixel_cosines

_SEEN = 1e-4
"""A Gaussian whose blending weights over all views sum to less than this was not seen."""


@dataclass(frozen=True)
class LiftConfig:
    """Settings of the closed-form solver.

    Attributes:
        nonzeros: K, atoms per Gaussian and level.
        coding: how codes are chosen, see `splat.coding`.
        rounds: how often dictionary and codes are improved after the first coding.
        step: step of the code correction, in (0, 2); above 1 over-relaxes.
    """

    nonzeros: int = 4
    coding: Coding = "nonnegative"
    rounds: int = 2
    step: float = 1.0


def fit_lift(
    views: RegionViews, atoms: torch.Tensor, config: LiftConfig, report: Report = silent
) -> tuple[torch.Tensor, Codes, list[float]]:
    """Fit dictionary and codes to the views.

    Args:
        views: training views.
        atoms: dictionary to start from. [levels, L, D]
        config: settings.
        report: told about every view of every pass.

    Returns:
        atoms: improved dictionary. [levels, L, D]
        codes: codes of all Gaussians.
        losses: mean ``1 - cos`` over pixels and levels, after the first coding and after each round.
    """
    passes = _Passes(views, 2 + 2 * config.rounds, report)
    sums, mass = _lift_targets(passes, atoms)
    seen = mass > _SEEN
    mass = mass.clamp_min(_SEEN)[..., None]
    codes = _code(sums / mass, atoms, config)
    losses = []
    for _ in range(config.rounds):
        update = DictionaryUpdate.start(atoms)
        losses.append(_measure(passes, codes, atoms, update))
        atoms, norms = update.solve(atoms)
        codes.rescale(norms)
        correction = _lift_residuals(passes, codes, atoms).mul_(config.step).div_(mass)
        codes = _code(correction.add_(_correlations(codes, atoms)), atoms, config)
    losses.append(_measure(passes, codes, atoms, None))
    _fill_unseen(codes, seen, views.means)
    return atoms, codes, losses


class _Passes:
    """Walks over the views and tells the report how many of all passes' views are done."""

    def __init__(self, views: RegionViews, passes: int, report: Report) -> None:
        self.views = views
        self._report = report
        self._total = passes * len(views)
        self._done = 0

    def each(self, message: str) -> Iterator[tuple[int, RegionView]]:
        for index in range(len(self.views)):
            yield index, self.views.view(index)
            self._done += 1
            self._report(self._done, self._total, message)


def _lift_targets(passes: _Passes, atoms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``sum_p omega_pi A target_p`` [N, levels, L] and ``sum_p omega_pi`` over pixels with a region [N, levels]."""
    levels, count, _ = atoms.shape
    views = passes.views
    sums = atoms.new_zeros(views.gaussians, levels, count)
    mass = atoms.new_zeros(views.gaussians, levels)
    for index, view in passes.each("lifting regions"):
        for group in views.level_groups(levels, count):
            values = atoms.new_zeros(view.ids.shape[1], len(group), count + 1)
            for slot, level in enumerate(group):
                # The last channel is one where there is a region; the extra zero row serves id -1.
                table = torch.nn.functional.pad(view.embeddings @ atoms[level].T, (0, 1), value=1.0)
                table = torch.nn.functional.pad(table, (0, 0, 0, 1))
                values[:, slot] = table[view.ids[level]]
            lifted = views.lift(index, values).reshape(-1, len(group), count + 1)
            sums[:, group.start : group.stop] += lifted[..., :count]
            mass[:, group.start : group.stop] += lifted[..., count]
    return sums, mass


def _lift_residuals(passes: _Passes, codes: Codes, atoms: torch.Tensor) -> torch.Tensor:
    """``sum_p omega_pi A (target_p - W_p A)`` over pixels with a region. [N, levels, L]"""
    levels, count, _ = atoms.shape
    views = passes.views
    sums = atoms.new_zeros(views.gaussians, levels, count)
    for index, view in passes.each("correcting codes"):
        for group in views.level_groups(levels, count):
            part = slice(group.start, group.stop)
            image = views.codes(index, codes.indices[:, part], codes.weights[:, part], count)
            for slot, level in enumerate(group):
                table = torch.nn.functional.pad(view.embeddings @ atoms[level].T, (0, 0, 0, 1))
                gram = atoms[level] @ atoms[level].T
                residual = torch.addmm(table[view.ids[level]], image[:, slot], gram, alpha=-1)
                image[:, slot] = residual * (view.ids[level] >= 0)[:, None]
            lifted = views.lift(index, image)
            sums[:, part] += lifted.reshape(-1, len(group), count)
    return sums


def _measure(passes: _Passes, codes: Codes, atoms: torch.Tensor, update: DictionaryUpdate | None) -> float:
    """Mean ``1 - cos`` over all pixels with a region and all levels; fills `update` on the way."""
    levels, count, _ = atoms.shape
    views = passes.views
    total, pixels = 0.0, 0
    for index, view in passes.each("improving the dictionary" if update else "measuring the fit"):
        for group in views.level_groups(levels, count):
            part = slice(group.start, group.stop)
            image = views.codes(index, codes.indices[:, part], codes.weights[:, part], count)
            for slot, level in enumerate(group):
                with_region = torch.nonzero(view.ids[level] >= 0)[:, 0]
                if not len(with_region):
                    continue
                ids, splatted = view.ids[level, with_region], image[with_region, slot]
                cosines = pixel_cosines(splatted, view.embeddings @ atoms[level].T, ids, atoms[level])
                total += float((1 - cosines).sum(dtype=torch.float64))
                pixels += len(ids)
                if update:
                    update.add(level, splatted, ids, view.embeddings, atoms[level])
    return total / max(pixels, 1)


def _correlations(codes: Codes, atoms: torch.Tensor) -> torch.Tensor:
    """Inner products of the coded features with the atoms, ``c G``. [N, levels, L]"""
    dense = densify(codes.indices, codes.weights, atoms.shape[1])
    for level, rows in enumerate(atoms):
        dense[:, level] = dense[:, level] @ (rows @ rows.T)
    return dense


def _code(correlations: torch.Tensor, atoms: torch.Tensor, config: LiftConfig) -> Codes:
    """Codes of all Gaussians from their correlations [N, levels, L]."""
    coded = [
        code(correlations[:, level], rows @ rows.T, config.nonzeros, config.coding) for level, rows in enumerate(atoms)
    ]
    return Codes(torch.stack([c[0] for c in coded], 1), torch.stack([c[1] for c in coded], 1))


def _fill_unseen(codes: Codes, seen: torch.Tensor, means: torch.Tensor) -> None:
    """Give Gaussians that no view saw the code of the nearest one that was seen, level by level.

    They are mostly inside or behind things. With a code, cutting an object out takes its hidden parts along.
    """
    for level in range(seen.shape[1]):
        known, unknown = torch.nonzero(seen[:, level])[:, 0], torch.nonzero(~seen[:, level])[:, 0]
        if len(known) and len(unknown):
            _, nearest = cKDTree(means[known].cpu().numpy()).query(means[unknown].cpu().numpy())
            source = known[torch.from_numpy(nearest).to(known.device)]
            codes.indices[unknown, level] = codes.indices[source, level]
            codes.weights[unknown, level] = codes.weights[source, level]
