"""The speed table: that its clock adds up, its rows compute what they stand for, and it shows what was measured."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import reference
import torch
from rich.console import Console
from torch.testing import assert_close

from app import bench, bench_clock, bench_tables
from app.bench_baselines import SLABS, langsplat_decoder, torch_rasterize_rgb
from app.bench_clock import Stopwatch, frame, interleaved, median_frame
from app.bench_scene import BenchConfig, Scene
from encoders.errors import InputError
from splat.rasterize import rasterize_rgb

TINY = BenchConfig(gaussians=300, width=50, height=35, dim=48, dense=(3, 48, 192), phrases=2, repeats=3)
DENSE = tuple(f"dense_{channels}" for channels in TINY.dense)
KEYS = {
    "codes_over_rgb": ("codes", "rgb"),
    "langsplat_over_ours": ("langsplat_query", "query"),
    "materialised_over_ours": ("materialised_query", "query"),
    "torch_over_ours": ("torch_training_step", "rgb_training_step"),
}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Time that passes only when it is called with seconds."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(TINY)


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return bench.measure(TINY)


# --- the clock ----------------------------------------------------------------------------------


def test_stages_are_what_passed_between_laps(clock: Callable[[float], None]) -> None:
    watch = Stopwatch("cpu")
    for stage, seconds in (("rendering", 0.25), ("decoding", 0.5), ("rendering", 1.0)):
        clock(seconds)
        watch.lap(stage)
    clock(7)  # after the last lap: nobody's
    assert watch.read() == pytest.approx({"rendering": 1250.0, "decoding": 500.0})


@pytest.mark.parametrize(("seconds", "frames"), [(0.001, 101), (0.06, 2), (0.3, 2), (3.0, 2), (31.0, 1)])
def test_quick_frames_follow_frames_like_them(clock: Callable[[float], None], seconds: float, frames: int) -> None:
    run = 0

    def work(lap: bench_clock.Lap) -> None:
        nonlocal run
        run += 1
        clock(seconds + 1e-6)  # sums of the clock are not exact
        lap("rendering")

    assert frame(work, "cpu")["rendering"] == pytest.approx(1e3 * seconds, abs=0.01)
    assert run == pytest.approx(frames, abs=frames // 50)


def test_rows_take_turns_and_the_first_round_does_not_count(
    clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_clock, "SLOW_SECONDS", 0.5)  # so that each frame is run once
    order: list[str] = []

    def lasting(name: str, durations: Iterator[float]) -> bench_clock.Work:
        def work(lap: bench_clock.Lap) -> None:
            order.append(name)
            clock(next(durations))
            lap("rendering")

        return work

    told: list[tuple[int, int, str]] = []
    works = {"a_row": lasting("a", iter([9.0, 1.0, 3.0, 2.0])), "b": lasting("b", iter([9.0, 4.0, 4.0, 5.0]))}
    frames = interleaved(works, 3, "cpu", lambda *said: told.append(said))
    assert order == ["a", "b"] * 4
    assert [stages["rendering"] for stages in frames["a_row"]] == pytest.approx([1000, 3000, 2000])
    assert median_frame(frames["a_row"])["rendering"] == pytest.approx(2000)
    assert median_frame(frames["b"])["rendering"] == pytest.approx(4000)
    assert told[0] == (0, 8, "a row")
    assert told[-1] == (8, 8, "done")


def test_the_median_frame_is_one_that_was() -> None:
    frames = [{"x": 1.0, "y": 9.0}, {"x": 5.0, "y": 2.0}, {"x": 3.0, "y": 3.0}]
    assert median_frame(frames) == {"x": 5.0, "y": 2.0}
    assert median_frame(frames[:2]) == {"x": 5.0, "y": 2.0}  # of two the quicker


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_events_time_the_device_and_not_the_launches() -> None:
    side = torch.rand(4096, 4096, device="cuda")

    def work(lap: bench_clock.Lap) -> None:
        side @ side
        lap("one")
        for _ in range(4):
            side @ side
        lap("four")

    stages = frame(work, "cuda")
    assert 2.5 < stages["four"] / stages["one"] < 6


# --- what the rows compute ----------------------------------------------------------------------


def _reference_relevancy(scene: Scene) -> tuple[torch.Tensor, torch.Tensor]:
    """Relevancy [phrases, levels, H, W] by blending decoded features in float64, and where anything is seen."""
    config = scene.config
    geometry = [tensor.double() for tensor in scene.geometry]
    weights = reference.blending_weights(
        *geometry, scene.viewmats[0].double(), scene.Ks[0].double(), config.width, config.height
    )
    maps = []
    for level in range(config.levels):
        atoms = scene.dictionary[level].double()
        features = (scene.weights[:, level, :, None].double() * atoms[scene.indices[:, level].long()]).sum(1)
        cosine = torch.nn.functional.normalize(weights @ features, dim=-1) @ scene.texts.double().T
        pairs = [
            torch.stack([10 * cosine[:, : config.phrases], 10 * cosine[:, other, None].expand(-1, config.phrases)])
            for other in range(config.phrases, cosine.shape[1])
        ]
        maps.append(torch.stack([pair.softmax(0)[0] for pair in pairs]).amin(0).T)
    return torch.stack(maps, 1).unflatten(-1, (config.height, config.width)), weights.sum(1) > 1e-3


def test_both_ways_to_relevancy_are_that_of_decoded_features(scene: Scene) -> None:
    expected, seen = _reference_relevancy(scene)
    seen = seen.view(TINY.height, TINY.width)
    assert seen.float().mean() > 0.5
    for found in (scene.query(), scene.materialised()):
        assert found.shape == (TINY.phrases, TINY.levels, TINY.height, TINY.width)
        assert_close(found[..., seen].double(), expected[..., seen], atol=2e-5, rtol=0)


def test_langsplat_decodes_blended_latents(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = scene.langsplat()
    weights = reference.blending_weights(
        *(tensor.double() for tensor in scene.geometry), scene.viewmats[0].double(), scene.Ks[0].double(),
        TINY.width, TINY.height,
    )  # fmt: skip
    with torch.no_grad():
        for level, decoder in enumerate(scene.decoders):
            features = decoder((weights @ scene.latents[level].double()).float())
            cosine = torch.nn.functional.cosine_similarity(features[:, None], scene.texts[None], dim=-1)
            rivals = cosine[:, TINY.phrases :].amax(1, keepdim=True)
            expected = torch.sigmoid(10 * (cosine[:, : TINY.phrases] - rivals)).T
            assert_close(whole[:, level].flatten(1), expected, atol=2e-4, rtol=0)
    monkeypatch.setitem(SLABS, "cpu", 100)
    assert_close(scene.langsplat(), whole)


def test_langsplats_decoder_has_its_published_layers() -> None:
    layers = list(langsplat_decoder(512))
    linear = [layer for layer in layers if isinstance(layer, torch.nn.Linear)]
    assert [layer.in_features for layer in linear] == [3, 16, 32, 64, 128, 256, 256]
    assert linear[-1].out_features == 512
    assert layers[-1] is linear[-1]


def test_the_torch_renderer_is_a_fair_rival(scene: Scene) -> None:
    """It draws the same picture with the same gradient as ours."""
    images, gradients = [], []
    for tiled in (True, False):
        geometry, sh = scene.leaves()
        if tiled:
            image = torch_rasterize_rgb(geometry, sh, scene.viewmats[0], scene.Ks[0], TINY.width, TINY.height)
        else:
            image = rasterize_rgb(*geometry, sh, *scene.view)[0][0]
        image.square().mean().backward()
        images.append(image.detach())
        gradients.append(geometry[0].grad)
    assert_close(images[0], images[1], atol=1e-5, rtol=1e-4)
    assert_close(gradients[0], gradients[1], atol=1e-5, rtol=2e-2)


def test_dense_rows_splat_that_many_channels(scene: Scene) -> None:
    for channels in TINY.dense:
        image = scene.dense(channels)(bench_clock.no_lap)
        assert image.shape == (1, TINY.height, TINY.width, channels)
        assert image.abs().amax(dim=(0, 1, 2)).min() > 0


# --- what is measured ---------------------------------------------------------------------------


def test_stages_add_up_to_totals_and_ratios_are_theirs(result: dict[str, Any]) -> None:
    assert set(result["milliseconds"]) == set(result["stages"]) == {*sum(KEYS.values(), ()), *DENSE}
    for name, stages in result["stages"].items():
        assert all(milliseconds > 0 for milliseconds in stages.values())
        assert sum(stages.values()) == pytest.approx(result["milliseconds"][name])
    for key, (over, under) in KEYS.items():
        assert result[key] == pytest.approx(result["milliseconds"][over] / result["milliseconds"][under])
    assert "dense_1536_over_codes" not in result
    assert set(result["stages"]["langsplat_query"]) == {"rendering", "decoding", "relevancy"}
    assert set(result["stages"]["materialised_query"]) == {"rendering", "decoding", "relevancy"}
    assert set(result["stages"]["query"]) == {"rendering", "decoding"}
    assert 0 < result["largest_difference_from_materialised"] < 1e-5
    assert json.loads(json.dumps(result))["config"]["dense"] == list(TINY.dense)


def test_splatting_1536_channels_is_compared_with_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    config = BenchConfig(gaussians=20, width=20, height=20, dim=8, dense=(1536,), repeats=1, slow=False)
    found = bench.measure(config)
    expected = found["milliseconds"]["dense_1536"] / found["milliseconds"]["codes"]
    assert found["dense_1536_over_codes"] == pytest.approx(expected)
    assert not {"torch_over_ours", "torch_training_step"} & {*found, *found["milliseconds"]}


def test_dense_maps_that_do_not_fit_are_left_out_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    config = BenchConfig(gaussians=100, width=40, height=25, dim=8, dense=(3, 1000, 1001), slow=False)
    monkeypatch.setattr(bench, "device_memory", lambda _device: 3 * 4 * 1000 * (40 * 25 + 100))
    rows, skipped = bench.rows_of(Scene(config))
    assert [name for name in rows if name.startswith("dense")] == ["dense_3", "dense_1000"]
    assert list(skipped) == ["dense_1001"]
    assert re.search(r"0\.0 GB, more than a third of the 0\.0 GB", skipped["dense_1001"])


# --- what is shown ------------------------------------------------------------------------------


def parsed(markdown: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the one table of a Markdown text."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len({len(row) for row in cells}) == 1
    assert all(re.fullmatch(r"-+:?", cell) for cell in cells[1])
    return cells[0], cells[2:]


def number(cell: str) -> float:
    """Of two digits or more, so within 5 % at worst of what it stands for."""
    return float(cell.replace(",", "")) if cell else 0.0


def test_markdown_says_what_was_measured(result: dict[str, Any]) -> None:
    text = bench_tables.markdown_table(result)
    header, rows = parsed(text)
    assert header == ["ms", "render", "decode", "compare", "total", "× ours"]
    titles = [row[0] for row in rows if row[0].startswith("**")]
    assert titles == ["**splatting**", "**text query**", "**RGB training step**"]
    order = ["rgb", *DENSE, "codes", "langsplat_query", "materialised_query", "query"]
    order += ["torch_training_step", "rgb_training_step"]
    measured = [row for row in rows if not row[0].startswith("**")]
    assert len(measured) == len(order)
    ours = {**dict.fromkeys(order[:5], "codes"), **dict.fromkeys(order[5:8], "query")}
    for name, row in zip(order, measured, strict=True):
        total = result["milliseconds"][name]
        assert number(row[4]) == pytest.approx(total, rel=0.05)
        assert number(row[5]) == pytest.approx(
            total / result["milliseconds"][ours.get(name, "rgb_training_step")], rel=0.05
        )
        stages = result["stages"][name] if not name.endswith("step") else {}
        for cell, stage in zip(row[1:4], ("rendering", "decoding", "relevancy"), strict=True):
            assert number(cell) == pytest.approx(stages.get(stage, 0.0), rel=0.05)
    assert [row[0] for row in measured[1:4]] == ["dense, 3 channels", "dense, 48 channels", "dense, 192 = 3 × 64 atoms"]
    for key in KEYS:
        assert f"- {key}: {result[key]:.2f}" in text
    assert "50×35, 300 Gaussians" in text.splitlines()[0]


def test_the_table_fits_a_terminal(result: dict[str, Any]) -> None:
    console = Console(width=80, record=True)
    bench_tables.print_table({**result, "skipped": {"dense_9": "takes 9.0 GB"}}, console)
    shown = console.export_text()
    assert max(map(len, shown.splitlines())) <= 80
    assert re.search(r"LangSplat: 3-D latents, MLP( +[\d.,]+){5} *\n", shown)
    assert "dense_9 left out: takes 9.0 GB" in shown


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123, "0.012"), (0.9966, "1.00"), (9.97, "10.0"), (33.14, "33.1"), (99.7, "100"), (2934, "2,934")],
)
def test_digits(value: float, text: str) -> None:
    assert bench_tables.digits(value) == text


def test_the_title_names_the_device(result: dict[str, Any]) -> None:
    card = {"config": {**result["config"], "device": "cuda"}, "machine": {"processor": "Card 9"}, "date": "2026-01-02"}
    assert bench_tables.title(card) == "50×35, 300 Gaussians, Card 9, 2026-01-02"
    assert f"{result['machine']['threads']} threads, " in bench_tables.title(result)


def test_bench_writes_both_files(
    result: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[BenchConfig] = []
    monkeypatch.setattr(bench, "measure", lambda config, _report: asked.append(config) or dict(result))
    anomaly = {
        "anomaly_over_backbone": 0.8, "lookup_growth": 2.0, "shots_growth": 16.0, "backbone_milliseconds": 10.0,
        "lookup_milliseconds": {1: 1.0}, "size": (384, 384), "reference_shots": 4,
    }  # fmt: skip
    monkeypatch.setattr(bench, "measure_anomaly", lambda *_: anomaly)
    found = bench.bench(tmp_path / "new" / "bench.json", tmp_path / "table.md", "cpu")
    assert asked == [BenchConfig(device="cpu")]
    written = json.loads((tmp_path / "new" / "bench.json").read_text())
    assert written["anomaly"]["anomaly_over_backbone"] == 0.8
    assert written["stages"] == found["stages"]
    assert (tmp_path / "table.md").read_text() == bench_tables.markdown_table(result)
    assert "codes_over_rgb" in capsys.readouterr().out


def test_what_cannot_be_written_is_said_before_measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "measure", lambda *_: pytest.fail("measured"))
    with pytest.raises(InputError, match="is a folder"):
        bench.bench(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        bench.bench(markdown=tmp_path / "file" / "table.md")
