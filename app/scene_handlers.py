"""What the Scene tab's events do to its controls: each method takes what controls hold and returns what they get."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from app.frames import LARGEST
from app.scene_controls import ADD_VIEW, UNSELECTED
from app.scene_events import SceneEvents
from app.scene_files import MINE, camera_path, write_file, write_model, write_video
from app.scratch import Scratch
from app.selection import EVERYTHING, RECOLOURED
from app.told import told
from app.viewport import shown
from app.visits import Visit

VIDEO_WIDTH = 640
"""Pixels; wider videos take minutes on a CPU."""
NO_SCENE = "There is no scene yet; make one in the tab New scene."


class SceneHandlers:
    """The handlers; most take the page's token first.

    Args:
        events: what happens. scratch: where files lie until they are fetched.
    """

    def __init__(self, events: SceneEvents, scratch: Scratch) -> None:
        self._events, self._scratch = events, scratch

    def begin(self, request: gr.Request) -> Any:
        """A page was opened."""
        visit = self._events.visits.begin(str(request.session_hash))
        names = self._events.scenes.names()
        return visit.token, drawn(visit), gr.Dropdown(names, value=0 if names else None), cameras(visit)

    def leave(self, request: gr.Request) -> None:
        """It was closed."""
        self._events.visits.end(str(request.session_hash))

    def refresh(self, token: str | None, position: int | None) -> Any:
        """Scenes that came up meanwhile; somebody who had none goes to the first."""
        names = self._events.scenes.names()
        if token is None or position is not None or not names:
            return gr.skip(), gr.Dropdown(names), gr.skip()
        visit = self._events.enter(token, 0)
        return drawn(visit), gr.Dropdown(names, value=0), cameras(visit)

    def enter(self, token: str, position: int | None) -> Any:
        """Go to another scene, if there is one, and forget what belongs to the last one."""
        if position is None or self._events.is_in(token, position):
            return (gr.skip(),) * 10
        visit = self._events.enter(token, position)
        return (
            drawn(visit),
            cameras(visit),
            gr.Dropdown([], value=[], multiselect=True),
            "picture",
            gr.Label(visible=False),
            gr.Button(interactive=False),
            UNSELECTED,
            EVERYTHING,
            gr.File(None, visible=False),
            gr.Button(ADD_VIEW),
        )

    def jump(self, token: str, photo: str | None) -> Any:
        """Go to a photo, unless this is where the visitor went last."""
        if photo is None or self._events.came_from(token, photo):
            return gr.skip()
        return drawn(self._events.jump(token, photo))

    def ask(self, token: str, wanted: Sequence[str], rivals: str) -> Any:
        """Look for other things."""
        if self._events.is_asked(token, wanted, rivals):
            return gr.skip(), gr.skip()
        visit = self._events.ask(token, wanted, rivals)
        return drawn(visit), visit.stand.look.mode

    def pick(self, token: str, words: str, rivals: str, event: gr.EventData) -> Any:
        """Say what is at the place that was clicked."""
        found = self._events.pick(token, float(event.x), float(event.y), words, rivals)
        if not found:
            return (gr.skip(),) * 3
        best = gr.Label({one.phrase: one.relevancy for one in found}, visible=True)
        return gr.Accordion(open=True), best, gr.Button(interactive=True)

    def find_more(self, token: str, wanted: Sequence[str]) -> Any:
        """Look for what was clicked as well."""
        names = self._events.more(token, wanted)
        return gr.Dropdown(names, value=names, multiselect=True)

    def select(self, token: str, rivals: str, way: str, color: str) -> Any:
        """Select in space, and show it."""
        selection = self._events.select(token, rivals)
        if self._events.visit(token).stand.selection is not selection:
            return (gr.skip(),) * 3  # the visitor went on to another scene
        way = RECOLOURED if way == EVERYTHING else way
        text = f"{selection.count:,} Gaussians of {', '.join(selection.names)} are selected."
        return drawn(self._events.show(token, way, color)), text, way

    def save(self, token: str, kind: str) -> Any:
        """Make a file."""
        with self._folder(token) as folder:
            stand = self._events.visit(token).stand
            path = write_file(folder, kind, stand, self._events.painter, LARGEST // 2)
        return gr.File(str(path), visible=True)

    def film(self, token: str, route: str, seconds: float, progress: gr.Progress = gr.Progress()) -> Any:  # noqa: B008
        """Make a video."""
        stand = self._events.visit(token).stand
        steps = camera_path(stand, route, seconds)

        def report(done: int, total: int) -> None:
            self._events.visit(token)  # when the page is closed, nobody waits for the rest
            progress((done, total), desc="Drawing frames", unit="frames")

        with self._folder(token) as folder:
            write_video(folder / "video.mp4", stand, steps, self._events.painter, VIDEO_WIDTH, report)
        return gr.Video(str(folder / "video.mp4"), visible=True)

    def hand(self, token: str) -> Any:
        """Make a model for the visitor's own machine to draw."""
        with self._folder(token) as folder:
            write_model(folder / "scene.splat", self._events.visit(token).stand)
        return str(folder / "scene.splat")

    def remember(self, token: str) -> Any:
        """Add a view to those of a video, which then goes through them."""
        return gr.Button(f"{ADD_VIEW} ({self._events.remember(token)})"), MINE

    def forget(self, token: str) -> Any:
        """Begin with a new list of views."""
        self._events.forget(token)
        return gr.Button(ADD_VIEW)

    def redrawn(self, change: Callable[..., Visit]) -> Callable[..., Any]:
        """An event that changes a visit as a handler that draws it again."""

        @told
        def handler(*values: Any) -> dict[str, Any]:
            return drawn(change(*values))

        return handler

    @contextmanager
    def _folder(self, token: str) -> Iterator[Path]:
        """The visit's folder for files; none is made, and none stays, for a visit that is over.

        Raises:
            InputError: the visit is over, or was when the block ended.
        """
        self._events.visit(token)
        try:
            with self._scratch.use(token) as folder:
                yield folder
            self._events.visit(token)
        finally:
            if self._events.visits.get(token) is None:
                self._scratch.drop(token)


def drawn(visit: Visit) -> dict[str, Any]:
    """The viewport's value after a change."""
    return shown(visit) if visit.begun else shown(None, NO_SCENE)


def cameras(visit: Visit) -> Any:
    """The menu of a scene's cameras."""
    if not visit.begun:
        return gr.Dropdown([], value=None)
    names = sorted(camera.name for camera in visit.stand.scene.trained.cameras)
    return gr.Dropdown(names, value=visit.stand.home.name)


def opacity(mode: str) -> Any:
    """A plain picture has nothing over it that could be let through."""
    return gr.Slider(interactive=mode != "picture")
