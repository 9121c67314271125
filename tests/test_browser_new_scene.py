"""The New scene tab in a browser: scenes are made, the page may be reloaded meanwhile, and trainings stopped."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import imageio.v3 as imageio
import numpy as np
import pytest
from browser import RELOADED, Site
from page import at_rest, choose, drawn_again, look_for, message, tab, upload
from scene_corner import shots

if TYPE_CHECKING:
    from playwright.sync_api import Page

PATIENCE = 240_000
"""Milliseconds that a training of thumbnails may take."""


def test_the_demo_scene_is_made_and_asked(visit: Callable[..., "Page"], site: Site) -> None:
    page = visit(expected=(RELOADED,))
    panel = tab(page, "New scene")
    panel.get_by_role("button", name="Make the demo scene").click()
    panel.get_by_role("radio", name="demo (running)").wait_for()
    page.reload()
    at_rest(page)
    panel = tab(page, "New scene")
    # Found again, and what is going on is told in words and in a bar.
    panel.get_by_role("progressbar").first.wait_for(timeout=PATIENCE)
    picture = panel.get_by_role("img", name="A view as rendered by now")
    picture.wait_for(timeout=PATIENCE)
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 96
    panel.get_by_role("radio", name="demo (finished)").wait_for(timeout=PATIENCE)
    assert not panel.get_by_role("button", name="Stop").count()
    assert (site.root / "demo" / "language.safetensors").exists()
    panel.get_by_role("button", name="Show in the Scene tab").click()
    tab(page, "Scene")
    with drawn_again(page):
        choose(page, "Scene", "demo")
    look_for(page, "red")
    assert page.locator(".viewport-answers li").count() == 1
    # Another scene begins with nothing looked for, and at its own first view.
    for scene in ("run", "demo"):
        with drawn_again(page):
            choose(page, "Scene", scene)
        page.locator(".viewport-answers li").wait_for(state="detached")
        assert page.locator(".viewport img").get_attribute("alt") == "The scene from test_000"
        look_for(page, "red")


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Some seconds of walking around a corner."""
    path = tmp_path / "Walk around.mp4"
    frames = np.stack([shot.image for shot in shots(8)])
    imageio.imwrite(path, frames, plugin="FFMPEG", fps=4, codec="libx264", quality=10, macro_block_size=16)
    return path


@pytest.mark.slow
def test_a_video_is_stopped_and_resumed_and_becomes_a_scene(
    visit: Callable[..., "Page"], site: Site, film: Path
) -> None:
    page = visit(expected=(RELOADED,))
    panel = tab(page, "New scene")
    upload(panel, 0, film)
    panel.get_by_role("button", name="Train", exact=True).click()
    panel.get_by_role("radio", name="walk-around (running)").wait_for()
    (site.root / "walk-around" / "slow").touch()
    fitting = panel.get_by_role("progressbar", name="Fit Gaussians to the photos")
    fitting.wait_for(timeout=PATIENCE)
    page.reload()
    panel = tab(page, "New scene")
    assert panel.get_by_role("radio", name="walk-around (running)").is_checked()
    fitting.wait_for()
    panel.get_by_text("a video, preset fast").wait_for()
    panel.get_by_role("button", name="Stop").click()
    panel.get_by_role("radio", name="walk-around (stopped)").wait_for()
    assert not panel.get_by_role("button", name="Stop").is_visible()
    (site.root / "walk-around" / "slow").unlink()
    panel.get_by_role("button", name="Resume").click()
    panel.get_by_role("radio", name="walk-around (finished)").wait_for(timeout=PATIENCE)
    tab(page, "Scene")
    with drawn_again(page):
        choose(page, "Scene", "walk-around")


def test_a_training_is_removed_by_the_keyboard_after_a_question(visit: Callable[..., "Page"], site: Site) -> None:
    folder = site.root / "lost"
    folder.mkdir(parents=True)
    record = {"kind": "photos", "count": 3, "place": "photos", "created": 9e9, "outcome": "stopped"}
    (folder / "job.json").write_text(json.dumps(record))
    page = visit()
    panel = tab(page, "New scene")
    panel.get_by_text("lost (stopped)", exact=True).first.click()
    for_good = panel.get_by_role("button", name="Remove for good")
    for answer in ("Keep", "Remove for good"):
        panel.get_by_role("button", name="Remove", exact=True).focus()
        page.keyboard.press("Enter")
        panel.get_by_text("Remove lost, with its photos and all that was trained?").wait_for()
        assert folder.exists()
        presses = 1
        page.keyboard.press("Tab")
        while page.evaluate("document.activeElement.innerText.trim()") != answer:
            page.keyboard.press("Tab")
            presses += 1
            assert presses < 4, "the answers come right after the question"
        page.keyboard.press("Enter")
        for_good.wait_for(state="hidden")
        assert folder.exists() == (answer == "Keep")
    panel.get_by_role("radio", name="lost (stopped)").wait_for(state="detached")


def test_without_photos_that_is_what_is_said(visit: Callable[..., "Page"], site: Site) -> None:
    page = visit()
    tab(page, "New scene").get_by_role("button", name="Train", exact=True).click()
    assert "There is nothing to train on" in message(page)
