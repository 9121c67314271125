"""The command line. Commands are declared here and done elsewhere; heavy imports wait until one is run."""

import contextlib
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.anomaly import anomaly
from app.exits import guarded
from app.interchange import register as register_interchange

if TYPE_CHECKING:
    from app.progress import StageProgress

app = typer.Typer(
    name="dictsplat",
    help="Ask 3D scenes made of photos for things by name; find what is wrong with parts by a few good ones.",
    epilog="Start with: dictsplat demo",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(anomaly)

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder made by train or demo.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
Negatives = Annotated[
    list[str] | None,
    typer.Option("--negative", help="Phrase to be likelier than; repeat for several. Default: LERF's four."),
]
Level = Annotated[int | None, typer.Option(help="0 subpart, 1 part, 2 whole; chosen by itself if left out.")]
Threshold = Annotated[float | None, typer.Option(help="How relevant a selected pixel is, 0..1. Default: 0.4.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dictsplat {version('dictsplat')}")
        raise typer.Exit


@app.callback()
def _options(
    _debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Ask 3D scenes made of photos for things by name; find what is wrong with parts by a few good ones."""


@app.command(epilog="Example: dictsplat demo --out out/demo")
def demo(
    out: Annotated[Path, typer.Option(help="Run folder to make.")] = Path("out/demo"),
    device: Device = "auto",
) -> None:
    """Make a small scene with known answers, train on it, ask it seven things and score the answers.

    Leaves a run folder with metrics.json and report.html.
    """
    from app.demo import run_demo

    with _progress() as reports:
        metrics = run_demo(out, reports, device)
    _print_metrics(metrics)
    typer.echo(f'Look at {out / "report.html"}, or ask: dictsplat query {out} "cat" --out {out / "cat"}')


@app.command(epilog="Example: dictsplat train photos/ --out out/kitchen --preset fast")
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
    dictionary: Annotated[str | None, typer.Option(help="Starts from kmeans or online. Default: by --solver.")] = None,
    device: Device = "auto",
    scale: Annotated[
        float | None,
        typer.Option(help="Shrink photos by it first. Default: 1, 1/2, 1/4, ... for about 1000 pixels."),
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
        "seed": seed,
        "gaussians": gaussians,
        "features": features,
    }
    given = {key: value for key, value in given.items() if value is not None}
    if scenes is not None:
        _train_scenes(scenes, given, out, resume, cluster, device)
        return
    from app.score import score
    from encoders.errors import InputError
    from splat.pipeline import train as run_training

    if cluster is not None:
        raise InputError("--cluster trains many scenes; list them in a file and give that as --scenes.")
    config = _train_config(given, out, resume, device)
    with _progress() as reports:
        metrics = run_training(out, config, reports, score)
    _print_metrics(metrics)


def _train_scenes(file: Path, given: dict[str, Any], out: Path, resume: bool, cluster: str | None, device: str) -> None:
    from app.cluster_list import check_options, status, train_scenes

    check_options(given.pop("scene", None), resume, given)
    count, failures = train_scenes(file, out, given, cluster, device)
    typer.echo(f"{count - len(failures):,} of {count:,} scenes are trained; they are in {out}")
    for failed in failures:
        typer.echo(" ".join(f"{failed.name} ({failed.stage}): {failed.sentence}".split()), err=True)
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


@app.command(epilog='Example: dictsplat query out/demo "cat" "rocket" --out answers')
def query(
    run: RunArgument,
    phrases: Annotated[list[str], typer.Argument(metavar="TEXT...", help="What to look for.")],
    view: Annotated[
        str | None,
        typer.Option(help="Name of a view of the run. Default: the held-out view where it stands out most."),
    ] = None,
    camera: Annotated[Path | None, typer.Option(help="A file like cameras.json with one camera to look from.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write overlay.png, relevancy.png, mask.png and query.json here, or a folder for each text."),
    ] = None,
    negative: Negatives = None,
    level: Level = None,
    threshold: Threshold = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Ask a trained scene for things by name: which pixels, which point, how sure."""
    from app.ask import Question
    from app.ask import query as ask

    question = Question(tuple(phrases), view, camera, tuple(negative or ()), level, threshold, device)
    with _stdout_to_stderr(as_json):
        answer = ask(run, question, out)
    if as_json:
        typer.echo(json.dumps(answer, indent=2, allow_nan=False))
        return
    from app.tables import print_answers

    print_answers(answer)


@app.command(epilog='Example: dictsplat select out/demo "cat" --out cat.ply')
def select(
    run: RunArgument,
    phrase: Annotated[str, typer.Argument(metavar="TEXT", help="What to select.")],
    out: Annotated[Path, typer.Option(help="3DGS PLY to write.")],
    invert: Annotated[bool, typer.Option("--invert", help="Write the scene without the object.")] = False,
    negative: Negatives = None,
    level: Level = None,
    threshold: Threshold = None,
    device: Device = "auto",
) -> None:
    """Cut an object out of the scene, or remove it, as a PLY that other viewers open."""
    from app.ask import select as cut

    result = cut(run, phrase, out, invert, negative or (), level, threshold, device)
    typer.echo(
        f"{result['selected']:,} of {result['total']:,} Gaussians answer to {phrase!r}; "
        f"wrote {result['written']:,} to {out}"
    )


@app.command("eval", epilog="Example: dictsplat eval out/demo --labels labels/")
def evaluate(
    run: RunArgument,
    labels: Annotated[
        Path | None, typer.Option(help="Folder with a LERF or labelme JSON per view. Default: SCENE/labels.")
    ] = None,
    scene: Annotated[Path | None, typer.Option(help="Where the photos are now, if they moved.")] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Score a run on its held-out views, and its answers where there are labels; writes metrics.json."""
    from app.score import evaluate as score_again

    with _progress(not as_json) as reports, _stdout_to_stderr(as_json):
        metrics = score_again(run, reports, scene, labels, device)
    if as_json:
        typer.echo(json.dumps(metrics, indent=2, allow_nan=False))
    else:
        _print_metrics(metrics)


register_interchange(app)


@app.command(epilog="Example: dictsplat view out/demo")
def view(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUN...]", help="Run folders to show; more can be made on the page.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="TCP port; default GRADIO_SERVER_PORT or from 7860 on.")] = None,
    root: Annotated[Path, typer.Option(help="Where runs made on the page go.")] = Path("out"),
    auth: Annotated[
        str | None, typer.Option(metavar="USER:PASSWORD", help="Ask visitors for it. Default: nobody is asked.")
    ] = None,
    share: Annotated[
        bool,
        typer.Option(
            "--share", help="Also open a public address through Gradio's servers; takes --auth. Default: off."
        ),
    ] = False,
    host_name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Host by which a proxy makes the app known, such as lab.example.org; repeat for several. "
            "Default: only this machine's own names are answered to.",
        ),
    ] = None,
    device: Device = "auto",
) -> None:
    """Ask scenes for things, make new ones and look for defects in a browser, on this machine only."""
    from app.viewer import Address, serve

    serve(runs or [], Address(port, auth, share, tuple(host_name or ())), device, root)


@app.command(epilog="Example: dictsplat bench --json bench.json")
def bench(
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the numbers here.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Also write the table here.")] = None,
    device: Device = "auto",
) -> None:
    """Measure the speed of splatting, queries and anomaly maps on this machine, beside other ways."""
    from app.bench import bench as run_bench

    with _progress() as reports:
        run_bench(json_file, markdown, device, reports("bench"), reports("anomaly"))


@app.command(epilog="Example: dictsplat doctor")
def doctor() -> None:
    """Show what this machine has: native code, CUDA, encoders and their weights."""
    from rich.console import Console

    from app.doctor import examine, print_findings
    from encoders.errors import InputError

    if not print_findings(examine(), Console()):
        raise InputError("Something that dictsplat needs is broken; see the lines marked above.")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 well, 1 a fault of ours, 2 bad input, 130 interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # Accepted before and after the command's name, where people add it to a line that just failed.
    debug = "--debug" in arguments
    plain = [argument for argument in arguments if argument != "--debug"]
    sys.exit(guarded(lambda: app(args=plain, prog_name="dictsplat"), debug))


def _stdout_to_stderr(wanted: bool) -> contextlib.AbstractContextManager[Any]:
    """Whatever libraries print meanwhile, stdout is for the JSON that follows."""
    return contextlib.redirect_stdout(sys.stderr) if wanted else contextlib.nullcontext()


def _progress(lines: bool = True) -> "StageProgress":
    from app.progress import StageProgress

    return StageProgress(lines)


def _print_metrics(metrics: dict[str, Any]) -> None:
    from app.tables import print_metrics

    print_metrics(metrics)
