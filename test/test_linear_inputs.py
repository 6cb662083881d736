"""Values and arrangements of the inputs: leading sizes, strides, zero points, ties, saturation, padding."""

from __future__ import annotations

import pytest
import torch
from samples import (
    LinearSample,
    epilogue_sample,
    make_sample,
    random_int8,
    round_up_to_4,
    row_sums,
)

pytestmark = pytest.mark.kernels

MAX_DEPTH = 65793  # 255 * 128 * MAX_DEPTH is the last such product below 2^31


@pytest.mark.parametrize(
    "leading", [(), (1,), (3, 4), (3, 1), (1, 5), (2, 3, 5), (1, 1, 1), (0,), (3, 0), (0, 2)], ids=str
)
def test_leading_sizes(path, leading):
    path.check(make_sample(leading, 37, 19, seed=len(leading)))


def test_a_batch_of_single_rows_is_computed_whole(path):
    # A kernel that looks only at the second last size takes [B,1,K] for one row.
    sample = make_sample((5, 1), 64, 32, seed=3)
    for op in ("linear", "linear_dequant"):
        result = path.run(op, sample)
        one_by_one = torch.stack([sample.replaced(x=row).expected(op) for row in sample.x])
        assert torch.equal(result.cpu(), one_by_one)


def non_contiguous_forms(dense: torch.Tensor) -> dict[str, torch.Tensor]:
    """int8 ``[A, B]`` tensors equal to ``dense`` whose memory is laid out in other ways."""
    rows, columns = dense.shape
    transposed = dense.t().contiguous().t()
    every_second_row = torch.zeros(2 * rows, columns, dtype=torch.int8)
    every_second_row[::2] = dense
    every_third_column = torch.zeros(rows, 3 * columns, dtype=torch.int8)
    every_third_column[:, ::3] = dense
    wide = torch.zeros(rows, columns + 7, dtype=torch.int8)
    wide[:, 3 : 3 + columns] = dense
    shifted = torch.zeros(rows * columns + 1, dtype=torch.int8)
    shifted[1:] = dense.reshape(-1)
    return {
        "transposed": transposed,
        "every second row": every_second_row[::2],
        "every third column": every_third_column[:, ::3],
        "columns of a wider tensor": wide[:, 3 : 3 + columns],
        "odd storage offset": shifted[1:].view(rows, columns),
    }


@pytest.mark.parametrize("rows", [1, 6])
def test_strides_of_x_and_weights(path, rows):
    sample = make_sample((rows,), 45, 21, seed=rows)
    for name, x in non_contiguous_forms(sample.x).items():
        assert torch.equal(x, sample.x), name
        path.check(sample.replaced(x=x))
    for name, weights in non_contiguous_forms(sample.weights).items():
        assert torch.equal(weights, sample.weights), name
        path.check(sample.replaced(weights=weights))


def test_strides_of_sums_scales_and_bias(path):
    sample = make_sample((3,), 20, 11, seed=9)
    strided = {
        name: torch.stack([getattr(sample, name)] * 3, dim=1)[:, 1]
        for name in ("weight_sums", "weight_scales", "bias")
    }
    assert not any(tensor.is_contiguous() for tensor in strided.values())
    path.check(sample.replaced(**strided))


def test_expanded_and_higher_rank_views(path):
    sample = make_sample((2, 3, 5), 24, 10, seed=4)
    path.check(sample.replaced(x=sample.x.transpose(0, 2)))
    path.check(sample.replaced(x=sample.x.permute(2, 0, 1, 3)))
    path.check(sample.replaced(x=sample.x[0, 0, :1].expand(7, 24)))
    path.check(sample.replaced(x=sample.x[0, 0, 0, :1].expand(4, 24)))
    path.check(sample.replaced(x=sample.x[..., 1, :]))
    path.check(sample.with_weights(sample.weights[:1].expand(10, 24)))


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("input_zero_point", [-128, 0, 127])
@pytest.mark.parametrize("output_zero_point", [-128, 0, 127])
def test_zero_points(path, rows, input_zero_point, output_zero_point):
    points = (input_zero_point, output_zero_point)
    path.check(make_sample((rows,), 66, 34, seed=5, zero_points=points))


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("input_zero_point", [-128, 0, 127])
def test_all_minus_128(path, rows, input_zero_point):
    sample = make_sample((rows,), 67, 35, seed=6, zero_points=(input_zero_point, 3))
    lowest = sample.with_weights(torch.full_like(sample.weights, -128))
    path.check(lowest.replaced(x=torch.full_like(sample.x, -128)))


def tie_sample(rows: int, step: float, output_zero_point: int) -> LinearSample:
    """Results y / output_scale = k + 0.5 for k from about -64 to 63, along the rows or the columns."""
    values = torch.arange(-128, 128).to(torch.int8)
    x = values.reshape(-1, 1) if rows > 1 else torch.ones(1, 1, dtype=torch.int8)
    weights = torch.tensor([[1], [-1], [3]], dtype=torch.int8) if rows > 1 else values.reshape(-1, 1)
    return LinearSample(
        x=x,
        input_scale=step,
        input_zero_point=0,
        weights=weights,
        weight_sums=row_sums(weights),
        weight_scales=torch.ones(weights.shape[0]),
        output_scale=2.0 * step,
        output_zero_point=output_zero_point,
    )


@pytest.mark.parametrize("rows", [1, 256])
@pytest.mark.parametrize("step", [1.0, 2.0**-7, 2.0**5])
@pytest.mark.parametrize("output_zero_point", [0, 5, -6])
def test_ties_round_to_even(path, rows, step, output_zero_point):
    sample = tie_sample(rows, step, output_zero_point)
    scaled = sample.expected("linear_dequant") / sample.output_scale
    ties = scaled[(scaled - scaled.floor()) == 0.5]
    parities = {(value > 0, int(value // 1) % 2) for value in ties.tolist()}
    assert len(parities) == 4, "the sample must hold ties of both signs and both parities"
    path.check(sample)


@pytest.mark.parametrize("activation", ["none", "relu"])
@pytest.mark.parametrize("output_zero_point", [-128, -1, 0, 127])
def test_saturation_on_both_sides(path, activation, output_zero_point):
    magnitudes = torch.tensor([0.4, 0.6, 126.4, 127.4, 127.6, 128.4, 128.6, 255.4, 255.6, 300.0, 1e5, 3e9])
    far = torch.tensor([2.0**31 - 128, 2.0**31, 2.0**33, 1e20, 1e30])
    magnitudes = torch.cat([magnitudes, far])
    sample = epilogue_sample(
        torch.cat([magnitudes, -magnitudes]), 1.0, output_zero_point=output_zero_point, activation=activation
    )
    got = sample.expected("linear")
    assert 127 in got and (got.min() == -128 if activation == "none" else got.min() == output_zero_point)
    path.check(sample)
    path.check(sample.replaced(x=sample.x.expand(3, 1)))


def test_float_steps_are_separate(path):
    """The product and the bias are rounded one after the other: a fused multiply-add gives other bits."""
    sample = make_sample((4,), 96, 160, seed=21, zero_points=(17, 0))
    mult = torch.tensor(sample.input_scale, dtype=torch.float32) * sample.weight_scales
    no_bias = sample.replaced(bias=None)
    adj = no_bias.replaced(input_scale=1.0, weight_scales=torch.ones(160)).expected("linear_dequant")
    fused = (adj.double() * mult.double() + sample.bias.double()).float()
    expected = sample.expected("linear_dequant")
    assert (fused != expected).any(), "the sample must tell fused from separate"
    path.check(sample)
    path.check(sample.replaced(x=sample.x[:1]))


def test_scale_products_are_rounded_in_order(path):
    """mult = input_scale * weight_scales first: scaling the accumulator twice gives other bits."""
    sample = make_sample((4,), 96, 160, seed=22, bias=False, zero_points=(-5, 0))
    unit = sample.replaced(input_scale=1.0, weight_scales=torch.ones(160)).expected("linear_dequant")
    twice = unit * torch.tensor(sample.input_scale, dtype=torch.float32) * sample.weight_scales
    assert (twice != sample.expected("linear_dequant")).any()
    path.check(sample, "linear_dequant")
    path.check(sample.replaced(x=sample.x[:1]), "linear_dequant")


@pytest.mark.parametrize("output_scale", [0.1, 0.3, 0.7, 1.0 / 3.0, 0.037])
def test_requantize_multiplies_by_the_reciprocal(path, output_scale):
    """y * f32(1 / output_scale), the reciprocal taken in double: division gives other results near ties."""
    ties = (torch.arange(-100, 100) + 0.5).double() * output_scale
    near = ties.float()
    candidates = torch.cat([near, torch.nextafter(near, near * 2), torch.nextafter(near, near * 0)])
    sample = epilogue_sample(candidates, output_scale)
    divided = torch.round(candidates / torch.tensor(output_scale, dtype=torch.float32)).to(torch.int8)
    assert (divided != sample.expected("linear")).any(), "the sample must tell a product from a division"
    path.check(sample, "linear", "linear_gemv")


def test_reciprocal_is_taken_in_double(path):
    """f32(1.0 / output_scale): rounding output_scale to f32 before the division gives other bits."""
    told_apart = 0
    for step in range(40):
        output_scale = 0.1 + 0.0137 * step
        single = 1.0 / torch.tensor(output_scale, dtype=torch.float32)
        inverse = torch.tensor(1.0 / output_scale, dtype=torch.float32)
        ties = ((torch.arange(-120, 120) + 0.5).double() / inverse.double()).float()
        candidates = torch.cat([ties, torch.nextafter(ties, ties * 2), torch.nextafter(ties, ties * 0)])
        sample = epilogue_sample(candidates, output_scale)
        told_apart += (torch.round(candidates * single) != sample.expected("linear")).any().item()
        path.check(sample, "linear")
    assert told_apart >= 5, "too few of the samples tell the two apart"


@pytest.mark.parametrize("rows", [1, 2])
def test_longest_rows_with_extremes(path, rows):
    generator = torch.Generator().manual_seed(8)
    weights = torch.full((5, MAX_DEPTH), -128, dtype=torch.int8)
    weights[1] = 127
    weights[2] = random_int8(generator, MAX_DEPTH)
    weights[3, ::2] = 127
    weights[4, :] = 0
    weights[4, -1] = 1
    for value, zero_point in ((127, -128), (-128, 127), (-128, 0)):
        x = torch.full((rows, MAX_DEPTH), value, dtype=torch.int8)
        sample = LinearSample(
            x=x,
            input_scale=1.0,
            input_zero_point=zero_point,
            weights=weights,
            weight_sums=row_sums(weights),
            weight_scales=torch.ones(5),
            output_scale=2.0**24,
            output_zero_point=1,
        )
        largest = sample.expected("linear_dequant").abs().max().item()
        assert zero_point == 0 or largest == 255 * 128 * MAX_DEPTH
        path.check(sample)


@pytest.mark.parametrize("columns", [1, 2, 3, 5, 33])
def test_padding_of_sums_scales_and_bias_is_never_used(path, columns):
    sample = make_sample((3,), 20, columns, seed=columns)
    extra = round_up_to_4(columns) - columns
    garbage = {
        "weight_sums": torch.full((extra,), -(2**31), dtype=torch.int32),
        "weight_scales": torch.full((extra,), float("nan")),
        "bias": torch.full((extra,), float("inf")),
    }
    padded = {name: torch.cat([getattr(sample, name), tail]) for name, tail in garbage.items()}
    # ExecuTorch pads with zeros: a scale of 0 out there is no error either.
    zeros = {"weight_scales": torch.cat([sample.weight_scales, torch.zeros(extra)])}
    for changes in (padded, zeros, *({name: tensor} for name, tensor in padded.items())):
        changed = sample.replaced(**changes)
        path.check(changed)
        path.check(changed.replaced(x=sample.x[:1]))


@pytest.mark.parametrize("rows", [1, 4])
def test_large_bias(path, rows):
    sample = make_sample((rows,), 33, 12, seed=12)
    bias = torch.tensor([1e3, -1e3, 1e6, -1e6, 1e9, -1e9, 1e20, -1e20, 1e30, -1e30, 16777217.0, 0.0])
    path.check(sample.replaced(bias=bias))


def test_weight_sums_are_used_as_given(path):
    sample = make_sample((3,), 16, 8, seed=13, zero_points=(9, 0))
    changed = sample.replaced(weight_sums=sample.weight_sums + torch.arange(8, dtype=torch.int32) * 100)
    assert not torch.equal(changed.expected("linear_dequant"), sample.expected("linear_dequant"))
    path.check(changed)
    path.check(changed.replaced(x=sample.x[:1]))


@pytest.mark.parametrize("leading", [(), (1,), (2, 3)], ids=str)
def test_inputs_are_not_modified(path, leading):
    sample = make_sample(leading, 30, 14, seed=14)
    names = ("x", "weights", "weight_sums", "weight_scales", "bias")
    before = {name: (getattr(sample, name).clone(), getattr(sample, name)._version) for name in names}
    for op in sample.ops():
        result = path.run(op, sample)
        result.fill_(1)
    for name, (copy, version) in before.items():
        tensor = getattr(sample, name)
        assert torch.equal(tensor, copy) and tensor._version == version, name
