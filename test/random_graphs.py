"""Random models of linears and what lies between them: clamps, additions, views, slices, concatenations."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from choosing import Chooser, generator_of, sometimes
from exact import ExactInterpreter, Integers
from joining import Float64Linears, Linear, dequantize, quantize
from torch import Tensor, nn
from torch.fx import GraphModule, Node

WIDTHS = (1, 3, 4, 5, 7, 8, 12, 16, 17)
SCALES = (0.05, 0.1, 0.0371)
ZERO_POINTS = (0, -128, 127, 3)

OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "relu": torch.relu,
    "relu6": nn.functional.relu6,
    "hardtanh": nn.functional.hardtanh,
    "clamp": lambda x, low, high: torch.clamp(x, low, high),
    "add": torch.add,
    "view": lambda x, *sizes: x.reshape(-1, *sizes),
    "transpose": lambda x: x.transpose(1, 2),
    "slice": lambda x, start, step: x[..., start::step],
    "cat": lambda x, y: torch.cat([x, y], dim=-1),
    "dropout": lambda x: nn.functional.dropout(x, 0.5, training=False),
    "amax": lambda x: torch.amax(x, dim=1),
    "contiguous": lambda x: x.contiguous(),
    "quantized": lambda x, scale, zero_point: dequantize(quantize(x, scale, zero_point), scale, zero_point),
}


@dataclass(frozen=True)
class Step:
    """One operation: its name, the values it takes (0: the input, n: the result of step n), its numbers."""

    name: str
    values: tuple[int, ...]
    numbers: tuple[Any, ...] = ()


class RandomModel(nn.Module):
    """Runs steps; returns the values `outputs`. Steps called "linear" take their layer's number."""

    def __init__(self, steps: list[Step], layers: list[nn.Module], outputs: tuple[int, ...]) -> None:
        super().__init__()
        self.steps, self.layers, self.outputs = steps, nn.ModuleList(layers), outputs

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        values = [x]
        for step in self.steps:
            operation = self.layers[step.numbers[0]] if step.name == "linear" else OPERATIONS[step.name]
            numbers = () if step.name == "linear" else step.numbers
            values.append(operation(*(values[i] for i in step.values), *numbers))
        return tuple(values[i] for i in self.outputs)

    def extra_repr(self) -> str:
        return f"steps={self.steps}, outputs={self.outputs}"


class _Builder:
    """Chooses steps and knows the sizes of every value, the batch's excepted."""

    def __init__(self, chooser: Chooser, quantized: bool) -> None:
        self.chooser, self.quantized = chooser, quantized
        self.sizes = [[chooser.one_of(WIDTHS)]]
        if sometimes(chooser, 3):
            self.sizes[0].insert(0, chooser.integer(1, 4))
        self.steps: list[Step] = []
        self.layers: list[nn.Module] = []

    def step(self, name: str, values: tuple[int, ...], sizes: list[int], *numbers: Any) -> int:
        self.steps.append(Step(name, values, numbers))
        self.sizes.append(sizes)
        return len(self.steps)

    def grid(self, value: int) -> int:
        numbers = self.chooser.one_of(SCALES), self.chooser.one_of(ZERO_POINTS)
        return self.step("quantized", (value,), self.sizes[value], *numbers)

    def linear(self, value: int) -> int:
        chooser = self.chooser
        *leading, features = self.sizes[value]
        fitting = [i for i, layer in enumerate(self.layers) if _features(layer)[0] == features]
        if fitting and sometimes(chooser, 6):  # one layer used twice
            layer = chooser.one_of(fitting)
        else:
            self.layers.append(self._layer(features, chooser.one_of(WIDTHS)))
            layer = len(self.layers) - 1
        if self.quantized and not sometimes(chooser, 5):
            value = self.grid(value)
        result = self.step("linear", (value,), [*leading, _features(self.layers[layer])[1]], layer)
        if self.quantized and sometimes(chooser, 3):
            result = self.step("relu", (result,), self.sizes[result])
        return self.grid(result) if self.quantized and sometimes(chooser, 2) else result

    def _layer(self, features: int, outputs: int) -> nn.Module:
        bias = not sometimes(self.chooser, 4)
        if self.quantized:
            layer: nn.Module = Linear(features, outputs, seed=self.chooser.integer(0, 2**31 - 1))
            if not bias:
                layer.bias = None
            return layer
        layer = nn.Linear(features, outputs, bias=bias)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator_of(self.chooser)))
        return layer

    def other(self) -> int:
        """Any operation but a linear."""
        chooser = self.chooser
        value = chooser.one_of(range(len(self.sizes)))
        sizes = self.sizes[value]
        *leading, width = sizes
        choices = [
            "relu",
            "relu6",
            "hardtanh",
            "clamp",
            "view",
            "dropout",
            "slice",
            "add",
            "cat",
            "contiguous",
        ]
        choices += ["transpose", "amax"] if leading else []
        name = chooser.one_of(choices)
        if name == "clamp":
            low = chooser.one_of((-2.5, -1.0, 0.0))
            return self.step(name, (value,), sizes, low, low + chooser.one_of((1.0, 5.0)))
        if name == "view":
            count = width * (leading[0] if leading else 1)
            parts = chooser.one_of([d for d in range(1, count + 1) if count % d == 0])
            sizes = [count] if parts == 1 else [parts, count // parts]
            return self.step(name, (value,), sizes, *sizes)
        if name == "slice":
            start, step = chooser.integer(0, width - 1), chooser.integer(1, 2)
            return self.step(name, (value,), [*leading, len(range(start, width, step))], start, step)
        if name == "add":
            same = [i for i, each in enumerate(self.sizes) if each == sizes]
            return self.step(name, (value, chooser.one_of(same)), sizes)
        if name == "cat":
            alike = [i for i, each in enumerate(self.sizes) if each[:-1] == leading]
            other = chooser.one_of(alike)
            return self.step(name, (value, other), [*leading, width + self.sizes[other][-1]])
        if name == "transpose":
            return self.step(name, (value,), [width, *leading])
        if name == "amax":
            return self.step(name, (value,), [width])
        return self.step(name, (value,), sizes)


def _features(layer: nn.Module) -> tuple[int, int]:
    weights = layer.weights if isinstance(layer, Linear) else layer.weight
    return weights.shape[1], weights.shape[0]


def random_model(chooser: Chooser, quantized: bool) -> tuple[RandomModel, Tensor]:
    """A model, and an input of a few rows.

    `quantized`: its linears have dequantized int8 weights, and quantize and dequantize stand in the graph as
    `convert_pt2e` puts them, and at other places; else it is a float model.
    """
    builder = _Builder(chooser, quantized)
    value = 0
    for _ in range(chooser.integer(1, 7)):
        if sometimes(chooser, 2):
            value = builder.linear(chooser.one_of((value, chooser.integer(0, len(builder.steps)))))
        else:
            value = builder.other()
    last = builder.linear(value)
    outputs = (last,) if not sometimes(chooser, 3) else (last, chooser.integer(1, len(builder.steps)))
    x = torch.randn(chooser.integer(2, 5), *builder.sizes[0], generator=generator_of(chooser)) * 3
    return RandomModel(builder.steps, builder.layers, outputs).eval(), x


# Operators whose results are values of their operands; what else they do depends on the operator.
_SELECTS = (
    "relu",
    "relu_",
    "relu6",
    "hardtanh",
    "clamp",
    "clamp_min",
    "clamp_max",
    "cat",
    "amax",
    "slice",
    "alias",
)


class Expected(ExactInterpreter, Float64Linears):
    """What a rewritten graph has to give: exact sums in the linears that it replaced, float64 ones elsewhere.

    Beside what ExactInterpreter follows, int8 values are followed through clamps, maxima and concatenations:
    where these leave them on their grid.
    """

    def __init__(self, module: GraphModule, left_alone: Collection[str] = ()) -> None:
        super().__init__(module)
        self._left_alone = left_alone

    def run_node(self, n: Node) -> Any:
        if n.name in self._left_alone:
            return Float64Linears.run_node(self, n)
        result = super().run_node(n)
        if n not in self.integers and n.op == "call_function" and isinstance(result, Tensor):
            self._follow(n, result)
        return result

    def _follow(self, n: Node, result: Tensor) -> None:
        name = str(n.target).split(".")[1] if "." in str(n.target) else ""
        sources = [self.integers.get(each) for each in n.all_input_nodes]
        if name not in _SELECTS or None in sources:
            return
        grid = sources[0].scale, sources[0].zero_point
        if any((each.scale, each.zero_point) != grid for each in sources):
            return
        values = torch.round(result.double() / grid[0] + grid[1]).clamp(-128, 127).to(torch.int8)
        if torch.equal((values.float() - grid[1]) * grid[0], result):
            self.integers[n] = Integers(values, *grid)
