"""The read-out rule against loops over pixels: smoothing, levels, masks, votes and points."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from splat import relevancy
from splat.relevancy import LevelRule


def window_mean(image, side):
    """Mean over the part of each pixel's window that lies in the picture: the definition, pixel by pixel."""
    reach, result = side // 2, np.empty(image.shape)
    for y, x in np.ndindex(image.shape):
        window = image[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
        result[y, x] = window.astype(np.float64).mean()
    return result


def published_mask(smoothed, threshold):
    """LangSplatV2's mask from a smoothed map, written with scipy."""
    output = smoothed - smoothed.min()
    output = np.clip(output / (output.max() + 1e-9) * 2 - 1, 0, 1)
    chosen = (output > threshold).astype(float)
    inside = ndimage.uniform_filter(np.ones_like(chosen), 7, mode="constant")
    return ndimage.uniform_filter(chosen, 7, mode="constant") / inside > 0.5 + 1e-9


def random_maps(seed, levels=3, height=40, width=53):
    """Smooth blobs with noise, 0.05..0.95, as relevancy maps look."""
    rng = np.random.default_rng(seed)
    maps = np.stack([ndimage.gaussian_filter(rng.normal(size=(height, width)), 6) for _ in range(levels)])
    maps = (maps - maps.min()) / (maps.max() - maps.min()) * 0.8 + 0.1
    return torch.from_numpy((maps + rng.uniform(-0.05, 0.05, maps.shape)).astype(np.float32))


@pytest.mark.parametrize("seed", range(4))
def test_read_out_follows_the_published_protocol(seed):
    maps = random_maps(seed)
    pooled = np.stack([window_mean(level.numpy(), 29) for level in maps])
    smoothed = 0.5 * (maps.numpy() + pooled)
    level = int(smoothed.max(axis=(1, 2)).argmax())
    result = relevancy.read_out(maps)
    assert result.level == level
    np.testing.assert_allclose(result.smoothed, smoothed[level], atol=1e-5)
    expected = published_mask(smoothed[level], 0.4)
    assert 0.01 < expected.mean() < 0.9
    # A value within float32's rounding of the threshold may fall on either side.
    assert (result.mask.numpy() != expected).mean() < 0.001
    where = int(pooled.max(axis=(1, 2)).argmax())
    y, x = np.unravel_index(pooled[where].argmax(), pooled[where].shape)
    assert result.point == (x, y)


@pytest.mark.parametrize("shape", [(3, 33, 61), (2, 2, 9, 70), (7, 12)])
def test_pooling_is_the_mean_of_the_pixels_inside(shape):
    maps = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    expected = [window_mean(image, 29) for image in maps.reshape(-1, *shape[-2:]).numpy()]
    pooled = np.reshape(expected, shape)
    np.testing.assert_allclose(relevancy.pool(maps), pooled, atol=1e-6)
    np.testing.assert_allclose(relevancy.smooth(maps), 0.5 * (maps.numpy() + pooled), atol=1e-6)


def test_the_vote_is_a_strict_majority_of_the_pixels_inside():
    chosen = torch.rand(30, 41, generator=torch.Generator().manual_seed(2)) < 0.5
    expected = window_mean(chosen.numpy(), 7) > 0.5
    assert 0.2 < expected.mean() < 0.8
    np.testing.assert_array_equal(relevancy.vote(chosen), expected)
    half = torch.zeros(4, 4, dtype=torch.bool)
    half[:2] = True
    assert not relevancy.vote(half).any()


def test_a_fixed_level_answers_alone():
    maps = random_maps(5)
    alone = relevancy.read_out(maps[1:2])
    fixed = relevancy.read_out(maps, level=1)
    assert fixed.level == 1
    assert fixed.point == alone.point
    assert torch.equal(fixed.mask, alone.mask)


def test_a_higher_threshold_selects_less():
    maps = random_maps(6)
    areas = [int(relevancy.read_out(maps, threshold).mask.sum()) for threshold in (0.2, 0.4, 0.6)]
    assert areas[0] > areas[1] > areas[2] > 0


def test_pixels_without_a_rendering_do_not_move_the_threshold():
    """A hole in the scene, far from the object, selects nothing and changes the mask nowhere."""
    maps = torch.full((1, 90, 120), 0.45)
    maps[:, 20:50, 20:50] = 0.9
    whole = relevancy.read_out(maps)
    maps[:, 70:, 100:] = 0
    holed = relevancy.read_out(maps)
    assert torch.equal(holed.mask, whole.mask)
    assert 600 < int(whole.mask.sum()) < 1000
    assert whole.mask[35, 35]


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_a_map_without_contrast_selects_nothing(value):
    result = relevancy.read_out(torch.full((3, 20, 20), value))
    assert not result.mask.any()
    assert relevancy.bounding_box(result.mask) is None


def test_bounding_box_ends_after_the_last_pixel():
    mask = torch.zeros(10, 12, dtype=torch.bool)
    mask[3:5, 2] = True
    mask[7, 9] = True
    assert relevancy.bounding_box(mask) == (2, 3, 10, 8)


def one_level(plateau, summit=None):
    """A wide plateau above the ground, with a small summit on it. [60, 80]"""
    level = torch.full((60, 80), 0.2)
    level[5:55, 5:75] = plateau
    level[26:34, 36:44] = summit or plateau
    return level


def test_a_rule_may_weigh_the_mask_and_not_the_summit():
    """By its height the summit answers, by the mean in its mask the plateau that is higher than the summit's."""
    maps = torch.stack([one_level(0.75, 0.99), one_level(0.84)])
    assert relevancy.read_out(maps).level == 0
    assert relevancy.read_out(maps, rule=LevelRule(inside=True)).level == 1
    assert relevancy.read_out(maps.flip(0), rule=LevelRule(inside=True)).level == 0


@pytest.mark.parametrize("inside", [False, True])
def test_levels_before_the_first_never_answer(inside):
    # The first level would also be found elsewhere.
    maps = torch.stack([one_level(0.9).roll(12, dims=1), one_level(0.5), one_level(0.6)])
    alone = relevancy.read_out(maps[1:], rule=LevelRule(inside))
    found = relevancy.read_out(maps, rule=LevelRule(inside, first=1))
    assert found.level == 2
    assert torch.equal(found.mask, alone.mask)
    assert found.point == alone.point
    assert relevancy.read_out(maps[:1], rule=LevelRule(inside, first=1)).level == 0


def test_a_level_without_a_mask_does_not_answer():
    speck = torch.full((60, 80), 0.5)
    speck[30, 40] = 0.99
    maps = torch.stack([speck, one_level(0.4)])
    assert not relevancy.read_out(maps, level=0).mask.any()
    assert relevancy.read_out(maps, rule=LevelRule(inside=True)).level == 1


def test_a_second_phrase_adds_what_it_selects():
    first, second = torch.full((1, 60, 80), 0.2), torch.full((1, 60, 80), 0.2)
    first[:, 5:25, 5:25] = 0.9
    second[:, 35:55, 50:75] = 0.7
    found = relevancy.read_out(first, beside=second)
    assert found.mask[15, 15]
    assert found.mask[45, 60]
    alone = relevancy.read_out(first)
    assert not alone.mask[45, 60]
    assert torch.equal(found.smoothed, alone.smoothed)
    assert found.point == alone.point
