"""Checkpoints that a disk has spoilt are noticed, and the one before is used."""

import errno
import itertools
from pathlib import Path

import pytest
import torch

from encoders.checkpoints import load_checkpoint, previous_path, save_checkpoint
from encoders.errors import InputError


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


def test_a_disk_that_cannot_be_read_counts_as_damage(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.read_bytes

    def read_bytes(self: Path) -> bytes:
        if self == path:
            raise OSError(errno.EIO, "Input/output error", str(self))
        return real(self)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert step_of(path) == 1


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
