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
def test_every_value(input_scale, input_zero_point, output_scale, output_zero_point):
    arguments = (ALL, input_scale, input_zero_point, output_scale, output_zero_point)
    assert torch.equal(requantize(*arguments), requantize_ref(*arguments))


@pytest.mark.parametrize("input_scale", [0.1, 0.037, 2.5])
@pytest.mark.parametrize("output_scale", [0.1, 0.013])
@pytest.mark.parametrize("zero_points", [(-7, 3), (-128, 127)], ids=str)
def test_equals_dequantize_and_quantize_of_torch(input_scale, output_scale, zero_points):
    import torch.ao.quantization.fx._decomposed  # noqa: F401  (registers the operators)

    library = torch.ops.quantized_decomposed
    y = library.dequantize_per_tensor(ALL, input_scale, zero_points[0], -128, 127, torch.int8)
    expected = library.quantize_per_tensor(y, output_scale, zero_points[1], -128, 127, torch.int8)
    assert torch.equal(requantize(ALL, input_scale, zero_points[0], output_scale, zero_points[1]), expected)


@pytest.mark.parametrize("sizes", [(), (1,), (0,), (3, 0), (7, 5), (2, 3, 4, 5), (300, 1000)], ids=str)
def test_shapes(sizes):
    x = random_int8(torch.Generator().manual_seed(1), *sizes)
    result = requantize(x, 0.05, 3, 0.11, -4)
    assert torch.equal(result, requantize_ref(x, 0.05, 3, 0.11, -4)) and result.is_contiguous()


def test_strided():
    x = random_int8(torch.Generator().manual_seed(2), 6, 10)
    for view in (x.t(), x[::2, 1::3], x[:, :1].expand(6, 4)):
        assert torch.equal(requantize(view, 0.05, 3, 0.11, -4), requantize_ref(view, 0.05, 3, 0.11, -4))


def test_opcheck():
    for sizes in ((), (0,), (4, 9)):
        x = random_int8(torch.Generator().manual_seed(3), *sizes)
        report = torch.library.opcheck(requantize.default, (x, 0.05, 3, 0.11, -4))
        assert set(report.values()) == {"SUCCESS"} and len(report) >= 4


@pytest.mark.parametrize(
    ("argument", "place", "value"),
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
def test_errors_name_the_argument(argument, place, value):
    arguments = [ALL, 0.05, 3, 0.11, -4]
    arguments[place] = value
    with pytest.raises(RuntimeError, match=rf"q8ta::requantize: {argument}: expected"):
        requantize(*arguments)
    assert torch.equal(requantize(ALL, 0.05, 3, 0.11, -4), requantize_ref(ALL, 0.05, 3, 0.11, -4))
