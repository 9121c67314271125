"""The block emulator: right kernels give the right numbers, and their broken twins are reported. Warps and grids."""

import threading
import time

import emulated
import numpy as np
import pytest
import torch
from emulator_launch import Reported, floats, ints, launch, random, zeros

# ---- warps ----


@pytest.mark.parametrize(("dtype", "name"), [(torch.float32, "float"), (torch.float64, "double")])
def test_a_warp_sums_by_shuffles(dtype: torch.dtype, name: str) -> None:
    values = emulated.fenced(random(3 * 256).to(dtype))
    sums = emulated.fenced_empty(3 * 8, dtype=dtype)
    launch(f"warp_sum_{name}", values, sums, 3, 256)
    np.testing.assert_allclose(sums, values.double().reshape(-1, 32).sum(1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("width", [1, 2, 8, 32])
@pytest.mark.parametrize("operand", [0, 1, 3, 9, 31])
def test_lanes_that_shuffles_read(operand: int, width: int) -> None:
    """Against CUDA's documentation, lane by lane."""
    out = ints(4, 32)
    launch("shuffles", operand, width, out)
    for lane in range(32):
        segment = range(lane // width * width, lane // width * width + width)
        up, down, xor = lane - operand, lane + operand, lane ^ operand
        assert out[0, lane] == segment[operand % width]
        assert out[1, lane] == (up if up in segment else lane)
        assert out[2, lane] == (down if down in segment else lane)
        assert out[3, lane] == (xor if xor < segment.stop else lane)


@pytest.mark.parametrize("width", [0, 7, 64])
def test_width_of_a_shuffle(width: int) -> None:
    with pytest.raises(Reported, match=rf"__shfl_sync \(warps\.cu:\d+\) with a width of {width}"):
        launch("shuffles", 1, width, ints(4, 32))


@pytest.mark.parametrize(("count", "threads"), [(1, 32), (100, 128), (1000, 1024)])
def test_votes_compact_in_order(count: int, threads: int) -> None:
    values, out, kept = random(count), floats(count), ints(1)
    launch("compact", values, count, threads, out, kept)
    expected = values.numpy()[values.numpy() > 0]
    assert kept.item() == len(expected)
    np.testing.assert_array_equal(out[: len(expected)], expected)


def test_only_lanes_that_take_part_are_read() -> None:
    everyone, half = 0xFFFFFFFF, 0x0000FFFF
    out = ints(32)
    launch("partial", 32, 16, half, 5, out)
    assert out.tolist() == [105] * 16 + [-1] * 16
    launch("partial", 20, 20, everyone, 19, out)  # lanes that the block lacks
    assert out[:20].tolist() == [119] * 20
    with pytest.raises(Reported, match=r"warp 0: threads 0-15 at __shfl_sync .*0xffffffff; threads 16-31 returned"):
        launch("partial", 32, 16, everyone, 5, out)
    with pytest.raises(Reported, match=r"reads from lane 20, which takes no part in __shfl_sync"):
        launch("partial", 32, 16, half, 20, out)
    with pytest.raises(Reported, match=r"reads from lane 25, which takes no part"):
        launch("partial", 20, 20, everyone, 25, out)
    with pytest.raises(Reported, match=r"lane \d+ is not in its own mask 0x0000ffff"):
        launch("partial", 32, 32, half, 3, out)


def test_lanes_meet_at_one_place_with_one_mask() -> None:
    out = ints(32)
    launch("halves", False, out)
    assert out.tolist() == [0x0000AAAA] * 16 + [0xAAAA0000 - 2**32] * 16
    with pytest.raises(Reported, match=r"divergent warp 0: threads 0-15 at __ballot_sync.*; threads 16-31 at __ballot"):
        launch("halves", True, out)
    launch("masks", 0x0000FFFF, 0xFFFF0000, out)
    assert out.tolist() == [0] * 16 + [1] * 16
    with pytest.raises(Reported, match=r"divergent warp 0: .*__any_sync .* with mask 0x0001ffff"):
        launch("masks", 0x0001FFFF, 0xFFFF0000, out)


def test_only_syncwarp_orders_memory() -> None:
    out = ints(64)
    launch("neighbours", 2, out)
    assert out.tolist() == [(i ^ 1) ** 2 for i in range(64)]
    with pytest.raises(Reported, match=r"race on element|has not written"):
        launch("neighbours", 0, out)
    with pytest.raises(Reported, match=r"race on element (\d+) of .*: thread \(\d+, 0, 0\) reads, thread \(\1, 0, 0\)"):
        launch("neighbours", 1, out)


def test_syncwarp_orders_the_lanes_of_its_mask() -> None:
    out = ints(1)
    launch("half_sync", 15, out)
    assert out.item() == 7
    for reader in (16, 40):
        with pytest.raises(Reported, match=rf"thread \({reader}, 0, 0\) reads, thread \(0, 0, 0\) wrote|not written"):
            launch("half_sync", reader, out)


# ---- grids, atomics, order ----


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1, 1), (2, 3, 4, 8, 2, 3), (7, 1, 1, 1024, 1, 1), (1, 2, 30, 1, 3, 64)])
def test_a_grid_covers_every_index_once(shape: tuple[int, ...]) -> None:
    visits = zeros(int(np.prod(shape)))
    launch("visit", *shape, visits)
    assert visits.eq(1).all()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_histogram_by_atomics(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DS_EMULATOR_SEED", str(seed))
    values = torch.randint(0, 16, (1000,), generator=torch.Generator().manual_seed(9), dtype=torch.int32)
    bins, weights, largest = zeros(16), emulated.fenced(torch.zeros(16)), zeros(1)
    launch("histogram", emulated.fenced(values), 1000, True, bins, weights, largest)
    expected = np.bincount(values.numpy(), minlength=16)
    np.testing.assert_array_equal(bins, expected)
    np.testing.assert_array_equal(weights, expected / 2)
    assert largest.item() == int((values * 1000 + torch.arange(1000)).max())
    with pytest.raises(Reported, match=r"race on element \d+ of shared array `local` \(unsigned int\[16\]\)"):
        launch("histogram", emulated.fenced(values), 1000, False, bins, weights, largest)


def test_a_seed_chooses_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    orders, sums = [], []
    values = random(4 * 256)
    for seed in ("1", "2", "1"):
        monkeypatch.setenv("DS_EMULATOR_SEED", seed)
        order, total = ints(5 * 64), floats(4)
        launch("order", 5, 64, zeros(1), order)
        launch("sum", values, total, 4, True)
        assert sorted(order.tolist()) == list(range(5 * 64))
        orders.append(order.tolist())
        sums.append(total)
    assert orders[0] == orders[2]
    assert orders[0] != orders[1]
    assert [i // 64 for i in orders[0]] != [i // 64 for i in orders[1]]  # of blocks
    assert torch.equal(sums[0], sums[1])


def test_launches_that_cuda_refuses() -> None:
    for fits in ((1, 1, 1, 1024, 1, 1), (1, 65535, 1, 1, 1, 1), (70000, 1, 1, 1, 1, 1), (1, 1, 1, 4, 4, 64)):
        launch("nothing", *fits)
    for shape in (
        *((1, 1, 1, 1025, 1, 1), (1, 1, 1, 32, 33, 1), (1, 1, 1, 1, 1, 65), (1, 65536, 1, 1, 1, 1)),
        *((1, 1, 65536, 1, 1, 1), (0, 1, 1, 1, 1, 1), (1, 1, 1, 0, 1, 1), (-1, 1, 1, 1, 1, 1)),
    ):
        with pytest.raises(Reported, match="refused: invalid configuration argument"):
            launch("nothing", *shape)


def test_intrinsics_of_single_values() -> None:
    numbers, reals = ints(6), floats(4)
    launch("scalars", numbers, reals)
    assert numbers.tolist() == [8, 4, 0, 15, 32, -197]
    np.testing.assert_allclose(reals, [0.25, 0.75, 0.0, np.e], rtol=1e-6)


def test_launches_from_several_threads() -> None:
    """The fibers of one launch may be gone on with by another thread of the process."""
    values = random(4 * 256)
    results = [floats(4) for _ in range(4)]
    workers = [threading.Thread(target=launch, args=("sum", values, out, 4, True)) for out in results]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    launch("sum", values, results[0], 4, True)
    assert all(torch.equal(out, results[0]) for out in results)


def test_ten_thousand_shuffles_of_a_block_are_quick() -> None:
    out = floats(256)
    begin = time.process_time()
    launch("many_shuffles", 256, 10_000, out)
    assert time.process_time() - begin < 2.0
    assert sorted(out.tolist()) == list(range(256))
