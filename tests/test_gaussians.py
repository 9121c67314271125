"""PLY in and out, against plyfile's own view of the file."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from encoders.errors import InputError
from splat.gaussians import Gaussians, load_ply, save_ply, spatial_order


def random_gaussians(count: int) -> Gaussians:
    g = torch.Generator().manual_seed(count)
    return Gaussians(
        torch.randn(count, 3, generator=g),
        torch.randn(count, 4, generator=g),
        torch.randn(count, 3, generator=g),
        torch.randn(count, generator=g),
        torch.randn(count, 16, 3, generator=g),
    )


def test_round_trip_and_layout(tmp_path: Path) -> None:
    gaussians = random_gaussians(7)
    save_ply(tmp_path / "a.ply", gaussians)
    again = load_ply(tmp_path / "a.ply")
    for name, value in vars(gaussians).items():
        assert torch.equal(getattr(again, name), value), name
    # The layout of the 3DGS authors: f_rest holds 15 red coefficients, then 15 green, then 15 blue.
    vertices = PlyData.read(tmp_path / "a.ply")["vertex"]
    assert vertices["f_rest_3"][2] == gaussians.sh[2, 4, 0]
    assert vertices["f_rest_15"][2] == gaussians.sh[2, 1, 1]
    assert vertices["rot_0"][5] == gaussians.quats[5, 0]
    assert vertices["opacity"][5] == gaussians.logit_opacities[5]
    assert len(vertices.properties) == 62


@pytest.mark.parametrize("bases", [1, 4, 9])
def test_lower_degrees_are_padded(tmp_path: Path, bases: int) -> None:
    gaussians = random_gaussians(5)
    save_ply(tmp_path / "full.ply", gaussians)
    full = PlyData.read(tmp_path / "full.ply")["vertex"].data
    rest = bases - 1
    names = [n for n in full.dtype.names if not n.startswith("f_rest_")]
    table = np.zeros(5, dtype=[(n, "<f4") for n in [*names, *(f"f_rest_{i}" for i in range(3 * rest))]])
    for name in names:
        table[name] = full[name]
    for channel in range(3):
        for k in range(rest):
            table[f"f_rest_{channel * rest + k}"] = gaussians.sh[:, 1 + k, channel].numpy()
    PlyData([PlyElement.describe(table, "vertex")], text=True).write(str(tmp_path / "low.ply"))
    again = load_ply(tmp_path / "low.ply")
    torch.testing.assert_close(again.sh[:, :bases], gaussians.sh[:, :bases])
    assert float(again.sh[:, bases:].abs().max()) == 0.0


def test_infinite_logits_of_opaque_gaussians_are_read(tmp_path: Path) -> None:
    gaussians = random_gaussians(3)
    gaussians.logit_opacities[1] = torch.inf
    save_ply(tmp_path / "a.ply", gaussians)
    assert float(load_ply(tmp_path / "a.ply").opacities[1]) == pytest.approx(1.0)


def test_bad_files_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="do not exist"):
        load_ply(tmp_path / "none.ply")
    (tmp_path / "text.ply").write_text("hello")
    with pytest.raises(InputError, match=r"text\.ply is not a readable PLY"):
        load_ply(tmp_path / "text.ply")
    save_ply(tmp_path / "cut.ply", random_gaussians(50))
    data = (tmp_path / "cut.ply").read_bytes()
    (tmp_path / "cut.ply").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"cut\.ply is not a readable PLY"):
        load_ply(tmp_path / "cut.ply")
    mesh = np.zeros(3, dtype=[("x", "f4"), ("y", "f4"), ("z", "f4")])
    PlyData([PlyElement.describe(mesh, "vertex")]).write(str(tmp_path / "mesh.ply"))
    with pytest.raises(InputError, match="not a 3D Gaussian scene"):
        load_ply(tmp_path / "mesh.ply")
    broken = random_gaussians(3)
    broken.means[0, 0] = torch.nan
    save_ply(tmp_path / "nan.ply", broken)
    with pytest.raises(InputError, match="means that are not finite"):
        load_ply(tmp_path / "nan.ply")


def test_spatial_order_is_the_z_order_curve() -> None:
    g = torch.Generator().manual_seed(0)
    means = torch.rand(500, 3, generator=g)
    order = spatial_order(means)
    assert sorted(order.tolist()) == list(range(500))
    # The definition: of two points, the axis whose cells differ in the highest bit decides, z before y before x.
    low, high = np.sort(means.numpy(), axis=0)[[5, -6]]
    cells = np.clip((means.numpy() - low) / (high - low).max() * 1024, 0, 1023).astype(int)

    def before(a: np.ndarray, b: np.ndarray) -> bool:
        differ = [int(x).bit_length() for x in a ^ b]
        axis = max(range(3), key=lambda i: (differ[i], i))
        return bool(a[axis] <= b[axis])

    ordered = cells[order.numpy()]
    assert all(before(a, b) for a, b in itertools.pairwise(ordered))


def test_spatial_order_brings_neighbours_together_in_spite_of_a_few_far_away() -> None:
    g = torch.Generator().manual_seed(1)
    means = torch.rand(20_000, 3, generator=g)
    means[::1000] *= 1e6
    near = means[spatial_order(means)].diff(dim=0).norm(dim=1).median()
    assert near < 0.1 * means.diff(dim=0).norm(dim=1).median()


@pytest.mark.parametrize("means", [torch.zeros(0, 3), torch.ones(1, 3), torch.ones(50, 3)], ids=["none", "one", "same"])
def test_spatial_order_of_what_has_no_extent(means: torch.Tensor) -> None:
    assert torch.equal(spatial_order(means), torch.arange(len(means)))


def test_gaussians_in_spatial_order_are_the_same_gaussians() -> None:
    gaussians = random_gaussians(40)
    ordered = gaussians.in_spatial_order()
    order = spatial_order(gaussians.means)
    assert not torch.equal(order, torch.arange(40))
    for name, value in vars(gaussians).items():
        assert torch.equal(getattr(ordered, name), value[order]), name
