"""Things to look for, prepared once and then found in view after view, as a viewer's camera moves.

`splat.query.query_view` answers in one view and encodes the phrases for it. Here the encoder's part is kept, samples of
the scene (`splat.samples`) can be looked for like phrases, and the splat can be cut down to the levels and the
resolution that a moving picture needs.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from encoders.base import Encoder
from encoders.errors import InputError
from splat.codes import LanguageField
from splat.gaussians import Gaussians
from splat.phrases import DEFAULT_NEGATIVES, text_scores
from splat.query import QueryResult
from splat.rasterize import rasterize_relevancy
from splat.relevancy import THRESHOLD, bounding_box, fill_unseen, read_out
from splat.samples import Sample, mean_codes, sample_scores
from splat.scene import Camera, stack


@dataclass(frozen=True)
class Prepared:
    """P things to look for, in dictionary space.

    Attributes:
        names: what they are called.
        groups: (positions in `names`, scores [levels, len(positions) + negatives, L]); each group has negatives of
            its own, and is one splat.
    """

    names: tuple[str, ...]
    groups: tuple[tuple[tuple[int, ...], Tensor], ...]

    def __len__(self) -> int:
        return len(self.names)


def prepare(
    gaussians: Gaussians,
    field: LanguageField,
    wanted: Sequence[str | Sample],
    encoder: Encoder,
    negatives: Sequence[str] = DEFAULT_NEGATIVES,
) -> Prepared:
    """Prepare phrases and samples.

    A sample must be more like a place than the scene is on average, and than the negatives are: images resemble each
    other more than they resemble any text, so that text alone is too weak a rival.

    Raises:
        InputError: as `splat.phrases.text_scores`.
    """
    if not wanted:
        raise InputError("There is nothing to look for; give a phrase.")
    texts = [i for i, thing in enumerate(wanted) if isinstance(thing, str)]
    samples = [i for i, thing in enumerate(wanted) if not isinstance(thing, str)]
    phrases = [str(wanted[i]) for i in texts]
    # One call of the encoder for all; something is asked even if there are samples only, for the negatives' sake.
    scores = text_scores(gaussians, field, phrases or [*negatives][:1], encoder, negatives)
    rivals = scores[:, max(len(phrases), 1) :]
    groups = [(tuple(texts), scores)] if phrases else []
    if samples:
        codes = torch.stack([thing.codes for thing in wanted if not isinstance(thing, str)], dim=1)
        average = mean_codes(gaussians, field)[:, None]
        alike = sample_scores(field, torch.cat([codes, average], dim=1))
        groups.append((tuple(samples), torch.cat([alike, rivals], dim=1)))
    return Prepared(tuple(thing if isinstance(thing, str) else thing.name for thing in wanted), tuple(groups))


def prepared_maps(
    prepared: Prepared,
    gaussians: Gaussians,
    field: LanguageField,
    camera: Camera,
    levels: Sequence[int] | None = None,
    width: int | None = None,
) -> Tensor:
    """Relevancy of each thing at each level and pixel, as `splat.query.relevancy_maps`.

    Args:
        levels: only these, in this order; all if None. Fewer are faster.
        width: splat at this width and enlarge the maps, without telling any more where nothing was rendered; as wide
            as the camera's picture if None.

    Returns:
        0..1, and 0 where nothing was rendered. float32 [P, levels, camera.height, camera.width]
    """
    chosen = list(range(field.levels)) if levels is None else list(levels)
    seen = camera if width is None or width >= camera.width else camera.scaled(width / camera.width)
    viewmats, intrinsics = stack([seen])
    maps = gaussians.means.new_empty(len(prepared), len(chosen), seen.height, seen.width)
    with torch.inference_mode():
        some = slice(None) if chosen == list(range(field.levels)) else chosen
        indices, weights, gram = field.indices[:, some], field.weights[:, some], field.gram()[some]
        for positions, scores in prepared.groups:
            found, _ = rasterize_relevancy(
                *gaussians.geometry, indices, weights, scores[some], gram, len(positions), viewmats, intrinsics,
                seen.width, seen.height,
            )  # fmt: skip
            maps[list(positions)] = found[0]
        if seen is not camera:
            # Unseen pixels are given a value first, or their zeros would bleed into their neighbours.
            maps = F.interpolate(fill_unseen(maps), (camera.height, camera.width), mode="bilinear", align_corners=False)
    return maps


def find(
    prepared: Prepared,
    gaussians: Gaussians,
    field: LanguageField,
    camera: Camera,
    threshold: float = THRESHOLD,
    levels: Sequence[int] | None = None,
    width: int | None = None,
) -> list[QueryResult]:
    """Find prepared things in a view; answers as `splat.query.query_view` gives them.

    Args:
        levels: the level that answers, for each thing; None chooses the best for each.
        width: see `prepared_maps`.
    """
    started = time.perf_counter()
    wanted = list(range(field.levels)) if levels is None else sorted(set(levels))
    maps = prepared_maps(prepared, gaussians, field, camera, wanted, width)
    shared = (time.perf_counter() - started) / len(prepared)
    results = []
    for position, name in enumerate(prepared.names):
        started = time.perf_counter()
        if levels is None:
            result = answer_from(name, maps[position], threshold)
        else:
            row = wanted.index(levels[position])
            result = replace(answer_from(name, maps[position, row : row + 1], threshold, 0), level=levels[position])
        results.append(replace(result, seconds=shared + time.perf_counter() - started))
    return results


def answer_from(name: str, maps: Tensor, threshold: float, level: int | None = None) -> QueryResult:
    """What the relevancy maps [levels, H, W] of one thing say, as `splat.query.QueryResult`; its `seconds` are 0."""
    answer = read_out(maps, threshold, level)
    mask = answer.mask.cpu().numpy()
    x, y = answer.point
    box = None
    if mask.any():
        _, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
        piece = int(pieces[y, x]) or 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
        box = bounding_box(torch.from_numpy(pieces == piece))
    smoothed = answer.smoothed.cpu().numpy()
    return QueryResult(name, smoothed, answer.level, mask, answer.point, box, float(smoothed.max()), 0.0)


def likeliest_levels(maps: Tensor) -> np.ndarray:
    """The level at which a thing is most relevant at each pixel of maps [levels, H, W]; 255 if unseen. uint8 [H, W]"""
    best = maps.argmax(0).to(torch.uint8)
    return np.asarray(torch.where(maps.amax(0) > 0, best, 255).to(torch.uint8).cpu().numpy())
