"""Models and their quantization, for the tests of the rewrite."""

from __future__ import annotations

from typing import Any

import torch
from exact import exact as exact
from torch import Tensor, nn
from torch.fx import GraphModule
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

import q8ta_ops

DYNAMIC_BATCH = ({0: torch.export.Dim("batch")},)


def quantized(
    model: nn.Module,
    example: Tensor,
    *,
    dynamic: bool = False,
    quantizer: Any = None,
    fold_quantize: bool = True,
) -> GraphModule:
    """What `convert_pt2e` makes of a model with one input, calibrated on the example and on random data."""
    shapes = DYNAMIC_BATCH if dynamic else None
    exported = torch.export.export(model.eval(), (example,), dynamic_shapes=shapes)
    prepared = prepare_pt2e(exported.module(), quantizer or q8ta_ops.Q8taQuantizer(outputs="always"))
    prepared(example)
    prepared(torch.randn(example.shape, generator=torch.Generator().manual_seed(1)))
    return convert_pt2e(prepared, fold_quantize=fold_quantize)


def same(first: Any, second: Any) -> bool:
    """Whether two results, tensors or tuples of them, are equal bit for bit."""
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def targets(module: Any) -> list[str]:
    """Names of the operators that a graph calls, in order."""
    return [str(node.target) for node in module.graph.nodes if node.op == "call_function"]


def q8ta_targets(module: Any) -> list[str]:
    """Names of the q8ta operators in a graph, in order, without namespace and overload."""
    return [name.split(".")[1] for name in targets(module) if name.startswith("q8ta.")]


class OneLinear(nn.Module):
    """linear, optionally relu (in place or not)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, relu: str = "none") -> None:
        super().__init__()
        self.fc = nn.Linear(in_features, out_features, bias=bias)
        self.activation = {"none": nn.Identity(), "relu": nn.ReLU(), "relu_": nn.ReLU(inplace=True)}[relu]

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.fc(x))


class Chain(nn.Module):
    """Three linears in a row, relu between them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(16, 24), nn.Linear(24, 12), nn.Linear(12, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))


class Residual(nn.Module):
    """A linear's activated result is used by the next linear and added to its result."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.fc1(x))
        return self.fc3(self.fc2(y) + y + x)


class SharedInput(nn.Module):
    """Three linears over one input, as in attention."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(16, 8), nn.Linear(16, 8), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.sigmoid(self.q(x)) * self.k(x), self.v(x)


class SharedWeight(nn.Module):
    """One layer, applied twice."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.fc(x)))


class HandMade(nn.Module):
    """The pattern written out in operators, so that a test can change any one number of it.

    `input`, `weight` and `output` override arguments of the (de)quantize calls; a weight with a `scale` is
    quantized per tensor, else per channel. With `float_output` the result is not quantized.
    """

    def __init__(
        self,
        weights: Tensor,
        *,
        input: dict[str, Any] | None = None,
        weight: dict[str, Any] | None = None,
        output: dict[str, Any] | None = None,
        float_output: bool = False,
        bias: Tensor | None = None,
        relu: bool = False,
    ) -> None:
        super().__init__()
        activation = {"scale": 0.05, "zero_point": 3, "min": -128, "max": 127, "dtype": torch.int8}
        self.input = activation | (input or {})
        self.output = activation | {"scale": 0.1, "zero_point": -7} | (output or {})
        per_channel = {"axis": 0, "scale": None, "zero_point": 0}
        self.weight = per_channel | {"min": -127, "max": 127, "out_dtype": None} | (weight or {})
        self.float_output, self.relu = float_output, relu
        self.register_buffer("weights", weights)
        self.register_buffer("bias", bias)
        out_features = weights.shape[self.weight["axis"]]
        scales, zero_points = torch.linspace(0.01, 0.02, out_features), torch.zeros(out_features).long()
        self.register_buffer("scales", self.weight.get("scales", scales))
        self.register_buffer("zero_points", self.weight.get("zero_points", zero_points))

    def forward(self, x: Tensor) -> Tensor:
        library, x_is, w_is, y_is = torch.ops.quantized_decomposed, self.input, self.weight, self.output
        x = library.dequantize_per_tensor(
            x, x_is["scale"], x_is["zero_point"], x_is["min"], x_is["max"], x_is["dtype"]
        )
        if w_is["scale"] is None:
            w = library.dequantize_per_channel(
                self.weights,
                self.scales,
                self.zero_points,
                w_is["axis"],
                w_is["min"],
                w_is["max"],
                torch.int8,
            )
        else:
            w = library.dequantize_per_tensor(
                self.weights, w_is["scale"], w_is["zero_point"], w_is["min"], w_is["max"], torch.int8
            )
        y = nn.functional.linear(x, w, self.bias)
        y = torch.relu(y) if self.relu else y
        if self.float_output:
            return y
        return library.quantize_per_tensor(
            y, y_is["scale"], y_is["zero_point"], y_is["min"], y_is["max"], y_is["dtype"]
        )


def int8_tensor(*sizes: int, seed: int = 0) -> Tensor:
    """Random int8 data over the whole range."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-128, 128, sizes, generator=generator).to(torch.int8)
