"""The About tab: what it says of scenes, of the machine and of its speed, and that it looks when it is opened."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from app import about_tab, bench_quick
from app.about_tab import SPEED, encoders_html, findings_html, speed_text
from app.bench_quick import measure_quickly
from app.doctor import Finding
from app.scenes import Scenes
from encoders.errors import InputError

TINY = replace(bench_quick.QUICK, gaussians=200, width=40, height=30, repeats=1)


class Named:
    """Stands in for `app.scenes.Scenes`: scenes of which only the encoder is known."""

    def __init__(self, **encoders: str) -> None:
        self._encoders = encoders

    def __len__(self) -> int:
        return len(self._encoders)

    def names(self) -> list[tuple[str, int]]:
        return [(name, position) for position, name in enumerate(self._encoders)]

    def outline(self, position: int) -> Any:
        return SimpleNamespace(encoder=list(self._encoders.values())[position])


def test_each_scene_has_its_encoder_explained() -> None:
    scenes = Named(desk="embedded", hall="openclip:ViT-B-16:/data/weights.pt", odd="<b>mine</b>")
    rows = re.findall(r"<tr>(.*?)</tr>", encoders_html(scenes))
    assert [re.sub("<[^>]*>", "", row).split(":")[0] for row in rows] == [
        "deskembedded", "hallopenclip", "odd&lt;b&gt;mine&lt;/b&gt;",
    ]  # fmt: skip
    assert "ImageNet" in rows[0]
    assert "OpenCLIP" in rows[1]
    assert "no scene yet" in encoders_html(Scenes())


def test_findings_are_told_apart_without_colour() -> None:
    found = [Finding("disk", "full & <small>", "broken"), Finding("GPU", "none", "note"), Finding("cores", "2", "ok")]
    rows = re.findall(r"<tr>(.*?)</tr>", findings_html(found))
    assert [re.search("aria-label='(.*?)'", row)[1] for row in rows] == ["broken", "worth knowing", "fine"]
    assert "full &amp; &lt;small&gt;" in rows[0]


def test_the_speed_table_is_the_one_that_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "dictsplat bench --json" in speed_text(tmp_path)
    monkeypatch.setattr(bench_quick, "QUICK", TINY)
    steps: list[tuple[int, int]] = []
    result = measure_quickly("cpu", report=lambda done, total, _message: steps.append((done, total)))
    assert steps == [(done, 12) for done in range(13)]
    (tmp_path / SPEED).write_text(json.dumps(result))
    shown = speed_text(tmp_path)
    cells = {row.split("|")[1].strip(): row.split("|")[-3].strip() for row in shown.splitlines() if row.count("|") > 3}
    ours = result["milliseconds"]["query"]
    assert float(cells["ours: relevancy in the splat"].replace(",", "")) == pytest.approx(ours, rel=0.06)
    for broken in ("", "[]", "{}", '{"milliseconds": 1}', "\xff"):
        (tmp_path / SPEED).write_text(broken, encoding="latin-1")
        assert "holds no speed table" in speed_text(tmp_path)


def test_measuring_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_quick, "QUICK", TINY)
    with pytest.raises(InputError, match="too busy"):
        measure_quickly("cpu", seconds=0.0)


def test_the_machine_is_looked_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    looks = []
    monkeypatch.setattr(about_tab, "examine", lambda: looks.append(1) or [Finding("cores", "99", "ok")])
    about_tab._examined.cache_clear()
    with gr.Blocks() as page, gr.Tab("About") as tab:
        about_tab.about_tab(Scenes(), tmp_path, tab)
    selects = [call for call in page.fns.values() if any(name == "select" for _, name in call.targets)]
    assert not looks
    shown = [call.fn() for call in selects for _ in range(2)]
    about_tab._examined.cache_clear()
    assert sum("<td>99</td>" in text for text in shown) == 2
    assert looks == [1]
    assert all(call.api_visibility == "private" for call in page.fns.values())
