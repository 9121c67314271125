"""Where splatting runs, for every machine that there may be."""

import logging
from types import SimpleNamespace

import pytest
from pretend_cuda import pretend_cuda

from app.doctor import _cuda
from encoders.errors import InputError
from splat import device
from splat.device import gpu_obstacle, runs_on, splat_device


@pytest.fixture(autouse=True)
def forget() -> None:
    gpu_obstacle.cache_clear()
    device._say_once.cache_clear()


@pytest.mark.parametrize(
    ("architectures", "capability", "runs"),
    [
        ("80-real 90-real 90-virtual", (8, 0), True),
        ("80-real 90-real 90-virtual", (8, 7), True),  # a later minor version
        ("86-real", (8, 0), False),  # an earlier one
        ("80-real 90-real", (10, 0), False),  # another family, and no PTX to compile for it
        ("80-real 90-real 90-virtual", (10, 0), True),
        ("80-real 120-virtual", (7, 5), False),
        ("80-real 120-virtual", (10, 0), False),
        ("75", (12, 0), True),  # machine code and PTX
        ("native", (7, 5), True),
    ],
)
def test_which_gpus_the_kernels_run_on(architectures: str, capability: tuple[int, int], runs: bool) -> None:
    assert runs_on(architectures, capability) == runs


def test_a_machine_that_has_everything() -> None:
    with pretend_cuda():
        assert [splat_device(name) for name in ("auto", "cuda", "cuda:1", "cpu")] == ["cuda", "cuda", "cuda:1", "cpu"]
        with pytest.raises(InputError, match="--device is 'tpu'; give one of auto, cpu, cuda"):
            splat_device("tpu")


def test_a_machine_without_a_gpu(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert splat_device("auto") == splat_device("cpu") == "cpu"
    with pytest.raises(InputError, match=r"torch sees no CUDA device.*use --device cpu"):
        splat_device("cuda")
    assert not caplog.records


def missing() -> None:
    raise RuntimeError("No module named 'splat._cuda'")


@pytest.mark.parametrize(
    ("what", "found", "message"),
    [
        ("cuda_kernels", missing, "kernels of dictsplat are not built; install dictsplat again with nvcc on PATH"),
        (
            "cuda_kernels",
            lambda: SimpleNamespace(architectures="120-real 120-virtual"),
            r"compute capability 9\.0 and the kernels of dictsplat are built for 120 120 \(PTX\); install",
        ),
        ("gsplat_cuda", lambda: "", "gsplat finds no CUDA toolkit"),
    ],
)
def test_a_gpu_that_cannot_be_used(
    what: str, found: object, message: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is stopped who did not ask for it, and everybody is told what to do."""
    with pretend_cuda():
        monkeypatch.setattr(device, what, found)
        with caplog.at_level(logging.WARNING):
            assert splat_device("auto") == splat_device("auto") == "cpu"
        assert len(caplog.records) == 1
        assert caplog.text.count("Splatting on the CPU: ") == 1
        with pytest.raises(InputError, match=message):
            splat_device("cuda")


def test_doctor_says_what_a_gpu_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(name="NVIDIA H100", total_memory=80 << 30, major=9, minor=0)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _index: properties)
    monkeypatch.setattr("splat.ops.cuda_kernels", missing)
    with pretend_cuda():
        monkeypatch.setattr(device, "cuda_kernels", missing)
        findings = {finding.subject: finding for finding in _cuda()}
    assert findings["GPU"].found == "NVIDIA H100, 80 GiB, compute capability 9.0"
    assert findings["splatting on the GPU"].status == "note"
    assert "nvcc on PATH" in findings["splatting on the GPU"].found
    assert findings["gsplat's CUDA code"].found == "built"
    assert "GPU kernels" not in findings
