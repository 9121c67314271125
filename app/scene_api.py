"""Scenes for programs: named endpoints with strings, numbers and files, which need no open page."""

import secrets
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from app.offered import offered
from app.pictures import heat_map, overlay
from app.scene_events import checked_phrases, checked_threshold, checked_vocabulary, level_number, rivals
from app.scenes import Scenes
from app.scratch import Scratch
from app.told import told
from encoders.base import LEVELS
from encoders.errors import InputError
from splat.evaluate import in_bytes, renderer
from splat.gaussians import save_ply
from splat.query import query_view, select_gaussians
from splat.relevancy import THRESHOLD
from splat.samples import describe, sample


class SceneApi:
    """What programs may ask, by a scene's number and a view's name.

    Args:
        scenes: what can be asked. scratch: where files lie until they are fetched.
    """

    def __init__(self, scenes: Scenes, scratch: Scratch) -> None:
        self._scenes, self._scratch = scenes, scratch

    def scenes(self) -> list[dict[str, Any]]:
        """All scenes: their numbers, names, encoders, sizes and views, held-out views first."""
        outlines = [(name, position, self._scenes.outline(position)) for name, position in self._scenes.names()]
        return [
            {
                "scene": position,
                "name": name,
                "encoder": outline.encoder,
                "gaussians": outline.gaussians,
                "views": list(outline.views),
            }
            for name, position, outline in outlines
        ]

    def render(self, scene: int, view: str) -> str:
        """A view."""
        return offered(self._rendered(scene, view))

    def query(
        self, scene: int, view: str, phrase: str, negatives: str, level: str, threshold: float
    ) -> tuple[str, str, dict[str, Any]]:
        """Where a phrase is: the view with what was found, its relevancy, and the answer as numbers."""
        trained = self._scenes.get(scene).trained
        camera, chosen = trained.camera(view), level_number(level)
        phrase = _phrase(phrase)
        (found,) = query_view(
            trained.gaussians, trained.field, camera, [phrase], self._scenes.encoder(scene), rivals(negatives), chosen,
            checked_threshold(threshold),
        )  # fmt: skip
        numbers = {
            "confidence": round(found.confidence, 3),
            "level": LEVELS[found.level],
            "point": [int(value) for value in found.point],
            "box": None if found.box is None else [int(value) for value in found.box],
            "pixels": int(found.mask.sum()),
            "milliseconds": round(1000 * found.seconds),
        }
        picture = overlay(self._rendered(scene, view), found.mask, found.point)
        return offered(picture), offered(heat_map(found.relevancy)), numbers

    def describe(self, scene: int, view: str, x: float, y: float, vocabulary: str) -> list[dict[str, Any]]:
        """The phrases of a vocabulary that describe a pixel of a view best."""
        shown = self._scenes.get(scene)
        trained = shown.trained
        encoder, words = self._scenes.encoder(scene), checked_vocabulary(vocabulary)
        found = sample(trained.gaussians, trained.field, trained.camera(view), int(x), int(y), "pixel")
        best = describe(found, trained.gaussians, trained.field, encoder, words)
        return [
            {"phrase": one.phrase, "relevancy": round(one.relevancy, 3), "level": LEVELS[one.level]} for one in best
        ]

    def select(
        self, scene: int, phrase: str, rest: bool, negatives: str, level: str, threshold: float
    ) -> tuple[str, dict[str, int]]:
        """Gaussians that answer to a phrase, or all others, as a 3DGS PLY; and how many they are."""
        trained = self._scenes.get(scene).trained
        phrase = _phrase(phrase)
        chosen = select_gaussians(
            trained.gaussians, trained.field, phrase, self._scenes.encoder(scene), rivals(negatives),
            level_number(level), checked_threshold(threshold),
        )  # fmt: skip
        if not bool(chosen.any()):
            raise InputError(f"No Gaussian answers to {phrase!r}; try another phrase or a lower threshold.")
        kept = trained.gaussians.subset(~chosen if rest else chosen)
        # A folder per call: one program may ask for several things at a time.
        with self._scratch.use(f"api-{secrets.token_hex(16)}") as folder:
            path = folder / "selection.ply"
            save_ply(path, kept)
        return str(path), {"selected": int(chosen.sum()), "written": len(kept), "total": len(chosen)}

    def _rendered(self, scene: int, view: str) -> NDArray[np.uint8]:
        trained = self._scenes.get(scene).trained
        return in_bytes(renderer(trained.gaussians)(trained.camera(view)))

    def endpoints(self) -> None:
        """Add `/scenes`, `/render`, `/query`, `/describe` and `/select` to the page that is being built."""
        number, yes = (lambda label: gr.Number(0, label=label, precision=0)), gr.Checkbox(label="All other Gaussians")
        scene, view, phrase = number("Scene"), gr.Textbox(label="View"), gr.Textbox(label="Phrase")
        negatives = gr.Textbox("", label="Likelier than, separated by commas; empty: the usual ones")
        level = gr.Radio(["auto", *LEVELS], value="auto", label="Level")
        threshold = gr.Number(THRESHOLD, label="Threshold, 0 to below 1")
        vocabulary = gr.Textbox("", label="Vocabulary, separated by commas; empty: everyday things")
        picture, heat = gr.Image(label="Picture"), gr.Image(label="Relevancy, blue low, red high")
        file, answer = gr.File(label="3DGS PLY"), gr.JSON(label="Answer")
        rest = [negatives, level, threshold]
        table: list[tuple[str, Any, list[Any], list[Any]]] = [
            ("scenes", self.scenes, [], [answer]),
            ("render", self.render, [scene, view], [picture]),
            ("query", self.query, [scene, view, phrase, *rest], [picture, heat, answer]),
            ("describe", self.describe, [scene, view, number("x"), number("y"), vocabulary], [answer]),
            ("select", self.select, [scene, phrase, yes, *rest], [file, answer]),
        ]
        for name, function, inputs, outputs in table:
            gr.Button(name).click(
                told(function), inputs, outputs, api_name=name, concurrency_id="ask", concurrency_limit=2
            )


def _phrase(text: str) -> str:
    phrases = checked_phrases([text])
    if not phrases:
        raise InputError("The phrase is empty; give some words to look for.")
    return phrases[0]
