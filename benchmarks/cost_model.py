"""What 10,000 scenes or 100 million photos take: measured here item by item, multiplied, and written as tables.

    OMP_NUM_THREADS=1 python benchmarks/cost_model.py [--run out/demo] [--photos 128] [--json out/cost_model.json]

Measures a photo's processor time (reading, judging, writing), what stays with the one process that holds the
journal, and a Ray task with nothing in it; a scene's stages are those that the run folder RUN recorded. Times on other
numbers of cores are computed from these, with the assumptions that docs/scaling.md lists; none is a measurement.
"""

import argparse
import json
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from app.bench import machine
from dictas.checkpoint import load_detector
from dictas.images import batches, find_images
from dictas.journal import open_journal
from dictas.outputs import FOLDERS, Row, Writer
from dictas.procedural import draw_class
from dictas.stream import Judge, journalled, judged
from dictas.support import read_support
from dictas.thresholds import fixed
from encoders.files import write_json
from encoders.progress import silent

SIZE = (960, 1280)
SUPPORT = 4
BATCH = 8
TASKS = 200
ROWS = 20_000
"""Made up, to measure what each costs the process with the journal."""

CORES = (2, 64, 1024, 4096)
SCENES = (100, 1000, 10_000)
PHOTOS = (100_000, 10_000_000, 100_000_000)
PHOTOS_PER_COMMAND = 1_000_000
"""Larger sets are split into folders of so many, because a command keeps a row of each photo in memory."""
GPU_PHOTO = 20.0
"""Assumed, not measured: how much quicker a data-centre GPU judges photos than one core; reading and writing stay."""
GPU_STAGES = {"rgb": 10.0, "features": 10.0, "language": 3.0}
"""Assumed, not measured: how much quicker the stages are on such a GPU than on the cores that RUN had."""


@dataclass(frozen=True)
class PhotoCost:
    """Seconds and bytes of one photo.

    Attributes:
        read, judge, write: of the processor, each alone.
        whole: of the processor, in a process that does all three at once, as `anomaly predict --workers 0` and workers.
        journal: by the clock, in the process that notes it, which no worker takes over.
        memory: bytes that that process keeps.
        photo, files: bytes read and written.
    """

    read: float
    judge: float
    write: float
    whole: float
    journal: float
    memory: int
    photo: int
    files: int


def main() -> None:
    """Measure, compute and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("out/demo"))
    parser.add_argument("--photos", type=int, default=128)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cost = measure_photos(Path(folder), given.photos)
    stages = recorded_stages(given.run)
    task = measure_task()
    print(photo_lines(cost), scene_lines(stages), f"A Ray task with nothing in it: {1e3 * task:.1f} ms", sep="\n\n")
    if given.json is not None:
        result = {"photo": vars(cost), "stages": stages, "task_seconds": task, "machine": machine("cpu")}
        write_json(given.json, result)


def measure_photos(folder: Path, count: int) -> PhotoCost:
    """Judge drawn photos with the shipped detector, first step by step, then as the program does."""
    rng = np.random.default_rng(0)
    part = draw_class(rng)
    for name, number in (("support", SUPPORT), ("query", count)):
        (folder / name).mkdir()
        for index in range(number):
            Image.fromarray(part.sample(rng, SIZE)[0]).save(folder / name / f"{index}.jpg", quality=92)
    backbone, detector = load_detector()
    known = read_support(folder / "support")
    known.memory(detector, backbone, None, BATCH).recall()
    judge = Judge(backbone, detector, None, BATCH)
    photos = find_images(folder / "query")
    empty = [Row(photo.name, output=Path(photo.name).stem) for photo in photos]
    writer = Writer(folder / "out", fixed(0.3))
    with torch.no_grad():
        warm = list(judge.read(photos[: 2 * BATCH], 0))
        for group in batches(iter(warm), BATCH):
            judge.judgements(group)
        loaded, read = timed(lambda: list(judge.read(photos[:count], 0)))
        groups = list(batches(iter(loaded), BATCH))
        found, judging = timed(lambda: [judge.judgements(group) for group in groups])

        _, writing = timed(lambda: write(writer, groups, found, empty))

        def whole() -> None:
            for _ in judged(judge, judge.read(photos, 0), empty, replace(writer, folder=folder / "whole")):
                pass

        _, together = timed(whole)
    files = [path for kind in FOLDERS for path in (folder / "whole" / kind).rglob("*") if path.is_file()]
    journal, memory = measure_journal(folder)
    return PhotoCost(
        read / count,
        judging / count,
        writing / count,
        together / count,
        journal,
        memory,
        sum(photo.path.stat().st_size for photo in photos) // count,
        sum(path.stat().st_size for path in files) // count,
    )


def write(writer: Writer, groups: Sequence[Any], found: Sequence[Any], empty: Sequence[Row]) -> None:
    """Write the files of judged photos, one after the other."""
    for group, judgements in zip(groups, found, strict=True):
        for photo, judgement in zip(group, judgements, strict=True):
            writer.write(empty[photo.index], photo.image, judgement())


def timed(work: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> tuple[Any, float]:
    """What it returns, and its seconds: of the processor, all threads together, so that other programs do not count."""
    start = clock()
    result = work()
    return result, clock() - start


def measure_journal(folder: Path) -> tuple[float, int]:
    """Seconds and bytes that a photo costs the process with the journal, when workers do all else."""
    photo = find_images(folder / "query")[0]
    photos = [replace(photo, name=f"line/{index:07}.jpg") for index in range(ROWS)]
    writer = Writer(folder / "noted", fixed(0.3))

    def groups(empty: Sequence[Row], _start: int) -> Generator[list[Row]]:
        for first in range(0, ROWS, BATCH):
            rows = [replace(row, score=0.1, anomalous=False, width=640) for row in empty[first : first + BATCH]]
            # As they come from workers.
            yield [Row(**row) for row in json.loads(json.dumps([vars(row) for row in rows]))]

    def note(name: str) -> list[Row]:
        with open_journal(folder / name) as journal:
            rows = journalled(photos, replace(writer, folder=folder / name), journal, silent, groups)
            sizes.append(tracemalloc.get_traced_memory()[0])
            return rows

    sizes: list[int] = []
    _, seconds = timed(lambda: note("noted"), time.perf_counter)
    tracemalloc.start()
    note("watched")
    tracemalloc.stop()
    return seconds / ROWS, sizes[-1] // ROWS


def measure_task() -> float:
    """Seconds that a Ray task takes besides its work, one after the other."""
    import ray

    from app.cluster import connected

    with connected("local"):
        task: Any = ray.remote(_nothing)
        ray.get(task.remote())
        _, seconds = timed(lambda: [ray.get(task.remote()) for _ in range(TASKS)], time.perf_counter)
    return seconds / TASKS


def _nothing() -> None:
    pass


def recorded_stages(run: Path) -> dict[str, float]:
    """Seconds of each stage of a run."""
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    return {name: float(stage["seconds"]) for name, stage in record["stages"].items()}


def photo_lines(cost: PhotoCost) -> str:
    """Tables of photos, as Markdown."""
    lines = [
        f"A photo of {SIZE[1]}×{SIZE[0]}, processor time: read {1e3 * cost.read:.1f} ms, judge {1e3 * cost.judge:.1f} "
        f"ms, write {1e3 * cost.write:.1f} ms, all {1e3 * cost.whole:.1f} ms; journal {1e3 * cost.journal:.2f} ms and "
        f"{cost.memory:,} bytes of memory; {cost.photo / 1e3:.0f} kB in, {cost.files / 1e3:.0f} kB out.",
        "",
        "| cores | photos/s | MB/s in | MB/s out | " + " | ".join(f"{count:,} photos" for count in PHOTOS) + " |",
        "|--:|" + "--:|" * (3 + len(PHOTOS)),
    ]
    for cores in CORES:
        # Each command has a journal of its own; on many cores several run at a time.
        rate = cores / cost.whole
        times = (_time(count / min(rate, _commands(count) / cost.journal)) for count in PHOTOS)
        data = f"{rate:,.0f} | {rate * cost.photo / 1e6:,.0f} | {rate * cost.files / 1e6:,.0f}"
        lines.append(f"| {cores:,} | {data} | " + " | ".join(times) + " |")
    gpu = cost.judge / GPU_PHOTO
    lines += [
        "",
        f"Core-hours for {PHOTOS[-1]:,}: {PHOTOS[-1] * cost.whole / 3600:,.0f}. One command's journal notes at most "
        f"{1 / cost.journal:,.0f} photos/s. Estimate for a GPU: {1 / gpu:,.0f} photos/s, if {_feeders(cost, gpu):.0f} "
        f"cores read and write for it; {PHOTOS[-1] * gpu / 3600:,.0f} GPU-hours for {PHOTOS[-1]:,}.",
    ]
    return "\n".join(lines)


def _feeders(cost: PhotoCost, gpu: float) -> float:
    return max(1.0, np.ceil((cost.read + cost.write) / gpu))


def _commands(count: int) -> int:
    return max(1, count // PHOTOS_PER_COMMAND)


def scene_lines(stages: dict[str, float], threads: int = 2) -> str:
    """Tables of scenes, as Markdown.

    Args:
        threads: with which the stages were measured.
    """
    whole = sum(stages.values())
    gpu = sum(seconds / GPU_STAGES.get(name, 1.0) for name, seconds in stages.items())
    told = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in stages.items())
    lines = [
        f"A scene, {threads} threads: {told}; {whole:.0f} s.",
        "",
        "| cores | scenes/h | " + " | ".join(f"{count:,} scenes" for count in SCENES) + " |",
        "|--:|--:|" + "--:|" * len(SCENES),
    ]
    for cores in CORES:
        workers = cores // threads
        # The last scenes leave workers idle: there are whole rounds.
        times = (_time(-(-count // workers) * whole) for count in SCENES)
        lines.append(f"| {cores:,} | {3600 * workers / whole:,.0f} | " + " | ".join(times) + " |")
    lines += [
        "",
        f"Core-hours for {SCENES[-1]:,}: {SCENES[-1] * whole * threads / 3600:,.0f}. Estimate for a GPU: {gpu:.0f} s a "
        f"scene, {SCENES[-1] * gpu / 3600:,.0f} GPU-hours for {SCENES[-1]:,}.",
    ]
    return "\n".join(lines)


def _time(seconds: float) -> str:
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.0f} s"


if __name__ == "__main__":
    main()
