"""The native rasteriser against float64 autograd and gsplat's torch reference."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import reference
import torch
from gsplat.cuda._torch_impl import _isect_offset_encode, _isect_tiles
from torch import Tensor

from splat import _native
from splat.raster_inputs import View
from splat.rasterize import lift, rasterize_codes, rasterize_relevancy, rasterize_rgb
from splat.rasterize_cpu import Project

WIDTH, HEIGHT = 45, 37  # not multiples of the tile
NAMES = ("means", "quats", "scales", "opacities", "sh")


def cameras(count: int) -> tuple[Tensor, Tensor]:
    pairs = [reference.camera(0.1 - 0.25 * i, WIDTH, HEIGHT) for i in range(count)]
    return torch.stack([p[0] for p in pairs]), torch.stack([p[1] for p in pairs])


def geometry(scene: dict[str, Tensor]) -> tuple[Tensor, ...]:
    return tuple(scene[name] for name in NAMES[:4])


def reference_render(scene: dict[str, Tensor], viewmats: Tensor, Ks: Tensor, degree: int) -> Tensor:
    """[C, H, W, 5]: rgb, depth, alpha."""
    images = []
    for viewmat, K in zip(viewmats.double(), Ks.double(), strict=True):
        weights = reference.blending_weights(*geometry(scene), viewmat, K, WIDTH, HEIGHT)
        depth = (scene["means"] @ viewmat[:3, :3].T + viewmat[:3, 3])[:, 2:]
        values = torch.cat([reference.colors(scene["means"], scene["sh"], viewmat, degree), depth], dim=1)
        images.append(torch.cat([weights @ values, weights.sum(1, keepdim=True)], dim=1))
    return torch.stack(images).reshape(len(viewmats), HEIGHT, WIDTH, 5)


def relative(ours: Tensor, truth: Tensor) -> float:
    return float((ours.double() - truth).norm() / truth.norm())


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_forward_and_gradients_agree_with_float64_autograd(degree: int) -> None:
    ours = {k: v.requires_grad_() for k, v in reference.random_scene(150, seed=degree).items()}
    truth = {k: v.detach().double().requires_grad_() for k, v in ours.items()}
    viewmats, Ks = cameras(2)
    rgb, depth, alphas, _ = rasterize_rgb(*(ours[n] for n in NAMES), viewmats, Ks, WIDTH, HEIGHT, sh_degree=degree)
    image = torch.cat([rgb, depth, alphas], dim=-1)
    expected = reference_render(truth, viewmats, Ks, degree)
    assert float(alphas.detach().max()) > 0.95
    # A pixel where alpha lies within rounding of 1/255 may go either way; allow a few such pixels.
    error = (image.detach().double() - expected.detach()).abs()
    assert float(error.median()) < 1e-6
    assert float((error > 1e-4).double().mean()) < 1e-3

    upstream = torch.randn(image.shape, generator=torch.Generator().manual_seed(7))
    image.backward(upstream)
    expected.backward(upstream.double())
    for name in NAMES:
        assert ours[name].grad is not None
        assert relative(ours[name].grad, truth[name].grad) < 1e-3, name


def test_gradient_is_the_slope_of_the_render() -> None:
    """Central differences of the native forward pass itself, along the gradient.

    Every Gaussian covers the whole picture: where its edge crosses a pixel the render jumps by 1/255, which no
    gradient sees.
    """
    scene = reference.random_scene(6, seed=11)
    scene["means"] = scene["means"] * 0.2 + torch.tensor([0.0, 0.0, 2.5])
    scene["scales"] = scene["scales"] + 1.2
    scene["opacities"] = scene["opacities"] * 0.4 + 0.1
    viewmats, Ks = cameras(1)
    target = torch.rand(1, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(1))

    def loss(values: dict[str, Tensor]) -> Tensor:
        return (
            (rasterize_rgb(*(values[n] for n in NAMES), viewmats, Ks, WIDTH, HEIGHT)[0] - target).double() ** 2
        ).sum()

    for name in NAMES:
        leaf = {k: v.clone().requires_grad_(k == name) for k, v in scene.items()}
        loss(leaf).backward()
        gradient = leaf[name].grad
        assert gradient is not None
        direction = gradient / gradient.norm()
        step = 2e-3
        up, down = dict(scene), dict(scene)
        up[name], down[name] = scene[name] + step * direction, scene[name] - step * direction
        slope = float(loss(up) - loss(down)) / (2 * step)
        assert slope == pytest.approx(float((gradient * direction).sum()), rel=0.02), name


def test_projection_agrees_with_gsplat() -> None:
    scene = reference.random_scene(400, seed=3)
    viewmats, Ks = cameras(3)
    means2d, depths, conics, radii = Project.apply(
        scene["means"], scene["quats"], scene["scales"], None, View(viewmats, Ks, WIDTH, HEIGHT)
    )
    for c in range(3):
        expected = reference.project(scene["means"], scene["quats"], scene["scales"], viewmats[c], Ks[c], WIDTH, HEIGHT)
        visible = expected[0][:, 0] > 0
        assert 50 < int(visible.sum()) < 400
        # The square is rounded up to whole pixels: one pixel more or less where it falls on the integer.
        assert int((radii[c] - expected[0]).abs().max()) <= 1
        assert float((radii[c] == expected[0]).float().mean()) > 0.99
        torch.testing.assert_close(means2d[c][visible], expected[1][visible], rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(depths[c][visible], expected[2][visible], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(conics[c][visible], expected[3][visible], rtol=2e-3, atol=1e-4)


def test_tile_lists_equal_gsplats() -> None:
    scene = reference.random_scene(300, seed=5)
    scene["means"][7] = scene["means"][8]  # equal depths keep the order of the indices
    viewmats, Ks = cameras(2)
    view = View(viewmats, Ks, WIDTH, HEIGHT)
    means2d, depths, conics, radii = Project.apply(scene["means"], scene["quats"], scene["scales"], None, view)
    splats = _native.Splats(radii, means2d, depths, conics, scene["opacities"], 2, WIDTH, HEIGHT)
    tiles_x, tiles_y = -(-WIDTH // 16), -(-HEIGHT // 16)
    _, isect_ids, flatten_ids = _isect_tiles(means2d, radii, depths, 16, tiles_x, tiles_y, sort=False)
    isect_ids, order = torch.sort(isect_ids, stable=True)
    offsets = _isect_offset_encode(isect_ids, 2, tiles_x, tiles_y)
    assert len(isect_ids) > 500
    assert torch.equal(torch.as_tensor(splats.flatten_ids), flatten_ids[order])
    assert torch.equal(torch.as_tensor(splats.isect_offsets), offsets.flatten())


def test_a_gaussian_without_height_is_in_no_list() -> None:
    radii = torch.tensor([[[5, 0], [0, 5], [5, 5]]], dtype=torch.int32)
    means2d, conics = torch.full((1, 3, 2), 20.5), torch.ones(1, 3, 3)
    splats = _native.Splats(radii, means2d, torch.ones(1, 3), conics, torch.ones(3), 1, WIDTH, HEIGHT)
    assert set(splats.flatten_ids.tolist()) == {2}


def random_codes(count: int, levels: int, nonzeros: int, atoms: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(count)
    indices = torch.randint(0, atoms, (count, levels, nonzeros), generator=g).to(torch.uint8)
    return indices, torch.rand(count, levels, nonzeros, generator=g)


def dense_codes(indices: Tensor, weights: Tensor, atoms: int) -> Tensor:
    """[N, levels * atoms] float64; repeated indices add up."""
    dense = torch.zeros(*indices.shape[:2], atoms, dtype=torch.float64)
    return dense.scatter_add(2, indices.long(), weights.double()).flatten(1)


def gsplat_lists(scene: dict[str, Tensor], viewmats: Tensor, Ks: Tensor) -> tuple[Tensor, ...]:
    """means2d, conics, opacities, isect_offsets, flatten_ids as gsplat's torch code makes them."""
    projected = [
        reference.project(*(scene[n] for n in NAMES[:3]), v, k, WIDTH, HEIGHT)
        for v, k in zip(viewmats, Ks, strict=True)
    ]
    radii, means2d, depths, conics = (torch.stack(parts) for parts in zip(*projected, strict=True))
    tiles_x, tiles_y = -(-WIDTH // 16), -(-HEIGHT // 16)
    _, isect_ids, flatten_ids = _isect_tiles(means2d, radii, depths, 16, tiles_x, tiles_y, sort=False)
    isect_ids, order = torch.sort(isect_ids, stable=True)
    offsets = _isect_offset_encode(isect_ids, len(viewmats), tiles_x, tiles_y)
    opacities = scene["opacities"].expand(len(viewmats), -1).contiguous()
    return means2d.contiguous(), conics.contiguous(), opacities, offsets, flatten_ids[order].int().contiguous()


def from_lists(lists: tuple[Tensor, ...], count: int, views: int) -> Any:
    return _native.Splats.from_lists(*lists, count, views, WIDTH, HEIGHT)


@pytest.mark.parametrize("channels", [1, 16, 50, 112])
def test_dense_splatting_of_gsplat_lists_equals_the_blending_weights(channels: int) -> None:
    """Enough Gaussians for tiles that are summed in several parts, some of them broken."""
    count = 1500
    scene = reference.random_scene(count, seed=5)
    scene["opacities"] *= 0.1
    scene["opacities"][::7] = 0.0
    viewmats, Ks = cameras(2)
    lists = gsplat_lists(scene, viewmats, Ks)
    assert int(lists[3].flatten().diff().max()) > 600
    hidden = torch.arange(count) % 5 == 3
    lists[2][:, hidden] = torch.nan
    lists[0][:, torch.arange(count) % 5 == 1] = torch.nan
    scene["opacities"][hidden | (torch.arange(count) % 5 == 1)] = 0.0
    features = torch.randn(count, channels, generator=torch.Generator().manual_seed(1))
    out, alphas = torch.empty(2, HEIGHT, WIDTH, channels), torch.empty(2, HEIGHT, WIDTH, 1)
    from_lists(lists, count, 2).features(features, channels, out, alphas)
    double = [value.double() for value in geometry(scene)]
    weights = torch.cat([reference.blending_weights(*double, v.double(), k.double(), WIDTH, HEIGHT)
                         for v, k in zip(viewmats, Ks, strict=True)])  # fmt: skip
    error = (out.flatten(0, 2).double() - weights @ features.double()).abs()
    assert float(error.median()) < 1e-6
    assert float((error > 1e-3).double().mean()) < 2e-3
    assert relative(alphas.flatten(), weights.sum(1)) < 1e-3


def test_lists_from_elsewhere_give_the_same_as_our_own() -> None:
    """Every result, gradients included, to the last bit."""
    scene = reference.random_scene(300, seed=8)
    viewmats, Ks = cameras(2)
    means2d, depths, conics, radii = Project.apply(*geometry(scene), View(viewmats, Ks, WIDTH, HEIGHT))
    own = _native.Splats(radii, means2d, depths, conics, scene["opacities"], 2, WIDTH, HEIGHT)
    opacities = scene["opacities"].expand(2, -1).contiguous()
    offsets, ids = torch.as_tensor(own.isect_offsets), torch.as_tensor(own.flatten_ids)
    other = from_lists((means2d, conics, opacities, offsets, ids), 300, 2)
    g = torch.Generator().manual_seed(0)
    indices, weights = random_codes(300, 3, 4, 64)
    images = (2, HEIGHT, WIDTH)
    rgb, upstream = torch.randn(*images, 3, generator=g), torch.randn(*images, 192, generator=g)
    plane = torch.randn(*images, 1, generator=g)

    def results(splats: Any) -> list[Tensor]:
        codes, alphas, v_weights = torch.empty(*images, 192), torch.empty(*images, 1), torch.empty(2, 300, 3, 4)
        splats.codes(indices, weights, 3, 64, codes, alphas)
        splats.codes_vjp(indices, weights, 3, 64, upstream, v_weights)
        v_splats, sums, mass = torch.empty(2, 300, 10), torch.zeros(300, 192), torch.zeros(300)
        colors = torch.rand(2, 300, 3, generator=torch.Generator().manual_seed(2))
        splats.blend_vjp(colors, depths, rgb, plane, plane, rgb, plane, plane, v_splats)
        splats.lift(upstream, 192, sums, mass)
        return [codes, alphas, v_weights, v_splats, sums, mass]

    for ours, theirs in zip(results(own), results(other), strict=True):
        assert float(ours.abs().max()) > 0
        assert torch.equal(ours, theirs)


def test_faulty_lists_are_refused() -> None:
    scene = reference.random_scene(40, seed=8)
    viewmats, Ks = cameras(2)
    means2d, conics, opacities, offsets, ids = gsplat_lists(scene, viewmats, Ks)

    def changed(tensor: Tensor, at: int, value: int) -> Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[at] = value
        return tensor

    for wrong, message in (
        ((offsets, changed(ids, 0, 40)), "no Gaussian of its tile's camera"),  # the other camera's
        ((offsets, changed(ids, -1, 80)), "no Gaussian of its tile's camera"),
        ((offsets, changed(ids, 3, -1)), "no Gaussian of its tile's camera"),
        ((changed(offsets, 4, len(ids) + 1), ids), "beyond flatten_ids"),
        ((offsets, ids[: int(offsets.max()) - 1]), "beyond flatten_ids"),
        ((changed(offsets, 5, 0), ids), "decrease"),
        ((changed(offsets, 0, 1), ids), "start at 0"),
        ((offsets.flatten()[1:], ids), "isect_offsets has"),
    ):
        with pytest.raises(ValueError, match=message):
            from_lists((means2d, conics, opacities, *wrong), 40, 2)
    with pytest.raises(ValueError, match="opacities has 40 elements, expected 80"):
        from_lists((means2d, conics, opacities[0].contiguous(), offsets, ids), 40, 2)


@pytest.mark.parametrize(("levels", "nonzeros", "atoms"), [(3, 4, 64), (1, 1, 7), (2, 8, 250)])
def test_codes_and_their_gradient_equal_dense_splatting(levels: int, nonzeros: int, atoms: int) -> None:
    scene = reference.random_scene(150, seed=2)
    viewmats, Ks = cameras(2)
    indices, weights = random_codes(150, levels, nonzeros, atoms)
    weights.requires_grad_()
    codes, alphas = rasterize_codes(*geometry(scene), indices, weights, viewmats, Ks, WIDTH, HEIGHT, atoms=atoms)
    double = [value.double() for value in geometry(scene)]
    blending = [
        reference.blending_weights(*double, v, k, WIDTH, HEIGHT)
        for v, k in zip(viewmats.double(), Ks.double(), strict=True)
    ]
    leaf = weights.detach().clone().requires_grad_()
    expected = torch.stack([w @ dense_codes(indices, leaf, atoms) for w in blending]).reshape(codes.shape)
    assert float((codes.double() - expected).detach().abs().median()) < 1e-6
    assert relative(codes, expected) < 1e-3
    assert relative(alphas.flatten(), torch.stack([w.sum(1) for w in blending]).flatten()) < 1e-3
    upstream = torch.randn(codes.shape, generator=torch.Generator().manual_seed(3))
    codes.backward(upstream)
    expected.backward(upstream.double())
    assert weights.grad is not None
    assert relative(weights.grad, leaf.grad.double()) < 1e-3


@pytest.mark.parametrize("width", [33, 36, 40, 44, 47, 48])
def test_codes_where_some_columns_of_blocks_lie_outside_the_picture(width: int) -> None:
    """Block maps are reused in turn; those outside are skipped."""
    scene = reference.random_scene(150, seed=2)
    viewmat, K = (pair[None] for pair in reference.camera(0.1, width, HEIGHT))
    indices, weights = random_codes(150, 3, 4, 64)
    codes, _ = rasterize_codes(*geometry(scene), indices, weights, viewmat, K, width, HEIGHT)
    double = [value.double() for value in geometry(scene)]
    blending = reference.blending_weights(*double, viewmat[0].double(), K[0].double(), width, HEIGHT)
    assert relative(codes.flatten(0, 2), blending @ dense_codes(indices, weights, 64)) < 1e-3


@pytest.mark.parametrize("atoms", [64, 50])
def test_codes_of_crowded_tiles_are_summed_in_several_parts(atoms: int) -> None:
    """Thousands of faint Gaussians per tile; 3 x 50 channels do not fill cache lines."""
    count = 4000
    scene = reference.random_scene(count, seed=12)
    scene["opacities"] *= 0.05
    viewmats, Ks = cameras(1)
    indices, weights = random_codes(count, 3, 4, atoms)
    codes, alphas = rasterize_codes(*geometry(scene), indices, weights, viewmats, Ks, WIDTH, HEIGHT, atoms=atoms)
    double = [value.double() for value in geometry(scene)]
    blending = reference.blending_weights(*double, viewmats[0].double(), Ks[0].double(), WIDTH, HEIGHT)
    in_tile = (blending > 0).reshape(HEIGHT, WIDTH, count)[:16, :16].flatten(0, 1).any(0)
    assert int(in_tile.sum()) > 300
    expected = blending @ dense_codes(indices, weights, atoms)
    assert relative(codes.flatten(0, 2), expected) < 1e-3
    assert relative(alphas.flatten(), blending.sum(1)) < 1e-3


def test_memory_of_a_code_map_is_reused_only_when_nobody_holds_it() -> None:
    scene = reference.random_scene(50, seed=2)
    viewmats, Ks = cameras(1)
    indices, weights = random_codes(50, 3, 4, 64)

    def splat(scale: float) -> Tensor:
        return rasterize_codes(*geometry(scene), indices, weights * scale, viewmats, Ks, WIDTH, HEIGHT)[0]

    first = splat(1.0)
    kept, part = first.clone(), first[0, 3]
    second = splat(2.0)
    assert second.data_ptr() != first.data_ptr()
    assert torch.equal(first, kept)
    address = first.data_ptr()
    del first
    third = splat(3.0)  # `part` still holds the first map
    assert third.data_ptr() != address
    assert torch.equal(part, kept[0, 3])
    del part
    assert splat(1.0).data_ptr() == address
    torch.testing.assert_close(third, 3 * kept)


@pytest.mark.parametrize("channels", [1, 5, 192, 600])
def test_lift_is_the_adjoint_of_blending(channels: int) -> None:
    scene = reference.random_scene(150, seed=4)
    viewmats, Ks = cameras(2)
    values = torch.randn(2, HEIGHT, WIDTH, channels, generator=torch.Generator().manual_seed(5))
    sums, mass = lift(*geometry(scene), values, viewmats, Ks)
    double = [value.double() for value in geometry(scene)]
    weights = torch.cat(
        [
            reference.blending_weights(*double, v, k, WIDTH, HEIGHT)
            for v, k in zip(viewmats.double(), Ks.double(), strict=True)
        ]
    )
    assert relative(sums, weights.T @ values.reshape(-1, channels).double()) < 1e-3
    assert relative(mass, weights.sum(0)) < 1e-3


@pytest.mark.parametrize(("phrases", "negatives"), [(1, 4), (5, 1)])
def test_relevancy_equals_the_materialised_features(phrases: int, negatives: int) -> None:
    levels, atoms, dim = 3, 64, 512
    scene = reference.random_scene(20, seed=6)
    scene["scales"] *= 0.4  # leave some pixels without any code
    viewmats, Ks = cameras(2)
    indices, weights = random_codes(20, levels, 4, atoms)
    g = torch.Generator().manual_seed(0)
    dictionary = torch.nn.functional.normalize(
        torch.randn(levels, atoms, dim, generator=g, dtype=torch.float64), dim=-1
    )
    texts = torch.nn.functional.normalize(
        dictionary.mean(1)[0] + 0.05 * torch.randn(phrases + negatives, dim, generator=g, dtype=torch.float64),
        dim=-1,
    )
    scores = torch.einsum("lad,td->lta", dictionary, texts)
    gram = dictionary @ dictionary.transpose(1, 2)
    relevancy, alphas = rasterize_relevancy(
        *geometry(scene), indices, weights, scores, gram, phrases, viewmats, Ks, WIDTH, HEIGHT
    )
    codes, expected_alphas = rasterize_codes(*geometry(scene), indices, weights, viewmats, Ks, WIDTH, HEIGHT)
    assert torch.equal(alphas, expected_alphas)
    features = torch.einsum("chwla,lad->chwld", codes.double().unflatten(-1, (levels, atoms)), dictionary)
    cosine = torch.nn.functional.normalize(features, dim=-1) @ texts.T
    pairs = torch.softmax(
        10 * torch.stack([cosine[..., :phrases, None].expand(*cosine.shape[:-1], phrases, negatives),
                          cosine[..., None, phrases:].expand(*cosine.shape[:-1], phrases, negatives)]), dim=0
    )  # fmt: skip
    expected = pairs[0].amin(-1).permute(0, 4, 3, 1, 2)
    shown = (alphas[..., 0] > 0)[:, None, None].expand_as(relevancy)
    assert 0.3 < float(shown.float().mean()) < 1.0
    assert float((relevancy.double() - expected)[shown].abs().max()) < 1e-4
    assert float(relevancy[~shown].abs().max()) == 0.0


def test_empty_scene_and_broken_gaussians_render_nothing() -> None:
    viewmats, Ks = cameras(1)
    empty = {k: v[:0] for k, v in reference.random_scene(1, seed=0).items()}
    rgb, _, alphas, _ = rasterize_rgb(*(empty[n] for n in NAMES), viewmats, Ks, WIDTH, HEIGHT, background=torch.ones(3))
    assert torch.equal(rgb, torch.ones_like(rgb))
    assert float(alphas.abs().max()) == 0.0
    scene = reference.random_scene(4, seed=0)
    scene["means"][:] = torch.tensor([0.0, 0.0, 2.0])
    scene["means"][0, 0] = torch.nan
    scene["opacities"][1] = torch.nan
    scene["scales"][2] = torch.inf
    scene["opacities"][3] = 0.0
    rgb, depth, alphas, _ = rasterize_rgb(*(scene[n] for n in NAMES), viewmats, Ks, WIDTH, HEIGHT)
    for image in (rgb, depth, alphas):
        assert float(image.abs().max()) == 0.0


def test_shapes_and_indices_are_checked() -> None:
    scene = reference.random_scene(5, seed=0)
    viewmats, Ks = cameras(1)
    indices, weights = random_codes(5, 3, 4, 64)
    with pytest.raises(ValueError, match="expected a tensor of shape"):
        rasterize_rgb(scene["means"], scene["quats"][:4], *(scene[n] for n in NAMES[2:]), viewmats, Ks, WIDTH, HEIGHT)
    with pytest.raises(ValueError, match="indices must be uint8"):
        rasterize_codes(*geometry(scene), indices.long(), weights, viewmats, Ks, WIDTH, HEIGHT)
    with pytest.raises(ValueError, match="only 10 atoms"):
        rasterize_codes(*geometry(scene), indices, weights, viewmats, Ks, WIDTH, HEIGHT, atoms=10)


def test_many_gaussians_in_one_pixel_stop_at_full_opacity() -> None:
    """3,000 opaque Gaussians behind each other: only the first few count, and no list overflows."""
    count = 3000
    scene = reference.random_scene(count, seed=9)
    scene["means"][:, :2] = 0.0
    scene["means"][:, 2] = torch.linspace(1, 4, count)
    scene["opacities"][:] = 0.9
    viewmats, Ks = cameras(1)
    ones = torch.ones(1, HEIGHT, WIDTH, 1)
    _, mass = lift(*geometry(scene), ones, viewmats, Ks)
    double = [value.double() for value in geometry(scene)]
    expected = reference.blending_weights(*double, viewmats[0].double(), Ks[0].double(), WIDTH, HEIGHT).sum(0)
    assert relative(mass, expected) < 1e-3
    assert int((mass > 0).sum()) < count / 3


_DIGEST = """
import sys, hashlib, torch
sys.path.insert(0, sys.argv[3])
torch.set_num_threads(int(sys.argv[1]))
import reference
from splat import _native
from splat.rasterize import lift, rasterize_codes, rasterize_relevancy, rasterize_rgb
scene = {k: v.requires_grad_() for k, v in reference.random_scene(20000, seed=1).items()}
viewmat, K = reference.camera(0.1, 150, 120)
args = [scene[n] for n in ("means", "quats", "scales", "opacities")]
view = (viewmat[None], K[None], 150, 120)
rgb, depth, alphas, _ = rasterize_rgb(*args, scene["sh"], *view)
(rgb.square().sum() + depth.sum()).backward()
sums, mass = lift(*args, rgb.detach().repeat(1, 1, 1, 30), *view[:2])
g = torch.Generator().manual_seed(0)
indices = torch.randint(0, 60, (20000, 3, 4), generator=g).to(torch.uint8)
weights = torch.rand(20000, 3, 4, generator=g).requires_grad_()
codes, _ = rasterize_codes(*args, indices, weights, *view, atoms=60)
codes.square().sum().backward()
scores, root = torch.rand(3, 6, 60, generator=g), torch.rand(3, 60, 60, generator=g)
relevancy, _ = rasterize_relevancy(*args, indices, weights, scores, root @ root.transpose(1, 2), 2, *view)
from splat.rasterize import rasterize_features
dense, _ = rasterize_features(*args, torch.rand(20000, 70, generator=g), *view)
results = [rgb, depth, dense, alphas, sums, mass, codes, weights.grad, relevancy, *(v.grad for v in scene.values())]
digest = hashlib.sha256()
for tensor in results:
    digest.update(tensor.detach().numpy().tobytes())
print(_native.isa(), digest.hexdigest())
torch.save([t.detach() for t in results], sys.argv[2])
"""


def run_digest(threads: int, path: str, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _DIGEST, str(threads), path, str(Path(__file__).parent)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_results_depend_on_neither_threads_nor_runs_and_isas_agree(tmp_path: os.PathLike) -> None:
    paths = [f"{tmp_path}/{i}.pt" for i in range(3)]
    isa, two = run_digest(2, paths[0])
    _, one = run_digest(1, paths[1])
    assert one == two
    forced, _ = run_digest(2, paths[2], DICTSPLAT_ISA="baseline")
    assert forced == "baseline"
    if isa != "baseline":
        for wide, narrow in zip(
            torch.load(paths[0], weights_only=True), torch.load(paths[2], weights_only=True), strict=True
        ):
            assert relative(narrow, wide.double()) < 1e-4
