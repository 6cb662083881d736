"""An exact evaluation of quantized graphs: what a rewrite of the graph has to equal bit for bit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from reference import linear_dequant_ref
from torch import Tensor
from torch._ops import OpOverload, OpOverloadPacket
from torch.fx import GraphModule, Interpreter, Node

# Operators that only move values.
_MOVES = (
    "view",
    "_unsafe_view",
    "reshape",
    "flatten",
    "permute",
    "t",
    "transpose",
    "unsqueeze",
    "squeeze",
    "expand",
    "clone",
    "contiguous",
    "slice",
    "select",
    "dropout",
)
_LINEARS = ("linear", "mm", "addmm", "bmm")


@dataclass(frozen=True)
class Integers:
    """int8 values (uint8 ones less 128), and the numbers that they are dequantized with."""

    values: Tensor
    scale: float | Tensor
    zero_point: int


class ExactInterpreter(Interpreter):
    """Runs a quantized graph with every linear between int8 values computed as design.md defines it.

    The graph itself sums in float32 and so may round one quantum the other way. Here the sums are exact
    integers, everything else runs as the graph says. Next to the float tensor of a dequantize its integers
    are kept, through operators that only move values, until a linear (whole or decomposed) asks for them.
    """

    def __init__(self, module: GraphModule) -> None:
        super().__init__(module)
        self.integers: dict[Node, Integers] = {}

    def run_node(self, n: Node) -> Any:
        operator = n.target.default if isinstance(n.target, OpOverloadPacket) else n.target
        if n.op != "call_function" or not isinstance(operator, OpOverload):
            return super().run_node(n)
        name = str(operator).split(".")[1]
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if name in _LINEARS:
            x, weights = n.args[1:3] if name == "addmm" else n.args[:2]
            if x in self.integers and weights in self.integers:
                call = _bound(operator, args, kwargs)
                return _linear(name, self.integers[x], self.integers[weights], call)
        if name.startswith("dequantize"):
            self.integers[n] = _integers(_bound(operator, args, kwargs))
        elif name in _MOVES and n.args[0] in self.integers:
            source = self.integers[n.args[0]]
            self.integers[n] = replace(source, values=operator(source.values, *args[1:], **kwargs))
        return super().run_node(n)


def _linear(name: str, x: Integers, weights: Integers, call: dict[str, Any]) -> Tensor:
    values, bias = weights.values, None
    if name == "linear":
        bias = call["bias"]
    else:
        # Transposed, and for bmm the same matrix for every row of matrices.
        values = (values[0] if name == "bmm" else values).t().contiguous()
        bias = call["self"] if name == "addmm" else None
    scales = weights.scale
    scales = torch.full(values.shape[:1], scales) if isinstance(scales, float) else scales.reshape(-1).float()
    sums = values.sum(dim=1, dtype=torch.int32)
    bias = None if bias is None else bias.detach()
    return linear_dequant_ref(x.values, x.scale, x.zero_point, values, sums, scales, bias)


def _integers(call: dict[str, Any]) -> Integers:
    """What a dequantize reads: per tensor with numbers or tensors of one element, or weights per channel."""
    values, scale, zero_point = (
        call["input"],
        call.get("scale", call.get("scales")),
        call.get("zero_point", 0),
    )
    if isinstance(scale, Tensor) and scale.numel() > 1:
        return Integers(values, scale, 0)
    offset = 128 if values.dtype == torch.uint8 else 0
    values = (values.to(torch.int16) - offset).to(torch.int8)
    return Integers(values, float(scale), int(zero_point or 0) - offset)


def _bound(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    arguments = operator._schema.arguments
    defaults = {a.name: a.default_value for a in arguments if a.has_default_value()}
    return defaults | dict(zip((a.name for a in arguments), args, strict=False)) | dict(kwargs)


def exact(module: GraphModule, *inputs: Tensor) -> Any:
    """The module's result by `ExactInterpreter`."""
    return ExactInterpreter(module).run(*inputs)
