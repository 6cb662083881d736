"""Decides for one `aten.linear` whether a q8ta operator computes it, and with which arguments.

The pattern, before decomposition:

    dequantize_per_tensor(x) -> linear(weight: dequantized constant) [-> relu] [-> quantize_per_tensor]

Nothing here changes a graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from ..ops import MAX_K
from .nodes import arguments, describe, fake_value, target_name

LINEAR = "aten.linear.default"
TRANSPOSE = ("aten.permute.default", "aten.t.default", "aten.transpose.int")
RELU = ("aten.relu.default", "aten.relu_.default")
QUANTIZE = "quantized_decomposed.quantize_per_tensor.default"
DEQUANTIZE = "quantized_decomposed.dequantize_per_tensor.default"
DEQUANTIZE_PER_CHANNEL = "quantized_decomposed.dequantize_per_channel.default"

ConstantOf = Callable[[Node], "torch.Tensor | None"]
"""Gives the tensor behind a node that is a constant of the graph (nothing writes to it), else None."""


class NoMatch(Exception):
    """The linear has to be left alone. The message is the reason, in words."""


@dataclass(frozen=True)
class Weights:
    """Constant int8 weights: `values` int8 [N, K] of `node`, `scales` float32 [N].

    `scales_node` is the node that holds exactly `scales` already, or None where a buffer has to be made.
    """

    node: Node
    values: torch.Tensor
    scales: torch.Tensor
    scales_node: Node | None
    dequantize: Node


@dataclass(frozen=True)
class Match:
    """Everything needed to put an operator in a linear's place.

    `quantizes` are the equal quantize nodes that consume the result; empty means `linear_dequant`, and `note`
    says why. `relu` is the folded relu.
    """

    linear: Node
    dequantize: Node
    x: Node
    input_scale: float
    input_zero_point: int
    weights: Weights
    bias: Node | None
    relu: Node | None
    quantizes: tuple[Node, ...]
    output_scale: float
    output_zero_point: int
    note: str

    @property
    def op(self) -> str:
        """Name of the operator: "linear", "linear_gemv" or "linear_dequant"."""
        if not self.quantizes:
            return "linear_dequant"
        return "linear_gemv" if has_one_row(self.linear) else "linear"


def has_one_row(linear: Node) -> bool:
    """Whether the graph is specialized to a single row. A symbolic size is not, whatever its example was."""
    value = fake_value(linear)
    return value is not None and all(type(size) is int and size == 1 for size in value.shape[:-1])


def match_linear(linear: Node, constant_of: ConstantOf) -> Match:
    """Matches one `aten.linear.default` node.

    Raises:
        NoMatch: a precondition does not hold; its message says which.
    """
    call = arguments(linear)
    dequantize, x, input_scale, input_zero_point = _match_input(call["input"])
    weights = _match_weights(call["weight"], constant_of)
    bias = _match_bias(call["bias"], weights.values.shape[0], constant_of)

    relu = _only_user(linear)
    if relu is None or target_name(relu) not in RELU:
        relu = None
    quantizes, note = _match_output(relu or linear)
    output = arguments(quantizes[0]) if quantizes else {"scale": 1.0, "zero_point": 0}
    return Match(
        linear, dequantize, x, input_scale, input_zero_point, weights, bias, relu,
        quantizes, output["scale"], output["zero_point"], note,
    )  # fmt: skip


def decomposed_linear(node: Node) -> bool:
    """Whether a node is what `run_decompositions()` makes of a linear with dequantized weights."""
    if target_name(node) not in ("aten.addmm.default", "aten.mm.default"):
        return False
    weight = arguments(node)["mat2"]
    if not isinstance(weight, Node) or target_name(weight) not in TRANSPOSE:
        return False
    source = weight.args[0]
    return isinstance(source, Node) and target_name(source) in (DEQUANTIZE, DEQUANTIZE_PER_CHANNEL)


def _only_user(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _match_input(dequantize: Any) -> tuple[Node, Node, float, int]:
    if not isinstance(dequantize, Node) or target_name(dequantize) != DEQUANTIZE:
        source = describe(dequantize)
        raise NoMatch(f"its input comes from {source}, not from dequantize_per_tensor with literal numbers")
    call = arguments(dequantize)
    _check_activation("input", call)
    if call.get("out_dtype") not in (None, torch.float32):
        raise NoMatch(f"its input is dequantized to {call['out_dtype']}, expected torch.float32")
    return dequantize, call["input"], float(call["scale"]), int(call["zero_point"])


def _check_activation(what: str, call: dict[str, Any]) -> None:
    """Checks scale, zero point, range and type of a (de)quantize_per_tensor call."""
    problem = _activation_problem(call)
    if problem:
        raise NoMatch(f"its {what} {problem}")


def _activation_problem(call: dict[str, Any]) -> str:
    if call["dtype"] != torch.int8:
        return f"is quantized to {call['dtype']}, expected torch.int8"
    if (call["quant_min"], call["quant_max"]) != (-128, 127):
        return f"is quantized to {call['quant_min']}..{call['quant_max']}, expected -128..127"
    scale, zero_point = call["scale"], call["zero_point"]
    if not isinstance(scale, (int, float)) or not isinstance(zero_point, int):
        return "has a scale or zero point that is computed in the graph"
    # The operators work with float32(scale): a double that vanishes or overflows there is no scale.
    if not _is_scale(scale) or not _is_scale(1.0 / scale):
        return f"has the scale {scale}, expected a finite number above 0 in float32, and so its inverse"
    if not -128 <= zero_point <= 127:
        return f"has the zero point {zero_point}, expected -128..127"
    return ""


def _is_scale(scale: float) -> bool:
    if not math.isfinite(scale) or scale <= 0:
        return False
    return bool(0 < torch.tensor(scale, dtype=torch.float64).float() < math.inf)


def _match_weights(dequantize: Any, constant_of: ConstantOf) -> Weights:
    name = target_name(dequantize) if isinstance(dequantize, Node) else ""
    if name not in (DEQUANTIZE, DEQUANTIZE_PER_CHANNEL):
        raise NoMatch(f"its weight comes from {describe(dequantize)}, not from a dequantize of int8 values")
    call = arguments(dequantize)
    if call.get("out_dtype") not in (None, torch.float32):
        raise NoMatch(f"its weight is dequantized to {call['out_dtype']}, expected torch.float32")
    node = call["input"]
    values = constant_of(node)
    if values is None:
        raise NoMatch(f"its weight is not constant: the int8 values come from {describe(node)}")
    # The declared range is not needed: whatever int8 values are stored, the operator takes them.
    if values.dtype != torch.int8 or call["dtype"] != torch.int8:
        raise NoMatch(f"its weight is {values.dtype}, expected torch.int8")
    if values.dim() != 2 or values.shape[0] < 1 or values.shape[1] < 1:
        raise NoMatch(f"its weight has the shape {list(values.shape)}, expected [N, K] with N and K above 0")
    if values.shape[1] > MAX_K:
        raise NoMatch(f"it has {values.shape[1]} input features, the bound of exact int32 sums is {MAX_K}")
    if name == DEQUANTIZE:
        scales, scales_node = _per_tensor_scales(call, values.shape[0]), None
    else:
        scales, scales_node = _per_channel_scales(call, values.shape[0], constant_of)
    return Weights(node, values, scales, scales_node, dequantize)


def _per_tensor_scales(call: dict[str, Any], out_features: int) -> torch.Tensor:
    scale, zero_point = call["scale"], call["zero_point"]
    if not isinstance(scale, (int, float)) or not isinstance(zero_point, int):
        raise NoMatch("its weight has a scale or zero point that is computed in the graph")
    if zero_point != 0:
        raise NoMatch(f"its weight has the zero point {zero_point}, expected 0")
    if not _is_scale(scale):
        raise NoMatch(f"its weight has the scale {scale}, expected a finite number above 0 in float32")
    return torch.full((out_features,), scale, dtype=torch.float32)


def _per_channel_scales(
    call: dict[str, Any], out_features: int, constant_of: ConstantOf
) -> tuple[torch.Tensor, Node | None]:
    # Axis -2 of a matrix is axis 0.
    if call["axis"] not in (0, -2):
        raise NoMatch(f"its weight is quantized along axis {call['axis']}, expected axis 0 (output features)")
    scales = constant_of(call["scales"])
    if scales is None:
        raise NoMatch(f"its weight scales are not constant: they come from {describe(call['scales'])}")
    if scales.shape != (out_features,):
        raise NoMatch(f"its weight scales have the shape {list(scales.shape)}, expected [{out_features}]")
    if call["zero_points"] is not None:
        zero_points = constant_of(call["zero_points"])
        if zero_points is None:
            source = describe(call["zero_points"])
            raise NoMatch(f"its weight zero points are not constant: they come from {source}")
        if bool((zero_points != 0).any()):
            raise NoMatch("its weight zero points are not all 0")
    as_float32 = scales.detach().to(torch.float32).contiguous()
    if not bool((torch.isfinite(as_float32) & (as_float32 > 0)).all()):
        raise NoMatch("its weight scales are not all finite and above 0 in float32")
    reusable = scales.dtype == torch.float32 and scales.is_contiguous()
    return as_float32, call["scales"] if reusable else None


def _match_bias(bias: Any, out_features: int, constant_of: ConstantOf) -> Node | None:
    if bias is None:
        return None
    value = constant_of(bias)
    if value is None:
        value = fake_value(bias)
    if value is None:
        raise NoMatch(f"the type and shape of its bias are not known (it comes from {describe(bias)})")
    if value.dtype != torch.float32:
        raise NoMatch(f"its bias is {value.dtype}, expected torch.float32")
    if value.dim() != 1 or value.shape[0] != out_features:
        raise NoMatch(f"its bias has the shape {list(value.shape)}, expected [{out_features}]")
    return bias


def _match_output(result: Node) -> tuple[tuple[Node, ...], str]:
    """The quantize nodes that can be part of the operator, or none and the reason why not."""
    users = list(result.users)
    others = [user for user in users if target_name(user) != QUANTIZE]
    if others:
        if len(others) == len(users):
            return (), "its result is not quantized"
        return (), f"its result is also used as float by {describe(others[0])}"
    if not users:
        return (), "nothing uses its result"
    calls = [{key: value for key, value in arguments(user).items() if key != "input"} for user in users]
    if any(call != calls[0] for call in calls):
        return (), "its result is quantized in different ways"
    problem = _activation_problem(calls[0])
    return ((), f"its result {problem}") if problem else (tuple(users), "")
