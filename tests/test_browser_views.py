"""What the viewport draws over the scene, in a browser: held against what is true of the room and of the saved run."""

import re
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from browser import Site
from page import forget, look_for, opened, picture, picture_after, show, slide, values
from truth import VIEW, encoder_of, inner_mask, overlap, room_without, true_depth, true_mask, true_relevancy

from app.layers import COLORS
from encoders.base import Encoder
from splat.query import query_view
from splat.scene.room import CATEGORIES
from splat.trained import Trained

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture(scope="module")
def trained(site: Site) -> Trained:
    """The saved run."""
    return Trained.load(site.painted / "run")


@pytest.fixture(scope="module")
def encoder(trained: Trained) -> Encoder:
    """The one that the run is asked with."""
    return encoder_of(trained.field.encoder)


def shrunk(shown: np.ndarray) -> np.ndarray:
    """A picture as large as the run's own views."""
    return cv2.resize(shown, (240, 180), interpolation=cv2.INTER_AREA)


def extremes(page: "Page") -> list[float]:
    """The numbers at the two ends of the colour bar."""
    texts = page.locator(".viewport-legend span").all_inner_texts()
    return [float(text) for text in texts if text.replace(".", "").isdigit()]


def without_marks(page: "Page") -> None:
    opened(page, "Advanced")
    picture_after(page, lambda: page.get_by_label("Points and boxes").uncheck())


def shown_masks(masked: np.ndarray, plain: np.ndarray, count: int) -> np.ndarray:
    """Which of so many masks, painted at full opacity in their colours, each pixel is in; -1 for none. [H, W]"""
    expected = [0.25 * plain, *(0.65 * plain + 0.35 * np.array(color) for color in COLORS[:count])]
    errors = [cv2.blur(np.abs(masked - one).sum(2), (5, 5)) for one in expected]
    return np.argmin(errors, axis=0) - 1


def recolour(page: "Page") -> tuple[np.ndarray, np.ndarray]:
    """Pick a bright green for the selection; the colour as the button shows it then, and the picture."""
    button = page.get_by_role("button", name="Colour of a recoloured selection")
    button.click()
    shown = picture(page)
    for part, right, down in (("Saturation and brightness", 0.9, 0.2), ("Hue", 0.4, 0.5)):
        area = page.get_by_role("slider", name=part)
        box = area.bounding_box()
        assert box is not None
        place = {"x": right * box["width"], "y": down * box["height"]}
        shown = picture_after(page, lambda area=area, place=place: area.click(position=place))
    style = button.evaluate("button => getComputedStyle(button).backgroundColor")
    return np.array([float(value) for value in re.findall(r"[\d.]+", style)[:3]]), shown


def test_depth_is_how_far_things_are(page: "Page", trained: Trained) -> None:
    show(page, "Depth")
    shown = shrunk(slide(page, "Opacity", 1))
    depth = true_depth(trained.camera(VIEW))
    near, far = extremes(page)
    assert [near, far] == pytest.approx(np.percentile(depth, (1, 99)), abs=0.1)
    told = far - (far - near) * values(shown, cv2.COLORMAP_VIRIDIS)  # near is bright
    middle, most = np.percentile(np.abs(told - depth), (50, 90))
    print(f"distances read off the picture are wrong by {middle:.2f} m, nine in ten by less than {most:.2f} m")
    assert middle < 0.05
    assert most < 0.2


def test_a_thing_has_one_colour_of_features(page: "Page", site: Site) -> None:
    show(page, "Features")
    shown = slide(page, "Opacity", 1)
    assert "like colours, like features" in page.locator(".viewport-legend").inner_text()
    colours, spreads = {}, {}
    for name in CATEGORIES:
        inside = shown[inner_mask(site.painted, name, shown.shape)]
        colours[name] = np.median(inside, axis=0)
        spreads[name] = np.percentile(np.linalg.norm(inside - colours[name], axis=1), 75)
    print({name: round(float(spread), 1) for name, spread in spreads.items()})
    assert max(spreads.values()) < 40
    for one, other in combinations(CATEGORIES, 2):
        assert np.linalg.norm(colours[one] - colours[other]) > spreads[one] + spreads[other], (one, other)


def test_relevancy_and_its_legend_are_those_of_the_feature_map(
    page: "Page", trained: Trained, encoder: Encoder
) -> None:
    look_for(page, "cat")
    without_marks(page)
    show(page, "Relevancy")
    shown = shrunk(slide(page, "Opacity", 1))
    legend = page.locator(".viewport-legend")
    assert legend.is_visible()
    assert "Relevancy" in legend.inner_text()
    expected = true_relevancy(trained, encoder, trained.camera(VIEW), "cat", 0)
    assert extremes(page) == pytest.approx([expected.min(), expected.max()], abs=0.006)
    stretched = (expected - expected.min()) / (expected.max() - expected.min())
    error = np.abs(values(shown, cv2.COLORMAP_TURBO) - stretched)
    print(f"relevancy read off the picture is wrong by {error.mean():.3f}")
    assert error.mean() < 0.02
    show(page, "Picture")
    assert legend.is_hidden()


def test_a_higher_threshold_selects_less(page: "Page", trained: Trained, encoder: Encoder) -> None:
    plain = picture(page).astype(np.float64)
    look_for(page, "cat")
    without_marks(page)
    slide(page, "Opacity", 1)
    found = {}
    for threshold in (0.2, 0.7):
        found[threshold] = shown_masks(slide(page, "Threshold", threshold), plain, 1) == 0
        (direct,) = query_view(
            trained.gaussians, trained.field, trained.camera(VIEW), ["cat"], encoder, threshold=threshold
        )
        expected = cv2.resize(direct.mask.astype(np.uint8) * 255, plain.shape[1::-1]) > 127
        assert overlap(found[threshold], expected) > 0.9
    low, high = found.values()
    print(f"{low.sum()} pixels at 0.2, {high.sum()} at 0.7")
    assert 0 < high.sum() < 0.9 * low.sum()
    assert (high & ~low).sum() < 0.02 * high.sum()


def test_several_things_are_each_found_in_their_place(page: "Page", site: Site) -> None:
    plain = picture(page).astype(np.float64)
    rows = page.locator(".viewport-answers li")

    def check(names: Sequence[str]) -> None:
        assert len(rows.all()) == len(names)
        which = shown_masks(picture(page).astype(np.float64), plain, len(names))
        for number, name in enumerate(names):
            assert name in rows.nth(number).inner_text()
            mask = true_mask(site.painted, name, which.shape)
            print(f"IoU of {name!r}, number {number + 1} of {len(names)}: {overlap(which == number, mask):.2f}")
            assert overlap(which == number, mask) > 0.6

    look_for(page, "cat")
    without_marks(page)
    slide(page, "Opacity", 1)
    look_for(page, "rocket")
    check(("cat", "rocket"))
    forget(page, "cat")
    check(("rocket",))


def test_a_selection_is_recoloured_and_taken_away(page: "Page", site: Site, trained: Trained) -> None:
    plain = picture(page).astype(np.float64)
    cat = inner_mask(site.painted, "cat", plain.shape)
    grown = cv2.dilate(true_mask(site.painted, "cat", plain.shape).astype(np.uint8), np.ones((25, 25))) > 0
    look_for(page, "cat")
    opened(page, "3D selection")
    picture_after(page, lambda: page.get_by_role("button", name="Select in 3D").click())
    assert page.get_by_role("radio", name="selection recoloured").is_checked()
    without_marks(page)
    show(page, "Picture")

    color, recoloured = recolour(page)
    expected = 0.3 * plain + 0.7 * color
    error = np.abs(recoloured - expected).mean(2)
    print(f"recoloured pixels are off by {np.median(error[cat]):.1f}, others changed by "
          f"{np.abs(recoloured - plain)[~grown].mean():.1f}")  # fmt: skip
    assert np.median(error[cat]) < 10
    assert np.abs(recoloured - plain)[~grown].mean() < 3

    taken = shrunk(picture_after(page, lambda: page.get_by_role("radio", name="without selection").check()))
    behind = room_without("cat", trained.camera(VIEW)).astype(np.float64)
    before, cat = shrunk(plain), inner_mask(site.painted, "cat", taken.shape)
    nearer = np.abs(taken - behind).sum(2) < np.abs(taken - before).sum(2)
    print(f"{nearer[cat].mean():.0%} of the cat's pixels look like what is behind it")
    assert nearer[cat].mean() > 0.8
    assert np.abs(taken - before)[~shrunk(grown.astype(np.uint8)).astype(bool)].mean() < 3
