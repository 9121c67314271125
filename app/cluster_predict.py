"""`anomaly predict` on a Ray cluster: how many workers, on what, and how they come by the model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from app.cluster import connected
from dictas.predict import JudgeAll


def own_device(device: str) -> str:
    """``--device`` for the command's own part, support and dictionary: GPUs that were asked for are the workers'."""
    return "auto" if device.startswith("cuda") else device


@contextmanager
def judging(address: str, device: str, load: Callable[..., Any]) -> Iterator[JudgeAll]:
    """What judges photos on the cluster at ``address``.

    Args:
        load: as `dictas.checkpoint.load_detector` with all but its ``device``.

    Raises:
        InputError: the cluster or the device cannot be used.
    """
    with connected(address) as cluster:
        from dictas.cluster import Workers

        theirs = cluster.device(device)
        gpus, threads = cluster.share(theirs, torch.get_num_threads())
        workers = Workers(partial(load, device=theirs), cluster.most(gpus, threads), threads, gpus)
        yield workers.judge_all
