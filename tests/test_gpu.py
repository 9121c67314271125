"""The kernels and everything above them on a real NVIDIA GPU; skipped, with the reason, where there is none.

`test_cuda_path` brings its tests along: what it runs on a pretended device runs here on the real one.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from unittest import mock

import pytest
import reference
import test_fit_rgb
import torch
from test_cuda_path import (  # noqa: F401 - collected here again
    test_a_scene_is_trained_asked_cut_and_scored,
    test_absolute_gradients_are_sums_over_pixels_of_absolute_values,
    test_colours_and_their_gradients,
    test_everything_else_that_is_splatted,
    test_files_are_written_from_any_device,
    test_first_steps_of_a_fit_are_those_of_the_cpu,
    test_frames_of_the_speed_table,
    test_gaussians_are_added_and_a_stopped_fit_goes_on,
    test_gaussians_of_no_opacity_at_all_are_not_seen,
    test_lift_solver,
    test_lists_of_the_visible_ones_are_shorter,
    test_mixing_devices_is_an_error,
    test_nothing_in_view,
    test_photometric_loss,
    test_queries_and_selections,
    test_sgd_solver_continues_on_another_device,
    test_tile_lists_are_as_short_as_on_the_cpu,
    test_windows_of_the_read_out,
)
from torch import Tensor

from app.bench import measure
from app.bench_scene import BenchConfig, Scene
from splat import ops, rasterize_cuda
from splat.device import gpu_obstacle
from splat.fit_rgb import fit_rgb
from splat.image_metrics import psnr
from splat.raster_inputs import Geometry, View
from splat.scene.scene import Scene as Photos

pytestmark = pytest.mark.gpu

WIDTH, HEIGHT, COUNT, CAMERAS = 150, 118, 3000, 2
scene = test_fit_rgb.scene


@pytest.fixture(autouse=True)
def cuda() -> None:
    """Skips where torch sees no GPU; one that cannot be used fails. gsplat may have to be compiled first."""
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    obstacle = gpu_obstacle(retry=True)
    if obstacle:
        pytest.fail(obstacle)


class Case:
    """A scene on a device, seen by two cameras, and arguments of every operator."""

    def __init__(self, levels: int = 3, nonzeros: int = 4, atoms: int = 64, packed: bool = False, device: str = "cuda"):
        made = reference.random_scene(COUNT, seed=1)
        pairs = [reference.camera(0.1 - 0.25 * i, WIDTH, HEIGHT) for i in range(CAMERAS)]
        viewmats, Ks = (torch.stack(each).to(device) for each in zip(*pairs, strict=True))
        self.view = View(viewmats, Ks, WIDTH, HEIGHT)
        means, quats, scales, opacities = (made[n].to(device) for n in ("means", "quats", "scales", "opacities"))
        self.geometry: Geometry = (means, quats, scales, opacities)
        with mock.patch.object(rasterize_cuda, "PACKED_FROM", 0 if packed else COUNT + 1):
            self.lists = rasterize_cuda.Splats(self.geometry, self.view).lists
        self.atoms = atoms
        g = torch.Generator().manual_seed(0)
        shape = (COUNT, levels, nonzeros)
        self.indices = torch.randint(0, atoms, shape, generator=g).to(torch.uint8).to(device)
        self.weights = torch.rand(shape, generator=g).to(device)
        self.values = torch.randn(CAMERAS, HEIGHT, WIDTH, 70, generator=g).to(device)
        root = torch.randn(levels, atoms, 30, generator=g).to(device)
        self.gram = root @ root.transpose(1, 2)
        self.scores = torch.randn(levels, 9, atoms, generator=g).to(device)
        self.v_codes = torch.randn(CAMERAS, HEIGHT, WIDTH, levels * atoms, generator=g).to(device)

    def arguments(self, name: str) -> tuple[object, ...]:
        return {
            "codes": (self.indices, self.weights, WIDTH, HEIGHT, self.atoms),
            "codes_vjp": (self.indices, self.v_codes, WIDTH, HEIGHT, self.atoms),
            "lift": (self.values, COUNT),
            "relevancy": (self.indices, self.weights, self.scores, self.gram, 3, 10.0, WIDTH, HEIGHT),
        }[name]

    def run(self, name: str, device: str = "cuda") -> tuple[Tensor, ...]:
        inputs = (*self.lists, *self.arguments(name))
        found = getattr(ops, name)(*(each.to(device) if isinstance(each, Tensor) else each for each in inputs))
        return found if isinstance(found, tuple) else (found,)

    def everything(self) -> list[Tensor]:
        return [each for name in OPERATORS for each in self.run(name)]


OPERATORS = ("codes", "codes_vjp", "lift", "relevancy")


def close(ours: Tensor, truth: Tensor) -> None:
    """Equal but for a few pixels at the rim of a Gaussian, where rounding decides about alpha = 1/255."""
    error = (ours.cpu() - truth.cpu()).abs() / truth.abs().max().cpu()
    assert ours.shape == truth.shape
    assert float(truth.abs().max()) > 0
    assert float(error.median()) < 1e-5
    assert float((error > 1e-3).float().mean()) < 1e-3


# --- kernels -------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True], ids=["all", "packed"])
@pytest.mark.parametrize(("levels", "nonzeros", "atoms"), [(3, 4, 64), (1, 1, 7), (2, 8, 250), (3, 16, 256)])
@pytest.mark.parametrize("name", OPERATORS)
def test_kernels_give_what_their_cpu_twins_give(
    name: str, levels: int, nonzeros: int, atoms: int, packed: bool
) -> None:
    case = Case(levels, nonzeros, atoms, packed)
    for ours, truth in zip(case.run(name), case.run(name, "cpu"), strict=True):
        close(ours, truth)


def test_an_index_beyond_the_dictionary_counts_as_no_code() -> None:
    case = Case(atoms=64)
    case.atoms = 50
    case.v_codes = case.v_codes[..., :150].contiguous()
    inside = case.indices < 50
    found = case.run("codes")[0]
    gradient = case.run("codes_vjp")[0]
    case.weights, case.indices = case.weights * inside, case.indices * inside
    close(found, case.run("codes")[0])
    close(gradient * inside, case.run("codes_vjp")[0] * inside)


def test_wrong_arguments_are_refused_in_words() -> None:
    case = Case()
    with pytest.raises(ValueError, match="weights: expected float32"):
        ops.codes(*case.lists, case.indices, case.weights.double(), WIDTH, HEIGHT, 64)
    with pytest.raises(ValueError, match="isect_offsets: expected"):
        ops.codes(*case.lists, case.indices, case.weights, WIDTH + 16, HEIGHT, 64)
    with pytest.raises((ValueError, RuntimeError), match=r"CUDA tensor|device"):
        ops.codes(*case.lists, case.indices, case.weights.cpu(), WIDTH, HEIGHT, 64)


def test_relevancy_takes_no_memory_but_its_result() -> None:
    case = Case()
    case.run("relevancy")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    maps, alphas = case.run("relevancy")
    results = maps.nbytes + alphas.nbytes
    assert torch.cuda.max_memory_allocated() - before < results + (1 << 16)
    assert results < case.v_codes.nbytes / 4


# --- streams, graphs, compilation, devices -------------------------------------------------------


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_queue_work_on_the_current_stream_and_wait_for_nothing(name: str) -> None:
    case = Case()
    expected = case.run(name)
    inputs = {"codes": case.weights, "relevancy": case.scores, "codes_vjp": case.v_codes, "lift": case.values}
    wanted = inputs[name].clone()
    inputs[name].zero_()
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(500_000_000)  # a few tenths of a second
        inputs[name].copy_(wanted)  # a kernel on another stream would see the zeros
        found = case.run(name)
        assert not stream.query(), "the operator waited for the stream"
    stream.synchronize()
    for ours, truth in zip(found, expected, strict=True):
        close(ours, truth)


def test_a_graph_is_captured_once_and_replayed_with_new_values() -> None:
    case = Case()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        case.everything()  # kernels are loaded at their first launch, which cannot be captured
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = case.everything()
    for seed in (1, 2):
        g = torch.Generator("cuda").manual_seed(seed)
        for each in (case.weights, case.values, case.scores, case.v_codes):
            each.copy_(torch.rand(each.shape, generator=g, device="cuda"))
        graph.replay()
        torch.cuda.synchronize()
        replayed = [each.clone() for each in captured]
        for ours, truth in zip(replayed, case.everything(), strict=True):
            torch.testing.assert_close(ours, truth, rtol=1e-4, atol=1e-4)  # sums by atomics come in any order


def test_a_compiled_training_step_is_one_graph() -> None:
    pytest.importorskip("triton")
    case = Case()
    target = torch.randn(192, device="cuda", generator=torch.Generator("cuda").manual_seed(1))

    def loss(logits: Tensor) -> Tensor:
        codes, alphas = ops.codes(*case.lists, case.indices, logits.softmax(-1), WIDTH, HEIGHT, 64)
        return (1 - torch.nn.functional.cosine_similarity(codes, target, dim=-1)).mul(alphas[..., 0]).mean()

    gradients = []
    for function in (loss, torch.compile(loss, fullgraph=True)):
        logits = case.weights.clone().requires_grad_()
        function(logits).backward()
        assert logits.grad is not None
        gradients.append(logits.grad)
    close(gradients[1], gradients[0])


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_run_on_a_gpu_that_is_not_the_current_one(name: str) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    with torch.cuda.device(0):
        case = Case(device="cuda:1")
        for ours, truth in zip(case.run(name, "cuda:1"), case.run(name, "cpu"), strict=True):
            assert ours.device == torch.device("cuda:1")
            close(ours, truth)
        assert torch.cuda.current_device() == 0


# --- training and speed --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"packed_from": 0}, {"absgrad": True, "grow_grad2d": 0.0008}, {"strategy": "mcmc", "max_gaussians": 600}],
    ids=["default", "packed", "absgrad", "mcmc"],
)
def test_a_held_out_view_gets_close_to_the_truth(
    scene: Photos,
    tmp_path_factory: pytest.TempPathFactory,
    options: dict[str, object],
) -> None:
    config = replace(test_fit_rgb.CONFIG, device="cuda", **options)
    gaussians, stats = fit_rgb(scene, config, tmp_path_factory.mktemp("fit"))
    assert stats["iterations"] == config.iterations
    assert len(gaussians) > 300, "nothing was added"
    assert psnr(test_fit_rgb.render(gaussians, scene.cameras[4]), scene.image(4)) > 23.0


def test_the_speed_table_can_be_made() -> None:
    config = BenchConfig(gaussians=20_000, repeats=2, slow=False, device="cuda")
    result = measure(config)
    assert result["largest_difference_from_materialised"] < 1e-3
    assert result["materialised_over_ours"] > 1
    assert result["langsplat_over_ours"] > 1
    assert set(result["milliseconds"]) >= {"rgb", "codes", "query", "dense_1536", "rgb_training_step"}


@pytest.mark.slow
def test_a_million_gaussians_at_1080p() -> None:
    """Everything finite, in less than a second, and in the memory of the results and of a few numbers per splat."""
    big = Scene(BenchConfig(gaussians=1_000_000, width=1920, height=1080, device="cuda"))
    work: dict[str, Callable[[], Tensor]] = {"codes": big.codes, "query": big.query, "rgb": big.rgb}
    for name, frame in work.items():
        frame()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before, start = torch.cuda.memory_allocated(), time.perf_counter()
        image = frame()
        torch.cuda.synchronize()
        assert time.perf_counter() - start < 1.0, name
        # Projection, colours, and the keys that are sorted: expected below 1 kB for each Gaussian, never measured.
        assert torch.cuda.max_memory_allocated() - before < 2 * image.nbytes + (1 << 30), name
        assert bool(torch.isfinite(image).all()), name
        del image
