"""What the Anomaly tab shows of an inspection: numbers, a histogram, a sheet of photos, and one photo at full size.

Only what is shown is drawn, from small copies of photos and maps that are made when a photo is first shown; another
threshold draws again and computes nothing.
"""

import base64
import html
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from numpy.typing import NDArray

from app.anomaly_job import GOOD, Inspection
from app.anomaly_report import METHODS, histogram
from app.pictures import coloured
from dictas.images import find_images
from dictas.outputs import OK, Row
from dictas.overlay import overlay
from dictas.remask import flagged
from dictas.thresholds import Threshold
from encoders.files import atomic_path, read_image

PAGE = 12
"""Photos on one sheet."""
PREVIEW = 320
"""Longer side of the pictures on a sheet, in pixels at most."""
THREADS = 4
"""That draw a sheet."""
SMALL = 64
"""Longer side of the pictures of good parts."""
SHOWN = {"all": "All", "flagged": "Anomalous", "fine": "Good", "unreadable": "Unreadable"}
"""Which photos a sheet may be limited to."""
KINDS = {
    "Overlay": "Blue is the threshold, green twice and red four times as much.",
    "Heat map": "Green is the threshold, red twice as much or more.",
    "Mask": "White reaches the threshold.",
    "Photo": "",
}
"""How one photo may be drawn at full size, and what its colours mean."""

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Look:
    """What of an inspection a visitor is looking at.

    Attributes:
        show: one of `SHOWN`.
        page: from 0; of the photos shown.
        photo: the one at full size, its place in `Inspection.rows`.
    """

    show: str = "all"
    page: int = 0
    photo: int = 0


def summary_html(inspection: Inspection, threshold: Threshold) -> str:
    """How many photos are anomalous, by which threshold, and how the scores are distributed."""
    rows = flagged(inspection.rows, threshold)
    return _template("anomaly_summary.html.j2").render(
        anomalous=sum(bool(row.anomalous) for row in rows),
        judged=sum(row.status == OK for row in rows),
        unreadable=sum(row.status != OK for row in rows),
        threshold=threshold,
        method=METHODS[threshold.method],
        chosen=threshold != inspection.threshold,
        scores=histogram(rows, threshold.image),
    )


def good_html(inspection: Inspection) -> str:
    """Small pictures of the good parts that all others were judged by."""
    good = []
    for photo in find_images(inspection.folder / GOOD):
        picture = read_image(photo.path, white=inspection.white)
        factor = max(max(picture.shape[:2]) / SMALL, 1.0)
        size = (max(1, round(picture.shape[1] / factor)), max(1, round(picture.shape[0] / factor)))
        good.append((photo.name, _data_url(np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA)))))
    return _template("anomaly_good.html.j2").render(good=good, notes=inspection.prediction.results["notes"])


def sheet_html(inspection: Inspection, look: Look, threshold: Threshold) -> str:
    """The photos of one page, worst first, as buttons; those that cannot be read with the reason."""
    rows = flagged(inspection.rows, threshold)
    kinds = [_kind(row) for row in rows]
    chosen = [place for place, kind in enumerate(kinds) if look.show in ("all", kind)]
    pages = max(1, -(-len(chosen) // PAGE))
    page = min(max(look.page, 0), pages - 1)
    counts = {name: len(kinds) if name == "all" else kinds.count(name) for name in SHOWN}
    with ThreadPoolExecutor(THREADS) as pool:  # large photos that were not shown before take half a second each
        cards = pool.map(
            lambda place: _card(inspection, place, rows[place], threshold), chosen[page * PAGE : (page + 1) * PAGE]
        )
    return _template("anomaly_sheet.html.j2").render(
        cards=list(cards),
        filters=[(name, label, counts[name]) for name, label in SHOWN.items() if counts[name] or name == "all"],
        look=look,
        page=page,
        pages=pages,
    )


def full_picture(inspection: Inspection, photo: int, threshold: Threshold, kind: str) -> tuple[Image | None, str]:
    """One photo as large as it is, drawn as one of `KINDS`, "Overlay" for any other.

    Args:
        photo: its place in `Inspection.rows`.

    Returns:
        uint8 [H, W, 3] or None if it cannot be read; and a line of HTML about it.
    """
    row = flagged(inspection.rows, threshold)[photo]
    name = html.escape(row.path)
    if row.status != OK:
        return None, f'<p class="anomaly"><b>{name}</b>: {html.escape(row.error)}</p>'
    values = inspection.map(row)
    mask = values >= threshold.pixel
    verdict = "anomalous" if row.anomalous else "good"
    line = (
        f"score {row.score:.4f}. Of its {row.width} × {row.height} pixels {100 * mask.mean():.2f}&nbsp;% reach the "
        f"threshold; the highest is at ({row.peak_x}, {row.peak_y}). {KINDS.get(kind, '')}"
    )
    line = f'<p class="anomaly"><b>{name}</b>: {verdict}, {line}</p>'
    if kind == "Heat map":
        return coloured(values / max(2 * threshold.pixel, 1e-6), cv2.COLORMAP_TURBO), line
    if kind == "Mask":
        return np.repeat((mask * np.uint8(255))[..., None], 3, axis=2), line
    pixels = inspection.photo(row)
    return pixels if kind == "Photo" else overlay(pixels, values, threshold.pixel), line


def _kind(row: Row) -> str:
    return "unreadable" if row.status != OK else "flagged" if row.anomalous else "fine"


def _card(inspection: Inspection, place: int, row: Row, threshold: Threshold) -> dict[str, Any]:
    card: dict[str, Any] = {"place": place, "row": row, "kind": _kind(row)}
    if row.status == OK:
        photo, values = _preview(inspection, place, row)
        card["picture"] = _data_url(overlay(photo, values, threshold.pixel))
    return card


def _preview(inspection: Inspection, place: int, row: Row) -> tuple[Image, NDArray[np.float32]]:
    """A photo and its map, shrunk by a whole number; of the map the highest values stay, however small their place."""
    path = inspection.folder / "previews" / f"{place}.npz"
    if not path.exists():
        photo, values = inspection.photo(row), inspection.map(row)
        factor = -(-max(values.shape) // PREVIEW)
        for axis in (0, 1):
            values = np.maximum.reduceat(values, range(0, values.shape[axis], factor), axis)
        small = cv2.resize(photo, (values.shape[1], values.shape[0]), interpolation=cv2.INTER_AREA)
        with atomic_path(path) as temporary:
            np.savez(temporary, photo=small, map=values.astype(np.float16))
    with np.load(path) as content:
        return content["photo"], content["map"].astype(np.float32)


@cache
def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(Path(__file__).with_name(name).read_text(encoding="utf-8"))


def _data_url(picture: Image) -> str:
    _, content = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 80])
    return "data:image/jpeg;base64," + base64.b64encode(bytes(content)).decode("ascii")
