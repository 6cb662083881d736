"""The host kernel: every instruction set that this processor has, weights in rows and packed, bit by bit."""

from __future__ import annotations

import ctypes
import gc
import mmap
import random
import sys
from collections.abc import Iterator

import pytest
import torch
from samples import LinearSample, make_sample, random_int8, run_in_eight_threads

import q8ta_ops
from q8ta_ops import _C

ROWS_WORTH_PACKING = 32  # so many rows of x, over all calls, and weights are packed
MAX_K = 65_793


@pytest.fixture(autouse=True)
def on_the_host() -> Iterator[None]:
    q8ta_ops.clear_weight_cache()
    with q8ta_ops.use_device("host"):
        yield
    q8ta_ops.clear_weight_cache()


@pytest.fixture(params=_C._host_variants())
def variant(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set in turn, forced during the test."""
    _C._force_host_variant(request.param)
    yield request.param
    _C._force_host_variant("")


def check(sample: LinearSample) -> None:
    for op in sample.ops():
        got, want = sample.call(op), sample.expected(op)
        assert got.dtype == want.dtype and got.is_contiguous()
        assert torch.equal(got, want), (op, _C._host_variant(), sample.x.shape, sample.weights.shape)


def pack(sample: LinearSample) -> None:
    """Lets the weights of the sample be packed, by a call with many rows."""
    q8ta_ops.clear_weight_cache()
    many = sample.x.reshape(-1, sample.x.shape[-1])[:1].expand(ROWS_WORTH_PACKING, -1)
    check(sample.replaced(x=many))
    assert (q8ta_ops.weight_cache_size() > 0) == (_C._host_variant() != "portable")


def check_both_paths(sample: LinearSample) -> None:
    """With the weights as they lie (if there are few rows), then packed."""
    check(sample)
    pack(sample)
    check(sample)


def test_best_variant_is_the_default():
    variants = _C._host_variants()
    assert variants[-1] == "portable" and _C._host_variant() == variants[0]
    with pytest.raises(ValueError, match="no host kernel 'abacus'"):
        _C._force_host_variant("abacus")
    assert _C._host_variant() == variants[0]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/cpuinfo")
@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("amx", {"amx_tile", "amx_int8", "avx512f", "avx512bw", "avx512vl", "avx512_vnni"}),
        ("avx512_vnni", {"avx512f", "avx512bw", "avx512vl", "avx512_vnni"}),
        ("avx_vnni", {"avx2", "avx_vnni"}),
        ("avx2", {"avx2"}),
        ("neon_dot", {"asimddp"}),
    ],
)
def test_variant_is_there_where_the_processor_is(name, flags):
    with open("/proc/cpuinfo") as file:
        lines = [line for line in file if line.startswith(("flags", "Features"))]
    has = flags <= set(lines[0].split(":")[1].split())
    assert (name in _C._host_variants()) == has


@pytest.mark.parametrize("first", range(1, 71, 10))
def test_odd_shapes(variant, first):
    generator = random.Random(first)
    for rows in range(first, first + 10):
        depth, columns = generator.randint(1, 130), generator.randint(1, 130)
        sample = make_sample(
            (rows,),
            depth,
            columns,
            seed=rows,
            bias=rows % 3 != 0,
            activation="relu" if rows % 2 else "none",
        )
        check_both_paths(sample)


@pytest.mark.parametrize("K", range(1, 131, 3))
def test_every_remainder_of_K_and_N(variant, K):
    for rows, columns in ((1, K % 7 + 1), (5, K), (13, 131 - K)):
        check_both_paths(make_sample((rows,), K, columns, seed=K))


@pytest.mark.parametrize(
    ("M", "K", "N"),
    [(1, 2048, 1030), (4, 4099, 515), (33, 1031, 2053), (300, 515, 70), (70, 9001, 33), (1030, 67, 65)],
)
def test_large_shapes(variant, M, K, N):
    check_both_paths(make_sample((M,), K, N, seed=M, activation="relu"))


def test_more_blocks_of_rows_than_threads(variant):
    """19 MiB of x, copied a MiB at a time."""
    sample = make_sample((600,), 32_768, 3, seed=1)
    check(sample)


@pytest.mark.parametrize("rows", [1, 7, 40])
@pytest.mark.parametrize("x", [-128, 127])
@pytest.mark.parametrize("weight", [-128, 127])
def test_extreme_sums_at_the_bound_of_K(variant, rows, x, weight):
    for zero_point in (-128, 127):
        sample = make_sample((rows,), MAX_K, 5, seed=1, zero_points=(zero_point, 3))
        sample = sample.replaced(x=torch.full_like(sample.x, x), bias=None)
        sample = sample.with_weights(torch.full_like(sample.weights, weight))
        check_both_paths(sample)


def test_sums_that_are_not_those_of_the_weights(variant):
    """The kernel takes the caller's weight_sums for the zero point, and its own for its own shifts."""
    sample = make_sample((6,), 70, 50, seed=2, zero_points=(-77, 5))
    check_both_paths(sample.replaced(weight_sums=sample.weight_sums + 12_345))


@pytest.mark.parametrize("rows", [1, 6, 50])
def test_strides(variant, rows):
    sample = make_sample((rows,), 66, 38, seed=3)
    wide = random_int8(torch.Generator().manual_seed(4), 3 * rows + 1, 140)
    for x in (wide[1 : 3 * rows : 3, 5:71], wide.t()[70:136, :rows].t(), wide[:rows, 1:133:2]):
        check(sample.replaced(x=x))
    check(sample.replaced(x=sample.x.view(rows, 1, 66).expand(rows, 2, 66)))
    blob = random_int8(torch.Generator().manual_seed(5), 80, 150)
    for weights in (
        blob[:38, 3:69],
        blob[1:77:2, 7:73],
        blob.t()[10:48, :66],
        blob[:38, :132:2],
        blob[:1, :66].expand(38, 66),
        blob.view(-1)[: 66 + 37 * 5].as_strided((38, 66), (5, 1)),
    ):
        changed = sample.with_weights(weights)
        check(changed)
        check_both_paths(changed)


def guarded(size: int) -> torch.Tensor:
    """int8 [size] that ends where the next page must not be touched."""
    pages = (size + mmap.PAGESIZE - 1) // mmap.PAGESIZE
    memory = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
    tensor = torch.frombuffer(memory, dtype=torch.int8)
    libc = ctypes.CDLL(None, use_errno=True)
    end = tensor.data_ptr() + pages * mmap.PAGESIZE
    assert libc.mprotect(ctypes.c_void_p(end), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    return tensor[pages * mmap.PAGESIZE - size : pages * mmap.PAGESIZE]


@pytest.mark.parametrize("K", [1, 31, 63, 64, 65, 200, 4097])
@pytest.mark.parametrize("N", [1, 3, 4, 33])
def test_nothing_behind_the_end_is_read(variant, K, N):
    for rows in (1, 9):
        sample = make_sample((rows,), K, N, seed=K)
        sample = sample.replaced(
            x=guarded(rows * K).view(rows, K).copy_(sample.x),
            weights=guarded(N * K).view(N, K).copy_(sample.weights),
        )
        check_both_paths(sample)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads(variant, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for M, K, N in ((1, 1024, 2100), (3, 1024, 2100), (40, 700, 900), (700, 300, 20), (500, 2048, 130)):
            check_both_paths(make_sample((M,), K, N, seed=threads))
    finally:
        torch.set_num_threads(before)


def test_one_weight_in_eight_python_threads(variant):
    sample = make_sample((20,), 300, 260, seed=6)
    expected = sample.expected("linear")
    failures: list[int] = []

    def work(thread: int) -> None:
        for turn in range(30):
            if thread == 0 and turn % 5 == 0:
                q8ta_ops.clear_weight_cache()
            if not torch.equal(sample.call("linear"), expected):
                failures.append(thread)

    run_in_eight_threads(work)
    assert failures == []


@pytest.mark.parametrize("rows", [1, 4, 40])
def test_edited_weights_are_packed_again(variant, rows):
    sample = make_sample((rows,), 80, 70, seed=7)
    check_both_paths(sample)
    for edit in (
        torch.Tensor.neg_,
        lambda weights: weights[3].fill_(9),
        lambda weights: weights.t()[0].zero_(),
    ):
        edit(sample.weights)
        sample = sample.with_weights(sample.weights)
        check(sample)
        check_both_paths(sample)


def panel_bytes(K: int, N: int) -> int:
    """Of packed weights: panels of 32 output channels, 4 k at a time, their sums, and what is read behind."""
    return (N + 31) // 32 * 32 * ((K + 3) // 4 * 4 + 4) + 2048


def test_packed_once_and_freed_with_the_weights():
    if _C._host_variant() == "portable":
        pytest.skip("this processor's kernel never packs")
    sample = make_sample((64,), 130, 70, seed=8)
    for _ in range(3):
        check(sample)
        sample.weights.add_(1)
        sample = sample.with_weights(sample.weights)
    for rows in (1, 2, 64):
        check(sample.replaced(x=sample.x[:rows]))
    assert q8ta_ops.weight_cache_size() == panel_bytes(130, 70)
    other = make_sample((64,), 64, 32, seed=9)
    check(other)
    assert q8ta_ops.weight_cache_size() == panel_bytes(130, 70) + panel_bytes(64, 32)
    del sample
    gc.collect()
    assert q8ta_ops.weight_cache_size() == panel_bytes(64, 32)
    q8ta_ops.clear_weight_cache()
    assert q8ta_ops.weight_cache_size() == 0
    check(other)


def test_few_rows_do_not_pack():
    if _C._host_variant() == "portable":
        pytest.skip("this processor's kernel never packs")
    sample = make_sample((1,), 256, 256, seed=10)
    for _ in range(3 * ROWS_WORTH_PACKING):
        sample.call("linear")
    assert q8ta_ops.weight_cache_size() == 0, "one row reads the weights as they lie"
    sample = make_sample((4,), 256, 256, seed=11)
    for calls in range(1, 10):
        sample.call("linear")
        assert (q8ta_ops.weight_cache_size() > 0) == (4 * calls >= ROWS_WORTH_PACKING)


def test_weights_that_are_not_in_rows_are_packed_for_one_row():
    if _C._host_variant() == "portable":
        pytest.skip("this processor's kernel never packs")
    sample = make_sample((1,), 90, 50, seed=12)
    sample = sample.with_weights(sample.weights.t().contiguous().t())
    check(sample)
    assert q8ta_ops.weight_cache_size() == panel_bytes(90, 50)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
@pytest.mark.parametrize("rows", [1, 40])
def test_bad_scale_in_any_group_of_channels(variant, scale, rows):
    for index in (0, 63, 64, 129):
        sample = make_sample((rows,), 20, 130, seed=13)
        sample.weight_scales[index] = scale
        with pytest.raises(
            RuntimeError, match=f"weight_scales: expected finite numbers > 0, got .* at index {index}"
        ):
            sample.call("linear")
