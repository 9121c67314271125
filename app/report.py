"""report.html: one file a person opens to judge a trained scene, with all pictures inside."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from PIL import Image

from app.pictures import coloured, heat_map
from encoders.base import LEVELS
from encoders.files import atomic_path
from splat.evaluate import QueryScore, Renderer, ViewScore, in_bytes

ERROR_GAIN = 4
"""Errors are small; they are shown this many times brighter."""

AGREED, WRONG, MISSED = (33, 165, 140), (242, 142, 43), (148, 92, 235)
"""Colours of pixels in mask and truth, in the mask only, in the truth only; safe for the colour-blind."""


@dataclass(frozen=True)
class ReportConfig:
    """Bounds on the report's size: pictures are JPEGs of at most ``side`` pixels, quality ``quality``."""

    max_views: int = 12
    max_queries: int = 24
    side: int = 420
    quality: int = 82


@dataclass(frozen=True)
class ViewTile:
    """A held-out view; pictures are data URIs."""

    name: str
    psnr: float
    ssim: float
    rendered: str
    photo: str
    error: str


@dataclass(frozen=True)
class QueryTile:
    """A query's answer in one view; pictures are data URIs."""

    view: str
    iou: float
    hit: bool
    level: str
    rendered: str
    relevancy: str
    mask: str


@dataclass
class QueryTiles:
    """The views in which a query was answered best and worst; one view only if there is one."""

    query: str
    best: QueryTile
    worst: QueryTile

    @cached_property
    def shown(self) -> list[tuple[str, QueryTile]]:
        """What the page shows, with a word for each."""
        if self.best.view == self.worst.view:
            return [("in", self.best)]
        return [("worst view", self.worst), ("best view", self.best)]


class Pictures:
    """Collects a report's pictures while a scene is scored, as thumbnails: full-size ones are not kept.

    Pass `add_view` and `add_query` as ``watch`` of `evaluate_views` and `evaluate_language`.

    Args:
        render: draws the trained scene under the answers, see `splat.evaluate.renderer`.
    """

    def __init__(self, render: Renderer, config: ReportConfig | None = None) -> None:
        self._render = render
        self.config = config or ReportConfig()
        self.views: list[ViewTile] = []
        self.queries: dict[str, QueryTiles] = {}

    def add_view(self, score: ViewScore) -> None:
        """Keep a held-out view, if there is room."""
        if len(self.views) >= self.config.max_views:
            return
        difference = np.abs(score.rendered.astype(np.float32) - score.truth).mean(axis=2)
        error = coloured(np.clip(difference / 255 * ERROR_GAIN, 0, 1), cv2.COLORMAP_INFERNO)
        pictures = (self._uri(picture) for picture in (score.rendered, score.truth, error))
        self.views.append(ViewTile(score.camera.name, score.psnr, score.ssim, *pictures))

    def add_query(self, score: QueryScore) -> None:
        """Keep an answer if it is its query's best or worst so far."""
        tiles = self.queries.get(score.query)
        if tiles is None:
            if len(self.queries) < self.config.max_queries:
                tile = self._query_tile(score)
                self.queries[score.query] = QueryTiles(score.query, tile, tile)
        elif score.iou > tiles.best.iou:
            tiles.best = self._query_tile(score)
        elif score.iou < tiles.worst.iou:
            tiles.worst = self._query_tile(score)

    def _query_tile(self, score: QueryScore) -> QueryTile:
        rendered = in_bytes(self._render(score.camera))
        grey = np.repeat(cv2.cvtColor(rendered, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
        return QueryTile(
            view=score.camera.name,
            iou=score.iou,
            hit=score.hit,
            level=level_name(score.answer.level),
            rendered=self._uri(rendered),
            relevancy=self._uri(_heat(score.answer.relevancy, grey)),
            mask=self._uri(_comparison(score, grey)),
        )

    def _uri(self, picture: np.ndarray) -> str:
        factor = self.config.side / max(picture.shape[:2])
        if factor < 1:
            picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, format="JPEG", quality=self.config.quality)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def write_report(
    run_path: Path,
    metrics: Mapping[str, Any],
    pictures: Pictures,
    title: str = "",
    details: Mapping[str, str] | None = None,
) -> Path:
    """Write ``run_path/report.html``, a page without any outside resource.

    Args:
        metrics: the content of metrics.json; what is absent is left out of the page.
        title: heading; the run folder's name by default.
        details: further facts to list (encoder, preset, ...), in this order.

    Returns:
        The page's path.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    source = Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(source).render(
        title=title or Path(run_path).resolve().name,
        headline=_headline(metrics),
        costs=_costs(metrics),
        details=dict(details or {}),
        queries=[_query_row(row) for row in metrics.get("per_query") or []],
        tiles=list(pictures.queries.values()),
        views=pictures.views,
        gain=ERROR_GAIN,
        colours={"agreed": _hex(AGREED), "wrong": _hex(WRONG), "missed": _hex(MISSED)},
    )
    path = Path(run_path) / "report.html"
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def level_name(level: int) -> str:
    """A level's name for people."""
    return LEVELS[level] if 0 <= level < len(LEVELS) else str(level)


def _headline(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The numbers that count: label, value, explanation."""
    known = {
        "psnr": ("PSNR", "{:.2f} dB", "held-out views"),
        "ssim": ("SSIM", "{:.3f}", "held-out views"),
        "miou": ("mIoU", "{:.3f}", "mask against truth"),
        "localization_accuracy": ("Located", "{:.0%}", "point inside the object's box"),
        "gaussians": ("Gaussians", "{:,}", "in the scene"),
    }
    return [
        (label, form.format(metrics[key]), note)
        for key, (label, form, note) in known.items()
        if metrics.get(key) is not None
    ]


def _costs(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Time per stage and peak memory: label, value."""
    names = {"rgb": "RGB fit", "features": "Features", "language": "Language fit", "query": "One query"}
    costs = [
        (names.get(stage, stage), _duration(float(seconds)))
        for stage, seconds in (metrics.get("seconds") or {}).items()
        if seconds is not None
    ]
    if metrics.get("peak_rss_mb") is not None:
        costs.append(("Peak memory", f"{metrics['peak_rss_mb']:,.0f} MB"))
    return costs


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def _query_row(row: Mapping[str, Any]) -> dict[str, Any]:
    rate = row.get("hit_rate", float(row["hit"]))
    located = f"{rate * row['views']:.0f} of {row['views']} views" if "views" in row else f"{rate:.0%}"
    return {
        "query": row["query"],
        "iou": row["iou"],
        "hit": row["hit"],
        "located": located,
        "level": level_name(row["level"]),
    }


def _heat(relevancy: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """A relevancy map, stretched to its own range, over the dimmed view. uint8 [H, W, 3]"""
    return cv2.addWeighted(heat_map(relevancy), 0.7, grey, 0.3, 0)


def _comparison(score: QueryScore, grey: np.ndarray) -> np.ndarray:
    """Mask and truth in colours over the dimmed view, with the object's boxes and the answer's point."""
    picture = grey.astype(np.float32) * 0.6
    mask, truth = np.asarray(score.answer.mask, dtype=bool), score.truth
    for pixels, colour in ((mask & truth, AGREED), (mask & ~truth, WRONG), (~mask & truth, MISSED)):
        picture[pixels] = 0.35 * picture[pixels] + 0.65 * np.array(colour, dtype=np.float32)
    drawn = np.ascontiguousarray(picture.astype(np.uint8))
    stroke = max(1, round(max(drawn.shape[:2]) / 480))
    for x0, y0, x1, y1 in np.round(score.boxes).astype(int).tolist():
        cv2.rectangle(drawn, (x0, y0), (x1, y1), (255, 255, 255), stroke)
    x, y = score.answer.point
    cv2.circle(drawn, (int(x), int(y)), 6 * stroke, (0, 0, 0), -1, cv2.LINE_AA)
    cv2.circle(drawn, (int(x), int(y)), 4 * stroke, (255, 255, 255), -1, cv2.LINE_AA)
    return drawn


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
