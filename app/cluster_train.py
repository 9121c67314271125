"""Many scenes trained on a Ray cluster: a task for each scene and stage, run folders on storage that all share.

A task is `splat.pipeline.train` of one stage, which continues what it finds in the run folder. So a task whose worker
dies is run again by another one from its last checkpoint, and so is everything when the whole command is given again.
Ray would begin a task again itself, but without end where memory does not suffice; so this counts instead.
"""

import contextlib
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import torch

import encoders
from app.cluster import Cluster
from app.cluster_list import Failure, Job, failure
from app.score import score
from dictas.cluster import reason
from encoders.devices import pick_device
from encoders.locks import FolderInUse
from encoders.progress import Report
from splat.pipeline import train
from splat.run import STAGES

SCORE = "score"
RETRIES = 3
"""How often a stage is begun again after its worker died, for want of memory or otherwise."""
DIED = (
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.LocalRayletDiedError,
    ray.exceptions.OutOfMemoryError,
)
"""After these another worker may do better."""
LOCK_SECONDS = 120.0
"""So long a run may seem to be in use after its machine was lost: network file systems hold a dead machine's locks."""
TELL_SECONDS = 1.0


@dataclass(frozen=True)
class Resources:
    """What one stage takes.

    Attributes:
        threads: of the processor. Equal bits take as many as training in one process would have.
        most: stages at a time, and as many again that wait in line.
    """

    threads: int
    gpus: int
    most: int

    @classmethod
    def of(cls, cluster: Cluster, device: str) -> "Resources":
        """As many as the cluster has room for."""
        gpus, threads = cluster.share(device, torch.get_num_threads())
        return cls(threads, gpus, cluster.most(gpus, threads))


def train_on(
    jobs: Sequence[Job], resources: Resources, report: Report, tell_failure: Callable[[Failure], None]
) -> list[Failure]:
    """Train all scenes; those that failed, in the order of the list.

    Args:
        report: told how many scenes are done, running and failed.
        tell_failure: told each that failed, at once.
    """
    options = {"num_cpus": resources.threads, "num_gpus": resources.gpus, "max_retries": 0}
    task: Any = ray.remote(run_stage).options(**options)
    place, waiting = Path.cwd(), deque(jobs)
    running: dict[Any, _Attempt] = {}
    failures: dict[str, Failure] = {}
    done = 0

    def begin(attempt: _Attempt) -> None:
        running[task.remote(attempt.job, attempt.stage, place, resources.threads)] = attempt

    def tell() -> None:
        counted = Counter(attempt.stage for attempt in running.values())
        stages = ", ".join(f"{counted[stage]} {stage}" for stage in (*STAGES, SCORE) if counted[stage])
        at = f"{len(running)} running ({stages})" if running else "none running"
        report(done + len(failures), len(jobs), f"scenes: {done} done, {at}, {len(failures)} failed")

    while waiting or running:
        while waiting and len(running) < 2 * resources.most:
            job = waiting.popleft()
            if job.is_done():
                done += 1
            else:
                begin(_Attempt(job, _stages(job)[0]))
        tell()
        ready, _ = ray.wait(list(running), timeout=TELL_SECONDS) if running else ([], [])
        for finished in ready:
            attempt = running.pop(finished)
            ended = _outcome(finished, attempt)
            if isinstance(ended, _Attempt):
                begin(ended)
            elif ended is not None:
                failures[attempt.job.name] = ended
                tell_failure(ended)
            elif attempt.stage == SCORE:
                done += 1
            else:
                stages = _stages(attempt.job)
                begin(_Attempt(attempt.job, stages[stages.index(attempt.stage) + 1]))
    tell()
    return [failures[job.name] for job in jobs if job.name in failures]


@dataclass(frozen=True)
class _Attempt:
    """A stage of a scene that a worker is given, after so many others died of it."""

    job: Job
    stage: str
    deaths: int = 0


def run_stage(job: Job, stage: str, place: Path, threads: int) -> Failure | None:
    """Run one stage of a scene's training here, in a worker; what went wrong, if something did.

    Args:
        place: where relative paths in options begin.
    """
    torch.set_num_threads(threads)
    with contextlib.suppress(OSError):  # on this machine there may be no such folder; then paths must be absolute
        os.chdir(place)
    try:
        if stage == SCORE:
            _when_free(lambda: train(job.folder, job.config, scorer=score))
        else:
            if stage == "rgb":
                _check_encoders(job)
            config = replace(job.config, stages=(stage,))
            _when_free(lambda: train(job.folder, config, scorer=lambda *_: {}))
    except Exception as error:
        return failure(job.name, stage, error)
    return None


def _stages(job: Job) -> list[str]:
    return [*(stage for stage in STAGES if stage in job.config.stages), SCORE]


def _check_encoders(job: Job) -> None:
    """A name that is wrong should not be found out after hours of fitting, as `train` sees to for all its stages."""
    if "features" in job.config.stages and not (job.folder / "gaussians.ply").is_file():
        device = pick_device(job.config.device)
        encoders.create(job.config.encoder, device=device)
        encoders.create_regions(job.config.regions, device=device)


def _when_free(work: Callable[[], object]) -> None:
    """Do it once the run folder's lock is free; see `LOCK_SECONDS`."""
    end = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            work()
            return
        except FolderInUse:
            if time.monotonic() > end:
                raise
        time.sleep(1.0)


def _outcome(task: Any, attempt: _Attempt) -> Failure | _Attempt | None:
    """How a task ended: well, with a failure, or with the death of its worker, for which another attempt is made."""
    job, stage = attempt.job, attempt.stage
    try:
        return ray.get(task)
    except DIED as error:
        if attempt.deaths < RETRIES:
            return replace(attempt, deaths=attempt.deaths + 1)
        if isinstance(error, ray.exceptions.OutOfMemoryError):
            sentence = (
                f"A machine of the cluster ran out of memory, at the last of {RETRIES + 1} attempts; use a smaller "
                "--scale, or a larger OMP_NUM_THREADS for fewer stages at a time."
            )
            return Failure(job.name, stage, sentence, True)
        sentence = f"The worker died {RETRIES + 1} times; give the same command again to continue."
        return Failure(job.name, stage, sentence, False)
    except ray.exceptions.RayError as error:
        sentence = f"The worker could not be used ({reason(error)}); give the same command again to continue."
        return Failure(job.name, stage, sentence, False)
