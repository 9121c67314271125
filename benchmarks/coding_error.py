"""How much of the regions' embeddings sparse codes keep, for K nonzeros over L atoms.

    python benchmarks/coding_error.py RUN [--views 12] [--gaussians 20000] [--json FILE]

RUN is a run folder with its rgb and features stages done. Prints the two tables of docs/language_field.md as
Markdown: the error of coding each Gaussian's lifted feature f (mean 1 - cos, weighted by how much of the pixels
the Gaussian covers), and the error per pixel after `fit_lift`.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

from encoders.errors import InputError
from encoders.files import write_json
from splat.codes import densify
from splat.coding import Coding, code
from splat.dictionary import kmeans_dictionary
from splat.features import FeatureStore
from splat.fit_lift import LiftConfig, fit_lift
from splat.gaussians import load_ply
from splat.region_views import RegionViews
from splat.scene import load_cameras

ATOMS = (32, 64, 128)
NONZEROS = (1, 2, 4, 8)
LEVELS = 3
CHANNELS = 128
"""Features of all Gaussians are lifted this many dimensions at a time."""

Table = dict[int, dict[int, float]]


def open_run(folder: Path, count: int) -> RegionViews:
    """The Gaussians of a run and up to `count` of its training views, spread evenly."""
    cameras, held_out = load_cameras(folder / "cameras.json")
    store = FeatureStore(folder / "features")
    train = [camera for camera in cameras if camera.name not in set(held_out) and store.has(camera.name)]
    step = max(1, -(-len(train) // count))
    return RegionViews(load_ply(folder / "gaussians.ply"), train[::step], store)


def lifted_features(views: RegionViews, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Un-coded features of `count` random Gaussians, written out.

    Returns:
        features: means of the embeddings they cover. float32 [count, levels, D]
        mass: how many pixels they cover, as a sum of blending weights. float32 [count, levels]
    """
    sample = torch.randperm(views.gaussians, generator=torch.Generator().manual_seed(0))[:count]
    dim = views.store.dim
    sums = torch.zeros(len(sample), LEVELS, dim)
    mass = torch.zeros(len(sample), LEVELS)
    for index in range(len(views)):
        view = views.view(index)
        for level in range(LEVELS):
            ids = view.ids[level]
            mass[:, level] += views.lift(index, (ids >= 0).float()[:, None])[sample, 0]
            table = torch.nn.functional.pad(view.embeddings, (0, 0, 0, 1))
            for first in range(0, dim, CHANNELS):
                part = slice(first, first + CHANNELS)
                sums[:, level, part] += views.lift(index, table[:, part][ids])[sample]
        _tell(f"lifting features, view {index + 1} of {len(views)}")
    return sums / mass.clamp_min(1e-4)[..., None], mass


def gaussian_error(
    features: torch.Tensor, mass: torch.Tensor, atoms: torch.Tensor, nonzeros: int, coding: Coding = "nonnegative"
) -> float:
    """Mean ``1 - cos(c A, f)`` over Gaussians and levels, weighted by mass."""
    total, weight = 0.0, 0.0
    for level, dictionary in enumerate(atoms):
        wanted = features[:, level]
        codes = code(wanted @ dictionary.T, dictionary @ dictionary.T, nonzeros, coding)
        coded = densify(*codes, len(dictionary)) @ dictionary
        error = 1 - torch.nn.functional.cosine_similarity(coded, wanted, dim=1)
        total += float((error * mass[:, level]).sum())
        weight += float(mass[:, level].sum())
    return total / weight


def markdown(title: str, table: Table) -> str:
    """A table with a row per dictionary size and a column per number of nonzeros."""
    lines = [f"| {title} | " + " | ".join(f"K = {k}" for k in NONZEROS) + " |"]
    lines.append("|---" * (len(NONZEROS) + 1) + "|")
    lines += [f"| L = {size} | " + " | ".join(f"{row[k]:.4f}" for k in NONZEROS) + " |" for size, row in table.items()]
    return "\n".join(lines)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--views", type=int, default=12, help="training views used (default 12)")
    parser.add_argument("--gaussians", type=int, default=20_000, help="Gaussians sampled for the first table")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    try:
        views = open_run(options.run, options.views)
        features, mass = lifted_features(views, options.gaussians)
    except InputError as error:
        sys.exit(str(error))
    start: Table = {}
    coded: Table = {}
    signed: Table = {}
    fitted: Table = {}
    for size in ATOMS:
        atoms = kmeans_dictionary(views, LEVELS, size)
        start[size], coded[size], signed[size], fitted[size] = {}, {}, {}, {}
        for nonzeros in NONZEROS:
            begun = time.perf_counter()
            start[size][nonzeros] = gaussian_error(features, mass, atoms, nonzeros)
            better, _, losses = fit_lift(views, atoms, LiftConfig(nonzeros))
            coded[size][nonzeros] = gaussian_error(features, mass, better, nonzeros)
            signed[size][nonzeros] = gaussian_error(features, mass, better, nonzeros, "signed")
            fitted[size][nonzeros] = losses[-1]
            _tell(f"L = {size}, K = {nonzeros}: {time.perf_counter() - begun:.1f} s")
    sys.stdout.write(
        f"{views.gaussians:,} Gaussians, {len(views)} views, {views.store.encoder} encoder, D = {views.store.dim}\n\n"
    )
    tables = {
        "Gaussians, k-means dictionary": start,
        "Gaussians, fitted dictionary": coded,
        "Gaussians, fitted, signed codes": signed,
        "Pixels, after fit_lift": fitted,
    }
    sys.stdout.write("\n\n".join(markdown(title, table) for title, table in tables.items()) + "\n")
    if options.json:
        write_json(options.json, tables)


def _tell(message: str) -> None:
    sys.stderr.write(message + "\n")


if __name__ == "__main__":
    main()
