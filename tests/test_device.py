"""Where splatting runs, for every machine that there may be."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from pretend_cuda import pretend_cuda

from app import bench, bench_quick
from app.doctor import _cuda
from benchmarks import scaling_curves
from encoders.devices import pick_device
from encoders.errors import InputError
from splat import device
from splat.device import gpu_obstacle, splat_device
from splat.train_config import TrainConfig


@pytest.fixture(autouse=True)
def forget() -> None:
    gpu_obstacle.cache_clear()
    device._say_once.cache_clear()


def test_a_machine_that_has_everything() -> None:
    with pretend_cuda():
        assert [splat_device(name) for name in ("auto", "cuda", "cuda:1", "cpu")] == ["cuda", "cuda", "cuda:1", "cpu"]
        assert [pick_device(name) for name in ("auto", "cuda", "cuda:1", "cpu")] == ["cuda", "cuda", "cuda:1", "cpu"]


@pytest.mark.parametrize("name", ["tpu", "", "cuda:", "cuda:x", "cuda:-1", "cuda:2", "cuda:258", "cpu:0", "mps"])
def test_what_is_no_device_of_this_machine_is_refused_everywhere(name: str) -> None:
    with pretend_cuda():
        for refuse in (splat_device, pick_device, lambda each: TrainConfig(Path("scene"), device=each).check()):
            with pytest.raises(InputError, match=f"--device is '{name}'.*; give one of"):
                refuse(name)
        TrainConfig(Path("scene"), device="cuda:1").check()


def test_a_machine_without_a_gpu(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert splat_device("auto") == splat_device("cpu") == "cpu"
    for name in ("cuda", "cuda:1"):
        with pytest.raises(InputError, match=rf"--device {name} .*torch sees no CUDA device.*use --device cpu"):
            splat_device(name)
        with pytest.raises(InputError, match=rf"--device {name} .*torch sees no CUDA device; use --device cpu"):
            pick_device(name)
    assert not caplog.records


def absent() -> None:
    raise RuntimeError from ModuleNotFoundError("No module named 'splat._cuda'")


def unloadable() -> None:
    raise RuntimeError from ImportError("libcudart.so.12: cannot open shared object file")


@pytest.mark.parametrize(
    ("what", "found", "message"),
    [
        ("cuda_kernels", absent, r"dictsplat are not built; with nvcc on PATH, run .* --editable \.; or"),
        ("cuda_kernels", unloadable, r"cannot be loaded \(libcudart\.so\.12: cannot open .*\); with nvcc on PATH, run"),
        (
            "cuda_kernels",
            lambda: SimpleNamespace(obstacle=lambda index: f"no kernel image for {index}"),
            r"cuda:0, of compute capability 9\.0 \(no kernel image for 0\); .*CMAKE_CUDA_ARCHITECTURES=90;",
        ),
        ("gsplat_obstacle", lambda _retry: "gsplat finds no CUDA toolkit", "gsplat finds no CUDA toolkit"),
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


def test_the_gpu_that_is_asked_for_is_the_one_that_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = SimpleNamespace(obstacle=lambda index: "no kernel image" if index == 1 else "")
    with pretend_cuda():
        monkeypatch.setattr(device, "cuda_kernels", lambda: kernels)
        assert splat_device("cuda:0") == "cuda:0"
        assert splat_device("auto") == "cuda"
        with pytest.raises(InputError, match="do not run on cuda:1"):
            splat_device("cuda:1")


def test_speed_is_measured_on_the_cpu_where_a_gpu_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []

    class Stopped(Exception):
        pass

    def measure(config: bench.BenchConfig, *_: object, **__: object) -> None:
        measured.append(config.device)
        raise Stopped

    with pretend_cuda():
        monkeypatch.setattr(device, "cuda_kernels", absent)
        for module in (bench, bench_quick, scaling_curves):
            monkeypatch.setattr(module, "measure", measure)
        monkeypatch.setattr("sys.argv", ["scaling_curves.py", str(tmp_path / "curves.png")])
        for work in (bench.bench, bench_quick.measure_quickly, scaling_curves.main):
            with pytest.raises(Stopped):
                work()
        with pytest.raises(InputError, match="dictsplat are not built"):
            bench.bench(device="cuda")
    assert measured == ["cpu"] * 3


def test_doctor_says_what_a_gpu_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(name="NVIDIA H100", total_memory=80 << 30, major=9, minor=0)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _index: properties)
    monkeypatch.setattr("splat.ops.cuda_kernels", absent)
    monkeypatch.setattr("splat.gsplat_build.gsplat_cuda", lambda: "built")
    with pretend_cuda():
        monkeypatch.setattr(device, "cuda_kernels", absent)
        findings = {finding.subject: finding for finding in _cuda()}
    assert findings["GPU"].found == "NVIDIA H100, 80 GiB, compute capability 9.0"
    assert findings["splatting on the GPU"].status == "note"
    assert "nvcc on PATH" in findings["splatting on the GPU"].found
    assert findings["gsplat's CUDA code"].found == "built"
    assert "GPU kernels" not in findings
