"""`dictsplat anomaly train`: generators for an encoder, from normal images alone."""

from pathlib import Path
from typing import Annotated, Any

import typer

from app.options import Device, reading_processes


def register(anomaly: typer.Typer) -> None:
    """Add the command to `dictsplat anomaly`."""
    anomaly.command(
        epilog="Example: dictsplat anomaly train --encoder openclip:ViT-L-14-336:openai --images photos/ --out out/vitl"
    )(train)


def train(
    out: Annotated[Path, typer.Option(help="Folder for detector.safetensors, new or of the same command before.")],
    images: Annotated[
        Path | None, typer.Option(help="Photos without defects, of anything. Default: images drawn by the program.")
    ] = None,
    textures: Annotated[
        Path | None, typer.Option(help="Textures that defects are made of, such as DTD. Default: drawn ones.")
    ] = None,
    encoder: Annotated[str, typer.Option(help="embedded, or openclip:MODEL[:PRETRAINED_OR_PATH].")] = "embedded",
    preset: Annotated[str, typer.Option(help="default, or paper (DictAS as published; needs --images).")] = "default",
    layers: Annotated[
        str | None, typer.Option(help="Layers of the encoder, separated by commas. Default: four over its depth.")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Photos will be shown with about SIZE x SIZE pixels.")] = None,
    projection: Annotated[str, typer.Option(help="sparsemax, softmax, top-k, entmax15 or max.")] = "sparsemax",
    steps: Annotated[int | None, typer.Option(help="Optimisation steps. Default: the preset's.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that make images. Default: half the cores, at most 4.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    device: Device = "auto",
) -> None:
    """Teach a detector what defects look like on things that have none. Run it again to continue after a stop.

    Leaves detector.safetensors in OUT, for predict and eval --checkpoint.
    """
    from dataclasses import replace

    import encoders
    from app.progress import StageProgress
    from dictas.checkpoint import make_backbone
    from dictas.episodes import ONE_IN, material
    from dictas.fit import fit
    from dictas.lookup import PROJECTIONS
    from dictas.presets import fit_config, model_config
    from encoders.devices import pick_device
    from encoders.errors import InputError
    from encoders.state_prompts import state_vectors
    from encoders.storage import storage_errors

    if preset not in ("default", "paper"):
        raise InputError(f"There is no preset {preset!r}; known are default and paper.")
    if projection not in PROJECTIONS:
        raise InputError(f"There is no projection {projection!r}; known are {', '.join(PROJECTIONS)}.")
    if steps is not None and steps < 1:
        raise InputError(f"--steps {steps} trains nothing; give at least 1.")
    for name, number in (("workers", workers or 0), ("seed", seed)):
        if number < 0:
            raise InputError(f"--{name} is {number}; give 0 or more.")
    chosen: Any = preset
    device = pick_device(device)
    with StageProgress() as reports, storage_errors(out):
        loaded = encoders.create(encoder, device)
        model = replace(model_config(loaded, chosen, _numbers(layers), size), projection=projection)
        config = replace(fit_config(loaded, chosen, images), seed=seed)
        if steps is not None:
            config = replace(config, steps=steps, validate_every=max(1, min(config.validate_every, steps // 8)))
        given = material(images, textures)
        texts = state_vectors(loaded) if hasattr(loaded, "encode_text") else None
        progress = fit(
            make_backbone(loaded, model),
            model,
            given,
            config,
            out,
            texts,
            reading_processes(workers),
            device,
            reports("train"),
        )
    judged = "defects and photos" if given.validation is not None else "defects"
    if images is not None and given.validation is None:
        typer.echo(f"With fewer than {ONE_IN} photos none was kept for validation, which used those trained on.")
    typer.echo(
        f"Validation: {progress.best:.3f} average precision on {judged} it was not trained on; "
        f"use it with --checkpoint {out / 'detector.safetensors'}"
    )


def _numbers(text: str | None) -> tuple[int, ...] | None:
    from encoders.errors import InputError

    if text is None:
        return None
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise InputError(f"--layers {text!r} is not a list of numbers such as 6,12,18,24.") from None
