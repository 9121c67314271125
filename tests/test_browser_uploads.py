"""Uploads that are not what they seem, in a browser: a sentence for whoever sent them, and nothing else happens."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import hostile
import numpy as np
import pytest
from browser import UPLOAD_BYTES, Site
from page import message, tab, upload

if TYPE_CHECKING:
    from playwright.sync_api import Page

ANSWERED = "Failed to load resource: the server responded with a status of"
TRAPS = (
    (hostile.write_text, "notes.jpg is no image"),
    (hostile.write_empty, "nothing.jpg is empty"),
    (hostile.write_escaping_zip, "outside of its folder"),
    (hostile.write_large_png, "poster.png has more than"),
)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Three photos that can be read."""
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        cv2.imwrite(str(path), np.random.default_rng(number).integers(0, 255, (64, 64, 3), np.uint8))
    return paths


def check(page: "Page", sentence: str, site: Site) -> None:
    text = message(page)
    assert sentence in text
    assert "/" not in text  # no place on the server
    assert not list(site.root.parent.rglob(hostile.ESCAPED))


def test_traps_are_no_good_parts(visit: Callable[..., "Page"], site: Site, photos: list[Path], tmp_path: Path) -> None:
    page = visit()
    panel = tab(page, "Anomaly")
    upload(panel, 1, photos[0])
    for write, sentence in TRAPS:
        upload(panel, 0, photos[1], write(tmp_path))
        panel.get_by_role("button", name="Find defects").click()
        check(page, sentence, site)


def test_traps_are_no_scene(visit: Callable[..., "Page"], site: Site, photos: list[Path], tmp_path: Path) -> None:
    page = visit()
    panel = tab(page, "New scene")
    panel.get_by_role("textbox", name="Name").fill("trap")
    for write, sentence in TRAPS:
        trap = write(tmp_path)
        upload(panel, 0, *([] if trap.suffix == ".zip" else photos), trap)
        panel.get_by_role("button", name="Train", exact=True).click()
        check(page, sentence, site)
        assert not (site.root / "trap").exists()


def test_too_much_is_said_before_it_is_sent(visit: Callable[..., "Page"], site: Site, tmp_path: Path) -> None:
    """The server refuses more than it takes at a time, and the page itself a file that is too large."""
    # What is refused has no progress that the page could ask for.
    page = visit(expected=(f"{ANSWERED} 413", f"{ANSWERED} 404", "Response"))
    panel = tab(page, "New scene")
    before = set(site.uploads.rglob("*"))
    for name, size, sentence in (
        ("photos.zip", UPLOAD_BYTES + 1, "That is too much at a time; 32 MiB are the most."),
        ("film.mp4", 2 * 2**30 + 1, "exceed the maximum allowed size"),
    ):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
        panel.locator("input[type=file]").first.set_input_files(tmp_path / name)
        assert sentence in message(page)
        assert not panel.get_by_role("row", name=name).count()
    assert set(site.uploads.rglob("*")) == before
