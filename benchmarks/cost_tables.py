"""What measured costs come to on more cores and for more photos and scenes, as Markdown; see `cost_model`."""

from dataclasses import dataclass

import numpy as np

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
        block: by the clock, a photo's part of what a block takes on its way to a worker and back.
        journal: by the clock, in the process that notes it, which no worker takes over.
        memory: bytes that that process keeps.
        photo, files: bytes read and written.
    """

    read: float
    judge: float
    write: float
    whole: float
    block: float
    journal: float
    memory: int
    photo: int
    files: int


def photo_lines(cost: PhotoCost) -> str:
    """Tables of photos, as Markdown."""
    lines = [
        f"A photo, processor time: read {1e3 * cost.read:.1f} ms, judge {1e3 * cost.judge:.1f} "
        f"ms, write {1e3 * cost.write:.1f} ms, all {1e3 * cost.whole:.1f} ms; its part of a block "
        f"{1e3 * cost.block:.2f} ms; journal {1e3 * cost.journal:.2f} ms and "
        f"{cost.memory:,} bytes of memory; {cost.photo / 1e3:.0f} kB in, {cost.files / 1e3:.0f} kB out.",
        "",
        "| cores | photos/s | MB/s in | MB/s out | " + " | ".join(f"{count:,} photos" for count in PHOTOS) + " |",
        "|--:|" + "--:|" * (3 + len(PHOTOS)),
    ]
    for cores in CORES:
        # Each command has a journal of its own; on many cores several run at a time.
        rate = cores / (cost.whole + cost.block)
        times = (_time(count / min(rate, _commands(count) / cost.journal)) for count in PHOTOS)
        data = f"{rate:,.0f} | {rate * cost.photo / 1e6:,.0f} | {rate * cost.files / 1e6:,.0f}"
        lines.append(f"| {cores:,} | {data} | " + " | ".join(times) + " |")
    gpu, hours = cost.judge / GPU_PHOTO, PHOTOS[-1] * (cost.whole + cost.block) / 3600
    lines += [
        "",
        f"Core-hours for {PHOTOS[-1]:,}: {hours:,.0f}. One command's journal notes at most "
        f"{1 / cost.journal:,.0f} photos/s. Estimate for a GPU: {1 / gpu:,.0f} photos/s, if {_feeders(cost, gpu):.0f} "
        f"cores read and write for it; {PHOTOS[-1] * gpu / 3600:,.0f} GPU-hours for {PHOTOS[-1]:,}.",
    ]
    return "\n".join(lines)


def _feeders(cost: PhotoCost, gpu: float) -> float:
    return max(1.0, np.ceil((cost.read + cost.write) / gpu))


def _commands(count: int) -> int:
    return max(1, count // PHOTOS_PER_COMMAND)


def scene_lines(stages: dict[str, float], threads: int) -> str:
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
    for cores in (cores for cores in CORES if cores >= threads):
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
