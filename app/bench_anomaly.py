"""What looking up costs beside the backbone, and how it grows with the number of normal images."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from encoders.progress import Report, silent

SHOTS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class AnomalyBenchConfig:
    """What is timed. The defaults are the table of docs/dictas.md.

    Attributes:
        size: working size; None for the shipped detector's.
        batch: images at a time, as in `anomaly predict`.
        repeats: interleaved rounds.
        shots: numbers of normal images; the ratio to the backbone is that of `reference`.
    """

    size: int | None = None
    batch: int = 8
    repeats: int = 7
    shots: tuple[int, ...] = SHOTS
    reference: int = 4
    seed: int = 0


def measure(config: AnomalyBenchConfig, report: Report = silent) -> dict[str, Any]:
    """Time batches of query images, interleaved, on specimens of a procedural class.

    Returns:
        ``anomaly_over_backbone``: images per second of backbone, lookup and map together over those of the
        backbone alone, at ``reference`` shots. ``lookup_milliseconds`` per number of shots, ``lookup_growth``:
        that of the most over that of the fewest shots, and ``shots_growth``, how many times more shots those are.
    """
    from dictas.checkpoint import load_detector
    from dictas.detector import image_score, pixel_map
    from dictas.procedural import draw_class

    backbone, detector = load_detector(size=config.size)
    rng = np.random.default_rng(config.seed)
    drawn = draw_class(rng)
    shape = backbone.prepared_size(512, 512)
    support = [backbone.batch([drawn.sample(rng, shape)[0]]) for _ in range(max(config.shots))]
    queries = [drawn.sample(rng, shape)[0] for _ in range(config.batch)]
    batch = backbone.batch(queries)
    dictionaries: dict[int, Any] = {}
    for shots in config.shots:
        detector.remember(support[:shots])
        dictionaries[shots] = detector.dictionary_state()

    def judge() -> None:
        for token_map in detector.maps(batch):
            image_score(pixel_map(token_map, shape, shape))

    works: dict[str, Callable[[], Any]] = {"backbone": lambda: backbone.batch(queries)}
    times: dict[str, list[float]] = {name: [] for name in ("backbone", *map(str, config.shots))}
    total = (config.repeats + 1) * len(times)
    done = 0
    for repeat in range(config.repeats + 1):
        for name in times:
            if name != "backbone":
                detector.load_dictionary_state(dictionaries[int(name)])
            work = works.get(name, judge)
            work()
            start = time.perf_counter()
            work()
            if repeat:
                times[name].append(time.perf_counter() - start)
            done += 1
            report(done, total, name if name == "backbone" else f"{name} normal images")
    medians = {name: 1e3 * statistics.median(seconds) / config.batch for name, seconds in times.items()}
    fewest, most = min(config.shots), max(config.shots)
    return {
        "anomaly_over_backbone": medians["backbone"] / (medians["backbone"] + medians[str(config.reference)]),
        "lookup_growth": medians[str(most)] / medians[str(fewest)],
        "shots_growth": most / fewest,
        "backbone_milliseconds": medians["backbone"],
        "lookup_milliseconds": {shots: medians[str(shots)] for shots in config.shots},
        "size": shape,
        "reference_shots": config.reference,
    }


def print_anomaly_bench(result: dict[str, Any], console: Console) -> None:
    """The table of `measure`."""
    height, width = result["size"]
    table = Table(title=f"Anomaly maps, {width}×{height}, embedded backbone")
    for column in ("what", "ms per image", "× backbone"):
        table.add_column(column, justify="left" if column == "what" else "right")
    backbone = result["backbone_milliseconds"]
    table.add_row("backbone", f"{backbone:.1f}", "1.00")
    for shots, milliseconds in result["lookup_milliseconds"].items():
        table.add_row(f"lookup and map, {shots}-shot", f"{milliseconds:.1f}", f"{milliseconds / backbone:.2f}")
    console.print(table)
    console.print(f"anomaly_over_backbone: {result['anomaly_over_backbone']:.2f} at {result['reference_shots']} shots")
    console.print(f"lookup_growth: {result['lookup_growth']:.2f} for {result['shots_growth']:.0f} times the shots")
