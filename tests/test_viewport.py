"""The viewport's frames over HTTP: what is drawn, what is refused, and what happens when requests pile up."""

import io
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import driver
import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app.frame_route import BODY, frame_route
from app.frames import LARGEST, Painter, Stale, fitted
from app.layers import COLORS, depths, heat, levels, masks
from app.scene_events import SceneEvents
from app.scenes import Scenes
from app.visits import MODES, Gesture, Look, Visits, first_stand, moved
from splat.evaluate import renderer
from splat.query import query_view
from splat.scene.orbit import orbit


@dataclass
class Server:
    client: TestClient
    scenes: Scenes
    visits: Visits
    events: SceneEvents
    painter: Painter

    def begin(self) -> str:
        return self.visits.begin("page").token

    def ask(self, token: str, sequence: int = 1, width: int = 96, **more: Any) -> Any:
        return self.client.post("/frame", json={"token": token, "sequence": sequence, "width": width, **more})


@pytest.fixture
def server(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    driver.install(monkeypatch.setattr)
    scenes, painter = Scenes([tiny_run], "cpu"), Painter()
    visits = Visits(scenes)
    with TestClient(Starlette(routes=[frame_route(visits, painter)])) as client:
        yield Server(client, scenes, visits, SceneEvents(scenes, visits, painter), painter)


def picture(reply: Any) -> np.ndarray:
    assert reply.status_code == 200, reply.text
    return np.asarray(Image.open(io.BytesIO(reply.content)).convert("RGB"))


def info(reply: Any) -> dict[str, Any]:
    return json.loads(reply.headers["X-Frame"])


def test_the_first_frame_is_the_first_held_out_view(server: Server) -> None:
    trained = server.scenes.get(0).trained
    camera = trained.camera("test_000")
    reply = server.ask(server.begin(), width=camera.width)
    expected = renderer(trained.gaussians)(camera) * 255
    assert reply.headers["content-type"] == "image/jpeg"
    assert np.abs(picture(reply) - expected).mean() < 4  # what JPEG leaves
    assert (info(reply)["view"], info(reply)["width"], info(reply)["height"]) == ("test_000", 96, 72)


def test_gestures_add_up_on_the_server(server: Server) -> None:
    token = server.begin()
    stand = server.visits.get(token).stand
    moving = server.ask(token, 1, 48, moving=True, turn=[0.05, 0.0])
    assert picture(moving).shape == (36, 48, 3)
    server.ask(token, 2, 48, moving=True, turn=[0.05, 0.02])
    rested = server.ask(token, 3)
    up, trained = server.scenes.get(0).up, server.scenes.get(0).trained
    camera = orbit(stand.camera, stand.pivot, up, -0.1 * np.pi, 0.02 * np.pi)
    np.testing.assert_allclose(server.visits.get(token).stand.camera.viewmat, camera.viewmat, atol=1e-9)
    assert np.abs(picture(rested) - renderer(trained.gaussians)(camera) * 255).mean() < 4
    assert info(rested)["view"] == "free"
    back = server.ask(token, 4, reset=True)
    assert info(back)["view"] == "test_000"
    np.testing.assert_array_equal(server.visits.get(token).stand.pivot, stand.pivot)


def test_coming_back_asks_the_scene_for_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    token = server.begin()
    server.events.jump(token, "train_003")
    home = server.visits.get(token).stand
    server.ask(token, 1, 48, moving=True, turn=[0.1, 0.0], zoom=2.0)
    monkeypatch.setattr("splat.pivot.rasterize_rgb", None)
    assert info(server.ask(token, 2, reset=True))["view"] == "train_003"
    back = server.visits.get(token).stand
    assert back.camera is home.camera
    np.testing.assert_array_equal(back.pivot, home.pivot)


def test_zooming_and_rolling_keep_the_pivot_in_its_place(server: Server) -> None:
    stand = server.visits.get(server.begin()).stand
    pixel = _pixel(stand.camera, stand.pivot)
    for gesture in (Gesture(zoom=1.7), Gesture(zoom=0.4), Gesture(turn=(0.1, -0.05))):
        after = moved(stand, gesture)
        np.testing.assert_allclose(_pixel(after.camera, after.pivot), pixel, atol=1e-6)
    dragged = moved(stand, Gesture(pan=(0.25, 0.125)))
    shift = _pixel(dragged.camera, stand.pivot) - pixel
    np.testing.assert_allclose(shift, np.array([0.25, 0.125]) * stand.camera.width, atol=1e-6)
    # However far one zooms, the camera stays outside of what it looks at.
    for _ in range(50):
        stand = moved(stand, Gesture(zoom=3.0))
    assert np.linalg.norm(stand.camera.center - stand.pivot) > 1e-3


def _pixel(camera: Any, point: np.ndarray) -> np.ndarray:
    homogeneous = camera.K @ (camera.viewmat[:3, :3] @ point + camera.viewmat[:3, 3])
    return homogeneous[:2] / homogeneous[2]


def test_answers_are_those_of_the_library(server: Server) -> None:
    token = server.begin()
    server.events.ask(token, ["red", "green"], "")
    reply = server.ask(token)
    trained = server.scenes.get(0).trained
    encoder = server.scenes.encoder(0)
    direct = query_view(trained.gaussians, trained.field, trained.camera("test_000"), ["red", "green"], encoder)
    for told, result in zip(info(reply)["answers"], direct, strict=True):
        assert told["phrase"] == result.phrase
        assert told["point"] == list(result.point)
        assert told["pixels"] == int(result.mask.sum())
        assert told["confidence"] == round(result.confidence, 3)
    assert info(reply)["mode"] == "mask"
    assert server.visits.get(token).stand.levels == tuple(result.level for result in direct)
    quick = server.ask(token, 2, 48, moving=True, turn=[0.001, 0.0])
    assert [one["phrase"] for one in info(quick)["answers"]] == ["red", "green"]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_draws_something_of_its_own(server: Server, mode: str) -> None:
    token = server.begin()
    plain = picture(server.ask(token)).astype(int)
    server.events.ask(token, ["red"], "")
    server.events.look(token, mode, 0.8, "auto", 0.4, mode != "picture")
    reply = server.ask(token, 2)
    changed = np.abs(picture(reply).astype(int) - plain).mean()
    assert changed < 1 if mode == "picture" else changed > 5
    assert (info(reply)["legend"] is None) == (mode in ("picture", "mask"))
    assert picture(server.ask(token, 3, 48, moving=True)).shape == (36, 48, 3)
    server.events.look(token, mode, 0.0, "whole", 0.4, False)
    assert np.abs(picture(server.ask(token, 4)).astype(int) - plain).mean() < (12 if mode == "mask" else 3)


def test_phrases_in_any_writing_fit_the_header(server: Server) -> None:
    token = server.begin()
    server.events.ask(token, ["чашка ☕"], "")
    reply = server.ask(token)
    assert reply.headers["X-Frame"].isascii()
    assert info(reply)["answers"][0]["phrase"] == "чашка ☕"


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 15}, {"width": LARGEST + 1}, {"width": 1e9}, {"width": "96"}, {"width": True}, {"sequence": -1},
        {"turn": [0.0]}, {"turn": [0.0, 0.0, 0.0]}, {"turn": [5.0, 0.0]}, {"pan": "no"}, {"zoom": 0.0}, {"zoom": 1e6},
        {"roll": None}, {"moving": "yes"}, {"token": ""}, {"token": 7}, {"token": "x" * 65}, {"path": "/etc/passwd"},
        {"scene": 0}, {"camera": "../../x"},
    ],
)  # fmt: skip
def test_requests_that_are_not_as_they_should_be_are_refused(server: Server, wrong: dict[str, Any]) -> None:
    reply = server.client.post("/frame", json={"token": server.begin(), "sequence": 1, "width": 96, **wrong})
    assert reply.status_code == 400
    assert reply.json() == {"error": "This is no request for a frame."}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"zoom": NaN}', b"[" * 3000])
def test_bodies_that_are_no_requests_are_refused(server: Server, body: bytes) -> None:
    assert server.client.post("/frame", content=body).status_code == 400


def test_numbers_that_are_none_and_long_bodies_are_refused(server: Server) -> None:
    token = server.begin()
    for value in ("NaN", "Infinity", "-Infinity", "1e999"):
        body = f'{{"token": "{token}", "sequence": 1, "width": 96, "zoom": {value}}}'
        assert server.client.post("/frame", content=body).status_code == 400
    padded = json.dumps({"token": token, "sequence": 1, "width": 96}) + " " * BODY
    assert server.client.post("/frame", content=padded).status_code == 400
    assert server.ask(token).status_code == 200


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (MemoryError(), 503, "too little memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), 503, "too little memory"),
        (OSError(5, "Input/output error", "/srv/secret"), 500, "fault on the server"),
        (ZeroDivisionError("secret"), 500, "fault on the server"),
    ],
)
def test_a_frame_that_fails_is_a_sentence_and_the_next_is_drawn(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    status: int,
    sentence: str,
) -> None:
    token = server.begin()

    def fail(*_: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(server.painter, "draw", fail)
        reply = server.ask(token)
    assert reply.status_code == status
    assert sentence in reply.json()["error"]
    assert "secret" not in reply.text
    assert ("secret" in caplog.text) == (status == 500)
    assert server.ask(token, 2).status_code == 200


@pytest.mark.parametrize("mode", ["relevancy", "mask", "levels"])
def test_what_has_nothing_to_show_yet_says_so(server: Server, mode: str) -> None:
    token = server.begin()
    server.events.look(token, mode, 0.8, "auto", 0.4, True)
    for sequence, moving in ((1, False), (2, True)):
        legend = info(server.ask(token, sequence, moving=moving))["legend"]
        assert list(legend) == ["title"]
        assert legend["title"].startswith("Look for something")
    server.events.ask(token, ["red"], "")
    legend = info(server.ask(token, 3))["legend"]
    assert legend is None or "Look for" not in legend["title"]


def test_only_open_pages_get_frames(server: Server) -> None:
    assert server.ask("guessed").status_code == 404
    token = server.begin()
    assert server.client.get("/frame").status_code == 405
    server.visits.end("another page")
    assert server.ask(token).status_code == 200
    server.visits.end("page")
    reply = server.ask(token, 2)
    assert reply.status_code == 404
    assert "reload" in reply.json()["error"]


def test_pictures_are_never_larger_than_allowed(server: Server) -> None:
    stand = first_stand(0, server.scenes.get(0))
    tall = replace(stand.camera, width=100, height=300)
    assert max(fitted(tall, LARGEST).height, fitted(tall, LARGEST).width) == LARGEST
    assert (fitted(stand.camera, LARGEST).width, fitted(stand.camera, LARGEST).height) == (LARGEST, 1440)
    assert fitted(replace(stand.camera, width=5000, height=3), 16).height == 1


def test_a_frame_that_nobody_waits_for_is_not_drawn(server: Server) -> None:
    token = server.begin()
    server.ask(token, 7)
    assert server.ask(token, 6).status_code == 204
    visit = server.visits.get(token)
    asked = []

    def stale() -> bool:
        asked.append(True)
        return len(asked) > 1  # after the picture, before the answers

    server.events.ask(token, ["red"], "")
    with pytest.raises(Stale):
        server.painter.draw(visit.stand, 96, stale=stale)
    assert len(asked) == 2
    # The gesture of a frame that was overtaken is not lost.
    before = visit.stand.camera.center
    assert server.ask(token, 3, turn=[0.2, 0.0]).status_code == 204
    assert np.linalg.norm(visit.stand.camera.center - before) > 0.1


def test_many_visitors_at_once_each_see_their_own(server: Server) -> None:
    tokens = [server.begin() for _ in range(8)]
    expected = []
    for step, token in enumerate(tokens):
        server.ask(token, 1, turn=[0.02 * step, 0.0])
        expected.append(server.ask(token, 2).content)
    found: dict[int, set[bytes]] = {}

    def look(number: int) -> None:
        found[number] = {server.ask(tokens[number], sequence).content for sequence in range(3, 8)}

    threads = [threading.Thread(target=look, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(8)] == [{content} for content in expected]
    assert len(set(expected)) == 8


def test_visits_are_bounded_in_number_and_age(server: Server) -> None:
    over: list[str] = []
    visits = Visits(server.scenes, most=3, seconds=100.0, over=over.append)
    first, *others = [visits.begin(f"page {number}") for number in range(3)]
    visits.get(first.token)
    newest = visits.begin("page 3")
    assert len(visits) == 3
    assert visits.get(others[0].token) is None  # the one that was left alone for longest
    assert visits.get(first.token) is first
    assert over == [others[0].token]
    others[1].touched -= 200
    visits.begin("page 4")
    assert visits.get(others[1].token) is None
    assert {visits.get(one.token) for one in (first, newest)} == {first, newest}
    assert over == [one.token for one in others]
    visits.end("page 3")
    assert over[2:] == [newest.token]
    assert len({visits.begin("x").token for _ in range(50)}) == 50


def test_without_a_scene_there_is_a_sentence() -> None:
    visits = Visits(Scenes([], "cpu"))
    token = visits.begin("page").token
    with TestClient(Starlette(routes=[frame_route(visits, Painter())])) as client:
        reply = client.post("/frame", json={"token": token, "sequence": 1, "width": 96})
    assert reply.status_code == 400
    assert "New scene" in reply.json()["error"]


def test_heat_and_depth_say_what_their_colours_mean() -> None:
    values = np.linspace(0.2, 0.8, 100, dtype=np.float32).reshape(10, 10)
    layer, legend = heat(values)
    assert (legend["low"], legend["high"]) == (pytest.approx(0.2), pytest.approx(0.8))
    assert legend["colors"][0] == "#{:02x}{:02x}{:02x}".format(*layer[0, 0])
    assert legend["colors"][-1] == "#{:02x}{:02x}{:02x}".format(*layer[-1, -1])
    seen = np.ones((10, 10), bool)
    seen[0] = False
    layer, legend = depths(values * 10, seen)
    assert not layer[0].any()
    assert layer[1].sum() > layer[9].sum()  # near is bright
    assert 2.5 < legend["low"] < 3.0 < 7.5 < legend["high"] < 8.1
    assert legend["colors"][0] == "#{:02x}{:02x}{:02x}".format(*layer[1, 0])
    assert depths(values, np.zeros_like(seen))[1]["low"] == 0.0


def test_levels_and_masks_are_drawn_where_they_are() -> None:
    best = np.array([[0, 1], [2, 255]], np.uint8)
    layer, legend = levels(best, ["a", "b", "c"])
    assert [key["name"] for key in legend["keys"]] == ["a", "b", "c"]
    assert [key["color"] for key in legend["keys"]][1] == "#{:02x}{:02x}{:02x}".format(*layer[0, 1])
    assert not layer[1, 1].any()
    picture = np.full((60, 80, 3), 100, np.uint8)
    first, second = np.zeros((2, 60, 80), bool)
    first[10:30, 10:30] = second[40:55, 50:70] = True
    drawn = masks(picture, [first, second], 1.0)
    assert (drawn[0, 0] == 25).all()
    assert drawn[20, 20, 0] > drawn[20, 20, 2]  # reddish
    assert drawn[47, 60, 2] > drawn[47, 60, 0]  # bluish
    assert (drawn[10, 20] == COLORS[0]).all()  # the outline
    assert (picture == 100).all()


def test_a_look_is_what_a_visitor_begins_with(server: Server) -> None:
    visit = server.visits.begin("page")
    assert visit.stand.look == Look()
    server.events.look(visit.token, "depth", 0.5, "part", 0.3, False)
    visit.enter(0, server.scenes.get(0))
    assert visit.stand.look == Look("picture", 0.5, 1, 0.3, False)
