"""The Anomaly tab in a browser: its example, and what is done with results."""

import csv
import re
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import hostile
import numpy as np
import pytest
from page import download, tab, upload

from dictas.procedural import ProceduralClass

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

PATIENCE = 240_000
"""Milliseconds that an inspection may take."""


@pytest.fixture
def panel(visit: Callable[..., "Page"]) -> "Locator":
    """The Anomaly tab."""
    return tab(visit(), "Anomaly")


def cards(panel: "Locator") -> list[tuple[str, float, str]]:
    """Name, score and verdict of the photos on the sheet."""
    found = panel.locator("button.card").all_inner_texts()
    return [re.fullmatch(r"(.+)\n+([\d.]+) (anomalous|good)", text.strip()).groups() for text in found]


def test_the_example_shows_what_is_wrong(panel: "Locator", tmp_path: Path) -> None:
    panel.get_by_role("button", name="Try an example").click()
    panel.locator("button.card").first.wait_for(timeout=PATIENCE)
    shown = cards(panel)
    scores = [float(score) for _, score, _ in shown]
    assert scores == sorted(scores, reverse=True)
    damaged = ["fine" not in name for name, _, _ in shown]
    assert damaged == sorted(damaged, reverse=True)  # each of them before every one that is not
    assert [verdict == "anomalous" for _, _, verdict in shown] == damaged

    # Another threshold: at once, and only masks and verdicts change.
    between = (scores[1] + scores[2]) / 2
    field = panel.get_by_label("number input for Threshold")
    started = time.monotonic()
    field.fill(f"{between:.4f}")
    field.press("Enter")
    panel.get_by_role("button", name="Anomalous 2").wait_for()
    print(f"masks for another threshold after {time.monotonic() - started:.1f} s")
    again = cards(panel)
    assert [card[:2] for card in again] == [card[:2] for card in shown]
    assert [card[2] for card in again].count("anomalous") == 2

    panel.get_by_role("button", name="Anomalous 2").click()
    panel.get_by_text("of 12 photos").wait_for()
    panel.locator("button.card").nth(2).wait_for(state="detached")
    assert [card[0] for card in cards(panel)] == [card[0] for card in shown[:2]]
    panel.locator("button.card", has_text=shown[1][0]).click()
    panel.get_by_role("radio", name="Heat map").check()
    picture = panel.get_by_role("img", name=f"{shown[1][0]}, heat map")
    picture.wait_for()
    size = picture.evaluate("image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])")
    assert size == [400, 400]

    page = panel.page
    table = download(page, panel.get_by_role("button", name="Download table"), tmp_path)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert {row["path"] for row in rows if row["anomalous"] == "1"} == {card[0] for card in shown[:2]}
    bundle = zipfile.ZipFile(download(page, panel.get_by_role("button", name="Download all files"), tmp_path))
    names = bundle.namelist()
    assert bundle.testzip() is None
    assert {"results.csv", "results.json", "report.html"} < set(names)
    for kind in ("maps", "overlays", "masks"):
        assert sum(name.startswith(f"{kind}/") for name in names) == 12


def test_a_broken_photo_is_a_line_and_the_others_are_judged(panel: "Locator", tmp_path: Path) -> None:
    product, rng = ProceduralClass("blister", 3), np.random.default_rng(5)
    names = ("good 1.png", "good 2.png", "fine.png", "burnt.png")
    for name in names:
        photo, _ = product.sample(rng, (224, 224))
        if name == "burnt.png":
            cv2.circle(photo, (112, 112), 24, (20, 10, 5), -1)
        cv2.imwrite(str(tmp_path / name), photo[..., ::-1])
    good, judge = [tmp_path / name for name in names[:2]], [tmp_path / name for name in names[2:]]
    broken = [hostile.write_text(tmp_path), hostile.write_empty(tmp_path), hostile.write_large_png(tmp_path)]
    upload(panel, 0, *good)
    upload(panel, 1, *judge, *broken)
    panel.get_by_role("button", name="Find defects").click()
    panel.locator("button.card").first.wait_for(timeout=PATIENCE)
    assert [card[0] for card in cards(panel)] == ["burnt.png", "fine.png"]
    reasons = dict(text.split("\n", 1) for text in panel.locator(".card.unreadable").all_inner_texts())
    assert {name: reason.strip() for name, reason in reasons.items()}.keys() == {path.name for path in broken}
    assert "no image" in reasons["notes.jpg"]
    assert "empty" in reasons["nothing.jpg"]
    assert "megapixels" in reasons["poster.png"]


def test_an_inspection_can_be_stopped(panel: "Locator") -> None:
    panel.get_by_role("button", name="Try an example").click()
    panel.get_by_role("row", name="good 4.jpg").wait_for()
    panel.page.wait_for_timeout(1000)
    panel.get_by_role("button", name="Stop", exact=True).click()
    panel.page.get_by_test_id("toast-body").filter(has_text="Stopped").first.wait_for()
    panel.page.wait_for_timeout(2000)
    assert not panel.locator("button.card").count()
