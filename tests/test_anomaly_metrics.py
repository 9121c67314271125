"""Pixel and image metrics against scikit-learn, torchmetrics, a slow AUPRO and closed forms."""

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
from torchmetrics.functional.classification import binary_auroc, binary_average_precision, binary_precision_recall_curve

from dictas.metrics import IMAGE_METRICS, PIXEL_METRICS, aupro, image_metrics, pixel_metrics


def examples(seed: int, levels: int | None, images: int = 4) -> tuple[list[NDArray], list[NDArray]]:
    """Maps that know a little about blobs of different sizes; with ``levels`` distinct scores there are ties."""
    rng = np.random.default_rng(seed)
    maps, masks = [], []
    for _ in range(images):
        shape = tuple(rng.integers(12, 30, size=2))
        mask = scipy.ndimage.gaussian_filter(rng.random(shape), 1.2) > 0.56
        values = rng.random(shape) + 0.4 * mask
        if levels is not None:
            values = np.floor(values * levels) / levels
        maps.append(values.astype(np.float32))
        masks.append(mask)
    return maps, masks


def flat(maps: list[NDArray], masks: list[NDArray]) -> tuple[NDArray, NDArray]:
    return np.concatenate([m.ravel() for m in maps]), np.concatenate([m.ravel() for m in masks])


def slow_aupro(maps: list[NDArray], masks: list[NDArray], max_fpr: float) -> float:
    """The definition, threshold by threshold and region by region."""
    scores, truth = flat(maps, masks)
    eight = np.ones((3, 3))
    x, y = [0.0], [0.0]
    for threshold in np.unique(scores)[::-1]:
        overlaps = []
        for values, mask in zip(maps, masks, strict=True):
            labels, count = scipy.ndimage.label(mask, eight)
            overlaps += [(values[labels == region] >= threshold).mean() for region in range(1, count + 1)]
        x.append((scores[~truth] >= threshold).mean())
        y.append(float(np.mean(overlaps)))
    grid = np.array([*(a for a in x if a < max_fpr), max_fpr])
    heights = np.array(y[: len(grid) - 1])
    after = len(grid) - 1
    if x[after] == max_fpr:
        # Points exactly at the limit: the first one's height is where the area ends.
        end = y[after]
    else:
        slope = (y[after] - y[after - 1]) / (x[after] - x[after - 1])
        end = y[after - 1] + slope * (max_fpr - x[after - 1])
    heights = np.append(heights, end)
    return float(np.sum(np.diff(grid) * (heights[1:] + heights[:-1]) / 2) / max_fpr)


@pytest.mark.parametrize("levels", [None, 3, 10, 200])
@pytest.mark.parametrize("seed", range(3))
def test_values_are_those_of_scikit_learn(seed: int, levels: int | None) -> None:
    maps, masks = examples(seed, levels)
    scores, truth = flat(maps, masks)
    found = pixel_metrics(maps, masks)
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    assert found["pixel_ap"] == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
    precision, recall, thresholds = precision_recall_curve(truth, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    assert found["pixel_f1_max"] == pytest.approx(f1.max(), abs=1e-12)
    assert found["f1_threshold"] == pytest.approx(thresholds[f1[:-1].argmax()], abs=0)


@pytest.mark.parametrize("levels", [None, 7])
def test_values_are_those_of_torchmetrics(levels: int | None) -> None:
    maps, masks = examples(5, levels)
    scores, truth = (torch.from_numpy(part) for part in flat(maps, masks))
    scores = (scores / 2).double()  # torchmetrics takes scores outside 0..1 for logits
    found = pixel_metrics(maps, masks)
    assert found["pixel_auroc"] == pytest.approx(float(binary_auroc(scores, truth.int())), abs=1e-5)
    assert found["pixel_ap"] == pytest.approx(float(binary_average_precision(scores, truth.int())), abs=1e-5)
    precision, recall, _ = binary_precision_recall_curve(scores, truth.int())
    assert found["pixel_f1_max"] == pytest.approx(
        float(torch.nan_to_num(2 * precision * recall / (precision + recall)).max()), abs=1e-5
    )


@pytest.mark.parametrize("levels", [None, 2, 5, 50])
@pytest.mark.parametrize("max_fpr", [0.05, 0.3, 1.0])
def test_aupro_is_that_of_the_definition(levels: int | None, max_fpr: float) -> None:
    maps, masks = examples(11, levels, images=3)
    assert aupro(maps, masks, max_fpr) == pytest.approx(slow_aupro(maps, masks, max_fpr), abs=1e-12)
    assert pixel_metrics(maps, masks)["aupro"] == aupro(maps, masks, 0.3)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), levels=st.integers(1, 6), images=st.integers(1, 3))
def test_any_small_images(data: st.DataObject, levels: int, images: int) -> None:
    maps, masks = [], []
    for _ in range(images):
        cells = data.draw(st.lists(st.tuples(st.integers(0, levels), st.booleans()), min_size=12, max_size=12))
        maps.append(np.array([value for value, _ in cells], np.float32).reshape(3, 4))
        masks.append(np.array([anomalous for _, anomalous in cells]).reshape(3, 4))
    scores, truth = flat(maps, masks)
    found = pixel_metrics(maps, masks)
    if truth.all() or not truth.any():
        assert set(found.values()) == {None}
        assert aupro(maps, masks) is None
        return
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(truth, scores))
    assert found["pixel_ap"] == pytest.approx(average_precision_score(truth, scores))
    assert found["aupro"] == pytest.approx(slow_aupro(maps, masks, 0.3))
    marked = scores >= found["f1_threshold"]
    assert found["pixel_f1_max"] == pytest.approx(2 * (marked & truth).sum() / (marked.sum() + truth.sum()))


def test_aupro_by_hand() -> None:
    """Two regions of 1 and 4 pixels among 10 normal ones; the small one is found first, then one false alarm,
    then half of the large one together with one normal pixel, then the rest below everything.

    Corners (false positive rate, overlap): (0, 0) (0, .5) (.1, .5) (.2, .75) flat to 1. Up to .3 that is
    .1 * .5 + .1 * .625 + .1 * .75 = .1875 of .3.
    """
    values = np.zeros((3, 5), np.float32)
    mask = np.zeros((3, 5), bool)
    mask[0, 0] = True
    values[0, 0] = 0.9
    values[1, 4] = 0.8
    mask[1:3, 2:4] = True
    values[1, 2:4] = 0.5
    values[0, 4] = 0.5
    values[2, 2:4] = -1.0
    assert (~mask).sum() == 10
    assert aupro([values], [mask]) == pytest.approx(0.1875 / 0.3)


def test_pixels_that_touch_at_a_corner_are_one_region() -> None:
    mask = np.zeros((4, 4), bool)
    mask[0, 0] = mask[1, 1] = mask[3, 3] = True
    values = np.zeros((4, 4), np.float32)
    values[0, 0] = 1.0
    # Half of the first of two regions is found before any normal pixel; the rest ties with all of them.
    assert aupro([values], [mask], 1.0) == pytest.approx((0.25 + 1.0) / 2)


def test_a_perfect_map_and_its_opposite() -> None:
    _, masks = examples(3, None)
    perfect = pixel_metrics([mask.astype(np.float32) for mask in masks], masks)
    assert all(perfect[name] == pytest.approx(1.0) for name in PIXEL_METRICS)
    opposite = pixel_metrics([1.0 - mask.astype(np.float32) for mask in masks], masks)
    assert opposite["pixel_auroc"] == 0.0
    assert opposite["aupro"] == 0.0


def test_one_score_for_all_is_chance() -> None:
    _, masks = examples(3, None)
    found = pixel_metrics([np.full(mask.shape, 0.5, np.float32) for mask in masks], masks)
    share = np.concatenate([mask.ravel() for mask in masks]).mean()
    assert found["pixel_auroc"] == pytest.approx(0.5)
    assert found["pixel_ap"] == pytest.approx(share)
    assert found["aupro"] == pytest.approx(0.15)


def test_minus_zero_equals_zero() -> None:
    mask = np.array([[True, False]])
    assert pixel_metrics([np.array([[-0.0, 0.0]], np.float32)], [mask])["pixel_auroc"] == 0.5


@pytest.mark.parametrize("marked", [True, False])
def test_metrics_that_do_not_exist_are_none(marked: bool) -> None:
    masks = [np.full((3, 3), marked)]
    maps = [np.random.default_rng(0).random((3, 3)).astype(np.float32)]
    assert set(pixel_metrics(maps, masks).values()) == {None}
    assert aupro(maps, masks) is None
    assert image_metrics([0.1, 0.2], [marked, marked]) == dict.fromkeys(IMAGE_METRICS)
    assert set(pixel_metrics([], []).values()) == {None}


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_numbers_are_refused(wrong: float) -> None:
    values = np.zeros((3, 3), np.float32)
    values[1, 1] = wrong
    with pytest.raises(ValueError, match="NaN"):
        pixel_metrics([values], [np.eye(3, dtype=bool)])


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 3\)"):
        aupro([np.zeros((3, 3), np.float32)], [np.eye(4, dtype=bool)])


def test_image_metrics() -> None:
    assert image_metrics([0.1, 0.4, 0.35, 0.8], [False, False, True, True]) == pytest.approx(
        {"image_auroc": 0.75, "image_ap": 0.5 * 1.0 + 0.5 * 2 / 3}
    )
