"""Checkpoints that a disk has spoilt are noticed, and the one before is used."""

import errno
import itertools
import os
from pathlib import Path

import pytest
import torch

from encoders.checkpoints import DamagedCheckpoints, damaged_path, load_checkpoint, previous_path, save_checkpoint
from encoders.errors import InputError
from splat import fit_checkpoint


def save(path: Path, step: int) -> None:
    tensors = {
        "weights": torch.full((3, 4), float(step)),
        "step": torch.tensor(step),
        "none": torch.zeros(0, 2, dtype=torch.bfloat16),
        "used": torch.tensor([True, False]),
    }
    save_checkpoint(path, tensors, {"step": str(step)})


def step_of(path: Path) -> int:
    found = load_checkpoint(path)
    assert found is not None
    assert found.metadata == {"step": str(int(found.tensors["step"]))}
    assert found.tensors["weights"].tolist() == [[float(found.metadata["step"])] * 4] * 3
    return int(found.metadata["step"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a checkpoint at step 2, with that of step 1 before it."""
    path = tmp_path / "fit.safetensors"
    assert load_checkpoint(path) is None
    save(path, 1)
    save(path, 2)
    return path


def test_the_newest_is_used_and_one_more_is_kept(path: Path) -> None:
    found = load_checkpoint(path)
    assert found is not None
    assert (step_of(path), found.note, step_of(previous_path(path))) == (2, "", 1)
    assert found.tensors["none"].shape == (0, 2)
    save(path, 3)
    assert (step_of(path), step_of(previous_path(path))) == (3, 2)
    assert sorted(path.parent.iterdir()) == sorted([path, previous_path(path)])


def test_no_changed_byte_and_no_lost_one_goes_unnoticed(path: Path) -> None:
    good, before = path.read_bytes(), previous_path(path).read_bytes()
    flipped = (good[:i] + bytes([good[i] ^ 1 << i % 8]) + good[i + 1 :] for i in range(len(good)))
    cut = (good[:length] for length in range(0, len(good), 7))
    for content in itertools.chain(flipped, cut, [bytes(len(good)), good + b"\0"]):
        path.write_bytes(content)
        found = load_checkpoint(path)
        assert found is not None
        assert found.note == "the last checkpoint is damaged, going on from the one before"
        assert found.metadata == {"step": "1"}
        assert previous_path(path).read_bytes() == before


def test_what_is_damaged_does_not_replace_what_is_whole(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])
    assert step_of(path) == 1
    save(path, 2)
    assert (step_of(path), step_of(previous_path(path))) == (2, 1)


def test_a_kill_between_two_renames_loses_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = Path.replace, []

    def replace(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        save(path, 3)
    assert not path.exists()
    found = load_checkpoint(path)
    assert found is not None
    assert (found.metadata["step"], found.note) == ("2", "")


def fail_to_read(monkeypatch: pytest.MonkeyPatch, code: int, *paths: Path) -> None:
    real = Path.read_bytes

    def read_bytes(self: Path) -> bytes:
        if self in paths:
            raise OSError(code, os.strerror(code), str(self))
        return real(self)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_disk_that_fails_counts_as_damage_and_nothing_is_lost(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(path.parent)
    with monkeypatch.context() as patch:
        fail_to_read(patch, errno.EIO, path)
        assert step_of(path) == 1
    # Tomorrow the disk may be read.
    assert contents(path.parent) == {
        "fit.damaged.safetensors": before["fit.safetensors"],
        "fit.previous.safetensors": before["fit.previous.safetensors"],
    }
    assert step_of(damaged_path(path)) == 2


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EACCES, errno.ESTALE, errno.EINTR, errno.ENOMEM])
@pytest.mark.parametrize("both", [True, False])
def test_what_cannot_be_read_for_now_is_left_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch, code: int, both: bool
) -> None:
    before = contents(path.parent)
    places = (path, previous_path(path)) if both else (path,)
    with monkeypatch.context() as patch:
        fail_to_read(patch, code, *places)
        with pytest.raises(InputError, match=r"fit\.safetensors cannot be read .*nothing was changed") as caught:
            load_checkpoint(path)
        assert os.strerror(code) in str(caught.value)
        assert not isinstance(caught.value, DamagedCheckpoints)
        # Nor does an optimisation begin again.
        with pytest.raises(InputError, match="cannot be read"):
            fit_checkpoint.load_checkpoint(path, "", torch.nn.ParameterDict(), {}, {})
    assert contents(path.parent) == before
    assert step_of(path) == 2


def test_where_both_are_damaged_an_optimisation_begins_again_and_keeps_them(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(path.parent)
    with monkeypatch.context() as patch:
        fail_to_read(patch, errno.EIO, path, previous_path(path))
        found = fit_checkpoint.load_checkpoint(path, "", torch.nn.ParameterDict(), {}, {})
    assert found == (0, "the checkpoint is damaged, starting again")
    save(path, 1)
    save(path, 2)
    now = contents(path.parent)
    assert now["fit.damaged.safetensors"] == before["fit.safetensors"]
    assert now["fit.previous.damaged.safetensors"] == before["fit.previous.safetensors"]
    assert step_of(path) == 2


def test_a_kind_of_number_that_torch_has_not_is_damage(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"BOOL"', b'"F4"  ').replace(b"[0,2]", b"[0,4]"))
    assert step_of(path) == 1


def test_what_can_be_computed_again_is_kept_once(tmp_path: Path) -> None:
    for number in (1.0, 2.0):
        save_checkpoint(tmp_path / "known.safetensors", {"a": torch.tensor(number)}, {}, keep=False)
    assert [one.name for one in tmp_path.iterdir()] == ["known.safetensors"]


def test_with_both_damaged_one_sentence_names_them(path: Path) -> None:
    for one in (path, previous_path(path)):
        one.write_bytes(one.read_bytes()[:-1])
    with pytest.raises(
        InputError, match=r"fit\.safetensors and fit\.previous\.safetensors are damaged .*; remove them to start again"
    ):
        load_checkpoint(path)
    path.unlink()
    with pytest.raises(InputError, match=r"fit\.previous\.safetensors is damaged .*; remove it to start again"):
        load_checkpoint(path)
