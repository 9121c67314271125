"""Many scenes trained on a Ray cluster: a task for each scene and stage, run folders on storage that all share.

A task is `splat.pipeline.train` of one stage, which continues what it finds in the run folder. So a task whose worker
dies is run again by another one from its last checkpoint, and so is everything when the whole command is given again.
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
from encoders.devices import pick_device
from encoders.locks import FolderInUse
from encoders.progress import Report
from splat.pipeline import train
from splat.run import STAGES

SCORE = "score"
RETRIES = 3
"""How often a stage is begun again after its worker died."""
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


def train_on(jobs: Sequence[Job], resources: Resources, report: Report) -> list[Failure]:
    """Train all scenes; those that failed, in the order of the list.

    Args:
        report: told how many scenes are done, running and failed.
    """
    options = {"num_cpus": resources.threads, "num_gpus": resources.gpus, "max_retries": RETRIES}
    task: Any = ray.remote(run_stage).options(**options)
    place, waiting = Path.cwd(), deque(jobs)
    running: dict[Any, tuple[Job, str]] = {}
    failures: dict[str, Failure] = {}
    done = 0

    def begin(job: Job, stage: str) -> None:
        running[task.remote(job, stage, place, resources.threads)] = job, stage

    def tell() -> None:
        counted = Counter(stage for _, stage in running.values())
        stages = ", ".join(f"{counted[stage]} {stage}" for stage in (*STAGES, SCORE) if counted[stage])
        at = f"{len(running)} running ({stages})" if running else "none running"
        report(done + len(failures), len(jobs), f"scenes: {done} done, {at}, {len(failures)} failed")

    while waiting or running:
        while waiting and len(running) < 2 * resources.most:
            job = waiting.popleft()
            if job.is_done():
                done += 1
            else:
                begin(job, _stages(job)[0])
        tell()
        ready, _ = ray.wait(list(running), timeout=TELL_SECONDS) if running else ([], [])
        for finished in ready:
            job, stage = running.pop(finished)
            failed = _outcome(finished, job, stage)
            if failed is not None:
                failures[job.name] = failed
            elif stage == SCORE:
                done += 1
            else:
                stages = _stages(job)
                begin(job, stages[stages.index(stage) + 1])
    tell()
    return [failures[job.name] for job in jobs if job.name in failures]


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


def _outcome(task: Any, job: Job, stage: str) -> Failure | None:
    try:
        return ray.get(task)
    except ray.exceptions.OutOfMemoryError:
        sentence = "A machine of the cluster ran out of memory; use a smaller --scale, or fewer workers for each."
        return Failure(job.name, stage, sentence, True)
    except ray.exceptions.RayError as error:
        died = isinstance(error, (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError))
        what = f"died {RETRIES + 1} times" if died else f"could not be used ({type(error).__name__})"
        return Failure(job.name, stage, f"The worker {what}; give the same command again to continue.", False)
