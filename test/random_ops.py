"""Random calls of the operators around the linears: requantize, pack and unpack, of CPU tensors and on vk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from choosing import LARGEST, Chooser, as_input_scale, as_output_scale, scale_of, sometimes
from random_tensors import arranged, expanded, int8_values
from reference import LAYOUT_4H4W, LAYOUT_4W, pack_ref, requantize_possible, requantize_ref, unpack_ref
from torch import Tensor

import q8ta_ops  # noqa: F401  registers the operators


@dataclass(frozen=True)
class Call:
    """A call of any operator, with what it may return.

    Attributes:
        run: the call, given its tensors in the order of `tensors`.
        expected: makes the exact result, and behind it what else an element may be where a device takes
            subnormal numbers for zeros.
        signed_zeros: whether a zero's sign counts.
    """

    name: str
    tensors: list[Tensor]
    run: Callable[..., Tensor]
    expected: Callable[[], list[Tensor]]
    signed_zeros: bool = True

    def __str__(self) -> str:
        forms = (f"{tuple(t.shape)} strides {t.stride()} offset {t.storage_offset()}" for t in self.tensors)
        return f"{self.name}: {'; '.join(forms)}"


def random_sizes(chooser: Chooser, low: int, high: int, longest: int) -> list[int]:
    """`low` to `high` sizes, rarely with a 0 among them; the last one is up to `longest`."""
    sizes = [chooser.integer(1, 5) for _ in range(chooser.integer(low, high))]
    if sizes:
        sizes[-1] = chooser.integer(1, longest)
        if sometimes(chooser, 15):
            sizes[chooser.integer(0, len(sizes) - 1)] = 0
    return sizes


def requantize_call(chooser: Chooser) -> Call:
    """q8ta::requantize of any sizes, with scales up to subnormal ones."""
    x = expanded(chooser, arranged(chooser, int8_values(chooser, *random_sizes(chooser, 0, 4, 400))))
    low, high = chooser.one_of(((-10, 10), (-60, 60), (-149, -110), (90, 126)))
    input_scale = as_input_scale(scale_of(chooser, low, high))
    ratio = scale_of(chooser, *chooser.one_of(((-3, 6), (-3, 6), (-100, 100))))
    output_scale = as_output_scale(input_scale * ratio)
    if output_scale > 2.0**126:  # no infinity times a reciprocal that a device may take for 0
        input_scale = min(input_scale, LARGEST / 256)
    zero_points = [chooser.one_of((0, -128, 127, chooser.integer(-128, 127))) for _ in range(2)]
    numbers = (input_scale, zero_points[0], output_scale, zero_points[1])
    return Call(
        f"requantize {numbers}",
        [x],
        lambda x: torch.ops.q8ta.requantize(x, *numbers),
        lambda: [requantize_ref(x, *numbers), *requantize_possible(x, *numbers)],
    )


def pack_call(chooser: Chooser) -> Call:
    """q8ta::pack of [..., M, K]."""
    layout = chooser.one_of((LAYOUT_4W, LAYOUT_4H4W))
    x = expanded(chooser, arranged(chooser, int8_values(chooser, *_matrices(chooser))))
    return Call(
        f"pack {layout}", [x], lambda x: torch.ops.q8ta.pack(x, layout), lambda: [pack_ref(x, layout)]
    )


def unpack_call(chooser: Chooser) -> Call:
    """q8ta::unpack of packed words whose padding is 0."""
    layout = chooser.one_of((LAYOUT_4W, LAYOUT_4H4W))
    sizes = _matrices(chooser)
    packed = arranged(chooser, pack_ref(int8_values(chooser, *sizes), layout))
    return Call(
        f"unpack {layout} {sizes}",
        [packed],
        lambda packed: torch.ops.q8ta.unpack(packed, layout, sizes),
        lambda: [unpack_ref(packed, layout, sizes)],
    )


def _matrices(chooser: Chooser) -> list[int]:
    leading = [chooser.integer(0 if sometimes(chooser, 15) else 1, 3) for _ in range(chooser.integer(0, 2))]
    return [*leading, chooser.integer(1, 40), chooser.integer(1, 90)]
