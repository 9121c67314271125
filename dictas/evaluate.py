"""A detector beside the baselines on a data set: the same backbone, images and support for all, over several draws."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dictas.baselines import BASELINES
from dictas.datasets import InspectionClass, draw_support
from dictas.detector import Backbone, Detector
from dictas.examples import write_examples
from dictas.images import text_of
from dictas.stream import Judge
from dictas.summary import rate, summarise
from dictas.support import Learned, model_digest
from dictas.tiles import Tiling
from dictas.trial import BACKBONE, LONGEST_SIDE, Trial, needs_backbone, run_trial
from encoders.errors import InputError
from encoders.files import short_stem, write_json
from encoders.locks import locked_folder, sweep
from encoders.progress import Report, silent

LEFT_BEHIND = ("partial/.*.tmp.json", "examples/.*.tmp.png", ".metrics.*.tmp.*")
"""Patterns of files that were being written when a process was killed."""


@dataclass(frozen=True)
class EvaluateOptions:
    """How to evaluate.

    Attributes:
        shots: support images per draw.
        seeds: draws per class, numbered from 0; see `draw_support`.
        baselines: keys of `BASELINES`.
        rotations: copies of each support image, itself included, turned by equal angles.
        tile, overlap: see `Tiling`; None shows images whole.
        batch: images or tiles at a time.
        workers: processes that read images.
    """

    shots: int = 4
    seeds: int = 1
    baselines: tuple[str, ...] = tuple(BASELINES)
    rotations: int = 1
    tile: int | None = None
    overlap: float = 0.25
    batch: int = 8
    workers: int = 0

    def __post_init__(self) -> None:
        unknown = [name for name in self.baselines if name not in BASELINES]
        if unknown:
            raise InputError(f"There is no baseline {unknown[0]!r}; known are {', '.join(BASELINES)}.")
        for name in ("shots", "seeds", "rotations", "batch"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} is {getattr(self, name)}; give 1 or more.")
        if self.workers < 0:
            raise InputError(f"--workers is {self.workers}; give 0 or more.")

    @property
    def tiling(self) -> Tiling | None:
        """How images are cut."""
        return None if self.tile is None else Tiling(self.tile, self.overlap)


def evaluate(
    classes: Sequence[InspectionClass],
    backbone: Backbone,
    detector: Learned,
    out: Path,
    options: EvaluateOptions | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """Measure a detector and the baselines; writes ``metrics.json``, and ``examples/CLASS.png`` of the first draw.

    Each class and draw is kept in ``partial/``. After a stop, and when classes or draws are added, only those are
    computed that are missing or were computed from other images, weights or options.

    Returns:
        For the detector `summarise`'s keys; under ``baselines`` the same for each baseline; ``skipped``, the
        baselines that this encoder cannot do, and why; ``unreadable``, test images that were left out of all
        numbers; ``backbone_images_per_second`` of the backbone alone.

    Raises:
        InputError: a class has too few normal images, a support image or a mask cannot be used, or another process
            writes to ``out``.
    """
    options = options or EvaluateOptions()
    judge = Judge(backbone, detector, options.tiling, options.batch)
    # All draws first: a class with too few images is found out before hours of work, not after.
    draws = {item.name: [draw_support(item, options.shots, seed) for seed in range(options.seeds)] for item in classes}
    identity = _identity(backbone, detector, options)
    with locked_folder(out):
        sweep(out, LEFT_BEHIND)
        return _evaluate(classes, draws, judge, detector, out, options, identity, report)


def _evaluate(
    classes: Sequence[InspectionClass],
    draws: Mapping[str, Sequence[Sequence[Path]]],
    judge: Judge,
    detector: Learned,
    out: Path,
    options: EvaluateOptions,
    identity: Mapping[str, Any],
    report: Report,
) -> dict[str, Any]:
    """`evaluate`, in a folder that is locked, with the support images of each class and draw."""
    total, done = options.seeds * sum(len(item.test) for item in classes), 0
    results: dict[str, list[dict[str, Any]]] = {item.name: [] for item in classes}
    for item in classes:
        detectors: list[Detector] = []
        skipped: dict[str, str] = {}
        for seed, paths in enumerate(draws[item.name]):
            message = f"{item.name}, draw {seed + 1} of {options.seeds}"
            report(done, total, message)
            kept = out / "partial" / f"{short_stem(quote(item.name, safe=' '))}-{seed}.json"
            fingerprint = _fingerprint(identity, item, paths)
            result = _known(kept, fingerprint)
            if result is None:
                if not detectors:
                    baselines, skipped = _baselines(item, judge.backbone, options)
                    detectors = [detector, *baselines]

                def progress(count: int, before: int = done, message: str = message) -> None:
                    report(before + count, total, message)

                trial = run_trial(judge, detectors, paths, item.test, options.workers, progress, options.rotations)
                result = _measured(trial, detectors) | {"skipped": skipped}
                if seed == 0:
                    _write_examples(out / "examples" / f"{short_stem(quote(item.name, safe=' '))}.png", trial, result)
                write_json(kept, {"fingerprint": fingerprint, "result": result})
            results[item.name].append(result)
            done += len(item.test)
    report(done, total, f"{len(classes)} classes, {options.seeds} draws each")
    metrics = _combined(results, detector.name, options) | {"settings": identity}
    write_json(out / "metrics.json", metrics)
    return metrics


def _baselines(
    item: InspectionClass, backbone: Backbone, options: EvaluateOptions
) -> tuple[list[Detector], dict[str, str]]:
    """The baselines, and why some cannot be had."""
    made: list[Detector] = []
    skipped = {}
    for name in options.baselines:
        try:
            made.append(BASELINES[name](backbone, item.name.rsplit("/", 1)[-1]))
        except InputError as error:
            skipped[name] = str(error)
    return made, skipped


def _measured(trial: Trial, detectors: Sequence[Detector]) -> dict[str, Any]:
    return {
        "detectors": {detector.name: trial.measure(detector.name, needs_backbone(detector)) for detector in detectors},
        "backbone": {"images": len(trial.judged), "seconds": trial.seconds[BACKBONE]},
        "unreadable": [
            {"path": text_of(str(sample.path)), "kind": sample.kind, "error": error}
            for sample, error in trial.unreadable
        ],
    }


def _write_examples(path: Path, trial: Trial, result: Mapping[str, Any]) -> None:
    """The detector, which comes first, beside the baseline with the best average precision."""
    measured = result["detectors"]
    ours, *others = measured
    best = max(others, key=lambda name: measured[name]["pixel_ap"] or 0.0, default=None)
    shown = [ours] if best is None else [ours, best]
    write_examples(path, trial, {name: measured[name]["f1_threshold"] for name in shown})


def _combined(
    results: Mapping[str, Sequence[Mapping[str, Any]]], ours: str, options: EvaluateOptions
) -> dict[str, Any]:
    def summary(name: str) -> dict[str, Any]:
        draws = {
            item: [result["detectors"][name] for result in found if name in result["detectors"]]
            for item, found in results.items()
        }
        return summarise({item: found for item, found in draws.items() if found})

    every = [result for found in results.values() for result in found]
    skipped = {name: reason for result in every for name, reason in result["skipped"].items()}
    made = {name for result in every for name in result["detectors"]}
    unreadable = {
        entry["path"]: {"class": item} | entry
        for item, found in results.items()
        for result in found
        for entry in result["unreadable"]
    }
    return {
        "detector": ours,
        "shots": options.shots,
        "seeds": options.seeds,
        **summary(ours),
        "backbone_images_per_second": rate(result["backbone"] for result in every),
        "baselines": {name: summary(name) for name in options.baselines if name in made},
        "skipped": skipped,
        "unreadable": list(unreadable.values()),
    }


def _identity(backbone: Backbone, detector: Learned, options: EvaluateOptions) -> dict[str, Any]:
    """Everything that results depend on besides the images."""
    chosen = asdict(options)
    return {
        "version": version("dictsplat"),
        "encoder": backbone.encoder.name,
        "layers": list(backbone.layers),
        "size": backbone.size,
        "keep_aspect": backbone.keep_aspect,
        "model": model_digest(detector),
        "longest_side": LONGEST_SIDE,
        "baselines": list(options.baselines),
        **{name: chosen[name] for name in ("shots", "rotations", "tile", "overlap")},
    }


def _fingerprint(identity: Mapping[str, Any], item: InspectionClass, support: Sequence[Path]) -> str:
    files = [*support, *(path for sample in item.test for path in (sample.path, sample.mask) if path is not None)]
    stamps = [(path.name, stat.st_size, stat.st_mtime_ns) for path in files if (stat := _stat(path))]
    kinds = [sample.kind for sample in item.test]
    content = json.dumps([identity, item.name, kinds, stamps], sort_keys=True)
    return hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None  # a dangling link; whoever reads it will say so


def _known(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """The result kept in a file; None if there is none, or one of something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("fingerprint") != fingerprint:
        return None
    return content["result"]
