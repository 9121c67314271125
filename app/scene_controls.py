"""The Scene tab's layout: the viewport and, beside it, what is operated. Nothing happens here (`app.scene_tab`)."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.scene_events import MOST
from app.scene_files import KINDS, PATHS, SECONDS
from app.scenes import Scenes
from app.selection import EVERYTHING, WAYS
from app.viewport import viewport
from app.visits import Look
from encoders.base import LEVELS
from splat.phrases import DEFAULT_NEGATIVES
from splat.vocabulary import VOCABULARY

MODE_CHOICES = [
    ("Picture", "picture"), ("Relevancy", "relevancy"), ("Mask", "mask"), ("Depth", "depth"), ("Features", "features"),
    ("Levels", "levels"),
]  # fmt: skip
LEVEL_CHOICES = [("auto", "auto"), *((f"{number} {name}", name) for number, name in enumerate(LEVELS, 1))]
UNSELECTED = "Selects the Gaussians of everything that is looked for."
ADD_VIEW = "Add this view"


@dataclass(frozen=True)
class Looking:
    """What is looked for, and how it is drawn."""

    phrases: gr.Dropdown
    mode: gr.Radio
    opacity: gr.Slider
    level: gr.Radio
    threshold: gr.Slider
    marks: gr.Checkbox
    negatives: gr.Textbox
    vocabulary: gr.Textbox


@dataclass(frozen=True)
class Picking:
    """What was clicked."""

    section: gr.Accordion
    best: gr.Label
    more: gr.Button


@dataclass(frozen=True)
class Selecting:
    """Gaussians selected in space."""

    select: gr.Button
    told: gr.Markdown
    way: gr.Radio
    color: gr.ColorPicker


@dataclass(frozen=True)
class Saving:
    """A file to take home."""

    kind: gr.Dropdown
    save: gr.Button
    file: gr.File


@dataclass(frozen=True)
class Filming:
    """A video to take home."""

    route: gr.Radio
    seconds: gr.Slider
    add: gr.Button
    clear: gr.Button
    film: gr.Button
    video: gr.Video


@dataclass(frozen=True)
class Handing:
    """The scene, to be drawn by the visitor's own machine."""

    hand: gr.Button
    model: gr.Model3D


@dataclass(frozen=True)
class Controls:
    """All of the tab."""

    token: gr.State
    view: Any  # gr.HTML makes its events, "pick", when it is built
    scene: gr.Dropdown
    camera: gr.Dropdown
    looking: Looking
    picking: Picking
    selecting: Selecting
    saving: Saving
    filming: Filming
    handing: Handing


def controls(scenes: Scenes) -> Controls:
    """Lay out the tab, inside of whatever is being built."""
    token = gr.State(None)
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            view = viewport()
        with gr.Column(scale=3, min_width=300):
            with gr.Row():
                scene = gr.Dropdown(scenes.names(), value=0 if len(scenes) else None, label="Scene", min_width=130)
                camera = gr.Dropdown([], label="Go to photo", min_width=130)
            return Controls(
                token, view, scene, camera, _looking(), _picking(), _selecting(), _saving(), _filming(), _handing()
            )


def _looking() -> Looking:
    phrases = gr.Dropdown(
        [], value=[], multiselect=True, allow_custom_value=True, max_choices=MOST, label="Look for",
        info="Type and press Enter, for example: coffee cup", elem_id="phrases",
    )  # fmt: skip
    mode = gr.Radio(MODE_CHOICES, value="picture", label="Show")
    opacity = gr.Slider(0, 1, value=Look.opacity, step=0.05, label="Opacity", interactive=False)
    with gr.Accordion("Advanced", open=False):
        level = gr.Radio(LEVEL_CHOICES, value="auto", label="Level")
        threshold = gr.Slider(0, 0.95, value=Look.threshold, step=0.05, label="Threshold")
        marks = gr.Checkbox(True, label="Points and boxes")
        negatives = gr.Textbox(", ".join(DEFAULT_NEGATIVES), label="Likelier than (comma separated)")
        vocabulary = gr.Textbox(
            ", ".join(VOCABULARY), label="Vocabulary of What is there (comma separated)", lines=2, max_lines=4
        )
    return Looking(phrases, mode, opacity, level, threshold, marks, negatives, vocabulary)


def _picking() -> Picking:
    with gr.Accordion("What is there", open=False) as section:
        gr.Markdown("Click into the picture, or press Enter while it has the keyboard.")
        best = gr.Label(label="Likeliest phrases", num_top_classes=5, show_heading=False, visible=False)
        more = gr.Button("Find more like this", interactive=False)
    return Picking(section, best, more)


def _selecting() -> Selecting:
    with gr.Accordion("3D selection", open=False):
        select = gr.Button("Select in 3D", variant="primary")
        told = gr.Markdown(UNSELECTED)
        way = gr.Radio(list(WAYS), value=EVERYTHING, label="Show in the picture")
        color = gr.ColorPicker("#ff4033", label="Colour of a recoloured selection")
    return Selecting(select, told, way, color)


def _saving() -> Saving:
    with gr.Accordion("Save a file", open=False):
        kind = gr.Dropdown(list(KINDS), value=KINDS[0], label="What to save")
        save = gr.Button("Make the file")
        file = gr.File(label="File", interactive=False, visible=False)
    return Saving(kind, save, file)


def _filming() -> Filming:
    with gr.Accordion("Make a video", open=False):
        route = gr.Radio(list(PATHS), value=PATHS[0], label="How the camera moves")
        seconds = gr.Slider(*SECONDS, value=4, step=1, label="Seconds")
        with gr.Row():
            add = gr.Button(ADD_VIEW, min_width=110)
            clear = gr.Button("Forget my views", min_width=110)
        film = gr.Button("Make the video", variant="primary")
        video = gr.Video(label="The video", interactive=False, visible=False)
    return Filming(route, seconds, add, clear, film, video)


def _handing() -> Handing:
    with gr.Accordion("On your own graphics card", open=False):
        hand = gr.Button("Show as a 3D model")
        model = gr.Model3D(label="The scene as it is shown, drawn by your browser", height=380, visible=False)
    return Handing(hand, model)
