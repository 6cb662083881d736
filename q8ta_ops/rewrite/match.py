"""Decides for one `aten.linear` whether a q8ta operator computes it, and with which arguments.

The pattern, after everything else in this package has brought a graph into this form:

    dequantize_per_tensor(x) -> linear(weight: dequantized constant) [-> clamps] [-> quantize_per_tensor]

Nothing here changes a graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from .clamps import Limits, limits_of
from .forms import Quantization, dequantize_form, problem_of, quantize_form, result_dtype
from .nodes import arguments, describe, fake_value
from .result import NoMatch
from .store import Store
from .uint8 import why_uint8_stays
from .weights import Weights, match_weights


@dataclass(frozen=True)
class Output:
    """What of the nodes behind a linear becomes part of the operator.

    `clamps` are computed by `activation`. `quantizes` are the equal quantize nodes that then consume the
    result; none means `linear_dequant`, and `note` says why.
    """

    clamps: tuple[Node, ...]
    activation: str
    quantizes: tuple[Node, ...]
    note: str


@dataclass(frozen=True)
class Match:
    """Everything needed to put an operator in a linear's place."""

    linear: Node
    dequantize: Node
    x: Node
    input: Quantization
    weights: Weights
    bias: Node | None
    output: Output

    @property
    def op(self) -> str:
        """Name of the operator: "linear", "linear_gemv" or "linear_dequant"."""
        if not self.output.quantizes:
            return "linear_dequant"
        return "linear_gemv" if has_one_row(self.linear) else "linear"


def has_one_row(linear: Node) -> bool:
    """Whether the graph is specialized to a single row. A symbolic size is not, whatever its example was."""
    value = fake_value(linear)
    return value is not None and all(type(size) is int and size == 1 for size in value.shape[:-1])


def match_linear(linear: Node, store: Store, written: set[Node]) -> Match:
    """Matches one `aten.linear.default` node.

    Args:
        written: the nodes whose memory something in the graph writes to.

    Raises:
        NoMatch: a precondition does not hold; its message says which.
    """
    call = arguments(linear)
    x, numbers = _match_input(call["input"])
    if call["input"] in written or x in written:
        raise NoMatch("its input is written to after it was quantized")
    weights = match_weights(call["weight"], store)
    if call["weight"] in written:
        raise NoMatch("its weight is written to after it was dequantized")
    bias = _match_bias(call["bias"], weights.values.shape[0], store)
    return Match(linear, call["input"], x, numbers, weights, bias, _match_output(linear))


def _match_input(dequantize: Any) -> tuple[Node, Quantization]:
    form = dequantize_form(dequantize) if isinstance(dequantize, Node) else None
    if form is None:
        source = describe(dequantize)
        dtype = result_dtype(arguments(dequantize)) if ".dequantize_" in source else torch.float32
        if dtype != torch.float32:
            raise NoMatch(f"its input is dequantized to {dtype}, expected torch.float32")
        raise NoMatch(f"its input comes from {source}, not from a dequantize with constant numbers")
    problem = _problem(dequantize, form[1])
    if problem:
        raise NoMatch(f"its input {problem}")
    return form


def _problem(node: Node, numbers: Quantization) -> str:
    """`problem_of`, and for uint8 why it has not become int8."""
    problem = problem_of(numbers)
    return f"{problem}: {why_uint8_stays(node)}" if numbers.dtype == torch.uint8 else problem


def _match_bias(bias: Any, out_features: int, store: Store) -> Node | None:
    if bias is None:
        return None
    value = store.constant(bias)
    if value is None:
        value = fake_value(bias)
    if value is None:
        raise NoMatch(f"the type and shape of its bias are not known (it comes from {describe(bias)})")
    if value.dtype != torch.float32:
        raise NoMatch(f"its bias is {value.dtype}, expected torch.float32")
    if value.dim() != 1 or value.shape[0] != out_features:
        raise NoMatch(f"its bias has the shape {list(value.shape)}, expected [{out_features}]")
    return bias


def _match_output(linear: Node) -> Output:
    clamps, limits, result = [], [Limits()], linear
    while (limit := _only_clamp(result)) is not None:
        (result,) = result.users
        clamps.append(result)
        limits.append(limits[-1].then(limit))
    quantizes, note = _match_quantizes(result)
    if quantizes:
        activation = limits[-1].activation_under(quantize_form(quantizes[0])[1])
        if activation is not None:
            return Output(tuple(clamps), activation, quantizes, "")
        low, high = limits[-1].low, limits[-1].high
        note = f"its result is clamped to {low:g}..{high:g}, which cuts into the range of its quantization"
    # Without a quantize behind it, only a relu can be part of the operator.
    count = max((n for n, limit in enumerate(limits) if limit.is_relu), default=0)
    return Output(tuple(clamps[:count]), "relu" if count else "none", (), note)


def _only_clamp(node: Node) -> Limits | None:
    """The limits of a node's only user, if that is a clamp."""
    return limits_of(next(iter(node.users))) if len(node.users) == 1 else None


def _match_quantizes(result: Node) -> tuple[tuple[Node, ...], str]:
    """The quantize nodes that can be part of the operator, or none and the reason why not."""
    users = list(result.users)
    forms = [quantize_form(user) for user in users]
    others = [user for user, form in zip(users, forms, strict=True) if form is None]
    if others:
        if len(others) == len(users):
            return (), "its result is not quantized"
        return (), f"its result is also used as float by {describe(others[0])}"
    if not users:
        return (), "nothing uses its result"
    numbers = forms[0][1]
    if any(other != numbers for _, other in forms):
        return (), "its result is quantized in different ways"
    problem = _problem(users[0], numbers)
    if not problem and (numbers.quant_min, numbers.quant_max) != (-128, 127):
        problem = f"is quantized to {numbers.quant_min}..{numbers.quant_max}, expected -128..127"
    return ((), f"its result {problem}") if problem else (tuple(users), "")
