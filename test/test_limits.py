"""Sizes past the devices' limits: bindings of more than 128 MiB, more workgroups than one dimension takes.

128 MiB is the smallest maxStorageBufferRange that Vulkan allows and what several drivers have.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
import torch
from samples import LinearSample, make_sample, random_int8, row_sums

import q8ta_ops

RANGE = 128 << 20
LONG = 65536
MANY = 2100
assert LONG * MANY > RANGE

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(autouse=True)
def on_the_session_device() -> Iterator[None]:
    """The session's device with its own choice of kernels; packed weights of this size go afterwards."""
    with q8ta_ops.use_device(os.environ["Q8TA_DEVICE"]):
        yield
    q8ta_ops.clear_weight_cache()
    gc.collect()


def large_int8(rows: int, columns: int) -> torch.Tensor:
    """int8 ``[rows, columns]`` from a small random block: quick to make, and no two rows are equal."""
    block = random_int8(torch.Generator().manual_seed(1), 1009 * 64)
    repeats = -(-rows * columns // block.numel())
    return block.repeat(repeats)[: rows * columns].view(rows, columns)


def call_sample(x: torch.Tensor, weights: torch.Tensor) -> LinearSample:
    columns, depth = weights.shape
    return LinearSample(
        x=x,
        input_scale=0.03,
        input_zero_point=-7,
        weights=weights,
        weight_sums=row_sums(weights),
        weight_scales=torch.linspace(0.001, 0.02, columns),
        output_scale=0.0006 * depth**0.5 * 100,
        output_zero_point=5,
        bias=torch.linspace(-1, 1, columns),
    )


@pytest.mark.parametrize("rows", [1, 2])
def test_weights_over_the_binding_range(place, rows):
    sample = call_sample(random_int8(torch.Generator().manual_seed(rows), rows, LONG), large_int8(MANY, LONG))
    placed = sample.mapped(place)
    for op in ("linear", "linear_dequant") if rows > 1 else ("linear_gemv",):
        assert torch.equal(placed.call(op).cpu(), sample.expected(op))


def test_x_over_the_binding_range(place):
    x = large_int8(MANY, LONG)
    sample = call_sample(x, random_int8(torch.Generator().manual_seed(3), 1, LONG))
    # The reference widens x to float64: by parts, so that memory stays small.
    parts = [sample.replaced(x=part).expected("linear") for part in x.split(300)]
    assert torch.equal(sample.mapped(place).call("linear").cpu(), torch.cat(parts))


def test_output_over_the_binding_range(place):
    size = 12000
    assert size * size > RANGE
    values = torch.arange(-128, 128).to(torch.int8)
    generator = torch.Generator().manual_seed(4)
    x = random_int8(generator, size, 1)
    sample = make_sample((1,), 1, size, seed=5).replaced(x=x)
    # x has 256 different values: the reference of those rows holds every row of the result.
    table = sample.replaced(x=values[:, None]).expected("linear")
    result = sample.mapped(place).call("linear").cpu()
    for start in range(0, size, 1000):
        rows = x[start : start + 1000, 0].long() + 128
        assert torch.equal(result[start : start + 1000], table[rows])


@pytest.mark.parametrize(
    ("rows", "depth", "columns"),
    [
        (1, 1, 300_000),
        (1, 9, 262_145),
        (1, 2, 1_100_000),
        (3, 1, 300_000),
        (5, 1, 1_100_000),
        (5, 4, 262_143),
        (300_000, 1, 1),
        (262_145, 3, 2),
    ],
)
def test_more_workgroups_than_one_dimension_takes(place, rows, depth, columns):
    sample = make_sample((rows,), depth, columns, seed=6)
    placed = sample.mapped(place)
    for op in sample.ops():
        assert torch.equal(placed.call(op).cpu(), sample.expected(op))


@pytest.mark.parametrize(("rows", "depth"), [(300_000, 3), (3, 300_000), (262_145, 1), (1, 262_145)])
@pytest.mark.parametrize("layout", [4, 5], ids=["4H4W", "4W"])
def test_pack_of_long_and_of_wide_tensors(place, rows, depth, layout):
    x = large_int8(rows, depth)
    words = torch.ops.q8ta.pack(place(x), layout)
    padded = torch.nn.functional.pad(x, (0, -depth % 4, 0, -rows % 4 if layout == 4 else 0))
    assert torch.equal(words.cpu(), words_of(padded, layout))
    assert torch.equal(torch.ops.q8ta.unpack(words, layout, [rows, depth]).cpu(), x)


@pytest.mark.parametrize("layout", [4, 5], ids=["4H4W", "4W"])
def test_pack_over_the_binding_range(place, layout):
    x = large_int8(MANY, LONG)
    words = torch.ops.q8ta.pack(place(x), layout)
    assert torch.equal(words.cpu(), words_of(x, layout))
    assert torch.equal(torch.ops.q8ta.unpack(words, layout, [MANY, LONG]).cpu(), x)


def words_of(x: torch.Tensor, layout: int) -> torch.Tensor:
    """Packed words of int8 ``[M, K]`` with M (4H4W) and K multiples of 4, by views: the reference needs 20
    times the memory."""
    if layout == 5:
        return x.contiguous().view(torch.int32)
    rows, depth = x.shape
    blocks = x.reshape(rows // 4, 4, depth // 4, 4).transpose(1, 2).contiguous()
    return blocks.view(torch.int32).squeeze(-1)
