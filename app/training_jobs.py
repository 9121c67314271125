"""Trainings in the background: a queue of them, each a process of its own, in run folders that tell their state.

Jobs belong to the program, not to a page, and what is known about one lies in its folder: a page that is loaded again
finds them, and so does a program that is started again.
"""

import atexit
import contextlib
import itertools
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import RLock, Thread

from app import told
from app.training_folder import NAME, Job, Outcome, Record, TrainingFolder, sweep
from app.training_process import judge, launch, stop
from app.training_uploads import check_kinds, receive, suggested_name
from encoders.errors import InputError
from encoders.files import atomic_folder, write_json
from splat.train_config import PRESETS

DEMO = "demo"
"""The name of the demo scene's job."""

MOST_WAITING = 8
"""Trainings in the queue."""

ROOM_BYTES = 1 << 30
"""Free space that a training must find, besides three times what was uploaded."""


class TrainingJobs:
    """The trainings below a folder. One runs at a time, because it takes the whole machine; others wait.

    Args:
        root: where run folders are made.
        show: called with the run folder of a training that has ended well; may raise `InputError`.
        device: what trainings use: "auto", "cpu", "cuda" or "cuda:N".
    """

    def __init__(self, root: Path, show: Callable[[Path], object], device: str = "auto") -> None:
        self._root = Path(root).resolve()
        self._show, self._device = show, device
        self._queue: list[str] = []
        self._receiving: set[str] = set()
        self._unwritten: dict[str, tuple[Outcome, str]] = {}  # how trainings ended, while the disk is full
        self._present: tuple[str, subprocess.Popen[bytes]] | None = None
        self._cancelled = self._closed = False
        self._guard = RLock()
        sweep(self._root)
        atexit.register(self.close)

    def jobs(self) -> list[Job]:
        """All of them, the newest first."""
        names = [path.parent.name for path in self._root.glob("*/job.json")]
        folders = [TrainingFolder(self._root, name) for name in names if NAME.fullmatch(name)]
        found = [self._job(folder, record) for folder in folders if (record := folder.read()) is not None]
        return sorted(found, key=lambda job: (-job.record.created, job.name))

    def folder(self, name: str) -> TrainingFolder:
        """The folder of a job: its progress, log and preview.

        Raises:
            InputError: there is no job of this name.
        """
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise InputError("There is no training of this name; choose one from the list.")
        folder = TrainingFolder(self._root, name)
        folder.known()
        return folder

    def get(self, name: str) -> Job:
        """One job.

        Raises:
            InputError: there is none of this name.
        """
        folder = self.folder(name)
        return self._job(folder, folder.known())

    def start(self, name: str, files: Sequence[Path], preset: str = "fast") -> Job:
        """Train on photos, a zip of photos or a video, which are copied.

        Args:
            name: becomes the run folder's: letters, digits and hyphens; capitals become small, spaces hyphens. If it is
                empty the scene is called after its files.
            preset: of `splat.train_config.PRESETS`.

        Raises:
            InputError: the files are not like that, the name cannot be used or is taken, there is no room on the disk,
                or too many trainings are waiting.
        """
        if preset not in PRESETS:
            raise InputError(f"There is no preset {preset!r}; choose one of {', '.join(PRESETS)}.")
        check_kinds(files)
        name = self._reserve(name, suggested_name(files))
        try:
            self._check_room(sum(file.stat().st_size for file in files if file.is_file()))
            with atomic_folder(self._root / name) as place:
                record = Record(**vars(receive(files, place)), preset=preset, created=time.time())
                write_json(place / "job.json", record.model_dump())
            return self._enqueue(name)
        finally:
            self._receiving.discard(name)

    def start_demo(self) -> Job:
        """Make the demo scene and train on it, or continue that, or show it if it is finished.

        Raises:
            InputError: there is no room on the disk, or too many trainings are waiting.
        """
        folder = TrainingFolder(self._root, DEMO)
        record = folder.read() or Record(kind="demo", created=time.time())
        job = self._job(folder, record)
        if job.state == "finished":
            with contextlib.suppress(InputError):  # it was spoilt since then, and is made again
                self._show(folder.path)
                return job
        with self._guard:
            job = self._job(folder, record)
            if job.active:
                return job
            self._check_queue()
            self._check_room(0)
            folder.write(record)
            return self._enqueue(DEMO)

    def show(self, name: str) -> None:
        """Show a finished training again.

        Raises:
            InputError: it is not finished, or was spoilt since then.
        """
        job = self.get(name)
        if job.state != "finished":
            raise InputError(f"{name} is {job.state}; it can be shown when it is finished.")
        self._show(self.folder(name).path)

    def cancel(self, name: str) -> Job:
        """Stop a training, or let it wait no longer; it can be continued.

        Raises:
            InputError: it is not at work, or another program has started it.
        """
        with self._guard:
            job = self.get(name)
            if name in self._queue:
                self._queue.remove(name)
                self._end(self.folder(name), "stopped")
            elif self._present is not None and self._present[0] == name:
                self._cancelled = True
                Thread(target=stop, args=(self._present[1],), daemon=True).start()
            else:
                other = "being trained by another program; stop it there" if job.active else "not being trained"
                raise InputError(f"{name} is {other}.")
            return self.get(name)

    def resume(self, name: str) -> Job:
        """Continue a training that was stopped or has failed.

        Raises:
            InputError: it is at work or finished, there is no room on the disk, or too many are waiting.
        """
        with self._guard:
            self._check_idle(name)
            self._check_queue()
            self._check_room(0)
            return self._enqueue(name)

    def remove(self, name: str) -> None:
        """Delete a training that was stopped or has failed, with what was uploaded for it.

        Raises:
            InputError: it is at work or finished.
        """
        with self._guard:
            self._check_idle(name)
            doomed = self._root / f".{name}.removed.tmp"
            shutil.rmtree(doomed, ignore_errors=True)
            self.folder(name).path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def close(self) -> None:
        """Stop what runs; what was waiting waits no longer. All of it can be continued by another `TrainingJobs`."""
        atexit.unregister(self.close)
        with self._guard:
            self._closed = True
            self._queue.clear()
            present = self._present
        if present is not None:
            stop(present[1])

    def _reserve(self, wanted: str, otherwise: str) -> str:
        name = re.sub(r"[\s_]+", "-", wanted.strip().lower())
        if name and not NAME.fullmatch(name):
            raise InputError("Give a name of up to 40 letters from a to z, digits and hyphens, for example: my-desk.")
        with self._guard:
            self._check_queue()
            if not name:
                numbered = (f"{otherwise}-{number}" for number in itertools.count(2))
                name = next(free for free in itertools.chain([otherwise], numbered) if not self._is_taken(free))
            elif self._is_taken(name):
                raise InputError(f"There is a scene called {name} already; choose another name.")
            self._receiving.add(name)
        return name

    def _is_taken(self, name: str) -> bool:
        return name == DEMO or name in self._receiving or (self._root / name).exists()

    def _check_queue(self) -> None:
        if len(self._queue) + len(self._receiving) >= MOST_WAITING:
            raise InputError(f"{MOST_WAITING} trainings are waiting already; come back when one is finished.")

    def _check_room(self, uploaded: int) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        free, needed = (size / 1e9 for size in (shutil.disk_usage(self._root).free, ROOM_BYTES + 3 * uploaded))
        if free < needed:
            raise InputError(
                f"{free:.1f} GB are free on the disk and {needed:.1f} GB are needed; make some room first."
            )

    def _check_idle(self, name: str) -> None:
        job = self.get(name)
        if not job.idle:
            raise InputError(f"{name} is {job.state}; only what was stopped or has failed can be continued or removed.")

    def _job(self, folder: TrainingFolder, record: Record) -> Job:
        with self._guard:
            name, state, sentence, turn = folder.name, record.outcome, record.sentence, 0
            if self._present is not None and self._present[0] == name:
                return Job(name, "stopping" if self._cancelled else "running", "", 0, record)
            if name in self._queue:
                turn = self._queue.index(name) + (self._present is not None)
                return Job(name, "waiting", "", turn, record)
            if name in self._unwritten:
                state, sentence = self._unwritten[name]
                self._end(folder, state, sentence)  # there may be room again
        if state:
            return Job(name, state, sentence, 0, record)
        if folder.busy():
            return Job(name, "running", "Another program is training it.", 0, record)
        return Job(name, "stopped", "The app was closed before it was finished.", 0, record)

    def _enqueue(self, name: str) -> Job:
        with self._guard:
            self.folder(name).end("")
            self._unwritten.pop(name, None)
            self._queue.append(name)
            self._next()
            return self.get(name)

    def _next(self) -> None:
        """Start the training that has waited longest and can be, if none runs."""
        while self._queue and self._present is None and not self._closed:
            folder = TrainingFolder(self._root, self._queue.pop(0))
            try:
                process = launch(folder, folder.known(), self._device)
            except InputError:  # somebody removed it
                continue
            except OSError as error:
                self._end(folder, "failed", f"The training could not be started: {error.strerror}.")
                continue
            self._present, self._cancelled = (folder.name, process), False
            Thread(target=self._watch, args=(folder, process), daemon=True).start()

    def _watch(self, folder: TrainingFolder, process: subprocess.Popen[bytes]) -> None:
        """Wait for a training's end, write down how it ended, and start the next one."""
        status = process.wait()
        try:
            shutil.rmtree(folder.scratch_path, ignore_errors=True)
            outcome, sentence = judge(status, self._cancelled or self._closed, folder.said())
            if outcome == "finished":
                try:
                    self._show(folder.path)
                except Exception as error:  # whatever it is, it belongs to this training
                    sentence = folder.private(told.sentence(error) or f"It cannot be shown: {error}.")
                    outcome = "failed"
            with self._guard:
                if outcome != "stopped" or not self._closed:
                    self._end(folder, outcome, sentence)
        finally:
            with self._guard:
                self._present = None
                self._next()

    def _end(self, folder: TrainingFolder, outcome: Outcome, sentence: str = "") -> None:
        """Write down how a training ended, or keep it in mind until there is room on the disk."""
        self._unwritten.pop(folder.name, None)
        with contextlib.suppress(InputError):  # somebody removed the folder
            try:
                folder.end(outcome, sentence)
            except OSError:
                self._unwritten[folder.name] = (outcome, sentence)
