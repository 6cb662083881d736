"""uint8 activations become int8 ones: values and zero point both lower by 128, so that nothing else changes.

The quantizer for x86 works with uint8 (0..255, or 0..127 with reduce_range). The operators take int8. Where
the quantize and all that reads its result are in the graph, both sides are shifted together:

    quantize(scale, zero_point, 0..255, uint8)         -> quantize(scale, zero_point - 128, -128..127, int8)
    dequantize(scale, zero_point, 0..255, uint8)       -> dequantize(scale, zero_point - 128, -128..127, int8)
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.fx import Node

from .commuting import operands
from .forms import dequantize_form, quantize_form
from .linear_forms import LINEAR
from .nodes import arguments, describe, fake_value, target_name
from .store import Store
from .weights import DEQUANTIZES

OFFSET = 128


def shift_to_int8(store: Store) -> None:
    """Shifts the uint8 activations next to the linears of `store.graph`, in place.

    Only next to linears: other backends have fast uint8 kernels for what this package leaves to them.
    """
    for node in list(store.graph.nodes):
        if target_name(node) != LINEAR:
            continue
        call = arguments(node)
        if target_name(call["weight"]) not in DEQUANTIZES:
            continue
        for quantize in [*_before(call["input"]), *_after(node)]:
            if _is_uint8(quantize) and not why_uint8_stays(quantize):
                _shift(quantize)


def why_uint8_stays(node: Node) -> str:
    """Why a uint8 quantize, or the dequantize of one, cannot be shifted, in words; empty where it can."""
    quantize = node if quantize_form(node) is not None else dequantize_form(node)[0]
    if not isinstance(quantize, Node) or quantize_form(quantize) is None:
        return f"the uint8 values come from {describe(quantize)}"
    others = [user for user in quantize.users if dequantize_form(user) is None]
    return f"the uint8 values are also used by {describe(others[0])}" if others else ""


def _is_uint8(quantize: Node) -> bool:
    return quantize_form(quantize)[1].dtype == torch.uint8


def _before(node: Node) -> Iterator[Node]:
    """The quantizes whose values reach a linear's input, through what commutes with quantization."""
    form = dequantize_form(node)
    if form is None:
        for operand in operands(node):
            yield from _before(operand)
    elif isinstance(form[0], Node) and quantize_form(form[0]) is not None:
        yield form[0]


def _after(node: Node) -> Iterator[Node]:
    """The quantizes that a linear's result reaches, through what commutes with quantization."""
    for user in node.users:
        if quantize_form(user) is not None:
            yield user
        elif operands(user):
            yield from _after(user)


def _shift(quantize: Node) -> None:
    for node in (quantize, *quantize.users):
        source, numbers = quantize_form(node) or dequantize_form(node)
        node.args = (
            source,
            numbers.scale,
            numbers.zero_point - OFFSET,
            numbers.quant_min - OFFSET,
            numbers.quant_max - OFFSET,
            torch.int8,
        )
        node.kwargs = {key: value for key, value in node.kwargs.items() if key == "out_dtype"}
    value = fake_value(quantize)
    if value is not None:
        quantize.meta["val"] = value.new_empty(value.shape, dtype=torch.int8)
