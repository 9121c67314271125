"""LangSplatV2's checkpoints, held against its formulas written out in numpy with 64 bits."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from encoders.errors import InputError
from splat.codes import LanguageField
from splat.interchange.langsplat_v2 import (
    find_checkpoint,
    own_scripts,
    read_checkpoint,
    read_levels,
    write_levels,
)

COUNT, ATOMS, DIM, NONZEROS = 300, 64, 24, 4


def captured(level: int, means: torch.Tensor, layers: int = 1) -> list[Any]:
    """What ``GaussianModel.capture(include_feature=True)`` returns after a step of training."""
    random = torch.Generator().manual_seed(level)

    def parameter(*shape: int) -> nn.Parameter:
        return nn.Parameter(torch.randn(*shape, generator=random))

    shapes = [(1, 3), (15, 3), (3,), (4,), (1,), (layers * ATOMS,)]
    parameters = [nn.Parameter(means.clone()), *(parameter(len(means), *shape) for shape in shapes)]
    parameters.append(parameter(layers, ATOMS, DIM))
    trained = parameters[-2:]
    optimiser = torch.optim.Adam([{"params": trained, "lr": 0.0025, "name": "language_feature"}], lr=0.0, eps=1e-15)
    sum(one.sum() for one in trained).backward()
    optimiser.step()
    statistics = [torch.zeros(len(means)), torch.zeros(len(means), 1), torch.zeros(len(means), 1)]
    # The scene's radius is a number of numpy there.
    return [3, *parameters, *statistics, optimiser.state_dict(), np.float64(4.7)]


@pytest.fixture
def levels(tmp_path: Path) -> list[Path]:
    means = torch.randn(COUNT, 3, generator=torch.Generator().manual_seed(9))
    folders = [tmp_path / f"teatime_0_{level}" for level in (1, 2, 3)]
    for level, folder in enumerate(folders):
        folder.mkdir()
        torch.save((tuple(captured(level, means)), 10_000), folder / "chkpnt10000.pth")
    return folders


def their_features(path: Path) -> np.ndarray:
    """Softmax, the K largest, renormalised, times the codebook. float64 [N, D]"""
    (fields, _) = torch.load(path / "chkpnt10000.pth", weights_only=False)
    logits, codebook = fields[7].detach().double().numpy(), fields[8][0].detach().double().numpy()
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    smallest_kept = np.sort(shares, axis=1)[:, -NONZEROS, None]
    shares = np.where(shares >= smallest_kept, shares, 0)
    return shares / shares.sum(1, keepdims=True) @ codebook


def test_features_are_those_of_langsplat_v2(levels: list[Path]) -> None:
    gaussians, field = read_levels(levels, "openclip:ViT-B-16")
    assert (len(gaussians), len(field), field.levels, field.encoder) == (COUNT, COUNT, 3, "openclip:ViT-B-16")
    assert torch.allclose(field.atoms.norm(dim=2), torch.ones(3, ATOMS))
    decoded = field.decode().numpy()
    for level, path in enumerate(levels):
        np.testing.assert_allclose(decoded[:, level], their_features(path), atol=1e-5)
    (fields, _) = torch.load(levels[0] / "chkpnt10000.pth", weights_only=False)
    assert torch.equal(gaussians.means, fields[1])
    assert torch.equal(gaussians.sh[:, 0], fields[2][:, 0])
    assert torch.equal(gaussians.sh[:, 1:], fields[3])
    np.testing.assert_array_equal(gaussians.scales.detach().numpy(), fields[4].detach().exp().numpy())
    np.testing.assert_array_equal(gaussians.opacities.detach().numpy(), fields[6].detach().sigmoid()[:, 0].numpy())


def test_what_is_written_is_read_again(levels: list[Path], tmp_path: Path) -> None:
    gaussians, field = read_levels(levels, "embedded")
    written = [tmp_path / f"again_{level}" / "chkpnt10000.pth" for level in range(3)]
    assert max(write_levels(written, gaussians, field)) < 1e-5
    for path, level in zip(written, range(3), strict=True):
        np.testing.assert_allclose(their_features(path.parent), field.decode()[:, level].numpy(), atol=1e-5)
    again, codes = read_levels(written, "embedded")
    assert all(
        torch.equal(one, other) for one, other in zip(vars(gaussians).values(), vars(again).values(), strict=True)
    )
    torch.testing.assert_close(codes.decode(), field.decode(), atol=1e-5, rtol=0)


def test_codes_of_any_sum_keep_their_direction(levels: list[Path], tmp_path: Path) -> None:
    """As the solver `lift` makes them; some slots are unused and name an atom that another slot uses."""
    gaussians, _ = read_levels(levels[:1], "embedded")
    random = torch.Generator().manual_seed(1)
    atoms = nn.functional.normalize(torch.randn(1, ATOMS, DIM, generator=random), dim=2)
    indices = torch.stack([torch.randperm(ATOMS, generator=random)[:NONZEROS] for _ in range(COUNT)])[:, None]
    weights = 0.2 + torch.rand(COUNT, 1, NONZEROS, generator=random)
    weights[::3, :, 2:], indices[::3, :, 3] = 0, indices[::3, :, 0]
    field = LanguageField(atoms, indices.to(torch.uint8), weights, "embedded")
    (missed,) = write_levels([tmp_path / "level" / "chkpnt10000.pth"], gaussians, field)
    ours, theirs = field.decode()[:, 0].double().numpy(), their_features(tmp_path / "level")
    lengths = np.linalg.norm(theirs, axis=1) / np.linalg.norm(ours, axis=1)
    cosines = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosines.min() > 1 - 1e-6
    assert np.sqrt(np.mean((1 / lengths - 1) ** 2)) == pytest.approx(missed, rel=1e-3)
    # Better than one factor for all.
    sums = weights.sum((1, 2)).numpy()
    assert 0 < missed < np.std(sums) / np.sqrt(np.mean(sums**2))


def test_the_newest_of_a_folder_is_taken(levels: list[Path]) -> None:
    for name in ("chkpnt7000.pth", "chkpnt30000.pth", "chkpntbest.pth"):
        (levels[0] / name).touch()
    assert find_checkpoint(levels[0]).name == "chkpnt30000.pth"
    with pytest.raises(InputError, match="no chkpnt"):
        find_checkpoint(levels[0].parent)


def rgb_only(fields: list[Any]) -> list[Any]:
    return fields[:7] + fields[9:]


def not_finite(fields: list[Any]) -> list[Any]:
    with torch.no_grad():
        fields[4][7, 1] = torch.inf
    return fields


def too_few_logits(fields: list[Any]) -> list[Any]:
    fields[7] = fields[7][:-1]
    return fields


def text_for_logits(fields: list[Any]) -> list[Any]:
    fields[7] = "logits"
    return fields


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (rgb_only, "12 fields"),
        (not_finite, "scales that are not finite"),
        (too_few_logits, "different numbers of Gaussians"),
        (text_for_logits, "its logits have another shape"),
    ],
)
def test_another_checkpoint_is_refused(spoil: Callable[[list[Any]], list[Any]], sentence: str, tmp_path: Path) -> None:
    torch.save((tuple(spoil(captured(0, torch.zeros(COUNT, 3)))), 10_000), tmp_path / "chkpnt10000.pth")
    with pytest.raises(InputError, match=sentence):
        read_checkpoint(tmp_path / "chkpnt10000.pth")


def test_layers_of_residuals_are_refused(tmp_path: Path) -> None:
    torch.save((tuple(captured(0, torch.zeros(5, 3), layers=2)), 10_000), tmp_path / "chkpnt10000.pth")
    with pytest.raises(InputError, match="codebook of 2 layers"):
        read_checkpoint(tmp_path / "chkpnt10000.pth")


def test_levels_of_two_scenes_are_refused(levels: list[Path]) -> None:
    torch.save((tuple(captured(1, torch.ones(COUNT, 3))), 10_000), levels[1] / "chkpnt10000.pth")
    with pytest.raises(InputError, match="other Gaussians"):
        read_levels(levels, "embedded")
    with pytest.raises(InputError, match="a checkpoint for each level"):
        read_levels([], "embedded")


def claimed(tensor: torch.Tensor, count: int) -> torch.Tensor:
    """The first row of a tensor, said to be many."""
    return tensor[:1].clone().expand(count, *tensor.shape[1:])


@pytest.mark.parametrize(
    "instead",
    [
        lambda tensor: claimed(tensor, 10**9),
        lambda tensor: tensor.to_sparse(),
        lambda tensor: torch.empty(tensor.shape, device="meta"),
    ],
    ids=["stride 0", "sparse", "meta"],
)
@pytest.mark.parametrize("field", [1, 7])
def test_values_that_a_checkpoint_only_claims_are_refused(
    instead: Callable[[torch.Tensor], torch.Tensor], field: int, tmp_path: Path
) -> None:
    """All tensors claim the same, so that nothing but memory or a fault would stop who believes them."""
    fields = captured(0, torch.randn(5, 3))
    for number in range(1, 8):
        tensor = fields[number].detach()
        fields[number] = instead(tensor) if number == field else claimed(tensor, 10**9)
    path = tmp_path / "chkpnt1.pth"
    torch.save((tuple(fields), 1), path)
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match="does not hold all values of its means"):
        read_checkpoint(path)
    whole = captured(0, torch.randn(5, 3))
    whole[field] = instead(whole[field].detach())
    torch.save((tuple(whole), 1), path)
    with pytest.raises(InputError, match=r"does not hold all values of its (means|logits)"):
        read_checkpoint(path)


def test_a_compressed_checkpoint_is_refused(levels: list[Path]) -> None:
    """Its bytes are no values, though as many of them as it takes may be there."""
    path = levels[0] / "chkpnt10000.pth"
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(path.with_name("other.pth"), "w", zipfile.ZIP_DEFLATED) as z:
        for member in archive.infolist():
            z.writestr(member.filename, archive.read(member))
    with pytest.raises(InputError, match=r"other\.pth is a compressed zip"):
        read_checkpoint(path.with_name("other.pth"))


def test_who_cannot_use_a_checkpoint_is_said(levels: list[Path], tmp_path: Path) -> None:
    """Their scripts keep 4 of 64 logits and take the codebook's rows for 512 numbers."""
    random = torch.Generator().manual_seed(2)

    def field(atoms: int, dim: int, nonzeros: int) -> LanguageField:
        rows = nn.functional.normalize(torch.randn(1, atoms, dim, generator=random), dim=2)
        chosen = torch.stack([torch.randperm(atoms, generator=random)[:nonzeros] for _ in range(COUNT)])[:, None]
        weights = 0.2 + torch.rand(COUNT, 1, nonzeros, generator=random)
        return LanguageField(rows, chosen.to(torch.uint8), weights, "embedded")

    assert own_scripts(field(64, 512, 4)) == ""
    told = own_scripts(field(32, 1000, 8))
    assert "features of 1000, not 512; atoms 32, not 64; nonzeros 8, not 4" in told
    assert "atoms" not in own_scripts(field(64, 1000, 4))
    # What is said of nonzeros is so: half of eight lose the direction, all of them keep it.
    eight = field(ATOMS, DIM, 8)
    gaussians, _ = read_levels(levels[:1], "embedded")
    write_levels([tmp_path / "eight.pth"], gaussians, eight)
    similar = []
    for nonzeros in (4, 8):
        _, again = read_levels([tmp_path / "eight.pth"], "embedded", nonzeros)
        similar.append(nn.functional.cosine_similarity(again.decode(), eight.decode(), dim=2))
    assert similar[0].mean() < 0.98
    assert similar[1].min() > 1 - 1e-5


class Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_nothing_is_run_that_a_checkpoint_says(tmp_path: Path) -> None:
    path, marker = tmp_path / "chkpnt1.pth", tmp_path / "ran"
    fields = captured(0, torch.zeros(5, 3))
    torch.save(((*fields[:-1], Hostile(marker)), 1), path)
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        read_checkpoint(path)
    fields[-1] = np.array(["text"], object)
    torch.save((tuple(fields), 1), path)
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        read_checkpoint(path)
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04]", pickle.dumps(5), b"text"])
def test_what_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "chkpnt1.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=str(path)):
        read_checkpoint(path)
    with pytest.raises(InputError, match="does not exist"):
        read_checkpoint(tmp_path / "none.pth")


@pytest.mark.parametrize("whole", [torch.zeros(1).expand(2**40), torch.zeros(2, 12), (torch.zeros(12), 1), [1, 2, 3]])
def test_what_can_be_taken_apart_but_is_no_pair_is_refused(whole: Any, tmp_path: Path) -> None:
    torch.save(whole, tmp_path / "chkpnt1.pth")
    with pytest.raises(InputError, match="is no checkpoint of LangSplatV2"):
        read_checkpoint(tmp_path / "chkpnt1.pth")


def test_a_cut_off_checkpoint_is_refused(levels: list[Path]) -> None:
    path = levels[0] / "chkpnt10000.pth"
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(InputError, match="cannot be read as a checkpoint"):
            read_checkpoint(path)


def test_signed_codes_are_not_written(levels: list[Path], tmp_path: Path) -> None:
    gaussians, field = read_levels(levels, "embedded")
    field.weights[3, 1, 2] = -0.1
    with pytest.raises(InputError, match="Signed codes"):
        write_levels([tmp_path / f"{level}.pth" for level in range(3)], gaussians, field)
    with pytest.raises(InputError, match="3 levels"):
        write_levels([tmp_path / "one.pth"], gaussians, field)
