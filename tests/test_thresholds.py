"""Thresholds against closed forms, simulation and scikit-learn."""

import numpy as np
import pytest
from inspection import ColourDistance, backbone, texture
from scipy.stats import t as student
from sklearn.metrics import f1_score, precision_recall_curve

from dictas.detector import image_score
from dictas.memory import Memory
from dictas.support import Support, rotated
from dictas.thresholds import CHANGED_SPREAD, PRIOR, SPREAD, LabelledMaps, fixed, from_support, normal_limit
from dictas.tiles import Judgement, Tiling, judge_image
from encoders.errors import InputError


@pytest.mark.parametrize("count", [1, 2, 4, 16])
@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_false_alarm_rate_holds_where_its_assumption_does(count, rate):
    rng = np.random.default_rng(count)
    # The prior's own model: a spread per product, then scores of that product.
    spreads = SPREAD * np.sqrt(PRIOR / rng.chisquare(PRIOR, 4000))
    logs = -3 + spreads[:, None] * rng.normal(size=(4000, count + 200))
    scores = np.exp(logs)
    limits = np.array([normal_limit(row[:count], rate) for row in scores])
    alarms = (scores[:, count:] >= limits[:, None]).mean()
    assert alarms == pytest.approx(rate, rel=0.15)


@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_false_alarm_rate_holds_with_doubt(rate):
    rng = np.random.default_rng(0)
    spreads = SPREAD * np.sqrt(PRIOR / rng.chisquare(PRIOR, 20000))
    means = rng.normal(0, CHANGED_SPREAD, 20000)
    judged, others = rng.normal(0, spreads), rng.normal(means, spreads)
    limits = np.array([normal_limit([0.01 * np.exp(one)], rate, CHANGED_SPREAD) for one in judged])
    assert (0.01 * np.exp(others) >= limits).mean() == pytest.approx(rate, rel=0.25)


@pytest.mark.parametrize("count", [2, 4, 8, 16])
def test_maxima_that_are_gumbel_exceed_it_at_most_twice_as_often(count):
    rng = np.random.default_rng(count)
    scores = 0.1 + 0.012 * rng.gumbel(size=(2000, count + 200))
    limits = np.array([normal_limit(row[:count], 0.01) for row in scores])
    assert (scores[:, count:] >= limits[:, None]).mean() < 0.02


def test_limit_is_a_quantile_of_students_distribution():
    scores = np.array([0.1, 0.12, 0.09, 0.15])
    logs = np.log(scores)
    variance = (PRIOR * SPREAD**2 + 3 * logs.var(ddof=1)) / (PRIOR + 3)
    predictive = student(PRIOR + 3, logs.mean(), np.sqrt(variance * 1.25))
    assert predictive.sf(np.log(normal_limit(scores, 0.02))) == pytest.approx(0.02)


def test_limit_is_tighter_with_more_images_and_scales_with_them():
    scores = [0.1 * 1.1 ** (number % 3) for number in range(12)]
    limits = [normal_limit(scores[:count], 0.01) for count in (1, 3, 6, 12)]
    assert limits == sorted(limits, reverse=True)
    assert normal_limit([0.2 * score for score in scores], 0.01) == pytest.approx(0.2 * limits[-1])
    assert normal_limit(scores, 0.1) < normal_limit(scores, 0.01)
    assert normal_limit([0.9, 0.8], 0.001) == 1.0
    assert np.isfinite(normal_limit([0.0, 0.0], 0.01))


def test_each_support_image_is_judged_by_the_others():
    images = [texture(number) for number in range(3)]
    images.append(np.clip(texture(3).astype(int) + 40, 0, 255).astype(np.uint8))
    detector = ColourDistance()
    seen = [[backbone().batch([image])] for image in images]
    memory = Support((), tuple(images), "").memory(detector, backbone(), None, 4)
    found = from_support(backbone(), detector, images, memory, 0.05, None, 4)
    assert found.method == "leave-one-out"
    assert found.false_alarms == 0.05
    for left_out, score in enumerate(found.samples):
        detector.remember([seen[other][0] for other in range(4) if other != left_out])
        assert score == judge_image(backbone(), detector, images[left_out], None, 4).score
    assert np.argmax(found.samples) == 3
    assert found.pixel == found.image == normal_limit(found.samples, 0.05)


def test_one_support_image_is_judged_changed():
    image = texture(0)
    detector = ColourDistance()
    memory = Support((), (image,), "").memory(detector, backbone(), Tiling(64), 4)
    found = from_support(backbone(), detector, [image], memory, 0.01, Tiling(64), 4)
    assert found.method == "augmentation"
    assert detector.remembered == 1
    assert found.image == normal_limit([max(found.samples)], 0.01, CHANGED_SPREAD) > 2 * max(found.samples) > 0
    assert found.samples[0] < 0.2 * sorted(found.samples)[1]  # mirrored blocks have the same mean colours


def test_f1_is_the_best_there_is():
    rng = np.random.default_rng(0)
    maps = [rng.beta(2, 8, (40, 50)).astype(np.float32) for _ in range(6)]
    masks = [np.zeros((40, 50), bool) for _ in maps]
    for number in (1, 4):
        masks[number][10:20, 5:25] = True
        maps[number][10:20, 5:25] += 0.2
    counted = LabelledMaps()
    for values, mask in zip(maps, masks, strict=True):
        counted.add(Judgement(values, image_score(values)), mask)
    found = counted.best()
    truth, values = np.concatenate([mask.ravel() for mask in masks]), np.concatenate([one.ravel() for one in maps])
    precision, recall, _ = precision_recall_curve(truth, values)
    best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    assert f1_score(truth, values >= found.pixel) == pytest.approx(best, abs=1e-3)
    assert found.f1 == pytest.approx(f1_score(truth, values >= found.pixel), abs=1e-6)
    labels = np.array([mask.any() for mask in masks])
    scores = np.array(found.samples)
    best = max(f1_score(labels, scores >= score) for score in scores)
    assert f1_score(labels, scores >= found.image) == best


def test_with_defective_images_only_all_of_them_are_flagged():
    """Also those with a defect that is much less than what the score averages."""
    counted, scores = LabelledMaps(), []
    for value, side in ((0.5, 4), (0.4, 9), (0.6, 2)):
        mask = np.zeros((80, 80), bool)
        mask[20 : 20 + side, 20 : 20 + side] = True
        values = np.where(mask, value, 0.01).astype(np.float32)
        scores.append(image_score(values))
        counted.add(Judgement(values, scores[-1]), mask)
    found = counted.best()
    assert found.image < found.pixel
    assert found.image < min(scores)
    assert found.image == pytest.approx(min(scores), rel=1e-3)


def test_marks_of_nothing_are_refused():
    empty = LabelledMaps()
    empty.add(Judgement(np.zeros((8, 8), np.float32), 0.0), np.zeros((8, 8), bool))
    with pytest.raises(InputError, match="mark no pixel"):
        empty.best()


@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_thresholds_outside_the_maps_range_are_refused(value):
    with pytest.raises(InputError, match="--threshold"):
        fixed(value)
    with pytest.raises(InputError, match="--false-alarms"):
        from_support(backbone(), ColourDistance(), [], Memory(ColourDistance(), 1), value, None, 1)


def test_turned_copies_show_the_part_turned():
    image = np.zeros((60, 60, 3), np.uint8)
    image[15:25, 25:35] = 255  # at twelve o'clock
    copies = list(rotated(image, 8))
    assert len(copies) == 8
    np.testing.assert_array_equal(copies[0], image)
    np.testing.assert_array_equal(copies[2], np.rot90(image))
    centres = [np.argwhere(copy[..., 0] > 128).mean(axis=0) - 29.5 for copy in copies]
    for number, (down, right) in enumerate(centres):
        angle = np.pi / 4 * number
        np.testing.assert_allclose([down, right], [-10 * np.cos(angle), -10 * np.sin(angle)], atol=0.6)


def test_turned_copies_invent_no_colour():
    image = np.full((40, 90, 3), 200, np.uint8)
    assert all(copy.min() == copy.max() == 200 for copy in rotated(image, 7))
