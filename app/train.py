"""`dictsplat train`: one scene, or many."""

from pathlib import Path
from typing import Annotated, Any

import typer

from app.options import Device


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: dictsplat train photos/ --out out/kitchen --preset fast")(train)


def train(
    scene: Annotated[
        Path | None,
        typer.Argument(help="Folder of photos, COLMAP folder, folder with transforms.json, or a video."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Run folder to make or to continue.")] = ...,  # type: ignore[assignment]
    preset: Annotated[str | None, typer.Option(help="fast (minutes on a CPU), default or paper.")] = None,
    stages: Annotated[
        str | None, typer.Option(help="Some of rgb,features,language, separated by commas. Default: all.")
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(help="default (3DGS) or mcmc (3DGS-MCMC, needs a GPU): how Gaussians are added and removed."),
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="embedded, or openclip:MODEL[:PRETRAINED_OR_PATH].")] = None,
    regions: Annotated[str | None, typer.Option(help="embedded, or sam:TYPE:PATH.")] = None,
    solver: Annotated[str | None, typer.Option(help="lift (closed form) or sgd (the paper's).")] = None,
    atoms: Annotated[int | None, typer.Option(help="Dictionary size per level. Default: 64.")] = None,
    nonzeros: Annotated[int | None, typer.Option(help="Atoms per Gaussian and level. Default: 4.")] = None,
    coding: Annotated[str | None, typer.Option(help="nonnegative, signed or abs-topk. Default: nonnegative.")] = None,
    dictionary: Annotated[str | None, typer.Option(help="Starts from kmeans or online. Default: kmeans.")] = None,
    device: Device = "auto",
    scale: Annotated[
        float | None,
        typer.Option(help="Shrink photos by it first. Default: 1, 1/2, 1/4, ... for about 1000 pixels."),
    ] = None,
    hold_out: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Keep every N-th view out of the training, to score pictures of it; 0: train on all. Default: the "
            "scene's own lists of views, or 8.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random. Default: 0.")] = None,
    gaussians: Annotated[
        Path | None,
        typer.Option(help="Gaussians of this scene trained elsewhere (.ply, .spz, .splat), instead of the rgb stage."),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(help="LangSplat's *_s.npy and *_f.npy of these photos, of --encoder, instead of that stage."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue RUN with the options (and SCENE) it was started with."),
    ] = False,
    scenes: Annotated[
        Path | None,
        typer.Option(
            metavar="LIST",
            help="Many scenes: a text file with the path of one on each line, and a name behind a tab; --out is then "
            "the folder for their runs.",
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Train --scenes with Ray: local, auto or ray://HOST:PORT."),
    ] = None,
) -> None:
    """Train a scene: photos → 3D Gaussians → language field. Run it again to continue after a stop.

    Leaves gaussians.ply, language.safetensors, cameras.json, metrics.json and report.html in RUN.
    """
    given: dict[str, Any] = {
        "scene": scene,
        "preset": preset,
        "strategy": strategy,
        "stages": None if stages is None else tuple(name.strip() for name in stages.split(",") if name.strip()),
        "encoder": encoder,
        "regions": regions,
        "solver": solver,
        "atoms": atoms,
        "nonzeros": nonzeros,
        "coding": coding,
        "dictionary": dictionary,
        "scale": scale,
        "hold_out": hold_out,
        "seed": seed,
        "gaussians": gaussians,
        "features": features,
    }
    given = {key: value for key, value in given.items() if value is not None}
    if scenes is not None:
        _train_scenes(scenes, given, out, resume, cluster, device)
        return
    from app.progress import StageProgress
    from app.score import score
    from app.tables import print_metrics
    from encoders.errors import InputError
    from splat.pipeline import train as run_training

    if cluster is not None:
        raise InputError("--cluster trains many scenes; list them in a file and give that as --scenes.")
    config = _train_config(given, out, resume, device)
    with StageProgress() as reports:
        metrics = run_training(out, config, reports, score)
    print_metrics(metrics)


def _train_scenes(file: Path, given: dict[str, Any], out: Path, resume: bool, cluster: str | None, device: str) -> None:
    from app.cluster_list import Failure, check_options, status, train_scenes

    def tell(failed: Failure) -> None:
        typer.echo(" ".join(f"{failed.name} ({failed.stage}): {failed.sentence}".split()), err=True)

    check_options(given.pop("scene", None), resume, given)
    count, failures = train_scenes(file, out, given, cluster, device, tell)
    typer.echo(f"{count - len(failures):,} of {count:,} scenes are trained; they are in {out}")
    if failures:
        raise typer.Exit(status(failures))


def _train_config(given: dict[str, Any], out: Path, resume: bool, device: str) -> Any:
    from encoders.errors import InputError
    from splat.run import Run
    from splat.train_config import TrainConfig

    given["device"] = device
    if resume:
        run = Run.open(out)
        assert run.record is not None
        recorded = TrainConfig.from_json(run.record.config, run.record_path)
        # All stages, whatever part of them was asked for last time.
        return TrainConfig(**{**vars(recorded), "stages": TrainConfig.stages, **given})
    if "scene" not in given:
        raise InputError("There is no scene to train on; give a folder of photos, or --resume to continue RUN.")
    return TrainConfig(**given)
