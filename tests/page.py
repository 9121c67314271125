"""What a visitor does on the app's page, for tests in a browser."""

import base64
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Locator, Page

VIEWPORT = ".viewport"
REST = 400
"""Milliseconds without a new picture after which none comes."""
_PIXELS = """async image => {
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  canvas.getContext("2d").drawImage(image, 0, 0);
  return canvas.toDataURL("image/png");
}"""
_FULL = """after => {
  const shown = document.querySelector(".viewport")?.dataset;
  return shown?.full === "true" && Number(shown.frame) > after;
}"""


def tab(page: "Page", name: str) -> "Locator":
    """Go to a tab; returns its panel."""
    page.get_by_role("tab", name=name, exact=True).click()
    return page.get_by_role("tabpanel")


def opened(page: "Page", name: str) -> None:
    """Open a section that is folded."""
    button = page.get_by_role("button", name=name).first
    button.click()


def frame_number(page: "Page") -> int:
    """The viewport's newest frame; 0 before the first."""
    return int(page.locator(VIEWPORT).get_attribute("data-frame") or 0)


def at_rest(page: "Page", after: int = 0) -> None:
    """Wait for a picture of full size that is newer than ``after``, and until no newer one follows."""
    newest = after
    while newest == after or frame_number(page) != newest:
        page.wait_for_function(_FULL, arg=newest)
        newest = frame_number(page)
        page.wait_for_timeout(REST)


@contextmanager
def drawn_again(page: "Page") -> Iterator[None]:
    """What happens in the block leads to a new picture of full size; waits for it."""
    before = frame_number(page)
    yield
    at_rest(page, before)


def picture(page: "Page") -> np.ndarray:
    """What the viewport shows, uint8 [H, W, 3]."""
    data = page.locator(f"{VIEWPORT} img").evaluate(_PIXELS)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))).convert("RGB"))


def picture_after(page: "Page", act: Callable[[], object]) -> np.ndarray:
    """What the viewport shows once it was drawn again because of an act, float64 [H, W, 3]."""
    with drawn_again(page):
        act()
    return picture(page).astype(np.float64)


def type_in(page: "Page", text: str) -> None:
    """Type and press Enter, at a pace that a person may have: Gradio's menus lose what comes faster."""
    page.keyboard.type(text, delay=20)
    page.wait_for_timeout(150)
    page.keyboard.press("Enter")


def look_for(page: "Page", phrase: str) -> None:
    """Type a phrase and wait until its answer is in the picture."""
    with drawn_again(page):
        page.get_by_role("combobox", name="Look for").click()
        type_in(page, phrase)
    page.locator(".viewport-answers li", has_text=phrase).wait_for()


def forget(page: "Page", phrase: str) -> None:
    """Take a phrase away again and wait until its answer is gone."""
    with drawn_again(page):
        page.get_by_role("button", name=f"Remove {phrase}", exact=True).click()
    page.locator(".viewport-answers li", has_text=phrase).wait_for(state="detached")


def show(page: "Page", mode: str) -> np.ndarray:
    """Let the viewport draw in another way; returns its picture as `picture_after`."""
    return picture_after(page, lambda: page.get_by_role("radio", name=mode, exact=True).check())


def slide(page: "Page", label: str, value: float) -> np.ndarray:
    """Give a slider another value, which changes the picture; returns it as `picture_after`."""
    field = page.get_by_label(f"number input for {label}")

    def act() -> None:
        field.fill(str(value))
        field.press("Enter")

    return picture_after(page, act)


def choose(page: "Page", label: str, option: str) -> None:
    """Choose from a menu."""
    page.get_by_role("combobox", name=label, exact=True).click()
    page.get_by_role("option", name=option, exact=True).click()


def values(colours: np.ndarray, colormap: int) -> np.ndarray:
    """What the colours [H, W, 3] of one of OpenCV's colour maps stand for, 0..1 [H, W]."""
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], colormap)[:, 0, ::-1]
    _, nearest = cKDTree(table.astype(np.float64)).query(colours)
    return nearest / 255


def message(page: "Page") -> str:
    """The text of the message that comes up, which is then closed."""
    toast = page.get_by_test_id("toast-body").first
    text = toast.get_by_test_id("toast-text").inner_text()
    toast.get_by_role("button", name="Close", exact=True).click()
    toast.wait_for(state="detached")
    return text


def upload(panel: "Locator", place: int, *paths: "Path") -> None:
    """Put files into a tab's list of files number ``place``, instead of what is in it."""
    clear = panel.locator(".block", has=panel.page.locator("input[type=file]")).nth(place)
    if clear.get_by_role("button", name="Clear").count():
        clear.get_by_role("button", name="Clear").click()
        clear.get_by_role("row").first.wait_for(state="detached")
    panel.locator("input[type=file]").nth(place).set_input_files(paths)
    for path in paths:
        panel.get_by_role("row", name=path.name).wait_for()


def download(page: "Page", link: "Locator", folder: "Path") -> "Path":
    """Save what a link offers under the name that it gives."""
    with page.expect_download() as saved:
        link.click()
    path = folder / saved.value.suggested_filename
    saved.value.save_as(path)
    return path
