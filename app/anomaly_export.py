"""The results of an inspection as files to take away: a table, or everything that `anomaly predict` leaves."""

import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.anomaly_job import Inspection
from app.anomaly_report import write_report
from dictas.outputs import FOLDERS, OK, Row
from dictas.predict import Prediction
from dictas.remask import measured, rewrite
from dictas.results import CSV, JSON, write_results
from dictas.thresholds import Threshold
from encoders.files import atomic_path
from encoders.progress import Report, silent

REPORT = "report.html"


def write_table(inspection: Inspection, threshold: Threshold, into: Path) -> Path:
    """Write ``into/results.csv`` for a threshold; see `Inspection.at`."""
    rows = inspection.prediction.rows
    if threshold != inspection.threshold:
        rows = measured(inspection.out, rows, threshold)
    write_results(into, rows, _results(inspection, rows, threshold))
    (into / JSON).unlink()
    return into / CSV


def write_bundle(inspection: Inspection, threshold: Threshold, path: Path, report: Report = silent) -> Path:
    """Write a zip with tables, a page to look at, maps, overlays and masks for a threshold.

    Returns:
        ``path``.
    """
    report(0, 1, "packing")
    with tempfile.TemporaryDirectory(dir=inspection.folder) as place:
        again = inspection.out
        if threshold != inspection.threshold:
            again = Path(place)
            _rewrite_all(inspection, threshold, again, report)
        with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as target:
            for file, name in _files(inspection.out, again):
                target.write(file, name)
    return path


def _rewrite_all(inspection: Inspection, threshold: Threshold, out: Path, report: Report) -> None:
    """Everything that depends on the threshold, into another folder."""
    rows: list[Row] = []
    judged = inspection.prediction.rows
    for row in judged:
        if row.status == OK:
            row = rewrite(inspection.out, row, inspection.photo(row), threshold, out)
        rows.append(row)
        report(len(rows), len(judged), "drawing masks")
    results = _results(inspection, rows, threshold)
    write_results(out, rows, results)
    write_report(out, Prediction(rows, results))


def _results(inspection: Inspection, rows: list[Row], threshold: Threshold) -> dict[str, Any]:
    results = inspection.prediction.results
    if threshold == inspection.threshold:
        return results
    return {
        **results,
        "options": {**results["options"], "threshold": threshold.image},
        "threshold": asdict(threshold),
        "counts": {**results["counts"], "anomalous": sum(bool(row.anomalous) for row in rows)},
    }


def _files(out: Path, again: Path) -> Iterator[tuple[Path, str]]:
    """Files and their names in the zip: maps from ``out``, all else from ``again``."""
    for name in (CSV, JSON, REPORT):
        yield again / name, name
    for kind in FOLDERS:
        place = out if kind == "maps" else again
        for path in sorted((place / kind).rglob("*")):
            if path.is_file():
                yield path, path.relative_to(place).as_posix()
