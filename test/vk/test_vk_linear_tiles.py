"""Large products read a copy of their weights in tiles: what they compute, and when the copy is made.

The copy itself is tested on every device; only kernels of cooperative matrices read it.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch
from forced_paths import missing_kernel
from graphs import captured
from reference import tiles_ref
from same import to_vk
from samples import LinearSample, make_sample, random_int8
from torch.utils.dlpack import from_dlpack, to_dlpack

import q8ta_ops
from q8ta_ops import _C

SIZES = pytest.mark.parametrize("rows", [1, 63, 64, 65, 100, 128, 229])
LARGE = (1025, 2050, 4112)
"""M, K, N: no whole tiles, and large enough."""


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    q8ta_ops.clear_weight_cache()
    yield
    q8ta_ops.clear_weight_cache()


@pytest.fixture
def tiles_are_read() -> None:
    """Skips the test where no kernel reads weights in tiles."""
    if (reason := missing_kernel("coopmat")) is not None:
        pytest.skip(reason)
    if not _C.linear_candidates(LARGE, False, weights_in_tiles=True):
        pytest.skip("lanes do not hold the sums in the order that the kernel needs")


def in_tiles(weights: torch.Tensor) -> torch.Tensor | None:
    """The copy that calls of linear would read; None if they would read rows."""
    return torch.ops.q8ta_vk_testing.weights_in_tiles(weights)


def check(weights: torch.Tensor) -> torch.Tensor:
    """The copy, whose bytes are right."""
    copy = in_tiles(weights)
    assert torch.equal(copy.cpu(), tiles_ref(weights.cpu()))
    return copy


def bytes_in_tiles(N: int, K: int) -> int:
    return -(-N // 64) * 64 * -(-K // 64) * 64


@pytest.mark.kernels
@SIZES
def test_order(rows):
    generator = torch.Generator().manual_seed(rows)
    for depth in (1, 15, 16, 63, 64, 65, 128, 200):
        check(to_vk(random_int8(generator, rows, depth)))


def test_weights_that_lie_elsewhere():
    """Other strides, and a first byte that no binding can start at."""
    whole = to_vk(random_int8(torch.Generator().manual_seed(1), 200, 97))
    for weights in (whole.t(), whole[3:], whole[:, 5:70], whole[::2], whole[70:].t()[1:]):
        check(weights)


def test_the_copy_is_kept_as_long_as_it_is_right():
    weights = to_vk(random_int8(torch.Generator().manual_seed(2), 100, 200))
    kept = check(weights)
    assert check(weights).data_ptr() == check(weights.detach()).data_ptr() == kept.data_ptr()
    assert q8ta_ops.weight_cache_size() == bytes_in_tiles(100, 200)
    for edit in (weights.neg_, lambda: weights[64:65].fill_(7), lambda: weights.t()[3].zero_()):
        edit()
        assert check(weights).data_ptr() == kept.data_ptr()
    other = weights.flip(0)
    graph, _ = captured(lambda: weights.copy_(other))
    graph.replay()
    check(weights)
    check(weights[:70])
    assert q8ta_ops.weight_cache_size() == bytes_in_tiles(100, 200) + bytes_in_tiles(70, 200)


def test_the_copy_dies_with_the_weights():
    start = torch.vk.memory_allocated()
    weights = to_vk(random_int8(torch.Generator().manual_seed(2), 100, 200))
    check(weights)
    del weights
    assert q8ta_ops.weight_cache_size() == 0 and torch.vk.memory_allocated() == start


def test_no_copy_that_could_not_be_kept():
    """Of memory that is another storage's torch counts no edits, and a graph reads weights as they are."""
    weights = to_vk(random_int8(torch.Generator().manual_seed(3), 64, 64))
    assert in_tiles(from_dlpack(to_dlpack(weights))) is None
    check(weights)
    _, while_capturing = captured(lambda: in_tiles(weights))
    assert while_capturing is None


def test_no_memory_for_the_copy():
    """That is no error: calls read rows. It is not tried again until the caches are emptied."""
    huge = torch.zeros(1, 1, dtype=torch.int8, device="vk").expand(1 << 24, 1 << 23)
    small = to_vk(random_int8(torch.Generator().manual_seed(4), 64, 64))
    other = small.clone()
    kept = check(small)
    for empty_caches in (torch.vk.empty_cache, q8ta_ops.clear_weight_cache):
        before = torch.vk.memory_allocated()
        assert in_tiles(huge) is None
        assert in_tiles(small).data_ptr() == kept.data_ptr(), "nothing is dropped for it"
        assert in_tiles(other) is None
        assert torch.vk.memory_allocated() == before
        empty_caches()
        check(other)
        q8ta_ops.clear_weight_cache()
        kept = check(small)


def test_the_copy_is_dropped_before_memory_runs_out():
    sample = make_sample((2,), 100, 200, seed=5).mapped(to_vk)
    sample.call("linear")
    rows_alone = q8ta_ops.weight_cache_size()
    check(sample.weights)
    gc.collect()
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(1 << 50, dtype=torch.uint8, device="vk")
    assert q8ta_ops.weight_cache_size() == rows_alone > 0
    check(sample.weights)  # it was not the reason


def packings(sample: LinearSample, op: str = "linear") -> list[str]:
    """What a call of the op packs. Its result is that of the host kernel."""
    on_host = sample.mapped(lambda tensor: tensor.cpu())
    with q8ta_ops.use_device("host"):
        expected = on_host.call(op)
    with q8ta_ops.profile() as profile:
        result = sample.call(op)
    assert torch.equal(result.cpu(), expected)
    return [dispatch.kernel for dispatch in profile.dispatches if dispatch.op == "weights"]


@pytest.mark.parametrize("op", ["linear", "linear_dequant"])
@pytest.mark.parametrize(
    "sizes",
    [LARGE, (1024, 4096, 4096), (2049, 2047, 2304), (4100, 4096, 4096), (300, 4096, 9728)],
    ids=lambda sizes: "x".join(map(str, sizes)),
)
def test_large_products(tiles_are_read, op, sizes):
    """The rows of 4100 are taken in two parts, the second of which is small: both orders in one call."""
    M, K, N = sizes
    sample = make_sample((M,), K, N, seed=6).mapped(to_vk)
    assert [kernel for kernel in packings(sample, op) if kernel == "pack/tiles"] == ["pack/tiles"]
    assert packings(sample, op) == []
    assert q8ta_ops.weight_cache_size() >= bytes_in_tiles(N, K)
    sample.weights[N // 2 :].neg_()
    edited = sample.with_weights(sample.weights)
    assert "pack/tiles" in packings(edited, op)
    assert packings(edited, op) == []


@pytest.mark.parametrize("beyond", [1, 16, 63, 64, 65, 100])
def test_rows_of_weights_beyond_a_block(tiles_are_read, beyond):
    sample = make_sample((2100,), 2050, 2304 + beyond, seed=beyond).mapped(to_vk)
    wanted = ["pack/tiles"] if beyond % 16 == 0 else ["pack/padded_rows"]
    assert packings(sample) == wanted
    assert packings(sample) == []


def test_what_is_not_worth_a_copy(tiles_are_read):
    for sizes in ((4, 4096, 4096), (256, 2048, 2048), (1024, 2048, 2048)):
        assert packings(make_sample(sizes[:1], *sizes[1:], seed=7).mapped(to_vk)) == []


def test_a_graph_reads_rows(tiles_are_read):
    """And so weights as they are, whatever torch counts."""
    M, K, N = (1024, 4096, 4096)
    sample = make_sample((M,), K, N, seed=8).mapped(to_vk)
    assert packings(sample) == ["pack/tiles"]
    graph, result = captured(lambda: sample.call("linear"))
    sample.weights.data.neg_()
    graph.replay()
    with q8ta_ops.use_device("host"):
        expected = sample.mapped(lambda tensor: tensor.cpu()).call("linear")
    assert torch.equal(result.cpu(), expected)


def test_without_memory_for_a_copy_rows_are_read(tiles_are_read):
    huge = torch.zeros(1, 1, dtype=torch.int8, device="vk").expand(1 << 24, 1 << 23)
    assert in_tiles(huge) is None
    sample = make_sample(LARGE[:1], *LARGE[1:], seed=9).mapped(to_vk)
    assert packings(sample) == ["pack/padded_rows"]
    torch.vk.empty_cache()
    assert packings(sample) == ["pack/tiles"]


def test_out_of_memory_between_two_calls(tiles_are_read):
    sample = make_sample((1024,), 4096, 4096, seed=10).mapped(to_vk)
    for _ in range(2):
        assert packings(sample) == ["pack/tiles"]
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(1 << 50, dtype=torch.uint8, device="vk")
