"""The scaling curves, of a moment: which frames are timed how often, what is written, and that a picture shows it."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.bench_scene import BenchConfig
from benchmarks import scaling_curves
from benchmarks.scaling_curves import AXES, CODED, LOOKS, Axis

BASE = BenchConfig(gaussians=200, width=32, height=24, dim=8, dense=())
FEW = {
    "gaussians": Axis("Gaussians", [{"gaussians": n} for n in (100, 200)]),
    "pixels": Axis("pixels", [{"width": 32, "height": 24}, {"width": 48, "height": 32}]),
    "nonzeros": Axis("nonzeros", [{"nonzeros": 1}, {"nonzeros": 4}], CODED),
}


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return scaling_curves.measure(BASE, FEW, rounds=1)


def test_every_axis_has_a_time_for_each_point(result: dict[str, Any]) -> None:
    assert set(result["base"]) == set(LOOKS)
    for key, axis in FEW.items():
        curve = result["axes"][key]
        assert set(curve["milliseconds"]) == set(axis.affected)
        assert all(len(times) == 2 and min(times) > 0 for times in curve["milliseconds"].values())
    assert result["axes"]["pixels"]["values"] == [32 * 24, 48 * 32]
    assert result["axes"]["pixels"]["ticks"] == ["32\n×24", "48\n×32"]
    # The base is a point of each axis, and timed once.
    assert len({result["axes"][key]["milliseconds"]["query"][at] for key, at in zip(FEW, (1, 0, 1), strict=True)}) == 1


def test_axes_pass_through_the_base_and_grow() -> None:
    base = BenchConfig(dense=())
    for axis in AXES.values():
        assert base in axis.points(base)
        values = [axis.value(change) for change in axis.changes]
        assert values == sorted(set(values))
    assert [AXES["gaussians"].tick(change) for change in AXES["gaussians"].changes] == [
        "10k",
        "30k",
        "100k",
        "300k",
        "1M",
    ]


def test_points_take_turns_and_slow_frames_are_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[tuple[int, str]] = []

    def frame(work: tuple[int, str], _device: str) -> dict[str, float]:
        order.append(work)
        return {"rendering": 900.0 if work[1] == "rgb" else 1100.0, "decoding": len(order)}

    def works_of(config: BenchConfig) -> dict[str, tuple[int, str]]:
        return {name: (config.gaussians, name) for name in LOOKS}

    monkeypatch.setattr(scaling_curves, "frame", frame)
    monkeypatch.setattr(scaling_curves, "Scene", lambda config: config)
    monkeypatch.setattr(scaling_curves, "works_of", works_of)
    small, large = BenchConfig(gaussians=1), BenchConfig(gaussians=2)
    told: list[tuple[int, int]] = []
    found = scaling_curves.time_points(
        {small: ("rgb", "query"), large: ("rgb",)}, 3, lambda done, total, _: told.append((done, total))
    )
    assert order == [(1, "rgb"), (1, "query"), (2, "rgb"), *[(1, "rgb"), (2, "rgb")] * 2]
    assert found == {small: {"rgb": [901, 904, 906], "query": [1102]}, large: {"rgb": [903, 905, 907]}}
    assert told == [(done, 6) for done in range(7)]


def test_picture_and_numbers_are_written_and_can_be_redrawn(
    result: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[BenchConfig] = []
    monkeypatch.setattr(scaling_curves, "measure", lambda base, _axes, report: asked.append(base) or result)
    out = tmp_path / "curves.png"
    monkeypatch.setattr(sys, "argv", ["scaling_curves.py", str(out), "--device", "cpu"])
    scaling_curves.main()
    assert asked == [BenchConfig(dense=(), device="cpu")]
    assert json.loads((tmp_path / "curves.json").read_text())["axes"]["nonzeros"]["values"] == [1, 4]
    first = np.asarray(Image.open(out).convert("RGB"))
    for _, colour, _ in LOOKS.values():  # each way is drawn
        wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        assert (np.abs(first.astype(int) - wanted).max(-1) <= 2).sum() > 100
    out.unlink()
    monkeypatch.setattr(sys, "argv", ["scaling_curves.py", str(out), "--redraw"])
    scaling_curves.main()
    assert len(asked) == 1
    assert np.array_equal(np.asarray(Image.open(out).convert("RGB")), first)
