"""Both language solvers against dense float64 references, where every blending weight and feature is written out."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import blending_weights, camera, random_scene

from encoders.errors import InputError
from encoders.files import write_json
from splat import rasterize
from splat.codes import Codes, densify, sparsify
from splat.dictionary import DictionaryUpdate, kmeans_dictionary
from splat.features import FeatureStore, ViewFeatures
from splat.fit_language import LanguageConfig, fit_language
from splat.fit_lift import LiftConfig, _lift_residuals, _lift_targets, _Passes, fit_lift
from splat.fit_sgd import SgdConfig, fit_sgd, view_loss
from splat.gaussians import Gaussians
from splat.online_dictionary import online_dictionary
from splat.region_views import FROZEN_BYTES, RegionViews
from splat.scene import Camera, stack

WIDTH, HEIGHT, DIM, ATOMS = 24, 18, 10, 12


def make_gaussians(count: int = 40) -> Gaussians:
    scene = random_scene(count, 3)
    means = scene["means"].clone()
    means[:, 2] = means[:, 2].abs() + 0.8
    means[-1] = torch.tensor([0.0, 0.0, -9.0])  # behind every camera
    return Gaussians(
        means, scene["quats"], scene["scales"].log(), torch.logit(scene["opacities"].clamp(0.05, 0.9)), scene["sh"]
    )


def make_views(folder: Path, views: int = 3, gaussians: Gaussians | None = None) -> RegionViews:
    """Views with 5 regions per level in vertical stripes, some pixels without any."""
    store, cameras = FeatureStore(folder), []
    write_json(folder / "features.json", {"version": 1, "encoder": "test", "dim": DIM, "regions": "stripes"})
    random = np.random.default_rng(0)
    kinds = random.normal(size=(15, DIM))
    for index in range(views):
        viewmat, K = camera(0.1 * index, WIDTH, HEIGHT, torch.float64)
        cameras.append(Camera(f"v{index}", WIDTH, HEIGHT, K.numpy(), viewmat.numpy()))
        columns = np.arange(WIDTH) * 5 // WIDTH
        ids = np.stack([np.tile(columns + 5 * level, (HEIGHT, 1)) for level in range(3)]).astype(np.int32)
        ids[1, :4] = -1
        embeddings = kinds + 0.1 * random.normal(size=kinds.shape)
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
        store.write(f"v{index}", ViewFeatures(ids, embeddings.astype(np.float16)))
    return RegionViews(gaussians or make_gaussians(), cameras, store)


def omega(views: RegionViews, gaussians: Gaussians) -> list[torch.Tensor]:
    """Blending weights of every view, float64 [H * W, N]."""
    shape = [tensor.double() for tensor in gaussians.geometry]
    return [
        blending_weights(*shape, torch.from_numpy(c.viewmat), torch.from_numpy(c.K), WIDTH, HEIGHT)
        for c in views.cameras
    ]


def some_codes(gaussians: int, nonzeros: int = 3) -> Codes:
    generator = torch.Generator().manual_seed(5)
    return Codes(*sparsify(torch.randn(gaussians, 3, ATOMS, generator=generator), nonzeros))


def some_atoms() -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(3, ATOMS, DIM, generator=torch.Generator().manual_seed(4)), dim=2)


def target_of(views: RegionViews, index: int, level: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Target feature per pixel [H * W, D] (zero without region) and whether there is one, float64."""
    view = views.view(index)
    valid = view.ids[level] >= 0
    return view.embeddings.double()[view.ids[level].clamp_min(0)] * valid[:, None], valid.double()


def test_lift_gives_the_correlations_of_the_mean_targets(tmp_path: Path) -> None:
    gaussians, atoms = make_gaussians(), some_atoms()
    views = make_views(tmp_path, gaussians=gaussians)
    sums, mass = _lift_targets(_Passes(views, 1, lambda *_: None), atoms)
    weights = omega(views, gaussians)
    for level in range(3):
        pairs = [target_of(views, index, level) for index in range(3)]
        features = sum(w.T @ target for w, (target, _) in zip(weights, pairs, strict=True))
        expected_mass = sum(w.T @ valid for w, (_, valid) in zip(weights, pairs, strict=True))
        np.testing.assert_allclose(sums[:, level], features @ atoms[level].double().T, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(mass[:, level], expected_mass, rtol=1e-3, atol=1e-3)
    assert mass[-1].abs().sum() == 0


@pytest.mark.parametrize("splat_bytes", [1 << 30, 1])
def test_residuals_are_lifted_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, splat_bytes: int) -> None:
    monkeypatch.setattr("splat.region_views.SPLAT_BYTES", splat_bytes)
    gaussians, atoms = make_gaussians(), some_atoms()
    views, codes = make_views(tmp_path, gaussians=gaussians), some_codes(40)
    found = _lift_residuals(_Passes(views, 1, lambda *_: None), codes, atoms)
    features = torch.einsum("nla,lad->nld", densify(codes.indices, codes.weights, ATOMS), atoms).double()
    for level in range(3):
        expected = torch.zeros(40, ATOMS, dtype=torch.float64)
        for index, w in enumerate(omega(views, gaussians)):
            target, valid = target_of(views, index, level)
            residual = (target - w @ features[:, level]) * valid[:, None]
            expected += w.T @ residual @ atoms[level].double().T
        np.testing.assert_allclose(found[:, level], expected, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize(("room", "made"), [(1 << 30, 3), (0, 9), (2500, 7)], ids=["all", "none", "one"])
def test_views_are_sorted_once_while_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, made: int
) -> None:
    """A view of 40 Gaussians takes between 1250 and 2500 bytes."""
    monkeypatch.setitem(FROZEN_BYTES, "cpu", room)
    splats: list[rasterize.FrozenSplats] = []

    class Counted(rasterize.FrozenSplats):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            splats.append(self)

    gaussians = make_gaussians()
    views, codes = make_views(tmp_path, gaussians=gaussians), some_codes(40)
    monkeypatch.setattr("splat.region_views.FrozenSplats", Counted)
    for _ in range(3):
        for index, each in enumerate(views.cameras):
            where = (*gaussians.geometry, codes.indices, codes.weights, *stack([each]), WIDTH, HEIGHT)
            image, _ = rasterize.rasterize_codes(*where, atoms=ATOMS)
            assert torch.equal(views.codes(index, codes.indices, codes.weights, ATOMS), image.view(-1, 3, ATOMS))
    assert len(splats) == made
    assert all(1250 < each.nbytes <= 2500 for each in splats)


def test_dictionary_update_is_least_squares_over_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.rand(200, ATOMS, generator=generator)
    ids = torch.randint(0, 9, (200,), generator=generator)
    embeddings = torch.nn.functional.normalize(torch.randn(9, DIM, generator=generator), dim=1)
    update = DictionaryUpdate.start(some_atoms()[:1])
    update.add(0, codes[:90], ids[:90], embeddings, some_atoms()[0])
    update.add(0, codes[90:], ids[90:], embeddings, some_atoms()[0])
    atoms, norms = update.solve(some_atoms()[:1])
    expected = torch.linalg.lstsq(codes.double(), embeddings[ids].double()).solution
    found = (atoms[0] * norms[0, :, None]).double()
    # The pull towards the old atoms is a thousandth of an atom's usage.
    error = torch.linalg.norm(codes.double() @ (found - expected)) / torch.linalg.norm(codes.double() @ expected)
    assert error < 0.02
    np.testing.assert_allclose(atoms[0].norm(dim=1), 1.0, atol=1e-5)


def test_unused_atoms_become_the_worst_coded_regions() -> None:
    atoms = torch.eye(4, DIM)[None]
    embeddings = torch.eye(6, DIM)[[0, 5]]
    codes = torch.zeros(50, 4)
    codes[:, 0] = 1.0
    ids = torch.tensor([0] * 20 + [1] * 30)
    update = DictionaryUpdate.start(torch.zeros(1, 4, DIM))
    update.add(0, codes, ids, embeddings, atoms[0])
    fresh, _ = update.solve(atoms)
    similarities = fresh[0, 1:] @ embeddings[1]
    assert similarities.max() > 0.99


def test_lift_finds_what_explains_the_views(tmp_path: Path) -> None:
    gaussians = make_gaussians()
    views = make_views(tmp_path, gaussians=gaussians)
    atoms = kmeans_dictionary(views, 3, ATOMS)
    fitted, codes, losses = fit_lift(views, atoms, LiftConfig(nonzeros=4, rounds=3))
    assert losses[-1] < losses[0]
    assert (codes.weights >= 0).all()
    np.testing.assert_allclose(fitted.norm(dim=2), 1.0, atol=1e-5)
    # The reported loss is the loss of the features, written out in float64.
    total, pixels = 0.0, 0.0
    features = torch.einsum("nla,lad->nld", densify(codes.indices, codes.weights, ATOMS), fitted).double()
    for index, w in enumerate(omega(views, gaussians)):
        for level in range(3):
            target, valid = target_of(views, index, level)
            similarity = torch.nn.functional.cosine_similarity(w @ features[:, level], target, dim=1, eps=1e-12)
            total += float(((1 - similarity) * valid).sum())
            pixels += float(valid.sum())
    assert losses[-1] == pytest.approx(total / pixels, abs=1e-3)


def test_unseen_gaussians_take_the_nearest_code(tmp_path: Path) -> None:
    gaussians = make_gaussians()
    views = make_views(tmp_path, gaussians=gaussians)
    _, codes, _ = fit_lift(views, kmeans_dictionary(views, 3, ATOMS), LiftConfig(rounds=0))
    mass = sum(w.sum(0) for w in omega(views, gaussians))
    seen = torch.nonzero(mass > 1e-3)[:, 0]
    nearest = seen[(gaussians.means[seen] - gaussians.means[-1]).norm(dim=1).argmin()]
    assert torch.equal(codes.indices[-1, 0], codes.indices[nearest, 0])
    assert codes.weights[-1].sum() > 0


def test_sgd_gradients_agree_with_materialised_features(tmp_path: Path) -> None:
    gaussians = make_gaussians()
    views = make_views(tmp_path, gaussians=gaussians)
    logits = torch.randn(40, 3, ATOMS, generator=torch.Generator().manual_seed(1)).requires_grad_()
    atoms = some_atoms().requires_grad_()
    loss = view_loss(views, 1, views.view(1), atoms, logits, 3)
    assert loss is not None
    loss.backward()

    atoms64, logits64 = atoms.detach().double().requires_grad_(), logits.detach().double().requires_grad_()
    probabilities = torch.softmax(logits64, -1)
    kept = torch.zeros_like(probabilities).scatter(-1, probabilities.topk(3, -1).indices, 1.0)
    codes = probabilities * kept / (probabilities * kept).sum(-1, keepdim=True)
    features = torch.einsum("nla,lad->nld", codes, atoms64)
    parts = []
    for level in range(3):
        target, valid = target_of(views, 1, level)
        splatted = (omega(views, gaussians)[1] @ features[:, level])[valid > 0]
        norm = splatted.norm(dim=1).clamp_min(1e-6)
        parts.append(1 - (splatted * target[valid > 0]).sum(1) / norm)
    expected = torch.cat(parts).mean()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    for ours, theirs in ((atoms.grad, atoms64.grad), (logits.grad, logits64.grad)):
        assert ours is not None
        assert theirs is not None
        assert (ours.double() - theirs).norm() < 1e-3 * theirs.norm()


def test_sgd_gradients_agree_with_finite_differences(tmp_path: Path) -> None:
    views = make_views(tmp_path)
    logits = torch.randn(40, 3, ATOMS, generator=torch.Generator().manual_seed(1)).requires_grad_()
    atoms = some_atoms().requires_grad_()
    loss = view_loss(views, 0, views.view(0), atoms, logits, 3)
    assert loss is not None
    loss.backward()
    assert logits.grad is not None
    assert atoms.grad is not None
    for tensor, gradient in ((logits, logits.grad), (atoms, atoms.grad)):
        with torch.no_grad():
            step = 1e-2 * gradient / gradient.norm()
            values = []
            for sign in (1, -1):
                tensor += sign * step
                value = view_loss(views, 0, views.view(0), atoms, logits, 3)
                assert value is not None
                values.append(value.item())
                tensor -= sign * step
        assert (values[0] - values[1]) / 2 == pytest.approx(1e-2 * gradient.norm().item(), rel=0.02)


def test_sgd_improves_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    views = make_views(tmp_path / "features")
    atoms = kmeans_dictionary(views, 3, ATOMS)
    config = SgdConfig(iterations=24, learning_rate=0.05, checkpoint_every=10)
    whole_atoms, whole, losses = fit_sgd(views, atoms, config)
    assert losses[-1] < 0.8 * losses[0]

    class Killed(Exception):
        pass

    def die(done: int, _total: int, _message: str) -> None:
        if done == 15:
            raise Killed

    path = tmp_path / "checkpoints" / "sgd.safetensors"
    with pytest.raises(Killed):
        fit_sgd(views, atoms, config, checkpoint=path, report=die)
    steps: list[int] = []
    again_atoms, again, _ = fit_sgd(
        views, atoms, config, checkpoint=path, report=lambda done, _total, _message: steps.append(done)
    )
    assert steps[0] == 11
    assert torch.equal(again_atoms, whole_atoms)
    assert torch.equal(again.weights, whole.weights)
    # Other settings do not continue from this file.
    fit_sgd(
        views, atoms, replace(config, seed=1, iterations=2), checkpoint=path, report=lambda d, _t, _m: steps.append(d)
    )
    assert steps[-2:] == [1, 2]


def test_sgd_can_start_from_lift(tmp_path: Path) -> None:
    views = make_views(tmp_path)
    atoms, codes, losses = fit_lift(views, kmeans_dictionary(views, 3, ATOMS), LiftConfig(rounds=2))
    _, _, after = fit_sgd(views, atoms, SgdConfig(iterations=1), codes)
    assert after[0] < losses[-1] + 0.05


@pytest.mark.parametrize("solver", ["lift", "sgd"])
def test_fit_language(tmp_path: Path, solver: str) -> None:
    gaussians = make_gaussians()
    views = make_views(tmp_path / "features", gaussians=gaussians)
    config = LanguageConfig(atoms=ATOMS, nonzeros=2, solver=solver, iterations=5)  # type: ignore[arg-type]
    field, stats = fit_language(gaussians, views.cameras, views.store, config, checkpoint_dir=tmp_path / "c")
    assert tuple(field.atoms.shape) == (3, ATOMS, DIM)
    assert tuple(field.indices.shape) == (40, 3, 2)
    assert field.encoder == "test"
    assert 0 <= stats["loss"] <= 1
    assert stats["seconds"] > 0
    field.save(tmp_path / "language.safetensors")


@pytest.mark.parametrize("start", [None, "kmeans", "online"])
@pytest.mark.parametrize("solver", ["lift", "sgd"])
def test_a_fit_starts_from_the_dictionary_it_says(tmp_path: Path, solver: str, start: str | None) -> None:
    """None is k-means, for both solvers; the ablation says why (docs/language_field.md)."""
    gaussians = make_gaussians()
    views = make_views(tmp_path, gaussians=gaussians)
    config = LanguageConfig(ATOMS, 2, solver, dictionary=start, iterations=2, rounds=1)  # type: ignore[arg-type]
    assert config.start == (start or "kmeans")
    found, _ = fit_language(gaussians, views.cameras, views.store, config)
    again = RegionViews(gaussians, views.cameras, views.store)
    starts = {"kmeans": kmeans_dictionary(again, 3, ATOMS), "online": online_dictionary(again, 3, ATOMS, 2)}
    fitted = {
        name: fit_lift(again, atoms, LiftConfig(2, rounds=1))[0]
        if solver == "lift"
        else fit_sgd(again, atoms, SgdConfig(2, iterations=2))[0].detach()
        for name, atoms in starts.items()
    }
    assert torch.equal(found.atoms, fitted[start or "kmeans"])
    assert (fitted["kmeans"] - fitted["online"]).abs().max() > 0.01


def test_what_cannot_be_fitted_is_refused(tmp_path: Path) -> None:
    gaussians = make_gaussians()
    views = make_views(tmp_path, gaussians=gaussians)
    with pytest.raises(InputError, match="no training views"):
        fit_language(gaussians, [], views.store)
    with pytest.raises(InputError, match="v9"):
        fit_language(gaussians, [replace(views.cameras[0], name="v9")], views.store)
    with pytest.raises(InputError, match="24x18"):
        fit_language(gaussians, [views.cameras[0].scaled(2)], views.store)
    nothing = ViewFeatures(np.full((3, HEIGHT, WIDTH), -1, np.int32), np.zeros((0, DIM), np.float16))
    views.store.write("v0", nothing)
    with pytest.raises(InputError, match="has a region"):
        fit_language(gaussians, views.cameras[:1], views.store)


@pytest.mark.parametrize(
    "options",
    [
        {"atoms": 1},
        {"atoms": 257},
        {"nonzeros": 0},
        {"nonzeros": 65},
        {"solver": "magic"},
        {"iterations": 0},
        {"stride": 0},
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        LanguageConfig(**options)  # type: ignore[arg-type]


def test_shrunk_views_keep_regions_in_place(tmp_path: Path) -> None:
    gaussians = make_gaussians()
    full = make_views(tmp_path, gaussians=gaussians)
    half = RegionViews(gaussians, full.cameras, full.store, stride=2)
    assert full.stride == 1
    assert (half.cameras[0].width, half.cameras[0].height) == (WIDTH // 2, HEIGHT // 2)
    ids = full.view(0).ids.reshape(3, HEIGHT, WIDTH)
    assert torch.equal(half.view(0).ids.reshape(3, HEIGHT // 2, WIDTH // 2), ids[:, 1::2, 1::2])
    # What is splatted small is the big splat, averaged: the same place, not one shifted by half a pixel.
    codes = some_codes(40)
    big = full.codes(0, codes.indices, codes.weights, ATOMS).reshape(HEIGHT, WIDTH, -1).permute(2, 0, 1)
    small = half.codes(0, codes.indices, codes.weights, ATOMS).reshape(HEIGHT // 2, WIDTH // 2, -1).permute(2, 0, 1)
    pooled = torch.nn.functional.avg_pool2d(big[None], 2)[0]

    def difference(other: torch.Tensor) -> float:
        return float((small[:, 1:-1, 1:-1] - other[:, 1:-1, 1:-1]).norm())

    assert difference(pooled) < 0.5 * float(pooled.norm())
    for axis in (1, 2):
        assert difference(pooled) < difference(pooled.roll(1, axis))
        assert difference(pooled) < difference(pooled.roll(-1, axis))
