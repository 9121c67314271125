"""Selecting an object in space: the Gaussians whose own features answer to a phrase."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from encoders.base import Encoder
from splat.codes import LanguageField, densify
from splat.gaussians import Gaussians
from splat.phrases import DEFAULT_NEGATIVES, check_level, relevancy_of_codes, text_scores
from splat.relevancy import THRESHOLD

NEIGHBOURS = 24
"""Gaussians whose mean smooths one's relevancy and whose majority decides about it."""

_CHUNK = 65536
_VISIBLE = 0.1
"""Gaussians of less opacity join a selection but do not lead it."""
_REACH = 2.0
"""Two Gaussians touch if they are closer than this many standard deviations of both together."""


def select_gaussians(
    gaussians: Gaussians,
    field: LanguageField,
    phrase: str,
    encoder: Encoder,
    negatives: Sequence[str] = DEFAULT_NEGATIVES,
    level: int | None = None,
    threshold: float = THRESHOLD,
    one_object: bool = True,
) -> torch.Tensor:
    """Gaussians of the object that a phrase names.

    The rule of the views (`splat.relevancy`) carried over to space: relevancy of every Gaussian, half of it
    replaced by the mean of its neighbours (weighted by opacity and area), the level with the highest mean, the
    values stretched to -1..1 and cut at `threshold`, a majority vote among neighbours. Of what remains the
    connected piece with the highest mean is kept, so floaters and look-alikes elsewhere stay out.

    Args:
        gaussians: the scene, N Gaussians.
        field: their language field, on the same device.
        phrase: what to select.
        encoder: the one the field was fitted with.
        negatives: generic phrases that a phrase must be likelier than.
        level: select at this level; the best one if None.
        threshold: on the normalised relevancy, 0..1.
        one_object: keep one connected piece; otherwise everything that answers.

    Returns:
        bool [N], on the device of the Gaussians; may be empty.

    Raises:
        InputError: as `splat.query.query_view`.
    """
    check_level(level, field)
    scores = text_scores(gaussians, field, [phrase], encoder, negatives)
    device = gaussians.device
    with torch.inference_mode():
        relevancy = gaussian_relevancy(field, scores, positives=1)[0].cpu()
        gaussians = gaussians.to("cpu")  # from here on it is trees and graphs
        weight = _visible_area(gaussians)
        near = _neighbours(gaussians.means.detach())
        means = _mean_of(relevancy, near, weight)
        visible = gaussians.opacities.detach() > _VISIBLE
        visible = visible if bool(visible.any()) else torch.ones_like(visible)
        chosen = int(means[visible].amax(0).argmax()) if level is None else level
        values, smooth = means[:, chosen], 0.5 * (relevancy + means)[:, chosen]
        # Stretched by the means: one Gaussian that shines out by itself must not set the scale.
        low, high = values[visible].min(), values[visible].max()
        inside = (smooth - low) / (high - low + 1e-9) * 2 - 1 > threshold
        voted = _mean_of(inside.float()[:, None], near, weight)[:, 0] > 0.5
        # An object of a handful of Gaussians loses every vote; better its rough shape than nothing.
        inside = voted if bool(voted.any()) else inside
        if one_object and bool(inside.any()):
            inside = _best_piece(gaussians, inside, near, values.masked_fill(~visible, -1.0))
        return inside.to(device)


def gaussian_relevancy(field: LanguageField, scores: torch.Tensor, positives: int) -> torch.Tensor:
    """Relevancy of every Gaussian's own feature, exact, in code space.

    Args:
        scores: from `text_scores`. [levels, T, L]
        positives: P, how many of the texts are phrases.

    Returns:
        float32 [P, N, levels] in 0..1; 0 where a Gaussian has no code.
    """
    gram = field.gram()
    result = gram.new_empty(positives, len(field), field.levels)
    for begin in range(0, len(field), _CHUNK):
        rows = slice(begin, begin + _CHUNK)
        dense = densify(field.indices[rows], field.weights[rows], field.atoms.shape[1])
        for level in range(field.levels):
            result[:, rows, level] = relevancy_of_codes(dense[:, level], scores[level], gram[level], positives)
    return result


def _neighbours(means: torch.Tensor) -> torch.Tensor:
    """Indices of the nearest Gaussians, itself first. int64 [N, k]"""
    points = means.numpy()
    count = min(NEIGHBOURS + 1, len(points))
    _, near = cKDTree(points).query(points, count, workers=-1)
    return torch.from_numpy(np.asarray(near, np.int64).reshape(len(points), count))


def _mean_of(values: torch.Tensor, near: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean over each Gaussian's neighbours. [N, C], [N, k], [N] -> [N, C]"""
    total = torch.zeros_like(values)
    mass = torch.full_like(weight, 1e-9)
    for column in near.T:
        total += values[column] * weight[column, None]
        mass += weight[column]
    return total / mass[:, None]


def _visible_area(gaussians: Gaussians) -> torch.Tensor:
    """How much each Gaussian shows: opacity times the area of its broad side, huge ones cut down. [N]"""
    area = gaussians.scales.detach().sort(dim=1).values[:, 1:].prod(dim=1)
    return gaussians.opacities.detach() * area.clamp(max=10 * float(area.median()))


def _best_piece(gaussians: Gaussians, inside: torch.Tensor, near: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The connected piece of `inside` that holds its highest value; neighbours that touch are connected."""
    rows = torch.nonzero(inside)[:, 0]
    means, reach = gaussians.means.detach(), _REACH * gaussians.scales.detach().amax(1)
    distance = (means[near[rows]] - means[rows, None]).norm(dim=2)
    spacing = distance[:, 1:4].mean(1).median() if near.shape[1] > 3 else distance.max()
    touching = distance <= reach[near[rows]] + reach[rows, None] + 2 * spacing
    touching &= inside[near[rows]]
    number = torch.full((len(inside),), -1)
    number[rows] = torch.arange(len(rows))
    source, slot = torch.nonzero(touching, as_tuple=True)
    target = number[near[rows[source], slot]]
    links = coo_array((np.ones(len(source)), (source.numpy(), target.numpy())), shape=(len(rows), len(rows)))
    _, piece = connected_components(links, directed=False)
    labels = torch.from_numpy(piece)
    result = torch.zeros_like(inside)
    result[rows[labels == labels[values[rows].argmax()]]] = True
    return result
