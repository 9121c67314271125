"""The New scene tab in a browser: the demo scene is made, and the page may be reloaded meanwhile."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from browser import Site
from page import at_rest, choose, drawn_again, look_for, tab

if TYPE_CHECKING:
    from playwright.sync_api import Page

PATIENCE = 240_000
"""Milliseconds that a training of thumbnails may take."""


def test_the_demo_scene_is_made_and_asked(visit: Callable[..., "Page"], site: Site) -> None:
    page = visit()
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
