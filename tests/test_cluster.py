"""`--cluster ADDRESS`: clusters that cannot be used, and what each worker has of one that can."""

import re
import sys

import pytest

from app.cluster import Cluster, Node, connected
from encoders.errors import InputError


@pytest.fixture
def ray(monkeypatch):
    """Ray, connected to nothing; what it does with an address is for the test to say."""
    ray = pytest.importorskip("ray", reason='Ray is not installed (pip install "dictsplat[ray]")')
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return ray


def nodes(*resources):
    return lambda: [{"Alive": alive, "Resources": has} for alive, has in resources]


def test_an_address_of_no_kind_is_refused():
    with pytest.raises(InputError, match="--cluster is 'moon'"), connected("moon"):
        pass


def test_ray_may_be_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=re.escape('pip install "dictsplat[ray]"')), connected("local"):
        pass


@pytest.mark.parametrize(
    ("address", "error", "says"),
    [
        ("auto", ConnectionError("Could not find any running Ray instance."), "(Could not find any running Ray inst"),
        (
            "ray://head:10001",
            RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.50.0\n    Python: 3.11.2\n"),
            "ray://head:10001 (Version mismatch: The cluster was started with: Ray: 2.50.0 Python: 3.11.2); check",
        ),
        (
            "local",
            ValueError("The store exceeds /dev/shm.\n" + "Advice. " * 99),
            "for --cluster local: The store",
        ),
        ("auto", TimeoutError(), "(TimeoutError)"),
        ("local", Exception("The node timed out during startup."), "local: The node timed out during startup."),
    ],
)
def test_why_there_is_no_cluster_is_told(ray, monkeypatch, address, error, says):
    def init(**_):
        raise error

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(InputError) as refused, connected(address):
        pass
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


def test_a_wrong_token_is_told(ray, monkeypatch):
    def init(**_):
        raise ray.exceptions.AuthenticationError("The token is wrong.")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(InputError, match="The token is wrong"), connected("auto"):
        pass


def test_machines_that_live_make_the_cluster(ray, monkeypatch):
    monkeypatch.setattr(ray, "nodes", nodes((True, {"CPU": 8.0, "GPU": 1.0}), (False, {"CPU": 99.0}), (True, {})))
    with connected("auto") as found:
        assert found == Cluster((Node(8, 1), Node(0, 0)))


def test_a_cluster_without_processors_is_refused(ray, monkeypatch):
    monkeypatch.setattr(ray, "nodes", nodes((True, {"GPU": 1.0}), (False, {"CPU": 4.0})))
    with pytest.raises(InputError, match="has no processors for workers"), connected("auto"):
        pass


def test_workers_share_a_cluster():
    cpu, gpu = Cluster((Node(16),) * 4), Cluster((Node(64, 8),))
    assert (cpu.device("auto"), gpu.device("auto"), gpu.device("cpu")) == ("cpu", "cuda", "cpu")
    assert (cpu.share("cpu", 4), cpu.most(0, 4)) == ((0, 4), 16)
    assert cpu.share("cpu", 64) == (0, 16)
    assert (gpu.share("cuda", 64), gpu.most(1, 8)) == ((1, 8), 8)
    with pytest.raises(InputError, match="has a GPU"):
        cpu.device("cuda")
    with pytest.raises(InputError, match="Ray picks a free GPU"):
        gpu.device("cuda:1")


@pytest.mark.parametrize(
    ("cluster", "device", "share", "most"),
    [
        # Beside machines without GPUs a worker gets no more than the GPU's own machine has for it.
        ((Node(8, 8), *[Node(64)] * 10), "cuda", (1, 1), 8),
        ((Node(64, 4), Node(16, 8)), "cuda", (1, 2), 12),
        ((Node(4, 8),), "cuda", (1, 1), 4),
        ((Node(0, 8), Node(6, 2)), "cuda", (1, 3), 2),
        # Processors that are left over on a machine are no worker's.
        ((Node(7), Node(4), Node(1)), "cpu", (0, 4), 2),
        ((Node(2), Node(0)), "cpu", (0, 2), 1),
    ],
)
def test_every_worker_fits_on_some_machine(cluster, device, share, most):
    cluster = Cluster(cluster)
    gpus, threads = cluster.share(device, 4)
    assert ((gpus, threads), cluster.most(gpus, threads)) == (share, most)
    assert any(node.cpus >= threads and node.gpus >= gpus for node in cluster.nodes)


def test_gpus_without_a_processor_are_none():
    cluster = Cluster((Node(0, 8), Node(64)))
    assert cluster.device("auto") == "cpu"
    with pytest.raises(InputError, match="has a GPU and a processor beside it"):
        cluster.device("cuda")
