"""Quantization kernels on vk: the CPU's results bit for bit, its errors, and what falls back to it."""

from __future__ import annotations

import math

import pytest
import torch
import torch.ao.quantization.fx._decomposed  # registers quantized_decomposed
from reference import requantize_ref
from same import SIZES, SPECIAL, assert_same, check, floats, sample, to_vk
from samples import random_int8

import q8ta_ops  # noqa: F401  registers the operators

pytestmark = pytest.mark.kernels

decomposed = torch.ops.quantized_decomposed


@pytest.mark.parametrize("scale", [2.0**126, 1.5 * 2.0**126, 2.0**127, 3e38, 3.4e38])
def test_quantize_where_the_reciprocal_of_the_scale_is_subnormal(scale, nothing_falls_back):
    quantize = torch.ops.quantized_decomposed.quantize_per_tensor
    x = torch.cat([SPECIAL, torch.linspace(-1, 1, 1000) * 3.4e38])
    check(lambda x: quantize(x, scale, -3, -128, 127, torch.int8), x)


def quantized_cases() -> list[torch.Tensor]:
    ties = (torch.arange(-300, 300) + 0.5) * 0.1
    near = torch.cat([ties, torch.nextafter(ties, ties * 2), torch.nextafter(ties, ties * 0)])
    with_nan = floats(10, 33).masked_fill_(floats(10, 33, seed=1) > 60, math.nan)
    several = [floats(5, 7), floats(5, 7).t(), floats(0, 3), floats(10, 3)[1:], with_nan, with_nan.t()]
    return [near, SPECIAL, torch.tensor(math.nan), *several]


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8], ids=str)
@pytest.mark.parametrize("zero_point", [0, 3, -7])
@pytest.mark.parametrize("scale", [0.1, 1.0, 1 / 3, 0.037])
def test_quantize_and_dequantize(dtype, zero_point, scale, nothing_falls_back):
    low, high = (-128, 127) if dtype == torch.int8 else (0, 255)
    point = zero_point if dtype == torch.int8 else zero_point + 128
    for x in quantized_cases():
        x = x[~(x.abs() >= 1e6)] if x.dim() == 1 else x
        want = decomposed.quantize_per_tensor(x, scale, point, low, high, dtype)
        got = decomposed.quantize_per_tensor(to_vk(x), scale, point, low, high, dtype)
        assert_same(got, want, layout=False)
        back = decomposed.dequantize_per_tensor(got, scale, point, low, high, dtype)
        assert_same(
            back, decomposed.dequantize_per_tensor(want, scale, point, low, high, dtype), layout=False
        )
        narrow = decomposed.quantize_per_tensor(to_vk(x), scale, point, low + 1, high - 27, dtype)
        expected = decomposed.quantize_per_tensor(x, scale, point, low + 1, high - 27, dtype)
        assert_same(narrow, expected, layout=False)


@pytest.mark.parametrize("limits", [(10, 100), (-100, -5), (5, 5)], ids=str)
def test_nan_is_quantized_to_zero_whatever_the_limits(limits, nothing_falls_back):
    x = torch.tensor([math.nan, -math.nan, 1.0, -math.inf, math.inf, math.nan, 0.0])
    check(lambda x: decomposed.quantize_per_tensor(x, 0.1, 3, *limits, torch.int8), x)


# (input, scale, zero point, limits, dtype)
QUANTIZED_ON_THE_CPU = {
    "float16": (floats(5, 7).half(), 0.1, 3, -128, 127, torch.int8),
    "bfloat16": (floats(5, 7).bfloat16(), 0.1, 3, 0, 255, torch.uint8),
    "to int16": (floats(5, 7), 0.01, 3, -32768, 32767, torch.int16),
    "to int32": (floats(5, 7), 0.01, 3, -(2**31), 2**31 - 1, torch.int32),
    "a large zero point": (floats(5, 7), 0.1, 2**33, -128, 127, torch.int8),
    "a small zero point": (floats(5, 7), 0.1, -(2**33), -128, 127, torch.int8),
    "a zero point that float32 rounds": (floats(5, 7) * 1e6, 0.1, 2**25 + 1, -128, 127, torch.int8),
    "low over high": (floats(5, 7), 0.1, 3, 50, -50, torch.int8),
    "an infinite scale": (SPECIAL, math.inf, 3, -128, 127, torch.int8),
    "a scale with an infinite reciprocal": (SPECIAL, 1e-40, 3, -128, 127, torch.int8),
    "not a scale": (SPECIAL, math.nan, 3, -128, 127, torch.int8),
}


@pytest.mark.parametrize("how", QUANTIZED_ON_THE_CPU)
def test_quantization_without_a_kernel_falls_back(how):
    torch.vk.reset_fallbacks()
    x, *arguments = QUANTIZED_ON_THE_CPU[how]
    check(lambda x: decomposed.quantize_per_tensor(x, *arguments), x)
    assert torch.vk.fallbacks() == {"quantized_decomposed::quantize_per_tensor": 1}


# (scale, zero point, dtype, dtype of the result)
DEQUANTIZED_ON_THE_CPU = {
    "int16": (0.1, 3, torch.int16, None),
    "int32": (0.1, 3, torch.int32, torch.float32),
    "to float16": (0.1, 3, torch.int8, torch.float16),
    "to bfloat16": (0.1, 3, torch.uint8, torch.bfloat16),
    "to float64": (0.1, 3, torch.uint8, torch.float64),
    "a large zero point": (0.1, 2**33, torch.int8, None),
    "a zero point at the end of int32": (0.1, -(2**31), torch.int8, None),
    "an infinite scale": (math.inf, 3, torch.int8, None),
}


@pytest.mark.parametrize("how", DEQUANTIZED_ON_THE_CPU)
def test_dequantization_without_a_kernel_falls_back(how):
    torch.vk.reset_fallbacks()
    scale, zero_point, dtype, result = DEQUANTIZED_ON_THE_CPU[how]
    x = sample(5, 7, dtype=dtype)
    limits = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    check(
        lambda x: decomposed.dequantize_per_tensor(x, scale, zero_point, *limits, dtype, out_dtype=result), x
    )
    assert torch.vk.fallbacks() == {"quantized_decomposed::dequantize_per_tensor": 1}


REFUSED = {
    "quant_min": lambda x: decomposed.quantize_per_tensor(x, 0.1, 0, -129, 127, torch.int8),
    "quant_max": lambda x: decomposed.quantize_per_tensor(x, 0.1, 0, 0, 256, torch.uint8),
    "scale": lambda x: decomposed.quantize_per_tensor(x, 0.0, 0, -128, 127, torch.int8),
    "float64": lambda x: decomposed.quantize_per_tensor(x.double(), 0.1, 0, -128, 127, torch.int8),
    "dtype": lambda x: decomposed.quantize_per_tensor(x, 0.1, 0, -128, 127, torch.int64),
    "another dtype": lambda x: decomposed.dequantize_per_tensor(x.char(), 0.1, 0, 0, 255, torch.uint8),
}


@pytest.mark.parametrize("how", REFUSED)
def test_quantization_is_refused_as_on_the_cpu(how):
    with pytest.raises((AssertionError, ZeroDivisionError, ValueError)) as on_cpu:
        REFUSED[how](floats(5, 7))
    with pytest.raises(on_cpu.type) as on_vk:
        REFUSED[how](floats(5, 7).to("vk"))
    assert str(on_vk.value) == str(on_cpu.value)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_requantize(sizes):
    x = random_int8(torch.Generator().manual_seed(1), *sizes)
    for arguments in ((0.1, 3, 0.037, -5), (1.0, 0, 1.0, 0), (0.02, -128, 0.9, 127)):
        result = torch.ops.q8ta.requantize(to_vk(x), *arguments)
        assert result.is_vk and torch.equal(result.cpu(), requantize_ref(x, *arguments))
    if len(sizes) == 2:
        result = torch.ops.q8ta.requantize(to_vk(x).t(), 0.1, 3, 0.037, -5)
        assert torch.equal(result.cpu(), requantize_ref(x.t(), 0.1, 3, 0.037, -5))
