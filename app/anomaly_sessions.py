"""Whose inspection is whose: a folder and at most one running inspection per session, stopped and removed with it."""

import contextlib
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Condition, Event

from app.anomaly_example import write_example
from app.anomaly_job import Inspection, Inspector, placeless
from app.scratch import Scratch
from dictas.predict import PredictOptions
from encoders.errors import InputError
from encoders.progress import Report

LONGEST = 30 * 60.0
"""Seconds that one inspection may keep all others waiting."""
PATIENCE = 60.0
"""Seconds that a new inspection waits for the end of one that was stopped."""
FOLDERS = 24
"""Sessions whose results are kept at a time; each may take gigabytes."""


class Stopped(Exception):
    """The visitor ended the inspection, or left."""


class Sessions:
    """Inspections of all visitors.

    Args:
        inspector: judges for all of them, one after the other.
    """

    def __init__(self, inspector: Inspector) -> None:
        self._inspector = inspector
        self._scratch = Scratch(FOLDERS)
        self._running: dict[str, Event] = {}
        self._results: dict[str, str] = {}
        self._changed = Condition()

    def inspect(
        self, session: str, good: Sequence[Path], judge: Sequence[Path], options: PredictOptions, report: Report
    ) -> Inspection:
        """Judge photos; then what the session had before is removed.

        Raises:
            InputError: see `Inspector.inspect`, or another inspection of this session is running, or it takes too long.
            Stopped: `stop` or `leave` was called meanwhile.
        """
        stop = Event()
        with self._changed:
            other = self._running.get(session)
            if other is not None and other.is_set():  # it ends at its next report
                self._changed.wait_for(lambda: session not in self._running, PATIENCE)
            if session in self._running:
                raise InputError("Another inspection of yours is running; wait for it, or stop it.")
            self._running[session] = stop
        began = time.monotonic()

        def watched(done: int, total: int, message: str) -> None:
            if stop.is_set():
                raise Stopped
            if time.monotonic() - began > LONGEST:
                raise InputError("This takes too long for a server that others wait for; judge fewer photos at a time.")
            report(done, total, message)

        key = uuid.uuid4().hex
        try:
            with self._scratch.use(key) as folder:
                watched(0, 1, "reading the uploads")
                inspection = self._inspector.inspect(key, folder, good, judge, options, watched, watched)
            with self._changed:
                if stop.is_set():
                    raise Stopped
                before = self._results.pop(session, "")
                self._results[session] = key
            self._scratch.drop(before)
            return inspection
        except BaseException:
            self._scratch.drop(key)
            raise
        finally:
            with self._changed:
                del self._running[session]
                self._changed.notify_all()

    def stop(self, session: str) -> None:
        """End the session's inspection, if one is running, before its next photos."""
        with self._changed:
            if session in self._running:
                self._running[session].set()

    def leave(self, session: str) -> None:
        """End the session's inspection and remove all that it has."""
        self.stop(session)
        with self._changed:
            key = self._results.pop(session, "")
        self._scratch.drop(key)

    def forget(self, inspection: Inspection | None) -> None:
        """Remove an inspection that nobody looks at any more."""
        if inspection is not None:
            self._scratch.drop(inspection.key)

    @contextlib.contextmanager
    def keeping(self, inspection: Inspection | None) -> Iterator[Inspection]:
        """An inspection whose files stay for as long as the block runs.

        Raises:
            InputError: they are gone.
        """
        if inspection is None:
            raise InputError("There are no results yet; press Find defects.")
        with self._scratch.use(inspection.key, new=False) as folder:
            assert folder == inspection.folder
            with placeless(folder):
                yield inspection

    def example(self) -> tuple[list[Path], list[Path]]:
        """Photos to try it with: of good parts, and to judge. They stay as long as the server runs."""
        with self._changed:
            folder = self._scratch.root / "example"
            folder.mkdir(exist_ok=True)
            return write_example(folder)
