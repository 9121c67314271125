"""Codes, their file, and sparse coding against scikit-learn and SciPy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.optimize import nnls
from sklearn.linear_model import orthogonal_mp_gram

from encoders.errors import InputError
from splat.codes import LanguageField, densify, sparsify
from splat.omp import code_cosine, coding_residual, omp


def make_field(gaussians: int = 50, atoms: int = 20, dim: int = 12, nonzeros: int = 4) -> LanguageField:
    generator = torch.Generator().manual_seed(1)
    dictionary = torch.nn.functional.normalize(torch.randn(3, atoms, dim, generator=generator), dim=-1)
    indices, weights = sparsify(torch.randn(gaussians, 3, atoms, generator=generator), nonzeros)
    return LanguageField(dictionary, indices, weights, "test-encoder")


def positive_vectors(rows: int = 300, atoms: int = 24, dim: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors and a coherent dictionary, float64: a shared offset makes weights want to turn negative."""
    generator = torch.Generator().manual_seed(2)
    offset = torch.full((dim,), 0.7)
    dictionary = torch.randn(atoms, dim, generator=generator, dtype=torch.float64) + offset
    vectors = torch.randn(rows, dim, generator=generator, dtype=torch.float64) + offset
    return torch.nn.functional.normalize(vectors, dim=1), torch.nn.functional.normalize(dictionary, dim=1)


def test_sparsify_is_renormalised_top_k_of_softmax() -> None:
    logits = torch.randn(5, 3, 17, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    indices, weights = sparsify(logits, 4)
    probabilities = torch.softmax(logits, -1).numpy()
    order = np.argsort(-probabilities, axis=-1)[..., :4]
    expected = np.take_along_axis(probabilities, order, -1)
    np.testing.assert_array_equal(indices.numpy(), order)
    np.testing.assert_allclose(weights.numpy(), expected / expected.sum(-1, keepdims=True), atol=1e-12)
    assert indices.dtype == torch.uint8


def test_decode_sums_atoms() -> None:
    field = make_field()
    features = field.decode(torch.tensor([3, 7]))
    for row, gaussian in enumerate((3, 7)):
        for level in range(3):
            expected = np.zeros(12)
            for slot in range(4):
                atom = int(field.indices[gaussian, level, slot])
                expected += float(field.weights[gaussian, level, slot]) * field.atoms[level, atom].numpy()
            np.testing.assert_allclose(features[row, level].numpy(), expected, atol=1e-6)
    gram = field.atoms[1].numpy() @ field.atoms[1].numpy().T
    np.testing.assert_allclose(field.gram()[1].numpy(), gram, atol=1e-6)


def test_densify_adds_repeated_atoms() -> None:
    dense = densify(torch.tensor([[2, 2, 0]], dtype=torch.uint8), torch.tensor([[0.5, 0.25, 1.0]]), 4)
    assert dense.tolist() == [[1.0, 0.0, 0.75, 0.0]]


@pytest.mark.parametrize("nonzeros", [1, 2, 4, 8])
def test_signed_omp_equals_scikit_learn(nonzeros: int) -> None:
    vectors, dictionary = positive_vectors()
    correlations, gram = vectors @ dictionary.T, dictionary @ dictionary.T
    indices, weights = omp(correlations, gram, nonzeros, nonnegative=False, tolerance=0.0, chunk=77)
    expected = orthogonal_mp_gram(gram.numpy(), correlations.numpy().T, n_nonzero_coefs=nonzeros)
    np.testing.assert_allclose(densify(indices, weights, 24).numpy(), expected.T, atol=1e-4)


@pytest.mark.parametrize("nonzeros", [1, 2, 4, 8])
def test_nonnegative_omp_is_nnls_on_its_support(nonzeros: int) -> None:
    vectors, dictionary = positive_vectors()
    correlations, gram = vectors @ dictionary.T, dictionary @ dictionary.T
    indices, weights = omp(correlations, gram, nonzeros)
    dense = densify(indices, weights, 24).numpy()
    assert (dense >= 0).all()
    assert (np.count_nonzero(dense, axis=1) <= nonzeros).all()
    for row in range(100):
        support = np.flatnonzero(dense[row])
        expected, _ = nnls(dictionary[support].numpy().T, vectors[row].numpy())
        np.testing.assert_allclose(dense[row, support], expected, atol=1e-4)


def test_nonnegative_omp_with_all_atoms_is_nnls() -> None:
    vectors, dictionary = positive_vectors(60)
    indices, weights = omp(vectors @ dictionary.T, dictionary @ dictionary.T, 24, tolerance=1e-7)
    dense = densify(indices, weights, 24).numpy()
    for row in range(60):
        _, residual = nnls(dictionary.numpy().T, vectors[row].numpy())
        ours = np.linalg.norm(dense[row] @ dictionary.numpy() - vectors[row].numpy())
        assert ours <= residual + 1e-4


def test_omp_leaves_what_it_cannot_explain_alone() -> None:
    dictionary = torch.eye(4, 6, dtype=torch.float64)
    vectors = torch.tensor([[0, 0, 0, 0, 1, 0], [-1, 0, 0, 0, 0, 0], [0, 2, 0, 1, 0, 0]], dtype=torch.float64)
    indices, weights = omp(vectors @ dictionary.T, dictionary @ dictionary.T, 3)
    assert weights[:2].abs().sum() == 0
    assert indices[:2].sum() == 0
    np.testing.assert_allclose(densify(indices, weights, 4)[2].numpy(), [0, 2, 0, 1], atol=1e-5)


def test_residual_and_cosine_in_code_space() -> None:
    vectors, dictionary = positive_vectors()
    correlations, gram = vectors @ dictionary.T, dictionary @ dictionary.T
    indices, weights = omp(correlations, gram, 3)
    coded = densify(indices, weights, 24) @ dictionary
    expected = torch.nn.functional.cosine_similarity(coded, vectors, dim=1)
    torch.testing.assert_close(code_cosine(correlations, gram, indices, weights), expected, atol=1e-9, rtol=0)
    residual = coding_residual(correlations, gram, indices, weights)
    torch.testing.assert_close(residual, (vectors - coded) @ dictionary.T, atol=1e-9, rtol=0)


def test_file_round_trip(tmp_path: Path) -> None:
    field = make_field()
    field.save(tmp_path / "language.safetensors")
    again = LanguageField.load(tmp_path / "language.safetensors")
    assert again.encoder == "test-encoder"
    assert torch.equal(again.indices, field.indices)
    assert torch.equal(again.atoms, field.atoms.half().float())
    assert torch.equal(again.weights, field.weights.half().float())
    stored = load_file(tmp_path / "language.safetensors")
    assert {name: (t.dtype, tuple(t.shape)) for name, t in stored.items()} == {
        "atoms": (torch.float16, (3, 20, 12)),
        "indices": (torch.uint8, (50, 3, 4)),
        "weights": (torch.float16, (50, 3, 4)),
    }
    assert [p.name for p in tmp_path.iterdir()] == ["language.safetensors"]


def _stored(field: LanguageField) -> dict[str, torch.Tensor]:
    return {"atoms": field.atoms.half(), "indices": field.indices, "weights": field.weights.half()}


METADATA = {"format": "dictsplat.language", "version": "1", "encoder": "x"}


@pytest.mark.parametrize(
    ("change", "metadata", "message"),
    [
        ({}, {**METADATA, "version": "99"}, "99"),
        ({}, {**METADATA, "version": "new"}, "version"),
        ({}, {**METADATA, "encoder": ""}, "encoder"),
        ({}, {"format": "pt"}, "no language field"),
        ({"atoms": torch.zeros(2, 20, 12).half()}, METADATA, "indices"),
        ({"atoms": torch.zeros(3, 300, 12).half()}, METADATA, "atoms"),
        ({"atoms": torch.full((3, 20, 12), torch.nan).half()}, METADATA, "finite"),
        ({"weights": torch.zeros(50, 3, 2).half()}, METADATA, "weights"),
        ({"indices": torch.full((50, 3, 4), 20, dtype=torch.uint8)}, METADATA, "index 20"),
        ({"indices": torch.zeros(50, 3, 4, dtype=torch.int32)}, METADATA, "uint8"),
    ],
)
def test_wrong_files_are_refused(
    tmp_path: Path, change: dict[str, torch.Tensor], metadata: dict[str, str], message: str
) -> None:
    path = tmp_path / "language.safetensors"
    save_file({**_stored(make_field()), **change}, path, metadata=metadata)
    with pytest.raises(InputError, match=message) as caught:
        LanguageField.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("keep", [0, 5, 40, 2000])
def test_truncated_and_missing_files_are_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "language.safetensors"
    make_field().save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="cannot be read"):
        LanguageField.load(path)
    path.unlink()
    with pytest.raises(InputError, match="does not exist"):
        LanguageField.load(path)


def test_missing_tensor_is_refused(tmp_path: Path) -> None:
    tensors = _stored(make_field())
    del tensors["weights"]
    save_file(tensors, tmp_path / "a.safetensors", metadata=METADATA)
    with pytest.raises(InputError, match="lacks weights"):
        LanguageField.load(tmp_path / "a.safetensors")


def test_a_broken_field_is_not_written(tmp_path: Path) -> None:
    field = make_field()
    field.atoms[0, 0, 0] = torch.nan
    with pytest.raises(InputError, match="finite"):
        field.save(tmp_path / "language.safetensors")
    assert not list(tmp_path.iterdir())
