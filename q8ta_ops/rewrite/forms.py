"""What a quantize or dequantize node means: the numbers of a per-tensor quantization, read from the graph."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from .nodes import arguments, target_name

QUANTIZE = "quantized_decomposed.quantize_per_tensor.default"
DEQUANTIZE = "quantized_decomposed.dequantize_per_tensor.default"
_FLOAT32 = 6  # c10::ScalarType


@dataclass(frozen=True)
class Quantization:
    """A quantization per tensor: q = clamp(round(y / scale) + zero_point, quant_min, quant_max)."""

    scale: float
    zero_point: int
    quant_min: int
    quant_max: int
    dtype: torch.dtype


def quantize_form(node: Node) -> tuple[Node, Quantization] | None:
    """The float input of a quantize node and its numbers.

    Returns:
        None if the node is no per-tensor quantize with literal numbers. The other ways to write one have been
        turned into this one (see `dialects.py`) before anything asks.
    """
    if target_name(node) != QUANTIZE:
        return None
    return _form(node)


def dequantize_form(node: Node) -> tuple[Node, Quantization] | None:
    """The integer input of a dequantize node and its numbers. The result is float32.

    Returns:
        None if the node is no per-tensor dequantize to float32 with literal numbers.
    """
    if target_name(node) != DEQUANTIZE or result_dtype(arguments(node)) != torch.float32:
        return None
    return _form(node)


def result_dtype(call: dict[str, Any]) -> torch.dtype:
    """The type that a dequantize call of any library returns."""
    dtype = call.get("out_dtype", call.get("output_dtype"))
    # Left out, it is None in one library. In the other it is the schema's default, which is a number.
    return torch.float32 if dtype in (None, _FLOAT32) else dtype


def _form(node: Node) -> tuple[Node, Quantization] | None:
    call = arguments(node)
    if not isinstance(call["scale"], (int, float)) or not isinstance(call["zero_point"], int):
        return None
    numbers = Quantization(
        float(call["scale"]), call["zero_point"], call["quant_min"], call["quant_max"], call["dtype"]
    )
    return call["input"], numbers


def problem_of(numbers: Quantization) -> str:
    """Why the operators cannot take int8 values of this quantization, in words; empty if they can.

    The range is not asked: it narrows what a quantize returns, never what the values mean.
    """
    if numbers.dtype != torch.int8:
        return f"is quantized to {numbers.dtype}, expected torch.int8"
    # The operators work with float32(scale): a double that vanishes or overflows there is no scale.
    if not is_scale(numbers.scale) or not is_scale(1.0 / numbers.scale):
        return (
            f"has the scale {numbers.scale}, expected a finite number above 0 in float32, and so its inverse"
        )
    if not -128 <= numbers.zero_point <= 127:
        return f"has the zero point {numbers.zero_point}, expected -128..127"
    return ""


def is_scale(scale: float) -> bool:
    """Whether float32(scale) is finite and above 0."""
    if not math.isfinite(scale) or scale <= 0:
        return False
    return bool(0 < torch.tensor(scale, dtype=torch.float64).float() < math.inf)
