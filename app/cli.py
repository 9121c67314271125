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
from app.options import AsJson, Device, RunArgument
from app.train import register as register_train

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


register_train(app)


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
        Path | None,
        typer.Option(
            help="Folder with a LERF or labelme JSON per view, or 3D-OVS' segmentations. "
            "Default: SCENE/labels or SCENE/segmentations."
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="How labels are scored: lerf, 3d-ovs or mipnerf360. Default: 3d-ovs if they have a classes.txt, "
            "else what their protocol.txt says, else lerf."
        ),
    ] = None,
    scene: Annotated[Path | None, typer.Option(help="Where the photos are now, if they moved.")] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Score a run on its held-out views, and its answers where there are labels; writes metrics.json."""
    from app.score import evaluate as score_again

    with _progress(not as_json) as reports, _stdout_to_stderr(as_json):
        metrics = score_again(run, reports, scene, labels, device, protocol)
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
    """Run the command line and exit: 0 well, 1 a fault of ours, 2 bad input, 130 interrupted, 143 ended by SIGTERM."""
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
