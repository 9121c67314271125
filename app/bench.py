"""The speed table: dictsplat beside the ways it replaces, in one run, interleaved."""

import os
import platform
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from app.bench_anomaly import AnomalyBenchConfig, print_anomaly_bench
from app.bench_anomaly import measure as measure_anomaly
from app.bench_clock import Work, interleaved, median_frame
from app.bench_scene import BenchConfig, Scene
from app.bench_tables import RATIOS, markdown_table, print_table
from encoders.errors import InputError
from encoders.files import atomic_path, write_json
from encoders.progress import Report, silent
from splat import _native
from splat.device import splat_device


def rows_of(scene: Scene) -> tuple[dict[str, Work], dict[str, str]]:
    """Frames by name, in the table's order, and why others are left out.

    Dense splatting is left out where its map and features would take more than a third of the device's memory.
    """
    config = scene.config
    skipped: dict[str, str] = {}
    rows: dict[str, Work] = {"rgb": scene.rgb}
    memory = device_memory(config.device)
    for channels in config.dense:
        needed = 4 * channels * (config.width * config.height + config.gaussians)
        if 3 * needed > memory:
            reason = f"takes {needed / 1e9:.1f} GB, more than a third of the {memory / 1e9:.1f} GB there are"
            skipped[f"dense_{channels}"] = reason
        else:
            rows[f"dense_{channels}"] = scene.dense(channels)
    rows |= {
        "codes": scene.codes,
        "langsplat_query": scene.langsplat,
        "materialised_query": scene.materialised,
        "query": scene.query,
    }
    if config.slow:
        rows["torch_training_step"] = scene.torch_training_step
    rows["rgb_training_step"] = scene.rgb_training_step
    return rows, skipped


def measure(config: BenchConfig, report: Report = silent) -> dict[str, Any]:
    """Time every row ``config.repeats`` times, interleaved, after a warm-up each.

    Returns:
        ``stages``: milliseconds of each stage of a row's median frame ("rendering", "decoding", "relevancy");
        ``milliseconds``: their sums, which are medians; the ratios of `RATIOS`; ``skipped``: why rows are left
        out; ``largest_difference_from_materialised``: of our relevancy, in absolute value; and what all this was
        measured on.
    """
    scene = Scene(config)
    rows, skipped = rows_of(scene)
    ours, theirs = scene.query(), scene.materialised()
    exact = float((ours - theirs)[ours > 0.0].abs().max())  # 0 marks pixels that no code reaches
    del ours, theirs
    frames = interleaved(rows, config.repeats, config.device, report)
    stages = {name: median_frame(timed) for name, timed in frames.items()}
    medians = {name: sum(frame.values()) for name, frame in stages.items()}
    ratios = {
        name: medians[over] / medians[under]
        for name, (over, under) in RATIOS.items()
        if over in medians and under in medians
    }
    return {
        **ratios,
        "milliseconds": medians,
        "stages": stages,
        "skipped": skipped,
        "largest_difference_from_materialised": exact,
        "config": vars(config),
        "machine": machine(config.device),
        "date": time.strftime("%Y-%m-%d"),
    }


def machine(device: str) -> dict[str, Any]:
    """What is measured on: ``processor``, ``threads``, ``isa`` of the CPU code, version of ``torch``."""
    return {
        "processor": _processor(device),
        "threads": torch.get_num_threads(),
        "isa": _native.isa(),
        "torch": torch.__version__,
    }


def _processor(device: str) -> str:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def device_memory(device: str) -> int:
    """Bytes that a device has, free or not."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def bench(
    json: Path | None = None,
    markdown: Path | None = None,
    device: str = "auto",
    report: Report = silent,
    anomaly_report: Report = silent,
) -> dict[str, Any]:
    """Measure both halves, print the tables, and write the numbers to ``json`` and the table to ``markdown``.

    Raises:
        InputError: ``device`` is not one or cannot be used, or a file is a folder.
        OSError: there is no making a file's folder. Both before anything is measured.
    """
    for file in filter(None, (json, markdown)):
        if file.is_dir():
            raise InputError(f"{file} is a folder; give the name of a file to write.")
        file.parent.mkdir(parents=True, exist_ok=True)
    result = measure(BenchConfig(device=splat_device(device)), report)
    result["anomaly"] = measure_anomaly(AnomalyBenchConfig(), anomaly_report)
    console = Console()
    print_table(result, console)
    print_anomaly_bench(result["anomaly"], console)
    if json is not None:
        write_json(json, result)
    if markdown is not None:
        with atomic_path(markdown) as path:
            path.write_text(markdown_table(result), encoding="utf-8")
    return result
