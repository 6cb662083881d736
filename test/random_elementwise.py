"""Random calls of the operators of torch that the vk device has kernels for.

The CPU's results are the right ones; arithmetic on subnormal numbers may have others (reference.py).
"""

from __future__ import annotations

import operator
from collections.abc import Callable

import torch
import torch.ao.quantization.fx._decomposed  # noqa: F401  registers quantize and dequantize
from choosing import Chooser, as_input_scale, as_output_scale, scale_of, sometimes
from random_ops import Call, random_sizes
from random_tensors import arranged, expanded, float_values, int8_values
from reference import either, possible
from torch import Tensor


def elementwise_call(chooser: Chooser) -> Call:
    """Any of the operators below."""
    return chooser.one_of((_quantize, _dequantize, _arithmetic, _divide, _select, _largest, _move))(chooser)


def _sizes(chooser: Chooser) -> list[int]:
    return random_sizes(chooser, 0, 5, 300)


def _placed(chooser: Chooser, dense: Tensor) -> Tensor:
    return expanded(chooser, arranged(chooser, dense))


def _tensor(chooser: Chooser, sizes: list[int], nan: bool = True) -> Tensor:
    if sometimes(chooser, 4):
        return _placed(chooser, int8_values(chooser, *sizes))
    return _placed(chooser, float_values(chooser, *sizes, nan=nan))


def _limits(chooser: Chooser) -> tuple[int, int]:
    low = chooser.one_of((-128, chooser.integer(-128, 127)))
    return low, chooser.one_of((127, chooser.integer(low, 127)))


def _quantize(chooser: Chooser) -> Call:
    """quantize_per_tensor to int8 or uint8. A NaN has no int8, so there is none."""
    x = _placed(chooser, float_values(chooser, *_sizes(chooser)))
    scale = as_output_scale(scale_of(chooser, *chooser.one_of(((-6, 6), (-60, 60), (-127, 127)))))
    (low, high), dtype = _limits(chooser), torch.int8
    if sometimes(chooser, 3):
        low, high, dtype = low + 128, high + 128, torch.uint8
    numbers = (scale, chooser.integer(low, high), low, high, dtype)
    quantize = torch.ops.quantized_decomposed.quantize_per_tensor

    def possible_results() -> list[Tensor]:
        return [quantize(operand, *numbers) for operand in either(x)]

    return Call(f"quantize {numbers}", [x], lambda x: quantize(x, *numbers), possible_results)


def _dequantize(chooser: Chooser) -> Call:
    x = _placed(chooser, int8_values(chooser, *_sizes(chooser)))
    if sometimes(chooser, 3):
        x = x.view(torch.uint8)
    low, high = (0, 255) if x.dtype == torch.uint8 else (-128, 127)
    scale = as_input_scale(scale_of(chooser, *chooser.one_of(((-6, 6), (-60, 60), (-149, -110), (100, 127)))))
    numbers = (scale, chooser.integer(low, high), low, high, x.dtype)
    dequantize = torch.ops.quantized_decomposed.dequantize_per_tensor
    difference = x.to(torch.float32) - numbers[1]
    return Call(
        f"dequantize {numbers}",
        [x],
        lambda x: dequantize(x, *numbers),
        lambda: [
            dequantize(x, *numbers),
            *possible(torch.mul, [difference], either(torch.tensor(scale, dtype=torch.float32))),
        ],
    )


def _other(chooser: Chooser, sizes: list[int]) -> Tensor:
    """A second operand: of the same sizes, or one that is broadcast."""
    return _placed(chooser, float_values(chooser, *_broadcast(chooser, sizes), nan=True))


def _broadcast(chooser: Chooser, sizes: list[int]) -> list[int]:
    sizes = [1 if sometimes(chooser, 4) else size for size in sizes]
    return sizes[chooser.integer(0, len(sizes)) if sometimes(chooser, 4) else 0 :]


def _arithmetic(chooser: Chooser) -> Call:
    """+, - and * of two float32 tensors, or of one and a number, in either order."""
    sizes = _sizes(chooser)
    a = _placed(chooser, float_values(chooser, *sizes, nan=True))
    name = chooser.one_of(("add", "sub", "mul"))
    operation = getattr(operator, name)
    if not sometimes(chooser, 4):
        b = _other(chooser, sizes)
        return Call(
            name, [a, b], operation, lambda: [operation(a, b), *possible(operation, either(a), either(b))]
        )
    number = chooser.one_of((0.0, -0.0, 1.5, -0.1, 1e-40, 3, 2.0**-126))
    first = sometimes(chooser, 2)
    of_number = either(torch.tensor(number, dtype=torch.float32))
    operands = [of_number, either(a)] if first else [either(a), of_number]

    def run(a: Tensor) -> Tensor:
        return operation(number, a) if first else operation(a, number)

    return Call(f"{name} {number} {first}", [a], run, lambda: [run(a), *possible(operation, *operands)])


def _divide(chooser: Chooser) -> Call:
    """Exact on every device: its kernel computes with integers."""
    sizes = _sizes(chooser)
    a, b = (_placed(chooser, float_values(chooser, *each, nan=True)) for each in (sizes, sizes))
    return Call("div", [a, b], torch.div, lambda: [torch.div(a, b)])


def _select(chooser: Chooser) -> Call:
    """What returns one of its operands, or its sign changed, subnormal numbers and NaNs as they are.

    Which of two zeros it is differs on the CPU from place to place, except for relu and neg.
    """
    sizes = _sizes(chooser)
    x = _tensor(chooser, sizes)
    name = chooser.one_of(("relu", "neg", "clamp", "maximum", "minimum"))
    if name in ("relu", "neg"):
        operation = getattr(torch, name)
        return Call(name, [x], operation, lambda: [operation(x)])
    if name == "clamp":
        low, high = _limits(chooser)
        if x.dtype == torch.float32:
            low, high = low * chooser.one_of((1.0, 0.25, 1e-40)), high * chooser.one_of((1.0, 0.25, 1e-40))
        limits = {"min": low, "max": high}
        if sometimes(chooser, 3):
            del limits[chooser.one_of(("min", "max"))]
        return Call(f"clamp {limits}", [x], lambda x: x.clamp(**limits), lambda: [x.clamp(**limits)], False)
    is_float = x.dtype == torch.float32
    values = float_values(chooser, *sizes, nan=True) if is_float else int8_values(chooser, *sizes)
    other = _placed(chooser, values)
    operation = getattr(torch, name)
    return Call(name, [x, other], operation, lambda: [operation(x, other)], False)


def _largest(chooser: Chooser) -> Call:
    sizes = [max(size, 1) for size in _sizes(chooser)]
    x = _tensor(chooser, sizes)
    if not sizes or sometimes(chooser, 3):
        return Call("max", [x], torch.max, lambda: [torch.max(x)], False)
    dims = [d for d in range(len(sizes)) if sometimes(chooser, 2)] or [chooser.integer(0, len(sizes) - 1)]
    keep = sometimes(chooser, 2)
    return Call(
        f"amax {dims} {keep}",
        [x],
        lambda x: x.amax(dims, keepdim=keep),
        lambda: [x.amax(dims, keepdim=keep)],
        False,
    )


def _move(chooser: Chooser) -> Call:
    """cat, contiguous, and a copy into a view of something larger."""
    sizes = _sizes(chooser) or [chooser.integer(1, 40)]
    x = _tensor(chooser, sizes)
    name = chooser.one_of(("cat", "contiguous", "copy_"))
    if name == "contiguous":
        return Call(name, [x], Tensor.contiguous, lambda: [x.contiguous()])
    dim = chooser.integer(0, len(sizes) - 1)
    if name == "cat":
        sizes[dim] = chooser.integer(0, 9)
        values = float_values(chooser, *sizes) if x.dtype == torch.float32 else int8_values(chooser, *sizes)
        other = _placed(chooser, values)
        run: Callable = lambda x, other: torch.cat([x, other, x], dim)  # noqa: E731
        return Call(f"cat {dim}", [x, other], run, lambda: [run(x, other)])
    step = chooser.integer(1, 3)
    room = [size * (step if d == dim else 1) + 2 for d, size in enumerate(sizes)]

    def copied(x: Tensor) -> Tensor:
        whole = torch.zeros(room, dtype=x.dtype, device=x.device)
        part = whole[tuple(slice(1, 1 + size) for size in x.shape)] if step == 1 else whole
        if step > 1:
            slices = [slice(1, 1 + size) for size in x.shape]
            slices[dim] = slice(1, 1 + step * x.shape[dim], step)
            part = whole[tuple(slices)]
        part.copy_(x)
        return whole

    return Call(f"copy_ {dim} {step}", [x], copied, lambda: [copied(x)])
