"""The block emulator: right kernels give the right numbers, and their broken twins are reported. Blocks and memory."""

import re
from pathlib import Path

import emulated
import numpy as np
import pytest
import torch
from emulator_launch import Reported, floats, ints, launch, random

# ---- barriers ----


def test_a_sum_through_shared_memory_needs_its_barriers() -> None:
    values, sums = random(4 * 256), floats(4)
    launch("sum", values, sums, 4, True)
    np.testing.assert_allclose(sums, values.double().reshape(4, 256).sum(1), rtol=0, atol=1e-4)
    race = (
        r"sum_kernel<false>, block \(\d, 0, 0\): race on element (\d+) of shared array `partial` \(float\[256\]\): "
        r"thread \((\d+), 0, 0\) (reads|writes), thread \((\d+), 0, 0\) (read|wrote), without a barrier between "
        r"\(the last one is __syncthreads \(barriers\.cu:\d+\)\)"
    )
    with pytest.raises(Reported, match=race) as error:
        launch("sum", values, sums, 4, False)
    found = re.search(race, str(error.value))
    assert found is not None
    element, thread, does, other, _ = found.groups()
    assert (thread if does == "writes" else other) == element  # which one depends on the order
    assert thread != other


@pytest.mark.parametrize("threads", [1, 33, 1024])
def test_reversing_needs_a_barrier_after_reading(threads: int) -> None:
    values = random(threads)
    mirrored = values.flip(0)
    launch("reverse", values, threads, True)
    assert torch.equal(values, mirrored)
    if threads > 1:
        with pytest.raises(Reported, match=r"race on element 0 of dynamic shared array 0 \(float"):
            launch("reverse", values, threads, False)


def test_warps_at_different_barriers() -> None:
    launch("divergent", False)
    with pytest.raises(Reported, match=r"divergent_kernel, block \(0, 0, 0\): divergent barrier: ") as error:
        launch("divergent", True)
    odd = re.search(r"threads 32-63, 96-127 at __syncthreads \(barriers\.cu:(\d+)\)", str(error.value))
    even = re.search(r"threads 0-31, 64-95 at __syncthreads \(barriers\.cu:(\d+)\)", str(error.value))
    assert odd is not None
    assert even is not None
    assert int(even[1]) == int(odd[1]) + 2


def test_a_thread_that_returned_before_a_barrier() -> None:
    after = ints(64)
    launch("early_return", 64, 64, after)
    assert after.eq(1).all()
    expected = r"divergent barrier: threads 0-39 at __syncthreads \(barriers\.cu:\d+\); threads 40-63 returned"
    with pytest.raises(Reported, match=expected):
        launch("early_return", 64, 40, after)
    launch("early_return", 64, 0, after)  # all of them may


def test_a_barrier_counts_votes() -> None:
    for values in (random(96), random(96).abs() + 1, -random(96).abs() - 1):
        counts, some, every = ints(96), ints(96), ints(96)
        launch("votes", emulated.fenced(values), 96, counts, some, every)
        positive = values > 0
        assert counts.eq(int(positive.sum())).all()
        assert some.eq(int(positive.any())).all()
        assert every.eq(int(positive.all())).all()


# ---- shared memory ----


def test_index_outside_a_static_array() -> None:
    out = floats(1)
    launch("static_index", 7, out)
    assert out.item() == 70
    for index in (8, -1):
        expected = rf"thread \(3, 0, 0\): .*out of bounds: element {index} of shared array `table` \(float\[8\]\)"
        with pytest.raises(Reported, match=expected):
            launch("static_index", index, out)


def test_index_outside_a_dynamic_array_but_inside_the_next() -> None:
    out = floats(1)
    launch("dynamic_index", 5, 56, out)
    assert out.item() == 50
    with pytest.raises(Reported, match=r"thread \(1, 0, 0\): .*element 8 of dynamic shared array 0 \(float\[6\]\)"):
        launch("dynamic_index", 8, 56, out)
    with pytest.raises(Reported, match=r"dynamic shared array 1 needs 6 .*from byte 32, more than the 55 bytes"):
        launch("dynamic_index", 5, 55, out)


def test_reading_what_nobody_wrote() -> None:
    out = floats(2)
    launch("filled", 2, 0, out)
    assert out.tolist() == [992, 992]
    with pytest.raises(Reported, match=r"thread \(0, 0, 0\): reads element 31 of .*Pair\[32\]\), which .* not written"):
        launch("filled", 2, 1, out)


def test_a_block_does_not_inherit_shared_memory() -> None:
    out = emulated.fenced(torch.tensor([-1.0]))
    launch("left_over", 1, out)
    with pytest.raises(Reported, match="reads element 0 of shared array `kept`"):
        launch("left_over", 2, emulated.fenced(torch.tensor([-1.0])))


def test_elements_behave_like_variables() -> None:
    out = floats(4)
    launch("operators", out)
    assert out.tolist() == [14, 41, 7, 4]


def test_threads_agree_on_what_is_shared() -> None:
    launch("disagree", True)
    with pytest.raises(Reported, match="threads disagree on dynamic shared array 0"):
        launch("disagree", False)
    launch("arenas", False)
    with pytest.raises(Reported, match="a second SharedArena"):
        launch("arenas", True)


def test_how_much_shared_memory_there_is() -> None:
    with pytest.raises(Reported, match="refused: invalid argument"):
        launch("dynamic_bytes", 61440, 0)
    launch("dynamic_bytes", 61440, 61440)
    with pytest.raises(Reported, match="refused: invalid argument"):
        launch("dynamic_bytes", 61441, 61440)
    with pytest.raises(Reported, match="refused the attribute"):
        launch("dynamic_bytes", 1024, 99 * 1024 + 1)
    launch("static_bytes", 16 * 1024)
    with pytest.raises(Reported, match=r"`large` needs .*more than the 49152 bytes of shared memory"):
        launch("static_bytes", 16 * 1024 + 16)


def test_an_atomic_sum_is_read_after_a_barrier() -> None:
    out = ints(1)
    launch("atomic_read", True, out)
    assert out.item() == 128
    with pytest.raises(Reported, match=r"race on element 0 of shared array `total` .*(atomically)"):
        launch("atomic_read", False, out)


# ---- global and local memory ----


@pytest.mark.parametrize(("in_shift", "out_shift"), [(1, 0), (0, 1), (-2000, 0), (0, -2000)])
def test_global_memory_is_fenced(in_shift: int, out_shift: int) -> None:
    values, out = random(100), floats(100)
    launch("twice", values, out, 100, 0, 0)
    assert torch.equal(out, 2 * values)
    where = r"twice_kernel, block \(\d, 0, 0\), thread \(\d+, 0, 0\): global memory access out of bounds"
    with pytest.raises(Reported, match=where):
        launch("twice", values, out, 100, in_shift, out_shift)
    launch("twice", values, out, 100, 0, 0)


def test_fences_hold_any_shape_and_type() -> None:
    for shape in ((), (1,), (3, 5, 7), (1024,), (5000,)):
        for dtype in (torch.uint8, torch.int32, torch.float32, torch.float64):
            tensor = emulated.fenced(torch.ones(shape, dtype=dtype))
            assert tensor.eq(1).all()
            assert tensor.shape == shape
            assert 0 <= -(tensor.data_ptr() + tensor.nbytes) % 4096 < 16
            assert tensor.data_ptr() % 16 == 0
    assert emulated.fenced_empty(3, 0).shape == (3, 0)
    assert emulated.fenced_empty(3).isnan().all()


def test_what_a_cpu_would_tolerate() -> None:
    out, values = floats(1), emulated.fenced(torch.arange(16.0))
    launch("vector_load", values, out, 4)
    assert out.item() == 4 + 5 + 6 + 7
    indices, squares = emulated.fenced(torch.tensor([0, 3, 2, 4], dtype=torch.int32)), floats(4)
    launch("local_index", indices, 3, squares)
    assert squares[:3].tolist() == [0, 9, 4]
    quotient = ints(1)
    launch("divide", -5, quotient)
    assert quotient.item() == -2
    for wrong in (("vector_load", values, out, 3), ("local_index", indices, 4, squares), ("divide", 0, quotient)):
        with pytest.raises(Reported, match=r"thread \(0, 0, 0\): undefined behaviour: "):
            launch(*wrong)


def test_a_stack_has_64_kilobytes() -> None:
    out = ints(1)
    launch("stack", 40, out)
    assert out.item() == 40
    with pytest.raises(Reported, match="local variables need more than 64 KiB of stack"):
        launch("stack", 400, out)


# ---- compiling ----


def test_without_a_compiler_tests_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(pytest.skip.Exception, match=r"needs g\+\+"):
        emulated.build_library([emulated.ROOT / "tests" / "kernels" / "grids.cu"])


def test_what_does_not_compile_is_quoted(tmp_path: Path) -> None:
    source = tmp_path / "raw.cu"
    source.write_text("#include <cuda_runtime.h>\n__global__ void f() { __shared__ float unwatched[4]; }\n")
    with pytest.raises(RuntimeError, match=r"raw\.cu:2.*__shared__"):
        emulated.build_library([source])


def test_only_what_changed_is_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulated, "CACHE", tmp_path / "cache")
    sources = [tmp_path / "one.cu", tmp_path / "two.cu"]
    for number, source in enumerate(sources):
        source.write_text(f'extern "C" __attribute__((visibility("default"))) int f{number}() {{ return {number}; }}')
    first = emulated.build_library(sources, tmp_path)
    assert (first.f0(), first.f1()) == (0, 1)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.o")}
    sources[1].write_text(sources[1].read_text().replace("return 1", "return 5"))
    second = emulated.build_library(sources, tmp_path)
    assert (second.f0(), second.f1(), first.f1()) == (0, 5, 1)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.o")}
    assert len(before) == 2
    assert len(after) == 3
    assert before.items() <= after.items()
