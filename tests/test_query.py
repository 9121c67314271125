"""Queries in views and in space against features written out in full, in float64."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from reference import blending_weights, camera, random_scene

from encoders.errors import InputError
from splat.codes import LanguageField, densify, sparsify
from splat.gaussians import Gaussians
from splat.query import DEFAULT_NEGATIVES, query_view, relevancy_maps, select_gaussians
from splat.scene import Camera

WIDTH, HEIGHT, DIM, ATOMS = 192, 128, 512, 24


class WordEncoder:
    """Every word is a fixed random direction; known words may be given one."""

    name = "words"
    dim = DIM
    max_text_tokens = 4

    def __init__(self, known: dict[str, torch.Tensor] | None = None) -> None:
        self.known = known or {}

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        rows = []
        for text in texts:
            if len(text.split()) > self.max_text_tokens:
                raise InputError(f"The phrase {text!r} is too long.")
            seed = sum(ord(letter) * 31**place for place, letter in enumerate(text)) % 2**31
            vector = self.known.get(text, torch.randn(DIM, generator=torch.Generator().manual_seed(seed)))
            rows.append((vector / vector.norm()).numpy())
        return np.stack(rows).astype(np.float32)


def view() -> Camera:
    viewmat, K = camera(0.1, WIDTH, HEIGHT, torch.float64)
    return Camera("view", WIDTH, HEIGHT, K.numpy(), viewmat.numpy())


def make_scene(count: int = 80) -> tuple[Gaussians, LanguageField]:
    scene = random_scene(count, 7)
    means = scene["means"].clone()
    means[:, 2] = means[:, 2].abs() + 0.8
    opacities = torch.logit(scene["opacities"].clamp(0.05, 0.9))
    gaussians = Gaussians(means, scene["quats"], scene["scales"].log(), opacities, scene["sh"])
    generator = torch.Generator().manual_seed(1)
    atoms = torch.nn.functional.normalize(torch.randn(3, ATOMS, DIM, generator=generator), dim=2)
    indices, weights = sparsify(2 * torch.randn(count, 3, ATOMS, generator=generator), 4)
    return gaussians, LanguageField(atoms, indices, weights, "words")


def blobs() -> tuple[Gaussians, LanguageField, WordEncoder]:
    """Three balls of 60 Gaussians: left "cat" (with a look-alike at the far right), middle "dog"."""
    generator = torch.Generator().manual_seed(2)
    centres = torch.tensor([[-1.5, 0, 4], [0.0, 0, 4], [3.5, 0, 4]])
    means = torch.cat(
        [c + 0.15 * torch.randn(n, 3, generator=generator) for c, n in zip(centres, (60, 60, 20), strict=True)]
    )
    count = len(means)
    gaussians = Gaussians(
        means,
        torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        torch.full((count, 3), 0.08).log(),
        torch.full((count,), 2.0),
        torch.zeros(count, 16, 3),
    )
    atoms = torch.nn.functional.normalize(torch.randn(3, 8, DIM, generator=generator), dim=2)
    indices = torch.zeros(count, 3, 2, dtype=torch.uint8)
    indices[60:120] = 1
    weights = torch.zeros(count, 3, 2)
    weights[..., 0] = 1.0
    field = LanguageField(atoms, indices, weights, "words")
    # The words mean what the whole-level atoms say, so level 2 answers.
    return gaussians, field, WordEncoder({"cat": atoms[2, 0], "dog": atoms[2, 1]})


def relevancy_reference(features: torch.Tensor, texts: np.ndarray, positives: int) -> torch.Tensor:
    """LERF's formula on unit features. [..., D] -> [P, ...]"""
    unit = features / features.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    similar = torch.moveaxis(unit @ torch.from_numpy(texts).double().T, -1, 0)
    pairs = [
        torch.stack([torch.softmax(10 * torch.stack([p, n]), 0)[0] for n in similar[positives:]]).amin(0)
        for p in similar[:positives]
    ]
    return torch.stack(pairs)


def test_relevancy_equals_materialised_features() -> None:
    gaussians, field = make_scene()
    phrases = ["teapot", "red chair"]
    maps = relevancy_maps(gaussians, field, view(), phrases, WordEncoder())
    shape = [tensor.double() for tensor in gaussians.geometry]
    weights = blending_weights(*shape, torch.from_numpy(view().viewmat), torch.from_numpy(view().K), WIDTH, HEIGHT)
    features = torch.einsum("nla,lad->nld", densify(field.indices, field.weights, ATOMS).double(), field.atoms.double())
    texts = WordEncoder().encode_text([*phrases, *DEFAULT_NEGATIVES])
    # A pixel at the rim of a Gaussian may fall to either side of alpha = 1/255 in float32: allow a few such pixels.
    reached = weights.sum(1) > 2 / 255
    for level in range(3):
        expected = relevancy_reference(weights @ features[:, level], texts, 2)
        found = maps[:, level].reshape(2, -1)
        error = (found - expected).abs()[:, reached]
        assert float((error > 1e-4).float().mean()) < 1e-3
        assert float(error.max()) < 0.02
    assert (maps.reshape(2, 3, -1)[:, :, weights.sum(1) == 0] == 0).all()


def test_a_view_is_answered() -> None:
    gaussians, field, encoder = blobs()
    cat, dog = query_view(gaussians, field, view(), ["cat", "dog"], encoder)
    assert (cat.phrase, dog.phrase) == ("cat", "dog")
    for answer in (cat, dog):
        assert answer.level == 2
        assert answer.present
        assert answer.confidence == pytest.approx(float(answer.relevancy.max()))
        assert answer.mask.dtype == bool
        assert answer.mask.shape == answer.relevancy.shape == (HEIGHT, WIDTH)
        assert answer.box is not None
        x0, y0, x1, y1 = answer.box
        assert answer.mask[y0:y1, x0:x1].any()
        assert x0 <= answer.point[0] < x1
        assert answer.seconds > 0
    assert cat.point[0] < dog.point[0]
    assert not (cat.mask & dog.mask).any()


def test_several_phrases_at_once_change_nothing() -> None:
    gaussians, field, encoder = blobs()
    together = query_view(gaussians, field, view(), ["cat", "dog"], encoder)
    for phrase, answer in zip(["cat", "dog"], together, strict=True):
        (alone,) = query_view(gaussians, field, view(), [phrase], encoder)
        np.testing.assert_allclose(alone.relevancy, answer.relevancy, atol=1e-6)
        assert alone.point == answer.point


def test_negatives_and_level_matter() -> None:
    gaussians, field, encoder = blobs()
    (plain,) = query_view(gaussians, field, view(), ["cat"], encoder)
    (against,) = query_view(gaussians, field, view(), ["cat"], encoder, negatives=["cat"])
    assert plain.confidence > 0.9
    assert against.confidence == pytest.approx(0.5, abs=1e-5)
    (fixed,) = query_view(gaussians, field, view(), ["cat"], encoder, level=0)
    assert fixed.level == 0
    assert fixed.confidence < plain.confidence


def test_what_is_not_there_is_not_present() -> None:
    gaussians, field, encoder = blobs()
    encoder.known["unicorn"] = -field.atoms[2, 0] - field.atoms[2, 1] - field.atoms[:2, :2].sum((0, 1))
    (answer,) = query_view(gaussians, field, view(), ["unicorn"], encoder)
    assert not answer.present
    assert answer.confidence < 0.5


def test_a_view_of_nothing_has_an_empty_mask() -> None:
    gaussians, field, encoder = blobs()
    away = view().viewmat.copy()
    away[:3, :3] = np.diag([-1.0, 1.0, -1.0]) @ away[:3, :3]
    away[2, 3] = -20
    camera_ = Camera("away", WIDTH, HEIGHT, view().K, away)
    (answer,) = query_view(gaussians, field, camera_, ["cat"], encoder)
    assert not answer.mask.any()
    assert answer.box is None
    assert answer.confidence == 0


def test_gaussian_relevancy_equals_decoded_features() -> None:
    from splat.phrases import text_scores
    from splat.select import gaussian_relevancy

    gaussians, field = make_scene()
    field.weights[3] = 0
    scores = text_scores(gaussians, field, ["teapot", "car"], WordEncoder())
    found = gaussian_relevancy(field, scores, 2)
    texts = WordEncoder().encode_text(["teapot", "car", *DEFAULT_NEGATIVES])
    features = torch.einsum("nla,lad->nld", densify(field.indices, field.weights, ATOMS).double(), field.atoms.double())
    expected = relevancy_reference(features, texts, 2)
    expected[:, 3] = 0
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_selection_keeps_one_object() -> None:
    gaussians, field, encoder = blobs()
    expected = torch.zeros(140, dtype=torch.bool)
    expected[:60] = True
    assert torch.equal(select_gaussians(gaussians, field, "cat", encoder), expected)
    expected[120:] = True  # the look-alike
    assert torch.equal(select_gaussians(gaussians, field, "cat", encoder, one_object=False), expected)


def test_selection_fills_holes_and_drops_specks() -> None:
    gaussians, field, encoder = blobs()
    field.indices[7] = 1  # a Gaussian inside the cat that says dog
    field.indices[80] = 0  # and one inside the dog that says cat
    chosen = select_gaussians(gaussians, field, "cat", encoder)
    assert chosen[:60].all()
    assert not chosen[60:].any()


def test_selection_of_a_single_gaussian() -> None:
    gaussians, field, encoder = blobs()
    one = torch.tensor([0])
    assert len(select_gaussians(gaussians.subset(one), field.subset(one), "cat", encoder)) == 1


@pytest.mark.parametrize("ask", ["view", "space"])
def test_bad_questions_are_refused(ask: str) -> None:
    gaussians, field, encoder = blobs()

    def question(phrase: str = "cat", **options: object) -> None:
        if ask == "view":
            query_view(gaussians, field, view(), [phrase], encoder, **options)  # type: ignore[arg-type]
        else:
            select_gaussians(gaussians, field, phrase, encoder, **options)  # type: ignore[arg-type]

    question()
    with pytest.raises(InputError, match="empty"):
        question("  ")
    with pytest.raises(InputError, match="too long"):
        question("a cat on a mat")
    with pytest.raises(InputError, match="Level 3"):
        question(level=3)
    with pytest.raises(InputError, match="negatives"):
        question(negatives=[])
    field.encoder = "other"
    with pytest.raises(InputError, match="other"):
        question()
    field.encoder = "words"
    field.indices = field.indices[:-1]
    with pytest.raises(InputError, match="139"):
        question()


def test_no_phrases_are_refused() -> None:
    gaussians, field, encoder = blobs()
    with pytest.raises(InputError, match="nothing to look for"):
        query_view(gaussians, field, view(), [], encoder)
