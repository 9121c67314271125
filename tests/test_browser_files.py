"""Files of the Scene tab, fetched through a browser: what is in them is what was seen, and what the saved run says."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from browser import Site
from page import choose, download, look_for, opened, picture, show
from truth import VIEW, encoder_of, overlap, true_mask, true_relevancy

from encoders.base import LEVELS
from encoders.files import read_image
from splat.evaluate import renderer
from splat.query import query_view, relevancy_maps
from splat.trained import Trained

if TYPE_CHECKING:
    from playwright.sync_api import Page


def saved(page: "Page", kind: str, name: str, folder: Path) -> Path:
    """Make a file and fetch it; its name is unlike that of the file that was made before."""
    choose(page, "What to save", kind)
    page.get_by_role("button", name="Make the file").click()
    file = page.get_by_role("row", name=re.compile(rf"^{re.escape(name)}"))
    path = download(page, file.get_by_role("link"), folder)
    assert path.name == name
    return path


def test_a_saved_picture_is_the_one_that_is_shown(page: "Page", site: Site, tmp_path: Path) -> None:
    opened(page, "Save a file")
    trained, kind = Trained.load(site.painted / "run"), "picture (PNG)"
    plain = read_image(saved(page, kind, "run.png", tmp_path))
    camera = trained.camera(VIEW).resized(plain.shape[1], plain.shape[0])
    assert np.abs(plain - renderer(trained.gaussians)(camera) * 255).max() <= 1
    looks = {"picture": (plain, picture(page))}
    look_for(page, "cat")
    shown = picture(page)
    looks["mask"] = (read_image(saved(page, kind, "run-cat.png", tmp_path)), shown)
    look_for(page, "rocket")
    shown = show(page, "Relevancy")
    looks["relevancy"] = (read_image(saved(page, kind, "run-cat-rocket.png", tmp_path)), shown)
    for mode, (file, shown) in looks.items():
        resized = cv2.resize(file, shown.shape[1::-1], interpolation=cv2.INTER_AREA).astype(np.float64)
        difference = np.abs(resized - shown).mean()
        others = [np.abs(resized - other).mean() for name, (_, other) in looks.items() if name != mode]
        print(f"{mode}: file and screen differ by {difference:.2f}, from other screens by {min(others):.1f}")
        assert difference < 4  # what JPEG and another size leave
        assert min(others) > 10


def test_saved_relevancy_is_that_of_the_run(page: "Page", site: Site, tmp_path: Path) -> None:
    look_for(page, "cat")
    look_for(page, "rocket")
    opened(page, "Save a file")
    with np.load(saved(page, "relevancy (npz)", "run-cat-rocket-relevancy.npz", tmp_path), allow_pickle=False) as file:
        found = dict(file)
    trained = Trained.load(site.painted / "run")
    camera, encoder = trained.camera(VIEW), encoder_of(trained.field.encoder)
    names, size = ("cat", "rocket"), (camera.height, camera.width)
    assert tuple(found["names"]) == names
    assert tuple(found["levels"]) == LEVELS
    assert {name: value.shape for name, value in found.items()} == {
        "names": (2,), "levels": (3,), "relevancy": (2, 3, *size), "smoothed": (2, *size), "mask": (2, *size),
        "level": (2,), "confidence": (2,), "point": (2, 2), "K": (3, 3), "viewmat": (4, 4),
    }  # fmt: skip
    asked = (trained.gaussians, trained.field, camera, names, encoder)
    np.testing.assert_allclose(found["relevancy"], relevancy_maps(*asked).numpy(), atol=1e-6)
    for number, direct in enumerate(query_view(*asked)):
        level = int(found["level"][number])
        assert level == direct.level
        exact = true_relevancy(trained, encoder, camera, direct.phrase, level)
        np.testing.assert_allclose(found["smoothed"][number], exact, atol=1e-5)
        assert found["confidence"][number] == pytest.approx(exact.max(), abs=1e-5)
        np.testing.assert_array_equal(found["mask"][number], direct.mask)
        mask = true_mask(site.painted, direct.phrase, size)
        print(f"IoU of {direct.phrase!r} in the file: {overlap(found['mask'][number], mask):.2f}")
        assert overlap(found["mask"][number], mask) > 0.6
        x, y = found["point"][number]
        assert mask[y, x]
    np.testing.assert_array_equal(found["K"], camera.K)
    np.testing.assert_array_equal(found["viewmat"], camera.viewmat)
