"""The Scene tab: a scene to turn in the hand, to ask for things, to cut things out of."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
from gradio.context import Context

from app.frames import LARGEST
from app.scene_events import MOST, SceneEvents
from app.scene_files import KINDS, PATHS, SECONDS, camera_path, write_file, write_model, write_video
from app.scenes import Scenes
from app.scratch import Scratch
from app.selection import EVERYTHING, RECOLOURED, WAYS
from app.told import told
from app.viewport import shown, viewport
from app.visits import Look, Visit
from encoders.base import LEVELS
from splat.phrases import DEFAULT_NEGATIVES
from splat.vocabulary import VOCABULARY

MODE_CHOICES = [
    ("Picture", "picture"), ("Relevancy", "relevancy"), ("Mask", "mask"), ("Depth", "depth"), ("Features", "features"),
    ("Levels", "levels"),
]  # fmt: skip
LEVEL_CHOICES = [("auto", "auto"), *((f"{number} {name}", name) for number, name in enumerate(LEVELS, 1))]
VIDEO_WIDTH = 640
"""Pixels; wider videos take minutes on a CPU."""
NO_SCENE = "There is no scene yet; make one in the tab New scene."


def scene_tab(scenes: Scenes, events: SceneEvents, scratch: Scratch, tab: gr.Tab | None = None) -> None:
    """Build the tab inside of a `gr.Tab`.

    Args:
        scenes: what can be looked at; may grow while the page is open.
        events: what happens on it. scratch: where files lie until they are fetched.
        tab: the tab itself, so that new scenes appear when it is opened.
    """
    token = gr.State(None)
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            view = viewport()
        with gr.Column(scale=3, min_width=300):
            with gr.Row():
                scene = gr.Dropdown(scenes.names(), value=0 if len(scenes) else None, label="Scene", min_width=130)
                camera = gr.Dropdown([], label="Go to photo", min_width=130)
            phrases = gr.Dropdown(
                [], value=[], multiselect=True, allow_custom_value=True, max_choices=MOST, label="Look for",
                info="Type and press Enter, for example: coffee cup", elem_id="phrases",
            )  # fmt: skip
            mode = gr.Radio(MODE_CHOICES, value="picture", label="Show")
            opacity = gr.Slider(0, 1, value=Look.opacity, step=0.05, label="Opacity")
            with gr.Accordion("Advanced", open=False):
                level = gr.Radio(LEVEL_CHOICES, value="auto", label="Level")
                threshold = gr.Slider(0, 0.95, value=Look.threshold, step=0.05, label="Threshold")
                marks = gr.Checkbox(True, label="Points and boxes")
                negatives = gr.Textbox(", ".join(DEFAULT_NEGATIVES), label="Likelier than (comma separated)")
                vocabulary = gr.Textbox(
                    ", ".join(VOCABULARY), label="Vocabulary of What is there (comma separated)", lines=2, max_lines=4
                )
            with gr.Accordion("What is there", open=False) as here:
                gr.Markdown("Click into the picture, or press Enter while it has the keyboard.")
                best = gr.Label(label="Likeliest phrases", num_top_classes=5, show_heading=False, visible=False)
                more = gr.Button("Find more like this")
            with gr.Accordion("3D selection", open=False):
                select = gr.Button("Select in 3D", variant="primary")
                told_selection = gr.Markdown("Selects the Gaussians of everything that is looked for.")
                way = gr.Radio(list(WAYS), value=EVERYTHING, label="Show in the picture")
                color = gr.ColorPicker("#ff4033", label="Colour of a recoloured selection")
            with gr.Accordion("Save a file", open=False):
                kind = gr.Dropdown(list(KINDS), value=KINDS[0], label="What to save")
                save = gr.Button("Make the file")
                file = gr.File(label="File", interactive=False, visible=False)
            with gr.Accordion("Make a video", open=False):
                route = gr.Radio(list(PATHS), value=PATHS[0], label="How the camera moves")
                seconds = gr.Slider(*SECONDS, value=4, step=1, label="Seconds")
                with gr.Row():
                    add = gr.Button("Add this view", min_width=110)
                    clear = gr.Button("Forget my views", min_width=110)
                film = gr.Button("Make the video", variant="primary")
                video = gr.Video(label="The video", interactive=False, visible=False)
            with gr.Accordion("On your own graphics card", open=False):
                hand = gr.Button("Show as a 3D model")
                model = gr.Model3D(label="The scene as it is shown, drawn by your browser", height=380, visible=False)

    look = [token, mode, opacity, level, threshold, marks]
    quick: dict[str, Any] = {
        "api_visibility": "private", "show_progress": "hidden", "concurrency_id": "look", "concurrency_limit": 8,
    }  # fmt: skip
    work: dict[str, Any] = quick | {"concurrency_id": "ask", "concurrency_limit": 2}
    slow: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "files", "concurrency_limit": 1}

    def begin(request: gr.Request) -> Any:
        visit = events.visits.begin(str(request.session_hash))
        names = scenes.names()
        at = 0 if names else None
        return visit.token, drawn(visit), gr.Dropdown(names, value=at), cameras(visit)

    def refresh(name: str | None, position: int | None) -> Any:
        """Scenes that came up meanwhile; somebody who had none goes to the first."""
        names = scenes.names()
        if name is None or position is not None or not names:
            return gr.skip(), gr.Dropdown(names), gr.skip()
        visit = events.enter(name, 0)
        return drawn(visit), gr.Dropdown(names, value=0), cameras(visit)

    def enter(name: str, position: int) -> Any:
        if events.is_in(name, position):
            return (gr.skip(),) * 6
        visit = events.enter(name, position)
        return (
            drawn(visit),
            cameras(visit),
            gr.Dropdown([], value=[]),
            "picture",
            EVERYTHING,
            gr.File(None, visible=False),
        )

    def jump(name: str, photo: str | None) -> Any:
        if photo is None or events.came_from(name, photo):
            return gr.skip()
        return drawn(events.jump(name, photo))

    def ask(name: str, wanted: Sequence[str], rival: str) -> Any:
        if events.is_asked(name, wanted, rival):
            return gr.skip(), gr.skip()
        visit = events.ask(name, wanted, rival)
        return drawn(visit), visit.stand.look.mode

    def pick(name: str, words: str, rival: str, event: gr.EventData) -> Any:
        found = events.pick(name, float(event.x), float(event.y), words, rival)
        return gr.Label({one.phrase: one.relevancy for one in found}, visible=True), gr.Accordion(open=True)

    def find_more(name: str, wanted: Sequence[str]) -> Any:
        names = events.more(name, wanted)
        return gr.Dropdown(names, value=names)

    def cut(name: str, rival: str, how: str, shade: str) -> Any:
        selection = events.select(name, rival)
        how = RECOLOURED if how == EVERYTHING else how
        visit = events.show(name, how, shade)
        text = f"{selection.count:,} Gaussians of {', '.join(selection.names)} are selected."
        return drawn(visit), how, text

    def written(name: str, wanted: str) -> Any:
        with scratch.use(name) as folder:
            path = write_file(folder, wanted, events.visit(name).stand, events.painter, LARGEST // 2)
        return gr.File(str(path), visible=True)

    def filmed(name: str, how: str, length: float, progress: gr.Progress = gr.Progress()) -> Any:  # noqa: B008
        stand = events.visit(name).stand
        steps = camera_path(stand, how, length)

        def report(done: int, total: int) -> None:
            progress((done, total), desc="Drawing frames", unit="frames")

        with scratch.use(name) as folder:
            write_video(folder / "video.mp4", stand, steps, events.painter, VIDEO_WIDTH, report)
        return gr.Video(str(folder / "video.mp4"), visible=True)

    def handed(name: str) -> Any:
        with scratch.use(name) as folder:
            write_model(folder / "scene.splat", events.visit(name).stand)
        return str(folder / "scene.splat")

    def remember(name: str) -> Any:
        count = events.remember(name)
        return gr.Button(f"Add this view ({count})"), PATHS[2]

    def forget(name: str) -> Any:
        events.forget(name)
        return gr.Button("Add this view")

    def leave(request: gr.Request) -> None:
        for gone in events.visits.end(str(request.session_hash)):
            scratch.drop(gone)

    redrawn = _redrawn(events)
    assert Context.root_block is not None
    Context.root_block.load(told(begin), None, [token, view, scene, camera], **quick)
    Context.root_block.unload(leave)
    if tab is not None:
        tab.select(told(refresh), [token, scene], [view, scene, camera], **quick)
    # A menu has an "input" whenever the keyboard leaves it, even if nothing was chosen. It has a "change" also when the
    # page sets it to where the visitor already is. A click is a "select" too, even on what is chosen already.
    entering = quick | {"trigger_mode": "always_last"}
    gr.on(
        [scene.change, scene.select], told(enter), [token, scene], [view, camera, phrases, mode, way, file], **entering
    )
    camera.change(told(jump), [token, camera], view, **quick)
    camera.select(redrawn(events.jump), [token, camera], view, **quick)
    # Of what is chosen while the last choice is still drawn, the newest counts.
    looks = [mode.input, level.input, marks.input, opacity.input, threshold.input]
    gr.on(looks, redrawn(events.look), look, view, trigger_mode="always_last", **quick)
    # A phrase that was typed is a "change" of the menu, not an "input".
    asks = [phrases.change, negatives.submit, negatives.blur]
    asking = work | {"show_progress": "minimal", "show_progress_on": phrases}
    gr.on(asks, told(ask), [token, phrases, negatives], [view, mode], trigger_mode="always_last", **asking)
    view.pick(told(pick), [token, vocabulary, negatives], [best, here], **work)
    more.click(told(find_more), [token, phrases], phrases, **work)
    cutting = work | {"show_progress": "minimal", "show_progress_on": told_selection}
    select.click(told(cut), [token, negatives, way, color], [view, way, told_selection], **cutting)
    ways = [way.input, color.input]
    gr.on(ways, redrawn(events.show), [token, way, color], view, trigger_mode="always_last", **quick)
    save.click(told(written), [token, kind], file, **slow)
    film.click(told(filmed), [token, route, seconds], video, **slow)
    add.click(told(remember), token, [add, route], **quick)
    clear.click(told(forget), token, add, **quick)
    # It loads nothing that it is given while it is hidden.
    shows = hand.click(lambda: gr.Model3D(visible=True), None, model, **quick)
    shows.then(told(handed), token, model, **slow)


def drawn(visit: Visit) -> dict[str, Any]:
    """The viewport's value after a change."""
    return shown(visit) if visit.begun else shown(None, NO_SCENE)


def cameras(visit: Visit) -> Any:
    """The menu of a scene's cameras."""
    if not visit.begun:
        return gr.Dropdown([], value=None)
    names = sorted(camera.name for camera in visit.stand.scene.trained.cameras)
    return gr.Dropdown(names, value=visit.stand.home.name)


def _redrawn(events: SceneEvents) -> Callable[[Callable[..., Visit]], Callable[..., Any]]:
    """Turns an event that changes a visit into a handler that draws it again."""

    def redrawn(change: Callable[..., Visit]) -> Callable[..., Any]:
        @told
        def handler(*values: Any) -> dict[str, Any]:
            return drawn(change(*values))

        return handler

    return redrawn
