"""Options that several commands take."""

import os
from pathlib import Path
from typing import Annotated

import typer

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder made by train, demo or import.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]

Checkpoint = Annotated[
    Path | None, typer.Option(help="Weights made by anomaly train. Default: those that come with dictsplat.")
]
DetectorEncoder = Annotated[
    str | None, typer.Option(help="embedded, or openclip:MODEL[:PRETRAINED_OR_PATH]. Default: the checkpoint's.")
]
Size = Annotated[int | None, typer.Option(help="Photos are shown to the model with about SIZE x SIZE pixels.")]
Tile = Annotated[
    int | None,
    typer.Option(help="Cut photos into overlapping tiles of this many pixels: small defects, large photos."),
]
Overlap = Annotated[float, typer.Option(help="Share of its side that a tile has in common with the next.")]
Rotations = Annotated[
    int,
    typer.Option(help="For parts that lie at any angle: also know each good photo turned, so many times in all."),
]
Workers = Annotated[int | None, typer.Option(help="Processes that read photos. Default: half the cores, at most 4.")]
Batch = Annotated[int, typer.Option(help="Photos or tiles shown to the model at a time.")]


def reading_processes(workers: int | None) -> int:
    """How many processes read photos for ``--workers``."""
    if workers is not None:
        return workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, cores // 2)
