"""Checkpoints of a training: safetensors files that know when they are damaged, and the one before beside each.

A disk may lose or change what it was given. The metadata hold a checksum of everything else in the file; where it does
not fit, the training goes on from the checkpoint before instead of from numbers that nobody computed. A file that
cannot be read for another reason, such as a missing permission, is no damaged one: that is told, and nothing is done.
"""

import errno
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from encoders.errors import InputError
from encoders.files import atomic_path

_CHECKSUM = "checksum"


class DamagedCheckpoints(InputError):
    """There are checkpoints, and none of them is whole."""


@dataclass(frozen=True)
class Checkpoint:
    """What `save_checkpoint` was given, on the CPU.

    Attributes:
        note: one line for the person who waits, if this is not the newest checkpoint; else empty.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    note: str = ""


def previous_path(path: Path) -> Path:
    """Where the checkpoint before the one at ``path`` is."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def damaged_path(path: Path) -> Path:
    """Where a damaged checkpoint goes that was at ``path``: a disk that fails today may be read tomorrow."""
    return path.with_name(f"{path.stem}.damaged{path.suffix}")


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], keep: bool = True) -> None:
    """Write a checkpoint, atomically.

    Args:
        keep: the one that was at ``path`` is kept at `previous_path`; False for what can be computed again.
    """
    here = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(here, temporary, {**metadata, _CHECKSUM: _checksum(here, metadata)})
        # Killed between this and its end, there is no file at ``path``, and the one before is found.
        if keep and path.exists():
            path.replace(previous_path(path))


def load_checkpoint(path: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; None if there is none at all.

    A damaged one goes to `damaged_path` where the one before is whole, so that it does not take that one's place.
    A disk that reports a failure (EIO) counts as damage.

    Raises:
        DamagedCheckpoints: there are checkpoints, and all of them are damaged; they stay where they are.
        InputError: one cannot be read, for now, and nothing tells that it is damaged.
    """
    damaged: list[Path] = []
    reason = note = ""
    for place in (path, previous_path(path)):
        try:
            tensors, metadata = _read(place)
        except FileNotFoundError:
            continue
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            if isinstance(error, OSError) and error.errno != errno.EIO:
                raise InputError(
                    f"{place} cannot be read ({error.strerror or error}); nothing was changed, "
                    "run the same command again when it can."
                ) from error
            damaged.append(place)
            reason = reason or str(error)
            continue
        if damaged:
            set_aside(path)
            note = "the last checkpoint is damaged, going on from the one before"
        return Checkpoint(tensors, metadata, note)
    if damaged:
        names = " and ".join([str(damaged[0]), *(other.name for other in damaged[1:])])
        are, them = ("are", "them") if damaged[1:] else ("is", "it")
        raise DamagedCheckpoints(f"{names} {are} damaged ({reason}); remove {them} to start again.")
    return None


def set_aside(*paths: Path) -> None:
    """Move damaged checkpoints to `damaged_path`; those that are not there are none."""
    for path in paths:
        if path.exists():
            path.replace(damaged_path(path))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    # Read, not mapped: a disk that fails then raises an OSError, instead of ending the process with a signal.
    content = path.read_bytes()
    tensors = load(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata: dict[str, str] = header.get("__metadata__", {})
    if metadata.pop(_CHECKSUM, None) != _checksum(tensors, metadata):
        raise ValueError("its checksum does not fit")
    return tensors, metadata


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    digest = hashlib.blake2b(json.dumps(dict(metadata), sort_keys=True).encode(), digest_size=16)
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
