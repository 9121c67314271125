"""Runs of the published sets as `published_scores.py` finds them: their scores, and what made these."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from encoders.errors import InputError
from encoders.files import parse_json
from splat.run import RunRecord, read_record
from splat.train_config import TrainConfig

LABELS = ("labels", "segmentations")
"""Folders of a scene that hold what is where (data_scripts/README.md)."""


@dataclass
class Ours:
    """The runs of one set.

    Attributes:
        scores: percent, by metric and scene.
        made: by option and scene, what the run was made with.
    """

    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    made: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, scene: str, scores: Mapping[str, float], made: Mapping[str, str]) -> None:
        """Take in a run."""
        for key, score in scores.items():
            self.scores.setdefault(key, {})[scene] = score
        for option, value in made.items():
            self.made.setdefault(option, {})[scene] = value

    def description(self) -> str:
        """What ours are, in a sentence; options that are not the same in all scenes say of which they are."""
        if not self.made:
            return "Ours: no scored runs."
        return f"Ours: {', '.join(_option(name, by_scene) for name, by_scene in self.made.items())}."


def _option(name: str, by_scene: Mapping[str, str]) -> str:
    values = list(dict.fromkeys(by_scene.values()))
    if len(values) == 1:
        return f"{name} {values[0]}"
    scenes = {value: ", ".join(scene for scene, its in by_scene.items() if its == value) for value in values}
    return f"{name} " + " and ".join(f"{value} ({scenes[value]})" for value in values)


def read_run(folder: Path, keys: Iterable[str]) -> tuple[dict[str, float], dict[str, str]]:
    """Scores of a run in percent, as far as it has some of ``keys``, and by option what made them.

    Raises:
        InputError: `metrics.json` or `run.json` cannot be used, or no answer was scored.
    """
    path = folder / "metrics.json"
    metrics = _metrics(path)
    scores = {key: 100 * _share(metrics[key], key, path) for key in keys if key in metrics}
    record = read_record(folder / "run.json")
    if record is None:
        raise InputError(f"{path} lies beside no run.json that says what made it; put the whole run into {folder}.")
    config = TrainConfig.from_json(record.config, folder / "run.json")
    if not scores:
        labels = find_labels(config.scene)
        if labels is None:
            raise InputError(
                f"{path} has no scores of answers and {config.scene} no labels; score it with: "
                f"dictsplat eval {folder} --labels DIR"
            )
        raise InputError(
            f"{path} has no scores of answers, although {labels} has labels; "
            f"find out why with: dictsplat eval {folder} --labels {labels}"
        )
    return scores, _made(record, config) | {"protocol": str(metrics.get("protocol", "unknown"))}


def find_labels(scene: Path) -> Path | None:
    """The folder of labels that belongs to a scene; None if there is none."""
    root = scene if scene.is_dir() else scene.parent
    return next((root / name for name in LABELS if (root / name).is_dir()), None)


def _metrics(path: Path) -> dict[str, Any]:
    try:
        metrics = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); run dictsplat eval {path.parent}.") from error
    if not isinstance(metrics, dict):
        raise InputError(f"{path} holds no table of scores; run dictsplat eval {path.parent}.")
    return metrics


def _share(value: Any, key: str, path: Path) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and 0 <= value <= 1):  # nor is NaN
        raise InputError(
            f"{path} says {str(value)[:40]!r} for {key}, which should be from 0 to 1; run dictsplat eval {path.parent}."
        )
    return float(value)


def _made(record: RunRecord, config: TrainConfig) -> dict[str, str]:
    """By option, what a run was made with: what its stages record where they do, else what was asked for."""
    inputs: dict[str, Mapping[str, Any]] = {name: stage.inputs for name, stage in record.stages.items()}
    language, features, rgb = (inputs.get(name, {}) for name in ("language", "features", "rgb"))
    imported = "imported" in language
    return {
        "encoder": config.encoder,
        "regions": str(features.get("regions", "unknown" if imported else config.regions)),
        "solver": "of LangSplatV2 (imported)" if imported else str(language.get("solver", config.solver)),
        "preset": "none (Gaussians from elsewhere)" if "digest" in rgb else config.preset,
        "scale": "unknown" if config.scale is None else f"{config.scale:.4g}",
        "hold-out": "not chosen" if config.hold_out is None else str(config.hold_out),
    }


def read_runs(
    runs: Path, scenes: Sequence[str], keys: Sequence[str], left_out: Iterable[str] = ()
) -> tuple[Ours, dict[str, Exception]]:
    """All runs of a set, and for each that cannot be used why.

    Args:
        runs: has a run folder for each of ``scenes`` that was trained.
        left_out: scenes that are not looked at.
    """
    ours = Ours()
    wrong: dict[str, Exception] = {}
    for scene in scenes:
        if scene in left_out or not (runs / scene / "metrics.json").exists():
            continue
        try:
            ours.add(scene, *read_run(runs / scene, keys))
        except Exception as error:
            wrong[scene] = error
    return ours, wrong
