"""The Scene tab in a browser: what a visitor sees is held against the demo scene's true answers."""

import math
import re
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from browser import Site
from gradio_client import Client
from page import (
    at_rest,
    choose,
    download,
    drawn_again,
    frame_number,
    look_for,
    message,
    opened,
    picture,
    picture_after,
    type_in,
)
from truth import VIEW, overlap, true_mask

from splat.gaussians import load_ply
from splat.scene.room import CATEGORIES

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

FRAMES_PER_SECOND = 2.0
"""While dragging; a quarter of what an idle machine with two cores is meant to reach, for one that is not idle."""

COLOURS_OF_A_FRAME = """canvas => new Promise((done, fail) => {
  const small = Object.assign(document.createElement("canvas"), { width: 64, height: 64 });
  const pen = small.getContext("2d", { willReadFrequently: true });
  let frames = 0;
  function look() {
    pen.drawImage(canvas, 0, 0, 64, 64);
    const pixels = new Uint32Array(pen.getImageData(0, 0, 64, 64).data.buffer);
    const colours = new Set(pixels).size;
    if (colours > 100 || ++frames > 100) done(colours);
    else requestAnimationFrame(look);
  }
  requestAnimationFrame(look);
})"""
"""How many there are at last on a canvas that is drawn anew in every frame."""


@pytest.fixture
def page(visit: Callable[..., "Page"]) -> "Page":
    """The Scene tab, as a visitor who just came sees it."""
    page = visit()
    at_rest(page)
    return page


def shown_mask(page: "Page") -> np.ndarray:
    """What is not darkened after something was looked for, bool [H, W]."""
    assert page.get_by_role("radio", name="Mask").is_checked()
    masked = picture_after(page, lambda: page.get_by_label("Points and boxes").uncheck())
    plain = picture_after(page, lambda: page.get_by_role("radio", name="Picture").check())
    return cv2.blur(masked.sum(2) - 0.5 * plain.sum(2), (3, 3)) > 0


def test_a_word_finds_the_thing(page: "Page", site: Site) -> None:
    opened(page, "Advanced")
    opacity = page.get_by_label("number input for Opacity")
    assert opacity.is_disabled()  # a plain picture has nothing over it
    look_for(page, "cat")
    with drawn_again(page):
        opacity.fill("1")
        opacity.press("Enter")
    answer = page.locator(".viewport-answers li").inner_text()
    sure = float(re.search(r"0\.\d\d", answer)[0])
    told = Client(site.address, verbose=False).predict(0, VIEW, "cat", "", "auto", 0.4, api_name="/query")[2]
    assert sure == pytest.approx(told["confidence"], abs=0.006)
    mask = shown_mask(page)
    x, y = (int(number) for number in re.search(r"at (\d+), (\d+)", answer).groups())
    cat = true_mask(site.painted, "cat", mask.shape)
    assert true_mask(site.painted, "cat", (180, 240))[y, x]
    found = overlap(mask, cat)
    print(f"IoU of 'cat' as it is shown: {found:.2f}")
    assert found > 0.7
    assert all(overlap(mask, true_mask(site.painted, name, mask.shape)) < 0.1 for name in CATEGORIES if name != "cat")


def test_the_scene_follows_the_pointer(page: "Page", site: Site) -> None:
    before = picture(page)
    box = page.locator(".viewport").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    with drawn_again(page):
        page.mouse.move(x, y)
        page.mouse.down()
        first, started = frame_number(page), time.monotonic()
        for step in range(1, 101):
            page.mouse.move(x + 0.2 * step + 30 * math.sin(step / 100 * 6 * math.pi), y)
            page.wait_for_timeout(20)
        rate = (frame_number(page) - first) / (time.monotonic() - started)
        page.mouse.up()
    print(f"{rate:.1f} frames per second while dragging")
    assert rate > FRAMES_PER_SECOND
    after = picture(page)
    assert before.shape == after.shape
    # The cat stands before what the camera turns around, so it goes where the pointer went.
    left, top, width, height = cv2.boundingRect(true_mask(site.painted, "cat", before.shape).astype(np.uint8))
    cat = before[top : top + height, left : left + width]
    _, _, _, (new_left, new_top) = cv2.minMaxLoc(cv2.matchTemplate(after, cat, cv2.TM_CCOEFF_NORMED))
    print(f"the cat went {new_left - left} pixels to the right")
    assert 10 < new_left - left < 80
    assert abs(new_top - top) < 15
    with drawn_again(page):
        page.get_by_role("button", name="Reset the view").click()
    assert np.abs(picture(page).astype(int) - before).mean() < 2


def test_the_keyboard_moves_the_camera(page: "Page") -> None:
    viewport = page.get_by_role("application")
    viewport.focus()
    start = picture(page).astype(int)
    for key in ("ArrowLeft", "Shift+ArrowUp", "+", "]"):
        before = picture(page).astype(int)
        with drawn_again(page):
            viewport.press(key)
        assert np.abs(picture(page) - before).mean() > 2, key
    with drawn_again(page):
        viewport.press("Home")
    assert np.abs(picture(page) - start).mean() < 2


def test_only_a_choice_moves_the_camera(page: "Page") -> None:
    view, viewport = page.locator(".viewport img"), page.get_by_role("application")
    menu = page.get_by_role("combobox", name="Go to photo", exact=True)
    with drawn_again(page):
        choose(page, "Go to photo", "train_003")
    assert view.get_attribute("alt") == "The scene from train_003"
    there = picture(page).astype(int)
    picture_after(page, lambda: viewport.press("ArrowLeft"))
    assert view.get_attribute("alt") == "The scene from a free viewpoint"
    for leave in ("Tab", "Shift+Tab", "Escape"):
        menu.focus()
        page.keyboard.press(leave)
        page.get_by_role("combobox", name="Scene", exact=True).focus()
        page.keyboard.press(leave)
    page.wait_for_timeout(1000)
    assert view.get_attribute("alt") == "The scene from a free viewpoint"
    # A click on the photo that was chosen last leads back to it.
    with drawn_again(page):
        choose(page, "Go to photo", "train_003")
    assert np.abs(picture(page) - there).mean() < 2
    menu.focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_timeout(150)
    with drawn_again(page):
        page.keyboard.press("Enter")
    assert view.get_attribute("alt") == "The scene from train_004"


def test_a_phrase_is_looked_for_when_its_field_is_left(page: "Page") -> None:
    page.get_by_role("combobox", name="Look for").click()
    with drawn_again(page):
        page.keyboard.type("cat", delay=20)
        page.keyboard.press("Tab")
    page.locator(".viewport-answers li", has_text="cat").wait_for()
    # How it is shown stays as it was chosen when a field is left as it was.
    picture_after(page, lambda: page.get_by_role("radio", name="Picture").check())
    opened(page, "Advanced")
    page.get_by_label("Likelier than").focus()
    page.keyboard.press("Tab")
    page.wait_for_timeout(1000)
    assert page.get_by_role("radio", name="Picture").is_checked()
    page.get_by_label("Likelier than").fill("dog")
    page.keyboard.press("Tab")
    page.get_by_role("radio", name="Mask", checked=True).wait_for()


def test_a_thing_is_isolated_exported_and_loaded_again(page: "Page", site: Site, tmp_path: Path) -> None:
    labels, scene = np.load(site.painted / "labels.npy"), load_ply(site.painted / "run" / "gaussians.ply")
    look_for(page, "cat")
    opened(page, "3D selection")
    with drawn_again(page):
        page.get_by_role("button", name="Select in 3D").click()
    told = page.get_by_text("Gaussians of cat are selected").inner_text()
    count = int(told.split(" ")[0].replace(",", ""))
    picture_after(page, lambda: page.get_by_role("radio", name="Picture").check())
    alone = picture_after(page, lambda: page.get_by_role("radio", name="selection only").check())
    assert overlap(alone.sum(2) > 30, true_mask(site.painted, "cat", alone.shape)) > 0.6
    opened(page, "Save a file")
    files = {}
    for kind in ("selected Gaussians (PLY)", "all other Gaussians (PLY)"):
        choose(page, "What to save", kind)
        page.get_by_role("button", name="Make the file").click()
        file = page.get_by_role("row", name=re.compile("rest" if "other" in kind else "selection"))
        files[kind] = load_ply(download(page, file.get_by_role("link"), tmp_path))
    cat, rest = files.values()
    assert (len(cat), len(cat) + len(rest)) == (count, len(scene))
    places = {tuple(mean): label for mean, label in zip(scene.means.tolist(), labels, strict=True)}
    chosen = np.array([places[tuple(mean)] for mean in cat.means.tolist()])
    label = 1 + CATEGORIES.index("cat")
    assert (chosen == label).mean() > 0.6
    assert (chosen == label).sum() > 0.85 * (labels == label).sum()
    assert {tuple(mean) for mean in rest.means.tolist()}.isdisjoint(tuple(mean) for mean in cat.means.tolist())


def test_a_click_says_what_is_there_and_finds_more_of_it(page: "Page", site: Site) -> None:
    inside = true_mask(site.painted, "coffee cup", picture(page).shape)
    y, x = (int(np.median(axis)) for axis in np.nonzero(inside))
    box = page.locator(".viewport").bounding_box()
    assert box is not None
    opened(page, "What is there")
    assert page.get_by_role("button", name="Find more like this").is_disabled()
    page.mouse.click(box["x"] + x / inside.shape[1] * box["width"], box["y"] + y / inside.shape[0] * box["height"])
    best = page.get_by_role("meter").first
    best.wait_for()
    assert page.get_by_role("button", name="Find more like this").is_enabled()
    print(f"best phrase for a pixel of the coffee cup: {best.get_attribute('aria-label')}")
    assert re.search("cup|coffee|mug", str(best.get_attribute("aria-label")))
    with drawn_again(page):
        page.get_by_role("button", name="Find more like this").click()
    opened(page, "Advanced")
    assert overlap(shown_mask(page), inside) > 0.5


def test_a_video_and_a_model_are_made(page: "Page") -> None:
    opened(page, "Make a video")
    length = page.get_by_label("number input for Seconds")
    length.fill("2")
    length.press("Enter")
    page.get_by_role("button", name="Make the video").click()
    video = page.locator("video")
    video.wait_for()
    video.evaluate("video => video.duration || new Promise(done => video.onloadedmetadata = done)")
    assert video.evaluate("video => video.duration") == pytest.approx(2.0, abs=0.1)
    opened(page, "On your own graphics card")
    page.get_by_role("button", name="Show as a 3D model").click()
    canvas = page.locator("canvas")
    canvas.wait_for()
    assert canvas.evaluate(COLOURS_OF_A_FRAME) > 100


def test_a_mistake_is_a_message_and_the_page_goes_on(page: "Page") -> None:
    opened(page, "3D selection")
    page.get_by_role("button", name="Select in 3D").click()
    assert "Look for something first" in message(page)
    page.get_by_role("combobox", name="Look for").click()
    page.keyboard.insert_text("x" * 300)
    type_in(page, "x")
    assert "letters" in message(page)
    page.get_by_role("button", name="Remove").first.click()
    look_for(page, "rocket")


def test_enter_on_nothing_looks_for_nothing(page: "Page") -> None:
    page.get_by_role("combobox", name="Look for").click()
    page.keyboard.press("Enter")
    page.wait_for_timeout(500)
    type_in(page, "  ")
    chips = page.get_by_role("button", name=re.compile("^Remove"))
    page.wait_for_timeout(500)
    assert chips.count() == 0
    with drawn_again(page):
        type_in(page, "cat")
    page.locator(".viewport-answers li", has_text="cat").wait_for()
    page.keyboard.press("Enter")
    page.wait_for_timeout(500)
    assert page.locator(".viewport-answers li").count() == 1
    page.get_by_role("button", name="Remove cat").wait_for()


def test_what_has_nothing_to_show_yet_says_so(page: "Page") -> None:
    legend = page.locator(".viewport-legend")
    picture_after(page, lambda: page.get_by_role("radio", name="Mask").check())
    assert legend.inner_text() == "Look for something to see its mask."
    look_for(page, "xylophone")
    assert not legend.is_visible()
    answer = page.locator(".viewport-answers li")
    assert re.search(r"xylophone\s+unsure\s+0\.\d\d\s+level: \w+, at \d+, \d+$", answer.inner_text())


@pytest.fixture
def troubled(chromium: "Browser", site: Site) -> Iterator["Page"]:
    """The Scene tab with a picture in it, in a browser that may be told of errors."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.goto(site.address)
    at_rest(page)
    yield page
    context.close()


def drag(page: "Page") -> None:
    box = page.locator(".viewport").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.down()
    for step in range(20):
        page.mouse.move(box["x"] + 200 + 5 * step, box["y"] + 200)
        page.wait_for_timeout(20)
    page.mouse.up()


LOGIN = "no longer logged in"


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ({"status": 500, "json": {"error": "The disk is on fire."}}, "The disk is on fire."),
        ({"status": 502, "body": "<html>Bad gateway</html>"}, "The server sent no picture."),
        ({"status": 401, "json": {"detail": "Not authenticated"}}, LOGIN),
        ({"status": 302, "headers": {"Location": "/login"}}, LOGIN),
        ({"status": 200, "content_type": "text/html", "body": "<form>Who are you?</form>"}, LOGIN),
        (None, "The server does not answer."),
    ],
    ids=["fault", "gateway", "refused", "redirected", "login page", "no answer"],
)
def test_a_picture_that_does_not_come_is_asked_for_again(
    troubled: "Page", answer: dict[str, Any] | None, sentence: str
) -> None:
    times: list[float] = []

    def fail(route: "Route") -> None:
        times.append(time.monotonic())
        if answer is None:
            route.abort()
        else:
            route.fulfill(**answer)

    page, notice = troubled, troubled.locator(".viewport-notice")
    before = picture(page).astype(int)
    page.route("**/frame", fail)
    drag(page)
    notice.wait_for()
    assert sentence in notice.inner_text()
    assert "Trying again in 2 seconds" in notice.inner_text()
    drag(page)
    notice.filter(has_text="Trying again in 4 seconds").wait_for()
    assert len(times) == 2
    assert all(later - earlier > 1.9 for earlier, later in pairwise(times))
    with drawn_again(page):
        page.unroute("**/frame")
        drag(page)
    assert not notice.is_visible()
    assert np.abs(picture(page) - before).mean() > 2  # where it was dragged while waiting


def test_a_visit_that_is_over_stays_over(troubled: "Page") -> None:
    asked: list[str] = []

    def over(route: "Route") -> None:
        asked.append(route.request.url)
        route.fulfill(status=404, json={"error": "This page was left alone; reload the page."})

    page, notice = troubled, troubled.locator(".viewport-notice")
    page.route("**/frame", over)
    drag(page)
    notice.filter(has_text="reload the page").wait_for()
    drag(page)
    page.wait_for_timeout(2500)
    assert len(asked) == 1
    assert "Trying again" not in notice.inner_text()


def test_two_tabs_of_a_browser_are_two_visits(troubled: "Page", site: Site) -> None:
    other = troubled.context.new_page()
    other.goto(site.address)
    at_rest(other)
    start = picture(other).astype(int)
    with drawn_again(troubled):
        drag(troubled)
    look_for(other, "cat")
    picture_after(other, lambda: other.get_by_role("button", name="Remove cat").click())
    picture_after(other, lambda: other.get_by_role("radio", name="Picture").check())
    assert np.abs(picture(other) - start).mean() < 2
    assert np.abs(picture(troubled) - start).mean() > 2
    assert troubled.locator(".viewport-answers li").count() == 0
    other.close()
    with drawn_again(troubled):
        troubled.get_by_role("button", name="Reset the view").click()
    assert np.abs(picture(troubled) - start).mean() < 2
