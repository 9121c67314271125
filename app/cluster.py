"""The Ray cluster that a command may use: found or started, how large it is, and left again."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from encoders.errors import InputError

STORE_BYTES = 200 * 2**20
"""Shared memory of a cluster on this machine alone. Paths, rows and one dictionary travel through it, no pictures."""


@dataclass(frozen=True)
class Cluster:
    """What a cluster has in all.

    Attributes:
        node_cpus: of the machine that has most.
    """

    cpus: int
    gpus: int
    node_cpus: int

    def device(self, given: str) -> str:
        """What ``--device`` is for the workers: the command's own, which may differ for auto.

        Raises:
            InputError: it names one of several, or there is none.
        """
        if given.startswith("cuda:"):
            raise InputError(f"--device is {given!r}; with --cluster give cuda, Ray picks a free GPU for each worker.")
        if given == "cuda" and not self.gpus:
            raise InputError("--device cuda was asked for, but the cluster has no GPU; use --device cpu.")
        if given == "auto":
            return "cuda" if self.gpus else "cpu"
        return given

    def share(self, device: str, threads: int) -> tuple[int, int]:
        """GPUs and processor threads of one worker, of which a program alone would use ``threads``."""
        if device == "cuda":
            return 1, max(1, min(threads, self.cpus // self.gpus))
        return 0, min(threads, self.node_cpus)

    def most(self, gpus: int, threads: int) -> int:
        """How many such workers there is room for."""
        return max(1, self.gpus // gpus if gpus else self.cpus // threads)


@contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """Use the cluster at ``address``: ``local`` starts one on this machine, which ends with the block.

    ``auto`` is one that ``ray start`` started here or that RAY_ADDRESS names, ``ray://HOST:PORT`` one elsewhere. A
    program that is connected already stays so.

    Raises:
        InputError: Ray is not installed, or there is no such cluster.
    """
    if address not in ("local", "auto") and not address.startswith("ray://"):
        raise InputError(f"--cluster is {address!r}; give local, auto or ray://HOST:PORT.")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody agreed to have the use of it reported
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # lines of its native code between those of a command
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # workers are told their device; without, it warns
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InputError('--cluster takes Ray, which is not installed; install it: pip install "dictsplat[ray]"') from (
            error
        )
    before = ray.is_initialized()
    if not before:
        _connect(address)
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        yield Cluster(
            cpus=int(sum(node.get("CPU", 0) for node in nodes)),
            gpus=int(sum(node.get("GPU", 0) for node in nodes)),
            node_cpus=int(max(node.get("CPU", 0) for node in nodes)),
        )
    finally:
        if not before:
            ray.shutdown()


def _connect(address: str) -> None:
    import ray

    own: dict[str, Any] = {"object_store_memory": STORE_BYTES, "include_dashboard": False} if address == "local" else {}
    try:
        with _silent():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except ImportError as error:
        raise InputError(
            f"--cluster {address} takes the client of Ray, which is not installed; install it: "
            'pip install "ray[client]"'
        ) from error
    except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        raise InputError(
            f"There is no Ray cluster to be reached with --cluster {address}; check the address, or start one with: "
            "ray start --head"
        ) from error


@contextmanager
def _silent() -> Iterator[None]:
    """Ray's native code writes of its own accord to stderr, where one sentence is to say what went wrong."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
