"""The Anomaly tab: a few photos of good parts, any number of others, and what is wrong with these."""

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import Context

from app.anomaly_events import STEP, Events
from app.anomaly_gallery import KINDS, Look
from app.anomaly_job import Inspector
from app.anomaly_photos import JUDGE_LIMITS
from app.anomaly_sessions import Sessions

HERE = Path(__file__).parent
KEPT = 4 * 3600
"""Seconds after which results that nobody looks at are removed."""
TYPES = ["image", ".zip"]
TILES = [("Whole photos", 0), ("1024 pixels", 1024), ("512 pixels", 512), ("256 pixels", 256)]
ROTATIONS, FALSE_ALARMS = 1, 0.01
HINT = f"""### Find what is wrong with parts
1. Drop 1 to 16 photos of parts that are good.
2. Drop the photos to judge, up to {JUDGE_LIMITS.files} at a time.
3. Press **Find defects**. The most unusual photos come first, with heat where something is wrong.

No photos at hand? Press **Try an example**."""
HEIGHT = 170
"""Pixels of a list of files."""
WORK, LOOK, CLICK = "anomaly", "anomaly-look", "anomaly-click"
"""Queues: inspections come one after the other, looking at results does not wait for them."""


def anomaly_tab(inspector: Inspector | None = None) -> None:
    """Build the tab inside of a `gr.Tab`.

    Args:
        inspector: what judges; by default with the weights that come with the program.
    """
    sessions = Sessions(inspector or Inspector())
    css = (HERE / "anomaly_gallery.css").read_text(encoding="utf-8")
    script = (HERE / "anomaly_gallery.js").read_text(encoding="utf-8")
    found = gr.State(None, time_to_live=KEPT, delete_callback=sessions.forget)
    look = gr.State(Look())
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            files: dict[str, Any] = {
                "file_count": "multiple",
                "file_types": TYPES,
                "height": HEIGHT,
                "elem_classes": "low-on-phones",
            }
            good = gr.File(label="Good parts: 1 to 16 photos", **files)
            judge = gr.File(label="Photos to judge, or zips of them", **files)
            with gr.Row():
                start = gr.Button("Find defects", variant="primary", min_width=120)
                stop = gr.Button("Stop", interactive=False, min_width=80)
            example = gr.Button("Try an example")
            with gr.Accordion("Advanced", open=False):
                rotations = gr.Slider(
                    1,
                    16,
                    value=ROTATIONS,
                    step=1,
                    label="Turned copies",
                    info="Of each good photo; for parts at any angle.",
                )
                tile = gr.Dropdown(TILES, value=0, label="Tiles", info="For small defects in large photos; slower.")
                alarms = gr.Slider(
                    0.001,
                    0.2,
                    value=FALSE_ALARMS,
                    step=0.001,
                    label="False alarms",
                    info="Share of good parts to be flagged.",
                )
        with gr.Column(scale=5, min_width=320):
            hint = gr.Markdown(HINT, min_height=160, elem_classes="under-progress")
            with gr.Column(visible=False, elem_id="anomaly-results") as results:
                summary = gr.HTML(css_template=css, apply_default_css=False, elem_classes="under-progress")
                threshold = gr.Slider(0, 1, value=0.1, step=STEP, label="Threshold of photos and pixels")
                reference = gr.HTML(css_template=css, apply_default_css=False)
                with gr.Row(equal_height=False):
                    with gr.Column(scale=2, min_width=300, elem_id="anomaly-photo"):
                        kind = gr.Radio(list(KINDS), value="Overlay", label="One photo at full size")
                        picture = gr.Image(
                            interactive=False,
                            format="jpeg",
                            height=360,
                            show_label=False,
                            buttons=["download", "fullscreen"],
                        )
                        line = gr.HTML(css_template=css, apply_default_css=False)
                    with gr.Column(scale=3, min_width=320):
                        sheet = gr.HTML(css_template=css, js_on_load=script, apply_default_css=False)
                with gr.Row():
                    table = gr.Button("Download table (CSV)", min_width=120)
                    bundle = gr.Button("Download all files (zip)", min_width=120)
                file = gr.DownloadButton("The file", visible="hidden", elem_id="anomaly-file")

    events = Events(sessions, Path(file.GRADIO_CACHE))
    work: dict[str, Any] = {"concurrency_id": WORK, "concurrency_limit": 1, "api_visibility": "private"}
    quick: dict[str, Any] = {
        "concurrency_id": LOOK,
        "concurrency_limit": 4,
        "api_visibility": "private",
        "show_progress": "hidden",
    }
    inputs = [good, judge, rotations, tile, alarms, kind]
    outputs = [found, look, hint, results, threshold, reference, summary, sheet, picture, line]

    # Gradio has no sentence for a slider whose number field was emptied.
    whole = f"(a, b, turned, c, alarms, d) => [a, b, turned ?? {ROTATIONS}, c, alarms ?? {FALSE_ALARMS}, d]"
    begin: dict[str, Any] = {"js": whole, "show_progress_on": [hint, summary], **work}

    def stoppable(now: bool) -> Any:
        return lambda: gr.Button(interactive=now)

    # Not queued, so that Stop can be used before there is anything to stop, and no longer than that.
    quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    clicked = start.click(stoppable(True), None, stop, **quiet).then(events.inspect, inputs, outputs, **begin)
    filled = example.click(stoppable(True), None, stop, **quiet).then(events.example, None, [good, judge], **quick)
    tried = filled.success(events.inspect, inputs, outputs, **begin)
    for inspected in (clicked, tried):
        inspected.success(None, None, None, js=(HERE / "anomaly_results.js").read_text(encoding="utf-8"))
        inspected.then(stoppable(False), None, stop, **quiet)
    stopped = stop.click(
        events.stop, None, None, cancels=[clicked, tried], concurrency_limit=None, api_visibility="private"
    )
    stopped.then(stoppable(False), None, stop, **quiet)

    # What is clicked is kept by one short event at a time, the threshold by its slider alone; both are drawn by events
    # of which a page never has two at a time and the last one sees the newest of both.
    one: dict[str, Any] = {**quick, "concurrency_id": CLICK, "concurrency_limit": 1}
    sheet.look(events.look, [found, look], look, trigger_mode="multiple", **one)
    # Without Gradio's preprocessing, which refuses what the number field holds while somebody types.
    newest: dict[str, Any] = {"trigger_mode": "always_last", "preprocess": False, **quick}
    looks = [look.change, threshold.change]
    gr.on(looks, events.draw, [found, look, threshold], [summary, sheet], **newest)
    gr.on([*looks, kind.change], events.full, [found, look, threshold, kind], [picture, line], **newest)

    save = "() => document.querySelector('#anomaly-file')?.closest('a, button')?.click()"
    for button, make in ((table, events.table), (bundle, events.bundle)):
        made = button.click(
            make, [found, threshold], file, preprocess=False, concurrency_id=LOOK, api_visibility="private"
        )
        made.success(None, None, None, js=save)
    assert Context.root_block is not None
    Context.root_block.unload(events.leave)
    _endpoint(events)


def _endpoint(events: Events) -> None:
    """`/anomaly` for programs."""
    good = gr.File(label="Photos of good parts, or zips", file_count="multiple", visible=False)
    judge = gr.File(label="Photos to judge, or zips", file_count="multiple", visible=False)
    threshold = gr.Number(None, label="Threshold 0..1, or none", visible=False)
    rows, files = gr.JSON(label="Rows", visible=False), gr.File(label="All files", visible=False)
    gr.Button(visible=False).click(
        events.answer,
        [good, judge, threshold],
        [rows, files],
        api_name="anomaly",
        concurrency_id=WORK,
        concurrency_limit=1,
    )
