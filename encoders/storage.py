"""What the system says when a file cannot be written, as a sentence for people."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from encoders.errors import InputError

FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Errors of the system that mean: no room for this file."""

_TORCH_CANNOT_WRITE = ("PytorchStreamWriter failed", "inline_container.cc", "iostream error")
"""torch.save does not say why a write failed; on a file that could be opened it is the disk."""


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn "the disk is full" and "may not write here" into an `InputError` about ``folder``.

    Besides OSError this knows how safetensors and torch, which write from native code, report it.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK:
            raise _disk_full(folder, error) from error
        if isinstance(error, PermissionError) or error.errno == errno.EROFS:
            raise InputError(
                f"{error.filename or folder} cannot be written ({error.strerror}); choose another --out."
            ) from error
        raise
    except (SafetensorError, RuntimeError) as error:
        text = str(error)
        full = any(f"os error {code}" in text for code in FULL_DISK)
        if full or any(sign in text for sign in _TORCH_CANNOT_WRITE):
            raise _disk_full(folder, error) from error
        raise


def _disk_full(folder: Path, error: Exception) -> InputError:
    return InputError(
        f"The disk with {folder} is full or over its quota ({error}); free some space and run the same command again."
    )
