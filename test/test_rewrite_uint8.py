"""q8ta_ops.rewrite on uint8 activations: shifted to int8 where all that reads them is in the graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("torchao")

from models import exact, int8_tensor, q8ta_targets, same, targets  # noqa: E402
from rewriting import both_kinds, runnable  # noqa: E402

import q8ta_ops  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")

LIBRARY = torch.ops.quantized_decomposed
QUANTIZE = "quantized_decomposed.quantize_per_tensor.default"
DEQUANTIZE = "quantized_decomposed.dequantize_per_tensor.default"
X = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))
INPUT, OUTPUT = (0.03, 120), (0.05, 131)


def quantize(x: Tensor, scale: float, zero_point: int, low: int = 0, high: int = 255) -> Tensor:
    return LIBRARY.quantize_per_tensor(x, scale, zero_point, low, high, torch.uint8)


def dequantize(x: Tensor, scale: float, zero_point: int, low: int = 0, high: int = 255) -> Tensor:
    return LIBRARY.dequantize_per_tensor(x, scale, zero_point, low, high, torch.uint8)


class Linear(nn.Module):
    """A linear with dequantized int8 weights."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.register_buffer("weights", int8_tensor(8, 8, seed=seed))
        self.register_buffer("bias", torch.linspace(-1, 1, 8))

    def forward(self, x: Tensor) -> Tensor:
        w = LIBRARY.dequantize_per_tensor(self.weights, 0.01, 0, -127, 127, torch.int8)
        return nn.functional.linear(x, w, self.bias)


class Model(nn.Module):
    """`function(x, fc1, fc2)` of a float input."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function, self.fc1, self.fc2 = function, Linear(), Linear(seed=2)

    def forward(self, x: Tensor) -> Any:
        return self.function(x, self.fc1, self.fc2)


def rewritten(function: Any, x: Tensor = X) -> list[Any]:
    """The results for both kinds. Checks that they compute the same as before, and that twice is as once."""
    results = []
    for module in both_kinds(Model(function), x):
        result = q8ta_ops.rewrite(module)
        assert same(runnable(result.module)(x), exact(runnable(module), x))
        twice = q8ta_ops.rewrite(result.module)
        assert twice.replaced == [] and targets(twice.module) == targets(result.module)
        results.append(result)
    return results


@pytest.mark.parametrize("zero_points", [(120, 131), (0, 255), (255, 0), (128, 128)])
def test_chain(zero_points: tuple[int, int]) -> None:
    numbers = (0.03, zero_points[0]), (0.05, zero_points[1])

    def chain(x: Tensor, fc1: Linear, fc2: Linear) -> Tensor:
        x = fc1(dequantize(quantize(x, *numbers[0]), *numbers[0])).relu()
        x = fc2(dequantize(quantize(x, *numbers[1]), *numbers[1]))
        return dequantize(quantize(x, *numbers[0]), *numbers[0])

    for result in rewritten(chain):
        assert targets(result.module) == [QUANTIZE, "q8ta.linear.default", "q8ta.linear.default", DEQUANTIZE]
        first, second = (record.node for record in result.replaced)
        assert second.args[0] is first
        assert first.args[1:3] == (0.03, zero_points[0] - 128) and first.args[6:8] == second.args[1:3]
        assert second.args[2] == zero_points[1] - 128


def test_narrower_range() -> None:
    """The X86 quantizer with reduce_range."""

    def chain(x: Tensor, fc1: Linear, fc2: Linear) -> Tensor:
        x = fc1(dequantize(quantize(x, 0.05, 60, 0, 127), 0.05, 60, 0, 127))
        return fc2(dequantize(quantize(x, 0.1, 60, 0, 127), 0.1, 60, 0, 127))

    for result in rewritten(chain):
        # The operator quantizes to the whole range: here that stays a node of its own.
        assert [str(record) for record in result.replaced] == [
            "fc1: q8ta.linear_dequant, 8 -> 8 (its result is quantized to -128..-1, expected -128..127)",
            "fc2: q8ta.linear_dequant, 8 -> 8 (its result is not quantized)",
        ]
        quantizes = [node for node in result.module.graph.nodes if str(node.target) == QUANTIZE]
        assert [node.args[1:] for node in quantizes] == [
            (0.05, -68, -128, -1, torch.int8),
            (0.1, -68, -128, -1, torch.int8),
        ]


def test_all_that_reads_the_values_is_shifted() -> None:
    def shared(x: Tensor, fc1: Linear, fc2: Linear) -> tuple[Tensor, ...]:
        q = quantize(x, *INPUT)
        # The third reads the same values with other numbers.
        return fc1(dequantize(q, *INPUT)), dequantize(q, *INPUT).sigmoid(), dequantize(q, 0.5, 7).sigmoid()

    for result in rewritten(shared):
        assert q8ta_targets(result.module) == ["linear_dequant"]
        others = [node for node in result.module.graph.nodes if str(node.target) == DEQUANTIZE]
        assert [node.args[1:] for node in others] == [
            (0.03, -8, -128, 127, torch.int8),
            (0.5, -121, -128, 127, torch.int8),
        ]


def test_pairs_without_a_linear_stay() -> None:
    def other(x: Tensor, fc1: Linear, fc2: Linear) -> tuple[Tensor, ...]:
        q = quantize(x, *INPUT)
        return fc1(dequantize(q, *INPUT)), dequantize(quantize(x.tanh(), *INPUT), *INPUT).sigmoid()

    for result in rewritten(other):
        types = [node.args[5] for node in result.module.graph.nodes if str(node.target) == QUANTIZE]
        assert types == [torch.int8, torch.uint8]


def test_through_views_and_concatenation() -> None:
    def joined(x: Tensor, fc1: Linear, fc2: Linear) -> Tensor:
        x = dequantize(quantize(x, *INPUT), *INPUT).reshape(2, 8, 8).transpose(0, 1)
        x = torch.cat([fc1(x), fc1(x)]).relu()
        return fc2(dequantize(quantize(x, *OUTPUT), *OUTPUT))

    for result in rewritten(joined):
        assert q8ta_targets(result.module) == ["linear", "linear", "linear_dequant"]
        assert targets(result.module)[0] == QUANTIZE and targets(result.module).count(QUANTIZE) == 1
        assert "torch.uint8" not in str(result.module.graph)


def test_a_result_that_views_lead_to() -> None:
    def viewed(x: Tensor, fc1: Linear, fc2: Linear) -> Tensor:
        y = fc1(dequantize(quantize(x, *INPUT), *INPUT)).reshape(4, 32).relu()
        return dequantize(quantize(y, *OUTPUT), *OUTPUT)

    for result in rewritten(viewed):
        assert q8ta_targets(result.module) == ["linear"]
        assert "torch.uint8" not in str(result.module.graph)


def test_recorded_values_are_int8_too() -> None:
    def linear(x: Tensor, fc1: Linear, fc2: Linear) -> Tensor:
        return fc1(dequantize(quantize(x, *INPUT), *INPUT))

    for result in rewritten(linear):
        (quantized,) = [node for node in result.module.graph.nodes if str(node.target) == QUANTIZE]
        assert quantized.meta["val"].dtype == torch.int8


@pytest.mark.parametrize(
    ("function", "x", "reason"),
    [
        (
            lambda x, fc1, fc2: fc1(dequantize(x, *INPUT)),
            torch.randint(0, 256, (16, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8),
            "the uint8 values come from the graph input x",
        ),
        (
            lambda x, fc1, fc2: (fc1(dequantize(q := quantize(x, *INPUT), *INPUT)), q),
            X,
            "the uint8 values are also used by the graph's output",
        ),
        (
            lambda x, fc1, fc2: (fc1(dequantize(q := quantize(x, *INPUT), *INPUT)), q.view(4, 32)),
            X,
            "the uint8 values are also used by aten.view.default",
        ),
    ],
)
def test_inputs_that_cannot_be_shifted(function: Any, x: Tensor, reason: str) -> None:
    for module in both_kinds(Model(function), x):
        result = q8ta_ops.rewrite(module)
        assert [why for _, why in result.skipped] == [
            f"its input is quantized to torch.uint8, expected torch.int8: {reason}"
        ]
        assert result.replaced == [] and targets(result.module) == targets(module)
        assert same(runnable(result.module)(x), runnable(module)(x))


def test_results_that_cannot_be_shifted() -> None:
    def uint8_result(x: Tensor, fc1: Linear, fc2: Linear) -> Tensor:
        return quantize(fc1(dequantize(quantize(x, *INPUT), *INPUT)), *OUTPUT)

    for result in rewritten(uint8_result):
        assert [str(record) for record in result.replaced] == [
            "fc1: q8ta.linear_dequant, 8 -> 8 (its result is quantized to torch.uint8, expected torch.int8: "
            "the uint8 values are also used by the graph's output)"
        ]
        assert targets(result.module) == [QUANTIZE, "q8ta.linear_dequant.default", QUANTIZE]
        assert runnable(result.module)(X).dtype == torch.uint8


def test_every_value_and_every_tie() -> None:
    """Values around every step and every tie of the quantization, through a quantize that is shifted."""
    scale, zero_point = 0.1, 77
    steps = (torch.arange(-800, 1600).double() / 8 - zero_point) * scale
    around = torch.stack([torch.nextafter(steps.float(), torch.tensor(end)) for end in (-1e9, 1e9)])
    x = torch.cat([steps.float(), around.flatten(), torch.tensor([1e30, -1e30, torch.inf, -torch.inf])])
    x = x[: x.numel() // 8 * 8].reshape(-1, 8)

    def pair(x: Tensor, fc1: Linear, fc2: Linear) -> tuple[Tensor, Tensor]:
        q = quantize(x, scale, zero_point)
        return fc1(dequantize(q, scale, zero_point)), dequantize(q, scale, zero_point)

    for result in rewritten(pair, x):
        assert "torch.uint8" not in str(result.module.graph)
