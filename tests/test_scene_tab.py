"""The Scene tab: asking, picking and selecting, visitor by visitor."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch

from app.frames import Painter
from app.scene_events import LONGEST, MOST, SceneEvents, checked_vocabulary, rgb, rivals
from app.scene_handlers import SceneHandlers
from app.scenes import Scenes
from app.scratch import Scratch
from app.selection import EVERYTHING, KEPT, ONLY, RECOLOURED, WITHOUT, Changed, Selection, apply
from app.told import told
from app.visits import Visits
from encoders.errors import InputError
from splat.evaluate import renderer
from splat.phrases import DEFAULT_NEGATIVES
from splat.pivot import looked_at
from splat.query import query_view, select_gaussians
from splat.vocabulary import VOCABULARY


def test_scenes_are_reached_by_position_only(scenes: Scenes, tiny_run: Path, tmp_path: Path) -> None:
    assert scenes.names() == [("tiny", 0)]
    assert scenes.add(tiny_run) == 0
    assert len(scenes) == 1
    for wrong in (1, -1, "0", None, 0.5, "../../etc"):
        with pytest.raises(InputError, match="no scene"):
            scenes.get(wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not a run folder"):
        scenes.add(tmp_path)
    assert len(scenes) == 1
    assert scenes.outline(0).views[0] == "test_000"
    assert scenes.encoder(0) is scenes.encoder(0)
    np.testing.assert_allclose(scenes.get(0).up, [0, 0, 1], atol=1e-6)


def test_scenes_of_one_name_are_told_apart(tiny_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "tiny"
    shutil.copytree(tiny_run, other)
    scenes = Scenes([tiny_run, other], "cpu")
    assert scenes.names() == [("tiny", 0), ("tiny (2)", 1)]
    assert scenes.add(other) == 1


def test_asking_prepares_what_frames_then_answer(events: SceneEvents, token: str) -> None:
    stand = events.ask(token, [" red ", "green", "red", ""], "object, blue").stand
    assert stand.prepared is not None
    assert stand.prepared.names == ("red", "green")
    assert stand.look.mode == "mask"
    frame = events.painter.draw(stand, 96)
    trained, encoder = stand.scene.trained, events.scenes.encoder(0)
    direct = query_view(trained.gaussians, trained.field, stand.camera, ["red", "green"], encoder, ("object", "blue"))
    for one, other in zip(frame.results, direct, strict=True):
        np.testing.assert_array_equal(one.mask, other.mask)
    assert events.ask(token, [], "").stand.prepared is None


def test_the_way_of_looking_is_kept_while_asking(events: SceneEvents, token: str) -> None:
    events.look(token, "relevancy", 0.3, "part", 0.5, False)
    look = events.ask(token, ["red"], "").stand.look
    assert (look.mode, look.opacity, look.level, look.threshold, look.marks) == ("relevancy", 0.3, 1, 0.5, False)


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda events, token: events.ask("other", ["red"], ""), "reload"),
        (lambda events, token: events.ask(None, ["red"], ""), "reload"),
        (lambda events, token: events.ask(token, [f"word {n}" for n in range(MOST + 1)], ""), "at a time"),
        (lambda events, token: events.ask(token, ["x" * (LONGEST + 1)], ""), "shorten"),
        (lambda events, token: events.ask(token, ["one two three four five six"], ""), "more than 5 words"),
        (lambda events, token: events.ask(token, ["red"], "a," * 40 + "b" * 300), "negatives"),
        (lambda events, token: events.look(token, "x-ray", 0.5, "auto", 0.4, True), "no mode"),
        (lambda events, token: events.look(token, "mask", 2.0, "auto", 0.4, True), "opacity"),
        (lambda events, token: events.look(token, "mask", 0.5, "giant", 0.4, True), "no level"),
        (lambda events, token: events.look(token, "mask", 0.5, "auto", 1.0, True), "threshold"),
        (lambda events, token: events.look(token, "mask", 0.5, "auto", float("nan"), True), "threshold"),
        (lambda events, token: events.jump(token, "../../etc/passwd"), "no view"),
        (lambda events, token: events.enter(token, 3), "no scene"),
        (lambda events, token: events.pick(token, 1.0, 0.5, "", ""), "outside"),
        (lambda events, token: events.pick(token, float("nan"), 0.5, "", ""), "outside"),
        (lambda events, token: events.more(token, []), "Click into the picture"),
        (lambda events, token: events.select(token, ""), "Look for something"),
        (lambda events, token: events.show(token, ONLY, "#ff0000"), "Nothing is selected"),
        (lambda events, token: events.show(token, "upside down", "#ff0000"), "can be shown"),
    ],
)  # fmt: skip
def test_mistakes_are_sentences(
    events: SceneEvents, token: str, act: Callable[[SceneEvents, str], Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        act(events, token)


def test_errors_become_messages_and_faults_tell_nothing_about_the_server() -> None:
    def fail(error: Exception) -> None:
        raise error

    with pytest.raises(gr.Error, match="give some words") as caught:
        told(fail)(InputError("The phrase is empty; give some words."))
    assert not caught.value.print_exception
    with pytest.raises(gr.Error, match="not enough memory"):
        told(fail)(MemoryError())
    with pytest.raises(gr.Error, match="the server's log says"):
        told(fail)(ZeroDivisionError())
    assert told(test_errors_become_messages_and_faults_tell_nothing_about_the_server).__name__.startswith("test_")


def test_what_is_at_a_pixel_can_be_looked_for(events: SceneEvents, token: str) -> None:
    events.ask(token, ["red"], "")
    frame = events.painter.draw(events.visit(token).stand, 96)
    x, y = frame.results[0].point
    best = events.pick(token, (x + 0.5) / 96, (y + 0.5) / 72, "red, green\nblue", "")
    assert {one.phrase for one in best} == {"red", "green", "blue"}
    assert best[0].relevancy >= best[1].relevancy >= best[2].relevancy
    names = events.more(token, ["red"])
    assert names == ["red", f"like this {best[0].phrase} 1"]
    stand = events.ask(token, names, "").stand
    assert stand.prepared is not None
    assert stand.prepared.names == tuple(names)
    like = events.painter.draw(stand, 96).results[1]
    assert like.mask[y, x]
    events.pick(token, 0.5, 0.5, "", "")
    assert len(set(events.more(token, names))) == 3
    # A name that only looks like a sample's is a phrase.
    assert events.ask(token, ["like this cat 7"], "").stand.samples == ()


def test_selecting_is_what_the_library_selects(events: SceneEvents, token: str, tmp_path: Path) -> None:
    stand = events.ask(token, ["red", "green"], "").stand
    selection = events.select(token, "")
    trained, encoder = stand.scene.trained, events.scenes.encoder(0)
    each = [select_gaussians(trained.gaussians, trained.field, word, encoder) for word in ("red", "green")]
    torch.testing.assert_close(selection.chosen, each[0] | each[1])
    assert 0 < selection.count < len(trained.gaussians)
    events.look(token, "mask", 0.5, "whole", 0.4, True)
    at_whole = events.select(token, "")
    one = select_gaussians(trained.gaussians, trained.field, "red", encoder, level=2)
    other = select_gaussians(trained.gaussians, trained.field, "green", encoder, level=2)
    torch.testing.assert_close(at_whole.chosen, one | other)


def test_a_sample_selects_the_gaussians_around_it(events: SceneEvents, token: str) -> None:
    events.pick(token, 0.5, 0.8, "", "")
    names = events.more(token, [])
    stand = events.ask(token, names, "").stand
    events.visit(token).change(lambda now: replace(now, levels=(2,)))
    selection = events.select(token, "")
    camera = stand.camera
    events.show(token, ONLY, "#ff0000")
    alone = events.painter.draw(replace(events.visit(token).stand, look=replace(stand.look, mode="picture")), 96)
    assert 0 < selection.count < len(stand.scene.trained.gaussians)
    assert alone.picture[int(0.8 * camera.height), camera.width // 2].max() > 20


def test_the_ways_a_selection_is_shown(events: SceneEvents, token: str) -> None:
    stand = events.ask(token, ["red"], "").stand
    selection = events.select(token, "")
    trained = stand.scene.trained
    camera = trained.camera("test_000")
    render = {way: renderer(apply(stand.scene, replace(selection, way=way)))(camera) for way in (ONLY, WITHOUT)}
    np.testing.assert_allclose(render[ONLY], renderer(trained.gaussians.subset(selection.chosen))(camera), atol=1e-6)
    np.testing.assert_allclose(
        render[WITHOUT], renderer(trained.gaussians.subset(~selection.chosen))(camera), atol=1e-6
    )
    painted = apply(stand.scene, replace(selection, way=RECOLOURED, color=(0.0, 0.0, 1.0)))
    assert not torch.equal(painted.sh[selection.chosen], trained.gaussians.sh[selection.chosen])
    torch.testing.assert_close(painted.sh[~selection.chosen], trained.gaussians.sh[~selection.chosen])
    assert apply(stand.scene, replace(selection, way=EVERYTHING)) is trained.gaussians
    shown = events.show(token, WITHOUT, "rgba(0, 128, 255, 1)").stand.selection
    assert shown is not None
    assert shown.way == WITHOUT
    assert shown.color == pytest.approx((0, 128 / 255, 1))


def test_changed_scenes_are_remembered_but_few(events: SceneEvents, token: str) -> None:
    scene = events.visit(token).stand.scene
    chosen = torch.zeros(len(scene.trained.gaussians), dtype=torch.bool)
    chosen[:10] = True
    changed = Changed()
    selections = [Selection((str(n),), chosen) for n in range(KEPT + 1)]
    first = changed(scene, selections[0])
    assert changed(scene, selections[0]) is first
    for selection in selections[1:]:
        changed(scene, selection)
    assert changed(scene, selections[0]) is not first
    assert changed(scene, None) is scene.trained.gaussians


def test_jumping_stands_at_the_camera_and_looks_at_what_is_there(events: SceneEvents, token: str) -> None:
    stand = events.jump(token, "train_002").stand
    camera = stand.scene.trained.camera("train_002")
    assert stand.camera is camera is stand.home
    ahead = camera.viewmat[:3, :3] @ stand.pivot + camera.viewmat[:3, 3]
    np.testing.assert_allclose(ahead[:2], 0.0, atol=1e-9)
    depths = stand.scene.trained.gaussians.means.double().numpy() @ camera.viewmat[2, :3] + camera.viewmat[2, 3]
    assert np.percentile(depths, 1) < ahead[2] < np.percentile(depths, 99)
    # Where nothing is ahead, the scene's own distance is taken.
    away = np.diag([-1.0, 1.0, -1.0, 1.0]) @ camera.viewmat
    assert np.isfinite(looked_at(stand.scene.trained.gaussians, replace(camera, viewmat=away))).all()


def test_lists_of_words_are_bounded() -> None:
    assert rivals(" , ") == DEFAULT_NEGATIVES
    assert rivals("a, b,a") == ("a", "b")
    assert checked_vocabulary("") == VOCABULARY
    assert checked_vocabulary("cat\ndog, cat") == ("cat", "dog")
    with pytest.raises(InputError, match="vocabulary"):
        checked_vocabulary(",".join(map(str, range(1001))))


@pytest.mark.parametrize(
    "text", ["red", "", "#12345", "#gggggg", "rgb(1, 2)", "rgb(300, 0, 0)", "url(javascript:1,2,3)"]
)
def test_what_is_no_colour_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="no colour"):
        rgb(text)


def test_what_is_picked_while_something_is_asked_is_not_forgotten(
    events: SceneEvents, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app import scene_events

    real = scene_events.prepare

    def slow(*arguments: Any) -> Any:
        events.pick(token, 0.5, 0.5, "", "")
        names.extend(events.more(token, []))
        return real(*arguments)

    names: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(scene_events, "prepare", slow)
        events.ask(token, ["red"], "")
    assert [one.name for one in events.ask(token, ["red", *names], "").stand.samples] == names


def meanwhile(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], Any]) -> None:
    """Something happens on the page while an event is at work: when it calls ``name`` of `app.scene_events`."""
    from app import scene_events

    real = getattr(scene_events, name)

    def interrupted(*arguments: Any) -> Any:
        act()
        return real(*arguments)

    monkeypatch.setattr(scene_events, name, interrupted)


def test_what_was_begun_in_one_scene_leaves_the_next_alone(
    two_scenes: SceneEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = two_scenes
    begun: dict[str, Callable[[str], Any]] = {
        "rank": lambda token: events.pick(token, 0.5, 0.5, "", ""),
        "looked_at": lambda token: events.jump(token, "train_003"),
        "prepare": lambda token: events.ask(token, ["red"], ""),
        "select": lambda token: events.select(token, ""),
    }
    for name, act in begun.items():
        token = events.visits.begin("page").token
        events.ask(token, ["red"], "")
        with monkeypatch.context() as patch:
            meanwhile(patch, name, lambda token=token: events.enter(token, 1))
            outcome = act(token)
        stand = events.visit(token).stand
        assert stand.position == 1
        assert stand.scene is events.scenes.get(1)
        assert stand.camera is stand.scene.trained.camera("test_000")
        assert (stand.picked, stand.prepared, stand.selection, stand.samples) == (None, None, None, ()), name
        if name == "rank":
            assert outcome == []
        with pytest.raises(InputError, match="Click into the picture"):
            events.more(token, [])


def test_what_is_shown_is_the_newest_selection(
    events: SceneEvents, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    events.ask(token, ["red"], "")
    events.select(token, "")
    newer: list[Selection] = []
    meanwhile(monkeypatch, "rgb", lambda: newer.append(events.select(token, "")))
    shown = events.show(token, WITHOUT, "#ff0000").stand.selection
    assert shown is not None
    assert shown.chosen is newer[0].chosen
    assert shown.way == WITHOUT


def test_a_page_without_scenes_says_nothing(scratch: Scratch) -> None:
    """Its menu of scenes has a "change" as well, to nothing."""
    scenes = Scenes([], "cpu")
    events = SceneEvents(scenes, Visits(scenes), Painter())
    token, handlers = events.visits.begin("somebody").token, SceneHandlers(events, scratch)
    assert all(given == gr.skip() for given in handlers.enter(token, None))
    assert handlers.jump(token, None) == gr.skip()


def test_a_new_scene_begins_with_nothing_of_the_last(two_scenes: SceneEvents, scratch: Scratch) -> None:
    events, handlers = two_scenes, SceneHandlers(two_scenes, scratch)
    token = events.visits.begin("page").token
    place = gr.EventData(None, {"x": 0.5, "y": 0.5})
    opened, best, more = handlers.pick(token, "red, green", "", place)
    assert (best.visible, more.interactive, opened.open) == (True, True, True)
    for given in handlers.enter(token, 0):
        assert given == gr.skip()
    given = handlers.enter(token, 1)
    assert given[4].visible is False  # what was clicked
    assert given[5].interactive is False  # find more of it
