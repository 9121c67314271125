"""How the page looks and is operated: every tab on wide and narrow screens, light and dark, with a keyboard alone."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from looks import faint, nameless, overflowing, reached
from page import at_rest, drawn_again, look_for, picture, tab, type_in

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

CONTRAST = 4.5
"""WCAG's AA, for text of any size."""
SIZES = ((1440, 900), (390, 844))
TABS = ("Scene", "New scene", "Anomaly", "About")


def filled(page: "Page", name: str) -> "Locator":
    """A tab with answers in it and all its sections open."""
    panel = tab(page, name)
    if name == "Scene":
        look_for(page, "cat")
    elif name == "Anomaly":
        panel.get_by_role("button", name="Try an example").click()
        panel.locator("button.card").first.wait_for(timeout=240_000)
        panel.get_by_role("img", name="overlay").wait_for()
    elif name == "About":
        panel.get_by_role("rowheader", name="anomaly detector").wait_for(timeout=240_000)
    for section in panel.get_by_role("button", name="▼").all():
        section.click()
    return panel


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_is_cut_off_faint_or_without_a_name(dark: bool, visit: Callable[..., "Page"], tmp_path: Path) -> None:
    page = visit(dark=dark)
    at_rest(page)
    complaints = {}
    for name in TABS:
        filled(page, name)
        for width, height in SIZES:
            page.set_viewport_size({"width": width, "height": height})
            page.wait_for_timeout(500)  # sections slide open
            where = f"{name}-{width}"
            page.screenshot(path=tmp_path / f"{where}.png", full_page=True)
            assert page.get_by_role("button", name="Use via API").is_visible()
            complaints[where] = [*overflowing(page), *faint(page, CONTRAST), *nameless(page)]
    print(f"screenshots are in {tmp_path}")
    assert not {where: found for where, found in complaints.items() if found}


def test_a_keyboard_is_enough(visit: Callable[..., "Page"]) -> None:
    page = visit()
    at_rest(page)

    def walk_to(name: str, key: str = "Tab") -> None:
        for _ in range(60):
            page.keyboard.press(key)
            found, ring = reached(page)
            assert ring, f"{found} does not show that it has the keyboard"
            if name in found:
                return
        raise AssertionError(f"the Tab key does not lead to {name!r}")

    walk_to("View of the scene")
    with drawn_again(page):
        page.keyboard.press("ArrowRight")
    # Passing by the menus of scenes and photos chooses nothing.
    turned = picture(page).astype(int)
    walk_to("Look for")
    page.wait_for_timeout(1000)
    assert np.abs(picture(page) - turned).mean() < 2
    with drawn_again(page):
        type_in(page, "cat")
    page.locator(".viewport-answers li", has_text="cat").wait_for()
    answered = picture(page).astype(int)
    assert np.abs(answered - turned).mean() > 2
    walk_to("Zoom in", "Shift+Tab")
    page.wait_for_timeout(1000)
    assert np.abs(picture(page) - answered).mean() < 2
    assert page.locator(".viewport-answers li", has_text="cat").is_visible()
    walk_to("Relevancy")
    with drawn_again(page):
        page.keyboard.press("Space")
    assert page.get_by_role("radio", name="Relevancy").is_checked()
    walk_to("Opacity")
    walk_to("3D selection")
    page.keyboard.press("Enter")
    walk_to("Select in 3D")
    page.keyboard.press("Enter")
    page.get_by_text("Gaussians of cat are selected").wait_for()
    walk_to("Anomaly")
    page.keyboard.press("Enter")
    walk_to("Try an example")
