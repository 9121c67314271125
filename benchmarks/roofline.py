"""What the CUDA kernels can be expected to take on a GPU, from counted work and published figures.

    python benchmarks/roofline.py [--gaussians 1000000] [--width 1920] [--height 1080] [--tiles 160]

Nothing here runs on a GPU. Tile lists of the benchmark's scene are made by the CPU kernels, the work of a sample of
tiles is counted exactly as the kernels would do it (batches, culling per patch, votes per warp), and multiplied by what
a step takes of a multiprocessor's issue slots, shared memory and floating-point lanes. Prints Markdown tables.
"""

import argparse
import importlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from app.bench_scene import BenchConfig, Scene
from splat import _native
from splat.rasterize import rasterize_rgb

BUDGET = Path(__file__).parents[1] / "cuda" / "gpu" / "budget.json"
TILE = 16
WARPS = 4
PATCHES = 2
BATCH = 64
TRAINED = 43
"""Atoms of 64 that a patch of the trained demo scene uses at a level, on average."""


@dataclass(frozen=True)
class Gpu:
    """Published figures of a GPU.

    Attributes:
        multiprocessors: how many.
        clock: boost clock, GHz.
        lanes: float32 multiply-adds per clock and multiprocessor.
        shared: kilobytes of shared memory per multiprocessor.
        threads: that a multiprocessor holds.
        bandwidth: of its memory, TB/s.
        architecture: for which the kernels' registers are counted.
    """

    name: str
    multiprocessors: int
    clock: float
    lanes: int
    shared: int
    threads: int
    bandwidth: float
    architecture: str


GPUS = (
    Gpu("A100 SXM 80 GB", 108, 1.41, 64, 164, 2048, 2.04, "80"),
    Gpu("H100 SXM", 132, 1.83, 128, 228, 2048, 3.35, "90"),
    Gpu("RTX 4090", 128, 2.52, 128, 100, 1536, 1.01, "89"),
)


@dataclass(frozen=True)
class Step:
    """What one warp's step takes: instructions, float32 ones among them, and cycles of the shared memory."""

    instructions: int
    floats: int
    shared: int


# Read off the PTX of the inner loops.
EVALUATE = Step(30, 14, 2)
"""A warp evaluates one staged splat (`Ray::pass` and the vote)."""
ADD = Step(34, 4, 10)
"""A warp adds a splat's four nonzeros (`CodeMap::add`)."""
GATHER = Step(40, 4, 10)
"""A warp sums the gradient of four nonzeros (six shuffles, which pass through the shared memory, and atomics)."""
ROW = Step(14, 8, 3)
"""A warp multiplies a row of eight columns (`Table::accumulate`)."""
CELL = Step(16, 0, 1)
"""A warp moves 32 cells of a code map between shared and global memory."""
STAGE = Step(130, 36, 10)
"""A warp reads 32 entries of a tile's list, tests them and stages those that reach the patch."""


@dataclass
class Work:
    """Counts over a whole frame; `patches` are blocks of 128 pixels at one level."""

    pixels: int
    intersections: float
    patches: float
    entries: float  # read by patches, until all their pixels are opaque
    staged: float  # of these, splats that reach the patch
    evaluated: float  # (warp, splat) pairs that a bounding box lets through
    visits: float  # (warp, splat) pairs with a blending weight
    pairs: float  # (pixel, splat) pairs with one


def count(scene: Scene, tiles: int) -> Work:
    """Counts the work of a sample of tiles and scales it to the frame."""
    config = scene.config
    opacities = scene.geometry[3]
    _, _, _, info = rasterize_rgb(*scene.geometry, scene.sh, *scene.view)
    means2d, conics = info["means2d"], info["conics"]
    splats = _native.Splats(info["radii"], means2d, info["depths"], conics, opacities, 1, config.width, config.height)
    offsets, ids = torch.as_tensor(splats.isect_offsets), torch.as_tensor(splats.flatten_ids)
    bounds = torch.cat([offsets, torch.tensor([len(ids)], dtype=offsets.dtype)]).tolist()
    tiles_x = -(-config.width // TILE)
    total = Work(config.width * config.height, len(ids), PATCHES * len(offsets), 0, 0, 0, 0, 0)
    sample = torch.linspace(0, len(offsets) - 1, min(tiles, len(offsets))).long().tolist()
    scale = len(offsets) / len(sample)
    for tile in sample:
        members = ids[bounds[tile] : bounds[tile + 1]].long()
        corner = torch.tensor([tile % tiles_x * TILE, tile // tiles_x * TILE])
        for patch in range(PATCHES):
            left, top = (corner + torch.tensor([0, patch * TILE // PATCHES])).tolist()
            counts = _count_patch(means2d[0, members], conics[0, members], opacities[members], left, top)
            for name, value in counts.items():
                setattr(total, name, getattr(total, name) + scale * value)
    return total


def _count_patch(means2d: Tensor, conics: Tensor, opacities: Tensor, left: int, top: int) -> dict[str, float]:
    width, height = TILE, TILE // PATCHES
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    dx = means2d[:, 0] - (x.reshape(-1, 1) + left + 0.5)
    dy = means2d[:, 1] - (y.reshape(-1, 1) + top + 0.5)
    a, b, c = conics.unbind(-1)
    alpha = (opacities * torch.exp(-(0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy))).clamp(max=0.999)
    alpha = torch.where(alpha >= 1 / 255, alpha, 0.0)
    after = torch.cumprod(1 - alpha, dim=1)
    blended = (alpha > 0) & (after > 1e-4)
    # The walk ends with the batch in which the last pixel becomes opaque.
    opaque = (after <= 1e-4).any(1)
    last = int((after <= 1e-4).int().argmax(1).max()) + 1 if bool(opaque.all()) else len(opacities)
    entries = min(len(opacities), -(-last // BATCH) * BATCH)
    sigma = 2 * (opacities * 255).clamp_min(1e-9).log() + 1e-3
    det = a * c - b * b
    reach_x, reach_y = (sigma * c / det).sqrt(), (sigma * a / det).sqrt()
    px, py = means2d[:, 0] - left - 0.5, means2d[:, 1] - top - 0.5
    lefts, tops = torch.arange(0, width, 8)[:, None], torch.arange(0, height, 4)[:, None]
    across = (px + reach_x >= lefts) & (px - reach_x <= lefts + 7)
    down = (py + reach_y >= tops) & (py - reach_y <= tops + 3)
    reaches = ((opacities >= 1 / 255) & across & down[:, None])[..., :entries]
    # Warps of 8 x 4 pixels.
    warps = blended.reshape(height // 4, 4, width // 8, 8, -1).any(3).any(1)
    return {
        "entries": float(entries),
        "staged": float(reaches.any(0).any(0).sum()),
        "evaluated": float(reaches.sum()),
        "visits": float(warps.sum()),
        "pairs": float(blended.sum()),
    }


@dataclass(frozen=True)
class Kernel:
    """What a kernel does in a frame: how often each step, and bytes of memory written or read once."""

    name: str
    steps: tuple[tuple[float, Step], ...]
    bytes: float

    @property
    def flops(self) -> float:
        """Float32 operations of all lanes, a multiply-add as two."""
        return sum(n * step.floats for n, step in self.steps) * 32 * 2


def kernels(work: Work, levels: int, atoms: int, active: int, texts: int) -> list[Kernel]:
    """The kernels over counted work; `active` atoms of a patch are used at each level."""
    blocks = levels * work.patches
    listing = (levels * WARPS / 2 * work.entries / BATCH, STAGE)
    evaluate = (levels * work.evaluated, EVALUATE)
    cells = (blocks * WARPS * atoms, CELL)
    rows = sum(active - first for first in range(0, active, 8)) + -(-texts // 8) * active
    code_map = 4.0 * work.pixels * levels * atoms
    # Lists and splats come from the second-level cache; once from memory.
    splats = 28.0 * work.intersections
    walk = [(WARPS / 2 * work.entries / BATCH, STAGE), (work.evaluated, EVALUATE)]
    return [
        Kernel("RGB (the same walk, 3 channels)", (*walk, (work.visits, Step(8, 4, 1))), splats + 16.0 * work.pixels),
        Kernel("codes", (listing, evaluate, (levels * work.visits, ADD), cells), splats + code_map),
        Kernel("gradient of codes", (listing, evaluate, (levels * work.visits, GATHER), cells), splats + code_map),
        Kernel(
            f"query, {active} atoms per patch",
            (listing, evaluate, (levels * work.visits, ADD), (blocks * WARPS * rows, ROW)),
            splats + 4.0 * work.pixels * (levels + 1),
        ),
    ]


def bounds_ms(kernel: Kernel, gpu: Gpu) -> dict[str, float]:
    """Milliseconds that each resource of the GPU needs at least."""
    cycles = gpu.multiprocessors * gpu.clock * 1e6
    return {
        "issue": sum(n * s.instructions for n, s in kernel.steps) / 4 / cycles,
        "float32": sum(n * s.floats for n, s in kernel.steps) * 32 / gpu.lanes / cycles,
        "shared memory": sum(n * s.shared for n, s in kernel.steps) / cycles,
        "memory": kernel.bytes / (gpu.bandwidth * 1e9),
    }


def occupancy(nonzeros: int, atoms: int) -> list[str]:
    """Markdown rows: blocks, and warps, that a multiprocessor holds at a time, by kernel and GPU."""
    budget = json.loads(BUDGET.read_text(encoding="utf-8"))["kernels"]
    rows = []
    for name, (threads, shared) in importlib.import_module("splat._cuda").blocks(nonzeros, atoms).items():
        cells = []
        for gpu in GPUS:
            kernel = next(k for k in budget if k in (f"{name}_kernel", f"{name}_kernel<{threads}>"))
            registers = -(-budget[kernel][gpu.architecture]["registers"] // 8) * 8 * threads
            blocks = min(gpu.shared * 1024 // (shared + 1024), 65536 // registers, gpu.threads // threads)
            cells.append(f"{blocks} ({blocks * threads // 32})")
        rows.append(f"| {name} | {threads} | {shared / 1024:.1f} KB | {' | '.join(cells)} |")
    return rows


def main() -> int:
    """Counts, and prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gaussians", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=1920)
    parser.add_argument("--height", type=int, default=1080)
    parser.add_argument("--tiles", type=int, default=160, help="how many tiles to count")
    given = parser.parse_args()
    config = BenchConfig(gaussians=given.gaussians, width=given.width, height=given.height)
    work = count(Scene(config), given.tiles)
    frame = f"{given.gaussians:,} Gaussians, {given.width}×{given.height}"
    print(f"{frame}: {work.intersections / 1e6:.1f} M intersections with tiles. A level reads")
    print(f"{work.entries / 1e6:.1f} M list entries and stages {work.staged / 1e6:.1f} M; warps evaluate these")
    print(f"{work.evaluated / 1e6:.1f} M times and blend {work.visits / 1e6:.1f} M times, {work.pairs / 1e6:.0f} M")
    print("(pixel, splat) pairs.\n")
    names = " | ".join(gpu.name for gpu in GPUS)
    print(f"| kernel | threads | shared memory | {names} |")
    print("|---|---:|---:|" + "---:|" * len(GPUS))
    print(*occupancy(config.nonzeros, config.atoms), sep="\n", end="\n\n")
    print("| kernel | Gflop | GB | GPU | issue | float32 | shared memory | memory | bound ms | twice that | FPS |")
    print("|---|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|")
    rows = kernels(work, config.levels, config.atoms, config.atoms, config.phrases + 4)
    rows.append(kernels(work, config.levels, config.atoms, TRAINED, config.phrases + 4)[-1])
    for kernel in rows:
        for gpu in GPUS:
            bounds = bounds_ms(kernel, gpu)
            bound = max(bounds.values())
            parts = " | ".join(f"{value:.2f}" for value in bounds.values())
            done = f"{kernel.flops / 1e9:.1f} | {kernel.bytes / 1e9:.2f}"
            print(
                f"| {kernel.name} | {done} | {gpu.name} | {parts} | {bound:.2f} | {2 * bound:.2f} | {500 / bound:.0f} |"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
