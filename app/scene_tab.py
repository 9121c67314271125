"""The Scene tab: a scene to turn in the hand, to ask for things, to cut things out of.

`app.scene_controls` lays it out, `app.scene_handlers` says what happens; here is what makes it happen.
"""

from typing import Any

import gradio as gr
from gradio.context import Context

from app.scene_controls import Controls, controls
from app.scene_events import SceneEvents
from app.scene_handlers import SceneHandlers, opacity
from app.scenes import Scenes
from app.scratch import Scratch
from app.told import told

QUICK: dict[str, Any] = {
    "api_visibility": "private", "show_progress": "hidden", "concurrency_id": "look", "concurrency_limit": 8,
}  # fmt: skip
WORK: dict[str, Any] = QUICK | {"concurrency_id": "ask", "concurrency_limit": 2}
FILES: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "files", "concurrency_limit": 1}
# A video takes up to minutes; nobody's file waits for it.
VIDEO: dict[str, Any] = FILES | {"concurrency_id": "video"}
# Of what is chosen while the last choice is still drawn, the newest counts.
NEWEST: dict[str, Any] = {"trigger_mode": "always_last"}
WITHOUT_EMPTY = "names => [names.every(name => name.trim()) ? {__type__: 'update'} : names.filter(name => name.trim())]"


def scene_tab(scenes: Scenes, events: SceneEvents, scratch: Scratch, tab: gr.Tab | None = None) -> None:
    """Build the tab inside of a `gr.Tab`.

    Args:
        scenes: what can be looked at; may grow while the page is open.
        events: what happens on it. scratch: where files lie until they are fetched.
        tab: the tab itself, so that new scenes appear when it is opened.
    """
    parts, handlers = controls(scenes), SceneHandlers(events, scratch)
    _come_and_go(parts, handlers, tab)
    _move(parts, handlers, events)
    _look(parts, handlers, events)
    _select(parts, handlers, events)
    _take_home(parts, handlers)


def _come_and_go(parts: Controls, handlers: SceneHandlers, tab: gr.Tab | None) -> None:
    places = [parts.view, parts.scene, parts.camera]
    assert Context.root_block is not None
    Context.root_block.load(told(handlers.begin), None, [parts.token, *places], **QUICK)
    Context.root_block.unload(handlers.leave)
    if tab is not None:
        tab.select(told(handlers.refresh), [parts.token, parts.scene], places, **QUICK)


def _move(parts: Controls, handlers: SceneHandlers, events: SceneEvents) -> None:
    scene, camera, token = parts.scene, parts.camera, parts.token
    picking, selecting = parts.picking, parts.selecting
    # A menu has an "input" whenever the keyboard leaves it, even if nothing was chosen. It has a "change" also when the
    # page sets it to where the visitor already is. A click is a "select" too, even on what is chosen already.
    another = [
        parts.view, camera, parts.looking.phrases, parts.looking.mode, picking.best, picking.more, selecting.told,
        selecting.way, parts.saving.file, parts.filming.add,
    ]  # fmt: skip
    entering = QUICK | NEWEST | {"show_progress": "minimal", "show_progress_on": scene}
    gr.on([scene.change, scene.select], told(handlers.enter), [token, scene], another, **entering)
    camera.change(told(handlers.jump), [token, camera], parts.view, **QUICK)
    camera.select(handlers.redrawn(events.jump), [token, camera], parts.view, **QUICK)


def _look(parts: Controls, handlers: SceneHandlers, events: SceneEvents) -> None:
    looking, picking, token, view = parts.looking, parts.picking, parts.token, parts.view
    phrases, mode, negatives = looking.phrases, looking.mode, looking.negatives
    look = [token, mode, looking.opacity, looking.level, looking.threshold, looking.marks]
    looks = [mode.input, looking.level.input, looking.marks.input, looking.opacity.input, looking.threshold.input]
    gr.on(looks, handlers.redrawn(events.look), look, view, **QUICK, **NEWEST)
    mode.change(opacity, mode, looking.opacity, **QUICK, **NEWEST)
    # The menu takes Enter on nothing for a phrase. The browser itself puts that right, before more is typed.
    phrases.change(None, phrases, phrases, js=WITHOUT_EMPTY)
    # A phrase that was typed is a "change" of the menu, not an "input".
    asks = [phrases.change, negatives.submit, negatives.blur]
    asking = WORK | NEWEST | {"show_progress": "minimal", "show_progress_on": phrases}
    gr.on(asks, told(handlers.ask), [token, phrases, negatives], [view, mode], **asking)
    picked = [picking.section, picking.best, picking.more]
    view.pick(told(handlers.pick), [token, looking.vocabulary, negatives], picked, **WORK)
    picking.more.click(told(handlers.find_more), [token, phrases], phrases, **WORK)


def _select(parts: Controls, handlers: SceneHandlers, events: SceneEvents) -> None:
    selecting, view = parts.selecting, parts.view
    way, color = selecting.way, selecting.color
    selection = WORK | {"show_progress": "minimal", "show_progress_on": selecting.told}
    wanted = [parts.token, parts.looking.negatives, way, color]
    selecting.select.click(told(handlers.select), wanted, [view, selecting.told, way], **selection)
    # A colour that is typed is no "input".
    shows = [way.input, color.input, color.submit]
    gr.on(shows, handlers.redrawn(events.show), [parts.token, way, color], view, **QUICK, **NEWEST)


def _take_home(parts: Controls, handlers: SceneHandlers) -> None:
    token, saving, filming, handing = parts.token, parts.saving, parts.filming, parts.handing
    saving.save.click(told(handlers.save), [token, saving.kind], saving.file, **FILES)
    filming.film.click(told(handlers.film), [token, filming.route, filming.seconds], filming.video, **VIDEO)
    filming.add.click(told(handlers.remember), token, [filming.add, filming.route], **QUICK)
    filming.clear.click(told(handlers.forget), token, filming.add, **QUICK)
    # It loads nothing that it is given while it is hidden.
    shows = handing.hand.click(lambda: gr.Model3D(visible=True), None, handing.model, **QUICK)
    shows.then(told(handlers.hand), token, handing.model, **FILES)
