"""Kernels on the device for what lies between linears: the CPU's results bit for bit, and its strides."""

from __future__ import annotations

import functools
import math
import re

import pytest
import torch
from reference import either, possible
from same import SIZES, SPECIAL, check, floats, sample, to_vk
from samples import random_int8

import q8ta_ops  # noqa: F401  registers the operators

pytestmark = pytest.mark.kernels


# What each of these does is done on the device.
FLOAT_OPS = {
    "relu": lambda x, y: torch.relu(x),
    "relu_": lambda x, y: torch.relu_(x),
    "clamp": lambda x, y: x.clamp(-10, 20.5),
    "clamp_": lambda x, y: x.clamp_(-10, 20.5),
    "clamp to out": lambda x, y: torch.clamp(x, -10, 20.5, out=torch.empty_like(x)),
    "clamp from below": lambda x, y: x.clamp(min=-3),
    "clamp from above": lambda x, y: x.clamp(max=3),
    "clamp, low over high": lambda x, y: x.clamp(5, -5),
    "clamp to infinity": lambda x, y: x.clamp(-math.inf, math.inf),
    "clamp_min": lambda x, y: x.clamp_min(1.5),
    "clamp_max": lambda x, y: x.clamp_max(1.5),
    "clamp_min_": lambda x, y: x.clamp_min_(1.5),
    "clamp_max_": lambda x, y: x.clamp_max_(1.5),
    "hardtanh": lambda x, y: torch.nn.functional.hardtanh(x),
    "hardtanh_": lambda x, y: torch.nn.functional.hardtanh_(x),
    "relu6": lambda x, y: torch.nn.functional.relu6(x),
    "add": lambda x, y: x + y,
    "add with alpha": lambda x, y: torch.add(x, y, alpha=-1),
    "add_": lambda x, y: x.add_(y),
    "add to itself": lambda x, y: x.add_(x),
    "add to out": lambda x, y: torch.add(x, y, out=torch.empty_like(x)),
    "add to the input": lambda x, y: torch.add(x, y, out=y),
    "add to an empty out": lambda x, y: torch.add(x, y, out=torch.empty(0, device=x.device)),
    "add a number": lambda x, y: x + 1.5,
    "add_ a number": lambda x, y: x.add_(0.1),
    "add an integer": lambda x, y: 3 + x,
    "add a large integer": lambda x, y: x + 2**53 + 1,
    "add infinity": lambda x, y: x + 1e300,
    "add nan": lambda x, y: x + math.nan,
    "add a row": lambda x, y: x + y[..., :1, :] if x.dim() > 1 else x + y,
    "add the last row": lambda x, y: x + y.reshape(-1, y.shape[-1])[-1] if x.numel() and x.dim() else x + y,
    "row first": lambda x, y: y.reshape(-1, y.shape[-1])[0] + x if x.numel() and x.dim() else y + x,
    "add a column": lambda x, y: x + (y[..., :1] if y.dim() else y),
    "column and row": lambda x, y: x[..., :1] + y[..., :1, :] if x.dim() > 1 else x + y,
    "sub": lambda x, y: x - y,
    "sub with alpha": lambda x, y: torch.sub(x, y, alpha=-1),
    "sub_": lambda x, y: x.sub_(y),
    "sub to out": lambda x, y: torch.sub(x, y, out=torch.empty_like(y)),
    "sub a number": lambda x, y: x - 0.1,
    "sub from a number": lambda x, y: 0.1 - x,
    "mul": lambda x, y: x * y,
    "mul_": lambda x, y: x.mul_(y),
    "mul to out": lambda x, y: torch.mul(x, y, out=torch.empty_like(x)),
    "mul by a number": lambda x, y: x * 0.1,
    "mul_ by a number": lambda x, y: x.mul_(-3),
    "mul by a bool": lambda x, y: x * True,
    "mul by a number on the device": lambda x, y: x * torch.tensor(0.1, device=x.device),
    "mul by a number on the CPU": lambda x, y: x * torch.tensor(0.1),
    "mul by a double number on the CPU": lambda x, y: x[None] * torch.tensor(0.1, dtype=torch.float64),
    "div": lambda x, y: x / y,
    "div_": lambda x, y: x.div_(y),
    "div to out": lambda x, y: torch.div(x, y, out=torch.empty_like(x)),
    "div by a number": lambda x, y: x / 3,
    "div by two": lambda x, y: x / 2,
    "div by a tiny power of two": lambda x, y: x / 2.0**-149,
    "div by a huge power of two": lambda x, y: x / 2.0**127,
    "div by minus an eighth": lambda x, y: x / -0.125,
    "div by zero": lambda x, y: x / 0,
    "div a number": lambda x, y: 3 / x,
    "reciprocal": lambda x, y: x.reciprocal(),
    "neg": lambda x, y: -x,
    "maximum": lambda x, y: torch.maximum(x, y),
    "max": lambda x, y: torch.max(x, y[..., :1] if y.dim() else y),
    "maximum to out": lambda x, y: torch.maximum(x, y, out=torch.empty_like(x)),
    "minimum": lambda x, y: torch.minimum(x, y),
    "min": lambda x, y: torch.min(x[..., :1] if x.dim() else x, y),
    "add to a number on the device": lambda x, y: torch.tensor(2.0, device=x.device) + x,
}
# No arithmetic on floats, so subnormal numbers stay what they are on every device.
SELECTING = ("relu", "clamp", "hardtanh", "max", "min")
EXACT = ("neg", "div", "div_", "div to out", "reciprocal")
# These go through the CPU: what they do is the same, nevertheless.
OTHER_FLOAT_OPS = {
    "add with another alpha": lambda x, y: torch.add(x, y, alpha=-2.5),
    "add_ with another alpha": lambda x, y: x.add_(y, alpha=3),
    "clamp to nan": lambda x, y: x.clamp(min=math.nan),
    "mul by a double": lambda x, y: x * y.double(),
    "add integers": lambda x, y: x + y.clamp(-100, 100).nan_to_num().int(),
    "add a complex number": lambda x, y: x + 1j,
    "divide and round": lambda x, y: torch.div(x, y, rounding_mode="floor"),
}


@functools.cache
def arithmetic_keeps_subnormals() -> bool:
    x = torch.tensor([1e-40])
    return torch.equal((x.to("vk") + x.to("vk")).cpu(), x + x)


@pytest.mark.parametrize("how", FLOAT_OPS)
def test_floats(how, nothing_falls_back):
    for sizes in SIZES:
        check(FLOAT_OPS[how], floats(*sizes), floats(*sizes, seed=1))


@pytest.mark.parametrize("how", FLOAT_OPS)
def test_special_values(how, nothing_falls_back):
    x, y = SPECIAL.repeat(len(SPECIAL), 1), SPECIAL[:, None].expand(-1, len(SPECIAL)).contiguous()
    if how in EXACT or how.startswith(SELECTING) or arithmetic_keeps_subnormals():
        check(FLOAT_OPS[how], x, y)
        return
    got = FLOAT_OPS[how](to_vk(x.clone()), to_vk(y.clone())).cpu()
    right = torch.zeros(got.shape, dtype=torch.bool)
    for want in possible(lambda x, y: FLOAT_OPS[how](x.clone(), y.clone()), either(x), either(y)):
        right |= (got == want) | (got.isnan() & want.isnan())
    assert right.all(), got[~right]


@pytest.mark.parametrize("how", OTHER_FLOAT_OPS)
def test_what_falls_back(how):
    torch.vk.reset_fallbacks()
    for sizes in SIZES:
        check(OTHER_FLOAT_OPS[how], floats(*sizes), floats(*sizes, seed=1))
    x, y = SPECIAL.repeat(len(SPECIAL), 1), SPECIAL[:, None].expand(-1, len(SPECIAL)).contiguous()
    check(OTHER_FLOAT_OPS[how], x, y)
    assert torch.vk.fallbacks() != {}


def test_division_is_rounded_as_on_the_cpu(nothing_falls_back):
    """Any bits at all, then quotients near 1, near the largest number and in the subnormal ones."""
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (2, 200_000), generator=generator).to(torch.int32)
    x, y = bits.view(torch.float32)
    near = torch.randint(-8, 9, (200_000,), generator=generator).to(torch.int32)
    for divisor in (y, (bits[0] + near).view(torch.float32), y.abs().clamp(1e-7, 1e7), x * 2.0**100):
        for dividend in (x, x.clamp(-1e-30, 1e-30)):
            quotient = (dividend.to("vk") / divisor.to("vk")).cpu()
            expected = dividend / divisor
            same = (quotient.view(torch.int32) == expected.view(torch.int32)) | expected.isnan()
            assert same.all() and torch.equal(quotient.isnan(), expected.isnan())


@pytest.mark.parametrize("how", FLOAT_OPS)
def test_strides_of_results(how, nothing_falls_back):
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
    check(FLOAT_OPS[how], x[:1].expand(6, 8).clone(), y[:1].expand(6, 8).clone())
    many, more = floats(2, 3, 2, 3, 2, 3), floats(2, 3, 2, 3, 2, 3, seed=1)
    check(
        FLOAT_OPS[how],
        many.permute(5, 2, 4, 0, 3, 1),
        more.permute(3, 4, 1, 0, 5, 2).reshape(3, 2, 2, 2, 3, 3),
    )


@pytest.mark.parametrize("how", ["add", "div", "maximum", "add a column"])
def test_results_in_views(how, nothing_falls_back):
    """out= and in-place results between values that are not theirs."""

    def run(x: torch.Tensor, y: torch.Tensor, room: torch.Tensor) -> torch.Tensor:
        room[1:, ::2].copy_(FLOAT_OPS[how](x, y))
        torch.add(x, y, out=room[:-1, 1::2])
        room[:, 3].mul_(2)
        room.t()[4:6] -= 1
        return room

    check(run, floats(5, 6), floats(5, 6, seed=1), floats(6, 12, seed=2))


def test_out_is_resized_and_checked():
    x, y = floats(3, 4).to("vk"), floats(3, 4, seed=1).to("vk")
    with pytest.warns(UserWarning, match="resized"):
        result = torch.add(x, y, out=torch.empty(2, device="vk"))
    assert result.shape == (3, 4) and torch.equal(result.cpu(), x.cpu() + y.cpu())
    for out in (torch.empty(3, 4, dtype=torch.int32, device="vk"), torch.empty(3, 4)):
        with pytest.raises(RuntimeError):
            torch.add(x, y, out=out)
    double = torch.empty(3, 4, dtype=torch.float64, device="vk")
    assert torch.equal(torch.add(x, y, out=double).cpu(), (x.cpu() + y.cpu()).double())
    whole = floats(10).to("vk")
    with pytest.raises(RuntimeError, match="(?i)overlap|single memory location"):
        torch.add(whole[:8], 1, out=whole[2:])
    with pytest.raises(RuntimeError, match="(?i)overlap|single memory location"):
        whole[:1].expand(4).add_(1)


def test_seven_dimensions():
    """More than the kernel takes, none of which can be joined."""
    x = floats(2, 2, 2, 2, 2, 2, 2).permute(6, 5, 4, 3, 2, 1, 0)[..., :1, :]
    y = floats(4, 3, 4, 3, 4, 3, 4, 2, seed=1)[::2, ::2, ::2, ::2, ::2, ::2, ::2, 0]
    check(lambda x, y: x + y, x, y)
    check(lambda x, y: y.add_(y.flip(0)), x, y)


def test_more_than_one_dispatch(nothing_falls_back):
    """Bindings of 128 MiB and parts of 16 Mi elements, with operands that are read more often than once."""
    x = floats(1 << 12, 1 << 13)
    row, column = floats(1 << 13, seed=1), floats(1 << 12, 1, seed=2)
    y = x.to("vk")
    assert torch.equal((y + row.to("vk")).cpu(), x + row)
    assert torch.equal((column.to("vk") - y).cpu(), column - x)
    assert torch.equal(y.t().mul_(2).cpu(), x.t() * 2)
    del y
    torch.vk.empty_cache()


def test_shapes_that_do_not_fit_are_refused():
    for sizes, other in (((3, 4), (3,)), ((3, 4), (2, 4)), ((5,), (4,)), ((2, 3), (2, 2, 2))):
        with pytest.raises(RuntimeError, match="must match the size"):
            floats(*sizes).to("vk") + floats(*other).to("vk")
        with pytest.raises(RuntimeError, match="must match the size"):
            floats(*sizes).to("vk") * floats(*other).to("vk")
        with pytest.raises(RuntimeError, match="must match the size"):
            torch.maximum(floats(*sizes).char().to("vk"), floats(*other).char().to("vk"))
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
    "clamp_": lambda x: x.clamp_(-10 if x.dtype.is_signed else 3, 20),
    "clamp_ a part": lambda x: x[1:, 3:6].clamp_(max=5),
    "maximum": lambda x: torch.maximum(x, x.flip(0)),
    "maximum of strides": lambda x: torch.max(x.t(), x.t()[:, :1]),
    "maximum, transposed": lambda x: torch.maximum(x.t(), x.flip(1).t()),
    "maximum to out": lambda x: torch.maximum(x, x.flip(0), out=torch.empty_like(x)),
    "minimum": lambda x: torch.minimum(x, x.flip(1)),
    "minimum with a row": lambda x: torch.min(x[:1], x.flip(1)),
    "minimum with a number": lambda x: torch.minimum(x, torch.tensor(7, dtype=x.dtype, device=x.device)),
}


def _range(x: torch.Tensor) -> tuple[int, int]:
    return torch.iinfo(x.dtype).min, torch.iinfo(x.dtype).max


@pytest.mark.parametrize("how", BYTE_OPS)
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int64], ids=str)
def test_integers(how, dtype):
    whole = torch.arange(-128, 128, dtype=torch.int16).view(16, 16).to(dtype)
    for x in (whole, whole[1:, 3:]):
        try:
            BYTE_OPS[how](x.clone())
        except RuntimeError as error:  # torch 2.15 refuses limits that the type does not hold
            with pytest.raises(RuntimeError, match=re.escape(str(error).split("\n")[0])):
                BYTE_OPS[how](to_vk(x))
        else:
            check(BYTE_OPS[how], x)


# Of int8 b and float32 x, and done on the device.
INTO_TENSORS = {
    "clamp": lambda x, b: torch.clamp(b, -3, 5, out=torch.empty_like(b)),
    "clamp, resized": lambda x, b: torch.clamp(
        b.t(), -3, 5, out=torch.empty(0, dtype=b.dtype, device=b.device)
    ),
    "clamp to strides": lambda x, b: torch.clamp(b[:, ::2], min=-3, out=torch.zeros_like(b)[:, 1::2]),
    "clamp by floats": lambda x, b: b.clamp(-1.5, 2.5),
    "clamp by a float and an integer": lambda x, b: b.t().clamp(-3, 2.5),
    "maximum": lambda x, b: torch.maximum(b, b.flip(0), out=torch.empty_like(b)),
    "maximum to its input": lambda x, b: torch.maximum(b, b[:1].clone(), out=b),
    "minimum to strides": lambda x, b: torch.minimum(b, b[:1], out=torch.zeros_like(b.t()).t()),
    "amax": lambda x, b: torch.amax(x, 1, out=torch.empty(x.shape[0], device=x.device)),
    "amax, resized": lambda x, b: torch.amax(
        b, (0, 1), True, out=torch.empty(0, dtype=b.dtype, device=b.device)
    ),
    "cat": lambda x, b: torch.cat([x, x[:2]], out=torch.empty(x.shape[0] + 2, x.shape[1], device=x.device)),
    "cat, resized": lambda x, b: torch.cat([b, b], 1, out=torch.empty(0, dtype=b.dtype, device=b.device)),
    "fill_": lambda x, b: x[1:, ::2].fill_(torch.tensor(2.5, device=x.device)),
    "fill_ from the CPU": lambda x, b: x.fill_(torch.tensor(3)),
    "fill_ with one of its own": lambda x, b: x.fill_(x[1, 2]),
}


@pytest.mark.parametrize("how", INTO_TENSORS)
def test_into_tensors(how):
    x, b = floats(6, 8), random_int8(torch.Generator().manual_seed(1), 6, 8)
    torch.vk.reset_fallbacks()
    check(lambda x, b: INTO_TENSORS[how](x, b), x, b)
    assert set(torch.vk.fallbacks()) <= {"aten::flip"}


def test_out_that_overlaps_its_inputs_is_refused():
    b = random_int8(torch.Generator().manual_seed(1), 10).to("vk")
    for call in (
        lambda: torch.clamp(b[:8], -3, 5, out=b[2:]),
        lambda: torch.maximum(b[:8], b[:8], out=b[2:]),
        lambda: torch.cat([b[:4], b[4:8]], out=b[2:]),
    ):
        with pytest.raises(RuntimeError, match="(?i)overlap|single memory location"):
            call()


def test_these_do_not_fall_back(nothing_falls_back):
    x, y = floats(8, 16).to("vk"), floats(8, 16, seed=1).to("vk")
    b = sample(8, 16, dtype=torch.int8).to("vk")
    b.relu(), b.clamp(-1, 1), b.relu_(), torch.maximum(b, b[:1]), torch.min(b.t(), b[0, 0])
    torch.cat([x, y]), x.fill_(1), x.zero_(), x[0].fill_(2)
    x.t().contiguous(), b[:, ::2].contiguous(), b.zero_(), torch.ops.q8ta.requantize(b, 0.1, 0, 0.2, 0)
