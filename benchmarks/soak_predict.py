"""`anomaly predict` over a night's worth of photos: killed twice it must end like an unbroken run, in flat memory.

    .venv/bin/python benchmarks/soak_predict.py [--photos 5000] [--out out/soak] [-- OPTIONS OF anomaly predict]

Photos are drawn by the program (one class, every tenth damaged by a bright spot, some files broken). The unbroken run's
memory is logged to OUT/memory.csv; the script fails if the tables differ or if memory grows by more than 5 % between
the second and the last fifth of the photos. Memory is what the process and its readers hold (RSS, pages that they
share counted more than once).
"""

import argparse
import csv
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from dictas.journal import NAME as JOURNAL
from dictas.procedural import draw_class

SIZE = (256, 320)
SUPPORT = 4
GROWTH = 0.05
COMMAND = [sys.executable, "-c", "from app.cli import main; main()", "anomaly", "predict"]


def main() -> None:
    """Draw photos, judge them twice and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=5000)
    parser.add_argument("--out", type=Path, default=Path("out/soak"))
    parser.add_argument("options", nargs="*", help="for anomaly predict, after --")
    given = parser.parse_args()
    draw(given.out, given.photos)
    command = [*COMMAND, "--support", str(given.out / "support"), "--query", str(given.out / "query"), *given.options]
    for name in ("whole", "killed"):
        shutil.rmtree(given.out / name, ignore_errors=True)
    memory = watch([*command, "--out", str(given.out / "whole")], given.out / "whole")
    with (given.out / "memory.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("seconds", "lines", "process_mb", "readers_mb"), *memory])
    for share in (0.3, 0.7):
        watch([*command, "--out", str(given.out / "killed")], given.out / "killed", kill_at=share * memory[-1][1])
    watch([*command, "--out", str(given.out / "killed")], given.out / "killed")
    compare(given.out, memory)


def draw(out: Path, photos: int) -> None:
    """Make the photos, unless they are there."""
    done = out / "drawn.txt"
    if done.exists() and done.read_text() == str(photos):
        return
    shutil.rmtree(out, ignore_errors=True)
    rng = np.random.default_rng(0)
    part = draw_class(rng)
    for folder, count in (("support", SUPPORT), ("query", photos)):
        (out / folder).mkdir(parents=True)
        for number in range(count):
            image = part.sample(rng, SIZE)[0]
            if folder == "query" and number % 10 == 0:
                top, left = rng.integers(0, SIZE[0] - 20), rng.integers(0, SIZE[1] - 20)
                image[top : top + 20, left : left + 20] = rng.integers(0, 256, 3)
            path = out / folder / f"part_{number}.jpg"
            Image.fromarray(image).save(path, quality=92)
            if folder == "query" and number % 500 == 250:
                path.write_bytes(path.read_bytes()[:2000])
    done.write_text(str(photos))


def watch(command: list[str], out: Path, kill_at: float = float("inf")) -> list[tuple[float, int, float, float]]:
    """Run a command to its end, or until its journal has so many lines; seconds, lines and MB over time."""
    log: list[tuple[float, int, float, float]] = []
    start = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as running:
        process = psutil.Process(running.pid)
        while running.poll() is None:
            journal = out / JOURNAL
            lines = journal.read_bytes().count(b"\n") if journal.exists() else 0
            try:
                readers = sum(child.memory_info().rss for child in process.children(recursive=True))
                log.append((round(time.monotonic() - start, 1), lines, process.memory_info().rss / 1e6, readers / 1e6))
            except psutil.NoSuchProcess:
                continue
            if lines >= kill_at:
                running.kill()
            time.sleep(0.5)
    expected = (0, 1) if kill_at == float("inf") else (-9,)
    if running.returncode not in expected:
        raise SystemExit(f"anomaly predict ended with {running.returncode}, not {expected}")
    return log


def compare(out: Path, memory: list[tuple[float, int, float, float]]) -> None:
    """Say how it went; exit with 1 if the tables differ or memory grew."""
    lines = memory[-1][1]
    held = [(place, process + readers) for _, place, process, readers in memory]
    early, late = (
        statistics.median(size for place, size in held if low * lines <= place <= high * lines)
        for low, high in ((0.2, 0.4), (0.8, 1.0))
    )
    same = (out / "whole" / "results.csv").read_bytes() == (out / "killed" / "results.csv").read_bytes()
    print(f"unbroken run: {memory[-1][0]:.0f} s, memory {early:.0f} MB early, {late:.0f} MB late")
    print(f"tables after two kills: {'the same bytes' if same else 'DIFFERENT'}")
    raise SystemExit(0 if same and late <= early * (1 + GROWTH) else 1)


if __name__ == "__main__":
    main()
