"""Gaussians in other programs' files: what is lost is only what their formats round away."""

import gzip
import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData
from scipy.spatial import cKDTree

from encoders.errors import InputError
from splat.gaussians import SH_C0, Gaussians, load_ply, save_ply
from splat.interchange.gaussian_files import read_gaussians, turned, write_gaussians
from splat.rasterize import rasterize_rgb

COUNT = 700


@pytest.fixture
def gaussians() -> Gaussians:
    random = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    sh = 0.1 * normal(COUNT, 16, 3)
    return Gaussians(3 * normal(COUNT, 3), normal(COUNT, 4), 0.5 * normal(COUNT, 3) - 3, normal(COUNT), sh)


def in_order(found: Gaussians, wanted: Gaussians) -> Gaussians:
    """Formats may sort."""
    assert len(found) == len(wanted)
    _, rows = cKDTree(found.means.numpy()).query(wanted.means.numpy())
    assert len(set(rows.tolist())) == len(wanted)
    return found.subset(torch.from_numpy(rows))


def turns(quats: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(quats.double(), dim=1)


@pytest.mark.parametrize(
    ("name", "mean", "log_scale", "opacity", "constant", "harmonics"),
    [
        ("scene.ply", 0, 0, 0, 0, 0),
        ("scene.compressed.ply", 0.02, 2e-3, 2e-3, 5e-3, 0.02),
        ("scene.spz", 2.0**-11, 0.04, 2e-3, 0.02, 0.13),
        ("scene.SPLAT", 0, 1e-6, 2e-3, 0.5 / 255 / SH_C0 + 1e-6, None),
    ],
)
def test_what_is_written_is_read_again(
    name: str,
    mean: float,
    log_scale: float,
    opacity: float,
    constant: float,
    harmonics: float | None,
    gaussians: Gaussians,
    tmp_path: Path,
) -> None:
    path = tmp_path / name
    write_gaussians(path, gaussians)
    found = in_order(read_gaussians(path), gaussians)
    assert (found.means - gaussians.means).abs().max() <= mean
    assert (found.log_scales - gaussians.log_scales).abs().max() <= log_scale
    assert (found.opacities - gaussians.opacities).abs().max() <= opacity
    assert (found.sh[:, 0] - gaussians.sh[:, 0]).abs().max() <= constant
    if harmonics is None:
        assert not found.sh[:, 1:].any()
    else:
        assert (found.sh[:, 1:] - gaussians.sh[:, 1:]).abs().max() <= harmonics
    assert (turns(found.quats) * turns(gaussians.quats)).sum(1).abs().min() > 0.9999
    if name != "scene.ply":
        save_ply(tmp_path / "plain.ply", gaussians)
        assert path.stat().st_size < 0.3 * (tmp_path / "plain.ply").stat().st_size


def test_a_turned_scene_looks_the_same_to_a_turned_camera(gaussians: Gaussians) -> None:
    near = Gaussians(**{**vars(gaussians), "means": gaussians.means * 0.3 + torch.tensor([0, 0, 4.0])})
    half_turn = torch.diag(torch.tensor([1.0, -1, -1, 1]))
    K = torch.tensor([[[60.0, 0, 32], [0, 60, 24], [0, 0, 1]]])
    viewmat = torch.eye(4)
    viewmat[:3, 3] = torch.tensor([0.3, -0.2, 0.1])
    pictures = [
        rasterize_rgb(*one.geometry, one.sh, view[None], K, 64, 48)[0]
        for one, view in ((near, viewmat), (turned(near), viewmat @ half_turn))
    ]
    assert pictures[0].std() > 0.05
    torch.testing.assert_close(pictures[0], pictures[1], atol=2e-5, rtol=0)


def test_spz_is_in_its_own_axes(gaussians: Gaussians, tmp_path: Path) -> None:
    """Its layout: a header of 16 bytes, then positions as numbers of 24 bits; right, up, back."""
    write_gaussians(tmp_path / "scene.spz", gaussians)
    content = gzip.decompress((tmp_path / "scene.spz").read_bytes())
    magic, version, count, degree, fraction = struct.unpack_from("<4sIIBB", content)
    assert (magic, version, count, degree) == (b"NGSP", 3, COUNT, 3)
    packed = np.frombuffer(content, np.uint8, 9 * count, 16).reshape(count, 3, 3).astype(np.int64)
    values = packed @ [1, 1 << 8, 1 << 16]
    positions = np.where(values >= 1 << 23, values - (1 << 24), values) / (1 << fraction)
    np.testing.assert_allclose(positions, gaussians.means.numpy() * [1, -1, -1], atol=2.0**-fraction)


def test_a_compressed_ply_is_known_by_what_is_in_it(gaussians: Gaussians, tmp_path: Path) -> None:
    write_gaussians(tmp_path / "scene.compressed.ply", gaussians)
    plain = (tmp_path / "scene.compressed.ply").rename(tmp_path / "scene.ply")
    assert {element.name for element in PlyData.read(str(plain))} >= {"chunk", "vertex"}
    assert (in_order(read_gaussians(plain), gaussians).log_scales - gaussians.log_scales).abs().max() < 2e-3


def test_a_compressed_ply_has_what_can_be_seen(gaussians: Gaussians, tmp_path: Path) -> None:
    gaussians.logit_opacities[::7] = -6.0  # 1/404; nothing below 1/255 is drawn
    write_gaussians(tmp_path / "scene.compressed.ply", gaussians)
    assert len(read_gaussians(tmp_path / "scene.compressed.ply")) == COUNT - len(range(0, COUNT, 7))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 - 1])


def noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(5000))


@pytest.mark.parametrize("name", ["scene.ply", "scene.compressed.ply", "scene.spz", "scene.splat"])
@pytest.mark.parametrize("spoil", [empty, half, noise])
def test_a_damaged_file_is_named(
    name: str, spoil: Callable[[Path], None], gaussians: Gaussians, tmp_path: Path
) -> None:
    path = tmp_path / name
    write_gaussians(path, gaussians)
    spoil(path)
    with pytest.raises(InputError, match=name):
        read_gaussians(path)


def test_other_files_are_refused(gaussians: Gaussians, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("scene.obj", "ply", "scene.ply.zip"):
        with pytest.raises(InputError, match="no ending that Gaussians have"):
            write_gaussians(tmp_path / name, gaussians)
    with pytest.raises(InputError, match="do not exist"):
        read_gaussians(tmp_path / "none.spz")
    monkeypatch.setitem(sys.modules, "gsply", None)
    with pytest.raises(InputError, match=r"dictsplat\[formats\]"):
        write_gaussians(tmp_path / "scene.spz", gaussians)
    assert list(tmp_path.iterdir()) == []


Dictsplat = Callable[..., tuple[int, str, str]]


def test_a_run_is_exported_and_trained_on(
    dictsplat: Dictsplat, tiny_scene: Path, tiny_run: Path, tmp_path: Path
) -> None:
    wanted = load_ply(tiny_run / "gaussians.ply")
    for name in ("tiny.spz", "tiny.compressed.ply", "tiny.splat", "tiny.ply"):
        code, _, err = dictsplat("export", tiny_run, tmp_path / name)
        assert code == 0, err
        assert len(read_gaussians(tmp_path / name)) == len(wanted)
    options = ("train", tiny_scene, "--out", tmp_path / "run", "--encoder", "colour", "--stages", "rgb")
    code, _, err = dictsplat(*options, "--gaussians", tmp_path / "tiny.spz")
    assert code == 0, err
    mine, yours = (json.loads((run / "metrics.json").read_text()) for run in (tmp_path / "run", tiny_run))
    assert mine["psnr"] == pytest.approx(yours["psnr"], abs=1.0)
    before = (tmp_path / "run" / "gaussians.ply").read_bytes()
    assert dictsplat(*options, "--gaussians", tmp_path / "tiny.spz")[0] == 0
    assert (tmp_path / "run" / "gaussians.ply").read_bytes() == before


def test_a_run_is_exported_for_langsplat(dictsplat: Dictsplat, tiny_run: Path, tmp_path: Path) -> None:
    code, _, err = dictsplat("export", tiny_run, tmp_path / "tiny", "--as", "langsplat-v2")
    assert code == 0, err
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.pth")) == [
        f"tiny_{level}/chkpnt10000.pth" for level in (1, 2, 3)
    ]
    code, _, err = dictsplat("export", tiny_run, tmp_path / "features", "--as", "langsplat-features")
    assert code == 0, err
    count = len(list((tiny_run / "features").glob("*.npz")))
    assert len(list((tmp_path / "features").glob("*_s.npy"))) == count > 0
    assert len(list((tmp_path / "features").glob("*_f.npy"))) == count
