"""Our scores on the papers' data sets beside the published ones.

    python benchmarks/published_scores.py RUNS [--data DATA] [--markdown FILE]
        [--preset paper] [--encoder openclip:ViT-B-16:laion2b_s34b_b88k] [--regions sam:vit_h:PATH] [--solver sgd]

RUNS/SET/SCENE is the run of a scene, for the sets lerf_ovs, 3d_ovs and mipnerf360 (data_scripts/ fetches them). With
--data, scenes that are there (DATA/SET/SCENE) are trained first, those that were begun go on: on all views and on
images up to 1600 pixels wide, as the papers do, unless --hold-out and --scale say otherwise. Prints a table of each
set as Markdown, whatever went wrong with a scene, and then what did; the exit status is 2 if anything did. What is not
there stays blank: nothing here comes from anywhere but a `metrics.json` or a paper.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from published_figures import PUBLISHED, Figures, Published, Row
from published_runs import Ours, find_labels, read_runs

from app.cluster_list import Failure, failure, status
from app.exits import guarded
from app.progress import StageProgress
from app.score import score
from encoders.errors import InputError
from encoders.files import atomic_path
from encoders.progress import Report
from splat.pipeline import train
from splat.run import Run
from splat.scene import Scene
from splat.scene.scale import published_scale
from splat.train_config import TrainConfig


def table(published: Published, ours: Ours) -> str:
    """A Markdown table: a row per method and metric, a column per scene; our means only of complete rows.

    Below it what ours are, and where the others are from.
    """
    lines = [
        f"### {published.title}",
        "",
        f"| % | {' | '.join(published.scenes)} | mean |",
        f"|---|{'--:|' * (len(published.scenes) + 1)}",
    ]
    for key, heading in published.metrics.items():
        rows = [figures for figures in published.figures if figures.metric == key]
        lines += [_line(f"{row.method}, {heading}", row.scenes, published.scenes, row.mean) for row in rows]
        scores = ours.scores.get(key, {})
        complete = len(scores) == len(published.scenes)
        mean = sum(scores.values()) / len(scores) if complete else None
        lines.append(_line(f"**ours**, {heading}", scores, published.scenes, mean))
    return "\n".join([*lines, "", ours.description(), "", *_origins(published), ""])


def _line(name: str, row: Row, scenes: Sequence[str], mean: float | None) -> str:
    cells = [f"{row[scene]:.1f}" if scene in row else "" for scene in scenes]
    return f"| {name} | {' | '.join([*cells, '' if mean is None else f'{mean:.1f}'])} |"


def _origins(published: Published) -> list[str]:
    """A list of where the figures are from, which printed means are not those of their rows, and what else to know."""
    by_source: dict[str, list[Figures]] = {}
    for figures in published.figures:
        by_source.setdefault(figures.source, []).append(figures)
    lines = []
    for source, rows in by_source.items():
        methods = ", ".join(dict.fromkeys(row.method for row in rows))
        lines.append(f"- {methods}: {source}.")
    for row in filter(lambda row: row.differs, published.figures):
        name = f"{row.method}, {published.metrics[row.metric]}"
        lines.append(f"- {name}: {row.mean:.1f} is printed, the mean of the columns is {row.computed:.1f}.")
    return lines + [f"- {note}" for note in published.notes]


def train_scenes(
    data: Path, runs: Path, options: Mapping[str, Any], say: Callable[[str], None] = print
) -> list[Failure]:
    """Train the scenes of all sets that are in ``data`` into ``runs``; those that are finished are only scored.

    A scene that fails does not keep the others from being trained.

    Args:
        options: of `TrainConfig`, without the scene; without a scale, each scene gets its `published_scale`.

    Returns:
        Which of them failed.

    Raises:
        InputError: there is no scene, or an option that no training can use.
    """
    protocols = {f"{one.folder}/{scene}": one.protocol for one in PUBLISHED for scene in one.scenes}
    there = [name for name in protocols if (data / name).is_dir()]
    if not there:
        raise InputError(f"{data} has none of the sets {', '.join(one.folder for one in PUBLISHED)}.")
    TrainConfig(data, **options).check()
    failures = []
    for number, name in enumerate(there, 1):
        say(f"{name} ({number} of {len(there)})")
        source = data / name
        try:
            config = TrainConfig(source, **({"scale": published_scale(source)} | dict(options)))
            with StageProgress() as reports:
                train(runs / name, config, reports, _scorer(find_labels(source), protocols[name]))
        except Exception as error:
            failures.append(failure(name, "training", error))
    return failures


def _scorer(labels: Path | None, protocol: str) -> Callable[[Run, Scene, str, Report], dict[str, Any]]:
    """Scores against ``labels`` as if somebody had asked for these, so that a mistake in them is one, and no remark."""
    how = None if labels is None else protocol

    def scorer(run: Run, scene: Scene, device: str, report: Report) -> dict[str, Any]:
        return score(run, scene, device, report, labels, how)

    return scorer


def tables(
    runs: Path, published: Sequence[Published] = PUBLISHED, failed: Sequence[Failure] = ()
) -> tuple[str, list[Failure]]:
    """All tables, and which runs could not be used for them.

    Args:
        failed: scenes whose run is not what was asked for; they are left blank.
    """
    texts, failures = [], []
    left_out = [one.name for one in failed]
    for one in published:
        scenes = [name.partition("/")[2] for name in left_out if name.partition("/")[0] == one.folder]
        ours, wrong = read_runs(runs / one.folder, one.scenes, list(one.metrics), scenes)
        texts.append(table(one, ours))
        failures += [failure(f"{one.folder}/{scene}", "scores", error) for scene, error in wrong.items()]
    return "\n".join(texts), failures


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Our scores beside the published ones.")
    parser.add_argument("runs", type=Path, help="folder of runs, RUNS/SET/SCENE")
    parser.add_argument("--data", type=Path, help="folder of data sets to train on first, DATA/SET/SCENE")
    parser.add_argument("--markdown", type=Path, help="also write the tables here")
    for option in ("preset", "encoder", "regions", "solver", "device"):
        parser.add_argument(f"--{option}", help="of the training, as for dictsplat train")
    parser.add_argument("--scale", type=float, help="of the training; default: to a width of 1600 pixels, as 3DGS does")
    parser.add_argument("--hold-out", type=int, default=0, help="of the training; default: 0, as LangSplatV2 does")
    given = vars(parser.parse_args(arguments))
    runs, data, markdown = given.pop("runs"), given.pop("data"), given.pop("markdown")

    def work() -> None:
        options = {key: value for key, value in given.items() if value is not None}
        failures = [] if data is None else train_scenes(data, runs, options)
        text, unusable = tables(runs, failed=failures)
        failures += unusable
        print(text)
        for failed in failures:
            print(" ".join(f"{failed.name} ({failed.stage}): {failed.sentence}".split()), file=sys.stderr)
        if markdown is not None:
            with atomic_path(markdown) as temporary:
                temporary.write_text(text, encoding="utf-8")
        if failures:
            raise SystemExit(status(failures))

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())
