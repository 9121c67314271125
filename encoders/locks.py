"""One writer per folder: the lock that every command takes before it writes where it may be continued.

``.lock`` in the folder, held with ``flock``. The lock is the kernel's: it goes when the process goes, however that
happens, so nobody has to remove a file that a killed process left behind.
"""

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from encoders.errors import InputError

NAME = ".lock"

_held: set[int] = set()
"""Handles of locks. A forked child, such as a process that reads photos, would keep the lock of a killed parent."""


class FolderInUse(InputError):
    """Another process holds the folder's lock; it may let go of it."""


def _let_go() -> None:
    for handle in _held:
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Create ``folder`` if need be and hold its lock, so that no two writers ever share it, in one process or two.

    Raises:
        FolderInUse: somebody else holds it.
        InputError: ``folder`` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file, not a folder; choose another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o644)
    _held.add(handle)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUse(
                f"Another dictsplat process is writing to {folder}; wait for it or choose another --out."
            ) from None
        yield
    finally:
        if handle in _held:  # not in a forked child, where the number may be another file's by now
            _held.discard(handle)
            os.close(handle)


def sweep(folder: Path, patterns: Iterable[str]) -> None:
    """Remove what `encoders.files` was writing when a process was killed; only under the lock.

    Args:
        patterns: as of `Path.glob`, such as ``.*.tmp*``; narrow where people may have files of their own.
    """
    for left in [path for pattern in patterns for path in folder.glob(pattern)]:
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
