"""q8ta_ops.rewrite on relu6, hardtanh and clamp: folded where the int8 results stay the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("torchao")

from models import HandMade, exact, int8_tensor, targets  # noqa: E402
from rewriting import both_kinds, runnable  # noqa: E402

import q8ta_ops  # noqa: E402
from q8ta_ops.rewrite.clamps import Limits, quantized  # noqa: E402
from q8ta_ops.rewrite.forms import Quantization  # noqa: E402
from q8ta_ops.rewrite.graph_module import AttributeStore  # noqa: E402
from q8ta_ops.rewrite.match import match_linear  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")

F = nn.functional
X = int8_tensor(16, 8, seed=1)


class Clamped(HandMade):
    """The pattern with `clamp` in front of the quantize. Its results are about -6..6."""

    def __init__(
        self, clamp: Callable[[Tensor], Tensor], scale: float, zero_point: int, **options: Any
    ) -> None:
        super().__init__(int8_tensor(6, 8), output={"scale": scale, "zero_point": zero_point}, **options)
        self.clamp = clamp

    def forward(self, x: Tensor) -> Tensor:
        library, y_is = torch.ops.quantized_decomposed, self.output
        x = library.dequantize_per_tensor(x, 0.05, 3, -128, 127, torch.int8)
        w = library.dequantize_per_tensor(self.weights, 0.01, 0, -127, 127, torch.int8)
        y = self.clamp(F.linear(x, w, self.bias))
        if self.float_output:
            return y
        return library.quantize_per_tensor(y, y_is["scale"], y_is["zero_point"], -128, 127, torch.int8)


def check(model: nn.Module, operators: list[str], activation: str, note: str = "") -> None:
    """Both kinds: the graph calls these operators, and computes the same."""
    for module in both_kinds(model, X):
        result = q8ta_ops.rewrite(module)
        assert targets(result.module) == operators and result.skipped == []
        (record,) = result.replaced
        assert record.activation == activation and note in record.note and bool(note) == bool(record.note)
        assert torch.equal(runnable(result.module)(X), exact(runnable(module), X))


@pytest.mark.parametrize(
    ("clamp", "scale", "zero_point", "activation"),
    [
        # What observers make of relu6: 0 is -128, 6 is 127 or beyond.
        (F.relu6, 6 / 255, -128, "relu"),
        (lambda y: F.relu6(y, inplace=True), 6 / 255, -128, "relu"),
        (F.relu6, 0.01, -128, "relu"),
        (F.relu6, 0.01, 100, "relu"),
        (lambda y: F.hardtanh(y, 0.0, 6.0), 6 / 255, -128, "relu"),
        (lambda y: F.hardtanh(y, -1.0, 1.0), 2 / 255, 0, "none"),
        (lambda y: F.hardtanh_(y, -1.0, 1.0), 1 / 255, 0, "none"),
        (lambda y: y.clamp(min=0), 0.05, 0, "relu"),
        (lambda y: y.clamp(min=0, max=3), 3 / 255, -128, "relu"),
        (lambda y: y.clamp_(-1, 1), 0.005, 10, "none"),
        (lambda y: y.clamp_min(0), 0.05, -20, "relu"),
        (lambda y: y.clamp_min(-2), 0.01, 0, "none"),
        (lambda y: y.clamp_max(2), 0.01, 0, "none"),
        # Limits that the quantization cuts far before.
        (lambda y: y.clamp(-1e9, 1e9), 0.05, 0, "none"),
        (lambda y: y.clamp(-math.inf, math.inf), 0.05, 0, "none"),
        # Above 0, and still nothing below it can be told apart.
        (lambda y: y.clamp_min(0.2), 0.5, -128, "none"),
        (lambda y: y.relu().clamp_max(2), 2 / 255, -128, "relu"),
        (lambda y: y.clamp_max(2).relu().clamp(0, 4), 2 / 255, -128, "relu"),
    ],
)
def test_folded(clamp: Callable[[Tensor], Tensor], scale: float, zero_point: int, activation: str) -> None:
    check(Clamped(clamp, scale, zero_point), ["q8ta.linear.default"], activation)


@pytest.mark.parametrize(
    ("clamp", "scale", "zero_point"),
    [
        (F.relu6, 0.05, -128),
        (lambda y: F.hardtanh(y, -1.0, 1.0), 0.05, 3),
        (lambda y: y.clamp_min(0.5), 0.01, -128),
        (lambda y: y.clamp_max(-0.5), 0.1, 0),
    ],
)
def test_limits_within_the_range_are_applied_to_int8(
    clamp: Callable[[Tensor], Tensor], scale: float, zero_point: int
) -> None:
    check(Clamped(clamp, scale, zero_point), ["q8ta.linear.default", "aten.clamp.default"], "none")


@pytest.mark.parametrize(
    ("clamp", "kept", "activation"),
    [
        (F.relu6, ["aten.relu6.default"], "none"),
        (lambda y: y.clamp(min=0), [], "relu"),
        (lambda y: y.clamp_min(0), [], "relu"),
        (lambda y: F.hardtanh(y, 0.0, math.inf), [], "relu"),
        (lambda y: y.relu().relu(), [], "relu"),
        (lambda y: y.clamp_min(-1).relu(), [], "relu"),
        (lambda y: y.relu().clamp_max(2), ["aten.clamp_max.default"], "relu"),
        (lambda y: y.clamp_max(2).relu(), ["aten.clamp_max.default", "aten.relu.default"], "none"),
        (lambda y: y.clamp_min(-1), ["aten.clamp_min.default"], "none"),
        # torch lets the upper limit win: everything is -1.
        (lambda y: y.clamp(0, -1), ["aten.clamp.default"], "none"),
    ],
)
def test_float_results(clamp: Callable[[Tensor], Tensor], kept: list[str], activation: str) -> None:
    model = Clamped(clamp, 0.1, 0, float_output=True)
    check(model, ["q8ta.linear_dequant.default", *kept], activation, "its result is not quantized")


def test_limits_that_are_tensors_stay() -> None:
    model = Clamped(lambda y: torch.clamp(y, torch.zeros(6), torch.ones(6)), 1 / 255, -128)
    for module in both_kinds(model, X):
        result = q8ta_ops.rewrite(module)
        assert [(record.op, record.note) for record in result.replaced] == [
            ("linear_dequant", "its result is not quantized")
        ]
        assert torch.equal(runnable(result.module)(X), exact(runnable(module), X))


def test_a_clamp_besides_other_uses_stays() -> None:
    model = Clamped(lambda y: torch.where(y > 1, y, F.relu6(y)), 6 / 255, -128)
    for module in both_kinds(model, X):
        result = q8ta_ops.rewrite(module)
        assert result.replaced[0].op == "linear_dequant"
        assert "aten.relu6.default" in targets(result.module)
        assert torch.equal(runnable(result.module)(X), exact(runnable(module), X))


def test_the_matcher_alone_does_not_fold_what_is_not_exact() -> None:
    module = torch.export.export(Clamped(F.relu6, 0.05, -128), (X,)).module()
    (linear,) = module.graph.find_nodes(op="call_function", target=torch.ops.aten.linear.default)
    output = match_linear(linear, AttributeStore(module), set()).output
    assert output.clamps == () and output.quantizes == () and output.activation == "none"
    assert output.note == "its result is clamped to 0..6, which cuts into the range of its quantization"


def test_activation_is_exact_and_found_where_there_is_one() -> None:
    generator = torch.Generator().manual_seed(0)

    def random(low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=generator).item()

    found = set()
    for trial in range(400):
        numbers = Quantization(10 ** random(-3, 1), int(random(-128, 128)), -128, 127, torch.int8)
        ends = [(limit - numbers.zero_point) * numbers.scale for limit in (-128, 127)]
        low = (-math.inf, 0.0, ends[0], random(-6, 6))[trial % 4]
        high = (math.inf, ends[1], random(-6, 6))[trial % 3]
        low, high = (torch.tensor(limit).item() for limit in (low, high))
        if low > high:
            continue
        activation = Limits(low, high).activation_under(numbers)
        grid = torch.cat([torch.linspace(ends[0] - 1, ends[1] + 1, 2000), torch.tensor([low, high, 0.0])])
        grid = grid[grid.isfinite()]
        want = quantize(grid.clamp(low, high), numbers)
        same = {
            "none": torch.equal(quantize(grid, numbers), want),
            "relu": torch.equal(quantize(grid.relu(), numbers), want),
        }
        if activation is None:
            assert not same["none"]
        else:
            assert same[activation]
        found.add((activation, trial % 4, trial % 3))
    assert len(found) > 12


def quantize(y: Tensor, numbers: Quantization) -> Tensor:
    call = (numbers.scale, numbers.zero_point, numbers.quant_min, numbers.quant_max, numbers.dtype)
    return torch.ops.quantized_decomposed.quantize_per_tensor(y, *call)


@pytest.mark.parametrize("zero_point", [-128, -3, 127])
def test_quantized_is_what_the_graph_computes(zero_point: int) -> None:
    numbers = Quantization(0.1, zero_point, -128, 127, torch.int8)
    values = [step * 0.05 for step in range(-60, 60)] + [1e30, -1e30, math.inf, -math.inf]
    want = quantize(torch.tensor(values), numbers).tolist()
    assert [quantized(value, numbers) for value in values] == want
