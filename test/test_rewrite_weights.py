"""The preconditions of q8ta_ops.rewrite on weights, and what becomes of their constants."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("torchao")

from models import HandMade, OneLinear, exact, int8_tensor, q8ta_targets, quantized  # noqa: E402
from rewriting import both_kinds, check_left_alone, check_replaced, state_of  # noqa: E402

import q8ta_ops  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")

WEIGHTS = int8_tensor(6, 8)
X = int8_tensor(3, 8, seed=1)


@pytest.mark.parametrize(
    ("weights", "weight", "reason"),
    [
        (WEIGHTS, {"zero_points": torch.tensor([0, 0, 0, 1, 0, 0])}, "weight zero points are not all 0"),
        (WEIGHTS, {"scale": 0.02, "zero_point": 5}, "weight has the zero point 5, expected 0"),
        (WEIGHTS, {"scale": 0.0}, "weight has the scale 0.0"),
        (WEIGHTS, {"axis": 1}, "weight is quantized along axis 1, expected axis 0"),
        (WEIGHTS, {"scales": torch.tensor([1.0, 1, 1, 0, 1, 1])}, "scales are not all finite and above 0"),
        (WEIGHTS, {"scales": torch.tensor([1.0, 1, -1, 1, 1, 1])}, "scales are not all finite and above 0"),
        (WEIGHTS, {"scales": torch.full((6,), 1e-60, dtype=torch.float64)}, "scales are not all finite"),
        (int8_tensor(2, 65794), {}, "65794 input features, the bound of exact int32 sums is 65793"),
    ],
)
def test_weight(weights: Tensor, weight: dict[str, Any], reason: str) -> None:
    x = int8_tensor(3, weights.shape[1], seed=1)
    check_left_alone(HandMade(weights, weight=weight), (x,), reason)


def test_weight_at_the_bound() -> None:
    check_replaced(HandMade(int8_tensor(2, 65793)), int8_tensor(1, 65793, seed=2), "linear_gemv")


@pytest.mark.parametrize(("low", "high"), [(-128, 127), (-127, 127), (-8, 7)])
def test_weight_range_does_not_matter(low: int, high: int) -> None:
    check_replaced(HandMade(WEIGHTS.clamp(low, high), weight={"min": low, "max": high}), X, "linear")


@pytest.mark.parametrize("axis", [0, -2])
def test_weight_axis(axis: int) -> None:
    check_replaced(HandMade(WEIGHTS, weight={"axis": axis}), X, "linear")


@pytest.mark.parametrize(
    "scales", [torch.linspace(0.01, 0.02, 6).double(), torch.linspace(0.01, 0.03, 11)[::2]]
)
def test_weight_scales_of_another_form_become_float32(scales: Tensor) -> None:
    for result in check_replaced(HandMade(WEIGHTS, weight={"scales": scales}), X, "linear"):
        made = state_of(result.module)["q8ta_weight_scales_0"]
        assert torch.equal(made, scales.float()) and made.is_contiguous()
        assert "scales" not in state_of(result.module)


def test_per_tensor_weight_gets_expanded_scales() -> None:
    for result in check_replaced(HandMade(WEIGHTS, weight={"scale": 0.013}), X, "linear"):
        scales = state_of(result.module)["q8ta_weight_scales_0"]
        assert torch.equal(scales, torch.full((6,), 0.013)) and scales.dtype == torch.float32


class WrittenWeight(HandMade):
    """The graph writes to the int8 weights."""

    def forward(self, x: Tensor) -> Tensor:
        result = super().forward(x)
        self.weights.add_(0)
        return result


class WrittenView(HandMade):
    """The graph writes to the int8 weights through a view."""

    def forward(self, x: Tensor) -> Tensor:
        result = super().forward(x)
        self.weights[0].add_(0)
        return result


def test_weight_that_is_not_constant() -> None:
    class FromInput(nn.Module):
        def forward(self, x: Tensor, weights: Tensor) -> Tensor:
            library = torch.ops.quantized_decomposed
            x = library.dequantize_per_tensor(x, 0.1, 0, -128, 127, torch.int8)
            w = library.dequantize_per_tensor(weights, 0.1, 0, -127, 127, torch.int8)
            return nn.functional.linear(x, w)

    check_left_alone(
        FromInput(), (X, WEIGHTS), "not constant: the int8 values come from the graph input weights"
    )


@pytest.mark.parametrize("model", [WrittenWeight, WrittenView])
def test_weight_that_the_graph_writes(model: type[HandMade]) -> None:
    check_left_alone(model(WEIGHTS.clone()), (X,), "its weight is not constant")
    # The same in functional form: the new weights are an output of the graph.
    program = torch.export.export(model(WEIGHTS.clone()), (X,)).run_decompositions({})
    assert "weights" in program.graph_signature.buffers_to_mutate.values()
    result = q8ta_ops.rewrite(program)
    assert result.replaced == [] and "its weight is not constant" in result.skipped[0].reason


def test_constants_that_another_node_still_reads_stay() -> None:
    module = torch.export.export(HandMade(WEIGHTS), (X,)).module()
    (output,) = module.graph.find_nodes(op="output")
    with module.graph.inserting_before(output):
        second = module.graph.get_attr("zero_points")
        shifted = module.graph.call_function(torch.ops.aten.add.Tensor, (output.args[0][0], second))
    output.args = ((shifted,),)
    module.recompile()
    result = q8ta_ops.rewrite(module)
    assert q8ta_targets(result.module) == ["linear"]
    assert "zero_points" in result.module.state_dict()
    assert torch.equal(result.module(X), exact(module, X))


def test_weight_quantized_in_the_graph() -> None:
    x = torch.randn(3, 8)
    converted = quantized(OneLinear(8, 6), x, fold_quantize=False)
    result = q8ta_ops.rewrite(converted)
    assert result.replaced == []
    assert (
        "not constant: the int8 values come from quantized_decomposed.quantize_per"
        in result.skipped[0].reason
    )


class Weights(HandMade):
    """The pattern with another way to make the weights out of the buffers: `dequantized_weights`."""

    def forward(self, x: Tensor) -> Tensor:
        library = torch.ops.quantized_decomposed
        x = library.dequantize_per_tensor(x, 0.05, 3, -128, 127, torch.int8)
        return nn.functional.linear(x, self.dequantized_weights())

    def dequantized_weights(self) -> Tensor:
        raise NotImplementedError


def test_float_weight() -> None:
    class Float(Weights):
        def dequantized_weights(self) -> Tensor:
            return self.weights

    check_left_alone(Float(WEIGHTS.float()), (X,), "weights, not from a dequantize of int8 values")


def test_weight_scale_that_is_computed() -> None:
    class Computed(Weights):
        def dequantized_weights(self) -> Tensor:
            numbers = (self.scales[0] * 2, self.zero_points[0])
            return torch.ops.quantized_decomposed.dequantize_per_tensor.tensor(
                self.weights, *numbers, -127, 127, torch.int8
            )

    reason = "its weight comes from quantized_decomposed.dequantize_per_tensor.tensor, not from a dequantize"
    check_left_alone(Computed(WEIGHTS), (X,), reason)


@pytest.mark.parametrize("written", ["scales", "zero_points"])
def test_weight_numbers_that_are_not_constant(written: str) -> None:
    class Written(HandMade):
        def forward(self, x: Tensor) -> Tensor:
            result = super().forward(x)
            getattr(self, written).mul_(1)
            return result

    reason = f"its weight {written.replace('_', ' ')} are not constant: they come from"
    check_left_alone(Written(WEIGHTS), (X,), reason)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("weights", WEIGHTS.short(), "its weight is torch.int16, expected torch.int8"),
        ("weights", WEIGHTS[0], "its weight has the shape [8], expected [N, K] with N and K above 0"),
        ("weights", WEIGHTS[:, :0], "its weight has the shape [6, 0], expected [N, K] with N and K above 0"),
        ("weights", WEIGHTS[:0], "its weight has the shape [0, 8], expected [N, K] with N and K above 0"),
        ("scales", torch.ones(5), "its weight scales have the shape [5], expected [6]"),
    ],
)
def test_constants_of_another_form(name: str, value: Tensor, reason: str) -> None:
    for module in both_kinds(HandMade(WEIGHTS), X):
        # Most of these would not get through an export: put them into a finished graph.
        if isinstance(module, torch.fx.GraphModule):
            setattr(module, name, value)
        else:
            module.state_dict[name] = value
        result = q8ta_ops.rewrite(module)
        assert result.replaced == [] and [why for _, why in result.skipped] == [reason]


def edited(weight: dict[str, Any], change: Any) -> torch.fx.GraphModule:
    """The graph of a HandMade after `change(graph, node)` of the node that dequantizes its weights."""
    module = torch.export.export(HandMade(WEIGHTS, weight=weight), (X,)).module()
    (linear,) = module.graph.find_nodes(op="call_function", target=torch.ops.aten.linear.default)
    change(module.graph, linear.args[1])
    return module


def test_dequantized_weight_that_the_graph_writes() -> None:
    class Written(HandMade):
        def forward(self, x: Tensor) -> Tensor:
            library = torch.ops.quantized_decomposed
            x = library.dequantize_per_tensor(x, 0.05, 3, -128, 127, torch.int8)
            w = library.dequantize_per_tensor(self.weights, 0.1, 0, -127, 127, torch.int8)
            w[0].add_(1)
            return nn.functional.linear(x, w)

    check_left_alone(Written(WEIGHTS), (X,), "its weight is written to after it was dequantized")


def test_weight_in_half_precision() -> None:
    def change(graph: torch.fx.Graph, dequantize: torch.fx.Node) -> None:
        dequantize.kwargs = {"out_dtype": torch.float16}

    for weight in ({}, {"scale": 0.1}):
        result = q8ta_ops.rewrite(edited(weight, change))
        assert [why for _, why in result.skipped] == [
            "its weight is dequantized to torch.float16, expected torch.float32"
        ]


def test_weight_scale_that_is_a_computed_number() -> None:
    def change(graph: torch.fx.Graph, dequantize: torch.fx.Node) -> None:
        with graph.inserting_before(dequantize):
            scale = graph.call_function(torch.ops.aten.item.default, (graph.get_attr("scales"),))
        dequantize.args = (dequantize.args[0], scale, *dequantize.args[2:])

    result = q8ta_ops.rewrite(edited({"scale": 0.1}, change))
    assert [why for _, why in result.skipped] == [
        "its weight has a scale or zero point that is computed in the graph"
    ]
