"""What a long run has finished, line by line: killed at any moment, it continues behind the last whole line.

``journal.jsonl`` in the output folder. Line 1 says what the run was asked for, line 2 its threshold, and every
further line holds a batch of finished images in their order. A batch is one line, so that after a kill either all
of it is known or nothing: batches are then formed as in an unbroken run, and their results are the same bits.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from encoders.errors import InputError
from encoders.files import parse_json

NAME = "journal.jsonl"

_open: set[int] = set()
"""Handles of journals. A forked child, such as a process that reads photos, would keep the lock of a killed parent."""


def _close_all() -> None:
    for handle in _open:
        os.close(handle)
    _open.clear()


os.register_at_fork(after_in_child=_close_all)


class Journal:
    """An append-only file of JSON objects, open and locked by this process."""

    def __init__(self, path: Path, handle: int) -> None:
        self._path, self._handle = path, handle
        content = _read_all(handle)
        self.lines: list[dict[str, Any]] = []
        self._ends: list[int] = []
        end = 0
        for line in content.splitlines(keepends=True):
            entry = _parsed(line)
            if entry is None:
                break
            end += len(line)
            self.lines.append(entry)
            self._ends.append(end)
        self.keep(len(self.lines))

    def keep(self, count: int) -> None:
        """Forget all but the first ``count`` lines, a torn one behind them included."""
        del self.lines[count:], self._ends[count:]
        end = self._ends[-1] if self._ends else 0
        if os.fstat(self._handle).st_size > end:
            os.ftruncate(self._handle, end)
            os.fsync(self._handle)

    def append(self, entry: dict[str, Any]) -> None:
        """Add a line; when this returns it is on the disk."""
        line = (json.dumps(entry, allow_nan=False) + "\n").encode("ascii")
        start = self._ends[-1] if self._ends else 0
        written = 0
        while written < len(line):
            written += os.pwrite(self._handle, line[written:], start + written)
        os.fsync(self._handle)
        self.lines.append(entry)
        self._ends.append(start + len(line))


@contextmanager
def open_journal(folder: Path) -> Iterator[Journal]:
    """Open or begin the journal in ``folder`` and keep others out; the lock goes when the process goes.

    Raises:
        InputError: another process writes there, or ``folder`` holds files but no journal.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file, not a folder; choose another --out.")
    path = folder / NAME
    if folder.is_dir() and not path.exists() and any(folder.iterdir()):
        raise InputError(
            f"{folder} is not empty and not from this command; choose a new folder for --out, so that nothing is lost."
        )
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    _open.add(handle)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"Another dictsplat process is writing to {folder}; wait for it or choose another --out."
            ) from None
        yield Journal(path, handle)
    finally:
        _open.discard(handle)
        os.close(handle)


def _read_all(handle: int) -> bytes:
    parts, offset = [], 0
    while part := os.pread(handle, 1 << 20, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A whole line's object; None for a torn one."""
    if not line.endswith(b"\n"):
        return None
    try:
        entry = parse_json(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
