"""Tiles cover an image, and what is blended from them is what was cut."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from inspection import Blocks, ColourDistance, backbone, texture

from dictas.detector import Backbone, image_score, pixel_map
from dictas.tiles import Blend, Tiling, boxes, judge_image
from encoders.errors import InputError


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(32, 120), st.floats(0, 0.9))
def test_tiles_cover_the_image_with_the_overlap_asked_for(height, width, side, overlap):
    tiling = Tiling(side, overlap)
    found = boxes(height, width, tiling)
    covered = np.zeros((height, width), int)
    for box in found:
        assert box.shape == (min(side, height), min(side, width))
        covered[box.top : box.bottom, box.left : box.right] += 1
    assert covered.min() >= 1
    assert max(box.bottom for box in found) == height
    assert max(box.right for box in found) == width
    lefts = sorted({box.left for box in found})
    assert all(later - earlier <= side * (1 - overlap) + 0.5 for earlier, later in pairwise(lefts))
    assert len(lefts) == len(range(0, max(width - side, 0), max(1, round(side * (1 - overlap))))) + 1


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("shape", [(100, 230), (64, 64), (20, 300)])
def test_a_function_of_position_is_reassembled(shape, overlap):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    whole = (0.3 + 0.2 * np.sin(rows / 9) + 0.3 * np.cos(columns / 7)).astype(np.float32)
    tiling = Tiling(64, overlap)
    order = np.random.default_rng(0).permutation(len(boxes(*shape, tiling)))
    blends = []
    for numbers in (order, order[::-1]):
        blend = Blend(*shape, tiling)
        for number in numbers:
            box = boxes(*shape, tiling)[number]
            blend.add(box, box.cut(whole))
        blends.append(blend.result())
    np.testing.assert_allclose(blends[0], whole, atol=1e-6)
    np.testing.assert_allclose(blends[1], blends[0], atol=1e-6)


def test_disagreeing_tiles_fade_into_each_other():
    tiling = Tiling(100, 0.5)
    first, second = boxes(100, 150, tiling)
    blend = Blend(100, 150, tiling)
    blend.add(first, np.zeros((100, 100), np.float32))
    blend.add(second, np.ones((100, 100), np.float32))
    row = blend.result()[50]
    np.testing.assert_array_equal(row[:50], 0)
    np.testing.assert_array_equal(row[100:], 1)
    # Over an overlap of n pixels the weights are sin^2 and cos^2 of the same angle.
    expected = np.sin(np.pi / 2 * (np.arange(50) + 0.5) / 50) ** 2
    np.testing.assert_allclose(row[50:100], expected, atol=1e-5)


def test_a_small_defect_stays_visible_in_tiles():
    image = texture(0, 400, 520)
    image[300:308, 411:419] = (230, 20, 20)
    detector = ColourDistance()
    detector.remember([backbone().batch([texture(1)])])
    whole, tiled = (judge_image(backbone(), detector, image, tiling, 4).map for tiling in (None, Tiling(64)))
    assert whole.shape == tiled.shape == (400, 520)
    peak = np.unravel_index(tiled.argmax(), tiled.shape)
    np.testing.assert_allclose(peak, (304, 415), atol=10)
    assert tiled.max() > 8 * whole.max()


@pytest.mark.parametrize("size", [1, 4])
def test_the_score_of_a_tiled_image_is_that_of_its_worst_tile(size):
    """A defect of 0.03 % of the area: the mean of the highest 0.5 % of the whole map would drown it."""
    image = texture(0, 400, 520)
    image[300:308, 411:419] = (230, 20, 20)
    detector, tiling = ColourDistance(), Tiling(64)
    detector.remember([backbone().batch([texture(1)])])
    found = judge_image(backbone(), detector, image, tiling, size)
    tiles = [judge_image(backbone(), detector, box.cut(image), None, 1) for box in boxes(400, 520, tiling)]
    assert found.score == pytest.approx(max(image_score(tile.map) for tile in tiles))
    assert found.score > 3 * image_score(found.map)
    good = judge_image(backbone(), detector, texture(0, 400, 520), tiling, size)
    assert found.score > 5 * good.score


def test_an_image_smaller_than_a_tile_is_one_tile():
    image = texture(3, 40, 90)
    detector = ColourDistance()
    detector.remember([backbone().batch([texture(1)])])
    one, whole = (judge_image(backbone(), detector, image, tiling, 4) for tiling in (Tiling(128), None))
    np.testing.assert_allclose(one.map, whole.map, atol=1e-7)
    assert one.score == pytest.approx(whole.score)


def test_tiles_meet_the_detector_in_batches_of_one_size():
    sizes = []

    class Watched(ColourDistance):
        def maps(self, query):
            sizes.append(query.images.shape)
            return torch.zeros(len(query.images), *query.grid)

    judge_image(Backbone(Blocks(), (1,), 64), Watched(), texture(0, 200, 200), Tiling(64, 0.0), 3)
    assert [size[0] for size in sizes] == [3, 3, 3, 3, 3, 1]
    assert {size[1:] for size in sizes} == {(64, 64, 3)}
    assert pixel_map(torch.zeros(8, 8), (64, 64), (64, 64)).shape == (64, 64)


@pytest.mark.parametrize(
    ("side", "overlap", "option"), [(8, 0.25, "--tile"), (64, 0.95, "--overlap"), (64, -0.1, "--overlap")]
)
def test_useless_tilings_are_refused(side, overlap, option):
    with pytest.raises(InputError, match=option):
        Tiling(side, overlap)
