"""A small Ray cluster for the tests of `--cluster`, a way to kill its workers, and results that can be compared."""

import contextlib
import json
import os
import threading
import time
from pathlib import Path

import psutil
import pytest

TESTS = Path(__file__).parent
STORE_BYTES = 100 * 2**20


@pytest.fixture(scope="module")
def cluster():
    """Two workers on this machine; commands with ``--cluster auto`` find them."""
    ray = pytest.importorskip("ray", reason='Ray is not installed (pip install "dictsplat[ray]")')
    before = set(psutil.Process().children(recursive=True))
    environment = pytest.MonkeyPatch()
    environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
    environment.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep))
    ray.init(
        num_cpus=2,
        num_gpus=0,
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()
    environment.undo()
    _, left = psutil.wait_procs(set(psutil.Process().children(recursive=True)) - before, timeout=20)
    assert not left


@pytest.fixture
def killed():
    """Kills one process that Ray calls ``name``, as soon as ``ready()``; gives a list that its pid is put into."""
    end, threads = threading.Event(), []

    def start(name, ready):
        pids = []

        def watch():
            while not end.is_set() and not pids:
                if ready():
                    for process in psutil.Process().children(recursive=True):
                        with contextlib.suppress(psutil.Error):
                            if not pids and name in " ".join(process.cmdline()):
                                process.kill()
                                pids.append(process.pid)
                time.sleep(0.02)

        threads.append(threading.Thread(target=watch))
        threads[0].start()
        return pids

    yield start
    end.set()
    for thread in threads:
        thread.join()


def comparable(path):
    """A file's content without what differs from run to run: seconds, memory, the order of a header's keys."""
    raw = path.read_bytes()
    if path.name == "metrics.json":
        return {key: value for key, value in json.loads(raw).items() if key not in ("seconds", "peak_rss_mb")}
    if path.suffix == ".safetensors":
        end = 8 + int.from_bytes(raw[:8], "little")
        return json.loads(raw[8:end]), raw[end:]
    return raw


def content(folder, *kinds):
    paths = [path for kind in kinds for path in [folder / kind, *(folder / kind).rglob("*")] if path.is_file()]
    return {str(path.relative_to(folder)): comparable(path) for path in paths}
