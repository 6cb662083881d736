"""Kernels on the device for what lies between linears: the CPU's results bit for bit, and its strides."""

from __future__ import annotations

import math

import pytest
import torch
from reference import requantize_ref
from same import assert_same, check, sample, to_vk
from samples import random_int8

import q8ta_ops  # noqa: F401  registers the operators

SIZES = [(), (1,), (3,), (4,), (5, 7), (2, 3, 5), (0, 3), (1000,), (257, 129)]
SPECIAL = torch.tensor(
    [0.0, -0.0, 1e-45, -1e-40, 1.5, -2.5, 3e38, -3e38, math.inf, -math.inf, math.nan, 0.5, -0.5, 127.5, 1e9]
)


def floats(*sizes: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed)) * 50


FLOAT_OPS = {
    "relu": lambda x, y: torch.relu(x),
    "relu_": lambda x, y: torch.relu_(x),
    "clamp": lambda x, y: x.clamp(-10, 20.5),
    "clamp from below": lambda x, y: x.clamp(min=-3),
    "clamp from above": lambda x, y: x.clamp(max=3),
    "clamp, low over high": lambda x, y: x.clamp(5, -5),
    "clamp to nan": lambda x, y: x.clamp(min=math.nan),
    "clamp_min": lambda x, y: x.clamp_min(1.5),
    "clamp_max": lambda x, y: x.clamp_max(1.5),
    "hardtanh": lambda x, y: torch.nn.functional.hardtanh(x),
    "relu6": lambda x, y: torch.nn.functional.relu6(x),
    "add": lambda x, y: x + y,
    "add with alpha": lambda x, y: torch.add(x, y, alpha=-2.5),
    "add_": lambda x, y: x.add_(y),
    "add_ with alpha": lambda x, y: x.add_(y, alpha=3),
    "add to itself": lambda x, y: x.add_(x),
    "add a number": lambda x, y: x + 1.5,
    "add an integer": lambda x, y: 3 + x,
    "add a row": lambda x, y: x + y[..., :1, :] if x.dim() > 1 else x + y,
    "add the last row": lambda x, y: x + y.reshape(-1, y.shape[-1])[-1] if x.numel() and x.dim() else x + y,
    "row first": lambda x, y: y.reshape(-1, y.shape[-1])[0] + x if x.numel() and x.dim() else y + x,
    "add a column": lambda x, y: x + (y[..., :1] if y.dim() else y),
    "mul": lambda x, y: x * y,
    "mul_": lambda x, y: x.mul_(y),
    "mul by a number": lambda x, y: x * 0.1,
    "mul by a number on the device": lambda x, y: x * torch.tensor(0.1, device=x.device),
    "mul by a number on the CPU": lambda x, y: x * torch.tensor(0.1),
    "mul by a double": lambda x, y: x * y.double(),
    "add to a number on the device": lambda x, y: torch.tensor(2.0, device=x.device) + x,
}


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("how", FLOAT_OPS)
def test_floats(how, sizes):
    check(FLOAT_OPS[how], floats(*sizes), floats(*sizes, seed=1))


@pytest.mark.parametrize("how", FLOAT_OPS)
def test_special_values(how):
    x, y = SPECIAL.repeat(len(SPECIAL), 1), SPECIAL[:, None].expand(-1, len(SPECIAL)).contiguous()
    check(FLOAT_OPS[how], x, y)


@pytest.mark.parametrize("how", ["relu", "clamp", "add", "add_", "add a number", "mul", "mul_", "relu_"])
def test_strides_of_results(how):
    x, y = floats(6, 8), floats(6, 8, seed=1)
    check(FLOAT_OPS[how], x.t(), y.t())
    check(FLOAT_OPS[how], x[::2], y[1::2])
    check(FLOAT_OPS[how], x[:, 1:4], y[:, 5:8])
    check(FLOAT_OPS[how], x, y.t().contiguous().t())
    check(FLOAT_OPS[how], x.t(), y.t().contiguous())
    images, others = floats(2, 3, 4, 5), floats(2, 3, 4, 5, seed=1)
    channels_last = torch.channels_last
    check(FLOAT_OPS[how], images.to(memory_format=channels_last), others.to(memory_format=channels_last))
    check(FLOAT_OPS[how], images.permute(1, 0, 3, 2), others.permute(1, 0, 3, 2))
    check(FLOAT_OPS[how], x[:1].expand(6, 8).clone(), y[:1].expand(6, 8))


def test_shapes_that_do_not_fit_are_refused():
    for sizes, other in (((3, 4), (3,)), ((3, 4), (2, 4)), ((5,), (4,)), ((2, 3), (2, 2, 2))):
        with pytest.raises(RuntimeError, match="must match the size"):
            floats(*sizes).to("vk") + floats(*other).to("vk")
        with pytest.raises(RuntimeError, match="must match the size"):
            floats(*sizes).to("vk") * floats(*other).to("vk")
    with pytest.raises(RuntimeError):
        floats(3).to("vk").add_(floats(2, 3).to("vk"))
    with pytest.raises(RuntimeError, match="(?i)at least one"):
        floats(3).to("vk").clamp()


BYTE_OPS = {
    "relu": lambda x: torch.relu(x),
    "relu_": lambda x: x.relu_(),
    "clamp": lambda x: x.clamp(-10, 20),
    "clamp to the whole range": lambda x: x.clamp(*_range(x)),
    "clamp to one side": lambda x: x.clamp(min=5),
    "clamp, low over high": lambda x: x.clamp(5, -5),
    "clamp by floats": lambda x: x.clamp(-1.5, 2.5),
    "clamp_max": lambda x: x.clamp_max(-5),
    "strided": lambda x: x.t()[1:].relu(),
    "add": lambda x: x + x,
    "mul": lambda x: x * 3,
}


def _range(x: torch.Tensor) -> tuple[int, int]:
    return torch.iinfo(x.dtype).min, torch.iinfo(x.dtype).max


@pytest.mark.parametrize("how", BYTE_OPS)
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int64], ids=str)
def test_integers(how, dtype):
    x = torch.arange(-128, 128, dtype=torch.int16).view(16, 16).to(dtype)
    check(BYTE_OPS[how], x)
    check(BYTE_OPS[how], x[1:, 3:])


decomposed = torch.ops.quantized_decomposed


def quantized_cases() -> list[torch.Tensor]:
    ties = (torch.arange(-300, 300) + 0.5) * 0.1
    near = torch.cat([ties, torch.nextafter(ties, ties * 2), torch.nextafter(ties, ties * 0)])
    return [near, SPECIAL[~SPECIAL.isnan()], floats(5, 7), floats(5, 7).t(), floats(0, 3), floats(10, 3)[1:]]


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8], ids=str)
@pytest.mark.parametrize("zero_point", [0, 3, -7])
@pytest.mark.parametrize("scale", [0.1, 1.0, 1 / 3, 0.037])
def test_quantize_and_dequantize(dtype, zero_point, scale):
    import torch.ao.quantization.fx._decomposed  # noqa: F401  registers the operators

    low, high = (-128, 127) if dtype == torch.int8 else (0, 255)
    point = zero_point if dtype == torch.int8 else zero_point + 128
    for x in quantized_cases():
        finite = x[x.abs() < 1e6] if x.dim() == 1 else x
        want = decomposed.quantize_per_tensor(finite, scale, point, low, high, dtype)
        got = decomposed.quantize_per_tensor(to_vk(finite), scale, point, low, high, dtype)
        assert_same(got, want, layout=False)
        back = decomposed.dequantize_per_tensor(got, scale, point, low, high, dtype)
        assert_same(
            back, decomposed.dequantize_per_tensor(want, scale, point, low, high, dtype), layout=False
        )
        narrow = decomposed.quantize_per_tensor(to_vk(finite), scale, point, low + 1, high - 27, dtype)
        expected = decomposed.quantize_per_tensor(finite, scale, point, low + 1, high - 27, dtype)
        assert_same(narrow, expected, layout=False)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_requantize(sizes):
    x = random_int8(torch.Generator().manual_seed(1), *sizes)
    for arguments in ((0.1, 3, 0.037, -5), (1.0, 0, 1.0, 0), (0.02, -128, 0.9, 127)):
        result = torch.ops.q8ta.requantize(to_vk(x), *arguments)
        assert result.is_vk and torch.equal(result.cpu(), requantize_ref(x, *arguments))
    if len(sizes) == 2:
        result = torch.ops.q8ta.requantize(to_vk(x).t(), 0.1, 3, 0.037, -5)
        assert torch.equal(result.cpu(), requantize_ref(x.t(), 0.1, 3, 0.037, -5))


def test_these_do_not_fall_back():
    x, y = floats(8, 16).to("vk"), floats(8, 16, seed=1).to("vk")
    b = sample(8, 16, dtype=torch.int8).to("vk")
    torch.vk.reset_fallbacks()
    x + y, x * y, x + y[0], x.relu(), x.clamp(-1, 1), b.relu(), b.clamp(-1, 1), torch.cat([x, y]), x.fill_(1)
    x.t().contiguous(), b[:, ::2].contiguous(), b.zero_(), torch.ops.q8ta.requantize(b, 0.1, 0, 0.2, 0)
    assert torch.vk.fallbacks() == {}
