"""Whether a run folder holds the training that is asked for now. A run holds one; any other is refused."""

from collections.abc import Mapping
from typing import Any

from encoders.errors import InputError
from splat.features import FeatureStore
from splat.run import Run, StageRecord, file_digest
from splat.train_config import TrainConfig

WITHOUT_PHOTOS = "imported from "
"""How the fingerprint of runs begins that were imported without their photos."""

_EARLIER = {
    "rgb": {"strategy": "default"},
    "features": {},
    "language": {"coding": "nonnegative", "dictionary": "kmeans"},
}
"""Inputs of stages that older runs do not record, and what they were."""

_UNIMPORTANT = {"device", "stages", "scene", "scale", "hold_out"}
"""Options that an imported run does not depend on, or that its fingerprint stands for."""


def had(name: str, stage: StageRecord) -> dict[str, Any]:
    """The inputs of a stage, with those that older runs do not record."""
    return _EARLIER[name] | stage.inputs


def refuse_without_photos(run: Run) -> None:
    """Raise `InputError` if the run was imported without photos: there is nothing to train or to score it with."""
    if run.record is not None and run.record.dataset.startswith(WITHOUT_PHOTOS):
        raise InputError(
            f"{run.folder} was imported without its photos, so there is nothing to train; it can be asked as it "
            "is, and import --scene makes one that can be scored."
        )


def refuse_other(
    run: Run, config: TrainConfig, scale: float, fingerprint: str, inputs: Mapping[str, Mapping[str, Any]]
) -> None:
    """Check that what is asked for continues what the run holds; options that only steer the language stage may change.

    Args:
        scale: of the photos.
        fingerprint: of the scene.
        inputs: of the stages ``rgb`` and ``features``, as they are asked for.

    Raises:
        InputError: the run was made of other photos or with other options, or it was imported.
    """
    record = run.record
    if record is None:
        return
    other = TrainConfig.from_json(record.config, run.record_path)
    if record.dataset != fingerprint:
        if other.hold_out != config.hold_out and other.scale == scale:
            raise InputError(
                f"{run.folder} was trained with {_held_out(other.hold_out)} and you ask for "
                f"{_held_out(config.hold_out)}; choose another --out, or add --resume to keep its options."
            )
        raise InputError(
            f"{run.folder} was trained on other photos, cameras or another --scale "
            f"({other.scene}, scale {other.scale}); choose another --out."
        )
    if run.imported is not None:
        _refuse_to_replace(run, config, other)
    for name in ("rgb", "features"):
        stage = run.stage(name)
        if stage is None or name not in config.stages or "digest" in stage.inputs:
            continue
        if name == "features" and stage.status == "running" and FeatureStore(run.features_path).empty:
            continue  # started with an encoder that never got to a view
        wanted, present = inputs[name], had(name, stage)
        changed = [key for key in wanted if present.get(key) != wanted[key]]
        if changed == ["features"]:
            raise InputError(
                f"{run.folder} was made with other features than {config.features} holds now; choose another --out."
            )
        changed = [key for key in changed if key != "features"]  # a hash, which would tell nobody anything
        if changed:
            was = ", ".join(f"--{key} {present.get(key)}" for key in changed)
            now = ", ".join(f"--{key} {wanted[key]}" for key in changed)
            raise InputError(
                f"{run.folder} was trained with {was} and you ask for {now}; "
                "choose another --out, or add --resume to keep its options."
            )


def _refuse_to_replace(run: Run, config: TrainConfig, other: TrainConfig) -> None:
    """An imported field cannot be made again here, so nothing may replace it or the Gaussians that it belongs to."""
    asked = vars(config)
    changed = [key for key, value in vars(other).items() if key not in _UNIMPORTANT and asked[key] != value]
    if changed:
        raise InputError(
            f"{run.folder} was imported with --{changed[0]} {getattr(other, changed[0])} and you ask for "
            f"{asked[changed[0]]}; to train a language field, choose another --out and give --gaussians "
            f"{run.gaussians_path}."
        )
    run.require("rgb", "language")
    stage = run.finished("language")
    if file_digest(run.gaussians_path) != stage.inputs.get("gaussians"):
        raise InputError(
            f"{run.gaussians_path} holds other Gaussians than were imported with {run.language_path}; restore it, or "
            f"give it as --gaussians to a training with another --out."
        )


def _held_out(hold_out: int | None) -> str:
    return "no --hold-out" if hold_out is None else f"--hold-out {hold_out}"
