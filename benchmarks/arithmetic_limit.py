"""How close the CPU kernels come to what their arithmetic takes.

    python benchmarks/arithmetic_limit.py [--gaussians 100000] [--width 640] [--height 480] [--repeats 15]

Counts (pixel, splat) pairs that the kernels evaluate on the benchmark's scene, multiplies them by the floating-point
operations of a pair, read off `cuda/cpu/*.inl`, and divides by the processor's peak, which a loop of independent
multiply-adds finds out (compiled with g++). Prints a Markdown table of limits and measured medians. A limit counts
only these operations: no comparison, no shuffle, no load.
"""

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from app.bench_scene import BenchConfig, Scene
from encoders.errors import InputError
from splat import _native
from splat.rasterize import rasterize_rgb

TILE, BLOCK, BATCH = 16, 4, 16
"""Pixels across a tile and a block; splats between two looks at which blocks still take light."""
BLENDING = 22
"""Operations of a pair until its blending weight is known: log2(alpha) 5, 2^x 13, the maximum 1, transmittance 3."""
COLOURS = 9
"""Red, green, blue and depth are multiply-adds, coverage an addition."""
ADJOINT = 38
"""Gain 8, what lies behind 2, 1 / (1 - alpha) 5, gradient of sigma 4, its moments 11, gradients of the colours 8."""
DENSE = (192, 1536)

_PEAK = r"""
#include <chrono>
#include <cstdio>
typedef float Wide __attribute__((vector_size(BYTES)));
int main() {
    Wide x[24] = {}, scale = Wide{} + 0.999f, shift = Wide{} + 0.001f;
    double best = 0;
    for (int repeat = 0; repeat < 5; ++repeat) {
        const auto start = std::chrono::steady_clock::now();
        for (int i = 0; i < 2000000; ++i) {
#pragma GCC unroll 24
            for (int k = 0; k < CHAINS; ++k)
                asm volatile("vfmadd213ps %2, %1, %0" : "+v"(x[k]) : "v"(scale), "v"(shift));
        }
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        const double rate = 2e6 * CHAINS * 2 * (BYTES / 4) / seconds;
        if (rate > best) best = rate;
    }
    double clock = 0;
    for (int repeat = 0; repeat < 5; ++repeat) {
        unsigned long product = 3;
        const auto start = std::chrono::steady_clock::now();
        for (int i = 0; i < 1000000; ++i) {
#pragma GCC unroll 16
            for (int k = 0; k < 16; ++k) asm volatile("imul %0, %0" : "+r"(product));
        }
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        if (3 * 16e6 / seconds > clock) clock = 3 * 16e6 / seconds;
    }
    std::printf("%g %g", best, clock);
}
"""


@dataclass(frozen=True)
class Peak:
    """Of one core: float32 operations per second, and clocks per second with a multiplication every third."""

    flops: float
    clock: float


def measure_peak() -> Peak:
    """Time chains of multiply-adds that do not wait for each other."""
    wide = _native.isa() == "avx512"
    size, chains = (64, 24) if wide else (32, 12)
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "peak.cpp"), Path(folder, "peak")
        source.write_text(_PEAK, encoding="utf-8")
        flags = ["-O2", f"-march=x86-64-v{4 if wide else 3}", f"-DBYTES={size}", f"-DCHAINS={chains}"]
        try:
            subprocess.run(["g++", *flags, "-o", program, source], check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise InputError("g++ cannot compile the loop that finds the processor's peak; install g++.") from error
        flops, clock = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()
    return Peak(float(flops), float(clock))


@dataclass
class Frame:
    """What the kernels read of one frame, and how many pairs they evaluate.

    Attributes:
        evaluated: pairs of a pixel and a splat for which alpha is computed, in blocks of 16 pixels.
        queued: those in blocks where some pixel gets a weight.
        weighted: those with a weight.
    """

    splats: _native.Splats
    depths: Tensor
    evaluated: float
    queued: float
    weighted: float


def prepare(scene: Scene, tiles: int) -> Frame:
    """Project the scene and count pairs on a sample of tiles."""
    width, height = scene.config.width, scene.config.height
    _, _, _, info = rasterize_rgb(*scene.geometry, scene.sh, *scene.view)
    means2d, conics, opacities = info["means2d"], info["conics"], scene.geometry[3]
    splats = _native.Splats(info["radii"], means2d, info["depths"], conics, opacities, 1, width, height)
    offsets, ids = torch.as_tensor(splats.isect_offsets), torch.as_tensor(splats.flatten_ids)
    bounds = [*offsets.tolist(), len(ids)]
    sample = torch.linspace(0, len(offsets) - 1, min(tiles, len(offsets))).long().tolist()
    tiles_x = -(-width // TILE)
    totals = torch.zeros(3, dtype=torch.float64)
    for tile in sample:
        members = ids[bounds[tile] : bounds[tile + 1]].long()
        left, top = tile % tiles_x * TILE, tile // tiles_x * TILE
        inside = (min(TILE, width - left), min(TILE, height - top))
        totals += count_tile(means2d[0, members], conics[0, members], opacities[members], left, top, *inside)
    return Frame(splats, info["depths"], *(totals * len(offsets) / max(len(sample), 1)).tolist())


def count_tile(
    means2d: Tensor, conics: Tensor, opacities: Tensor, left: int, top: int, columns: int, rows: int
) -> Tensor:
    """Pairs [3] of a tile's splats, front to back, as in :class:`Frame`."""
    y, x = torch.meshgrid(torch.arange(TILE), torch.arange(TILE), indexing="ij")
    dx, dy = means2d[:, :1, None] - (x + left + 0.5), means2d[:, 1:, None] - (y + top + 0.5)
    a, b, c = (conics[:, k, None, None] for k in range(3))
    alpha = opacities[:, None, None] * torch.exp(-(0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy))
    alpha = torch.where(alpha >= 1 / 255, alpha.clamp(max=0.999), 0.0)
    after = torch.cumprod(1 - alpha, dim=0)
    before = torch.cat([torch.ones_like(after[:1]), after[:-1]]) * ((x < columns) & (y < rows))
    live = before[(torch.arange(len(before)) // BATCH) * BATCH] > 1e-4
    # The box around the ellipse of alpha = 1/255.
    extent = 2 * torch.log(opacities * 255).clamp(min=0)[:, None, None] / (a * c - b * b)
    box = (dx * dx <= extent * c) & (dy * dy <= extent * a) & (x < columns) & (y < rows)
    weighted = (alpha > 0) & (after > 1e-4) & (before > 0)

    def blocks(mask: Tensor) -> Tensor:
        return mask.unflatten(2, (-1, BLOCK)).unflatten(1, (-1, BLOCK)).any(4).any(2)

    pixels = BLOCK * BLOCK
    counts = ((blocks(box) & blocks(live)).sum() * pixels, blocks(weighted).sum() * pixels, weighted.sum())
    return torch.stack(counts).double()


@dataclass(frozen=True)
class Row:
    """One kernel: its name, its operations in a frame, and a call of it."""

    name: str
    flops: float
    call: Callable[[], object]


def rows(scene: Scene, frame: Frame) -> list[Row]:
    """Kernels by themselves: no projection, no lists, no allocation."""
    config, splats = scene.config, frame.splats
    images = (1, config.height, config.width)
    pixels = config.height * config.width
    colors = torch.rand(1, config.gaussians, 3)
    rgb, depth, alpha = torch.empty(*images, 3), torch.empty(*images, 1), torch.empty(*images, 1)
    v_rgb, v_plane = torch.rand(*images, 3), torch.rand(*images, 1)
    gradients = torch.empty(1, config.gaussians, 10)
    codes = _native.pooled_map(pixels * config.levels * config.atoms)
    scores = torch.einsum("lad,td->lta", scene.dictionary, scene.texts).contiguous()
    gram = (scene.dictionary @ scene.dictionary.transpose(1, 2)).contiguous()
    maps = torch.empty(1, config.phrases, config.levels, *images[1:])
    blending = BLENDING * frame.evaluated
    adding = blending + frame.evaluated + 2 * config.levels * config.nonzeros * frame.queued
    # W G W over half of a symmetric matrix, W A t for every text, and a dozen operations of the sigmoid.
    query = pixels * config.levels * (config.atoms * (config.atoms + 1) + 2 * config.atoms * len(scene.texts) + 12)

    def blend() -> None:
        splats.blend(colors, frame.depths, rgb, depth, alpha)

    def blend_vjp() -> None:
        splats.blend_vjp(colors, frame.depths, rgb, depth, alpha, v_rgb, v_plane, v_plane, gradients)

    def splat_codes() -> None:
        splats.codes(scene.indices, scene.weights, config.levels, config.atoms, codes, alpha)

    def relevancy() -> None:
        splats.relevancy(
            scene.indices, scene.weights, scores, gram, config.phrases, 10.0, config.levels, config.atoms, maps, alpha
        )

    result = [
        Row("RGB forward", blending + COLOURS * frame.evaluated, blend),
        Row("RGB backward", blending + ADJOINT * frame.evaluated, blend_vjp),
        Row("codes", adding, splat_codes),
        Row("query", adding + query, relevancy),
    ]
    for channels in DENSE:
        values, out = torch.rand(config.gaussians, channels), torch.empty(*images, channels)

        def dense(values: Tensor = values, channels: int = channels, out: Tensor = out) -> None:
            splats.features(values, channels, out, alpha)

        result.append(Row(f"dense, {channels} channels", blending + 2 * channels * frame.weighted, dense))
    return result


def measure(kernels: list[Row], threads: list[int], repeats: int) -> dict[tuple[str, int], float]:
    """Median milliseconds of each kernel for each number of threads, interleaved, after one call each."""
    before = torch.get_num_threads()
    times: dict[tuple[str, int], list[float]] = {(row.name, count): [] for row in kernels for count in threads}
    for repeat in range(repeats + 1):
        for row in kernels:
            for count in threads:
                torch.set_num_threads(count)
                start = time.perf_counter()
                row.call()
                if repeat:
                    times[row.name, count].append(1e3 * (time.perf_counter() - start))
    torch.set_num_threads(before)
    return {key: statistics.median(values) for key, values in times.items()}


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--gaussians", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--tiles", type=int, default=300, help="tiles that are counted, of the frame's")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    peak = measure_peak()
    scene = Scene(BenchConfig(gaussians=options.gaussians, width=options.width, height=options.height))
    frame = prepare(scene, options.tiles)
    cores = torch.get_num_threads()
    kernels = rows(scene, frame)
    medians = measure(kernels, [1, cores], options.repeats)
    print(
        f"{_native.isa()}, {peak.clock / 1e9:.2f} GHz, {peak.flops / 1e9:.0f} GFLOP/s per core, {cores} cores; "
        f"{frame.evaluated / 1e6:.1f} M pairs evaluated, {frame.queued / 1e6:.1f} M in blocks with a weight, "
        f"{frame.weighted / 1e6:.1f} M with one\n"
    )
    print("| kernel | GFLOP | limit, 1 core | measured | × | measured, all cores | scaling |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in kernels:
        one, all_cores = medians[row.name, 1], medians[row.name, cores]
        limit = 1e3 * row.flops / peak.flops
        print(
            f"| {row.name} | {row.flops / 1e9:.2f} | {limit:.1f} ms | {one:.1f} ms | {one / limit:.1f} | "
            f"{all_cores:.1f} ms | {one / all_cores:.2f} |"
        )


if __name__ == "__main__":
    main()
