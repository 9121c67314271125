"""The About tab: what gives words their meaning here, what this machine has, and how fast it is."""

import html
import json
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gradio as gr

from app.bench_quick import measure_quickly
from app.bench_tables import markdown_table
from app.doctor import Finding, examine
from app.scenes import Scenes
from app.told import told

MARKS = {"ok": ("✓", "fine"), "note": ("·", "worth knowing"), "broken": ("✗", "broken")}
VERSIONS = ("dictsplat", "gradio", "numpy")
"""Of packages that `app.doctor` does not list."""
SPEED = "bench.json"
"""Where `dictsplat bench --json` may have left the speed table, in the folder of runs."""
STYLE = """
.html-container:has(&) { padding: 0; }
table { border-collapse: collapse; margin: 0; padding: 0; max-width: 46rem; color: var(--body-text-color); }
th, td { text-align: left; vertical-align: top; padding: 0.3rem 1.2rem 0.3rem 0; }
th { font-weight: 600; overflow-wrap: break-word; }
td { overflow-wrap: anywhere; }
td:last-child { padding-right: 0; }
tr { border-top: 1px solid var(--border-color-primary); }
tr:first-child { border-top: 0; }
td.mark { padding-right: 0.6rem; font-weight: 700; }
p { margin: 0; color: var(--body-text-color); }
"""
MEANINGS = {
    "embedded": "two small models that were installed with the program; they think in ImageNet's 1,000 classes, so "
    "they know cats, cups and rockets and are weak on wallpaper, cloth and brand names.",
    "openclip": "an OpenCLIP model; it knows far more words than the embedded encoder, and takes longer to describe "
    "photos.",
}
SWITCH = """A scene keeps the encoder that it was described with. To describe the same Gaussians with a stronger one:

    dictsplat train photos/ --out out/other \\
        --encoder openclip:ViT-B-16 \\
        --gaussians out/mine/gaussians.ply

Its weights are downloaded the first time, or read from a file: `openclip:ViT-B-16:weights.safetensors`."""
INTRODUCTION = """Photos of a place become 3D Gaussians that carry sparse codes over a small dictionary, so that they
can be asked for things by name; a few photos of good parts become a dictionary in which damage cannot be looked up. All
of it happens on the machine that serves this page."""


def about_tab(scenes: Scenes, root: Path, tab: gr.Tab, device: str = "auto") -> None:
    """Build the tab inside of ``tab``, which fills it when it is opened.

    Args:
        scenes: whose encoders are explained.
        root: the folder of runs, where `SPEED` may be.
        device: what is measured.
    """
    gr.Markdown(INTRODUCTION, elem_classes="reading")
    gr.Markdown("### Encoders")
    used = _table(encoders_html(scenes), "Encoders in use")
    gr.Markdown(SWITCH, elem_classes="reading")
    gr.Markdown("### This machine")
    found = _table("<p>It is looked at when this tab is opened.</p>", "What this machine has")
    gr.Markdown("### Speed")
    table = gr.Markdown(speed_text(root), label="Speed table", elem_classes="speed-table")
    measure = gr.Button("Measure in a minute", size="md", elem_classes="narrow")

    def quickly(progress: gr.Progress = gr.Progress()) -> str:  # noqa: B008
        def report(done: int, total: int, message: str) -> None:
            progress((done, total), desc=message)

        return markdown_table(measure_quickly(device, report=report))

    quiet: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "about", "concurrency_limit": 1}
    tab.select(lambda: encoders_html(scenes), None, used, show_progress="hidden", **quiet)
    tab.select(told(lambda: findings_html(_examined(), _versions())), None, found, **quiet)
    measure.click(told(quickly), None, table, **quiet)


def _table(content: str, label: str) -> gr.HTML:
    return gr.HTML(content, css_template=STYLE, apply_default_css=False, label=label)


def encoders_html(scenes: Scenes) -> str:
    """Each scene's encoder, and what that means, in a sentence."""
    if not len(scenes):
        return "<p>There is no scene yet. New ones are described by the embedded encoder.</p>"
    rows = []
    for name, position in scenes.names():
        encoder = scenes.outline(position).encoder
        meaning = MEANINGS.get(encoder.partition(":")[0], "an encoder of your own.")
        rows.append(
            f"<tr><th scope='row'>{html.escape(name)}</th><td><b>{html.escape(encoder)}</b>: {meaning}</td></tr>"
        )
    return f"<table>{''.join(rows)}</table>"


def findings_html(findings: Sequence[Finding], versions: Sequence[Finding] = ()) -> str:
    """What `dictsplat doctor` found, as a table."""
    rows = []
    for finding in (*versions, *findings):
        mark, meaning = MARKS[finding.status]
        rows.append(
            f"<tr><td class='mark'><span role='img' aria-label='{meaning}'>{mark}</span></td>"
            f"<th scope='row'>{html.escape(finding.subject)}</th><td>{html.escape(finding.found)}</td></tr>"
        )
    return f"<table>{''.join(rows)}</table>"


def speed_text(root: Path) -> str:
    """The speed table that was measured for this folder of runs, as Markdown, or how to get one."""
    path = root / SPEED
    how = f"`dictsplat bench --json {SPEED}`, run in the folder of scenes, measures this machine for some minutes"
    if not path.is_file():
        return f"{how}; the button below takes a smaller scene."
    try:
        return markdown_table(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return f"`{SPEED}` holds no speed table; {how}."


@cache
def _examined() -> list[Finding]:
    """Once for all visitors: it loads models."""
    return examine()


def _versions() -> list[Finding]:
    return [Finding(name, version(name), "ok") for name in VERSIONS]
