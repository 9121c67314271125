"""What a long run has finished, line by line: killed at any moment, it continues behind the last whole line.

``journal.jsonl`` in the output folder. Line 1 says what the run was asked for, line 2 its threshold, and every
further line holds a batch of finished images in their order. A batch is one line, so that after a kill either all
of it is known or nothing: batches are then formed as in an unbroken run, and their results are the same bits.

Every line ends with a checksum of itself and of all lines before it. A line that was changed, lost or doubled by a
disk is found by it, and counts as the tear: what comes behind is done again.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from encoders.errors import InputError
from encoders.files import parse_json
from encoders.locks import NAME as LOCK
from encoders.locks import locked_folder

NAME = "journal.jsonl"

_FORMAT = b"dictsplat journal 2"
"""What checksums begin with; a change of what lines mean needs another one."""


class Journal:
    """An append-only file of JSON objects, open in a folder that this process has locked.

    Attributes:
        lines: the objects, without their checksums.
        note: one line for the person who waits, if lines behind these were found to be damaged; else empty.
    """

    def __init__(self, path: Path, handle: int, overwrite: bool = False) -> None:
        self._path, self._handle = path, handle
        content = _read_all(handle)
        self.lines: list[dict[str, Any]] = []
        self._ends: list[int] = []
        self._digests: list[str] = []
        end = 0
        for line in content.splitlines(keepends=True):
            found = _parsed(line, self._digest)
            if found is None:
                break
            end += len(line)
            self._add(found[0], end, found[1])
        # A kill leaves a part of the last line, which has no end.
        damaged = b"\n" in content[end:]
        if damaged and not self.lines and not overwrite:
            raise InputError(
                f"{path} was written by another version of dictsplat, or is damaged in its first line; choose another "
                "--out, or start over with --overwrite."
            )
        self.note = "the journal is damaged, going on before the damage" if damaged and self.lines else ""
        self.keep(len(self.lines))

    @property
    def _digest(self) -> str:
        return self._digests[-1] if self._digests else ""

    def _add(self, entry: dict[str, Any], end: int, digest: str) -> None:
        self.lines.append(entry)
        self._ends.append(end)
        self._digests.append(digest)

    def keep(self, count: int) -> None:
        """Forget all but the first ``count`` lines, a torn one behind them included."""
        del self.lines[count:], self._ends[count:], self._digests[count:]
        end = self._ends[-1] if self._ends else 0
        if os.fstat(self._handle).st_size > end:
            os.ftruncate(self._handle, end)
            os.fsync(self._handle)

    def append(self, entry: dict[str, Any]) -> None:
        """Add a line, which may not be empty; when this returns it is on the disk."""
        # The object without its last bracket, which comes behind the checksum.
        body = json.dumps(entry, allow_nan=False).encode("ascii")[:-1]
        digest = _digest(self._digest, body)
        line = body + _end(digest)
        start = self._ends[-1] if self._ends else 0
        written = 0
        while written < len(line):
            written += os.pwrite(self._handle, line[written:], start + written)
        os.fsync(self._handle)
        self._add(entry, start + len(line), digest)


@contextmanager
def open_journal(folder: Path, overwrite: bool = False) -> Iterator[Journal]:
    """Open or begin the journal in ``folder`` and keep others out; the lock goes when the process goes.

    Args:
        overwrite: a journal that cannot be read is begun anew, instead of refused.

    Raises:
        InputError: another process writes there, or ``folder`` holds files but no journal, or one that no line can be
            read of.
    """
    path = folder / NAME
    if folder.is_dir() and not path.exists() and any(other.name != LOCK for other in folder.iterdir()):
        raise InputError(
            f"{folder} is not empty and not from this command; choose a new folder for --out, so that nothing is lost."
        )
    with locked_folder(folder):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            yield Journal(path, handle, overwrite)
        finally:
            os.close(handle)


def _read_all(handle: int) -> bytes:
    parts, offset = [], 0
    while part := os.pread(handle, 1 << 20, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


def _digest(before: str, body: bytes) -> str:
    """Checksum of a line without its end, given that of the line before."""
    return hashlib.blake2b(b"%b\n%b\n%b" % (_FORMAT, before.encode(), body), digest_size=16).hexdigest()


def _end(digest: str) -> bytes:
    return f', "checksum": "{digest}"}}\n'.encode()


def _parsed(line: bytes, before: str) -> tuple[dict[str, Any], str] | None:
    """A whole line's object and checksum, given that of the line before; None for a torn or changed one."""
    body = line[: -len(_end(_digest("", b"")))]
    digest = _digest(before, body)
    if body + _end(digest) != line:
        return None
    try:
        entry = parse_json(body + b"}")
    except ValueError:
        return None
    return (entry, digest) if isinstance(entry, dict) else None
