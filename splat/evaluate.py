"""How good a trained scene is: pictures of held-out views, and answers to queries with known answers.

Queries are scored as the benchmarks do (`splat.protocols`; `splat.relevancy` has the rule that makes masks and
points): intersection over union of the mask, and whether the point lies in one of the object's boxes, for every view
and every category labelled in it.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from encoders.base import Encoder
from encoders.errors import InputError
from encoders.progress import Report, silent
from splat.benchmark_answers import benchmark_answers
from splat.codes import LanguageField
from splat.gaussians import Gaussians
from splat.image_metrics import psnr, ssim
from splat.protocols import Benchmark, Competition, read_benchmark
from splat.rasterize import rasterize_rgb
from splat.scene.cameras import Camera, stack
from splat.scene.scene import Scene
from splat.scene.undistort import Lens

Renderer = Callable[[Camera], np.ndarray]
"""Gives a camera's picture, float32 [H, W, 3] in 0..1."""


class Answer(Protocol):
    """What evaluation needs to know of a query's result (`splat.query.QueryResult` has more)."""

    @property
    def relevancy(self) -> np.ndarray:
        """float32 [H, W]"""

    @property
    def level(self) -> int:
        """Index of the level that answered."""

    @property
    def mask(self) -> np.ndarray:
        """bool [H, W]"""

    @property
    def point(self) -> tuple[int, int]:
        """(x, y)"""


Answerer = Callable[[Camera, list[str], tuple[int, int]], Iterable[Answer]]
"""Asks for several phrases in one view; answers have the given width and height."""


@dataclass(frozen=True)
class ViewScore:
    """A held-out view beside its photo. ``rendered`` and ``truth`` are uint8 [H, W, 3]."""

    camera: Camera
    rendered: np.ndarray
    truth: np.ndarray
    psnr: float
    ssim: float


@dataclass(frozen=True)
class QueryScore:
    """One query in one view beside the truth.

    Attributes:
        camera: the view, at the size it is scored at.
        truth: bool [H, W].
        boxes: (x0, y0, x1, y1) of the object's pieces, ends included. float64 [B, 4]
        iou: intersection over union of ``answer.mask`` and ``truth``, 0..1.
        hit: whether ``answer.point`` lies in one of the boxes.
    """

    camera: Camera
    query: str
    answer: Answer
    truth: np.ndarray
    boxes: np.ndarray
    iou: float
    hit: bool


@dataclass(frozen=True)
class _Outcome:
    """A `QueryScore` without its pictures, so that scoring many views stays small."""

    iou: float
    hit: bool
    level: int


def in_bytes(picture: np.ndarray) -> np.ndarray:
    """A picture of values 0..1, clipped and rounded to uint8 as image files hold it."""
    return np.asarray((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8))


def renderer(gaussians: Gaussians) -> Renderer:
    """A `Renderer` of ``gaussians`` on black, which works on their device."""

    def render(camera: Camera) -> np.ndarray:
        viewmats, Ks = stack([camera])
        with torch.no_grad():
            splatted = (*gaussians.geometry, gaussians.sh, viewmats, Ks, camera.width, camera.height)
            rgb, *_ = rasterize_rgb(*splatted)
        return rgb[0].clamp(0, 1).cpu().numpy()

    return render


def evaluate_views(
    render: Renderer,
    scene: Scene,
    report: Report = silent,
    watch: Callable[[ViewScore], None] | None = None,
) -> dict[str, float]:
    """Compare pictures of the held-out views with their photos.

    Args:
        render: the trained scene, see `renderer`.
        watch: called with every view as it is scored, for instance to keep its pictures.

    Returns:
        ``psnr`` (dB) and ``ssim``, means over views; empty without held-out views.
    """
    scores = []
    for done, index in enumerate(scene.test):
        camera = scene.cameras[index]
        report(done, len(scene.test), f"scoring view {camera.name}")
        rendered, truth = render(camera), scene.image(index)
        score = ViewScore(camera, in_bytes(rendered), truth, psnr(rendered, truth), ssim(rendered, truth))
        scores.append((score.psnr, score.ssim))
        if watch is not None:
            watch(score)
    if not scores:
        return {}
    means = np.mean(scores, axis=0)
    return {"psnr": float(means[0]), "ssim": float(means[1])}


def evaluate_language(
    gaussians: Gaussians,
    field: LanguageField,
    cameras: Sequence[Camera],
    labels_dir: Path,
    encoder: Encoder,
    report: Report = silent,
    watch: Callable[[QueryScore], None] | None = None,
    protocol: str | None = None,
    lenses: Mapping[str, Lens] | None = None,
) -> dict[str, Any]:
    """Ask a trained scene for everything that is labelled; see `evaluate_answers`.

    Args:
        cameras: the scene's views; those with a label file named like them are evaluated.
        labels_dir: labels of a benchmark, see `splat.protocols.read_benchmark`.
        protocol: how they are scored; by default what the folder asks for.
    """
    benchmark = read_benchmark(labels_dir, protocol)

    def answer(camera: Camera, phrases: list[str], size: tuple[int, int]) -> Iterable[Answer]:
        return benchmark_answers(gaussians, field, camera, phrases, encoder, benchmark.protocol, size)

    return evaluate_answers(answer, cameras, benchmark, report, watch, lenses)


def evaluate_answers(
    answer: Answerer,
    cameras: Sequence[Camera],
    benchmark: Benchmark,
    report: Report = silent,
    watch: Callable[[QueryScore], None] | None = None,
    lenses: Mapping[str, Lens] | None = None,
) -> dict[str, Any]:
    """Score answers in all labelled views.

    An object that is smaller than a pixel of the view counts as not found. One that the label has outside its
    picture, or that straightening the photo cut off, is not in the view and is not scored.

    Args:
        lenses: by the view's name, of the photos that were labelled; the cameras' views are straightened copies.

    Returns:
        ``protocol``: its name; ``miou`` and ``localization_accuracy``: means over all pairs of a view and a category
        labelled in it; ``miou_argmax`` and ``pixel_accuracy`` where classes compete (3D-OVS); ``per_query``: for each
        category ``query``, ``iou`` (mean over the views that show it), ``hit`` (located in at least half of them),
        ``hit_rate``, ``level`` (the one that answered most often) and ``views``; ``query_seconds``: mean time per
        phrase and view; ``labelled_views``: how many views.

    Raises:
        InputError: no label file belongs to any of the cameras, or none of them shows anything.
    """
    by_name = {camera.name: camera for camera in cameras}
    known = [view for view in benchmark.labels if view.name in by_name and view.categories]
    if not known:
        names = ", ".join(view.name for view in benchmark.labels[:3])
        raise InputError(
            f"The labels are for views named {names}, which this scene does not have; "
            "name each label file like its photo."
        )
    scores: dict[str, list[_Outcome]] = {}
    competition = Competition()
    seconds, asked = 0.0, 0
    for done, view in enumerate(known):
        report(done, len(known), f"asking view {view.name}")
        camera, lens = by_name[view.name], (lenses or {}).get(view.name)
        seen = camera if view.size is None else camera.resized(*view.size)
        answers = iter(answer(camera, view.categories, (seen.width, seen.height)))
        relevancy, truth = [], []
        for category in view.categories:
            start = time.perf_counter()
            result = next(answers)
            seconds += time.perf_counter() - start
            asked += 1
            shown = view.shown(category, seen.width, seen.height, lens)
            if benchmark.protocol.compete:
                relevancy.append(result.relevancy)
                truth.append(np.zeros((seen.height, seen.width), bool) if shown is None else shown.mask)
            if shown is None:
                continue
            overlap, hit = iou(result.mask, shown.mask), in_any_box(result.point, shown.boxes)
            scores.setdefault(category, []).append(_Outcome(overlap, hit, result.level))
            if watch is not None:
                watch(QueryScore(seen, category, result, shown.mask, shown.boxes, overlap, hit))
        if benchmark.protocol.compete:
            competition.add(np.stack(relevancy), np.stack(truth))
    every = [score for group in scores.values() for score in group]
    if not every:
        raise InputError(f"The labels of {known[0].name} and other views show nothing that is in the scene's pictures.")
    competed = {"miou_argmax": competition.miou, "pixel_accuracy": competition.accuracy}
    return {
        "protocol": benchmark.protocol.name,
        "miou": float(np.mean([score.iou for score in every])),
        "localization_accuracy": float(np.mean([score.hit for score in every])),
        **(competed if benchmark.protocol.compete else {}),
        "per_query": [_summary(category, group) for category, group in scores.items()],
        "query_seconds": seconds / asked,
        "labelled_views": len(known),
    }


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of two masks bool [H, W]; 0 if both are empty."""
    union = np.logical_or(mask, truth).sum()
    return float(np.logical_and(mask, truth).sum() / union) if union else 0.0


def in_any_box(point: tuple[int, int], boxes: np.ndarray) -> bool:
    """Whether (x, y) lies in one of ``boxes`` [B, 4] (x0, y0, x1, y1), ends included."""
    x, y = point
    inside = (boxes[:, 0] <= x) & (x <= boxes[:, 2]) & (boxes[:, 1] <= y) & (y <= boxes[:, 3])
    return bool(inside.any())


def _summary(category: str, group: list[_Outcome]) -> dict[str, Any]:
    rate = float(np.mean([score.hit for score in group]))
    return {
        "query": category,
        "iou": float(np.mean([score.iou for score in group])),
        "hit": rate >= 0.5,
        "hit_rate": rate,
        "level": Counter(score.level for score in group).most_common(1)[0][0],
        "views": len(group),
    }
