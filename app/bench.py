"""The speed table: dictsplat beside the ways it replaces, in one run, interleaved."""

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from app.bench_anomaly import AnomalyBenchConfig, print_anomaly_bench
from app.bench_anomaly import measure as measure_anomaly
from app.bench_baselines import Geometry, langsplat_decoder, langsplat_query, materialised_query, torch_rasterize_rgb
from encoders.files import write_json
from encoders.progress import Report, silent
from splat import _native
from splat.rasterize import rasterize_codes, rasterize_relevancy, rasterize_rgb


@dataclass(frozen=True)
class BenchConfig:
    """What is timed. The defaults are the table of the README."""

    gaussians: int = 100_000
    width: int = 640
    height: int = 480
    levels: int = 3
    nonzeros: int = 4
    atoms: int = 64
    dim: int = 512
    phrases: int = 1
    repeats: int = 5
    slow: bool = True
    seed: int = 0


class _Scene:
    """A room whose walls, floor and content are covered by Gaussians of the sizes a trained scene has."""

    def __init__(self, config: BenchConfig):
        g = torch.Generator().manual_seed(config.seed)
        n = config.gaussians
        self.config = config
        means = torch.rand(n, 3, generator=g) * torch.tensor([4.0, 3.0, 3.0]) - torch.tensor([2.0, 1.5, -1.5])
        face = torch.randint(0, 3, (n,), generator=g)
        means[face == 0, 2], means[face == 1, 1], means[face == 2, 0] = 4.5, 1.5, 2.0
        scales = torch.exp(torch.randn(n, 3, generator=g) * 0.5 - 4.3) * (100_000 / n) ** 0.5
        opacities = torch.sigmoid(torch.randn(n, generator=g) * 1.5)
        self.geometry = (means, torch.randn(n, 4, generator=g), scales, opacities)
        self.sh = torch.randn(n, 16, 3, generator=g) * 0.2
        focal = 0.78 * config.width
        self.viewmats = torch.eye(4)[None]
        self.Ks = torch.tensor([[[focal, 0, config.width / 2], [0, focal, config.height / 2], [0, 0, 1]]])
        shape = (n, config.levels, config.nonzeros)
        self.indices = torch.randint(0, config.atoms, shape, generator=g).to(torch.uint8)
        self.weights = torch.rand(shape, generator=g)
        self.weights /= self.weights.sum(-1, keepdim=True)

        def unit(*size: int) -> Tensor:
            return torch.nn.functional.normalize(torch.randn(*size, generator=g), dim=-1)

        self.dictionary = unit(config.levels, config.atoms, config.dim)
        self.texts = unit(config.phrases + 4, config.dim)
        self.latents = torch.rand(config.levels, n, 3, generator=g)
        torch.manual_seed(config.seed)
        self.decoders = [langsplat_decoder(config.dim) for _ in range(config.levels)]

    @property
    def view(self) -> tuple[Tensor, Tensor, int, int]:
        return self.viewmats, self.Ks, self.config.width, self.config.height

    def rgb(self) -> None:
        rasterize_rgb(*self.geometry, self.sh, *self.view)

    def codes(self) -> None:
        rasterize_codes(*self.geometry, self.indices, self.weights, *self.view, atoms=self.config.atoms)

    def query(self) -> Tensor:
        """Everything a query frame costs once the phrase is encoded, the Gram matrix included."""
        scores = torch.einsum("lad,td->lta", self.dictionary, self.texts)
        gram = self.dictionary @ self.dictionary.transpose(1, 2)
        phrases = self.config.phrases
        relevancy, _ = rasterize_relevancy(
            *self.geometry, self.indices, self.weights, scores, gram, phrases, *self.view
        )
        return relevancy[0]

    def langsplat(self) -> Tensor:
        phrases = self.config.phrases
        return langsplat_query(self.geometry, self.latents, self.decoders, self.texts, phrases, *self.view)

    def materialised(self) -> Tensor:
        return materialised_query(
            self.geometry, self.indices, self.weights, self.dictionary, self.texts, self.config.phrases, *self.view,
        )  # fmt: skip

    def _leaves(self) -> tuple[Geometry, Tensor]:
        means, quats, scales, opacities, sh = (tensor.clone().requires_grad_() for tensor in (*self.geometry, self.sh))
        return (means, quats, scales, opacities), sh

    def rgb_training_step(self) -> None:
        geometry, sh = self._leaves()
        rasterize_rgb(*geometry, sh, *self.view)[0].square().mean().backward()

    def torch_training_step(self) -> None:
        geometry, sh = self._leaves()
        width, height = self.config.width, self.config.height
        torch_rasterize_rgb(geometry, sh, self.viewmats[0], self.Ks[0], width, height).square().mean().backward()


QUICK_SECONDS = 0.5


def _seconds(work: Callable[[], Any]) -> float:
    """Seconds of one call; of a quick one the second of two, because a frame follows a frame like it."""
    for _ in range(2):
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
        if seconds > QUICK_SECONDS:
            break
    return seconds


def measure(config: BenchConfig, report: Report = silent) -> dict[str, Any]:
    """Time every row ``config.repeats`` times, interleaved, after one warm-up each.

    Returns:
        ``milliseconds`` per row (medians), the ratios of medians ``codes_over_rgb``, ``langsplat_over_ours``,
        ``materialised_over_ours`` and ``torch_over_ours``, and what they were measured on.
    """
    scene = _Scene(config)
    rows: dict[str, Callable[[], Any]] = {
        "rgb": scene.rgb,
        "codes": scene.codes,
        "query": scene.query,
        "materialised_query": scene.materialised,
        "langsplat_query": scene.langsplat,
        "rgb_training_step": scene.rgb_training_step,
    }
    if config.slow:
        rows["torch_training_step"] = scene.torch_training_step
    ours, theirs = scene.query(), scene.materialised()
    exact = float((ours - theirs)[ours > 0.0].abs().max())  # 0 marks pixels that no code reaches
    times: dict[str, list[float]] = {name: [] for name in rows}
    total = (config.repeats + 1) * len(rows)
    for repeat in range(config.repeats + 1):
        for position, (name, work) in enumerate(rows.items()):
            report(repeat * len(rows) + position, total, name.replace("_", " "))
            seconds = _seconds(work)
            if repeat:
                times[name].append(seconds)
    report(total, total, "done")
    medians = {name: 1e3 * statistics.median(values) for name, values in times.items()}
    ratios = {
        "codes_over_rgb": medians["codes"] / medians["rgb"],
        "langsplat_over_ours": medians["langsplat_query"] / medians["query"],
        "materialised_over_ours": medians["materialised_query"] / medians["query"],
    }
    if config.slow:
        ratios["torch_over_ours"] = medians["torch_training_step"] / medians["rgb_training_step"]
    return {
        **ratios,
        "milliseconds": medians,
        "largest_difference_from_materialised": exact,
        "config": vars(config),
        "machine": {
            "processor": _processor(),
            "threads": torch.get_num_threads(),
            "isa": _native.isa(),
            "torch": torch.__version__,
        },
        "date": time.strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


_ROWS = {
    "rgb": ("RGB forward", "the unit"),
    "codes": ("sparse codes, 3 × 4 nonzeros of 3 × 64", "ours"),
    "query": ("text query, relevancy out of the splat", "ours"),
    "materialised_query": ("text query through the 3 × 512-D feature map", "LangSplatV2 as published"),
    "langsplat_query": ("text query through 3-D latents and an MLP", "LangSplat"),
    "rgb_training_step": ("RGB forward + backward", "ours"),
    "torch_training_step": ("RGB forward + backward, tile by tile in torch", "baseline"),
}


def bench(json: Path | None = None, report: Report = silent, anomaly_report: Report = silent) -> dict[str, Any]:
    """Measure both halves, print the tables, and write the numbers to ``json`` if given."""
    result = measure(BenchConfig(), report)
    result["anomaly"] = measure_anomaly(AnomalyBenchConfig(), anomaly_report)
    config, machine = result["config"], result["machine"]
    table = Table(
        title=f"{config['width']}×{config['height']}, {config['gaussians']:,} Gaussians, {machine['threads']} threads, "
        f"{machine['processor']} ({machine['isa']}), {result['date']}"
    )
    for column in ("what", "how", "median ms", "× RGB forward"):
        table.add_column(column, justify="right" if column.startswith(("median", "×")) else "left")
    for name, milliseconds in result["milliseconds"].items():
        what, how = _ROWS[name]
        table.add_row(what, how, f"{milliseconds:.1f}", f"{milliseconds / result['milliseconds']['rgb']:.2f}")
    console = Console()
    console.print(table)
    for key in ("codes_over_rgb", "langsplat_over_ours", "materialised_over_ours", "torch_over_ours"):
        console.print(f"{key}: {result[key]:.2f}")
    print_anomaly_bench(result["anomaly"], console)
    if json is not None:
        write_json(json, result)
    return result
