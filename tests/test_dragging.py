"""What a frame costs while the viewport is dragged: beside its bare rasterisation, and as the benchmark tells it."""

import importlib
import json
import sys
import time
from collections.abc import Callable
from multiprocessing import Pipe
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import pytest
import torch

from app.frame_route import QUALITY
from app.frames import Painter, fitted
from app.pictures import encoded
from app.scenes import Scenes
from app.visits import Gesture, first_stand, moved
from splat.rasterize import rasterize_rgb
from splat.scene import Camera, stack

WIDTH = 480
DEARER = 1.5
"""How much more than rasterising its picture and writing it as JPEG a frame may cost."""


def seconds(work: Callable[[Camera], object], camera: Camera) -> float:
    started = time.perf_counter()
    work(camera)
    return time.perf_counter() - started


def test_a_moving_frame_costs_little_more_than_its_picture(painted: Path) -> None:
    scenes, painter = Scenes([painted / "run"], "cpu"), Painter()
    stand = first_stand(0, scenes.get(0))
    gaussians = scenes.get(0).trained.gaussians

    @torch.inference_mode()
    def bare(camera: Camera) -> bytes:
        rgb, *_ = rasterize_rgb(*gaussians.geometry, gaussians.sh, *stack([camera]), camera.width, camera.height)
        bgr = np.ascontiguousarray((rgb[0].clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy()[..., ::-1])
        return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY[True]])[1].tobytes()

    def whole(_camera: Camera) -> bytes:
        return encoded(painter.draw(stand, WIDTH, quick=True).picture, "jpg", QUALITY[True])

    times: dict[str, list[float]] = {"bare": [], "whole": []}
    # In turns, so that what slows the machine down for a while slows both.
    for step in range(33):
        stand = moved(stand, Gesture(turn=(0.01, 0.0)))
        camera = fitted(stand.camera, WIDTH)
        assert bare(camera) == whole(camera)
        if step > 2:
            times["bare"].append(seconds(bare, camera))
            times["whole"].append(seconds(whole, camera))
    least, most = (1000 * median(times[name]) for name in ("bare", "whole"))
    print(f"bare {least:.1f} ms, a frame {most:.1f} ms: {most / least:.2f} times as much")
    assert most < DEARER * least


def test_the_benchmark_counts_frames(
    painted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    benchmark = importlib.import_module("viewport_rate")
    out = tmp_path / "rate.json"
    options = ["--seconds", "0.3", "--width", "96", "--device", "cpu", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["viewport_rate.py", str(painted / "run"), *options])
    began = time.perf_counter()
    benchmark.main()
    passed = time.perf_counter() - began
    told = json.loads(out.read_text())
    assert told["width"] == 96
    assert told["machine"]["device"] == "cpu"
    assert told["scene"]["gaussians"] == len(np.load(painted / "labels.npy"))
    assert list(told["rows"]) == ["picture", "relevancy, 1 phrase", "relevancy, 3 phrases"]
    printed = capsys.readouterr().out
    for name, row in told["rows"].items():
        assert 0 < row["median"] <= row["p95"] < 1000 * passed
        # Frames came one after the other, so they cannot be more than fit between the quickest and all of the time.
        assert 0 < row["frames"] < row["frames_per_second"] * passed
        assert f"| {name} | {row['frames_per_second']} | {row['median']} | {row['p95']} |" in printed


def test_the_benchmark_says_what_is_wrong_with_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    here, there = Pipe()
    importlib.import_module("viewport_rate").serve(tmp_path, "cpu", there)
    assert "not a run folder" in here.recv()
