"""Losses against closed forms and loops over tokens."""

import math

import numpy as np
import pytest
import torch

from dictas.losses import SegmentationLoss, TextAlignment, contrast_loss, query_loss

D = torch.float64


def scene(seed=0, images=3, side=6):
    """Distances and coverages of which some are 0, some small, some large."""
    generator = torch.Generator().manual_seed(seed)
    distances = torch.rand(images, side, side, generator=generator, dtype=D)
    coverage = torch.rand(images, side, side, generator=generator, dtype=D)
    return distances, torch.where(coverage < 0.6, 0.0, (coverage - 0.6) * 2.5)


def test_the_query_loss_is_the_mean_over_normal_tokens():
    distances, coverage = scene()
    normal = [d for d, c in zip(distances.flatten().tolist(), coverage.flatten().tolist(), strict=True) if c == 0]
    assert query_loss(distances, coverage).item() == pytest.approx(sum(normal) / len(normal), rel=1e-12)


def test_the_contrast_is_taken_per_image_and_skips_images_without_both():
    distances, coverage = scene(images=5)
    coverage[1], coverage[2] = 0.0, 0.5
    distances[3] = torch.where(coverage[3] > 0, 0.9, 0.1)  # separated
    gaps = []
    for d, c in zip(distances, coverage, strict=True):
        if (c == 0).any() and (c > 0).any():
            gaps.append(max(0.0, (d[c == 0].mean() - d[c > 0].mean()).item()))
    assert len(gaps) == 3
    assert gaps[1] == 0.0
    assert contrast_loss(distances, coverage).item() == pytest.approx(sum(gaps) / 3, rel=1e-12)
    assert contrast_loss(distances, coverage) > 0


def test_the_contrast_is_zero_as_soon_as_the_means_are_apart():
    _, coverage = scene()
    apart = torch.where(coverage > 0, 0.51, 0.5).to(D)
    assert contrast_loss(apart, coverage) == 0
    assert contrast_loss(1 - apart, coverage).item() == pytest.approx(0.01, rel=1e-6)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def segmentation(distances, coverage, slope, offset):
    """Token by token. Cross-entropies of normal and abnormal tokens, and dice of each image."""
    normal, abnormal, dice = [], [], []
    for d_image, c_image in zip(distances.flatten(1).tolist(), coverage.flatten(1).tolist(), strict=True):
        overlap = covered = said = 0.0
        for d, c in zip(d_image, c_image, strict=True):
            truth, share = min(c / 0.3, 1.0), sigmoid(slope * (d - offset))
            entropy = -truth * math.log(share) - (1 - truth) * math.log(1 - share)
            if 0 < c < 0.1:
                entropy *= 0.3
            (abnormal if truth > 0.5 else normal).append(entropy)
            overlap, covered, said = overlap + share * truth, covered + truth, said + share
        dice.append(1 - (2 * overlap + 1) / (covered + said + 1))
    hardest = sorted(normal)[-max(1, int(0.01 * len(normal))) :]
    terms = [sum(part) / len(part) for part in (normal, abnormal) if part]
    return sum(terms) + (0.5 * sum(hardest) / len(hardest) if hardest else 0) + 0.5 * sum(dice) / len(dice)


@pytest.mark.parametrize("case", ["mixed", "large", "no anomaly", "all anomalous"])
def test_the_segmentation_loss_weighs_both_kinds_of_tokens_alike(case):
    distances, coverage = scene(images=4, side=20 if case == "large" else 6)
    if case == "no anomaly":
        coverage = torch.zeros_like(coverage)
    if case == "all anomalous":
        coverage = torch.ones_like(coverage)
    loss = SegmentationLoss().double()
    with torch.no_grad():
        loss.log_slope.fill_(1.5)
        loss.offset.fill_(0.4)
    expected = segmentation(distances, coverage, math.exp(1.5), 0.4)
    assert loss(distances, coverage).item() == pytest.approx(expected, rel=1e-9)


def alignment(texts):
    torch.manual_seed(2)
    return TextAlignment([4, 3], texts).double()


def test_text_alignment_is_cross_entropy_over_both_states():
    texts = np.eye(2, 5)
    texts[1, 0], texts[1, 1] = 0.6, 0.8
    loss = alignment(texts)
    compared = [tuple(torch.randn(3, 6, width, dtype=D) for _ in range(2)) for width in (4, 3)]
    anomalous = [True, False, True]
    total = 0.0
    for side in (0, 1):
        for image in range(3):
            means = torch.cat([pair[side][image].mean(0) for pair in compared])
            seen = loss.fuse.weight @ means + loss.fuse.bias
            seen = (seen / seen.norm()).detach().numpy()
            odds = np.exp(texts @ seen / 0.07)
            state = 1 if side == 0 and anomalous[image] else 0
            total -= math.log(odds[state] / odds.sum())
    assert loss(compared, torch.tensor(anomalous)).item() == pytest.approx(total / 6, rel=1e-6)


@pytest.mark.parametrize("case", ["none", "all"])
def test_images_without_normal_or_abnormal_tokens_give_finite_losses_and_gradients(case):
    distances, coverage = scene()
    coverage = torch.zeros_like(coverage) if case == "none" else torch.ones_like(coverage)
    distances.requires_grad_()
    loss = query_loss(distances, coverage) + contrast_loss(distances, coverage)
    (loss + SegmentationLoss().double()(distances, coverage)).backward()
    assert torch.isfinite(distances.grad).all()
    assert contrast_loss(distances, coverage) == 0
    assert (query_loss(distances, coverage) == 0) == (case == "all")


@pytest.mark.parametrize("name", ["query", "contrast", "segmentation", "text"])
def test_gradients_are_those_of_the_values(name):
    distances, coverage = scene(images=2, side=4)
    distances.requires_grad_()
    if name == "text":
        loss = alignment(np.eye(2, 5))
        pairs = [torch.randn(2, 4, width, dtype=D, requires_grad=True) for width in (4, 4, 3, 3)]
        state = torch.tensor([True, False])
        assert torch.autograd.gradcheck(lambda a, b, c, d: loss([(a, b), (c, d)], state), pairs)
        return
    losses = {"query": query_loss, "contrast": contrast_loss, "segmentation": SegmentationLoss().double()}
    assert losses[name](distances, coverage).item() > 0
    assert torch.autograd.gradcheck(lambda d: losses[name](d, coverage), distances)
