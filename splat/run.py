"""The run folder: what a training leaves behind, and how it survives being killed.

::

    RUN/run.json              schema version, config, dataset fingerprint, stage status and timings
    RUN/gaussians.ply         standard 3DGS        (stage ``rgb``)
    RUN/checkpoints/          where ``rgb`` continues from
    RUN/features/             regions and embeddings per view   (stage ``features``)
    RUN/language.safetensors  dictionary and codes (stage ``language``)
    RUN/cameras.json          the cameras the run was trained with, and which of them were held out
    RUN/metrics.json          scores

Every file is replaced atomically, so a file that exists is whole. A stage counts as done when `run.json`
says so *and* the inputs it was run with are the ones asked for now.
"""

import hashlib
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from encoders.errors import InputError
from encoders.files import parse_json, write_json
from encoders.locks import locked_folder, sweep

SCHEMA_VERSION = 1
STAGES = ("rgb", "features", "language")


class StageRecord(BaseModel):
    """How far one stage is. ``inputs`` identifies everything its result depends on."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["running", "done"]
    inputs: dict[str, Any]
    seconds: float = Field(ge=0.0)
    stats: dict[str, Any] = {}


class RunRecord(BaseModel):
    """`run.json`."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    dictsplat_version: str
    config: dict[str, Any]
    dataset: str
    """The scene's fingerprint."""
    stages: dict[str, StageRecord] = {}
    peak_rss_mb: float = 0.0


class Run:
    """A run folder that is open for reading (`Run.open`) or locked for writing (`Run.locked`)."""

    def __init__(self, folder: Path, record: RunRecord | None) -> None:
        self.folder = folder
        self.record = record
        self.record_path = folder / "run.json"
        self.gaussians_path = folder / "gaussians.ply"
        self.language_path = folder / "language.safetensors"
        self.cameras_path = folder / "cameras.json"
        self.features_path = folder / "features"
        self.checkpoints_path = folder / "checkpoints"
        self.metrics_path = folder / "metrics.json"
        self.scene_cache_path = folder / "scene"

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Open an existing run for reading; a training that is writing to it meanwhile does no harm.

        Raises:
            InputError: no such folder, not a run folder, damaged, or written by a newer dictsplat.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError(f"There is no run folder {folder}; make one with: dictsplat train SCENE --out {folder}")
        run = cls(folder, read_record(folder / "run.json"))
        if run.record is None:
            raise InputError(
                f"{folder} is not a run folder (it has no run.json); make one with: dictsplat train SCENE --out RUN"
            )
        return run

    @classmethod
    @contextmanager
    def locked(cls, folder: Path) -> Iterator["Run"]:
        """Create the folder if need be and hold its lock, so that two trainings never share it.

        Raises:
            FolderInUse: another process holds it.
            InputError: as `Run.open` for a damaged or newer `run.json`.
        """
        folder = Path(folder)
        with locked_folder(folder):
            run = cls(folder, read_record(folder / "run.json"))
            below = (run.checkpoints_path, run.features_path, run.scene_cache_path)
            sweep(folder, [".*.tmp*", *(f"{place.name}/**/.*.tmp*" for place in below)])
            yield run

    def begin(self, config: dict[str, Any], dataset: str) -> None:
        """Write `run.json` with this config, keeping what is known about the stages."""
        old = self.record
        self.record = RunRecord(
            dictsplat_version=version("dictsplat"),
            config=config,
            dataset=dataset,
            stages=old.stages if old else {},
            peak_rss_mb=old.peak_rss_mb if old else 0.0,
        )
        self.save()

    def save(self) -> None:
        """Write `run.json`, noting the most memory this run has ever held."""
        record = self._known()
        record.peak_rss_mb = max(record.peak_rss_mb, peak_rss_mb())
        write_json(self.record_path, record.model_dump(mode="json"))

    def stage(self, name: str) -> StageRecord | None:
        """What `run.json` says about a stage; None when it was never started."""
        return self.record.stages.get(name) if self.record else None

    @property
    def imported(self) -> str | None:
        """What another program's language field came from; None if the run has one of its own, or none."""
        stage = self.stage("language")
        return None if stage is None else stage.inputs.get("imported")

    def is_done(self, name: str, inputs: dict[str, Any]) -> bool:
        """Whether the stage was finished with exactly these inputs."""
        stage = self.stage(name)
        return stage is not None and stage.status == "done" and stage.inputs == inputs

    def finished(self, name: str) -> StageRecord:
        """The record of a stage that `require` has checked."""
        self.require(name)
        return self._known().stages[name]

    def mark(
        self,
        name: str,
        status: Literal["running", "done"],
        inputs: dict[str, Any],
        seconds: float,
        stats: dict[str, Any] | None = None,
    ) -> None:
        """Record a stage's state and write `run.json`."""
        self._known().stages[name] = StageRecord(status=status, inputs=inputs, seconds=seconds, stats=stats or {})
        self.save()

    def require(self, *names: str) -> None:
        """Check that the results of these stages are there.

        Raises:
            InputError: a stage is not finished, or its file is gone.
        """
        files = {"rgb": self.gaussians_path, "language": self.language_path}
        for name in names:
            stage = self.stage(name)
            if stage is None or stage.status != "done":
                state = "was not run" if stage is None else "is not finished"
                raise InputError(f"The {name} stage of {self.folder} {state}; {self._remedy('finish it with')}")
            if name in files and not files[name].is_file():
                raise InputError(
                    f"{files[name]} is missing although its stage is finished; restore it or {self._remedy('run')}"
                )
        if not self.cameras_path.is_file():
            raise InputError(f"{self.cameras_path} is missing; {self._remedy('run')}")

    def _remedy(self, how: str) -> str:
        """How to get what is missing: no training brings back what was imported."""
        if self.imported is None:
            return f"{how}: dictsplat train --out {self.folder} --resume"
        return f"the run was imported, so import {self.imported} again into another --out."

    def check_counts(self, gaussians: int, codes: int) -> None:
        """Check that there is a code for each of the run's Gaussians.

        Raises:
            InputError: there are more or fewer.
        """
        if gaussians != codes:
            raise InputError(
                f"{self.gaussians_path} has {gaussians} Gaussians but {self.language_path} codes for {codes}; "
                f"{self._remedy('bring them together with')}"
            )

    def check_language(self) -> None:
        """Check that the language codes were fitted to the Gaussians that the run has now.

        Raises:
            InputError: the Gaussians were replaced after the language stage.
        """
        rgb, language = self.stage("rgb"), self.stage("language")
        known = rgb.stats.get("digest") if rgb else None
        fitted = language.inputs.get("gaussians") if language else known
        # The record is quick to ask; a file that the rgb stage has not seen yet may still be the right one.
        if known not in (None, fitted) and file_digest(self.gaussians_path) != fitted:
            raise InputError(
                f"{self.language_path} was fitted to other Gaussians than {self.gaussians_path} holds; "
                f"{self._remedy('run the language stage again with')}"
            )

    def _known(self) -> RunRecord:
        assert self.record is not None, "begin() comes first"
        return self.record


def read_record(path: Path) -> RunRecord | None:
    """Read `run.json`; None when there is none.

    Raises:
        InputError: it is damaged, or its schema version is newer than `SCHEMA_VERSION`.
    """
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); restore it, or train into another --out.") from error
    schema = value.get("schema_version") if isinstance(value, dict) else None
    if not isinstance(schema, int):
        raise InputError(f"{path} was not written by dictsplat (no schema_version); choose another --out.")
    if schema > SCHEMA_VERSION:
        raise InputError(
            f"{path} was written by a newer dictsplat (schema {schema}, this one reads {SCHEMA_VERSION}); "
            "upgrade dictsplat."
        )
    try:
        return RunRecord.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{path} is damaged ({where}: {first['msg']}); restore it, or train into another --out."
        ) from error


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, as hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def peak_rss_mb() -> float:
    """The most memory this process, or any child it waited for, has held so far, in MiB."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return max(own, children) / 1024.0
