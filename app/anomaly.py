"""`dictsplat anomaly`: find what is wrong with parts, given a few good ones."""

import contextlib
import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from app import anomaly_eval, anomaly_train
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

anomaly = typer.Typer(
    name="anomaly",
    help="Find what is wrong with parts, given a few photos of good ones.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@anomaly.command(epilog="Example: dictsplat anomaly predict --support good/ --query tonight/ --out results/")
def predict(
    support: Annotated[Path, typer.Option(help="Folder with 1 to 16 photos of good parts.")],
    query: Annotated[Path, typer.Option(help="Folder with the photos to judge, subfolders included.")],
    out: Annotated[Path, typer.Option(help="Folder for the results, new or of the same command before.")],
    checkpoint: Checkpoint = None,
    encoder: DetectorEncoder = None,
    size: Size = None,
    tile: Tile = None,
    overlap: Overlap = 0.25,
    rotations: Rotations = 1,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="From which value on, 0..1, pixels of the map are anomalous, and photos by their score: the mean of "
            "the highest 0.5 % of the map, with --tile that of the worst tile."
        ),
    ] = None,
    false_alarms: Annotated[
        float, typer.Option(help="Without --threshold: share of good photos that may be flagged.")
    ] = 0.01,
    masks: Annotated[
        Path | None, typer.Option(help="Folder with masks of some photos; the threshold is then the F1-best on these.")
    ] = None,
    maps: Annotated[str, typer.Option(help="png16, npz or none.")] = "png16",
    workers: Workers = None,
    batch: Batch = 8,
    device: Device = "auto",
    as_json: AsJson = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Throw away what OUT holds of an earlier command.")
    ] = False,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Judge with Ray: local, auto or ray://HOST:PORT. --workers are then threads of each worker.",
        ),
    ] = None,
) -> None:
    """Judge thousands of photos by a few good ones. Run it again to continue after a stop.

    Leaves results.csv, results.json, report.html, maps, overlays and masks in OUT. Ends with status 1 if photos could
    not be read.
    """
    from app.anomaly_report import write_report
    from app.cluster_predict import judging, own_device
    from app.progress import StageProgress
    from dictas.checkpoint import load_detector
    from dictas.images import text_of
    from dictas.predict import PredictOptions
    from dictas.predict import predict as run
    from encoders.devices import pick_device
    from encoders.storage import storage_errors

    options = PredictOptions(
        tile=tile,
        overlap=overlap,
        rotations=rotations,
        threshold=threshold,
        false_alarms=false_alarms,
        masks=masks,
        maps=maps,
        workers=reading_processes(workers),
        batch=batch,
        overwrite=overwrite,
    )
    quiet = contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()
    with quiet, StageProgress(lines=not as_json) as reports, storage_errors(out):
        own = pick_device(device if cluster is None else own_device(device))
        backbone, detector = load_detector(checkpoint, own, encoder=encoder, size=size)
        told = (reports("photos"), reports("threshold"))
        if cluster is None:
            prediction = run(backbone, detector, support, query, out, options, *told)
        else:
            load = partial(load_detector, checkpoint, encoder=encoder, size=size)
            with judging(cluster, device, load) as judge_all:
                prediction = run(backbone, detector, support, query, out, options, *told, judge_with=judge_all)
        write_report(out, prediction)
    results = prediction.results
    counts = results["counts"]
    if as_json:
        typer.echo(json.dumps(results, indent=2, allow_nan=False))
    else:
        for note in results["notes"]:
            typer.echo(note)
        typer.echo(
            f"{counts['anomalous']:,} of {counts['ok']:,} photos are anomalous (score from "
            f"{results['threshold']['image']:.4f} on); look at {text_of(str(out / 'report.html'))}"
        )
    if counts["unreadable"]:
        typer.echo(
            f"{counts['unreadable']:,} of {counts['images']:,} photos could not be read; {out / 'results.csv'} says "
            "which and why.",
            err=True,
        )
        raise typer.Exit(EXIT_FAULT)


anomaly_train.register(anomaly)
anomaly_eval.register(anomaly)
