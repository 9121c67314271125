"""The Ray cluster that a command may use: found or started, how large it is, and left again."""

import logging
import os
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from encoders.errors import InputError

STORE_BYTES = 200 * 2**20
"""Shared memory of a cluster on this machine alone. Paths, rows and one dictionary travel through it, no pictures."""
REASON = 300
"""Most characters of what Ray says was wrong."""


@dataclass(frozen=True)
class Node:
    """A machine of a cluster."""

    cpus: int
    gpus: int = 0


@dataclass(frozen=True)
class Cluster:
    """What a cluster has, machine by machine: a worker is never spread over two."""

    nodes: tuple[Node, ...]

    def device(self, given: str) -> str:
        """What ``--device`` is for the workers: the command's own, which may differ for auto.

        Raises:
            InputError: it names one of several, or there is none.
        """
        usable = any(node.gpus and node.cpus for node in self.nodes)
        if given.startswith("cuda:"):
            raise InputError(f"--device is {given!r}; with --cluster give cuda, Ray picks a free GPU for each worker.")
        if given == "cuda" and not usable:
            raise InputError(
                "--device cuda was asked for, but no machine of the cluster has a GPU and a processor beside it; use "
                "--device cpu."
            )
        if given == "auto":
            return "cuda" if usable else "cpu"
        return given

    def share(self, device: str, threads: int) -> tuple[int, int]:
        """GPUs and processor threads of one worker, of which a program alone would use ``threads``.

        A worker has its GPU's share of the processors on the machine that has fewest for each, so that no GPU of any
        machine waits for a worker that has no room beside it; where there are fewer processors than GPUs, one.
        """
        if device == "cuda":
            shares = [node.cpus // node.gpus for node in self.nodes if node.gpus and node.cpus]
            return 1, max(1, min(threads, *shares))
        return 0, min(threads, max(node.cpus for node in self.nodes))

    def most(self, gpus: int, threads: int) -> int:
        """How many such workers there is room for."""
        return sum(
            min(node.cpus // threads, node.gpus // gpus) if gpus else node.cpus // threads for node in self.nodes
        )


@contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """Use the cluster at ``address``: ``local`` starts one on this machine, which ends with the block.

    ``auto`` is one that ``ray start`` started here or that RAY_ADDRESS names, ``ray://HOST:PORT`` one elsewhere. A
    program that is connected already stays so.

    Raises:
        InputError: Ray is not installed, there is no such cluster, or it has no processors.
    """
    if address not in ("local", "auto") and not address.startswith("ray://"):
        raise InputError(f"--cluster is {address!r}; give local, auto or ray://HOST:PORT.")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody agreed to have the use of it reported
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # lines of its native code between those of a command
    # Its notes about workers that died come to stdout, many lines for each; a sentence says it in the end.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
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
        yield _cluster(address)
    finally:
        if not before:
            ray.shutdown()


def _cluster(address: str) -> Cluster:
    import ray

    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes = tuple(Node(int(has.get("CPU", 0)), int(has.get("GPU", 0))) for has in resources)
    if not any(node.cpus for node in nodes):
        raise InputError(
            f"The Ray cluster at --cluster {address} has no processors for workers; add a machine with: ray start "
            "--address HEAD:PORT"
        )
    return Cluster(nodes)


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
    except Exception as error:  # of any class: a machine that is too busy to start one in time raises a bare one
        # Lines of a version mismatch belong together, and pages of advice are left out.
        said = textwrap.shorten(str(error) or type(error).__name__, REASON).rstrip(".")
        if address == "local":
            raise InputError(f"No Ray cluster could be started here for --cluster local: {said}.") from error
        raise InputError(
            f"There is no Ray cluster to be used with --cluster {address} ({said}); check the address, set "
            "RAY_AUTH_MODE=token if it asks for one, or start a cluster with: ray start --head"
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
