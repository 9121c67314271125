"""Dictionaries that learn as they go, against scikit-learn, repetition, and a process that never stopped."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from sklearn.decomposition import MiniBatchDictionaryLearning
from sklearn.decomposition._dict_learning import _update_dict

from encoders.checkpoints import save_checkpoint
from encoders.errors import InputError
from splat.codes import densify
from splat.coding import code
from splat.online_dictionary import FORMAT, OnlineDictionary, improved, learn_view, online_dictionary
from splat.region_views import RegionView, RegionViews

ROWS, ATOMS, DIM = 400, 24, 16


def unit(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    random = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(random, dim=-1).to(dtype)


def test_an_improvement_is_that_of_scikit_learn() -> None:
    codes = unit(ROWS, ATOMS, seed=2).numpy()
    # So small that every improved atom is longer than one and cut to that, which is when both do the same.
    codes = 0.1 * np.where(np.abs(codes) < 0.3, 0, codes)
    vectors, atoms = unit(ROWS, DIM, seed=3).numpy(), unit(ATOMS, DIM, seed=4)
    products, targets = codes.T @ codes, codes.T @ vectors
    wanted = atoms.numpy().copy()
    _update_dict(wanted, vectors, codes, products, targets.T, random_state=0)
    found = improved(atoms.float(), torch.from_numpy(products), torch.from_numpy(targets))
    before = np.square(vectors - codes @ atoms.numpy()).sum()
    assert np.square(vectors - codes @ found.numpy()).sum() < before
    np.testing.assert_allclose(np.linalg.norm(wanted, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)


def planted(seed: int, batches: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A dictionary, and batches of vectors made of two of its atoms each."""
    atoms, random = unit(ATOMS, DIM, seed=seed, dtype=torch.float32), np.random.default_rng(seed)
    found = []
    for _ in range(batches):
        weights = np.zeros((256, ATOMS), np.float32)
        for row in weights:
            row[random.choice(ATOMS, 2, replace=False)] = random.uniform(0.5, 1.0, 2)
        found.append(torch.from_numpy(weights) @ atoms)
    return atoms, found


def recovered(found: np.ndarray, true: np.ndarray) -> float:
    return float((np.abs(true @ found.T).max(1) > 0.97).mean())


def error(atoms: np.ndarray, vectors: torch.Tensor) -> float:
    dictionary = torch.from_numpy(np.asarray(atoms, np.float32))
    indices, weights = code(vectors @ dictionary.T, dictionary @ dictionary.T, 2)
    missed = vectors - densify(indices, weights, len(dictionary)) @ dictionary
    return float(missed.square().sum() / vectors.square().sum())


def test_a_planted_dictionary_is_learnt_batch_by_batch() -> None:
    true, batches = planted(5, 60)
    start = unit(ATOMS, DIM, seed=77, dtype=torch.float32)
    online = OnlineDictionary.start(start, nonzeros=2)
    for batch in batches:
        online.learn(batch)
    theirs = MiniBatchDictionaryLearning(
        ATOMS, batch_size=256, max_iter=1, dict_init=start.double().numpy(), fit_algorithm="cd", alpha=0.1,
        transform_algorithm="omp", positive_code=True, random_state=0,
    )  # fmt: skip
    for batch in batches:
        theirs.partial_fit(batch.double().numpy())
    unseen = planted(5, 61)[1][-1]
    lengths = np.linalg.norm(theirs.components_, axis=1, keepdims=True)
    assert torch.allclose(online.atoms.norm(dim=1), torch.ones(ATOMS), atol=1e-5)
    assert recovered(online.atoms.numpy(), true.numpy()) > 0.8
    assert error(online.atoms.numpy(), unseen) < 0.25 * error(start.numpy(), unseen)
    assert error(online.atoms.numpy(), unseen) < 1.1 * error(theirs.components_ / lengths, unseen) + 0.01


def test_a_dictionary_follows_what_it_sees() -> None:
    """New views of other things: a dictionary that forgets fits them, one that does not lags behind."""
    (_, first), (_, second) = planted(5, 30), planted(6, 31)
    errors = []
    for memory in (0.8, 1.0):
        online = OnlineDictionary.start(unit(ATOMS, DIM, seed=7, dtype=torch.float32), 2, memory=memory)
        for batch in [*first, *second[:-1]]:
            online.learn(batch)
        errors.append(error(online.atoms.numpy(), second[-1]))
    assert errors[0] < 0.8 * errors[1]


def test_weights_are_repetitions() -> None:
    true, (batch,) = planted(5, 1)
    counts = torch.arange(len(batch)) % 3 + 1
    near = torch.nn.functional.normalize(true + 0.2 * unit(ATOMS, DIM, seed=7, dtype=torch.float32), dim=1)
    one, other = (OnlineDictionary.start(near, 2) for _ in range(2))
    one.learn(batch, counts)
    other.learn(batch.repeat_interleave(counts, dim=0))
    torch.testing.assert_close(one.atoms, other.atoms, atol=1e-5, rtol=0)
    assert (one.atoms - near).abs().max() > 0.01
    empty = one.atoms.clone()
    one.learn(batch[:0])
    assert torch.equal(one.atoms, empty)


def test_weights_count_between_batches_too() -> None:
    """A batch of large regions says more than one of small ones: as much as if it were repeated."""
    (true, (first,)), (_, (second,)) = planted(5, 1), planted(6, 1)
    near = torch.nn.functional.normalize(true + 0.2 * unit(ATOMS, DIM, seed=7, dtype=torch.float32), dim=1)

    def learnt(weight: float, repeats: int = 1) -> torch.Tensor:
        online = OnlineDictionary.start(near, 2, memory=1.0)
        online.learn(first)
        online.learn(second.repeat(repeats, 1), torch.full((repeats * len(second),), weight))
        return online.atoms

    torch.testing.assert_close(learnt(20.0), learnt(1.0, repeats=20), atol=1e-5, rtol=0)
    assert (learnt(20.0) - learnt(1.0)).abs().max() > 0.05
    before = OnlineDictionary.start(near, 2, memory=1.0)
    before.learn(first)
    assert (learnt(1e-6) - before.atoms).abs().max() < (learnt(1.0) - before.atoms).abs().max() / 5


class Shown:
    """Views without a scene, one level: regions of some pixels each, and one pixel without a region."""

    def __init__(self, seeds: list[int]) -> None:
        self.views = []
        for seed in seeds:
            random = np.random.default_rng(seed)
            areas = random.integers(1, 60, 12)
            ids = torch.from_numpy(np.append(np.repeat(np.arange(12), areas), -1))[None]
            self.views.append(RegionView(ids, unit(13, DIM, seed=seed, dtype=torch.float32).abs()))

    def __len__(self) -> int:
        return len(self.views)

    def view(self, index: int) -> RegionView:
        return self.views[index]


def test_a_region_counts_by_its_area() -> None:
    """As if every pixel were shown with the embedding of its region, in views of one size and of several."""
    views = Shown([1, 2, 3])
    start = unit(2, DIM, seed=0, dtype=torch.float32).abs()
    online, pixels, regions = (OnlineDictionary.start(start, 1) for _ in range(3))
    for view in views.views:
        assert learn_view([online], view)
        shown = view.ids[0][view.ids[0] >= 0]
        pixels.learn(view.embeddings[shown], torch.full((len(shown),), 1 / view.ids.shape[1]))
        regions.learn(view.embeddings[shown.unique()])
    torch.testing.assert_close(online.atoms, pixels.atoms, atol=1e-5, rtol=0)
    assert (online.atoms - regions.atoms).abs().max() > 1e-3
    nothing = RegionView(torch.full((1, 9), -1), views.views[0].embeddings)
    assert not learn_view([online], nothing)
    torch.testing.assert_close(online.atoms, pixels.atoms, atol=1e-5, rtol=0)


def test_what_fits_start_from_is_learnt_by_area() -> None:
    views = Shown([4, 5])
    found = online_dictionary(cast(RegionViews, views), 1, 4, nonzeros=2, seed=3, passes=2)
    random = torch.randn(4, DIM, generator=torch.Generator().manual_seed(3))
    wanted = OnlineDictionary.start(torch.nn.functional.normalize(random, dim=1), 2)
    for view in [*views.views, *views.views]:
        areas = torch.bincount(view.ids[0, :-1], minlength=13)
        wanted.learn(view.embeddings[:12], areas[:12] / view.ids.shape[1])
    torch.testing.assert_close(found[0], wanted.atoms, atol=1e-5, rtol=0)


LEARN = """
import sys, torch
from pathlib import Path
import app
from splat.online_dictionary import OnlineDictionary
torch.set_num_threads(int(sys.argv[2]))
path = Path(sys.argv[1])
dictionary = OnlineDictionary.load(path)
for batch in torch.load(path.with_name("batches.pt")):
    dictionary.learn(batch)
dictionary.save(path)
"""


def test_learning_goes_on_in_another_process(tmp_path: Path) -> None:
    _, batches = planted(5, 8)
    start = unit(ATOMS, DIM, seed=77, dtype=torch.float32)
    whole, half = (OnlineDictionary.start(start, 2, "signed", 0.9) for _ in range(2))
    for batch in batches:
        whole.learn(batch)
    for batch in batches[:4]:
        half.learn(batch)
    path = tmp_path / "level0.safetensors"
    half.save(path)
    torch.save(batches[4:], tmp_path / "batches.pt")
    subprocess.run([sys.executable, "-c", LEARN, str(path), str(torch.get_num_threads())], check=True)
    again = OnlineDictionary.load(path)
    assert torch.equal(again.atoms, whole.atoms)
    assert torch.equal(again.products, whole.products)
    assert torch.equal(again.targets, whole.targets)
    assert (again.nonzeros, again.coding, again.memory) == (2, "signed", 0.9)
    assert not torch.equal(half.atoms, whole.atoms)


def spoilt(**changes: object) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        online = OnlineDictionary.start(unit(ATOMS, DIM, dtype=torch.float32), 2)
        replace(online, **changes).save(path)  # type: ignore[arg-type]

    return write


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_bytes(b"noise"), "is damaged"),
        (lambda path: save_checkpoint(path, {"atoms": torch.ones(3)}, {}), "holds no online dictionary"),
        (lambda path: save_checkpoint(path, {}, {"format": FORMAT, "version": "2"}), "has version 2, this"),
        (lambda path: save_checkpoint(path, {}, {"format": FORMAT, "version": "1"}), "lacks a part"),
        (spoilt(nonzeros=0), "settings"),
        (spoilt(coding="dense"), "settings"),
        (spoilt(memory=1.5), "settings"),
        (spoilt(products=torch.zeros(3, 3).double()), "do not go together"),
        (spoilt(atoms=torch.ones(ATOMS, DIM).half()), "do not go together"),
        (spoilt(targets=torch.full((ATOMS, DIM), torch.nan).double()), "not finite"),
    ],
)
def test_another_file_is_no_dictionary(write: Callable[[Path], None], sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "level0.safetensors"
    write(path)
    with pytest.raises(InputError, match=rf"level0\.safetensors.*{sentence}"):
        OnlineDictionary.load(path)


def test_unused_atoms_become_what_is_missed() -> None:
    start = torch.eye(8)[:3]
    online = OnlineDictionary.start(start, nonzeros=1)
    online.learn(torch.eye(8)[[0, 0, 6, 7]])
    online.learn(torch.eye(8)[[0, 0, 6, 7]])
    assert online.atoms.abs().max(0).values[[0, 6, 7]].tolist() == pytest.approx([1, 1, 1], abs=1e-4)
