"""q8ta.requantize: int8 to int8 between two sets of quantization parameters."""

from __future__ import annotations

import math

import pytest
import torch
from reference import requantize_ref
from samples import random_int8

ALL = torch.arange(-128, 128).to(torch.int8)
requantize = torch.ops.q8ta.requantize


@pytest.mark.parametrize("input_zero_point", [-128, -3, 0, 127])
@pytest.mark.parametrize("output_zero_point", [-128, 0, 5, 127])
@pytest.mark.parametrize(
    ("input_scale", "output_scale"),
    [(0.1, 0.1), (0.5, 1.0), (1.0, 0.4), (0.02, 3.7), (7.0, 0.001), (1e-30, 1e-30), (3e-38, 1e30)],
)
def test_every_value(place, input_scale, input_zero_point, output_scale, output_zero_point):
    arguments = (input_scale, input_zero_point, output_scale, output_zero_point)
    assert torch.equal(requantize(place(ALL), *arguments).cpu(), requantize_ref(ALL, *arguments))


@pytest.mark.parametrize("input_scale", [0.1, 0.037, 2.5])
@pytest.mark.parametrize("output_scale", [0.1, 0.013])
@pytest.mark.parametrize("zero_points", [(-7, 3), (-128, 127)], ids=str)
def test_equals_dequantize_and_quantize_of_torch(place, input_scale, output_scale, zero_points):
    import torch.ao.quantization.fx._decomposed  # noqa: F401  (registers the operators)

    library = torch.ops.quantized_decomposed
    y = library.dequantize_per_tensor(ALL, input_scale, zero_points[0], -128, 127, torch.int8)
    expected = library.quantize_per_tensor(y, output_scale, zero_points[1], -128, 127, torch.int8)
    result = requantize(place(ALL), input_scale, zero_points[0], output_scale, zero_points[1])
    assert torch.equal(result.cpu(), expected)


@pytest.mark.parametrize("sizes", [(), (1,), (0,), (3, 0), (7, 5), (2, 3, 4, 5), (300, 1000)], ids=str)
def test_shapes(place, sizes):
    x = random_int8(torch.Generator().manual_seed(1), *sizes)
    result = requantize(place(x), 0.05, 3, 0.11, -4)
    assert torch.equal(result.cpu(), requantize_ref(x, 0.05, 3, 0.11, -4)) and result.is_contiguous()


def test_strided(place):
    x = random_int8(torch.Generator().manual_seed(2), 6, 10)
    for view in (x.t(), x[::2, 1::3], x[:, :1].expand(6, 4)):
        result = requantize(place(view), 0.05, 3, 0.11, -4)
        assert torch.equal(result.cpu(), requantize_ref(view, 0.05, 3, 0.11, -4))


def test_opcheck(place):
    for sizes in ((), (0,), (4, 9)):
        x = random_int8(torch.Generator().manual_seed(3), *sizes)
        report = torch.library.opcheck(requantize.default, (place(x), 0.05, 3, 0.11, -4))
        assert set(report.values()) == {"SUCCESS"} and len(report) >= 4


@pytest.mark.parametrize(
    ("argument", "index", "value"),
    [
        ("x", 0, ALL.float()),
        ("x", 0, ALL.view(torch.uint8)),
        *[("input_scale", 1, value) for value in (0.0, -1.0, math.nan, math.inf, 1e-50)],
        *[("input_zero_point", 2, value) for value in (-129, 128)],
        *[("output_scale", 3, value) for value in (0.0, -1.0, math.nan, math.inf, 1e-40, 1e300)],
        *[("output_zero_point", 4, value) for value in (-129, 128)],
    ],
    ids=str,
)
def test_errors_name_the_argument(place, argument, index, value):
    arguments = [ALL, 0.05, 3, 0.11, -4]
    arguments[index] = value
    arguments[0] = place(arguments[0])
    with pytest.raises(RuntimeError, match=rf"q8ta::requantize: {argument}: expected"):
        requantize(*arguments)
    result = requantize(place(ALL), 0.05, 3, 0.11, -4)
    assert torch.equal(result.cpu(), requantize_ref(ALL, 0.05, 3, 0.11, -4))
