"""From relevancy maps to an answer: which level, which pixels, which point.

This is how LangSplatV2's scripts read maps, and the only place that knows it: queries and evaluation both call
`read_out`. Queries follow the rule of LERF_OVS; `splat.protocols` says what other benchmarks do otherwise. A relevancy
map holds, per pixel, how much likelier a phrase is than the likeliest of a few generic phrases (LERF, section 3.3),
0..1; 0 is kept for pixels where nothing was rendered.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F

POOL = 29
"""Side of the averaging window, pixels."""

VOTE = 7
"""Side of the majority vote's window, pixels."""

THRESHOLD = 0.4
"""Default threshold on the normalised map."""


@dataclass(frozen=True)
class LevelRule:
    """Which level answers: the one with the highest score, the first of them if several.

    Attributes:
        inside: a level's score is the mean of its smoothed map inside its own mask; otherwise that map's maximum.
        first: levels before this one never answer.
    """

    inside: bool = False
    first: int = 0


PEAK = LevelRule()
"""LERF_OVS' rule, and that of queries."""


@dataclass(frozen=True)
class ReadOut:
    """What one phrase's relevancy maps say.

    Attributes:
        level: the level that answers, an index into the maps.
        smoothed: that level's smoothed map. float32 [H, W]
        mask: selected pixels. bool [H, W]
        point: (x, y), the pixel where the phrase is found.
    """

    level: int
    smoothed: torch.Tensor
    mask: torch.Tensor
    point: tuple[int, int]


def read_out(
    relevancy: torch.Tensor,
    threshold: float = THRESHOLD,
    level: int | None = None,
    rule: LevelRule = PEAK,
    beside: torch.Tensor | None = None,
) -> ReadOut:
    """Answer of one phrase from its maps of all levels.

    The mask is taken from the level that ``rule`` chooses, the point from the level whose *pooled* map peaks
    highest, as the published evaluation does; on a near tie these may be two levels.

    Args:
        relevancy: one map per level, 0..1, 0 where nothing was rendered. float32 [levels, H, W]
        threshold: on the normalised map (see `mask`).
        level: use this level for mask and point instead of choosing.
        beside: maps of a second phrase, whose pixels are selected too. They are normalised but not smoothed, and
            have no say in the point (3D-OVS' scene "room"). float32 [levels, H, W]
    """
    maps = fill_unseen(relevancy)
    means = pool(maps)
    smoothed = 0.5 * (maps + means)
    first = min(rule.first, len(maps) - 1)
    where = first + choose_level(means[first:]) if level is None else level
    if level is None and rule.inside:
        masks = [_selected(smoothed, threshold, index, beside) for index in range(first, len(maps))]
        inside = [_mean_inside(field, chosen) for field, chosen in zip(smoothed[first:], masks, strict=True)]
        best = int(np.argmax(inside))
        chosen, selected = first + best, masks[best]
    else:
        chosen = first + choose_level(smoothed[first:]) if level is None else level
        selected = _selected(smoothed, threshold, chosen, beside)
    return ReadOut(chosen, smoothed[chosen], selected, locate(means[where]))


def _selected(smoothed: torch.Tensor, threshold: float, level: int, beside: torch.Tensor | None) -> torch.Tensor:
    if beside is None:
        return mask(smoothed[level], threshold)
    second = normalise(fill_unseen(beside[level])) > threshold
    return vote((normalise(smoothed[level]) > threshold) | second)


def _mean_inside(smoothed: torch.Tensor, selected: torch.Tensor) -> float:
    """Mean of a map over a mask; -1, below any relevancy, if the mask is empty."""
    return float(smoothed[selected].mean()) if selected.any() else -1.0


def fill_unseen(maps: torch.Tensor) -> torch.Tensor:
    """Give pixels where nothing was rendered (exact zeros) the lowest value seen in their map. [..., H, W]

    Left at zero they would set the minimum that `normalise` subtracts, and so move the threshold of every
    other pixel.
    """
    if float(maps.amin()) > 0:
        return maps
    unseen = maps <= 0
    lowest = maps.masked_fill(unseen, torch.inf).amin(dim=(-2, -1), keepdim=True)
    return torch.where(unseen, torch.where(lowest.isinf(), 0.0, lowest), maps)


def pool(maps: torch.Tensor) -> torch.Tensor:
    """Mean of the pixels inside the picture in the `POOL` x `POOL` window around each. [..., H, W]"""
    return _window_sums(maps, POOL).mul_(1 / _window_sizes(maps, POOL))


def smooth(maps: torch.Tensor) -> torch.Tensor:
    """Half the map, half its local mean: noise goes, edges stay. [..., H, W]"""
    return 0.5 * (maps + pool(maps))


def choose_level(maps: torch.Tensor) -> int:
    """The level whose (smoothed or pooled) map has the highest maximum. [levels, H, W]"""
    return int(maps.amax(dim=(-2, -1)).argmax())


def normalise(smoothed: torch.Tensor) -> torch.Tensor:
    """Stretch each map to -1..1 by its own extremes and cut off the lower half: 0..1. [..., H, W]

    A constant map gives zeros.
    """
    low = smoothed.amin(dim=(-2, -1), keepdim=True)
    high = smoothed.amax(dim=(-2, -1), keepdim=True)
    return ((smoothed - low) / (high - low + 1e-9) * 2 - 1).clamp(0, 1)


def mask(smoothed: torch.Tensor, threshold: float = THRESHOLD) -> torch.Tensor:
    """Pixels whose normalised relevancy exceeds `threshold`, after a majority vote. bool [..., H, W]"""
    return vote(normalise(smoothed) > threshold)


def vote(chosen: torch.Tensor) -> torch.Tensor:
    """Keep a pixel if more than half of the `VOTE` x `VOTE` window around it, inside the picture, is chosen.

    Args:
        chosen: bool [..., H, W].
    """
    sums = _window_sums(chosen, VOTE)
    return sums > (_window_sizes(chosen, VOTE) // 2).to(sums.dtype)


def locate(pooled: torch.Tensor) -> tuple[int, int]:
    """Pixel (x, y) of the highest value of one pooled map [H, W]; the first in reading order if several."""
    position = int(pooled.argmax())
    return position % pooled.shape[1], position // pooled.shape[1]


def bounding_box(selected: torch.Tensor) -> tuple[int, int, int, int] | None:
    """Smallest box (x0, y0, x1, y1), ends exclusive, around a mask bool [H, W]; None if it is empty."""
    rows, columns = selected.any(dim=1).nonzero(), selected.any(dim=0).nonzero()
    if len(rows) == 0:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _window_sums(maps: torch.Tensor, side: int) -> torch.Tensor:
    """Sum over the ``side`` x ``side`` window around each pixel, zeros outside; exact for masks. [..., H, W]"""
    maps = maps.detach()
    if maps.device.type != "cpu":
        flat = maps.float().reshape(-1, 1, *maps.shape[-2:])
        # The window is separable: 2 x 29 additions and not 29 x 29.
        for kernel in ((1, side), (side, 1)):
            flat = F.avg_pool2d(flat, kernel, 1, (kernel[0] // 2, kernel[1] // 2), divisor_override=1)
        return flat.reshape(maps.shape)
    # OpenCV keeps a running sum, equally fast for any side; a mask's in bytes, which the sums of VOTE fit.
    images = maps.contiguous().view(-1, *maps.shape[-2:]).numpy()
    images = images.astype(np.uint8 if images.dtype == bool else np.float32, copy=False)
    sums = np.empty_like(images)
    for image, result in zip(images, sums, strict=True):
        cv2.boxFilter(image, -1, (side, side), dst=result, normalize=False, borderType=cv2.BORDER_CONSTANT)
    return torch.from_numpy(sums).reshape(maps.shape)


def _window_sizes(maps: torch.Tensor, side: int) -> torch.Tensor:
    """How many pixels of the window around each pixel lie inside the picture. int64 [H, W]"""
    reach = side // 2
    counts = []
    for length in maps.shape[-2:]:
        at = torch.arange(length, device=maps.device)
        counts.append((at + reach).clamp_max(length - 1) - (at - reach).clamp_min(0) + 1)
    return torch.outer(*counts)
