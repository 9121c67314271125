"""What a trained scene answers under a benchmark's protocol, phrase by phrase."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from encoders.base import Encoder
from splat.codes import LanguageField
from splat.gaussians import Gaussians
from splat.protocols import Protocol
from splat.relevancy import fill_unseen, read_out
from splat.scene.cameras import Camera


@dataclass(frozen=True)
class Answered:
    """An answer as `splat.evaluate` scores it.

    Attributes:
        relevancy: smoothed, at the level that answers. float32 [H, W]
        level: that level.
        mask: bool [H, W]
        point: (x, y)
    """

    relevancy: np.ndarray
    level: int
    mask: np.ndarray
    point: tuple[int, int]


def benchmark_answers(
    gaussians: Gaussians,
    field: LanguageField,
    camera: Camera,
    phrases: Sequence[str],
    encoder: Encoder,
    protocol: Protocol,
    size: tuple[int, int],
) -> Iterator[Answered]:
    """Ask for phrases in a view; answers come one at a time, because those of large labels are large.

    Args:
        camera: the view; maps are rendered at its size.
        size: width and height of the answers; maps are resized to it before anything is read from them.

    Raises:
        InputError: as `splat.query.relevancy_maps`.
    """
    from splat.query import relevancy_maps

    beside = [protocol.united[phrase] for phrase in phrases if phrase in protocol.united]
    asked = [*phrases, *beside]
    maps = relevancy_maps(gaussians, field, camera, asked, encoder)
    for phrase, levels in zip(phrases, maps[: len(phrases)], strict=True):
        second = protocol.united.get(phrase)
        other = None if second is None else _resized(maps[len(phrases) + beside.index(second)], size)
        found = read_out(_resized(levels, size), protocol.threshold, rule=protocol.levels, beside=other)
        yield Answered(found.smoothed.cpu().numpy(), found.level, found.mask.cpu().numpy(), found.point)


def _resized(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Maps [levels, H, W] at another width and height, bilinear as the published scripts resize."""
    width, height = size
    if maps.shape[-2:] == (height, width):
        return maps
    # Unseen pixels are given a value first, or their zeros would bleed into their neighbours.
    return F.interpolate(fill_unseen(maps)[None], (height, width), mode="bilinear", antialias=True)[0]
