"""Every precondition of q8ta_ops.rewrite: a linear that breaks one is left alone, with a reason in words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("torchao")

from models import HandMade, OneLinear, exact, int8_tensor, q8ta_targets, quantized, targets  # noqa: E402

import q8ta_ops  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")

WEIGHTS = int8_tensor(6, 8)
X = int8_tensor(3, 8, seed=1)


def both_kinds(model: nn.Module, *inputs: Tensor) -> list[Any]:
    """The model's graph as a GraphModule and as an ExportedProgram."""
    program = torch.export.export(model, inputs)
    return [program.module(), program]


def runnable(module: Any) -> torch.fx.GraphModule:
    """Something to call, of either kind."""
    return module if isinstance(module, torch.fx.GraphModule) else module.module()


def state_of(module: Any) -> dict[str, Tensor]:
    """Parameters and buffers, of either kind."""
    return module.state_dict() if isinstance(module, torch.fx.GraphModule) else module.state_dict


def check_left_alone(model: nn.Module, inputs: tuple[Tensor, ...], reason: str) -> None:
    """Both kinds: nothing replaced, one record whose reason contains `reason`, results as before."""
    for module in both_kinds(model, *inputs):
        result = q8ta_ops.rewrite(module)
        assert result.replaced == [] and q8ta_targets(result.module) == []
        ((node, why),) = result.skipped
        assert reason in why, why
        assert str(node.target) == "aten.linear.default" and node in result.module.graph.nodes
        assert targets(result.module) == targets(module)
        before, after = (runnable(m) for m in (module, result.module))
        assert torch.equal(before(*inputs), after(*inputs))


def check_replaced(model: nn.Module, x: Tensor, op: str) -> list[Any]:
    """Both kinds: replaced by `op`, nothing left alone, exact results. Returns the two rewrite results."""
    results = []
    for module in both_kinds(model, x):
        result = q8ta_ops.rewrite(module)
        assert q8ta_targets(result.module) == [op] and result.skipped == []
        before, after = (runnable(m) for m in (module, result.module))
        assert torch.equal(exact(before, x), after(x))
        results.append(result)
    return results


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("bias", [None, torch.linspace(-1, 1, 6)])
def test_the_pattern_itself(bias: Tensor | None, relu: bool) -> None:
    for result in check_replaced(HandMade(WEIGHTS, bias=bias, relu=relu), X, "linear"):
        assert targets(result.module) == ["q8ta.linear.default"]
    for result in check_replaced(
        HandMade(WEIGHTS, bias=bias, relu=relu, float_output=True), X, "linear_dequant"
    ):
        assert targets(result.module) == ["q8ta.linear_dequant.default"]


@pytest.mark.parametrize(
    ("input", "x", "reason"),
    [
        (
            {"min": 0, "max": 255, "dtype": torch.uint8},
            X.to(torch.uint8),
            "input is quantized to torch.uint8",
        ),
        ({"min": -32768, "max": 32767, "dtype": torch.int16}, X.short(), "input is quantized to torch.int16"),
        ({"min": -127}, X, "input is quantized to -127..127, expected -128..127"),
        ({"max": 63}, X, "input is quantized to -128..63, expected -128..127"),
        ({"zero_point": 128}, X, "input has the zero point 128"),
        ({"zero_point": -129}, X, "input has the zero point -129"),
        ({"scale": 0.0}, X, "input has the scale 0.0"),
        ({"scale": -0.5}, X, "input has the scale -0.5"),
        ({"scale": 1e-60}, X, "input has the scale 1e-60"),
        ({"scale": 1e39}, X, "input has the scale 1e+39"),
    ],
)
def test_input(input: dict[str, Any], x: Tensor, reason: str) -> None:
    check_left_alone(HandMade(WEIGHTS, input=input), (x,), reason)


@pytest.mark.parametrize("zero_point", [-128, 127])
def test_zero_points_at_the_ends(zero_point: int) -> None:
    ends = {"zero_point": zero_point}
    check_replaced(HandMade(WEIGHTS, input=ends, output=ends), X, "linear")


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


@pytest.mark.parametrize(
    ("bias", "reason"),
    [
        (torch.zeros(1), "its bias has the shape [1], expected [6]"),
        (torch.zeros(6, dtype=torch.float64), "its bias is torch.float64, expected torch.float32"),
    ],
)
def test_bias(bias: Tensor, reason: str) -> None:
    for module in both_kinds(HandMade(WEIGHTS, bias=torch.zeros(6)), X):
        # torch refuses such a bias in most calls: put it into a finished graph.
        if isinstance(module, torch.fx.GraphModule):
            module.bias = bias
        else:
            module.state_dict["bias"] = bias
        result = q8ta_ops.rewrite(module)
        assert result.replaced == [] and [why for _, why in result.skipped] == [reason]


@pytest.mark.parametrize(
    ("output", "note"),
    [
        ({"min": 0, "max": 255, "dtype": torch.uint8}, "its result is quantized to torch.uint8"),
        ({"min": -127}, "its result is quantized to -127..127, expected -128..127"),
        ({"max": 100}, "its result is quantized to -128..100, expected -128..127"),
        ({"scale": 1e-60}, "its result has the scale 1e-60"),
        ({"scale": 1e-39}, "its result has the scale 1e-39"),
        ({"min": -128, "zero_point": 200}, "its result has the zero point 200"),
    ],
)
def test_output_that_the_operator_cannot_quantize_stays(output: dict[str, Any], note: str) -> None:
    for result in check_replaced(HandMade(WEIGHTS, output=output, relu=True), X, "linear_dequant"):
        assert note in result.replaced[0].note
        assert targets(result.module)[-1] == "quantized_decomposed.quantize_per_tensor.default"


class TwoQuantizes(HandMade):
    """The result is quantized twice, with `second` as the second scale."""

    second = 0.1

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.float_output = True
        y = super().forward(x)
        library = torch.ops.quantized_decomposed
        return tuple(library.quantize_per_tensor(y, s, -7, -128, 127, torch.int8) for s in (0.1, self.second))


@pytest.mark.parametrize("relu", [False, True])
def test_several_equal_quantizes_are_one_operator(relu: bool) -> None:
    for module in both_kinds(TwoQuantizes(WEIGHTS, relu=relu), X):
        result = q8ta_ops.rewrite(module)
        assert targets(result.module) == ["q8ta.linear.default"]
        before, after = (runnable(m) for m in (module, result.module))
        expected = exact(before, X)
        assert all(torch.equal(a, b) for a, b in zip(after(X), expected, strict=True))


def test_different_quantizes_stay() -> None:
    model = TwoQuantizes(WEIGHTS)
    model.second = 0.2
    for module in both_kinds(model, X):
        result = q8ta_ops.rewrite(module)
        quantize = "quantized_decomposed.quantize_per_tensor.default"
        assert targets(result.module) == ["q8ta.linear_dequant.default", quantize, quantize]
        assert result.replaced[0].note == "its result is quantized in different ways"


def test_a_float_linear_is_reported() -> None:
    # nn.Linear's argument is called like the builtin `input`, which graph copies rename.
    check_left_alone(nn.Linear(8, 6), (torch.randn(3, 8),), "its input comes from the graph input input")
    program = torch.export.export(nn.Linear(8, 6), (), {"input": torch.randn(3, 8)})
    x = torch.randn(3, 8)
    assert torch.equal(q8ta_ops.rewrite(program).module.module()(input=x), program.module()(input=x))


def test_a_linear_after_a_float_operator_is_reported() -> None:
    model = nn.Sequential(nn.Sigmoid(), nn.Linear(8, 6))
    check_left_alone(model, (torch.randn(3, 8),), "its input comes from aten.sigmoid.default")


def test_dynamic_quantization_is_reported() -> None:
    class Dynamic(HandMade):
        def forward(self, x: Tensor) -> Tensor:
            library = torch.ops.quantized_decomposed
            scale, zero_point = library.choose_qparams(x, -128, 127, 1e-6, torch.int8)
            q = library.quantize_per_tensor.tensor(x, scale, zero_point, -128, 127, torch.int8)
            x = library.dequantize_per_tensor.tensor(q, scale, zero_point, -128, 127, torch.int8)
            w = library.dequantize_per_tensor(self.weights, 0.1, 0, -127, 127, torch.int8)
            return nn.functional.linear(x, w)

    check_left_alone(Dynamic(WEIGHTS), (torch.randn(3, 8),), "dequantize_per_tensor.tensor, not from")


def test_half_precision_is_reported() -> None:
    class Half(HandMade):
        def forward(self, x: Tensor) -> Tensor:
            library = torch.ops.quantized_decomposed
            kind = torch.float16
            x = library.dequantize_per_tensor(x, 0.1, 0, -128, 127, torch.int8, out_dtype=kind)
            w = library.dequantize_per_tensor(self.weights, 0.1, 0, -127, 127, torch.int8, out_dtype=kind)
            return nn.functional.linear(x, w)

    check_left_alone(Half(WEIGHTS), (X,), "input is dequantized to torch.float16, expected torch.float32")


def test_decomposed_linears_are_reported() -> None:
    program = torch.export.export(HandMade(WEIGHTS, bias=torch.zeros(6)), (X,)).run_decompositions()
    result = q8ta_ops.rewrite(program)
    assert result.replaced == []
    assert [why for _, why in result.skipped] == [
        "it is decomposed into aten.addmm.default: rewrite before run_decompositions()"
    ]


def test_nested_graphs_are_reported() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cond(x.sum() > 0, lambda x: self.fc(x), lambda x: x.sin(), (x,))

    program = torch.export.export(Branches(), (torch.randn(3, 8),))
    result = q8ta_ops.rewrite(program)
    assert result.replaced == [] and [why for _, why in result.skipped] == ["it is in a nested graph"]
    result.module.validate()


def test_one_reason_for_each_linear() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.good, self.bad = HandMade(WEIGHTS), HandMade(WEIGHTS, input={"min": -127})

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.good(x), self.bad(x)

    for module in both_kinds(Mixed(), X):
        result = q8ta_ops.rewrite(module)
        assert [record.op for record in result.replaced] == ["linear"]
        assert [why for _, why in result.skipped] == [
            "its input is quantized to -127..127, expected -128..127"
        ]
        assert "linear_1: left alone, its input is quantized to -127..127" in str(result)
