"""`dictsplat anomaly eval`: how good the maps are on a data set with masks, beside other methods."""

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.exits import EXIT_FAULT
from app.options import (
    AsJson,
    Batch,
    Checkpoint,
    DetectorEncoder,
    Device,
    Overlap,
    Rotations,
    Size,
    Tile,
    Workers,
    reading_processes,
)

if TYPE_CHECKING:
    from dictas.samples import InspectionClass

COLUMNS = {
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "pixel_f1_max": "pixel F1-max",
    "aupro": "AUPRO",
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
}
NOTHING = "–"

Cells = list[str]


def register(anomaly: typer.Typer) -> None:
    """Add the command to `dictsplat anomaly`."""
    anomaly.command("eval", epilog="Example: dictsplat anomaly eval mvtec/ --out out/mvtec --shots 4 --seeds 5")(
        evaluate
    )


def evaluate(
    dataset: Annotated[
        Path, typer.Argument(help="Folder of one class (train/good, test/*, ground_truth/*) or of classes.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; what an earlier run finished is used again.")],
    shots: Annotated[int, typer.Option(help="Normal images shown.")] = 4,
    seeds: Annotated[int, typer.Option(help="How many times to draw them.")] = 1,
    layout: Annotated[str, typer.Option(help="Of the data set: auto, mvtec, visa, btad, ...")] = "auto",
    classes: Annotated[str | None, typer.Option(help="Some of the classes, separated by commas. Default: all.")] = None,
    baselines: Annotated[str, typer.Option(help="all, none, or some, separated by commas.")] = "all",
    checkpoint: Checkpoint = None,
    encoder: DetectorEncoder = None,
    projection: Annotated[
        str | None, typer.Option(help="sparsemax, softmax, top-k, entmax15 or max. Default: the checkpoint's.")
    ] = None,
    size: Size = None,
    tile: Tile = None,
    overlap: Overlap = 0.25,
    rotations: Rotations = 1,
    workers: Workers = None,
    batch: Batch = 8,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure on a data set with masks, beside other methods. Run it again to continue after a stop.

    Leaves metrics.json, metrics.md and a picture of examples per class in OUT. Ends with status 1 if test images could
    not be read.
    """
    from app.progress import StageProgress
    from dictas.baselines import BASELINES
    from dictas.checkpoint import load_detector
    from dictas.datasets import read_dataset
    from dictas.evaluate import EvaluateOptions
    from dictas.evaluate import evaluate as measure
    from encoders.devices import pick_device
    from encoders.storage import storage_errors

    names = {"all": [*BASELINES], "none": []}.get(baselines, _listed(baselines))
    options = EvaluateOptions(
        shots=shots,
        seeds=seeds,
        baselines=tuple(name.replace("-", "_") for name in names),
        rotations=rotations,
        tile=tile,
        overlap=overlap,
        batch=batch,
        workers=reading_processes(workers),
    )
    quiet = contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()
    with quiet, StageProgress(lines=not as_json) as reports, storage_errors(out):
        items = _chosen(read_dataset(dataset, layout), classes, dataset)
        backbone, detector = load_detector(
            checkpoint, pick_device(device), encoder=encoder, size=size, projection=projection
        )
        metrics = measure(items, backbone, detector, out, options, reports("images"))
        write_tables(out / "metrics.md", metrics)
    if as_json:
        typer.echo(json.dumps(metrics, indent=2, allow_nan=False))
    else:
        print_tables(metrics)
        typer.echo(f"Look at {out / 'metrics.md'} and {out / 'examples'}.")
    if metrics["unreadable"]:
        count = len(metrics["unreadable"])
        typer.echo(
            f"{count:,} test images could not be read and are left out of all numbers; {out / 'metrics.json'} says "
            "which and why.",
            err=True,
        )
        raise typer.Exit(EXIT_FAULT)


def print_tables(metrics: Mapping[str, Any]) -> None:
    """The detector beside the baselines: on average, and on each class if there are several."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for title, rows in _tables(metrics):
        table = Table(title=title, title_justify="left")
        table.add_column("", no_wrap=True)
        for name in (*COLUMNS.values(), "images/s"):
            table.add_column(name, justify="right")
        for row in rows:
            # A terminal has room for the means; deviations are in metrics.md.
            table.add_row(*(cell.split(" ± ")[0] for cell in row))
        console.print(table)
    for name, reason in metrics["skipped"].items():
        console.print(f"{name} was left out: {reason}", highlight=False, markup=False, soft_wrap=True)


def write_tables(path: Path, metrics: Mapping[str, Any]) -> None:
    """The same tables as Markdown."""
    from encoders.files import atomic_path

    lines = []
    for title, rows in _tables(metrics):
        lines += [f"## {title}", "", _line(["", *COLUMNS.values(), "images/s"])]
        lines += [_line(["---", *["---:"] * (len(COLUMNS) + 1)]), *(_line(row) for row in rows), ""]
    if metrics["seeds"] > 1:
        lines.append("± is the standard deviation from draw to draw.\n")
    lines += [f"{name} was left out: {reason}\n" for name, reason in metrics["skipped"].items()]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")


def _tables(metrics: Mapping[str, Any]) -> Iterator[tuple[str, list[Cells]]]:
    """Titles and rows."""
    everyone = {metrics["detector"]: metrics, **metrics["baselines"]}
    draws = f"{metrics['shots']}-shot" + (f", mean of {metrics['seeds']} draws" if metrics["seeds"] > 1 else "")
    per_class = metrics["per_class"]
    if len(per_class) > 1:
        yield f"Mean of {len(per_class)} classes, {draws}", [_cells(name, found) for name, found in everyone.items()]
    for item in per_class:
        ones = {name: found["per_class"][item] for name, found in everyone.items() if item in found["per_class"]}
        yield f"{item}, {draws}", [_cells(name, found) for name, found in ones.items()]


def _cells(name: str, found: Mapping[str, Any]) -> Cells:
    cells = [name]
    for column in COLUMNS:
        value, deviation = found[column], found["std"][column]
        spread = "" if deviation is None else f" ± {deviation:.3f}"
        cells.append(NOTHING if value is None else f"{value:.3f}{spread}")
    speed = found["images_per_second"]
    return [*cells, NOTHING if speed is None else f"{speed:.1f}"]


def _line(cells: Cells) -> str:
    return f"| {' | '.join(cells)} |"


def _listed(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _chosen(items: "Sequence[InspectionClass]", wanted: str | None, dataset: Path) -> "list[InspectionClass]":
    from encoders.errors import InputError

    if wanted is None:
        return list(items)
    names = _listed(wanted)
    by_name = {item.name: item for item in items}
    unknown = [name for name in names if name not in by_name]
    if unknown or not names:
        raise InputError(
            f"There is no class {unknown[0] if unknown else wanted!r} in {dataset}; it has {', '.join(by_name)}."
        )
    return [by_name[name] for name in dict.fromkeys(names)]
