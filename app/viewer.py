"""The viewer: asks trained scenes for things in a browser, with Gradio."""

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

import encoders
from app.pictures import heat_map, overlay
from encoders.errors import InputError
from splat.evaluate import renderer
from splat.query import DEFAULT_NEGATIVES, query_view
from splat.train_config import pick_device
from splat.trained import Trained

LEVEL_CHOICES = ["auto", *encoders.LEVELS]
QUEUE = 32
"""People waiting for an answer; one more is told to come back."""


class Scenes:
    """The run folders the viewer was started with: the only files a visitor can reach, by position."""

    def __init__(self, folders: Sequence[Path], device: str = "auto"):
        if not folders:
            raise InputError("There is no scene to show; give a run folder, for example: dictsplat view out/demo")
        self.trained = [Trained.load(folder) for folder in folders]
        self.device = pick_device(device)
        self.encoder = cache(lambda name: encoders.create(name, device=self.device))

    def names(self) -> list[tuple[str, int]]:
        """(label, position) of every scene."""
        return [(scene.folder.resolve().name, index) for index, scene in enumerate(self.trained)]

    def views(self, scene: int) -> list[str]:
        """Names of the views of a scene, held-out ones first."""
        trained = self.trained[scene]
        return sorted((c.name for c in trained.cameras), key=lambda name: (name not in trained.test_names, name))

    def render(self, scene: int, view: str) -> np.ndarray:
        """A view as uint8 [H, W, 3]."""
        trained = self.trained[scene]
        return (renderer(trained.gaussians)(trained.camera(view)) * 255 + 0.5).astype(np.uint8)

    def ask(
        self, scene: int, view: str, phrase: str, negatives: str, level: str, threshold: float
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """Where ``phrase`` is: the view with what was found, its relevancy, and the answer as numbers."""
        trained = self.trained[scene]
        rivals = tuple(part.strip() for part in negatives.split(",") if part.strip()) or DEFAULT_NEGATIVES
        chosen = None if level == "auto" else LEVEL_CHOICES.index(level) - 1
        encoder = self.encoder(trained.field.encoder)
        camera = trained.camera(view)
        (found,) = query_view(trained.gaussians, trained.field, camera, [phrase], encoder, rivals, chosen, threshold)
        numbers = {
            "confidence": round(found.confidence, 3),
            "level": encoders.LEVELS[found.level],
            "point": [int(value) for value in found.point],
            "box": None if found.box is None else [int(value) for value in found.box],
            "pixels": int(found.mask.sum()),
            "milliseconds": round(1000 * found.seconds),
        }
        picture = overlay(self.render(scene, view), found.mask, found.point)
        return picture, heat_map(found.relevancy), numbers


def build(scenes: Scenes) -> gr.Blocks:
    """The page. Mistakes of a visitor become a message on it, never a dead page."""

    def said(error: InputError) -> gr.Error:
        return gr.Error(str(error), title="That does not work", print_exception=False)

    def show(scene: int, view: str) -> np.ndarray:
        try:
            return scenes.render(scene, view)
        except InputError as error:
            raise said(error) from None

    def ask(
        scene: int, view: str, phrase: str, negatives: str, level: str, threshold: float
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        try:
            return scenes.ask(scene, view, phrase, negatives, level, threshold)
        except InputError as error:
            raise said(error) from None

    def other_scene(scene: int) -> Any:
        views = scenes.views(scene)
        return gr.Dropdown(choices=views, value=views[0])

    with gr.Blocks(title="dictsplat") as page:
        gr.Markdown("# dictsplat\nType what you are looking for.")
        with gr.Row():
            with gr.Column(scale=1):
                scene = gr.Dropdown(scenes.names(), value=0, label="Scene")
                view = gr.Dropdown(scenes.views(0), value=scenes.views(0)[0], label="View")
                phrase = gr.Textbox(label="Look for", placeholder="coffee cup", autofocus=True)
                button = gr.Button("Find", variant="primary")
                with gr.Accordion("Advanced", open=False):
                    level = gr.Radio(LEVEL_CHOICES, value="auto", label="Level")
                    threshold = gr.Slider(0.0, 0.95, value=0.4, step=0.05, label="Threshold")
                    negatives = gr.Textbox(", ".join(DEFAULT_NEGATIVES), label="Likelier than (comma separated)")
                answer = gr.JSON(label="Answer")
            with gr.Column(scale=2):
                picture = gr.Image(scenes.render(0, scenes.views(0)[0]), label="Found", interactive=False)
                relevancy = gr.Image(label="Relevancy, blue low, red high", interactive=False)
        scene.change(other_scene, scene, view, api_visibility="private")
        view.change(show, [scene, view], picture, api_name="render")
        inputs = [scene, view, phrase, negatives, level, threshold]
        gr.on([button.click, phrase.submit], ask, inputs, [picture, relevancy, answer], api_name="query")
    return page


def serve(folders: Sequence[Path], port: int | None, device: str = "auto") -> None:
    """Open the viewer on this machine only and serve until interrupted.

    Args:
        folders: run folders to show.
        port: TCP port; None takes ``GRADIO_SERVER_PORT`` or the first free one from 7860.

    Raises:
        InputError: a run cannot be used, or the port is taken.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    page = build(Scenes(folders, device)).queue(max_size=QUEUE, default_concurrency_limit=2)
    try:
        page.launch(server_name="127.0.0.1", server_port=port, share=False, show_error=True)
    except OSError as error:
        raise InputError(f"The viewer cannot listen there ({error}); choose another --port.") from error
