"""Many scenes from a list, one after the other in this process; on a cluster see `app.cluster_train`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import encoders
from app.exits import EXIT_FAULT, EXIT_INPUT, explain
from app.progress import StageProgress
from app.score import score
from encoders.devices import pick_device
from encoders.errors import InputError
from encoders.files import parse_json
from splat.device import splat_device
from splat.fit_language import LanguageConfig
from splat.pipeline import train
from splat.rgb_config import RgbConfig
from splat.run import Run
from splat.score import SCORED, results_of
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
        return _is_scored(run) and all(stage is not None and stage.status == "done" for stage in stages)


def _is_scored(run: Run) -> bool:
    """Whether its scores are those of its results: a training killed before it scored leaves those of the last one."""
    try:
        metrics = parse_json(run.metrics_path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(metrics, dict) and metrics.get(SCORED) == results_of(run)


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
        InputError: the list cannot be read or is empty, or two scenes have one name.
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
    return jobs


def check_jobs(jobs: Sequence[Job], device: str) -> None:
    """Find out before the first scene what would keep each of them from being trained, and not once for each.

    Args:
        device: where encoders are tried.

    Raises:
        InputError: an option has no such value, or an encoder cannot be used.
    """
    config = jobs[0].config  # but for its scene that of all
    config.check()
    chosen = ("atoms", "nonzeros", "solver", "coding", "dictionary", "seed")
    LanguageConfig(**{name: getattr(config, name) for name in chosen})
    if all(job.is_done() for job in jobs):
        return
    if "rgb" in config.stages:
        RgbConfig.preset(config.preset, device=config.device, strategy=config.strategy)
    if "features" in config.stages:
        encoders.create(config.encoder, device=device)
        encoders.create_regions(config.regions, device=device)


def train_each(jobs: Sequence[Job], tell_failure: Callable[[Failure], None]) -> list[Failure]:
    """Train scene after scene; one that fails is told at once and does not keep the others from being trained."""
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
                tell_failure(failures[-1])
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
    file: Path,
    out: Path,
    options: dict[str, Any],
    cluster: str | None,
    device: str,
    tell_failure: Callable[[Failure], None],
) -> tuple[int, list[Failure]]:
    """Train the scenes of a list here, or on the cluster at an address; how many, and which of them failed.

    Args:
        tell_failure: told each scene that failed, when it does.

    Raises:
        InputError: the list, an option or the cluster cannot be used.
    """
    jobs = read_jobs(file, out, options | {"device": device})
    if cluster is None:
        splatting = splat_device(device)
        check_jobs([_on(job, splatting) for job in jobs], pick_device(device))
        return len(jobs), train_each(jobs, tell_failure)
    from app.cluster import connected
    from app.cluster_train import Resources, train_on

    with connected(cluster) as found, StageProgress() as reports:
        jobs = [_on(job, found.device(device)) for job in jobs]
        check_jobs(jobs, pick_device("auto"))
        resources = Resources.of(found, jobs[0].config.device)
        return len(jobs), train_on(jobs, resources, reports("scenes"), tell_failure)


def _on(job: Job, device: str) -> Job:
    return replace(job, config=replace(job.config, device=device))
