"""How the time of a frame grows: with Gaussians, pixels, nonzeros, atoms and phrases, for us and the ways we replace.

    python benchmarks/scaling_curves.py out/scaling.png [--device auto|cpu|cuda|cuda:N] [--redraw]

One quantity grows at a time, the others stay at those of `dictsplat bench`. Writes a picture, and the numbers beside it
(the same name with .json). A frame of more than a second is timed once, others are medians of five rounds over all
points; all of it takes about six minutes on two cores. `--redraw` draws the numbers that are there.
"""

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, NullLocator

from app.bench import machine
from app.bench_clock import Work, frame
from app.bench_scene import BenchConfig, Scene
from app.progress import StageProgress
from encoders.files import atomic_path, write_json
from encoders.progress import Report, silent
from splat.device import splat_device

ROUNDS = 5
ONCE_MILLISECONDS = 1000.0

LOOKS = {
    "langsplat_query": ("LangSplat: latents + MLP", "#d55e00", "^"),
    "materialised_query": ("LangSplatV2: codes → 3 × 512-D", "#e69f00", "s"),
    "query": ("ours: relevancy in the splat", "#0072b2", "o"),
    "codes": ("ours: code map only", "#56b4e9", "D"),
    "rgb": ("RGB forward", "#777777", "v"),
}
"""Label, colour and marker of each way, slowest first."""


@dataclass(frozen=True)
class Axis:
    """A quantity that grows.

    Attributes:
        label: of the axis.
        changes: what differs from the base, for each point.
        affected: rows whose time depends on it.
    """

    label: str
    changes: list[dict[str, Any]]
    affected: tuple[str, ...] = tuple(LOOKS)

    def points(self, base: BenchConfig) -> list[BenchConfig]:
        """Configurations, in the order of growth."""
        return [replace(base, **change) for change in self.changes]

    @staticmethod
    def value(change: dict[str, Any]) -> int:
        """Where a point lies on the axis."""
        return change["width"] * change["height"] if "width" in change else next(iter(change.values()))

    @staticmethod
    def tick(change: dict[str, Any]) -> str:
        """What a point is called."""
        if "width" in change:
            return f"{change['width']}\n×{change['height']}"
        (value,) = change.values()
        return f"{value // 1_000_000}M" if value >= 1_000_000 else f"{value // 1000}k" if value >= 1000 else str(value)


CODED = ("materialised_query", "query", "codes")
SIZES = ((320, 240), (640, 480), (960, 720), (1280, 960), (1920, 1080))
AXES = {
    "gaussians": Axis("Gaussians", [{"gaussians": n} for n in (10_000, 30_000, 100_000, 300_000, 1_000_000)]),
    "pixels": Axis("pixels", [{"width": width, "height": height} for width, height in SIZES]),
    "nonzeros": Axis("nonzeros K per Gaussian and level", [{"nonzeros": k} for k in (1, 2, 4, 8)], CODED),
    "atoms": Axis("atoms L per level", [{"atoms": n} for n in (16, 32, 64, 128, 256)], CODED),
    "phrases": Axis("phrases P", [{"phrases": n} for n in (1, 2, 4, 8, 16, 32)], ("langsplat_query", *CODED[:2])),
}


def works_of(scene: Scene) -> dict[str, Work]:
    """Frames by name."""
    return {
        "rgb": scene.rgb,
        "codes": scene.codes,
        "query": scene.query,
        "materialised_query": scene.materialised,
        "langsplat_query": scene.langsplat,
    }


Times = dict[BenchConfig, dict[str, list[float]]]


def time_points(rows: dict[BenchConfig, tuple[str, ...]], rounds: int = ROUNDS, report: Report = silent) -> Times:
    """Milliseconds of frames: all rows of all points in turn, ``rounds`` times, but slow ones only the first time.

    What slows the machine down for a while so slows all points, and bends no curve.
    """
    times: Times = {config: {name: [] for name in names} for config, names in rows.items()}
    total, done = rounds * len(rows), 0
    for _ in range(rounds):
        for config, names in times.items():
            size = f"{config.width}×{config.height}"
            message = f"{config.gaussians:,} Gaussians, {size}, K {config.nonzeros}, L {config.atoms}"
            report(done, total, f"{message}, P {config.phrases}")
            done += 1
            works = works_of(Scene(config))
            for name, known in names.items():
                if not known or known[0] <= ONCE_MILLISECONDS:
                    known.append(sum(frame(works[name], config.device).values()))
    report(total, total, "done")
    return times


def measure(base: BenchConfig, axes: dict[str, Axis], rounds: int = ROUNDS, report: Report = silent) -> dict[str, Any]:
    """Time all points of all axes; the base, which is on each, once.

    Returns:
        ``axes``: for each its ``label``, ``ticks``, ``values`` and the ``milliseconds`` of each row it affects, a
        list as long as these; ``base``: milliseconds of each row there; what it was measured on.
    """
    rows = {base: tuple(LOOKS)}
    for axis in axes.values():
        rows |= {config: axis.affected for config in axis.points(base) if config != base}
    times = {
        config: {name: median(known) for name, known in names.items()}
        for config, names in time_points(rows, rounds, report).items()
    }
    return {
        "axes": {
            key: {
                "label": axis.label,
                "ticks": [axis.tick(change) for change in axis.changes],
                "values": [axis.value(change) for change in axis.changes],
                "milliseconds": {name: [times[c][name] for c in axis.points(base)] for name in axis.affected},
            }
            for key, axis in axes.items()
        },
        "base": times[base],
        "config": vars(base),
        "machine": machine(base.device),
        "date": time.strftime("%Y-%m-%d"),
    }


def _duration(milliseconds: float, _position: int | None = None) -> str:
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.3g} s"
    return f"{milliseconds:.3g} ms"


def _panel(axes: Axes, curve: dict[str, Any], base: dict[str, float]) -> None:
    """One quantity: curves of the rows it affects; of the others, where they stay."""
    values = curve["values"]
    for name, (_, colour, marker) in LOOKS.items():
        if name in curve["milliseconds"]:
            width = 2.4 if name == "query" else 1.6
            axes.plot(values, curve["milliseconds"][name], color=colour, marker=marker, markersize=5, linewidth=width)
        else:
            axes.plot(values, [base[name]] * len(values), color=colour, linewidth=1.2, linestyle=(0, (1, 2)))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title(curve["label"], fontsize=11, loc="left", pad=8)
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_major_formatter(FixedFormatter(curve["ticks"]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(_duration))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9, length=0, labelleft=True)


def draw(result: dict[str, Any], path: Path) -> None:
    """The picture: a panel per quantity, all with the same time axis, and a panel that says what is what."""
    mpl.use("Agg")
    columns = 3
    figure, panels = plt.subplots(
        -(-(len(result["axes"]) + 1) // columns),
        columns,
        figsize=(12, 6.8),
        sharey=True,
        layout=ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.1, hspace=0.04),
    )
    figure.suptitle("Time of a frame as one quantity grows", x=0.012, ha="left", fontsize=13)
    flat = list(panels.flat)
    for axes, curve in zip(flat, result["axes"].values(), strict=False):
        _panel(axes, curve, result["base"])
    for axes in flat[len(result["axes"]) :]:
        axes.axis("off")
    config, machine = result["config"], result["machine"]
    lines = [
        Line2D([], [], color=colour, marker=marker, markersize=6, linewidth=2, label=label)
        for label, colour, marker in LOOKS.values()
    ]
    key = flat[len(result["axes"])]
    key.legend(handles=lines, loc="upper left", frameon=False, fontsize=10.5, borderaxespad=0)
    threads = f", {machine['threads']} threads" if config["device"] == "cpu" else ""
    facts = [
        "dotted: does not depend on this quantity",
        f"the others stay at {config['gaussians']:,} Gaussians, {config['width']}×{config['height']},",
        f"K = {config['nonzeros']}, L = {config['atoms']}, P = {config['phrases']}",
        f"{machine['processor']}{threads}, {result['date']}",
    ]
    key.text(0, 0, "\n".join(facts), transform=key.transAxes, fontsize=8.5, color="#555555", linespacing=1.5)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=140)
    plt.close(figure)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="PNG to write")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--redraw", action="store_true", help="draw the numbers beside the picture, measure nothing")
    options = parser.parse_args()
    numbers = options.out.with_suffix(".json")
    if options.redraw:
        result = json.loads(numbers.read_text(encoding="utf-8"))
    else:
        with StageProgress() as reports:
            config = BenchConfig(dense=(), device=splat_device(options.device))
            result = measure(config, AXES, report=reports("curves"))
        write_json(numbers, result)
    draw(result, options.out)


if __name__ == "__main__":
    main()
