"""Levels in a browser, on a scene in which a phrase means another thing at each of them."""

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import torch
from browser import Site, serving
from page import at_rest, look_for, opened, picture_after, show, slide, values
from truth import VIEW, encoder_of, inner_mask, overlap, true_mask, true_relevancy

from app.layers import LEVEL_COLORS
from encoders.base import LEVELS
from splat.codes import LanguageField
from splat.scene.room import CATEGORIES
from splat.trained import Trained

if TYPE_CHECKING:
    from playwright.sync_api import Page

PLACES = dict(zip(LEVELS, ("cat", "flower", "coffee cup"), strict=True))
"""What has the cat's features at each level."""


@pytest.fixture(scope="module")
def site(painted: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The app with the painted run, whose cat has changed codes with another thing at two of the levels."""
    folder = tmp_path_factory.mktemp("levels")
    (folder / "scene").symlink_to(painted / "scene")
    shutil.copytree(painted / "run", folder / "run")
    path = folder / "run" / "language.safetensors"
    field, labels = LanguageField.load(path), torch.from_numpy(np.load(painted / "labels.npy"))
    cat, indices, weights = members(labels, "cat"), field.indices.clone(), field.weights.clone()
    for level, name in enumerate(PLACES.values()):
        other = members(labels, name)
        for taker, giver in ((cat, other), (other, cat)):
            rows = giver[torch.arange(len(taker)) % len(giver)]
            indices[taker, level], weights[taker, level] = field.indices[rows, level], field.weights[rows, level]
    replace(field, indices=indices, weights=weights).save(path)
    with serving(folder, tmp_path_factory.mktemp("site")) as site:
        yield site


def members(labels: torch.Tensor, name: str) -> torch.Tensor:
    """Which Gaussians are a thing's."""
    return torch.nonzero(labels == 1 + CATEGORIES.index(name))[:, 0]


@pytest.fixture
def page(visit: Callable[..., "Page"]) -> "Page":
    """The Scene tab, where the cat was looked for and layers hide what is below."""
    page = visit()
    page.set_default_timeout(30_000)
    at_rest(page)
    look_for(page, "cat")
    opened(page, "Advanced")
    picture_after(page, lambda: page.get_by_label("Points and boxes").uncheck())
    slide(page, "Opacity", 1)
    return page


def test_a_fixed_level_answers(page: "Page", site: Site) -> None:
    trained = Trained.load(site.painted / "run")
    encoder = encoder_of(trained.field.encoder)
    show(page, "Relevancy")
    answer = page.locator(".viewport-answers li")
    # The last first: which level answers by itself is not said here, and what is chosen must change something.
    for level in (2, 1, 0):
        name = LEVELS[level]
        choice = page.get_by_role("radio", name=f"{level + 1} {name}", exact=True)
        shown = cv2.resize(picture_after(page, choice.check), (240, 180), interpolation=cv2.INTER_AREA)
        assert re.search(rf"\b{name}\b", answer.inner_text())
        expected = true_relevancy(trained, encoder, trained.camera(VIEW), "cat", level)
        stretched = (expected - expected.min()) / (expected.max() - expected.min())
        error = np.abs(values(shown, cv2.COLORMAP_TURBO) - stretched).mean()
        place = true_mask(site.painted, PLACES[name], stretched.shape)
        found = overlap(values(shown, cv2.COLORMAP_TURBO) > 0.7, place)
        print(f"{name}: relevancy is off by {error:.3f}, IoU with the {PLACES[name]} {found:.2f}")
        assert error < 0.02
        assert found > 0.6


def test_levels_are_told_apart_by_colours(page: "Page", site: Site) -> None:
    shown = show(page, "Levels")
    legend = page.locator(".viewport-legend").inner_text()
    assert all(name in legend for name in LEVELS)
    for color, place in zip(LEVEL_COLORS, PLACES.values(), strict=True):
        inside = shown[inner_mask(site.painted, place, shown.shape)]
        right = np.abs(inside - color).max(1) < 40
        print(f"{right.mean():.0%} of the {place} have their level's colour")
        assert right.mean() > 0.9
