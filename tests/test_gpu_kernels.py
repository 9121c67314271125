"""The CUDA kernels, executed block by block on the CPU, against float64 and against the native CPU kernels.

`DICTSPLAT_EMULATED` names a module to test instead of the one built here, and `DICTSPLAT_EXAMPLES` is how many cases
each test may try: `mutations.py` puts a broken module there, for which a few must be enough.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import emulated
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from splat_lists import Splats, blend, make_splats, random_splats
from torch import Tensor

from splat import _native

CUDA = Path(__file__).parents[1] / "cuda"
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    given_module = os.environ.get("DICTSPLAT_EMULATED")
    return emulated.load(Path(given_module) if given_module else emulated.build(CUDA))


@dataclass(frozen=True, repr=False)
class Case:
    """Splats and codes. Indices may repeat within a code."""

    splats: Splats
    indices: Tensor
    weights: Tensor
    atoms: int

    @property
    def levels(self) -> int:
        return self.indices.shape[1]

    def __repr__(self) -> str:
        s = self.splats
        shape = (s.cameras, s.width, s.height, s.gaussians, *self.indices.shape[1:], self.atoms)
        return f"Case(cameras, width, height, N, levels, K, atoms = {shape})"

    def dense(self) -> Tensor:
        """float64 [N, levels, atoms]; repeated indices add up."""
        dense = torch.zeros(*self.indices.shape[:2], self.atoms, dtype=torch.float64)
        return dense.scatter_add(2, self.indices.long(), self.weights.double())

    def twin(self) -> _native.Splats:
        s = self.splats
        return _native.Splats.from_lists(*s.lists, s.gaussians, s.cameras, s.width, s.height)


def with_codes(splats: Splats, seed: int, levels: int, nonzeros: int, atoms: int) -> Case:
    g = torch.Generator().manual_seed(seed)
    shape = (splats.gaussians, levels, nonzeros)
    return Case(
        splats, torch.randint(0, atoms, shape, generator=g).to(torch.uint8), torch.rand(shape, generator=g) - 0.2, atoms
    )


def _empty(seed: int, width: int, height: int) -> Splats:
    return random_splats(seed, 1, 0, width, height, (1, 4))


def _covering(seed: int, width: int, height: int) -> Splats:
    """One splat over the whole image, and beyond it."""
    covariance = torch.tensor([[[2e5, 1e4, 2e5]]])
    return make_splats(torch.tensor([[[3.3, 4.1]]]), covariance, torch.tensor([[0.7]]), torch.ones(1, 1), width, height)


def _pile(seed: int, width: int, height: int) -> Splats:
    """Three thousand splats in one pixel, most of them behind what is opaque already."""
    g = torch.Generator().manual_seed(seed)
    count = 3000
    means2d = torch.tensor([width / 2, height / 2]) + torch.rand(1, count, 2, generator=g)
    covariances = torch.tensor([0.6, 0.1, 0.5]).expand(1, count, 3)
    opacities = torch.rand(1, count, generator=g) * 0.02
    opacities[:, ::7] = 0.4
    return make_splats(means2d, covariances, opacities, torch.rand(1, count, generator=g), width, height)


def _broken(seed: int, width: int, height: int) -> Splats:
    """NaN means, covariances and opacities, zero opacities and an opacity above one among sound splats."""
    s = random_splats(seed, 2, 40, width, height, (1, 8))
    s.means2d[0::9] = torch.nan
    s.conics[1::9, 1] = torch.nan
    s.opacities[2::9] = torch.nan
    s.opacities[3::9] = 0.0
    s.opacities[4::9] = 1.5
    return s


def _needles(seed: int, width: int, height: int) -> Splats:
    """Diagonal ellipses about a thousand times as long as they are thick, every third with a NaN opacity."""
    g = torch.Generator().manual_seed(seed)
    # Their ridges pass beside all pixel centres: on the ridge rounding would decide whether a splat counts.
    means2d = torch.tensor([width // 2 + 0.1, height // 2 + 0.5]) + 0.2 * torch.rand(1, 6, 2, generator=g)
    covariances = torch.tensor([2e5, 0.0, 2e5]).expand(1, 6, 3)
    s = make_splats(means2d, covariances, torch.full((1, 6), 0.3), torch.rand(1, 6, generator=g), width, height)
    s.conics[:] = torch.tensor([1.0, 2.0**-22 - 1, 1.0])
    s.opacities[::3] = torch.nan
    return s


def _scattered(seed: int, width: int, height: int) -> Splats:
    return random_splats(seed, 2, 50, width, height, (0.4, 12))


KINDS: dict[str, Callable[[int, int, int], Splats]] = {
    kind.__name__[1:]: kind for kind in (_empty, _covering, _pile, _broken, _needles, _scattered)
}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    seed = draw(st.integers(0, 2**20))
    width, height = draw(st.integers(1, 44)), draw(st.integers(1, 36))
    splats = KINDS[draw(st.sampled_from(sorted(KINDS)))](seed, width, height)
    atoms = draw(st.sampled_from([1, 7, 33, 64, 65, 128, 129, 256]))
    return with_codes(splats, seed, draw(st.integers(1, 3)), draw(st.integers(1, 9)), atoms)


def everything_of(examples: int) -> Callable:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    examples = min(examples, int(os.environ.get("DICTSPLAT_EXAMPLES", examples)))
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=checks)


def fenced(*tensors: Tensor) -> list[Tensor]:
    return [emulated.fenced(tensor) for tensor in tensors]


def close(ours: Tensor, truth: Tensor, sure: Tensor | None = None) -> None:
    """Within 1e-4 of the truth, relative to what is larger than one; only where ``sure``."""
    assert ours.shape == truth.shape
    error = (ours.double() - truth).abs() / truth.abs().clamp_min(1.0)
    if sure is not None:
        error = error[sure.expand_as(error)]
    assert not error.isnan().any()
    assert float(error.max() if error.numel() else 0.0) < TOLERANCE


def splat_codes(kernels: ModuleType, case: Case) -> tuple[Tensor, Tensor]:
    s = case.splats
    out = emulated.fenced_empty(s.cameras, s.height, s.width, case.levels * case.atoms)
    alphas = emulated.fenced_empty(s.cameras, s.height, s.width, 1)
    lists = fenced(*s.lists)
    codes = fenced(case.indices, case.weights)
    kernels.codes(*lists, None, *codes, s.width, s.height, case.atoms, out, alphas, 0)
    return out, alphas


@everything_of(80)
@given(case=cases())
def test_codes(kernels: ModuleType, case: Case) -> None:
    s, blending = case.splats, blend(case.splats)
    out, alphas = splat_codes(kernels, case)
    sure = ~blending.unsure[..., None]
    close(out, (blending.weights @ case.dense().flatten(1)).reshape(out.shape), sure)
    close(alphas, blending.weights.sum(-1).reshape(alphas.shape), sure)
    twin, twin_alphas = torch.empty_like(out), torch.empty_like(alphas)
    case.twin().codes(case.indices, case.weights, case.levels, case.atoms, twin, twin_alphas)
    close(out, twin.double(), sure)
    close(alphas, twin_alphas.double(), sure)
    assert s.gaussians == 0 or case.levels == out.shape[-1] // case.atoms


@everything_of(50)
@given(case=cases())
def test_gradient_of_codes(kernels: ModuleType, case: Case) -> None:
    s, blending = case.splats, blend(case.splats)
    g = torch.Generator().manual_seed(1)
    v_out = torch.randn(s.cameras, s.height, s.width, case.levels * case.atoms, generator=g) / 16
    v_out = torch.where(blending.unsure[..., None], 0.0, v_out)
    v_weights = emulated.fenced(torch.ones(case.weights.shape))  # adds to what is there
    lists, inputs = fenced(*s.lists), fenced(case.indices, v_out)
    kernels.codes_vjp(*lists, None, *inputs, s.width, s.height, case.atoms, v_weights, 0)
    per_atom = torch.einsum("cpn,cpl->nl", blending.weights, v_out.double().flatten(1, 2))
    truth = per_atom.unflatten(1, (case.levels, case.atoms)).gather(2, case.indices.long())
    close(v_weights - 1, truth)
    twin = torch.empty(s.cameras, *case.weights.shape)
    case.twin().codes_vjp(case.indices, case.weights, case.levels, case.atoms, v_out, twin)
    close(v_weights - 1, twin.sum(0).double())


@everything_of(50)
@given(case=cases(), channels=st.sampled_from([0, 1, 3, 4, 64, 65, 130]))
def test_lift(kernels: ModuleType, case: Case, channels: int) -> None:
    s, blending = case.splats, blend(case.splats)
    g = torch.Generator().manual_seed(2)
    values = torch.randn(s.cameras, s.height, s.width, channels, generator=g) / 16
    values = torch.where(blending.unsure[..., None], 0.0, values)
    sums, mass = fenced(torch.ones(s.gaussians, channels), torch.ones(s.gaussians))
    kernels.lift(*fenced(*s.lists), None, emulated.fenced(values), s.width, s.height, sums, mass, 0)
    close(sums - 1, torch.einsum("cpn,cpv->nv", blending.weights, values.double().flatten(1, 2)))
    twin, twin_mass = torch.zeros(s.gaussians, channels), torch.zeros(s.gaussians)
    case.twin().lift(values, channels, twin, twin_mass)
    close(sums - 1, twin.double())
    if not blending.unsure.any():
        close(mass - 1, blending.weights.sum((0, 1)))
        close(mass - 1, twin_mass.double())


@everything_of(80)
@given(case=cases(), phrases=st.integers(1, 32), negatives=st.integers(1, 9))
def test_relevancy(kernels: ModuleType, case: Case, phrases: int, negatives: int) -> None:
    s, blending = case.splats, blend(case.splats)
    g = torch.Generator().manual_seed(3)
    atoms = torch.nn.functional.normalize(
        torch.randn(case.levels, case.atoms, 48, generator=g, dtype=torch.float64), dim=-1
    )
    texts = torch.nn.functional.normalize(
        torch.randn(phrases + negatives, 48, generator=g, dtype=torch.float64) + atoms.mean((0, 1)), dim=-1
    )
    scores = torch.einsum("lad,td->lta", atoms, texts).float()
    gram = (atoms @ atoms.transpose(1, 2)).float()
    out = emulated.fenced_empty(s.cameras, phrases, case.levels, s.height, s.width)
    alphas = emulated.fenced_empty(s.cameras, s.height, s.width, 1)
    inputs = fenced(case.indices, case.weights, scores, gram)
    kernels.relevancy(*fenced(*s.lists), None, *inputs, phrases, 10.0, s.width, s.height, out, alphas, 0)

    features = torch.einsum("cpn,nla,lad->cpld", blending.weights, case.dense(), atoms)
    cosine = torch.nn.functional.normalize(features, dim=-1) @ texts.T
    rival = cosine[..., phrases:].amax(-1, keepdim=True)
    truth = torch.sigmoid(10 * (cosine[..., :phrases] - rival)).permute(0, 3, 2, 1).reshape(out.shape)
    # Where the codes of signed weights nearly cancel, the direction of the sum is rounding; and 0 marks no code.
    length = features.norm(dim=-1).permute(0, 2, 1).reshape(s.cameras, 1, case.levels, s.height, s.width)
    sure = ~blending.unsure[:, None, None]
    close(out, truth, (length > 1e-2) & sure)
    shown = (blending.weights.sum(-1) > 0).reshape(s.cameras, 1, 1, s.height, s.width)
    assert float(out[(~shown & sure).expand_as(out)].abs().sum()) == 0.0
    close(alphas, blending.weights.sum(-1).reshape(alphas.shape), ~blending.unsure[..., None])
    twin, twin_alphas = torch.empty_like(out), torch.empty_like(alphas)
    case.twin().relevancy(
        case.indices, case.weights, scores, gram, phrases, 10.0, case.levels, case.atoms, twin, twin_alphas
    )
    close(out, twin.double(), (length > 1e-2) & sure)


def packed(case: Case) -> tuple[list[Tensor], Tensor]:
    """The same splats as gsplat packs them: only those in some list, in another order, with their Gaussians."""
    s = case.splats
    kept = torch.unique(s.flatten_ids)[torch.randperm(len(torch.unique(s.flatten_ids)))]
    place = torch.full((len(s.means2d),), -1, dtype=torch.int32)
    place[kept.long()] = torch.arange(len(kept), dtype=torch.int32)
    ids = kept.long()
    lists = [s.means2d[ids], s.conics[ids], s.opacities[ids], s.isect_offsets, place[s.flatten_ids.long()]]
    return fenced(*lists), emulated.fenced((ids % s.gaussians).int())


def test_packed_lists_give_the_same(kernels: ModuleType) -> None:
    torch.manual_seed(0)
    case = with_codes(_scattered(5, 37, 29), 5, 2, 4, 64)
    s = case.splats
    lists, gaussian_ids = packed(case)
    assert len(lists[0]) < len(s.means2d)
    expected, _ = splat_codes(kernels, case)
    out, alphas = torch.empty_like(expected), torch.empty(s.cameras, s.height, s.width, 1)
    kernels.codes(
        *lists, gaussian_ids, case.indices, case.weights, s.width, s.height, case.atoms, out, alphas, 0
    )  # fmt: skip
    assert torch.equal(out, expected)
    values = torch.randn(s.cameras, s.height, s.width, 2)
    plain = torch.zeros(s.gaussians, 2), torch.zeros(s.gaussians)
    together = torch.zeros(s.gaussians, 2), torch.zeros(s.gaussians)
    kernels.lift(*s.lists, None, values, s.width, s.height, *plain, 0)
    kernels.lift(*lists, gaussian_ids, values, s.width, s.height, *together, 0)
    torch.testing.assert_close(together, plain)


def test_an_index_beyond_the_dictionary_counts_as_no_code(kernels: ModuleType) -> None:
    case = with_codes(_scattered(6, 20, 20), 6, 1, 3, 10)
    beyond = Case(case.splats, case.indices.clone(), case.weights, 10)
    beyond.indices[::3, :, 1] = 10
    beyond.indices[1::3, :, 2] = 255
    silent = Case(case.splats, case.indices, case.weights.clone(), 10)
    silent.weights[::3, :, 1] = 0.0
    silent.weights[1::3, :, 2] = 0.0
    torch.testing.assert_close(splat_codes(kernels, beyond)[0], splat_codes(kernels, silent)[0], rtol=0, atol=1e-6)
    s = case.splats
    v_weights = torch.zeros_like(case.weights)
    v_out = torch.ones(s.cameras, s.height, s.width, 10)
    kernels.codes_vjp(*s.lists, None, beyond.indices, v_out, s.width, s.height, 10, v_weights, 0)
    assert float(v_weights[::3, :, 1].abs().max()) == 0.0
    assert float(v_weights[::3, :, 0].abs().max()) > 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": torch.zeros(50, 2, 5)}, r"weights: expected float32 \[50, 2, 4\], got float32 \[50, 2, 5\]"),
        ({"weights": torch.zeros(50, 2, 4).double()}, r"weights: expected float32 .*, got float64"),
        ({"indices": torch.zeros(50, 2, 4, dtype=torch.int32)}, r"indices: expected uint8 .*, got int32"),
        ({"indices": torch.zeros(49, 2, 4, dtype=torch.uint8), "weights": torch.zeros(49, 2, 4)}, "2 cameras x 49"),
        ({"means2d": torch.zeros(2, 100).T}, "means2d must be contiguous"),
        ({"isect_offsets": torch.zeros(2, 1, 1, dtype=torch.int32)}, r"isect_offsets: expected int32 \[any, 2, 3\]"),
        ({"out": torch.zeros(2, 29, 37, 64)}, r"out: expected float32 \[2, 29, 37, 128\]"),
        ({"atoms": 257}, "atoms must be in 1..256"),
        ({"width": 0}, "width and height must be in"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_refused(kernels: ModuleType, change: dict, message: str) -> None:
    case = with_codes(_scattered(7, 37, 29), 7, 2, 4, 64)
    names = ("means2d", "conics", "opacities", "isect_offsets", "flatten_ids")
    arguments = dict(zip(names, case.splats.lists, strict=True)) | {
        "gaussian_ids": None, "indices": case.indices, "weights": case.weights, "width": 37, "height": 29, "atoms": 64,
        "out": torch.zeros(2, 29, 37, 128), "alphas": torch.zeros(2, 29, 37, 1), "stream": 0,
    }  # fmt: skip
    kernels.codes(**arguments)
    with pytest.raises(ValueError, match=message):
        kernels.codes(**(arguments | change))


def test_relevancy_needs_a_phrase_and_a_negative(kernels: ModuleType) -> None:
    case = with_codes(_scattered(7, 16, 16), 7, 1, 4, 8)
    s = case.splats
    out, alphas = torch.empty(2, 2, 1, 16, 16), torch.empty(2, 16, 16, 1)
    scores, gram = torch.zeros(1, 2, 8), torch.eye(8)[None]
    with pytest.raises(ValueError, match="at least one phrase and one negative"):
        kernels.relevancy(*s.lists, None, case.indices, case.weights, scores, gram, 2, 10.0, 16, 16, out, alphas, 0)


def test_blocks_fit_every_architecture(kernels: ModuleType) -> None:
    """sm_86, sm_89 and sm_120 have 100 KB per multiprocessor, of which a block takes 1 KB beside its own."""
    budget = json.loads((CUDA / "gpu" / "budget.json").read_text(encoding="utf-8"))["shared"]
    for atoms in (64, 128, 256):
        for name, (threads, shared) in kernels.blocks(4, atoms).items():
            assert threads % 32 == 0, name
            assert 2 * (shared + 1024) <= 100 * 1024, name
            assert shared == budget[str(atoms)][name]["bytes"], name


def test_many_nonzeros_take_more_than_the_default_shared_memory(kernels: ModuleType) -> None:
    case = with_codes(_scattered(8, 20, 20), 8, 1, 64, 60)
    assert kernels.blocks(64, 60)["codes"][1] > 48 * 1024
    out, _ = splat_codes(kernels, case)
    blending = blend(case.splats)
    close(out, (blending.weights @ case.dense().flatten(1)).reshape(out.shape), ~blending.unsure[..., None])


def test_nothing_stands_in_the_way_of_the_emulated_device(kernels: ModuleType) -> None:
    assert kernels.obstacle(0) == ""
    assert kernels.obstacle(7) == "invalid device ordinal"
