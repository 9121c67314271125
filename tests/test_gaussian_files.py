"""Gaussians in other programs' files: what is lost is only what their formats round away."""

import gzip
import json
import shutil
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
from splat.codes import LanguageField
from splat.gaussians import SH_C0, Gaussians, load_ply, save_ply
from splat.interchange.gaussian_files import Written, read_gaussians, turned, write_gaussians
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


SPZ_PARTS = {"places": 9, "alphas": 1, "colours": 3, "scales": 3, "rotations": 4, "harmonics": 45}
"""Bytes of a Gaussian in each part of an SPZ file of version 3, in their order."""


def decoded_spz(path: Path) -> dict[str, np.ndarray]:
    """What the bytes say by the published layout (github.com/nianticlabs/spz), float64 rows."""
    content = gzip.decompress(path.read_bytes())
    magic, version, count, degree, fraction, flags = struct.unpack_from("<4sIIBBB", content)
    assert (magic, version, degree, flags) == (b"NGSP", 3, 3, 0)
    parts, start = {}, 16
    for name, size in SPZ_PARTS.items():
        parts[name] = np.frombuffer(content, np.uint8, size * count, start).reshape(count, size).astype(np.float64)
        start += size * count
    assert start == len(content)
    steps = parts["places"].reshape(count, 3, 3) @ [1, 1 << 8, 1 << 16]
    steps -= np.where(steps >= 1 << 23, 1 << 24, 0)
    quats = np.zeros((count, 4))  # x, y, z, w
    for row, little in zip(quats, parts["rotations"].astype(np.uint8), strict=True):
        packed = int.from_bytes(bytes(little), "little")
        largest = packed >> 30
        for axis in (axis for axis in (3, 2, 1, 0) if axis != largest):
            row[axis] = (packed & 511) / 511 / np.sqrt(2) * (-1 if packed & 512 else 1)
            packed >>= 10
        row[largest] = np.sqrt(1 - np.square(row).sum())
    return {
        "fraction": np.array(fraction),
        "means": steps / (1 << fraction),
        "opacities": parts["alphas"][:, 0] / 255,
        # Of constant harmonics c, the byte is 255 (0.15 c + 0.5).
        "constant": (parts["colours"] / 255 - 0.5) / 0.15,
        "log_scales": parts["scales"] / 16 - 10,
        "quats": quats[:, [3, 0, 1, 2]],
        "harmonics": (parts["harmonics"].reshape(count, 15, 3) - 128) / 128,
    }


def test_spz_has_its_published_layout_and_axes(gaussians: Gaussians, tmp_path: Path) -> None:
    """Right, up, back: every vector and rotation has y and z negated."""
    assert write_gaussians(tmp_path / "scene.spz", gaussians) == Written(COUNT)
    found = decoded_spz(tmp_path / "scene.spz")
    assert found["fraction"] == 12
    np.testing.assert_allclose(found["means"], gaussians.means.numpy() * [1, -1, -1], atol=2.0**-13 + 1e-6)
    np.testing.assert_allclose(found["opacities"], torch.sigmoid(gaussians.logit_opacities), atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(found["constant"], gaussians.sh[:, 0], atol=0.5 / 255 / 0.15 + 1e-6)
    np.testing.assert_allclose(found["log_scales"], gaussians.log_scales, atol=1 / 32 + 1e-6)
    wanted = turns(gaussians.quats).numpy() * [1, 1, -1, -1]
    wanted *= np.sign((wanted * found["quats"]).sum(1))[:, None]
    np.testing.assert_allclose(found["quats"], wanted, atol=3 * 0.5 / 511)
    # Of degree 1 (y, z, x) as of a vector: its parts along y and z change their signs.
    first = gaussians.sh[:, 1:4].numpy() * np.array([-1, -1, 1])[:, None]
    np.testing.assert_allclose(found["harmonics"][:, :3], first, atol=0.5 / 128 + 1e-6)


@pytest.mark.parametrize(("farthest", "fraction"), [(2047.9, 12), (2048.0, 11), (-5000.0, 10), (4.1e6, 1)])
def test_spz_is_as_fine_as_its_farthest_gaussian_allows(
    farthest: float, fraction: int, gaussians: Gaussians, tmp_path: Path
) -> None:
    gaussians.means[5, 1] = farthest
    written = write_gaussians(tmp_path / "far.spz", gaussians)
    found = decoded_spz(tmp_path / "far.spz")
    assert found["fraction"] == fraction
    np.testing.assert_allclose(
        found["means"], gaussians.means.numpy() * [1, -1, -1], atol=0.5 / (1 << fraction) + 1e-6, rtol=1e-7
    )
    read = read_gaussians(tmp_path / "far.spz")
    assert float(read.means[5, 1]) == pytest.approx(farthest, abs=0.5 / (1 << fraction) + 1e-3)
    assert written.count == COUNT
    assert written.note == ("" if fraction == 12 else written.note)
    assert (f"places to 1/{1 << fraction} of a unit" in written.note) == (fraction < 12)


def test_what_spz_cannot_say_is_said(gaussians: Gaussians, tmp_path: Path) -> None:
    gaussians.log_scales[:3, 1] = torch.tensor([-12.0, -10.01, 8.0])
    gaussians.log_scales[3:5, 1] = torch.tensor([-10.0, 5.93])
    written = write_gaussians(tmp_path / "scales.spz", gaussians)
    assert written == Written(COUNT, "3 have a scale that is cut to e^-10 or e^5.9")
    assert decoded_spz(tmp_path / "scales.spz")["log_scales"][:3, 1].tolist() == [-10, -10, 5.9375]
    gaussians.means[7] = 5e6
    with pytest.raises(InputError, match=r"5,000,000 units from the origin.*write a \.ply instead"):
        write_gaussians(tmp_path / "farther.spz", gaussians)
    assert not (tmp_path / "farther.spz").exists()


def test_a_compressed_ply_is_known_by_what_is_in_it(gaussians: Gaussians, tmp_path: Path) -> None:
    write_gaussians(tmp_path / "scene.compressed.ply", gaussians)
    plain = (tmp_path / "scene.compressed.ply").rename(tmp_path / "scene.ply")
    assert {element.name for element in PlyData.read(str(plain))} >= {"chunk", "vertex"}
    assert (in_order(read_gaussians(plain), gaussians).log_scales - gaussians.log_scales).abs().max() < 2e-3


def test_a_compressed_ply_has_what_can_be_seen(gaussians: Gaussians, tmp_path: Path) -> None:
    gaussians.logit_opacities[::7] = -6.0  # 1/404; nothing below 1/255 is drawn
    written = write_gaussians(tmp_path / "scene.compressed.ply", gaussians)
    assert len(read_gaussians(tmp_path / "scene.compressed.ply")) == COUNT - len(range(0, COUNT, 7)) == written.count
    assert written.note == "100 are never drawn (opacity below 1/255)"
    gaussians.logit_opacities[:] = 1.0
    assert write_gaussians(tmp_path / "scene.compressed.ply", gaussians) == Written(COUNT)


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


def test_an_export_says_what_the_file_has(dictsplat: Dictsplat, tiny_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    gaussians = load_ply(run / "gaussians.ply")
    gaussians.logit_opacities[:8] = -9.0
    gaussians.log_scales[8:10] = -11.0
    gaussians.means[11, 0] = -3000.0
    save_ply(run / "gaussians.ply", gaussians)
    seen = int((gaussians.opacities > 1 / 255).sum())
    code, out, err = dictsplat("export", run, tmp_path / "few.compressed.ply")
    assert code == 0, err
    assert len(read_gaussians(tmp_path / "few.compressed.ply")) == seen <= len(gaussians) - 8
    assert f"{seen:,} of {len(gaussians):,} Gaussians in" in " ".join(out.split())
    code, out, err = dictsplat("export", run, tmp_path / "far.spz")
    assert code == 0, err
    said = " ".join(out.split())
    assert f" {len(gaussians):,} Gaussians in" in f" {said}"
    assert " of " not in said.split("Gaussians in")[0]
    assert "places to 1/2048 of a unit, because of Gaussians up to 3,000 away; 2 have a scale that is cut" in said


def test_a_run_is_exported_for_langsplat(dictsplat: Dictsplat, tiny_run: Path, tmp_path: Path) -> None:
    code, out, err = dictsplat("export", tiny_run, tmp_path / "tiny", "--as", "langsplat-v2")
    assert code == 0, err
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.pth")) == [
        f"tiny_{level}/chkpnt10000.pth" for level in (1, 2, 3)
    ]
    field = LanguageField.load(tiny_run / "language.safetensors")
    said = " ".join(out.split())
    assert "LangSplatV2's own scripts cannot use them" in said
    assert f"features of {field.atoms.shape[2]}, not 512" in said
    for name in (".", "..", "/"):
        code, _, err = dictsplat("export", tiny_run, name, "--as", "langsplat-v2")
        assert (code, err.count("\n")) == (2, 1)
        assert "no name that folders could begin with" in err
    code, _, err = dictsplat("export", tiny_run, tmp_path / "features", "--as", "langsplat-features")
    assert code == 0, err
    count = len(list((tiny_run / "features").glob("*.npz")))
    assert len(list((tmp_path / "features").glob("*_s.npy"))) == count > 0
    assert len(list((tmp_path / "features").glob("*_f.npy"))) == count
