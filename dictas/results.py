"""What a run leaves for people and programs to read: results.csv and results.json."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dictas.outputs import Row
from dictas.support import Support
from dictas.thresholds import LEVELS, Threshold
from encoders.files import atomic_path, write_json

SCHEMA_VERSION = 1
CSV, JSON = "results.csv", "results.json"
MAP_NOTES = {
    "png16": f"maps/*.png, 16 bit: value = pixel / {LEVELS}",
    "npz": "maps/*.npz: array map, float16",
    "none": "not written",
}


@dataclass(frozen=True)
class Seconds:
    """Where the time went, over all sessions of a run that was stopped and continued."""

    images: float
    """From the first photo to the last, reading and writing included."""
    setup: float
    """Dictionary and threshold; of this session only."""


def summary(
    rows: Sequence[Row],
    asked: dict[str, Any],
    support: Support,
    threshold: Threshold,
    seconds: Seconds,
    left_out: int = 0,
) -> dict[str, Any]:
    """The content of results.json.

    Args:
        left_out: images below the query folder that belong to the support or to the masks.
    """
    unreadable = sum(row.status != "ok" for row in rows)
    return {
        "schema_version": SCHEMA_VERSION,
        "dictsplat_version": version("dictsplat"),
        "options": asked,
        "support": list(support.names),
        "notes": _notes(support, left_out),
        "threshold": asdict(threshold),
        "maps": MAP_NOTES[asked["maps"]],
        "counts": {
            "images": len(rows),
            "ok": len(rows) - unreadable,
            "anomalous": sum(bool(row.anomalous) for row in rows),
            "unreadable": unreadable,
            "left_out": left_out,
        },
        "seconds": {"setup": round(seconds.setup, 3), "images": round(seconds.images, 3)},
        "images_per_second": round(len(rows) / seconds.images, 3) if seconds.images else None,
    }


def _notes(support: Support, left_out: int) -> list[str]:
    """Sentences on what was given and not used."""
    notes = []
    if support.duplicates:
        notes.append(
            f"Of the photos of good parts {len(support.duplicates):,} repeat another one byte for byte and are left "
            f"out: {', '.join(support.duplicates)}."
        )
    if left_out:
        notes.append(f"Of the images in the query folder {left_out:,} are support images or masks and are not judged.")
    return notes


def write_results(folder: Path, rows: Sequence[Row], content: dict[str, Any]) -> None:
    """Write results.csv, which depends on images and options only, and results.json, which also has timings."""
    with atomic_path(folder / CSV) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(field.name for field in fields(Row))
        for row in rows:
            lines.writerow(_cell(value) for value in asdict(row).values())
    write_json(folder / JSON, content)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    return f"{value:.6f}" if isinstance(value, float) else str(value)
