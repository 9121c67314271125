"""The benchmark of the CPU kernels' arithmetic counts what float64 blending does, and runs."""

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import reference

from app.bench_scene import BenchConfig, Scene


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    return importlib.import_module("arithmetic_limit")


def test_pairs_are_those_of_the_blending_weights(benchmark: ModuleType) -> None:
    scene = Scene(BenchConfig(gaussians=600, width=70, height=45))
    frame = benchmark.prepare(scene, tiles=1000)
    geometry = [tensor.double() for tensor in scene.geometry]
    weights = reference.blending_weights(*geometry, scene.viewmats[0].double(), scene.Ks[0].double(), 70, 45)
    pairs = int((weights > 0).sum())
    assert pairs > 5000
    assert frame.weighted == pytest.approx(pairs, rel=0.01)
    assert frame.weighted < frame.queued < frame.evaluated < 600 * 15 * 256


def test_it_prints_a_row_per_kernel(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--gaussians", "300", "--width", "64", "--height", "40", "--repeats", "1", "--tiles", "4"]
    monkeypatch.setattr(sys, "argv", ["arithmetic_limit.py", *options])
    benchmark.main()
    printed = capsys.readouterr().out
    rate = re.search(r"(\d+) GFLOP/s per core", printed)
    assert rate is not None
    assert 1 < int(rate.group(1)) < 1000
    names = re.findall(r"^\| ([a-zA-Z0-9, ]+?) \| \d+\.\d\d \| .* \|$", printed, re.MULTILINE)
    assert names == ["RGB forward", "RGB backward", "codes", "query", "dense, 192 channels", "dense, 1536 channels"]
