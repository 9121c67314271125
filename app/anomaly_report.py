"""report.html of `anomaly predict`: a contact sheet of all photos, the worst first, that stays light with 10,000."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np

from dictas.outputs import OK, Row
from dictas.predict import Prediction
from encoders.files import atomic_path

PAGE = 48
"""Photos shown at a time."""
BINS = 48
SMALLEST = 1e-6
"""Scores are rounded to it."""
METHODS = {
    "leave-one-out": "good photos judged by each other",
    "augmentation": "the one good photo, changed",
    "fixed": "given",
    "f1": "best F1 on the masks",
}


@dataclass(frozen=True)
class Bar:
    """A bar of the histogram; x, width and height are shares of the drawing."""

    x: float
    width: float
    height: float
    flagged: bool
    note: str


@dataclass(frozen=True)
class Histogram:
    """The bars, where the threshold lies among them (a share of the width), and the scores at both ends."""

    bars: list[Bar]
    cut: float
    low: str
    high: str


def write_report(out: Path, prediction: Prediction) -> Path:
    """Write ``out/report.html``, which shows the pictures that lie beside it and nothing from elsewhere.

    Returns:
        The page's path.
    """
    results = prediction.results
    threshold = float(results["threshold"]["image"])
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    source = Path(__file__).with_name("anomaly_report.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(source).render(
        title=Path(results["options"]["query"]).name,
        headline=_headline(results),
        details=_details(results),
        scores=histogram(prediction.rows, threshold),
        threshold=threshold,
        photos=[_photo(row) for row in worst_first(prediction.rows)],
        page_size=PAGE,
    )
    path = out / "report.html"
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def worst_first(rows: Sequence[Row]) -> list[Row]:
    """By falling score; photos without one last."""
    return sorted(rows, key=lambda row: -1.0 if row.score is None else row.score, reverse=True)


def histogram(rows: Sequence[Row], threshold: float) -> Histogram:
    """Counts of the scores in `BINS` bins of equal ratio; the threshold is the edge of one.

    Both axes are logarithmic: few photos are anomalous among thousands, and their scores may be ten times as high.
    """
    judged = [row for row in rows if row.score is not None]
    limit = max(threshold, SMALLEST)
    scores = np.maximum(np.array([row.score for row in judged], np.float64), SMALLEST)
    ratio = float(scores.max(initial=limit) / scores.min(initial=limit))
    step = max(np.log(ratio) / BINS, 1e-3)
    places = np.floor(np.log(scores / limit) / step).astype(int)
    # Scores are rounded; that must not put one on the wrong side of the line.
    flagged = np.array([bool(row.anomalous) for row in judged], bool)
    places = np.where(flagged, np.maximum(places, 0), np.minimum(places, -1))
    first, last = int(places.min(initial=0)), int(places.max(initial=-1))
    bins = max(last - first + 1, 1)
    counts = np.bincount(places - first, minlength=bins)
    edges = [f"{limit * np.exp(step * place):.3g}" for place in range(first, last + 2)]
    bars = [
        Bar(
            x=number / bins,
            width=0.86 / bins,
            height=float(np.log1p(count) / np.log1p(counts.max())),
            flagged=number + first >= 0,
            note=f"{count:,} with score {edges[number]} to {edges[number + 1]}",
        )
        for number, count in enumerate(counts.tolist())
        if count
    ]
    return Histogram(bars, -first / bins, edges[0], edges[-1])


def _headline(results: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The numbers that count: label, value, explanation."""
    counts, threshold = results["counts"], results["threshold"]
    share = counts["anomalous"] / counts["ok"] if counts["ok"] else 0.0
    headline = [
        ("Photos", f"{counts['images']:,}", "judged by " + _plural(len(results["support"]), "good one")),
        ("Anomalous", f"{counts['anomalous']:,}", f"{share:.1%} of those read"),
        ("Unreadable", f"{counts['unreadable']:,}", "not judged"),
        ("Threshold", f"{threshold['image']:.4f}", METHODS[threshold["method"]]),
    ]
    if threshold["false_alarms"] is not None:
        headline.append(("False alarms", f"{threshold['false_alarms']:.2%}", "expected among good photos"))
    if threshold["f1"] is not None:
        headline.append(("F1", f"{threshold['f1']:.3f}", "of labelled pixels"))
    return headline


def _details(results: dict[str, Any]) -> dict[str, str]:
    options = results["options"]
    names = ("encoder", "size", "tile", "rotations")
    details = {name: str(options[name]) for name in names if options[name] is not None}
    if results["images_per_second"]:
        details["photos per second"] = f"{results['images_per_second']:.1f}"
    return details


def _photo(row: Row) -> dict[str, Any]:
    """What the page's script needs to show a photo; short keys, as there may be 10,000."""
    if row.status != OK:
        return {"n": row.path, "e": row.error}
    assert row.width is not None
    assert row.height is not None
    return {
        "n": row.path,
        "o": quote(row.output),
        "s": row.score,
        "a": row.area_fraction,
        "f": row.anomalous,
        "r": round(3 * row.width / row.height, 3),
    }


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
