"""The New scene tab: photos, a video or a zip become a scene, trained in the background and watched meanwhile."""

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd
from gradio.events import api

from app.progress_file import Progress
from app.scenes import Scenes
from app.told import told
from app.training_folder import Job
from app.training_jobs import TrainingJobs
from app.training_status import STYLE, label, preview_html, status_html
from app.training_uploads import ACCEPTED
from encoders.errors import InputError
from splat.rgb_config import RgbConfig
from splat.train_config import PRESETS

MEANT_FOR = {"fast": "for a plain CPU", "default": "finer", "paper": "for a GPU"}

INTRODUCTION = """### A scene from your own photos
Take 20 to 200 photos of one thing or place from all around, each showing at least half of what the one before it
shows, with nothing moving. They go to the computer that serves this page, and no further."""

BUSY_SECONDS, IDLE_SECONDS = 2.0, 10.0
"""How often a page looks, while something is trained and while nothing is."""

POINTS = 200
"""Of a curve, at most."""

Seen = dict[str, Hashable]
"""What a page shows already, part by part."""


def new_scene_tab(scenes: Scenes, root: Path, device: str = "auto") -> TrainingJobs:
    """Build the tab, inside of the `gr.Tab` that is to hold it.

    Args:
        scenes: learn of every scene that is finished.
        root: where run folders are made.
        device: of the trainings, see `splat.device`.

    Returns:
        The trainings, which end with the program, or earlier with `TrainingJobs.close`.
    """
    jobs = TrainingJobs(root, scenes.add, device)
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            gr.Markdown(INTRODUCTION)
            files = gr.File(
                label="Photos, a video, or a zip of photos",
                file_count="multiple",
                file_types=list(ACCEPTED),
                height=180,
            )
            name = gr.Textbox(
                label="Name",
                info="Letters a to z, digits and hyphens; found for you if left empty.",
                placeholder="my-desk",
                max_length=60,
            )
            preset = gr.Radio([(_preset_label(each), each) for each in PRESETS], value="fast", label="Quality")
            train = gr.Button("Train", variant="primary")
            gr.Markdown("No photos at hand? The program draws a demo scene and trains it, in some minutes.")
            demo = gr.Button("Make the demo scene")
            started = gr.Textbox(visible=False, label="Name of the training")
        with gr.Column(scale=2, min_width=300):
            chosen = gr.Radio([], label="Trainings", info="They go on when this page is closed.")
            status = gr.HTML(css_template=STYLE, label="Progress", padding=False, container=True)
            with gr.Row():
                cancel = gr.Button("Stop", visible=False, size="md", min_width=90)
                resume = gr.Button("Resume", visible=False, size="md", min_width=90)
                show = gr.Button("Show in the Scene tab", visible=False, variant="primary", size="md", min_width=90)
                remove = gr.Button("Remove", visible=False, size="md", min_width=90)
            with gr.Column(visible=False) as sure:
                question = gr.Markdown()
                with gr.Row():
                    for_good = gr.Button("Remove for good", variant="stop", size="md", min_width=140)
                    keep = gr.Button("Keep", size="md", min_width=90)
            preview = gr.HTML(css_template=STYLE, label="Preview", padding=False, container=True, visible=False)
            with gr.Row():
                loss = gr.LinePlot(x="step", y="loss", label="Loss", height=200, min_width=260, visible=False)
                psnr = gr.LinePlot(x="step", y="PSNR (dB)", label="PSNR", height=200, min_width=260, visible=False)
            with gr.Accordion("Details", open=False, visible=False) as details:
                log = gr.Textbox(label="Last lines of the log", lines=12, max_lines=12, interactive=False)
    seen, doubted = gr.State({}), gr.State(None)
    timer = gr.Timer(BUSY_SECONDS)
    watched = [
        chosen, status, preview, loss, psnr, log, cancel, resume, show, remove, sure, question, details, timer, seen,
    ]  # fmt: skip

    def look(selected: Any, already: Seen, doubtful: str | None = None) -> list[Any]:
        return Look(jobs, selected if isinstance(selected, str) else None, already, doubtful).updates()

    def begin(paths: list[str] | None, wanted: str | None, quality: str) -> str:
        # The uploads stay: somebody else may have sent the same file, and Gradio keeps it once for both.
        return jobs.start(wanted or "", [Path(path) for path in paths or []], quality).name

    def bring_up(selected: str) -> None:
        jobs.show(selected)
        gr.Info(f"{selected} is in the Scene tab.")

    def on_selected(action: Callable[[str], object]) -> Callable[[Any], None]:
        def act(selected: Any) -> None:
            if not isinstance(selected, str):
                raise InputError("There is no training yet; start one first.")
            action(selected)

        return act

    # Without Gradio's check of the list's value: a page that outlived its server knows names the new one never sent it.
    quiet: dict[str, Any] = {
        "show_progress": "hidden",
        "queue": False,
        "api_visibility": "private",
        "preprocess": False,
    }
    gr.on(None, lambda: look(None, {}), None, watched, **quiet)
    looking = [chosen, seen, doubted]
    timer.tick(look, looking, watched, **quiet)
    chosen.input(lambda: None, None, doubted, **quiet).then(look, looking, watched, **quiet)
    uploaded = train.click(told(begin), [files, name, preset], started, api_name="train")
    uploaded.success(lambda: (None, ""), None, [files, name], **quiet)
    made = demo.click(told(lambda: jobs.start_demo().name), None, started, api_name="make_demo")
    for event in (uploaded, made):
        event.success(look, [started, seen], watched, **quiet)
    for button, action in {cancel: jobs.cancel, resume: jobs.resume, show: bring_up}.items():
        done = button.click(told(on_selected(action)), chosen, None, **quiet)
        done.then(look, looking, watched, **quiet)
    remove.click(lambda selected: selected, chosen, doubted, **quiet).then(look, looking, watched, **quiet)
    removed = for_good.click(told(on_selected(jobs.remove)), doubted, None, **quiet)
    for decided in (removed.then, keep.click):
        decided(lambda: None, None, doubted, **quiet).then(look, looking, watched, **quiet)
    _endpoints(jobs)
    return jobs


def _preset_label(preset: str) -> str:
    return f"{preset.capitalize()}: {RgbConfig.preset(preset).iterations:,} steps, {MEANT_FOR[preset]}"


class Look:
    """What a page is told: only what has changed since it was told last.

    Args:
        selected: name of the training that is looked at; if there is none of this name, one that is at work.
        already: what the page was told.
        doubtful: name of the training of which the page asks whether it is really to be removed.
    """

    def __init__(self, jobs: TrainingJobs, selected: str | None, already: Seen, doubtful: str | None = None) -> None:
        self._jobs, self._already, self._doubtful = jobs, already, doubtful
        self._now: Seen = {}
        self._all = jobs.jobs()
        by_name = {job.name: job for job in self._all}
        if selected not in by_name:
            selected = next((job.name for job in self._all if job.active), next(iter(by_name), None))
        self._job: Job | None = by_name.get(selected) if selected is not None else None

    def updates(self) -> list[Any]:
        """For the outputs: list, status, preview, curves, log, four buttons, the question, details, timer, `Seen`."""
        job = self._job
        folder = None if job is None else self._jobs.folder(job.name)
        progress = Progress() if folder is None else folder.progress()
        name = None if job is None else job.name
        choices = tuple((label(each), each.name) for each in self._all)
        status = status_html(job, progress)
        said = "" if folder is None else "\n".join(folder.said()[-40:])
        picture = None if folder is None else folder.preview_path
        drawn = picture.stat().st_mtime_ns if picture is not None and picture.is_file() else None
        curve = (name, len(progress.steps), progress.steps[-1:])
        idle = job is not None and job.idle
        asks = idle and name == self._doubtful
        question = f"Remove {name}, with its photos and all that was trained?"
        wait = BUSY_SECONDS if any(each.active for each in self._all) else IDLE_SECONDS
        return [
            self._if_new("list", (choices, name), lambda: gr.Radio(choices=list(choices), value=name)),
            self._if_new("status", status, lambda: status),
            self._if_new("preview", (name, drawn), lambda: _picture(picture)),
            self._if_new("loss", curve, lambda: _curve(progress.steps, "loss", progress.losses)),
            self._if_new("psnr", curve, lambda: _curve(progress.steps, "PSNR (dB)", progress.psnrs)),
            self._if_new("log", said, lambda: said),
            self._button("cancel", job is not None and job.state in ("waiting", "running")),
            self._button("resume", idle),
            self._button("show", job is not None and job.state == "finished"),
            self._button("remove", idle),
            self._if_new("sure", asks, lambda: gr.Column(visible=asks)),
            self._if_new("question", question, lambda: question),
            self._if_new("details", bool(said), lambda: gr.Accordion(visible=bool(said))),
            self._if_new("timer", wait, lambda: gr.Timer(wait)),
            self._now,
        ]

    def _if_new(self, part: str, value: Hashable, make: Callable[[], Any]) -> Any:
        self._now[part] = value
        return gr.skip() if self._already.get(part) == value else make()

    def _button(self, part: str, usable: bool) -> Any:
        return self._if_new(part, usable, lambda: gr.Button(visible=usable))


def _picture(path: Path | None) -> gr.HTML:
    picture = "" if path is None else preview_html(path)
    return gr.HTML(picture, visible=bool(picture))


def _curve(steps: tuple[int, ...], what: str, values: tuple[float, ...]) -> gr.LinePlot:
    stride = max(1, -(-len(steps) // POINTS))
    # From the end on: the newest point is always there.
    points = pd.DataFrame({"step": steps[::-1][::stride][::-1], what: values[::-1][::stride][::-1]})
    return gr.LinePlot(points, visible=len(steps) > 1)


def _endpoints(jobs: TrainingJobs) -> None:
    """What programs may call, besides ``/train`` and ``/make_demo``."""

    def trainings() -> list[dict[str, str]]:
        return [{"name": job.name, "state": job.state} for job in jobs.jobs()]

    def training(name: str) -> dict[str, Any]:
        job, folder = jobs.get(name), jobs.folder(name)
        progress = folder.progress()
        stage = progress.stages[-1] if progress.stages else None
        return {
            "name": job.name,
            "state": job.state,
            "sentence": job.sentence,
            "trainings_before": job.turn,
            "stage": stage and stage.name,
            "done": stage and stage.done,
            "total": stage and stage.total,
            "seconds_left": stage and stage.seconds_left,
            "loss": progress.losses[-1] if progress.losses else None,
            "psnr": progress.psnrs[-1] if progress.psnrs else None,
            "log": folder.said()[-40:],
        }

    def stop_training(name: str) -> str:
        return jobs.cancel(name).state

    def resume_training(name: str) -> str:
        return jobs.resume(name).state

    for function in (trainings, training, stop_training, resume_training):
        api(told(function), api_name=function.__name__)
