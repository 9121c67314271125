"""3D-OVS' folders: masks at any size and through any lens, what counts as white, and names that do not match."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from label_files import in_photo, radial, write_masks
from scipy import ndimage

from encoders.errors import InputError
from splat.ovs_labels import read_masks

WIDTH, HEIGHT = 60, 48


def spots(seed: int) -> np.ndarray:
    """A mask of several pieces. bool [H, W]"""
    noise = np.random.default_rng(seed).normal(size=(HEIGHT, WIDTH))
    return np.asarray(ndimage.gaussian_filter(noise, 3) > 0.05)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two views; the second does not show the egg tart, and has a black mask of the hand."""
    black = np.zeros((HEIGHT, WIDTH), bool)
    views = {
        "00": {"banana": spots(0), "Portuguese egg tart": spots(1), "hand": spots(2)},
        "10": {"banana": spots(3), "hand": black},
    }
    return write_masks(tmp_path / "segmentations", views)


def test_masks_and_boxes_at_any_size(folder: Path) -> None:
    views = read_masks(folder)
    assert [view.name for view in views] == ["00", "10"]
    assert [view.categories for view in views] == [["Portuguese egg tart", "banana", "hand"]] * 2
    for view, name, seed in ((views[0], "banana", 0), (views[0], "hand", 2), (views[1], "banana", 3)):
        mask, shown = spots(seed), view.shown(name, WIDTH, HEIGHT)
        assert shown is not None
        np.testing.assert_array_equal(shown.mask, mask)
        labels, _ = ndimage.label(mask, np.ones((3, 3)))
        found = [[x.start, y.start, x.stop - 1, y.stop - 1] for y, x in ndimage.find_objects(labels)]
        assert len(found) > 3
        assert sorted(shown.boxes.tolist()) == sorted(found)
        double = view.shown(name, 2 * WIDTH, 2 * HEIGHT)
        assert double is not None
        np.testing.assert_array_equal(double.mask, mask.repeat(2, 0).repeat(2, 1))
    assert views[1].shown("Portuguese egg tart", WIDTH, HEIGHT) is None
    assert views[1].shown("hand", WIDTH, HEIGHT) is None


def test_grey_counts_from_the_middle(tmp_path: Path) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    (view,) = read_masks(write_masks(tmp_path, {"00": {"banana": grey}}))
    shown = view.shown("banana", 16, 16)
    assert shown is not None
    np.testing.assert_array_equal(shown.mask.ravel(), np.arange(256) > 127)


def test_what_is_smaller_than_a_pixel_is_still_there(tmp_path: Path) -> None:
    dot = np.zeros((HEIGHT, WIDTH), bool)
    dot[1, 1] = True
    (view,) = read_masks(write_masks(tmp_path, {"00": {"dot": dot}}))
    shown = view.shown("dot", WIDTH // 12, HEIGHT // 12)
    assert shown is not None
    assert not shown.mask.any()
    assert shown.boxes.shape == (0, 4)


@pytest.mark.parametrize("k", [-0.15, 0.1])
@pytest.mark.parametrize(("width", "height"), [(400, 300), (200, 150)])
def test_masks_go_through_the_lens_of_the_photo(tmp_path: Path, k: float, width: int, height: int) -> None:
    drawn = np.zeros((300, 400), bool)
    drawn[30:80, 40:100] = drawn[200:260, 300:360] = True
    (view,) = read_masks(write_masks(tmp_path, {"00": {"square": drawn}}))
    x, y = (np.floor(place).astype(int) for place in in_photo(radial(k), width, height))
    expected = drawn[y.clip(0, 299), x.clip(0, 399)]
    shown = view.shown("square", width, height, radial(k))
    assert shown is not None
    assert (shown.mask != expected).sum() <= 2  # float32 beside float64
    straight = view.shown("square", width, height)
    assert straight is not None
    assert (straight.mask & expected).sum() / (straight.mask | expected).sum() < 0.92


def test_a_class_that_straightening_cuts_off_is_not_in_the_view(tmp_path: Path) -> None:
    drawn = np.zeros((300, 400), bool)
    drawn[:6, :7] = True
    (view,) = read_masks(write_masks(tmp_path, {"00": {"corner": drawn}}))
    assert view.shown("corner", 200, 150) is not None
    assert view.shown("corner", 200, 150, radial(-0.15)) is None


def test_masks_do_not_pile_up(tmp_path: Path) -> None:
    mask = np.zeros((600, 800), bool)
    mask[100:300, 100:300] = True
    views = read_masks(write_masks(tmp_path, {f"{number:02}": {"a": mask, "b": mask} for number in range(4)}))
    views[0].shown("a", 40, 30)
    tracemalloc.start()
    for view in views:
        for name in view.categories:
            assert view.shown(name, 40, 30) is not None
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < mask.size / 2


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_is_no_part_of_a_name(folder: Path, encoding: str) -> None:
    (folder / "classes.txt").write_text("hand\r\nbanana\r\nPortuguese egg tart\r\n\r\n", encoding=encoding)
    views = read_masks(folder)
    assert views[0].categories == ["hand", "banana", "Portuguese egg tart"]
    assert views[0].shown("hand", WIDTH, HEIGHT) is not None


def no_classes(folder: Path) -> None:
    (folder / "classes.txt").write_text("\n \n")


def path_as_class(folder: Path) -> None:
    (folder / "classes.txt").write_text("../secret\n")


def no_masks(folder: Path) -> None:
    for mask in folder.rglob("*.png"):
        mask.unlink()


def broken_mask(folder: Path) -> None:
    for mask in folder.rglob("*.png"):
        mask.write_bytes(b"no picture")


def misspelt(folder: Path) -> None:
    for mask in folder.rglob("banana.png"):
        mask.rename(mask.with_name("bananna.png"))


def one_more_class(folder: Path) -> None:
    with (folder / "classes.txt").open("a") as names:
        names.write("wood wall\n")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (no_classes, "names no classes"),
        (path_as_class, "no file can be named by"),
        (no_masks, "has no masks"),
        (broken_mask, r"banana\.png"),
        (misspelt, r"00/bananna\.png is a mask of a class that .*classes\.txt does not name"),
        (one_more_class, "'wood wall', of which no view has a mask"),
    ],
)
def test_unusable_labels_are_named(spoil: Callable[[Path], None], sentence: str, folder: Path) -> None:
    spoil(folder)
    with pytest.raises(InputError, match=sentence):
        read_masks(folder)[0].shown("banana", WIDTH, HEIGHT)


def test_files_that_systems_leave_are_no_masks(folder: Path) -> None:
    (folder / "00" / "._banana.png").write_bytes(b"\x00\x05")
    (folder / "00" / "notes.txt").write_text("drawn by hand")
    (folder / "__MACOSX").mkdir()
    assert [view.name for view in read_masks(folder)] == ["00", "10"]
