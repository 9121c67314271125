"""Label files with outlines: LERF's and labelme's, at any size and through any lens, and what is wrong with some."""

import json

import numpy as np
import pytest
from label_files import in_photo, radial, rectangle, write_lerf

from encoders.errors import InputError
from splat.evaluate import iou
from splat.lerf_labels import read_labels, read_view_labels
from splat.scene.undistort import Lens


def polygon(category, *outline):
    return {"category": category, "segmentation": [list(point) for point in outline]}


def test_lerf_pieces_of_a_category_become_one_mask_with_several_boxes(tmp_path):
    cups = [rectangle("cup", 2, 3, 9, 8), rectangle("cup", 20, 3, 25, 8)]
    write_lerf(tmp_path, "a", [cups[0], rectangle("tree", 0, 0, 4, 4), cups[1]])
    (view,) = read_labels(tmp_path)
    assert (view.name, view.categories) == ("a", ["cup", "tree"])
    expected = np.zeros((40, 60), bool)
    expected[3:9, 2:10] = True
    expected[3:9, 20:26] = True
    np.testing.assert_array_equal(view.mask("cup"), expected)
    np.testing.assert_array_equal(view.boxes("cup"), [[2, 3, 9, 8], [20, 3, 25, 8]])


def test_labels_follow_the_size_of_the_view(tmp_path):
    write_lerf(tmp_path, "a", [rectangle("cup", 8, 4, 31, 19)])
    (view,) = read_labels(tmp_path)
    assert view.size == (60, 40)
    expected = np.zeros((20, 30), bool)
    expected[2:10, 4:16] = True
    shown = view.shown("cup", 30, 20)
    np.testing.assert_array_equal(shown.mask, expected)
    np.testing.assert_allclose(shown.boxes, [[3.75, 1.75, 15.25, 9.25]])


def test_outlines_between_pixels_are_cut_off_and_not_rounded(tmp_path):
    """Against half planes: the corner of a square, an L (not convex) and a triangle, with fractions of a pixel."""
    corner = polygon("L", (2.9, 3.6), (20.7, 3.6), (20.7, 8.5), (9.8, 8.5), (9.8, 30.9), (2.9, 30.9))
    objects = [corner, polygon("triangle", (30.9, 10.6), (50.7, 10.8), (30.5, 30.9))]
    write_lerf(tmp_path, "a", [*objects, rectangle("box", 0.9, 0.9, 5.9, 2.9)])
    (view,) = read_labels(tmp_path)
    y, x = np.mgrid[:40, :60]
    upright, lying = (x >= 2) & (x <= 9) & (y >= 3) & (y <= 30), (x >= 2) & (x <= 20) & (y >= 3) & (y <= 8)
    np.testing.assert_array_equal(view.mask("L"), upright | lying)
    np.testing.assert_array_equal(view.mask("triangle"), (x >= 30) & (y >= 10) & (x + y <= 60))
    np.testing.assert_array_equal(view.mask("box"), (x <= 5) & (y <= 2))
    # At other sizes the mask follows, and is not drawn again.
    np.testing.assert_array_equal(view.mask("L", 120, 80), (upright | lying).repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("k", [-0.15, 0.1])
@pytest.mark.parametrize(("width", "height"), [(400, 300), (160, 120)])
def test_outlines_and_boxes_go_through_the_lens_of_the_photo(tmp_path, k, width, height):
    write_lerf(tmp_path, "a", [rectangle("cup", 40, 30, 99, 79), rectangle("cup", 300, 200, 339, 249)], 400, 300)
    (view,) = read_labels(tmp_path)
    x, y = in_photo(radial(k), width, height)
    column, row = np.floor(x), np.floor(y)
    first = (column >= 40) & (column <= 99) & (row >= 30) & (row <= 79)
    second = (column >= 300) & (column <= 339) & (row >= 200) & (row <= 249)
    shown = view.shown("cup", width, height, radial(k))
    assert (shown.mask != (first | second)).sum() <= 2  # float32 beside float64
    boxes = []
    for piece, (x0, y0, x1, y1) in ((first, (40, 30, 99, 79)), (second, (300, 200, 339, 249))):
        inside = (x - 0.5 >= x0) & (x - 0.5 <= x1) & (y - 0.5 >= y0) & (y - 0.5 <= y1)
        assert (inside <= piece).mean() > 0.99
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        boxes.append([columns[0], rows[0], columns[-1], rows[-1]])
    np.testing.assert_array_equal(shown.boxes, boxes)
    assert iou(view.mask("cup", width, height), first | second) < 0.9


def test_the_labelled_picture_may_be_smaller_than_the_photo(tmp_path):
    write_lerf(tmp_path, "a", [rectangle("cup", 20, 15, 49, 39)], 200, 150)
    (view,) = read_labels(tmp_path)
    x, y = in_photo(radial(0.1), 200, 150)
    x, y = np.floor(x / 2), np.floor(y / 2)
    expected = (x >= 20) & (x <= 49) & (y >= 15) & (y <= 39)
    assert (view.shown("cup", 200, 150, radial(0.1)).mask != expected).sum() <= 2


@pytest.mark.parametrize("lens", [None, Lens("SIMPLE_PINHOLE", 400, 300, (350.0, 200.0, 150.0)), radial(0.0)])
def test_a_lens_that_does_not_bend_changes_nothing(tmp_path, lens):
    write_lerf(tmp_path, "a", [rectangle("cup", 40, 30, 99, 79)], 400, 300)
    (view,) = read_labels(tmp_path)
    shown = view.shown("cup", 400, 300, lens)
    np.testing.assert_array_equal(shown.mask, view.mask("cup"))
    np.testing.assert_array_equal(shown.boxes, [[40, 30, 99, 79]])


def test_what_a_view_does_not_show(tmp_path):
    """Less than a pixel of the view is in it; outside the picture, or cut off by straightening it, is not."""
    objects = [rectangle("crumb", 41, 41, 41, 41), rectangle("far", 500, 10, 520, 20), rectangle("edge", 0, 0, 6, 5)]
    write_lerf(tmp_path, "a", objects, 400, 300)
    (view,) = read_labels(tmp_path)
    small = view.shown("crumb", 40, 30)
    assert small is not None
    assert not small.mask.any()
    assert view.shown("far", 400, 300) is None
    assert view.shown("edge", 400, 300) is not None
    assert view.shown("edge", 400, 300, radial(-0.15)) is None


def test_labelme_files_are_read(tmp_path):
    shapes = [
        {"label": "cup", "points": [[30, 30], [10, 5]], "shape_type": "rectangle"},
        {"label": "cat", "points": [[0, 0], [10, 0], [0, 10]], "shape_type": "polygon"},
    ]
    content = {"imagePath": "a.jpg", "imageWidth": 60, "imageHeight": 40, "shapes": shapes}
    (tmp_path / "a.json").write_text(json.dumps(content))
    (view,) = read_labels(tmp_path)
    np.testing.assert_array_equal(view.boxes("cup"), [[10, 5, 30, 30]])
    assert view.mask("cup").sum() == 21 * 26
    assert view.mask("cat")[2, 2]
    assert not view.mask("cat")[8, 8]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{not json", "not valid JSON"),
        ("[]", "neither LERF nor labelme"),
        ('{"info": SIZE}', "objects"),
        ('{"info": {"width": 90000, "height": 90000}, "objects": []}', "90000x90000 pixels, more"),
        ('{"imageWidth": 90000, "imageHeight": 90000, "shapes": []}', "90000x90000 pixels, more"),
        ('{"info": {"width": 0, "height": 4}, "objects": []}', "info.width"),
        ('{"info": SIZE, "objects": [{"category": "a", "segmentation": []}]}', "segmentation"),
        ('{"info": SIZE, "objects": [{"category": " ", "segmentation": [[1, 2]]}]}', "category"),
        ('{"info": SIZE, "objects": [{"category": "a", "segmentation": [[1, NaN]]}]}', "finite"),
        ('{"imageWidth": 4, "imageHeight": 4, "shapes": [CIRCLE]}', "shape_type"),
    ],
)
def test_bad_label_files_are_named(tmp_path, text, message):
    circle = '{"label": "a", "points": [[1, 2], [2, 3]], "shape_type": "circle"}'
    text = text.replace("SIZE", '{"width": 4, "height": 4}').replace("CIRCLE", circle)
    (tmp_path / "view.json").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_view_labels(tmp_path / "view.json")
    assert "view.json" in str(caught.value)


def test_missing_and_empty_label_folders_are_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_labels(tmp_path / "nothing")
    with pytest.raises(InputError, match="no label files"):
        read_labels(tmp_path)
