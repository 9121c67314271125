"""A download in progress: the bytes that came so far, where they are from, and the right to add to them."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from encoders.errors import InputError
from encoders.files import parse_json, write_json


@dataclass(frozen=True)
class Source:
    """What a server said of the file it began to send.

    Attributes:
        url: asked for.
        etag, modified: of its ETag and Last-Modified headers; "" where it sent none.
        length: of the whole file in bytes, if it told.
    """

    url: str
    etag: str = ""
    modified: str = ""
    length: int | None = None

    @property
    def validator(self) -> str:
        """For an If-Range header; "" if there is nothing that a server may compare there (RFC 9110, 13.1.5)."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified


class Part:
    """PATH.part, and beside it PATH.part.json, the `Source` of its bytes."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path, self._file = path, file

    @classmethod
    @contextmanager
    def locked(cls, target: Path) -> Iterator["Part"]:
        """Open the part of ``target`` alone; what is still empty in the end is removed.

        The lock is the kernel's: it goes when the process goes, however that happens.

        Raises:
            InputError: another process is adding to it.
        """
        path = target.with_name(target.name + ".part")
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _open_alone(path)
        part = cls(path, file)
        try:
            yield part
        finally:
            if not part.size:
                part._remove()
            file.close()

    @property
    def size(self) -> int:
        """How many bytes there are."""
        self._file.flush()
        return os.fstat(self._file.fileno()).st_size

    def source(self) -> Source | None:
        """Where the bytes are from; None if that is not known, and they are then of no use."""
        try:
            source = Source(**parse_json(self._about.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        texts = all(isinstance(text, str) for text in (source.url, source.etag, source.modified))
        return source if texts and (source.length is None or isinstance(source.length, int)) else None

    def begin(self, source: Source) -> None:
        """Forget all bytes; those to come are from ``source``."""
        self._file.truncate(0)
        write_json(self._about, asdict(source))

    def write(self, chunk: bytes) -> None:
        """Add bytes at the end."""
        self._file.write(chunk)

    def finish(self, target: Path) -> None:
        """Rename the file, which is whole, to ``target``."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._path.replace(target)
        self._about.unlink(missing_ok=True)

    @property
    def _about(self) -> Path:
        return self._path.with_name(self._path.name + ".json")

    def _remove(self) -> None:
        self._about.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)


def _open_alone(path: Path) -> IO[bytes]:
    while True:
        file = path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except BlockingIOError:
            file.close()
            raise InputError(f"Another process is fetching {path}; wait for it, or choose another --out.") from None
        file.close()  # the other process had it whole, and renamed it, between the two lines
