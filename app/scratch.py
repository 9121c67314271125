"""Folders for what visitors upload and make, one per session: few, not old, and gone when the program is.

All of them lie in one folder in the system's place for temporary files. A program that is killed cannot clean up; the
next one sees that nobody holds that folder's lock any more, and removes it.
"""

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from encoders.errors import InputError

PREFIX = "dictsplat-scratch-"
LOCK = ".lock"


@dataclass
class _Entry:
    folder: Path
    touched: float
    users: int = 0
    doomed: bool = False


class Scratch:
    """Temporary folders by key, each made when it is first asked for.

    Args:
        most: folders at a time. One more takes the place of the one that was left alone for longest.
        seconds: after which a folder that was left alone is removed.
        parent: where they lie; by default the system's folder for temporary files.
    """

    def __init__(self, most: int = 48, seconds: float = 4 * 3600, parent: Path | None = None) -> None:
        self._most, self._seconds = most, seconds
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._guard = Lock()
        place = Path(parent or tempfile.gettempdir())
        _sweep(place)
        self.root = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        unlocked = self.root / f"{LOCK}-new"
        self._lock = os.open(unlocked, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        unlocked.rename(self.root / LOCK)  # under this name it is locked from its first moment on
        atexit.register(self.close)

    @contextlib.contextmanager
    def use(self, key: str, new: bool = True) -> Iterator[Path]:
        """The folder of ``key``, which stays while the block runs whatever others do.

        Args:
            new: make it if there is none.

        Raises:
            InputError: there are too many and all are in use; or there is none and ``new`` is False.
        """
        with self._guard:
            if not new and key not in self._entries:
                raise InputError("The files of this session are no longer kept; upload them again.")
            entry = self._entry(key)
            entry.users += 1
        try:
            yield entry.folder
        finally:
            with self._guard:
                entry.users -= 1
                entry.touched = time.monotonic()
                if entry.doomed and not entry.users:
                    shutil.rmtree(entry.folder, ignore_errors=True)

    def drop(self, key: str) -> None:
        """Remove the folder of ``key``, if there is one; if it is in use, as soon as it no longer is."""
        with self._guard:
            if key in self._entries:
                self._remove(key)

    def close(self) -> None:
        """Remove all folders."""
        atexit.unregister(self.close)
        with self._guard:
            self._entries.clear()
            shutil.rmtree(self.root, ignore_errors=True)
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    def _entry(self, key: str) -> _Entry:
        now = time.monotonic()
        for old in [name for name, entry in self._entries.items() if now - entry.touched > self._seconds]:
            if not self._entries[old].users:
                self._remove(old)
        if key not in self._entries:
            if len(self._entries) >= self._most:
                idle = next((name for name, entry in self._entries.items() if not entry.users), None)
                if idle is None:
                    raise InputError("Too many people are at work here; try again in a minute.")
                self._remove(idle)
            self._entries[key] = _Entry(Path(tempfile.mkdtemp(dir=self.root)), now)
        self._entries.move_to_end(key)
        self._entries[key].touched = now
        return self._entries[key]

    def _remove(self, key: str) -> None:
        entry = self._entries.pop(key)
        entry.doomed = True
        if not entry.users:
            shutil.rmtree(entry.folder, ignore_errors=True)


def _sweep(place: Path) -> None:
    """Remove what programs that were killed left behind."""
    for left in place.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, another program was faster, or it is just being made
            handle = os.open(left / LOCK, os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(handle)
