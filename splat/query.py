"""Asking a scene for things by name: relevancy in code space, then level, mask, point, box and confidence."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from encoders.base import Encoder
from splat.codes import LanguageField
from splat.gaussians import Gaussians
from splat.phrases import DEFAULT_NEGATIVES, check_level, text_scores
from splat.rasterize import rasterize_relevancy
from splat.relevancy import THRESHOLD, bounding_box, read_out
from splat.scene import Camera, stack
from splat.select import select_gaussians

__all__ = ["DEFAULT_NEGATIVES", "QueryResult", "query_view", "relevancy_maps", "select_gaussians"]


@dataclass(frozen=True)
class QueryResult:
    """Where a phrase is in a view.

    Attributes:
        phrase: what was asked for.
        relevancy: how much likelier the phrase is than the likeliest negative, smoothed, at the chosen level;
            0.5 means equally likely. float32 [H, W] in 0..1
        level: 0 subpart, 1 part, 2 whole.
        mask: selected pixels; may be empty. bool [H, W]
        point: (x, y), the pixel where the phrase is found.
        box: (x0, y0, x1, y1), ends exclusive, around the connected piece of the mask at the point, or around
            its largest piece if the point lies outside; None if the mask is empty.
        confidence: the highest value of `relevancy`, 0..1: the probability that the phrase describes its best
            place better than any generic phrase does. Below 0.5 the view does not show it (`present`).
        seconds: time this phrase took; what several phrases share is divided among them.
    """

    phrase: str
    relevancy: NDArray[np.float32]
    level: int
    mask: NDArray[np.bool_]
    point: tuple[int, int]
    box: tuple[int, int, int, int] | None
    confidence: float
    seconds: float

    @property
    def present(self) -> bool:
        """Whether the phrase describes some place better than the generic phrases do."""
        return self.confidence > 0.5


def query_view(
    gaussians: Gaussians,
    field: LanguageField,
    camera: Camera,
    phrases: Sequence[str],
    encoder: Encoder,
    negatives: Sequence[str] = DEFAULT_NEGATIVES,
    level: int | None = None,
    threshold: float = THRESHOLD,
) -> list[QueryResult]:
    """Find phrases in a view: one splat for all of them and all levels, then `splat.relevancy` reads the maps.

    The mask is relative to the view: it holds the pixels that answer best, however weakly, which is what the
    published protocols score. Whether they answer at all is what `QueryResult.confidence` says.

    Args:
        gaussians: the scene, N Gaussians; the query runs on their device.
        field: their language field, on the same device.
        camera: any camera, not only one of the training views.
        phrases: what to look for.
        encoder: the one the field was fitted with.
        negatives: generic phrases that a phrase must be likelier than.
        level: answer at this level; the best one if None.
        threshold: on the normalised relevancy, 0..1.

    Returns:
        One result per phrase, in order.

    Raises:
        InputError: a phrase is empty or too long, there are no phrases or negatives, an unknown level, the
            encoder is not the field's, or the field belongs to other Gaussians.
    """
    started = time.perf_counter()
    check_level(level, field)
    maps = relevancy_maps(gaussians, field, camera, phrases, encoder, negatives)
    shared = (time.perf_counter() - started) / len(phrases)
    results = []
    for phrase, levels in zip(phrases, maps, strict=True):
        started = time.perf_counter()
        answer = read_out(levels, threshold, level)
        mask = answer.mask.cpu()
        results.append(
            QueryResult(
                phrase=phrase,
                relevancy=answer.smoothed.cpu().numpy(),
                level=answer.level,
                mask=mask.numpy(),
                point=answer.point,
                box=_box(mask, answer.point),
                confidence=float(answer.smoothed.max()),
                seconds=shared + time.perf_counter() - started,
            )
        )
    return results


def relevancy_maps(
    gaussians: Gaussians,
    field: LanguageField,
    camera: Camera,
    phrases: Sequence[str],
    encoder: Encoder,
    negatives: Sequence[str] = DEFAULT_NEGATIVES,
) -> torch.Tensor:
    """Relevancy of each phrase at each level and pixel, straight from the splat (arguments: `query_view`).

    Returns:
        0..1, and 0 where nothing was rendered; on the device of the Gaussians. float32 [P, levels, H, W]
    """
    scores = text_scores(gaussians, field, phrases, encoder, negatives)
    viewmats, intrinsics = stack([camera])
    with torch.inference_mode():
        maps, _ = rasterize_relevancy(
            *gaussians.geometry,
            field.indices,
            field.weights,
            scores,
            field.gram(),
            len(phrases),
            viewmats,
            intrinsics,
            camera.width,
            camera.height,
        )
    return maps[0]


def _box(mask: torch.Tensor, point: tuple[int, int]) -> tuple[int, int, int, int] | None:
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.numpy().astype(np.uint8), connectivity=8)
    if count < 2:
        return None
    here = int(pieces[point[1], point[0]])
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    return bounding_box(torch.from_numpy(pieces == (here or largest)))
