"""What commutes with quantization moves to the int8 side: every rule, and every bit afterwards."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("torchao")

from joining import (  # noqa: E402
    ZERO_POINTS,
    Linear,
    Model,
    assert_int8_between_linears,
    called,
    check_joined,
    check_left_alone,
    dequantize,
    floats,
    is_dequantize,
    is_quantize,
    join,
    quantize,
    quantized_input,
    run,
)
from models import int8_tensor, same  # noqa: E402

import q8ta_ops  # noqa: E402
from q8ta_ops.rewrite import commuting  # noqa: E402
from q8ta_ops.rewrite.clamps import Limits  # noqa: E402
from q8ta_ops.rewrite.forms import Quantization  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")


# Each takes and gives float [rows, ...]; the features of the result are a multiple of 4.
OPERATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "view": lambda y: y.view(-1, 4),
    "reshape": lambda y: y.reshape(y.shape[0], 4, 6).reshape(-1, 4),
    "flatten": lambda y: y.unflatten(1, (6, 4)).flatten(0, 1),
    "permute": lambda y: y.view(-1, 4, 6).permute(0, 2, 1),
    "transpose": lambda y: y.view(-1, 4, 6).transpose(1, 2),
    "t": lambda y: y.t().t(),
    "movedim": lambda y: y.view(-1, 4, 6).movedim(1, 2),
    "unsqueeze": lambda y: y.unsqueeze(1),
    "squeeze": lambda y: y.view(-1, 1, 1, 24).squeeze(1).squeeze(),
    "squeeze of several": lambda y: y.view(-1, 1, 1, 24).squeeze((1, 2)),
    "slice": lambda y: y[:, 3:19:2],
    "narrow": lambda y: y.narrow(1, 4, 8),
    "select": lambda y: y.view(-1, 3, 8)[:, 1],
    "index_select": lambda y: y.index_select(1, torch.tensor([5, 0, 0, 23])),
    "flip": lambda y: y.flip(1),
    "expand": lambda y: y.unsqueeze(1).expand(-1, 3, -1),
    "repeat": lambda y: y.repeat(1, 2),
    "contiguous": lambda y: y.view(-1, 4, 6).transpose(1, 2).contiguous(),
    "clone": lambda y: y.clone(),
    "cat": lambda y: torch.cat([y[:, :8], y[:, 8:], y], 1),
    "stack": lambda y: torch.stack([y[:, :4], y[:, 4:8]], 1),
    "split": lambda y: y.split(8, 1)[2],
    "split in sizes": lambda y: y.split([4, 12, 8], 1)[1],
    "chunk": lambda y: y.chunk(3, 1)[2],
    "unbind": lambda y: y.view(-1, 2, 12).unbind(1)[1],
    "dropout": lambda y: nn.functional.dropout(y, 0.3, training=False),
    "max_pool1d": lambda y: nn.functional.max_pool1d(y.view(-1, 2, 12), 3, 2, 1, 1),
    "max_pool1d with defaults": lambda y: nn.functional.max_pool1d(y.view(-1, 3, 8), 2),
    "max_pool1d dilated": lambda y: nn.functional.max_pool1d(y, 3, 1, 1, 5, ceil_mode=True)[:, :12],
    "max_pool2d": lambda y: nn.functional.max_pool2d(y.view(-1, 1, 3, 8), (3, 2), (1, 2), (1, 0)),
    "max_pool2d with indices": lambda y: torch.ops.aten.max_pool2d_with_indices(y.view(-1, 1, 3, 8), 2)[0],
    "max_pool3d": lambda y: nn.functional.max_pool3d(y.view(-1, 1, 2, 3, 4), (2, 3, 1), padding=(1, 1, 0)),
    "amax": lambda y: y.view(-1, 6, 4).amax(1),
    "relu": torch.relu,
    "relu6": nn.functional.relu6,
    "hardtanh": lambda y: nn.functional.hardtanh(y, -0.7, 1.3),
    "clamp": lambda y: y.clamp(-0.123, 0.456),
    "clamp from below": lambda y: y.clamp_min(0.5),
    "clamp from above": lambda y: y.clamp_max(-0.5),
}
CLAMPS = ("relu", "relu6", "hardtanh", "clamp", "clamp from below", "clamp from above")
MOVING = [name for name in OPERATORS if name not in CLAMPS]


def features(name: str) -> int:
    return OPERATORS[name](torch.zeros(3, 24)).shape[-1]


# Moving up and down


@pytest.mark.parametrize(("name", "zero_point"), [*zip(MOVING, cycle(ZERO_POINTS))])
def test_quantize_moves_up_to_the_linear(name: str, zero_point: int) -> None:
    def function(x: Tensor, first: Linear, second: Linear) -> Tensor:
        y = quantize(OPERATORS[name](first(quantized_input(x))), 0.021, zero_point)
        return second(dequantize(y, 0.021, zero_point))

    after = check_joined(Model(function, Linear(8, 24), Linear(features(name), 5)), floats(4, 8), changes=1)
    assert_int8_between_linears(after)
    assert "dropout" not in str(after.graph) and len(called(after, "requantize")) == 0


@pytest.mark.parametrize(("name", "zero_point"), [*zip(["relu", *MOVING], cycle(ZERO_POINTS))])
def test_dequantize_moves_down_to_the_linear(name: str, zero_point: int) -> None:
    def function(x: Tensor, linear: Linear) -> Tensor:
        return linear(OPERATORS[name](dequantize(x, 0.021, zero_point)))

    after = check_joined(Model(function, Linear(features(name), 5)), int8_tensor(40, 24), changes=1)
    (linear,) = called(after, "aten.linear")
    assert is_dequantize(linear.args[0]) and len([n for n in after.graph.nodes if is_dequantize(n)]) == 2


@pytest.mark.parametrize(("name", "zero_point"), [*zip(reversed(OPERATORS), cycle(ZERO_POINTS))])
def test_requantize(name: str, zero_point: int) -> None:
    def function(x: Tensor, linear: Linear) -> Tensor:
        y = quantize(OPERATORS[name](dequantize(x, 0.021, zero_point)), 0.017, 5)
        return linear(dequantize(y, 0.017, 5))

    after = check_joined(Model(function, Linear(features(name), 5)), int8_tensor(40, 24), changes=1)
    assert len(called(after, "q8ta.requantize")) == 1
    assert not any(is_quantize(node) for node in after.graph.nodes)
    (linear,) = called(after, "aten.linear")
    assert is_dequantize(linear.args[0])


def test_dequantize_and_quantize_vanish_or_become_one() -> None:
    def function(x: Tensor, first: Linear, second: Linear, third: Linear) -> tuple[Tensor, Tensor, Tensor]:
        y = dequantize(quantize(first(quantized_input(x)), 0.02, -3), 0.02, -3)
        same_numbers = quantize(y, 0.02, -3)
        other_numbers = quantize(y, 0.03, -3)
        return (
            second(dequantize(same_numbers, 0.02, -3)),
            third(dequantize(other_numbers, 0.03, -3)),
            y + 1,  # keeps its dequantize
        )

    model = Model(function, Linear(8, 12), Linear(12, 4), Linear(12, 4, seed=1))
    after = check_joined(model, floats(4, 8), changes=2)
    assert len([node for node in after.graph.nodes if is_quantize(node)]) == 2
    (requantize,) = called(after, "q8ta.requantize")
    assert requantize.args[1:] == (0.02, -3, 0.03, -3) and is_quantize(requantize.args[0])


@pytest.mark.parametrize("zero_point", ZERO_POINTS)
@pytest.mark.parametrize("scale", [1e-4, 0.0371, 1.0, 1 / 3, 1e6, 3.4e-30, 1e30])
def test_every_value_survives_dequantize_and_quantize(scale: float, zero_point: int) -> None:
    numbers = Quantization(scale, zero_point, -128, 127, torch.int8)
    every = torch.arange(-128, 128).to(torch.int8)
    again = quantize(dequantize(every, scale, zero_point), scale, zero_point)
    assert torch.equal(again, every) and commuting.survives(numbers)


@pytest.mark.parametrize("scale", [1e-38, 1e-42, 2.5e-39, 3e38])
def test_scales_at_the_ends_of_float32(scale: float) -> None:
    """The guard says what torch's operators do, wherever products are subnormal or overflow."""
    every = torch.arange(-128, 128).to(torch.int8)
    for zero_point in ZERO_POINTS:
        again = quantize(dequantize(every, scale, zero_point), scale, zero_point)
        numbers = Quantization(scale, zero_point, -128, 127, torch.int8)
        assert commuting.survives(numbers) == torch.equal(again, every)
    assert not commuting.survives(Quantization(3e38, 0, -128, 127, torch.int8))


def test_values_that_do_not_survive_are_requantized() -> None:
    def function(x: Tensor, linear: Linear) -> Tensor:
        y = quantize(dequantize(x, 3e38, 0), 3e38, 0)
        return linear(dequantize(y, 3e38, 0).clamp(-1, 1))

    after = check_joined(Model(function, Linear(8, 4)), int8_tensor(40, 8), changes=1)
    assert len(called(after, "q8ta.requantize")) == 1


# Clamps


@pytest.mark.parametrize("first", ["relu", "clamp"])
@pytest.mark.parametrize("name", CLAMPS)
def test_clamps_behind_a_view(name: str, first: str) -> None:
    """A limit is quantized with the values. Where that is the end of int8, nothing is left of it."""
    numbers = [(scale, zero_point) for scale in (0.021, 0.003) for zero_point in (-128, -40, 0, 127)]

    def function(x: Tensor, linear: Linear) -> list[Tensor]:
        results = [OPERATORS[first](linear(quantized_input(x))).view(-1, 4) for _ in numbers]
        return [quantize(OPERATORS[name](y), *each) for y, each in zip(results, numbers, strict=True)]

    program = torch.export.export(Model(function, Linear(8, 24)), (floats(40, 8),))
    after, count = join(program)
    assert count == len(numbers) and same(run(after, floats(40, 8)), run(program, floats(40, 8)))
    for result, each in zip(after.graph.output_node().args[0], numbers, strict=True):
        possible = quantize(OPERATORS[name](torch.linspace(-1e6, 1e6, 5)), *each)
        clamped = "clamp" in str(result.target)
        assert clamped == ((possible.min(), possible.max()) != (-128, 127))
        view = result.args[0] if clamped else result
        assert "reshape" in str(view.target) and view.meta["val"].dtype == torch.int8


def test_relu_is_left_for_the_operator() -> None:
    def function(x: Tensor, first: Linear, second: Linear) -> Tensor:
        y = quantize(torch.relu(first(quantized_input(x))).flatten(1), 0.02, 0)
        return second(dequantize(y, 0.02, 0))

    after = check_joined(Model(function, Linear(8, 12), Linear(12, 4)), floats(4, 8), changes=1)
    (relu,) = called(after, "aten.relu")
    assert [is_quantize(user) for user in relu.users] == [True] and called(after, "clamp") == []
    result = q8ta_ops.rewrite(after)
    assert [replaced.activation for replaced in result.replaced] == ["relu", "none"]
    assert [replaced.op for replaced in result.replaced] == ["linear", "linear_dequant"]


@pytest.mark.parametrize("limits", [Limits(0, 6), Limits(-0.7, 1.3), Limits(-1e9, 1e9), Limits(0.1, 0.4)])
@pytest.mark.parametrize("zero_point", ZERO_POINTS)
def test_a_clamp_stays_on_the_grid_or_does_not(limits: Limits, zero_point: int) -> None:
    """A dequantize moves below a clamp only where the limits are among the dequantized values."""
    scales = (0.1, 0.05, 6 / 127, 0.0371)
    for scale in scales:
        values = dequantize(torch.arange(-128, 128).to(torch.int8), scale, zero_point)
        clamped = values.clamp(limits.low, limits.high)
        numbers = Quantization(scale, zero_point, -128, 127, torch.int8)
        assert commuting.keeps_grid(limits, numbers) == bool(torch.isin(clamped, values).all())


def test_dequantize_does_not_move_below_a_clamp_off_the_grid() -> None:
    def function(x: Tensor, linear: Linear) -> Tensor:
        return linear(dequantize(x, 0.05, 0).clamp(-0.33, 0.5))

    check_left_alone(Model(function, Linear(8, 4)), int8_tensor(40, 8))


# Max-pool


@pytest.mark.parametrize("zero_point", ZERO_POINTS)
def test_padding_of_max_pool_is_below_every_value(zero_point: int) -> None:
    """The float padding is minus infinity, the int8 one -128: a window always holds a value besides."""

    def function(x: Tensor, linear: Linear) -> Tensor:
        y = nn.functional.max_pool2d(dequantize(x, 0.1, zero_point).view(-1, 1, 4, 6), 3, 1, 1)
        return linear(dequantize(quantize(y, 0.1, zero_point), 0.1, zero_point))

    model = Model(function, Linear(6, 4))
    after = check_joined(model, int8_tensor(40, 24), changes=1)
    for value in (-128, -127, 127):
        x = torch.full((40, 24), value, dtype=torch.int8)
        assert torch.equal(run(after, x), run(torch.export.export(model, (x,)).module(), x))


def test_max_pool_whose_indices_are_used() -> None:
    """Equal floats can become equal integers with others: the indices still come from the float values."""

    def behind_a_linear(x: Tensor, first: Linear, second: Linear) -> tuple[Tensor, ...]:
        y = first(quantized_input(x)).view(-1, 1, 4, 6)
        values, indices = torch.ops.aten.max_pool2d_with_indices(y, 2)
        return second(dequantize(quantize(values.flatten(1), 0.5, 0), 0.5, 0)), indices

    check_left_alone(Model(behind_a_linear, Linear(8, 24), Linear(6, 4)), floats(40, 8))

    def indices_as_data(x: Tensor, first: Linear, second: Linear) -> Tensor:
        y = first(quantized_input(x)).view(-1, 1, 4, 6)
        values, indices = torch.ops.aten.max_pool2d_with_indices(y, 2)
        y = torch.cat([values.flatten(1), indices.flatten(1)], 1)
        return second(dequantize(quantize(y, 0.5, 0), 0.5, 0))

    check_left_alone(Model(indices_as_data, Linear(8, 24), Linear(12, 4)), floats(40, 8))

    def of_int8(x: Tensor, linear: Linear) -> tuple[Tensor, ...]:
        y = dequantize(x, 0.5, 0).view(-1, 1, 4, 6)
        values, indices = torch.ops.aten.max_pool2d_with_indices(y, 2)
        return linear(values.flatten(1)), indices

    after = check_joined(Model(of_int8, Linear(6, 4)), int8_tensor(40, 24), changes=1)
    assert len(called(after, "max_pool2d_with_indices")) == 2


# Where several paths meet


def test_cat_of_linears() -> None:
    def function(x: Tensor, first: Linear, second: Linear, third: Linear) -> Tensor:
        x = quantized_input(x)
        y = torch.cat([first(x), torch.relu(second(x))], 1)
        return third(dequantize(quantize(y, 0.05, -20), 0.05, -20))

    model = Model(function, Linear(8, 12), Linear(8, 6, seed=1), Linear(18, 4))
    after = check_joined(model, floats(4, 8), changes=1)
    (cat,) = called(after, "aten.cat")
    assert all(is_quantize(node) for node in cat.args[0])
    assert cat.args[0][0].args[0] is called(after, "aten.linear")[0]
    assert cat.args[0][1].args[0] is called(after, "aten.relu")[0]


def test_cat_of_a_linear_and_a_float() -> None:
    """One path begins at a linear: the other gets a quantize of its own."""

    def function(x: Tensor, first: Linear, second: Linear) -> Tensor:
        y = torch.cat([first(quantized_input(x)), torch.sin(x)], 1)
        return second(dequantize(quantize(y, 0.05, -20), 0.05, -20))

    after = check_joined(Model(function, Linear(8, 12), Linear(20, 4)), floats(4, 8), changes=1)
    (cat,) = called(after, "aten.cat")
    assert all(is_quantize(node) for node in cat.args[0])


def test_cat_of_int8_with_different_numbers() -> None:
    """Two are requantized to what the concatenation is quantized to; the third has those numbers."""

    def function(x: Tensor, linear: Linear) -> Tensor:
        parts = [dequantize(x, 0.05, 1), dequantize(x.flip(1), 0.02, 1), dequantize(x, 0.05, -1)]
        return linear(dequantize(quantize(torch.cat(parts, 1), 0.05, 1), 0.05, 1))

    after = check_joined(Model(function, Linear(24, 4)), int8_tensor(40, 8), changes=1)
    assert [node.args[1:] for node in called(after, "q8ta.requantize")] == [
        (0.02, 1, 0.05, 1),
        (0.05, -1, 0.05, 1),
    ]


def test_one_slice_for_each_of_several_linears() -> None:
    """q, k and v of one linear, each quantized in its own way: sliced first, then requantized."""

    def function(x: Tensor, first: Linear, *heads: Linear) -> list[Tensor]:
        y = dequantize(quantize(first(quantized_input(x)), 0.05, 0), 0.05, 0)
        scales = (0.05, 0.04, 0.03)
        return [
            head(dequantize(quantize(part, scale, 0), scale, 0))
            for head, part, scale in zip(heads, y.chunk(3, 1), scales, strict=True)
        ]

    model = Model(function, Linear(8, 12), *(Linear(4, 3, seed=seed) for seed in range(3)))
    after = check_joined(model, floats(4, 8), changes=3)
    assert len(called(after, "aten.chunk")) == 1
    assert ["getitem" in node.args[0].name for node in called(after, "q8ta.requantize")] == [True, True]


def test_equal_quantizes_behind_different_paths() -> None:
    def function(x: Tensor, first: Linear, second: Linear, third: Linear) -> tuple[Tensor, ...]:
        y = first(quantized_input(x))
        paths = (y.view(-1, 4), y, y.unflatten(1, (3, 4)).flip(1))
        a, b, c = (dequantize(quantize(path, 0.05, 0), 0.05, 0) for path in paths)
        return second(a), third(b), second(c)

    after = check_joined(Model(function, Linear(8, 12), Linear(4, 3), Linear(12, 3)), floats(4, 8), changes=2)
    assert all(is_quantize(user) for user in called(after, "aten.linear")[0].users)


def test_deep_diamonds_take_linear_time() -> None:
    def function(x: Tensor, linear: Linear) -> Tensor:
        y = dequantize(x, 0.05, 0)
        for _ in range(40):
            a, b = y.chunk(2, 1)
            y = torch.cat([b, a], 1)
        return linear(y)

    check_joined(Model(function, Linear(8, 4)), int8_tensor(40, 8), changes=1)
