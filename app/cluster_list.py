"""Many scenes from a list, one after the other in this process; on a cluster see `app.cluster_train`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.exits import EXIT_FAULT, EXIT_INPUT, explain
from app.progress import StageProgress
from app.score import score
from encoders.errors import InputError
from splat.pipeline import train
from splat.run import Run
from splat.train_config import TrainConfig


@dataclass(frozen=True)
class Job:
    """A scene of a list and the run folder that it is trained into."""

    name: str
    folder: Path
    config: TrainConfig

    def is_done(self) -> bool:
        """Whether the run was finished and scored with these options; its photos are not compared again."""
        try:
            run = Run.open(self.folder)
        except InputError:
            return False
        assert run.record is not None
        had, wanted = run.record.config, self.config.to_json()
        free = {"device"} if self.config.scale is not None else {"device", "scale"}
        if any(had.get(key) != wanted[key] for key in wanted.keys() - free):
            return False
        stages = [run.stage(name) for name in self.config.stages]
        results = [path for path in (run.gaussians_path, run.language_path) if path.is_file()]
        # A training that was killed before it was scored again leaves the scores of what it replaced.
        scored = run.metrics_path.is_file() and all(
            path.stat().st_mtime_ns <= run.metrics_path.stat().st_mtime_ns for path in results
        )
        return scored and all(stage is not None and stage.status == "done" for stage in stages)


@dataclass(frozen=True)
class Failure:
    """Why a scene could not be trained.

    Attributes:
        stage: at which.
        sentence: for a person.
        is_input: it is for them to mend; otherwise a fault.
    """

    name: str
    stage: str
    sentence: str
    is_input: bool


def failure(name: str, stage: str, error: Exception) -> Failure:
    """What to tell of an exception that ended a scene's training."""
    sentence = explain(error)
    if sentence is None:
        return Failure(name, stage, f"dictsplat has a fault: {type(error).__name__}: {error}", False)
    return Failure(name, stage, sentence, True)


def read_jobs(file: Path, out: Path, options: dict[str, Any]) -> list[Job]:
    """A job for each line of a list: the path of a scene, relative to the list, and behind a tab its name, if wanted.

    Without a name it is the scene's. Empty lines and those that begin with # are left out.

    Args:
        out: folder for the run folders, ``out/NAME``.
        options: of `TrainConfig`, without the scene.

    Raises:
        InputError: the list cannot be read or is empty, two scenes have one name, or an option has no such value.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"The list {file} cannot be read; give --scenes a text file with the path of a scene on each line."
        ) from error
    where: dict[str, int] = {}
    jobs = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        place, _, given = line.partition("\t")
        scene = (file.parent / place.strip()).absolute()
        name = given.strip() or (scene.stem if scene.is_file() else scene.name)
        if not name or name.startswith(".") or "/" in name or "\0" in line:
            raise InputError(
                f"Line {number} of {file} has the name {name!r}; give a tab and a name that can be a folder's."
            )
        if name.casefold() in where:
            raise InputError(
                f"Lines {where[name.casefold()]} and {number} of {file} have the same name {name!r}; give one of them "
                "another, behind a tab."
            )
        where[name.casefold()] = number
        jobs.append(Job(name, (out / name).absolute(), TrainConfig(scene, **options)))
    if not jobs:
        raise InputError(f"There is no scene in {file}; write the path of one on each line.")
    jobs[0].config.check()
    return jobs


def train_each(jobs: Sequence[Job]) -> list[Failure]:
    """Train scene after scene; one that fails does not keep the others from being trained."""
    failures = []
    for number, job in enumerate(jobs, start=1):
        with StageProgress() as reports:
            reports("scene")(number - 1, len(jobs), f"{job.name}, {number} of {len(jobs)}")
            if job.is_done():
                continue
            try:
                train(job.folder, job.config, reports, score)
            except Exception as error:
                failures.append(failure(job.name, "training", error))
    return failures


def status(failures: Sequence[Failure]) -> int:
    """Of a command whose scenes failed so: 0 if none did, and not that of bad input if one of them was a fault."""
    if not failures:
        return 0
    return EXIT_INPUT if all(one.is_input for one in failures) else EXIT_FAULT


def check_options(scene: Path | None, resume: bool, options: dict[str, Any]) -> None:
    """Refuse what belongs to one scene where there is a list.

    Raises:
        InputError: so it is.
    """
    if scene is not None:
        raise InputError(f"A scene {scene} and --scenes were both given; use one of them.")
    if resume:
        raise InputError("--resume is for one run; with --scenes give the same command again to continue.")
    for name in ("gaussians", "features"):
        if name in options:
            raise InputError(f"--{name} belongs to one scene; train that without --scenes.")


def train_scenes(
    file: Path, out: Path, options: dict[str, Any], cluster: str | None, device: str
) -> tuple[int, list[Failure]]:
    """Train the scenes of a list here, or on the cluster at an address; how many, and which of them failed.

    Raises:
        InputError: the list, an option or the cluster cannot be used.
    """
    jobs = read_jobs(file, out, options | {"device": device})
    if cluster is None:
        return len(jobs), train_each(jobs)
    from app.cluster import connected
    from app.cluster_train import Resources, train_on

    with connected(cluster) as found, StageProgress() as reports:
        jobs = [replace(job, config=replace(job.config, device=found.device(device))) for job in jobs]
        return len(jobs), train_on(jobs, Resources.of(found, jobs[0].config.device), reports("scenes"))
