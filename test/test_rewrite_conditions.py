"""Every precondition of q8ta_ops.rewrite: a linear that breaks one is left alone, with a reason in words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("torchao")

from models import HandMade, exact, int8_tensor, targets  # noqa: E402
from rewriting import both_kinds, check_left_alone, check_replaced, runnable  # noqa: E402

import q8ta_ops  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")

WEIGHTS = int8_tensor(6, 8)
X = int8_tensor(3, 8, seed=1)


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
            "input is quantized to torch.uint8, expected torch.int8: the uint8 values come from",
        ),
        ({"min": -32768, "max": 32767, "dtype": torch.int16}, X.short(), "input is quantized to torch.int16"),
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


@pytest.mark.parametrize("input", [{"min": -127}, {"max": 63}])
def test_the_input_can_have_a_narrower_range(input: dict[str, int]) -> None:
    # The range belongs to whoever made the values. A dequantize gives them the same meaning in any range.
    check_replaced(HandMade(WEIGHTS, input=input), X, "linear")


@pytest.mark.parametrize("zero_point", [-128, 127])
def test_zero_points_at_the_ends(zero_point: int) -> None:
    ends = {"zero_point": zero_point}
    check_replaced(HandMade(WEIGHTS, input=ends, output=ends), X, "linear")


class WrittenInput(HandMade):
    """The graph writes to the input's int8 values, or to their float form, through a view."""

    writes_to_integers = False

    def forward(self, x: Tensor) -> Tensor:
        library = torch.ops.quantized_decomposed
        integers = x + x
        x = library.dequantize_per_tensor(integers, 0.05, 3, -128, 127, torch.int8)
        (integers if self.writes_to_integers else x)[0].add_(1)
        w = library.dequantize_per_tensor(self.weights, 0.1, 0, -127, 127, torch.int8)
        return nn.functional.linear(x, w)


@pytest.mark.parametrize("writes_to_integers", [False, True])
def test_input_that_the_graph_writes(writes_to_integers: bool) -> None:
    model = WrittenInput(WEIGHTS)
    model.writes_to_integers = writes_to_integers
    check_left_alone(model, (X,), "its input is written to after it was quantized")


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


def test_bias_of_unknown_form() -> None:
    module = torch.export.export(HandMade(WEIGHTS, bias=torch.zeros(6)), (X,)).module()
    (linear,) = module.graph.find_nodes(op="call_function", target=torch.ops.aten.linear.default)
    with module.graph.inserting_before(linear):
        computed = module.graph.call_function(torch.ops.aten.neg.default, (linear.args[2],))
    linear.args = (*linear.args[:2], computed)
    result = q8ta_ops.rewrite(module)
    assert result.replaced == [] and [why for _, why in result.skipped] == [
        "the type and shape of its bias are not known (it comes from aten.neg.default)"
    ]


def test_computed_bias() -> None:
    class Computed(HandMade):
        def forward(self, x: Tensor) -> Tensor:
            library = torch.ops.quantized_decomposed
            x = library.dequantize_per_tensor(x, 0.05, 3, -128, 127, torch.int8)
            w = library.dequantize_per_tensor(self.weights, 0.02, 0, -127, 127, torch.int8)
            return nn.functional.linear(x, w, self.bias * 2)

    check_replaced(Computed(WEIGHTS, bias=torch.linspace(-1, 1, 6)), X, "linear_dequant")


def test_result_that_nothing_uses() -> None:
    module = torch.export.export(HandMade(WEIGHTS, float_output=True), (X,)).module()
    (linear,) = module.graph.find_nodes(op="call_function", target=torch.ops.aten.linear.default)
    linear.replace_all_uses_with(linear.args[0])
    result = q8ta_ops.rewrite(module)
    assert [(record.op, record.note) for record in result.replaced] == [
        ("linear_dequant", "nothing uses its result")
    ]


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
            self.good, self.bad = HandMade(WEIGHTS), HandMade(WEIGHTS, input={"zero_point": 200})

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.good(x), self.bad(x)

    for module in both_kinds(Mixed(), X):
        result = q8ta_ops.rewrite(module)
        assert [record.op for record in result.replaced] == ["linear"]
        assert [why for _, why in result.skipped] == ["its input has the zero point 200, expected -128..127"]
        assert "linear_1: left alone, its input has the zero point 200" in str(result)
