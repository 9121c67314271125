"""The native kernels on scenes that no camera ever saw: any numbers, any sizes. `make sanitize` looks on."""

import os

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dictas import _native as lookup_native
from splat.rasterize import lift, rasterize_codes, rasterize_features, rasterize_relevancy, rasterize_rgb

EXAMPLES = int(os.environ.get("DICTSPLAT_EXAMPLES", "25"))
ODD = (float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 1e-45, 1e-30, -1.0, 1e10, 3e38, -3e38)
GEOMETRY = ("means", "quats", "scales", "opacities")


def spoil(tensor: Tensor, generator: torch.Generator, share: float) -> None:
    """Put odd numbers into a share of the places."""
    hit = torch.rand(tensor.shape, generator=generator) < share
    odd = torch.tensor(ODD)[torch.randint(len(ODD), tensor.shape, generator=generator)]
    tensor[hit] = odd[hit]


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(0, 400),
    cameras=st.integers(1, 2),
    width=st.integers(1, 70),
    height=st.integers(1, 40),
    share=st.sampled_from([0.0, 0.01, 0.3]),
    spoilt=st.sets(st.sampled_from([*GEOMETRY, "viewmats", "Ks"])),
    levels=st.integers(1, 3),
    nonzeros=st.integers(1, 5),
    atoms=st.integers(1, 64),
)
def test_odd_numbers_never_leave_the_picture(
    seed: int,
    count: int,
    cameras: int,
    width: int,
    height: int,
    share: float,
    spoilt: set[str],
    levels: int,
    nonzeros: int,
    atoms: int,
) -> None:
    g = torch.Generator().manual_seed(seed)
    scene = {name: value[:count] for name, value in reference.random_scene(max(count, 1), seed).items()}
    views = [reference.camera(0.3 * number, width, height) for number in range(cameras)]
    scene["viewmats"], scene["Ks"] = (torch.stack(part) for part in zip(*views, strict=True))
    for name in spoilt:
        spoil(scene[name], g, share)
    geometry = [scene[name].requires_grad_() for name in GEOMETRY]
    poses = scene["viewmats"], scene["Ks"]
    view = (*poses, width, height)

    rgb, depth, alphas, _ = rasterize_rgb(*geometry, scene["sh"].requires_grad_(), *view)
    (rgb.sum() + depth.sum() + alphas.sum()).backward()
    assert bool(((alphas >= 0) & (alphas <= 1)).all())

    indices = torch.randint(atoms, (count, levels, nonzeros), generator=g).to(torch.uint8)
    weights = torch.rand(count, levels, nonzeros, generator=g).requires_grad_()
    codes, _ = rasterize_codes(*geometry, indices, weights, *view, atoms=atoms)
    codes.sum().backward()
    features, _ = rasterize_features(*geometry, torch.rand(count, 1 + atoms, generator=g), *view)
    sums, mass = lift(*geometry, torch.rand(cameras, height, width, nonzeros, generator=g), *poses)
    scores, root = torch.rand(levels, 3, atoms, generator=g), torch.rand(levels, atoms, atoms, generator=g)
    relevancy, _ = rasterize_relevancy(
        *geometry, indices, weights, scores, root @ root.transpose(1, 2), 2, *view, temperature=10.0
    )
    for image in (codes, features, sums, mass, weights.grad):
        assert image is not None
        assert bool(image.isfinite().all())
    assert bool(((relevancy >= 0) & (relevancy <= 1)).all())


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    queries=st.integers(0, 40),
    keys=st.integers(1, 90),
    channels=st.integers(1, 40),
    share=st.sampled_from([0.0, 0.01, 0.3]),
    threads=st.integers(1, 3),
)
def test_odd_queries_and_keys_stay_within_the_dictionary(
    seed: int, queries: int, keys: int, channels: int, share: float, threads: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    asked, known = torch.randn(queries, channels, generator=g), torch.randn(keys, channels, generator=g)
    for tensor in (asked, known):
        spoil(tensor, g, share)
    starts, entries, shares = lookup_native.PackedKeys(known).support(asked, threads)
    assert len(starts) == queries + 1
    assert len(entries) == len(shares) == int(starts[-1])
    assert bool(((entries >= 0) & (entries < keys)).all())


@pytest.mark.parametrize("width", [0, -1])
def test_pictures_without_pixels_are_refused(width: int) -> None:
    scene = reference.random_scene(3, 0)
    viewmat, K = reference.camera(0.0, 8, 8)
    with pytest.raises((ValueError, RuntimeError)):
        rasterize_rgb(*(scene[name] for name in (*GEOMETRY, "sh")), viewmat[None], K[None], width, 8)
