"""Our scores on the papers' data sets beside the published ones.

    python benchmarks/published_scores.py RUNS [--data DATA] [--markdown FILE]
        [--preset paper] [--encoder openclip:ViT-B-16:laion2b_s34b_b88k] [--regions sam:vit_h:PATH] [--solver sgd]

RUNS/SET/SCENE is the run of a scene, for the sets lerf_ovs, 3d_ovs and mipnerf360 (data_scripts/ fetches them). With
--data, scenes that are there (DATA/SET/SCENE) are trained first, those that were begun go on. Prints a table of each
set as Markdown. What is not there stays blank: nothing here comes from anywhere but a `metrics.json` or a paper.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.exits import guarded
from encoders.errors import InputError
from encoders.files import atomic_path

Row = Mapping[str, float]


@dataclass(frozen=True)
class Benchmark:
    """A data set and what papers say about it.

    Attributes:
        folder: of the set. title: for people.
        scenes: in the order of the papers' tables.
        metrics: key in `metrics.json` and heading.
        published: per method and metric, percent by scene. sources: where these are from.
    """

    folder: str
    title: str
    scenes: tuple[str, ...]
    metrics: Mapping[str, str]
    published: Mapping[tuple[str, str], Row]
    sources: str


def _row(scenes: Sequence[str], *values: float) -> Row:
    return dict(zip(scenes, values, strict=True))


_LERF = ("ramen", "figurines", "teatime", "waldo_kitchen")
_OVS = ("bed", "bench", "room", "sofa", "lawn")
_360 = ("room", "counter", "garden", "bonsai")

BENCHMARKS = (
    Benchmark(
        "lerf_ovs",
        "LERF_OVS",
        _LERF,
        {"miou": "mIoU", "localization_accuracy": "located"},
        {
            ("LangSplat", "miou"): _row(_LERF, 51.2, 44.7, 65.1, 44.5),
            ("LangSplat", "localization_accuracy"): _row(_LERF, 73.2, 80.4, 88.1, 95.5),
            ("GAGS", "miou"): _row(_LERF, 46.81, 53.59, 60.29, 55.80),
            ("GAGS", "localization_accuracy"): _row(_LERF, 69.01, 78.57, 88.14, 90.91),
            ("LangSplatV2", "miou"): _row(_LERF, 51.8, 56.4, 72.2, 59.1),
            ("LangSplatV2", "localization_accuracy"): _row(_LERF, 74.7, 82.1, 93.2, 95.5),
        },
        "Of LangSplat (CVPR 2024), GAGS (arXiv 2412.13654) and LangSplatV2 (arXiv 2507.07136), as later comparisons "
        "quote their tables.",
    ),
    Benchmark(
        "3d_ovs",
        "3D-OVS",
        _OVS,
        {"miou": "mIoU", "miou_argmax": "mIoU, classes competing", "pixel_accuracy": "accuracy, classes competing"},
        {
            ("3D-OVS", "miou_argmax"): _row(_OVS, 89.5, 89.3, 92.8, 74.0, 88.2),
            ("LangSplat", "miou"): _row(_OVS, 92.5, 94.2, 94.1, 90.0, 96.1),
        },
        "Of 3D-OVS (NeurIPS 2023) and LangSplat (CVPR 2024), as later comparisons quote their tables.",
    ),
    Benchmark(
        "mipnerf360",
        "Mip-NeRF 360, labels of GAGS",
        _360,
        {"miou": "mIoU", "localization_accuracy": "located"},
        {},
        "No figures of papers are quoted here: none could be checked when this table was written.",
    ),
)


def measured(runs: Path, benchmark: Benchmark) -> Mapping[str, Row]:
    """Our scores in percent, by metric and scene, as far as there are runs."""
    found: dict[str, dict[str, float]] = {key: {} for key in benchmark.metrics}
    for scene in benchmark.scenes:
        path = runs / benchmark.folder / scene / "metrics.json"
        if not path.is_file():
            continue
        try:
            metrics = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read ({error}); run dictsplat eval {path.parent}.") from error
        for key in benchmark.metrics:
            if key in metrics:
                found[key][scene] = 100 * float(metrics[key])
    return found


def table(benchmark: Benchmark, ours: Mapping[str, Row]) -> str:
    """A Markdown table: a row per method and metric, a column per scene; means only of complete rows."""
    lines = [
        f"### {benchmark.title}",
        "",
        f"| % | {' | '.join(benchmark.scenes)} | mean |",
        f"|---|{'--:|' * (len(benchmark.scenes) + 1)}",
    ]
    for key, heading in benchmark.metrics.items():
        rows = [(method, row) for (method, metric), row in benchmark.published.items() if metric == key]
        lines += [_line(f"{method}, {heading}", row, benchmark.scenes) for method, row in rows]
        lines.append(_line(f"**ours**, {heading}", ours[key], benchmark.scenes))
    return "\n".join([*lines, "", benchmark.sources, ""])


def _line(name: str, row: Row, scenes: Sequence[str]) -> str:
    cells = [f"{row[scene]:.1f}" if scene in row else "" for scene in scenes]
    mean = f"{sum(row[scene] for scene in scenes) / len(scenes):.1f}" if all(cells) else ""
    return f"| {name} | {' | '.join([*cells, mean])} |"


def train_scenes(data: Path, runs: Path, options: Mapping[str, Any], say: Callable[[str], None] = print) -> None:
    """Train the scenes of all sets that are in ``data`` into ``runs``; those that are finished are only scored."""
    from app.progress import StageProgress
    from app.score import score
    from splat.pipeline import train
    from splat.train_config import TrainConfig

    folders = [(one.folder, scene) for one in BENCHMARKS for scene in one.scenes]
    there = [(folder, scene) for folder, scene in folders if (data / folder / scene).is_dir()]
    if not there:
        raise InputError(f"{data} has none of the sets {', '.join(one.folder for one in BENCHMARKS)}.")
    for number, (folder, scene) in enumerate(there, 1):
        say(f"{folder}/{scene} ({number} of {len(there)})")
        with StageProgress() as reports:
            config = TrainConfig(data / folder / scene, **options)
            train(runs / folder / scene, config, reports, score)


def write_tables(runs: Path, markdown: Path | None = None, benchmarks: Iterable[Benchmark] = BENCHMARKS) -> str:
    """All tables, also written to a file if one is given."""
    text = "\n".join(table(benchmark, measured(runs, benchmark)) for benchmark in benchmarks)
    if markdown is not None:
        with atomic_path(markdown) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Our scores beside the published ones.")
    parser.add_argument("runs", type=Path, help="folder of runs, RUNS/SET/SCENE")
    parser.add_argument("--data", type=Path, help="folder of data sets to train on first, DATA/SET/SCENE")
    parser.add_argument("--markdown", type=Path, help="also write the tables here")
    for option in ("preset", "encoder", "regions", "solver", "device"):
        parser.add_argument(f"--{option}", help="of the training, as for dictsplat train")
    parser.add_argument("--scale", type=float, help="of the training, as for dictsplat train")
    given = vars(parser.parse_args(arguments))
    runs, data, markdown = given.pop("runs"), given.pop("data"), given.pop("markdown")

    def work() -> None:
        if data is not None:
            train_scenes(data, runs, {key: value for key, value in given.items() if value is not None})
        print(write_tables(runs, markdown))

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())
