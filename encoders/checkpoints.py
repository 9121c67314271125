"""Checkpoints of a training: safetensors files that know when they are damaged, and the one before beside each.

A disk may lose or change what it was given. The metadata hold a checksum of everything else in the file; where it does
not fit, the training goes on from the checkpoint before instead of from numbers that nobody computed.
"""

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


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a checkpoint, atomically; the one that was at ``path`` is kept at `previous_path`."""
    here = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(here, temporary, {**metadata, _CHECKSUM: _checksum(here, metadata)})
        # Killed between this and its end, there is no file at ``path``, and the one before is found.
        if path.exists():
            path.replace(previous_path(path))


def load_checkpoint(path: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; None if there is none at all.

    A damaged one is removed where the one before is whole, so that it does not take that one's place.

    Raises:
        InputError: there are checkpoints, and all of them are damaged.
    """
    damaged: list[Path] = []
    reason = note = ""
    for place in (path, previous_path(path)):
        try:
            tensors, metadata = _read(place)
        except FileNotFoundError:
            continue
        except (SafetensorError, OSError, ValueError) as error:
            damaged.append(place)
            reason = reason or str(error)
            continue
        if damaged:
            path.unlink()
            note = "the last checkpoint is damaged, going on from the one before"
        return Checkpoint(tensors, metadata, note)
    if damaged:
        names = " and ".join([str(damaged[0]), *(other.name for other in damaged[1:])])
        are, them = ("are", "them") if damaged[1:] else ("is", "it")
        raise InputError(f"{names} {are} damaged ({reason}); remove {them} to start again.")
    return None


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
