"""What 10,000 scenes or 100 million photos take: measured here item by item, multiplied, and written as tables.

    OMP_NUM_THREADS=1 python benchmarks/cost_model.py --threads 2 [--run out/demo] [--out FOLDER] [--json FILE]

Measures a photo's processor time (reading, judging, writing), what stays with the one process that holds the
journal, a block of photos on its way to a worker and back, and a Ray task with nothing in it; a scene's stages are
those that the run folder RUN recorded, with --threads. Files go to FOLDER, which should be where results will. Times
on other numbers of cores are computed from these, with the assumptions that docs/scaling.md lists; none is a
measurement.
"""

import argparse
import json
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cost_tables import PhotoCost, photo_lines, scene_lines
from PIL import Image

from app.bench import machine
from app.exits import guarded
from dictas.checkpoint import load_detector
from dictas.images import BLOCK, Photo, batches, find_images
from dictas.journal import open_journal
from dictas.outputs import FOLDERS, Row, Writer
from dictas.procedural import draw_class
from dictas.stream import Judge, journalled, judged
from dictas.support import read_support
from dictas.thresholds import fixed
from encoders.errors import InputError
from encoders.files import write_json
from encoders.progress import silent
from splat.interchange.langsplat_features import REGIONS
from splat.run import STAGES, Run

SIZE = (960, 1280)
SUPPORT = 4
BATCH = 8
TASKS = 200
ROWS = 5_000
"""Made up, to measure what each costs the process with the journal."""

LISTS = (32, 512)
"""Blocks of photos in lists of two lengths: a block should take as long in both."""


def main() -> None:
    """Measure, compute and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("out/demo"), help="a run folder, for the stages of a scene")
    parser.add_argument("--threads", type=int, required=True, help="of the processor, that RUN was trained with")
    parser.add_argument("--photos", type=int, default=128)
    parser.add_argument("--out", type=Path, help="folder on the storage to measure; default: where temporary files go")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    stages = recorded_stages(given.run)
    with tempfile.TemporaryDirectory(dir=given.out) as folder:
        blocks = measure_blocks(Path(folder))
        cost = measure_photos(Path(folder), given.photos, blocks[-1])
    task = measure_task()
    told = " and ".join(f"{1e3 * each:.1f} ms in a list of {count}" for each, count in zip(blocks, LISTS, strict=True))
    print(
        f"Photos of {SIZE[1]}×{SIZE[0]}.",
        photo_lines(cost),
        scene_lines(stages, given.threads),
        f"A block of {BLOCK} photos with nothing to judge: {told}. A Ray task with nothing in it: {1e3 * task:.1f} ms.",
        sep="\n\n",
    )
    if given.json is not None:
        result = {"photo": vars(cost), "stages": stages, "threads": given.threads, "task_seconds": task}
        write_json(
            given.json, result | {"block_seconds": dict(zip(LISTS, blocks, strict=True)), "machine": machine("cpu")}
        )


def measure_photos(folder: Path, count: int, block: float) -> PhotoCost:
    """Judge drawn photos with the shipped detector, first step by step, then as the program does.

    Args:
        block: seconds of `measure_blocks`.
    """
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
        block / BLOCK,
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
    """Seconds and bytes that a photo costs the process with the journal, when workers do all else.

    Photos and result files are there, though empty, since the process looks at each of them.
    """
    photos = [Photo(f"line/{index:07}.jpg", folder / "journal" / f"{index:07}.jpg") for index in range(ROWS)]
    for photo in photos:
        photo.path.parent.mkdir(exist_ok=True)
        photo.path.touch()
    writer = Writer(folder / "noted", fixed(0.3))

    def groups(empty: Sequence[Row], _start: int) -> Generator[list[Row]]:
        for first in range(0, ROWS, BATCH):
            rows = [replace(row, score=0.1, anomalous=False, width=640) for row in empty[first : first + BATCH]]
            # As they come from workers.
            yield [Row(**row) for row in json.loads(json.dumps([vars(row) for row in rows]))]

    def note(name: str) -> list[Row]:
        with open_journal(folder / name) as journal:
            for kind, suffix in zip(FOLDERS, (".png", ".jpg", ".png", ".jpg"), strict=True):
                (folder / name / kind / "line").mkdir(parents=True)
                for photo in photos:
                    (folder / name / kind / "line" / f"{photo.path.stem}{suffix}").touch()
            own = replace(writer, folder=folder / name)
            rows, seconds = timed(lambda: journalled(photos, own, journal, silent, groups), time.perf_counter)
            found.append((seconds, tracemalloc.get_traced_memory()[0]))
            return rows

    found: list[tuple[float, int]] = []
    note("noted")
    tracemalloc.start()
    note("watched")
    tracemalloc.stop()
    return found[0][0] / ROWS, found[1][1] // ROWS


def measure_blocks(folder: Path) -> list[float]:
    """Seconds of a block with nothing to judge, by the clock, from Ray to the journal and one worker after the other.

    Returns:
        one for each of `LISTS`. Starting the worker does not count: the first block is left out.
    """
    from app.cluster import connected

    with connected("local"):
        return [_block_seconds(folder, count) for count in LISTS]


def _block_seconds(folder: Path, count: int) -> float:
    from dictas.cluster import Workers

    photos = [Photo(f"line/{index:07}.jpg", folder / "absent" / f"{index:07}.jpg") for index in range(BLOCK * count)]
    backbone, detector = load_detector()
    detector.remember([backbone.batch([backbone.prepare(np.zeros((*SIZE, 3), np.uint8))])])
    times: dict[int, float] = {}

    def report(done: int, _total: int, _message: str) -> None:
        times[done] = time.perf_counter()

    own = folder / f"blocks{count}"
    with open_journal(own) as journal:
        judge, workers = Judge(backbone, detector, None, BATCH), Workers(load_detector, most=1, threads=1)
        workers.judge_all(judge, photos, Writer(own, fixed(0.3)), 0, journal, report)
    return (times[len(photos)] - times[BLOCK]) / (count - 1)


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
    """Seconds of each stage of a run.

    Raises:
        InputError: there is no such run, or not all stages were finished in it and by it.
    """
    opened = Run.open(run)
    opened.require(*STAGES)
    stages = {name: opened.finished(name) for name in STAGES}
    for name, stage in stages.items():
        given = name == "features" and stage.inputs.get("regions") == REGIONS
        if given or {"digest", "imported"} & stage.inputs.keys():
            raise InputError(
                f"The {name} stage of {run} was brought from elsewhere, so its seconds are not what it takes; give "
                "--run a run that trained all stages itself."
            )
    return {name: stage.seconds for name, stage in stages.items()}


if __name__ == "__main__":
    sys.exit(guarded(main))
