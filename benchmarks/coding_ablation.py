"""Which codes and dictionaries are best: error, answers, size and time of each, on a run with labels.

    python benchmarks/coding_ablation.py RUN [--scene SCENE] [--seeds 3] [--views 0] [--markdown FILE] [--json FILE]

RUN is a run folder with its rgb and features stages done, such as that of `dictsplat demo`; SCENE is where its photos
and labels are, if they moved. Fits the language field again in every way, as `dictsplat train` does, and prints:

- error: mean 1 - cos between splatted features and the regions' embeddings, over the training views' pixels and levels;
- mIoU and located: answers to the labelled queries of held-out views; mean over the seeds, and the lowest and highest;
- size: of language.safetensors;
- query: median time of one phrase in a view, of all ways in turn, and what multiple of the first way's that is.

A second table has each phrase's IoU, the mean over the seeds.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

import encoders
from app.bench_clock import Lap, Work, interleaved, median_frame
from app.exits import guarded
from encoders.errors import InputError
from encoders.files import atomic_path, write_json
from splat.codes import LanguageField
from splat.coding import CODINGS, Coding
from splat.evaluate import evaluate_language
from splat.features import FeatureStore
from splat.fit_language import LanguageConfig, fit_language
from splat.gaussians import load_ply
from splat.query import query_view
from splat.run import Run
from splat.scene import load_cameras
from splat.train_config import TrainConfig

DICTIONARIES: tuple[Literal["kmeans", "online"], ...] = ("kmeans", "online")
PHRASE = "cat"


@dataclass(frozen=True)
class Row:
    """What one way is worth.

    Attributes:
        coding, dictionary: the way. solver: "lift" or "sgd".
        error: 0..2, mean over the seeds. mious: 0..1, of each seed. located: 0..1, mean.
        bytes: of the file. seconds: of a fit.
        ious: 0..1, of each phrase, mean over held-out views and seeds.
        milliseconds: of a query. query: multiple of the first row's time.
    """

    coding: Coding
    dictionary: str
    solver: str
    error: float
    mious: tuple[float, ...]
    located: float
    bytes: int
    seconds: float
    ious: dict[str, float]
    milliseconds: float = 0.0
    query: float = 1.0

    @property
    def miou(self) -> float:
        """Mean over the seeds."""
        return float(np.mean(self.mious))


def ways(sgd_iterations: int) -> list[LanguageConfig]:
    """Every coding with every dictionary; the paper's solver last, if it is given steps."""
    found = [LanguageConfig(coding=coding, dictionary=start) for coding in CODINGS for start in DICTIONARIES]
    return found + ([LanguageConfig(solver="sgd", iterations=sgd_iterations)] if sgd_iterations else [])


def measure(
    run: Run, scene: Path, views: int, configs: Sequence[LanguageConfig], seeds: int, rounds: int = 5
) -> list[Row]:
    """Fit and score in every way.

    Args:
        scene: with labels. views: training views to fit to; 0 for all.
        seeds: how often each way is fitted. rounds: of the timing.

    Raises:
        InputError: the run has no features, or the scene no labels.
    """
    run.require("rgb", "features")
    gaussians, store = load_ply(run.gaussians_path), FeatureStore(run.features_path)
    cameras, held_out = load_cameras(run.cameras_path)
    train = [camera for camera in cameras if camera.name not in set(held_out) and store.has(camera.name)]
    train = train[:: max(1, -(-len(train) // views))] if views else train
    tests = [camera for camera in cameras if camera.name in set(held_out)]
    if not (scene / "labels").is_dir():
        raise InputError(f"{scene} has no labels; say with --scene where the photos and labels are.")
    encoder = encoders.create(store.encoder)
    rows, fields = [], []
    for config in configs:
        found, answers = [], []
        for seed in range(seeds):
            say(f"{config.solver}, {config.coding}, {config.start}, seed {seed}")
            field, stats = fit_language(gaussians, train, store, replace(config, seed=seed))
            scores = evaluate_language(gaussians, field, tests, scene / "labels", encoder)
            found.append((stats["loss"], scores["miou"], scores["localization_accuracy"], stats["seconds"]))
            answers.append({one["query"]: float(one["iou"]) for one in scores["per_query"]})
            say(f"error {stats['loss']:.4f}, mIoU {scores['miou']:.3f}, {stats['seconds']:.0f} s")
        errors, mious, located, seconds = (tuple(map(float, column)) for column in zip(*found, strict=True))
        ious = {phrase: _mean([one[phrase] for one in answers]) for phrase in answers[0]}
        way = (config.coding, config.start, config.solver)
        rows.append(Row(*way, _mean(errors), mious, _mean(located), size(field), _mean(seconds), ious))
        fields.append(field)

    def asking(field: LanguageField) -> Work:
        def work(lap: Lap) -> None:
            query_view(gaussians, field, tests[0], [PHRASE], encoder)
            lap("query")

        return work

    frames = interleaved({str(number): asking(field) for number, field in enumerate(fields)}, rounds)
    times = [median_frame(stages)["query"] for stages in frames.values()]
    return [replace(row, milliseconds=time, query=time / times[0]) for row, time in zip(rows, times, strict=True)]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def size(field: LanguageField) -> int:
    """Bytes of its file."""
    with tempfile.TemporaryDirectory() as folder:
        field.save(Path(folder) / "language.safetensors")
        return (Path(folder) / "language.safetensors").stat().st_size


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table, the best of each column in bold, and the phrases as another."""
    lowest, most = min(row.error for row in rows), max(row.miou for row in rows)
    lines = [
        "| codes | dictionary | solver | error | mIoU | located | size | query | fit |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        error, miou = f"{row.error:.4f}", f"{row.miou:.3f}"
        spread = f" ({min(row.mious):.3f} to {max(row.mious):.3f})" if len(row.mious) > 1 else ""
        error = f"**{error}**" if row.error == lowest else error
        miou = f"**{miou}**" if row.miou == most else miou
        cells = [
            row.coding, row.dictionary, row.solver, error, miou + spread, f"{row.located:.0%}",
            f"{row.bytes / 2**20:.2f} MiB", f"{row.milliseconds:.0f} ms, {row.query:.2f} ×", f"{row.seconds:.0f} s",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    phrases = list(rows[0].ious)
    lines += ["", f"| IoU | {' | '.join(phrases)} |", "|---|" + "--:|" * len(phrases)]
    for row in rows:
        way = f"{row.coding}, {row.dictionary}, {row.solver}"
        lines.append(f"| {way} | {' | '.join(f'{row.ious[phrase]:.2f}' for phrase in phrases)} |")
    return "\n".join(lines) + "\n"


def say(text: str) -> None:
    """Progress, which does not belong to the table."""
    sys.stderr.write(text + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--scene", type=Path, help="where the photos and labels are now")
    parser.add_argument("--seeds", type=int, default=1, help="how often each way is fitted (default 1)")
    parser.add_argument("--views", type=int, default=0, help="training views to fit to (default: all)")
    parser.add_argument("--sgd", type=int, default=0, metavar="STEPS", help="also the paper's solver (default: not)")
    parser.add_argument("--markdown", type=Path, help="also write the table here")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    given = parser.parse_args(arguments)

    def work() -> None:
        run = Run.open(given.run)
        assert run.record is not None
        scene = given.scene or TrainConfig.from_json(run.record.config, run.record_path).scene
        rows = measure(run, scene, given.views, ways(given.sgd), max(1, given.seeds))
        text = markdown(rows)
        sys.stdout.write(text)
        if given.markdown:
            with atomic_path(given.markdown) as temporary:
                temporary.write_text(text, encoding="utf-8")
        if given.json:
            write_json(given.json, [vars(row) for row in rows])

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())
