"""The operators against blending weights written out in float64, and against what torch expects of operators."""

import sys
from contextlib import nullcontext
from types import SimpleNamespace

import emulated
import pytest
import reference
import torch
import torch._dynamo  # operators import it at their first call, which must not be while torch.cuda is replaced
from gsplat_stand_in import splat_lists
from torch import Tensor

from splat import ops, rasterize_cpu
from splat.raster_inputs import View

WIDTH, HEIGHT, COUNT = 45, 37, 120
LEVELS, NONZEROS, ATOMS = 3, 4, 20


class Case:
    """A scene seen by two cameras: its lists, all splats or packed, and the blending weights [C * H * W, N]."""

    def __init__(self, packed: bool) -> None:
        scene = reference.random_scene(COUNT, seed=2)
        pairs = [reference.camera(0.1 - 0.25 * i, WIDTH, HEIGHT) for i in range(2)]
        self.view = View(torch.stack([p[0] for p in pairs]), torch.stack([p[1] for p in pairs]), WIDTH, HEIGHT)
        self.geometry = tuple(scene[name] for name in ("means", "quats", "scales", "opacities"))
        self.lists = splat_lists(self.geometry, self.view, packed)
        double = [each.double() for each in self.geometry]
        self.omega = torch.cat(
            [reference.blending_weights(*double, v.double(), k.double(), WIDTH, HEIGHT) for v, k in pairs]
        )
        g = torch.Generator().manual_seed(0)
        shape = (COUNT, LEVELS, NONZEROS)
        self.indices = torch.randint(0, ATOMS, shape, generator=g).to(torch.uint8)
        self.weights = torch.rand(shape, generator=g)
        self.values = torch.randn(2, HEIGHT, WIDTH, 5, generator=g)
        dictionary = torch.nn.functional.normalize(torch.randn(LEVELS, ATOMS, 30, generator=g), dim=-1)
        texts = torch.nn.functional.normalize(torch.randn(6, 30, generator=g), dim=-1)
        self.dictionary, self.texts = dictionary, texts
        self.scores = torch.einsum("lad,td->lta", dictionary, texts)
        self.gram = dictionary @ dictionary.transpose(1, 2)
        self.v_codes = torch.randn(2, HEIGHT, WIDTH, LEVELS * ATOMS, generator=g)

    def codes(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        return ops.codes(*self.lists, self.indices, weights, WIDTH, HEIGHT, ATOMS)

    def dense(self, weights: Tensor) -> Tensor:
        """Codes over the whole dictionary, float64 [N, levels * atoms]."""
        rows = torch.zeros(COUNT, LEVELS, ATOMS, dtype=torch.float64)
        return rows.scatter_add(2, self.indices.long(), weights.double()).flatten(1)


@pytest.fixture(scope="module", params=[False, True], ids=["all", "packed"])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def relative(ours: Tensor, truth: Tensor) -> float:
    return float((ours.detach().double() - truth.detach()).norm() / truth.detach().norm())


def test_packed_lists_hold_fewer_splats_and_say_whose() -> None:
    whole, packed = Case(False), Case(True)
    assert len(whole.lists[0]) == 2 * COUNT
    assert packed.lists[5] is not None
    assert COUNT // 2 < len(packed.lists[0]) == len(packed.lists[5]) < 2 * COUNT


def test_codes_and_their_gradient_are_sums_over_blending_weights(case: Case) -> None:
    weights = case.weights.clone().requires_grad_()
    codes, alphas = case.codes(weights)
    leaf = case.weights.clone().requires_grad_()
    expected = (case.omega @ case.dense(leaf)).reshape(codes.shape)
    assert relative(codes, expected) < 1e-3
    assert relative(alphas.flatten(), case.omega.sum(1)) < 1e-3
    assert not alphas.requires_grad
    codes.backward(case.v_codes)
    expected.backward(case.v_codes.double())
    assert weights.grad is not None
    assert leaf.grad is not None
    assert relative(weights.grad, leaf.grad.double()) < 1e-3


def test_lift_is_the_adjoint(case: Case) -> None:
    sums, mass = ops.lift(*case.lists, case.values, COUNT)
    assert relative(sums, case.omega.T @ case.values.flatten(0, 2).double()) < 1e-3
    assert relative(mass, case.omega.sum(0)) < 1e-3


def test_relevancy_is_the_formula_on_features(case: Case) -> None:
    query = (case.indices, case.weights, case.scores, case.gram, 2, 10.0)
    maps, _ = ops.relevancy(*case.lists, *query, WIDTH, HEIGHT)
    pixels = (case.omega @ case.dense(case.weights)).unflatten(1, (LEVELS, ATOMS))
    features = torch.einsum("pla,lad->pld", pixels, case.dictionary.double())
    cosines = torch.nn.functional.normalize(features, dim=-1) @ case.texts.double().T
    pairs = torch.softmax(
        10 * torch.stack(torch.broadcast_tensors(cosines[..., :2, None], cosines[..., None, 2:]), dim=-1), dim=-1
    )
    expected = pairs[..., 0].amin(-1).permute(2, 1, 0).reshape(2, LEVELS, 2, HEIGHT, WIDTH).movedim(2, 0)
    # A pixel at the rim of a Gaussian may fall to either side of alpha = 1/255 in float32.
    clear = (case.omega.sum(1) > 4 / 255).reshape(2, 1, 1, HEIGHT, WIDTH).expand_as(maps)
    error = (maps.double() - expected).abs()[clear]
    assert float(error.median()) < 1e-5
    assert float((error > 1e-3).double().mean()) < 2e-3


def test_the_same_lists_give_what_the_cpu_rasteriser_gives() -> None:
    case = Case(False)
    splats = rasterize_cpu.Splats(case.geometry, case.view)
    codes, alphas = splats.codes(case.indices, case.weights, ATOMS)
    torch.testing.assert_close(case.codes(case.weights)[0], codes, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(case.codes(case.weights)[1], alphas, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["codes", "codes_vjp", "lift", "relevancy"])
def test_torch_accepts_the_operator(case: Case, name: str) -> None:
    """Its schema tells the truth, its shapes are known without running it, and autograd goes through it."""
    weights = case.weights.clone().requires_grad_(name == "codes")
    arguments = {
        "codes": (case.indices, weights, WIDTH, HEIGHT, ATOMS),
        "codes_vjp": (case.indices, case.v_codes, WIDTH, HEIGHT, ATOMS),
        "lift": (case.values, COUNT),
        "relevancy": (case.indices, weights, case.scores, case.gram, 2, 10.0, WIDTH, HEIGHT),
    }[name]
    torch.library.opcheck(getattr(ops, name), (*case.lists, *arguments))


def test_a_compiled_loss_is_one_graph_with_the_same_gradient() -> None:
    case = Case(False)
    target = torch.randn(LEVELS * ATOMS, generator=torch.Generator().manual_seed(1))

    def loss(weights: Tensor) -> Tensor:
        codes, alphas = case.codes(weights.softmax(-1))
        return (1 - torch.nn.functional.cosine_similarity(codes, target, dim=-1)).mul(alphas[..., 0]).mean()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    gradients = []
    for function in (loss, compiled):
        weights = case.weights.clone().requires_grad_()
        function(weights).backward()
        assert weights.grad is not None
        gradients.append(weights.grad)
    assert float(gradients[0].abs().max()) > 0
    torch.testing.assert_close(gradients[1], gradients[0])


def test_a_second_derivative_is_refused() -> None:
    case = Case(False)
    weights = case.weights.clone().requires_grad_()
    loss = case.codes(weights)[0].square().sum()
    (first,) = torch.autograd.grad(loss, weights, create_graph=True)
    with pytest.raises(RuntimeError, match=r"dictsplat\.codes_vjp"):
        first.sum().backward()


def test_without_the_gpu_kernels_the_error_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "splat._cuda", None)
    ops.cuda_kernels.cache_clear()
    with pytest.raises(RuntimeError, match=r"cannot be loaded \(.*`dictsplat doctor` says how"):
        ops.cuda_kernels()


def test_an_index_beyond_the_dictionary_is_refused() -> None:
    case = Case(False)
    with pytest.raises(ValueError, match="only 5 atoms"):
        ops.codes(*case.lists, case.indices, case.weights, WIDTH, HEIGHT, 5)


@pytest.fixture
def emulated_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels that nvcc compiles, compiled for the emulator, in the place of `splat._cuda`."""
    module = emulated.load(emulated.build())
    monkeypatch.setattr(ops, "cuda_kernels", lambda: module)
    monkeypatch.setattr("torch.cuda.device", lambda _device: nullcontext())
    monkeypatch.setattr("torch.cuda.current_stream", lambda _device: SimpleNamespace(cuda_stream=0))


def test_launches_hand_the_kernels_what_they_take(emulated_kernels: None, case: Case) -> None:
    """What runs for CUDA tensors, down to the kernels, on CPU tensors."""
    codes = (*case.lists, case.indices, case.weights, WIDTH, HEIGHT, ATOMS)
    vjp = (*case.lists, case.indices, case.v_codes.transpose(0, 1).contiguous().transpose(0, 1), WIDTH, HEIGHT, ATOMS)
    lift = (*case.lists, case.values, COUNT)
    query = (*case.lists, case.indices, case.weights, case.scores, case.gram, 2, 10.0, WIDTH, HEIGHT)
    for launched, expected in (
        (ops._codes_cuda(*codes), ops.codes(*codes)),
        ([ops._codes_vjp_cuda(*vjp)], [ops.codes_vjp(*vjp)]),
        (ops._lift_cuda(*lift), ops.lift(*lift)),
        (ops._relevancy_cuda(*query), ops.relevancy(*query)),
    ):
        for ours, truth in zip(launched, expected, strict=True):
            assert ours.shape == truth.shape
            assert relative(ours, truth.double()) < 1e-4


def test_on_a_gpu_an_index_beyond_the_dictionary_counts_as_no_code(emulated_kernels: None, case: Case) -> None:
    inside = case.indices < 11
    found, _ = ops._codes_cuda(*case.lists, case.indices, case.weights, WIDTH, HEIGHT, 11)
    expected, _ = ops.codes(*case.lists, case.indices * inside, case.weights * inside, WIDTH, HEIGHT, 11)
    assert relative(found, expected.double()) < 1e-4


def test_on_a_gpu_wrong_arguments_are_refused_in_words(emulated_kernels: None, case: Case) -> None:
    with pytest.raises(ValueError, match="weights: expected float32"):
        ops._codes_cuda(*case.lists, case.indices, case.weights.double(), WIDTH, HEIGHT, ATOMS)
    with pytest.raises(ValueError, match="isect_offsets: expected"):
        ops._codes_cuda(*case.lists, case.indices, case.weights, WIDTH + 16, HEIGHT, ATOMS)
