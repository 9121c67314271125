"""The lookup and its native kernel against the sorting definition of sparsemax in float64."""

import os
import subprocess
import sys

import pytest
import torch
from entmax import entmax15
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from dictas import _native
from dictas.lookup import PROJECTIONS, TOP_K, lookup, sparsemax


def defined_sparsemax(scores: Tensor) -> Tensor:
    """Martins & Astudillo 2016, algorithm 1; differentiable by autograd."""
    ordered = scores.sort(-1, descending=True).values
    ranks = torch.arange(1, scores.shape[-1] + 1, dtype=scores.dtype)
    sums = ordered.cumsum(-1)
    size = (1 + ranks * ordered > sums).sum(-1, keepdim=True)
    threshold = (sums.gather(-1, size - 1) - 1) / size
    return (scores - threshold).clamp_min(0)


def defined(projection: str, scores: Tensor) -> Tensor:
    if projection == "sparsemax":
        return defined_sparsemax(scores)
    if projection == "softmax":
        return scores.exp() / scores.exp().sum(-1, keepdim=True)
    if projection == "entmax15":
        return entmax15(scores, dim=-1)
    count = 1 if projection == "max" else TOP_K
    kept = scores >= scores.sort(-1, descending=True).values[..., count - 1 : count]
    if projection == "max":
        return kept * (1 + scores - scores.detach())
    return torch.where(kept, scores, -torch.inf).softmax(-1)


def dense(support: tuple[Tensor, Tensor, Tensor], entries: int) -> Tensor:
    """Weights [P, M] out of what the native kernel returns, in which every entry stands once and in order."""
    offsets, indices, weights = (part.clone() for part in support)
    rows = torch.repeat_interleave(offsets.diff())
    position = rows.long() * entries + indices
    assert (position.diff() > 0).all()
    assert not (weights <= 0).any()
    return torch.zeros(len(offsets) - 1, entries).index_put((rows, indices), weights)


def clustered(count: int, channels: int, seed: int) -> Tensor:
    """Unit vectors around 20 centres, as features of a few materials are."""
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(20, channels, generator=torch.Generator().manual_seed(99))
    mixed = centres[torch.randint(20, (count,), generator=g)] + 0.5 * torch.randn(count, channels, generator=g)
    return torch.nn.functional.normalize(mixed, dim=1)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 110),
    entries=st.integers(1, 400),
    channels=st.integers(1, 70),
    scale=st.sampled_from([0.0, 1e-6, 0.3, 3.0, 30.0, 1e4]),
    offset=st.sampled_from([0.0, 100.0]),
    copies=st.integers(1, 3),
    seed=st.integers(0, 2**20),
)
@example(rows=97, entries=1, channels=64, scale=6.5, offset=0.0, copies=1, seed=0)
@example(rows=13, entries=2049, channels=64, scale=1e-6, offset=0.0, copies=1, seed=0)
@example(rows=13, entries=700, channels=33, scale=3.0, offset=100.0, copies=3, seed=0)
def test_native_support_is_that_of_the_definition(
    rows: int, entries: int, channels: int, scale: float, offset: float, copies: int, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    queries = scale * torch.randn(rows, channels, generator=g) / channels**0.5
    keys = torch.randn(-(-entries // copies), channels, generator=g).repeat(copies, 1)[:entries]
    # One more channel adds the offset to all scores.
    queries = torch.cat([queries, torch.full((rows, 1), offset)], 1)
    keys = torch.cat([keys, torch.ones(entries, 1)], 1)
    found = dense(_native.PackedKeys(keys).support(queries, 1), entries)
    scores = queries.double() @ keys.double().T
    # What float32 can know about a score is all that the weights may be wrong by.
    magnitude = float((queries.abs().double() @ keys.abs().double().T).max()) if rows else 0.0
    torch.testing.assert_close(found.double(), defined_sparsemax(scores), rtol=0, atol=1e-6 + 4e-7 * magnitude)
    torch.testing.assert_close(found.sum(1), torch.ones(rows), rtol=0, atol=1e-4)


def test_few_of_many_entries_get_a_weight() -> None:
    queries, keys = 6.5 * clustered(200, 64, 1), clustered(3000, 64, 2)
    offsets, _, _ = support = _native.PackedKeys(keys).support(queries, 2)
    expected = defined_sparsemax(queries.double() @ keys.double().T)
    torch.testing.assert_close(dense(support, 3000).double(), expected, rtol=0, atol=5e-6)
    assert 1 < offsets[-1] / 200 < 40


def test_equal_scores_share_alike_and_a_far_best_takes_all() -> None:
    keys = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    found = dense(_native.PackedKeys(keys).support(torch.tensor([[9.0, 0.0], [0.0, 9.0]]), 1), 4)
    assert found.tolist() == [[0, 0.5, 0.5, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_query_without_finite_scores_retrieves_nan_and_spoils_no_other(dtype: torch.dtype) -> None:
    queries = torch.randn(60, 5, dtype=dtype)
    queries[7, 2], queries[31, 0] = torch.nan, torch.inf
    retrieved = lookup(queries, torch.randn(90, 5, dtype=dtype), torch.randn(90, 3, dtype=dtype))
    assert retrieved.isnan().all(1).nonzero()[:, 0].tolist() == [7, 31]
    assert retrieved.isfinite().all(1).sum() == 58
    keys = torch.randn(90, 5, dtype=dtype)
    keys[80, 1] = torch.nan
    assert lookup(queries, keys, keys).isnan().all()


def test_the_native_kernel_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="no keys"):
        _native.PackedKeys(torch.zeros(0, 3))
    with pytest.raises(ValueError, match="queries have 4 channels, keys 3"):
        _native.PackedKeys(torch.zeros(2, 3)).support(torch.zeros(2, 4), 1)


@settings(max_examples=30, deadline=None)
@given(
    case=st.sampled_from([("sparsemax", torch.float32), *((name, torch.float64) for name in sorted(PROJECTIONS))]),
    rows=st.integers(1, 60),
    entries=st.integers(TOP_K, 150),
    scale=st.sampled_from([1e-3, 1.0, 6.5]),
    seed=st.integers(0, 2**20),
)
@example(("sparsemax", torch.float32), 60, 150, 6.5, 0)
@example(("sparsemax", torch.float32), 60, 150, 1e-3, 0)
@example(("sparsemax", torch.float64), 60, 150, 6.5, 0)
@example(("sparsemax", torch.float64), 60, 150, 1e-3, 0)
def test_lookup_and_its_gradients_are_those_of_the_definition(
    case: tuple[str, torch.dtype], rows: int, entries: int, scale: float, seed: int
) -> None:
    projection, dtype = case
    g = torch.Generator().manual_seed(seed)
    inputs = [
        clustered(rows, 24, seed).to(dtype),
        clustered(entries, 24, seed + 1).to(dtype),
        torch.randn(entries, 7, generator=g, dtype=dtype),
        torch.tensor(scale, dtype=dtype),
    ]
    towards = torch.randn(rows, 7, generator=g, dtype=torch.float64)
    exact = [tensor.double().clone().requires_grad_() for tensor in inputs]
    scores = exact[0] @ exact[1].T * exact[3]
    expected = defined(projection, scores) @ exact[2]
    expected.backward(towards)
    inputs = [tensor.clone().requires_grad_() for tensor in inputs]
    retrieved = lookup(*inputs[:3], projection, inputs[3])
    retrieved.backward(towards.to(dtype))
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    if dtype == torch.float32:
        # Where the support changes the gradient jumps; there float32 may be on the other side.
        weights = defined_sparsemax(scores.detach())
        threshold = (scores.detach() - weights).where(weights > 0, -torch.inf).amax(1, keepdim=True)
        assume(float((scores.detach() - threshold).abs().min()) > 1e-6)
    torch.testing.assert_close(
        retrieved.double(), expected, rtol=0, atol=tolerance * float(expected.detach().abs().max())
    )
    for mine, theirs in zip(inputs, exact, strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(
            mine.grad.double(), theirs.grad, rtol=0, atol=tolerance * max(1.0, float(theirs.grad.abs().max()))
        )


@pytest.mark.parametrize("scale", [1e-5, 1.0, 6.5, 1e3])
def test_sparsemax_of_a_matrix_is_the_definition(scale: float) -> None:
    scores = scale * torch.randn(50, 300, generator=torch.Generator().manual_seed(3)) + 100
    torch.testing.assert_close(sparsemax(scores).double(), defined_sparsemax(scores.double()), rtol=0, atol=1e-5)


def run(code: str, *arguments: str, **environment: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True).stdout


_PEAK = """
import resource, sys, torch
from dictas.lookup import lookup
retrieved = []
for layer in range(4):
    g = torch.Generator().manual_seed(layer)
    queries, keys, values = (torch.randn(n, 64, generator=g).requires_grad_() for n in (576, 16 * 576, 16 * 576))
    retrieved.append(lookup(queries, keys, values, scale=float(sys.argv[1])).square().mean())
sum(retrieved).backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.parametrize("scale", ["0.1", "1e-6"])
def test_training_on_sixteen_images_stays_below_4_gib_even_if_all_entries_get_a_weight(scale: str) -> None:
    assert int(run(_PEAK, scale)) < 4 * 2**20  # KiB


_DIGEST = """
import hashlib, sys, torch
from dictas import _native
g = torch.Generator().manual_seed(0)
queries, keys = torch.randn(1000, 50, generator=g) / 5, torch.randn(1500, 50, generator=g)
queries[500:] *= 1e-4
found = _native.PackedKeys(keys).support(queries, int(sys.argv[1]))
digest = hashlib.sha256()
for part in found:
    digest.update(part.numpy().tobytes())
print(_native.isa(), digest.hexdigest())
"""


def test_results_depend_on_neither_threads_nor_instruction_sets() -> None:
    isa, two = run(_DIGEST, "2").split()
    assert run(_DIGEST, "1").split() == [isa, two]
    # To the last bit: each score is the same sum of the same products in both.
    assert run(_DIGEST, "2", DICTSPLAT_ISA="baseline").split() == ["baseline", two]
