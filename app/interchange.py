"""`dictsplat import` and `dictsplat export`: scenes from other programs, and for them."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from app.options import RunArgument

Form = Literal["gaussians", "langsplat-v2", "langsplat-features"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("import", epilog="Example: dictsplat import teatime_0_1 teatime_0_2 teatime_0_3 --out out/teatime")(
        import_
    )
    app.command(epilog="Example: dictsplat export out/demo demo.spz")(export)


def import_(
    checkpoints: Annotated[
        list[Path],
        typer.Argument(
            metavar="CHECKPOINT...",
            help="chkpnt*.pth of LangSplatV2, or the model folders that hold them: subpart, part, whole.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Run folder to make.")],
    encoder: Annotated[
        str, typer.Option(help="What the features were made with: openclip:MODEL[:PRETRAINED_OR_PATH], or embedded.")
    ] = "openclip:ViT-B-16:laion2b_s34b_b88k",
    nonzeros: Annotated[int, typer.Option(help="Atoms per Gaussian and level: --topk of the training.")] = 4,
    scene: Annotated[
        Path | None,
        typer.Option(help="The photos it was trained on, to score against. Default: cameras.json of the first folder."),
    ] = None,
    scale: Annotated[float | None, typer.Option(help="Shrink photos by it first. Default: as in train.")] = None,
    hold_out: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Every N-th view was held out of its training: 8 if it had --eval. Default: none was.",
        ),
    ] = 0,
    device: Annotated[str, typer.Option(help="Of the encoder: auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Make a run folder of a scene that LangSplatV2 trained; it can then be asked, shown, cut and scored."""
    import encoders
    from app.progress import StageProgress
    from encoders.devices import pick_device
    from splat.interchange.imported import import_langsplat_v2

    with StageProgress() as reports:
        model = encoders.create(encoder, device=pick_device(device))
        import_langsplat_v2(checkpoints, out, model, nonzeros, scene, scale, hold_out, reports("import"))
    typer.echo(f'Ask it: dictsplat query {out} "cup"')


def export(
    run: RunArgument,
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="FILE.ply, FILE.compressed.ply, FILE.spz or FILE.splat; for the other forms the name of folders.",
        ),
    ],
    form: Annotated[
        Form,
        typer.Option(
            "--as",
            help="gaussians; langsplat-v2: checkpoints in OUT_1, OUT_2 and OUT_3; langsplat-features: "
            "*_s.npy and *_f.npy of the training views in OUT, and the pictures that they fit in OUT/images.",
        ),
    ] = "gaussians",
) -> None:
    """Write a run for other programs."""
    from app.progress import StageProgress
    from encoders.storage import storage_errors
    from splat.gaussians import load_ply
    from splat.interchange.exported import export_features, export_langsplat_v2
    from splat.interchange.gaussian_files import write_gaussians
    from splat.run import Run

    with StageProgress() as reports, storage_errors(out):
        report = reports("export")
        if form == "langsplat-v2":
            export_langsplat_v2(run, out, report)
        elif form == "langsplat-features":
            export_features(run, out, report)
        else:
            opened = Run.open(run)
            opened.require("rgb")
            gaussians = load_ply(opened.gaussians_path)
            written = write_gaussians(out, gaussians)
            count, all_ = f"{written.count:,}", f"{len(gaussians):,}"
            count = count if count == all_ else f"{count} of {all_}"
            report(1, 1, f"{count} Gaussians in {out}" + (f"; {written.note}" if written.note else ""))
