"""Everything that runs on a GPU, run on one that is not there (`pretend_cuda`), against the same on the CPU.

tests/test_gpu.py runs the tests that take the fixture ``cuda`` again, on a real one. Tolerances are for that: in single
precision a pixel at the rim of a Gaussian may fall to either side of alpha = 1/255.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import driver
import gsplat_stand_in
import numpy as np
import pytest
import reference
import test_fit_language
import test_fit_rgb
import test_query
import torch
from gsplat.cuda._torch_impl import _isect_tiles
from pretend_cuda import pretend_cuda
from torch import Tensor

from app import ask
from app.bench_clock import no_lap
from app.bench_scene import BenchConfig, Scene
from app.score import evaluate, score
from encoders.errors import InputError
from encoders.progress import silent
from splat import _native, rasterize, rasterize_cpu, rasterize_cuda, relevancy
from splat.dictionary import kmeans_dictionary
from splat.fit_lift import LiftConfig, fit_lift
from splat.fit_rgb import fit_rgb
from splat.fit_sgd import SgdConfig, fit_sgd
from splat.gaussians import load_ply, save_ply
from splat.photometric import photometric_loss
from splat.pipeline import train
from splat.query import query_view
from splat.raster_inputs import plain_inputs
from splat.rgb_config import RgbConfig
from splat.scene.scene import Scene as Photos
from splat.select import select_gaussians
from splat.train_config import TrainConfig

WIDTH, HEIGHT, COUNT, LEVELS, ATOMS = 45, 37, 150, 3, 60
NAMES = ("means", "quats", "scales", "opacities", "sh")


scene = test_fit_rgb.scene


@pytest.fixture
def cuda() -> Iterator[None]:
    with pretend_cuda():
        yield


class Case:
    """Inputs of every rasteriser function on a device."""

    def __init__(self, device: str, seed: int = 2) -> None:
        self.leaves = {
            name: value.to(device).requires_grad_() for name, value in reference.random_scene(COUNT, seed).items()
        }
        pairs = [reference.camera(0.1 - 0.25 * i, WIDTH, HEIGHT) for i in range(2)]
        self.cameras = torch.stack([p[0] for p in pairs]), torch.stack([p[1] for p in pairs])
        self.view = (*self.cameras, WIDTH, HEIGHT)
        g = torch.Generator().manual_seed(seed)
        self.indices = torch.randint(0, ATOMS, (COUNT, LEVELS, 4), generator=g).to(torch.uint8).to(device)
        self.weights = torch.rand(COUNT, LEVELS, 4, generator=g).to(device).requires_grad_()
        self.values = torch.randn(2, HEIGHT, WIDTH, 70, generator=g).to(device)
        self.features = torch.randn(COUNT, 70, generator=g).to(device)
        root = torch.randn(LEVELS, ATOMS, 30, generator=g).to(device)
        self.gram = root @ root.transpose(1, 2)
        self.scores = torch.randn(LEVELS, 6, ATOMS, generator=g).to(device)

    @property
    def geometry(self) -> tuple[Tensor, ...]:
        return tuple(self.leaves[name] for name in NAMES[:4])

    def rgb(self, **options: bool) -> list[Tensor]:
        image, depth, alphas, _ = rasterize.rasterize_rgb(*self.leaves.values(), *self.view, **options)
        loss = image.square().sum() + depth.sin().sum() + alphas.square().sum()
        return [image, depth, alphas, *torch.autograd.grad(loss, list(self.leaves.values()))]

    def codes(self) -> list[Tensor]:
        codes, alphas = rasterize.rasterize_codes(*self.geometry, self.indices, self.weights, *self.view, atoms=ATOMS)
        return [codes, alphas, *torch.autograd.grad(codes.square().sum(), self.weights)]

    def dense(self) -> list[Tensor]:
        return list(rasterize.rasterize_features(*self.geometry, self.features, *self.view))

    def lifted(self) -> list[Tensor]:
        return list(rasterize.lift(*self.geometry, self.values, *self.cameras))

    def relevancy(self) -> list[Tensor]:
        query = (self.indices, self.weights, self.scores, self.gram, 2)
        return list(rasterize.rasterize_relevancy(*self.geometry, *query, *self.view))


def agree(ours: list[Tensor], truth: list[Tensor], tolerance: float = 1e-3) -> None:
    for found, expected in zip(ours, truth, strict=True):
        assert found.device.type == "cuda"
        found, expected = found.detach().cpu(), expected.detach()
        assert found.shape == expected.shape
        assert float(expected.norm()) > 0
        assert float((found - expected).norm() / expected.norm()) < tolerance


# --- the device itself ---------------------------------------------------------------------------


def test_mixing_devices_is_an_error(cuda: None) -> None:
    there, here = torch.ones(3, device="cuda"), torch.ones(3)
    assert there.device.type == "cuda"
    with pytest.raises(RuntimeError, match="cuda:0"):
        there + here
    with pytest.raises(TypeError, match="cuda:0"):
        there.numpy()
    with pytest.raises(TypeError, match="incompatible function arguments"):
        _native.photometric(there, there, 1, 1, 3, 0.2, there)
    assert torch.equal((there + 1).cpu(), here + 1)


def test_tile_lists_of_the_stand_in_are_gsplats() -> None:
    made = reference.random_scene(120, seed=5)
    projected = [reference.project(*(made[n] for n in NAMES[:3]), *reference.camera(a, WIDTH, HEIGHT), WIDTH, HEIGHT)
                 for a in (0.1, -0.1)]  # fmt: skip
    radii, means2d, depths, _ = (torch.stack(parts) for parts in zip(*projected, strict=True))
    each, keys, ids = gsplat_stand_in.intersect_tile(means2d, radii, depths, None, None, 2, 16, 3, 3, True, False)
    expected = _isect_tiles(means2d, radii, depths, 16, 3, 3, sort=False)
    ordered, order = torch.sort(expected[1], stable=True)
    assert len(keys) > 100
    assert torch.equal(keys, ordered)
    assert torch.equal(each, expected[0])
    assert torch.equal(ids, expected[2][order].int())


# --- rasterising ---------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_colours_and_their_gradients(cuda: None, packed: bool) -> None:
    agree(Case("cuda").rgb(packed=packed), Case("cpu").rgb())


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("what", ["codes", "dense", "lifted", "relevancy"])
def test_everything_else_that_is_splatted(cuda: None, what: str, packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rasterize_cuda, "PACKED_FROM", 0 if packed else 10**9)
    on_gpu: Callable[[], list[Tensor]] = getattr(Case("cuda"), what)
    agree(on_gpu(), getattr(Case("cpu"), what)())


def test_lists_of_the_visible_ones_are_shorter(cuda: None, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("cuda")
    case.leaves["means"] = case.leaves["means"].detach() + torch.tensor([1.0, 0.0, 0.0]).to("cuda")
    sizes = []
    for start in (10**9, 0):
        monkeypatch.setattr(rasterize_cuda, "PACKED_FROM", start)
        splats = rasterize.FrozenSplats(*case.geometry, *case.view)
        assert splats.nbytes == sum(each.nbytes for each in splats._splats.lists if each is not None)
        sizes.append(len(splats._splats.lists[0]))
    assert sizes[0] == 2 * COUNT
    assert COUNT // 10 < sizes[1] < sizes[0]


def test_gaussians_of_no_opacity_at_all_are_not_seen(cuda: None) -> None:
    """NaN in an opacity hides a Gaussian, as it does on the CPU."""
    found, truth = Case("cuda"), Case("cpu")
    for case, device in ((found, "cuda"), (truth, "cpu")):
        opacities = truth.leaves["opacities"].detach().clone()
        opacities[::3] = float("nan") if case is found else 0.0
        case.leaves["opacities"] = opacities.to(device).requires_grad_()
    agree(found.codes(), truth.codes())
    agree(found.dense(), truth.dense())
    for ours, expected in zip(found.rgb()[:3], truth.rgb()[:3], strict=True):
        agree([ours], [expected])


def test_tile_lists_are_as_short_as_on_the_cpu(cuda: None) -> None:
    """Radii end where the opacity lets alpha fall below 1/255 on both devices."""
    counts = []
    for device, backend in (("cuda", rasterize_cuda), ("cpu", rasterize_cpu)):
        case = Case(device)
        splats = backend.Splats(*plain_inputs(*case.geometry, *case.view))
        counts.append(len(splats.lists[4] if isinstance(splats, rasterize_cuda.Splats) else splats.native.flatten_ids))
    assert counts[1] > 300
    # A radius of almost a whole number of pixels may be rounded up on one of them only.
    assert abs(counts[0] - counts[1]) <= 0.005 * counts[1]


@pytest.mark.parametrize("packed", [False, True])
def test_nothing_in_view(cuda: None, packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """No splat in any list, where kernels start with empty arrays."""
    monkeypatch.setattr(rasterize_cuda, "PACKED_FROM", 0 if packed else 10**9)
    case = Case("cuda")
    case.leaves["means"] = case.leaves["means"].detach() - torch.tensor([0.0, 0.0, 100.0]).to("cuda")
    codes, alphas = rasterize.rasterize_codes(*case.geometry, case.indices, case.weights, *case.view, atoms=ATOMS)
    assert not codes.detach().cpu().any()
    assert not alphas.cpu().any()
    assert not any(each.cpu().any() for each in case.lifted())


@pytest.mark.parametrize("packed", [False, True])
def test_absolute_gradients_are_sums_over_pixels_of_absolute_values(cuda: None, packed: bool) -> None:
    case = Case("cuda")
    image, _, _, info = rasterize.rasterize_rgb(*case.leaves.values(), *case.view, packed=packed, absgrad=True)
    info["means2d"].retain_grad()
    image.sum().backward()
    plain, absolute = info["means2d"].grad.cpu().abs(), info["means2d"].absgrad.cpu()
    assert bool((absolute >= plain - 1e-4 * plain.max()).all())
    assert float(absolute.sum()) > 1.2 * float(plain.sum())
    assert (info["gaussian_ids"] is None) != packed


def test_what_only_a_gpu_does_is_refused_on_the_cpu() -> None:
    case = Case("cpu")
    for options in ({"packed": True}, {"absgrad": True}):
        with pytest.raises(ValueError, match="need Gaussians on a CUDA device"):
            case.rgb(**options)
    with pytest.raises(InputError, match="Absolute gradients need a CUDA GPU"):
        RgbConfig(absgrad=True)
    with pytest.raises(ValueError, match="on meta; they can be splatted on cpu or cuda"):
        rasterize.lift(*(each.to("meta") for each in case.geometry), case.values, *case.cameras)


# --- fitting colours -----------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.0, 0.2, 1.0])
def test_photometric_loss(cuda: None, weight: float) -> None:
    truth = torch.rand(40, 61, 3)
    image = truth + 0.2 * torch.randn(40, 61, 3)
    losses, gradients = [], []
    for device in ("cpu", "cuda"):
        leaf = image.clone().to(device).requires_grad_()
        loss = photometric_loss(leaf, truth.to(device), weight)
        loss.backward()
        assert leaf.grad is not None
        losses.append(loss.item())
        gradients.append(leaf.grad)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    agree(gradients[1:], gradients[:1])


SHORT = replace(test_fit_rgb.CONFIG, iterations=4, coarse_until=2, refine_start=1000)


def test_first_steps_of_a_fit_are_those_of_the_cpu(cuda: None, scene: Photos, tmp_path: Path) -> None:
    expected, _ = fit_rgb(scene, SHORT, tmp_path / "cpu")
    found, stats = fit_rgb(scene, replace(SHORT, device="cuda"), tmp_path / "cuda")
    assert stats["iterations"] == 4
    for name, value in vars(expected).items():
        assert getattr(found, name).device.type == "cpu"
        # Turning round Gaussians changes nothing: what gradient there is is rounding, of which Adam takes the sign.
        if name != "quats":
            assert float((getattr(found, name) - value).abs().quantile(0.98)) < 1e-3, name


@pytest.mark.parametrize(
    "options",
    [
        {"packed_from": 0},
        {"absgrad": True, "grow_grad2d": 0.0008},
        {"strategy": "mcmc", "max_gaussians": 400, "opacity_reg": 0.01, "scale_reg": 0.01},
    ],
    ids=["packed", "absgrad", "mcmc"],
)
def test_gaussians_are_added_and_a_stopped_fit_goes_on(
    cuda: None,
    scene: Photos,
    tmp_path: Path,
    options: dict[str, object],
) -> None:
    config = replace(
        test_fit_rgb.CONFIG, iterations=14, coarse_until=14, refine_start=3, refine_every=5, refine_stop=12,
        init_opacity=0.02, device="cuda", **options,
    )  # fmt: skip

    def stop(done: int, _total: int, _message: str) -> None:
        if done == 7:
            raise test_fit_rgb.Killed

    with pytest.raises(test_fit_rgb.Killed):
        fit_rgb(scene, config, tmp_path, stop)
    steps: list[int] = []
    gaussians, _ = fit_rgb(scene, config, tmp_path, lambda done, _total, _message: steps.append(done))
    assert steps[0] == 7
    assert len(gaussians) > 300
    assert bool(torch.isfinite(gaussians.means).all())


# --- fitting language ----------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [0, 2])
def test_lift_solver(cuda: None, tmp_path: Path, rounds: int) -> None:
    results, start = [], test_fit_language.some_atoms()
    for device in ("cpu", "cuda"):
        views = test_fit_language.make_views(tmp_path / device, gaussians=test_fit_language.make_gaussians().to(device))
        clustered = kmeans_dictionary(views, LEVELS, 12)
        assert clustered.device.type == device
        start = start if device == "cuda" else clustered
        results.append(fit_lift(views, start.to(device), LiftConfig(nonzeros=3, rounds=rounds)))
    (atoms, codes, losses), (its_atoms, its_codes, its_losses) = results
    assert its_losses[0] == pytest.approx(losses[0], rel=1e-4)
    if rounds == 0:
        agree([its_atoms, its_codes.weights], [atoms, codes.weights], 1e-2)
    # Rounding decides which of two equally good atoms is taken, and the next round builds on it.
    assert its_losses == pytest.approx(losses, rel=1e-2)
    assert losses[-1] <= losses[0]


def test_sgd_solver_continues_on_another_device(cuda: None, tmp_path: Path) -> None:
    config = SgdConfig(nonzeros=3, iterations=8, checkpoint_every=4)
    results = []
    for device in ("cpu", "cuda"):
        gaussians = test_fit_language.make_gaussians().to(device)
        views = test_fit_language.make_views(tmp_path / device, gaussians=gaussians)
        atoms = test_fit_language.some_atoms().to(device)
        results.append(fit_sgd(views, atoms, config, checkpoint=tmp_path / f"{device}.safetensors"))
    (atoms, codes, losses), (its_atoms, its_codes, its_losses) = results
    assert its_losses == pytest.approx(losses, rel=1e-3)
    agree([its_atoms, its_codes.weights], [atoms, codes.weights], 1e-2)
    # What the CPU finished, the GPU finds finished.
    again, *_ = fit_sgd(views, test_fit_language.some_atoms().to("cuda"), config,
                        checkpoint=tmp_path / "cpu.safetensors")  # fmt: skip
    agree([again], [atoms], 1e-6)


# --- asking --------------------------------------------------------------------------------------


def test_queries_and_selections(cuda: None) -> None:
    gaussians, field, encoder = test_query.blobs()
    camera = test_query.view()
    there = gaussians.to("cuda"), field.to("cuda")
    for expected, found in zip(
        query_view(gaussians, field, camera, ["cat", "dog"], encoder),
        query_view(*there, camera, ["cat", "dog"], encoder),
        strict=True,
    ):
        assert found.level == expected.level
        assert found.box is not None
        assert expected.box is not None
        np.testing.assert_allclose((*found.point, *found.box), (*expected.point, *expected.box), atol=2)
        assert (found.mask != expected.mask).mean() < 1e-3
        assert np.abs(found.relevancy - expected.relevancy).mean() < 1e-4
    expected = select_gaussians(gaussians, field, "cat", encoder)
    assert 0 < int(expected.sum()) < len(gaussians)
    chosen = select_gaussians(*there, "cat", encoder)
    assert torch.equal(chosen.cpu(), expected)
    assert len(there[0].subset(chosen)) == int(expected.sum())


def test_windows_of_the_read_out(cuda: None) -> None:
    maps = torch.rand(2, 3, 33, 61, generator=torch.Generator().manual_seed(1))
    agree([relevancy.pool(maps.to("cuda")), relevancy.smooth(maps.to("cuda"))],
          [relevancy.pool(maps), relevancy.smooth(maps)], 1e-5)  # fmt: skip
    chosen = maps > 0.5
    assert torch.equal(relevancy.vote(chosen.to("cuda")).cpu(), relevancy.vote(chosen))


def test_files_are_written_from_any_device(cuda: None, tmp_path: Path) -> None:
    gaussians, field, _ = test_query.blobs()
    save_ply(tmp_path / "a.ply", gaussians.to("cuda"))
    assert torch.equal(load_ply(tmp_path / "a.ply").means, gaussians.means)
    field.to("cuda").save(tmp_path / "language.safetensors")
    assert torch.equal(field.load(tmp_path / "language.safetensors").indices, field.indices)


# --- the speed table -----------------------------------------------------------------------------


def test_frames_of_the_speed_table(cuda: None) -> None:
    config = BenchConfig(gaussians=300, width=50, height=35, dim=48, phrases=2)
    ours, truth = Scene(replace(config, device="cuda")), Scene(config)
    for name in ("rgb", "codes", "query", "langsplat", "materialised"):
        agree([getattr(ours, name)()], [getattr(truth, name)()])
    agree([ours.dense(48)(no_lap)], [truth.dense(48)(no_lap)])
    ours.rgb_training_step()


# --- the whole program ---------------------------------------------------------------------------


@pytest.mark.slow
def test_a_scene_is_trained_asked_cut_and_scored(
    cuda: None, tiny_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.install(monkeypatch.setattr)
    monkeypatch.setattr(driver, "ITERATIONS", 12)
    monkeypatch.setattr(driver, "POINTS", 500)
    for module in ("splat.pipeline", "splat.score", "app.ask"):
        # Encoders work in threads, where there is no pretended device.
        monkeypatch.setattr(f"{module}.pick_device", lambda _name: "cpu")
    splatted = Counter[str]()
    splats = rasterize._backend

    def counted(means: Tensor) -> object:
        splatted[means.device.type] += 1
        return splats(means)

    monkeypatch.setattr(rasterize, "_backend", counted)
    run = tmp_path / "run"
    config = TrainConfig(tiny_scene, preset="fast", encoder="colour", device="auto")
    metrics = train(run, config, scorer=score)
    assert metrics["psnr"] > 8
    answer = ask.query(run, ask.Question(("red",), device="cuda"), tmp_path / "answer")
    assert 0 <= answer["results"][0]["confidence"] <= 1
    selected = ask.select(run, "red", tmp_path / "red.ply", device="cuda", threshold=0.1)
    assert len(load_ply(tmp_path / "red.ply")) == selected["written"]
    again = evaluate(run, lambda _stage: silent, device="cuda")
    assert again["miou"] == pytest.approx(metrics["miou"], abs=0.01)
    assert splatted["cuda"] > 30  # 12 steps, and lists of frozen geometry once per view
    assert splatted["cpu"] == 0
