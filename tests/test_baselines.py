"""Baselines against scikit-learn, slow versions of their definitions and closed forms."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch.utils._python_dispatch import TorchDispatchMode

from dictas import baselines
from dictas.baselines import BASELINES, NearestNeighbour, PatchCore, ScoresImages, TextOnly, UntrainedLookup
from dictas.coreset import coreset, k_center
from dictas.detector import Backbone, Batch, Detector
from encoders.errors import InputError
from encoders.state_prompts import ABNORMAL_STATES, NORMAL_STATES, TEMPLATES, state_prompts, state_vectors

GRID = (4, 6)
CHANNELS = (5, 9)


def batch(seed: int, images: int = 2, offset: float = 0.0) -> Batch:
    rng = np.random.default_rng(seed)
    tokens = [torch.from_numpy(rng.normal(offset, 1.0, (images, 24, c)).astype(np.float32)) for c in CHANNELS]
    return Batch(np.zeros((images, 64, 96, 3), np.uint8), tokens, GRID)


class Words:
    """Normal states look along the first axis of a plane, abnormal ones along the second."""

    name = "words"
    dim = 2
    max_text_tokens = 99

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode_text(self, texts: list[str]) -> np.ndarray:
        self.asked += texts
        bad = ("damage", "flaw", "defect")
        good = ("without", "flawless")
        abnormal = [any(w in t for w in bad) and not any(w in t for w in good) for t in texts]
        return np.array([[0.0, 1.0] if found else [1.0, 0.0] for found in abnormal], np.float32)

    def encode_dense(self, image: np.ndarray) -> np.ndarray:
        angles = image[::32, ::32, 0] / 255 * np.pi / 2
        return np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype(np.float32)


def backbone() -> Backbone:
    return Backbone(Words(), (1, 2), 96)  # type: ignore[arg-type]


def made(name: str) -> Detector:
    return BASELINES[name](backbone(), "tile")


@pytest.mark.parametrize("name", BASELINES)
def test_the_protocol(name: str) -> None:
    detector = made(name)
    assert detector.name == name
    detector.remember([batch(0), batch(1, images=1)])
    maps = detector.maps(batch(2, images=3, offset=1.0))
    assert maps.shape == (3, *GRID)
    assert maps.dtype == torch.float32
    assert 0.0 <= float(maps.min()) <= float(maps.max()) <= 1.0
    again = made(name)
    again.remember([batch(0), batch(1, images=1)])
    assert torch.equal(again.maps(batch(2, images=3, offset=1.0)), maps)
    # What was remembered before does not matter.
    detector.remember([batch(3)])
    fresh = made(name)
    fresh.remember([batch(3)])
    assert torch.equal(detector.maps(batch(2)), fresh.maps(batch(2)))


@pytest.mark.parametrize("name", ["nearest_neighbour", "untrained_lookup"])
def test_what_was_seen_is_normal(name: str) -> None:
    detector = UntrainedLookup(neighbourhoods=(1,)) if name == "untrained_lookup" else made(name)
    # Orthogonal tokens, so that a lookup finds nothing but the token itself; their lengths do not matter.
    lengths = torch.linspace(0.1, 9, 6)
    seen = Batch(np.zeros((1, 32, 192, 3), np.uint8), [torch.diag(lengths)[None]], (1, 6))
    detector.remember([seen])
    assert float(detector.maps(seen).max()) < 1e-6


@pytest.mark.parametrize("chunk", [1, 100, 1 << 21])
def test_nearest_neighbour_is_that_of_scikit_learn(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "CHUNK_VALUES", chunk)
    support, query = [batch(0), batch(1)], batch(2)

    def described(some: Batch) -> np.ndarray:
        layers = [tokens.numpy() / np.linalg.norm(tokens.numpy(), axis=-1, keepdims=True) for tokens in some.tokens]
        return np.concatenate(layers, axis=-1).reshape(-1, sum(CHANNELS))

    detector = NearestNeighbour()
    detector.remember(support)
    reference = NearestNeighbors(n_neighbors=1, metric="cosine").fit(np.concatenate([described(b) for b in support]))
    distances, _ = reference.kneighbors(described(query))
    np.testing.assert_allclose(detector.maps(query).numpy().ravel(), distances[:, 0] / 2, atol=1e-6)


def test_patchcore_with_a_whole_coreset_is_euclidean_nearest_neighbour() -> None:
    support, query = [batch(0), batch(1)], batch(2)

    def described(some: Batch) -> np.ndarray:
        found = np.zeros((len(some.images), *GRID, sum(CHANNELS)))
        rows = np.concatenate([tokens.numpy() for tokens in some.tokens], axis=-1).reshape(found.shape)
        for y, x in itertools.product(range(GRID[0]), range(GRID[1])):
            found[:, y, x] = rows[:, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].mean(axis=(1, 2))
        return found.reshape(-1, sum(CHANNELS))

    detector = PatchCore(share=1.0)
    detector.remember(support)
    bank = np.concatenate([described(b) for b in support])
    distances, _ = NearestNeighbors(n_neighbors=1).fit(bank).kneighbors(described(query))
    scale = 1 / (2 * np.linalg.norm(bank, axis=1).max())
    maps = detector.maps(query)
    np.testing.assert_allclose(maps.numpy().ravel(), distances[:, 0] * scale, atol=1e-6)

    # Equations 6 and 7 of the paper, written out for each image.
    assert isinstance(detector, ScoresImages)
    scores = detector.scores(query, maps)
    everything = NearestNeighbors(n_neighbors=9).fit(bank)
    for image, patches in enumerate(described(query).reshape(2, -1, sum(CHANNELS))):
        distance, match = NearestNeighbors(n_neighbors=1).fit(bank).kneighbors(patches)
        place = distance[:, 0].argmax()
        around = everything.kneighbors(bank[match[place]], return_distance=False)[0]
        others = np.exp(np.linalg.norm(patches[place] - bank[around], axis=1)).sum()
        expected = (1 - np.exp(distance[place, 0]) / others) * distance[place, 0] * scale
        assert float(scores[image]) == pytest.approx(expected, rel=1e-4)


def test_patchcore_scores_with_a_bank_of_one() -> None:
    detector = PatchCore(share=0.001)
    detector.remember([batch(0, images=1)])
    query = batch(1)
    maps = detector.maps(query)
    assert torch.equal(detector.scores(query, maps), maps.flatten(1).amax(1))


def test_patchcore_keeps_a_tenth() -> None:
    detector = PatchCore()
    detector.remember([batch(seed, images=5) for seed in range(2)])
    assert len(detector._bank) == 24


@pytest.mark.parametrize("seed", range(4))
def test_k_center_is_the_greedy_choice(seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(40, 3))
    found = k_center(torch.from_numpy(points), 12, seed).tolist()
    assert len(set(found)) == 12
    for step in range(1, 12):
        distances = np.linalg.norm(points[:, None] - points[found[:step]], axis=-1).min(axis=1)
        assert distances[found[step]] == pytest.approx(distances.max())


def test_k_center_of_more_points_than_are_looked_at_together_is_the_greedy_choice_too() -> None:
    rng = np.random.default_rng(0)
    # A few far clusters and a dense middle: the farthest points come from few places at first, from all later.
    points = np.concatenate([rng.normal(size=(60, 6)) + 9 * rng.normal(size=(1, 6)) for _ in range(12)])
    points = np.concatenate([points, rng.normal(size=(3000, 6))])
    found = k_center(torch.from_numpy(points), 1500, 0).tolist()
    assert len(set(found)) == 1500
    nearest = np.full(len(points), np.inf)
    for step, place in enumerate(found):
        if step:
            assert nearest[place] == pytest.approx(nearest.max(), rel=1e-6)
        nearest = np.minimum(nearest, np.linalg.norm(points - points[place], axis=1))


def test_k_center_is_at_most_twice_the_best() -> None:
    points = np.random.default_rng(0).normal(size=(12, 2))
    between = np.linalg.norm(points[:, None] - points, axis=-1)
    best = min(between[:, list(some)].min(axis=1).max() for some in itertools.combinations(range(12), 3))
    found = k_center(torch.from_numpy(points), 3, 0)
    assert best <= between[:, found.numpy()].min(axis=1).max() <= 2 * best


def test_k_center_of_equal_points_takes_each_once() -> None:
    assert sorted(k_center(torch.full((5, 3), 0.1), 9, 0).tolist()) == [0, 1, 2, 3, 4]


def test_coreset_finds_rare_kinds_of_patches() -> None:
    """30 kinds of very different frequency, in more dimensions than distances are compared in."""
    rng = np.random.default_rng(0)
    kinds = np.concatenate([np.arange(30), rng.integers(0, 3, 270)])
    centres = rng.normal(size=(30, 400))
    vectors = torch.from_numpy(centres[kinds] + 0.05 * rng.normal(size=(300, 400))).float()
    chosen = coreset(vectors, 0.1, seed=1)
    assert sorted(kinds[chosen.numpy()]) == list(range(30))
    assert torch.equal(chosen, coreset(vectors, 0.1, seed=1))
    assert not torch.equal(chosen, coreset(vectors, 0.1, seed=2))


def test_untrained_lookup_by_hand() -> None:
    """One layer of 4 channels: tokens get length 2, similarities are 2 cos. Remembered: e0 and e1.

    The query e0 scores 2 and 0: sparsemax takes the first alone and rebuilds it. The query e0 + e1 scores √2 and
    √2: the mean of both has its direction. The query e0 + e2 scores √2 and 0: rebuilt as e0, at 45°.
    """
    axes = torch.eye(4)

    def one(rows: list[torch.Tensor]) -> Batch:
        tokens = torch.stack(rows)[None]
        return Batch(np.zeros((1, 32, 32 * len(rows), 3), np.uint8), [tokens], (1, len(rows)))

    detector = UntrainedLookup(neighbourhoods=(1,))
    detector.remember([one([3 * axes[0], axes[1]])])
    maps = detector.maps(one([2 * axes[0], axes[0] + axes[1], axes[0] + axes[2]]))
    np.testing.assert_allclose(maps[0, 0].numpy(), [0, 0, (1 - 0.5**0.5) / 2], atol=1e-6)


def test_text_only_follows_the_words() -> None:
    images = np.zeros((2, 64, 96, 3), np.uint8)
    images[0] = 255  # looks exactly like the abnormal prompts
    images[1, :, 64:] = 255
    query = Batch(images, [], GRID)
    maps = made("text_only").maps(query)
    sure = 1 / (1 + np.exp(-1 / 0.07))
    np.testing.assert_allclose(maps[0].numpy(), sure, atol=1e-6)
    np.testing.assert_allclose(maps[1, :, 0].numpy(), 1 - sure, atol=1e-6)
    np.testing.assert_allclose(maps[1, :, -1].numpy(), sure, atol=1e-6)


def test_prompts() -> None:
    normal, abnormal = state_prompts("metal_nut")
    assert len(set(normal)) == len(NORMAL_STATES) * len(TEMPLATES) == 7 * 22
    assert len(set(abnormal)) == len(ABNORMAL_STATES) * len(TEMPLATES) == 4 * 22
    assert "a photo of a flawless metal nut for visual inspection" in normal
    assert "a dark photo of the metal nut with damage" in abnormal
    assert all("metal nut" in prompt for prompt in normal + abnormal)
    assert "a photo of a object" in state_prompts()[0]
    np.testing.assert_allclose(state_vectors(Words(), "cable"), np.eye(2), atol=1e-6)  # type: ignore[arg-type]


def test_no_text_tower() -> None:
    class Mute:
        name = "mute"

    with pytest.raises(InputError, match="mute has no text tower"):
        TextOnly(Mute())  # type: ignore[arg-type]


class Largest(TorchDispatchMode):
    """Notes the largest tensor that is made."""

    values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.values = max(self.values, tensor.numel())
        return result


@pytest.mark.parametrize("name", ["nearest_neighbour", "patchcore", "untrained_lookup"])
def test_memory_does_not_grow_with_queries_times_bank(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "CHUNK_VALUES", 4096)
    monkeypatch.setattr("dictas.lookup.CHUNK_VALUES", 4096)
    detector = PatchCore(share=1.0) if name == "patchcore" else made(name)
    detector.remember([batch(seed, images=8) for seed in range(4)])  # 768 patches
    with Largest() as made_tensors, torch.no_grad():
        detector.maps(batch(9, images=8))  # 192 patches: 147,456 distances
    assert 768 <= made_tensors.values < 192 * 768 / 4
