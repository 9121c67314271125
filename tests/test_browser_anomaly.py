"""The Anomaly tab in a browser: its example, and what is done with results.

Every test also shows that none of it needs a network: `visit` complains of whatever is asked of another machine.
"""

import csv
import json
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
    parts = [re.fullmatch(r"(.+)\n+([\d.]+) (anomalous|good)", text.strip()).groups() for text in found]
    return [(name, float(score), verdict) for name, score, verdict in parts]


def example(panel: "Locator") -> None:
    """Press Try an example and wait for its results."""
    panel.get_by_role("button", name="Try an example").click()
    panel.locator("button.card").first.wait_for(timeout=PATIENCE)


def to_threshold(panel: "Locator", value: float, flagged: int) -> None:
    """Choose a threshold at which so many photos are anomalous, and wait until the page says so."""
    field = panel.get_by_label("number input for Threshold")
    field.fill(f"{value:.4f}")
    field.press("Enter")
    panel.get_by_role("button", name=f"Anomalous {flagged}", exact=True).wait_for()


def test_the_example_shows_what_is_wrong(panel: "Locator") -> None:
    example(panel)
    shown = cards(panel)
    scores = [score for _, score, _ in shown]
    assert scores == sorted(scores, reverse=True)
    damaged = ["fine" not in name for name, _, _ in shown]
    assert damaged == sorted(damaged, reverse=True)  # each of them before every one that is not
    assert [verdict == "anomalous" for _, _, verdict in shown] == damaged

    # Another threshold: at once, and only masks and verdicts change.
    started = time.monotonic()
    to_threshold(panel, (scores[1] + scores[2]) / 2, 2)
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
    panel.page.wait_for_timeout(1000)
    assert not panel.page.get_by_test_id("toast-body").count()


def test_downloads_hold_what_is_shown(panel: "Locator", tmp_path: Path) -> None:
    example(panel)
    scores = [card[1] for card in cards(panel)]
    threshold = round((scores[2] + scores[3]) / 2, 4)
    to_threshold(panel, threshold, 3)
    shown = cards(panel)
    page = panel.page
    table = download(page, panel.get_by_role("button", name="Download table"), tmp_path)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    by_score = sorted(rows, key=lambda row: -float(row["score"]))
    verdicts = {"1": "anomalous", "0": "good"}
    assert [(row["path"], round(float(row["score"]), 4), verdicts[row["anomalous"]]) for row in by_score] == shown

    packed = download(page, panel.get_by_role("button", name="Download all files"), tmp_path)
    with zipfile.ZipFile(packed) as bundle:
        assert bundle.testzip() is None
        names = bundle.namelist()
        assert bundle.read("results.csv") == table.read_bytes()
        assert b"08 scratch" in bundle.read("report.html")
        results = json.loads(bundle.read("results.json"))
        assert results["counts"]["anomalous"] == 3
        for kind in ("maps", "overlays", "masks"):
            assert sum(name.startswith(f"{kind}/") for name in names) == len(rows) == 12
        for row in rows:
            levels, mask = (decoded(bundle.read(f"{kind}/{row['output']}.png")) for kind in ("maps", "masks"))
            np.testing.assert_array_equal(mask > 0, (levels + 0.5) / 65535 >= results["threshold"]["pixel"])
            assert float(row["area_fraction"]) == pytest.approx((mask > 0).mean(), abs=1e-6)


def decoded(content: bytes) -> np.ndarray:
    """A picture with the values that are in its file."""
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    return picture


def test_broken_photos_among_twenty_are_lines_and_the_others_are_judged(panel: "Locator", tmp_path: Path) -> None:
    product, rng = ProceduralClass("blister", 3), np.random.default_rng(5)
    good = [tmp_path / f"good {number}.png" for number in (1, 2)]
    judge = [tmp_path / f"{number:02}.jpg" for number in range(20)]
    for path in (*good, *judge):
        photo, _ = product.sample(rng, (224, 224))
        if path == judge[7]:
            cv2.circle(photo, (112, 112), 24, (20, 10, 5), -1)
        cv2.imwrite(str(path), photo[..., ::-1])
    broken = [hostile.write_text(tmp_path), hostile.write_empty(tmp_path), hostile.write_large_png(tmp_path)]
    broken.append(tmp_path / "torn.jpg")
    broken[-1].write_bytes(judge[0].read_bytes()[:3000])
    upload(panel, 0, *good)
    upload(panel, 1, *judge[:10], *broken, *judge[10:])
    panel.get_by_role("button", name="Find defects").click()
    panel.get_by_text("of 20 photos").wait_for(timeout=PATIENCE)
    assert re.search(r"Unreadable\s+4\s", panel.get_by_label("Result", exact=True).inner_text())
    assert cards(panel)[0][0] == "07.jpg"
    pages = cards(panel)
    panel.get_by_role("button", name="Better").click()
    panel.get_by_text("2 of 2").wait_for()
    pages += cards(panel)
    assert sorted(card[0] for card in pages) == [path.name for path in judge]
    panel.get_by_role("button", name="Unreadable 4").click()
    panel.locator("button.card").first.wait_for(state="detached")
    reasons = dict(text.split("\n", 1) for text in panel.locator(".card.unreadable").all_inner_texts())
    assert reasons.keys() == {path.name for path in broken}
    parts = {"notes.jpg": "no image", "nothing.jpg": "empty", "poster.png": "megapixels", "torn.jpg": "truncated"}
    for name, part in parts.items():
        assert part in reasons[name]
    table = download(panel.page, panel.get_by_role("button", name="Download table"), tmp_path)
    rows = {row["path"]: row for row in csv.DictReader(table.read_text().splitlines())}
    assert len(rows) == 24
    for name in parts:
        assert rows[name]["status"] == "unreadable"
        assert rows[name]["error"] == reasons[name].strip()


# Both are handled on the server at the same time; each is made of what was clicked and of the slider.
_BOTH_AT_ONCE = """([card, value]) => {
  const field = document.querySelector('[aria-label^="number input for Threshold"]');
  field.value = value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  document.querySelectorAll("button.card")[card].click();
}"""


def test_a_click_and_a_threshold_at_the_same_time_both_count(panel: "Locator") -> None:
    example(panel)
    names, scores, _ = zip(*cards(panel), strict=True)
    for card, flagged in ((3, 2), (1, 4), (5, 1), (2, 3)):
        panel.page.evaluate(_BOTH_AT_ONCE, [card, f"{(scores[flagged - 1] + scores[flagged]) / 2:.4f}"])
        panel.get_by_role("button", name=f"Anomalous {flagged}", exact=True).wait_for()
        panel.locator(f"button.card[data-photo='{card}'][aria-pressed=true]").wait_for()
        panel.get_by_role("img", name=f"{names[card]}, overlay").wait_for()


def test_a_number_field_may_hold_anything_while_it_is_typed_in(panel: "Locator") -> None:
    example(panel)
    flagged = panel.get_by_role("button", name=re.compile(r"Anomalous \d+")).inner_text()
    field = panel.get_by_label("number input for Threshold")
    for nonsense, text in (("7", "Good 12"), ("", flagged)):
        field.fill(nonsense)
        field.press("Enter")
        panel.get_by_role("button", name=text, exact=True).wait_for()
    assert not panel.page.get_by_test_id("toast-body").count()


@pytest.mark.parametrize(("motion", "behavior"), [("no-preference", "smooth"), ("reduce", "instant")])
def test_results_come_into_view_on_a_phone(visit: Callable[..., "Page"], motion: str, behavior: str) -> None:
    page = visit(width=390, height=844)
    page.emulate_media(reduced_motion=motion)
    page.evaluate(
        """() => {
          const real = Element.prototype.scrollIntoView;
          Element.prototype.scrollIntoView = function (how) {
            if (this.id === "anomaly-results") window.scrolled = how.behavior;
            real.call(this, how);
          };
        }"""
    )
    panel = tab(page, "Anomaly")
    start = panel.get_by_role("button", name="Find defects")
    assert start.bounding_box()["y"] < 844 / 2
    example(panel)
    page.wait_for_function("() => Math.abs(document.querySelector('#anomaly-results').getBoundingClientRect().top) < 2")
    assert panel.get_by_text("of 12 photos").is_visible()
    assert page.evaluate("window.scrolled") == behavior


def test_the_keyboard_goes_from_photo_to_photo(panel: "Locator") -> None:
    page = panel.page
    example(panel)
    names = [card[0] for card in cards(panel)]
    panel.locator("button.card").first.focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowRight"):
        page.keyboard.press(key)
    page.keyboard.press("Space")
    panel.get_by_role("img", name=f"{names[2]}, overlay").wait_for()
    chosen = panel.locator("button.card[aria-pressed=true]")
    assert chosen.count() == 1
    assert names[2] in chosen.inner_text()
    page.keyboard.press("ArrowRight")  # the keyboard is still there
    page.keyboard.press("Enter")
    panel.get_by_role("img", name=f"{names[3]}, overlay").wait_for()

    picture = panel.get_by_role("img", name=f"{names[3]}, overlay")
    panel.get_by_role("button", name="Fullscreen").press("Enter")
    page.wait_for_function("image => image.getBoundingClientRect().height > 700", arg=picture.element_handle())
    page.keyboard.press("Escape")
    page.wait_for_function("image => image.getBoundingClientRect().height < 700", arg=picture.element_handle())


def test_an_inspection_can_be_stopped(panel: "Locator") -> None:
    panel.get_by_role("button", name="Try an example").click()
    panel.get_by_role("row", name="good 4.jpg").wait_for()
    panel.page.wait_for_timeout(1000)
    panel.get_by_role("button", name="Stop", exact=True).click()
    panel.page.get_by_test_id("toast-body").filter(has_text="Stopped").first.wait_for()
    panel.page.wait_for_timeout(2000)
    assert not panel.locator("button.card").count()
