"""What must not move to the int8 side, and what else moving could break."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("torchao")

from joining import (  # noqa: E402
    LIBRARY,
    Linear,
    Model,
    called,
    check_joined,
    check_left_alone,
    check_values,
    dequantize,
    floats,
    is_dequantize,
    is_quantize,
    join,
    quantize,
    quantized_input,
    run,
)
from models import int8_tensor  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")


# Where nothing may move


def uses_float(x: Tensor, first: Linear, second: Linear) -> tuple[Tensor, Tensor]:
    y = first(quantized_input(x)).view(-1, 4)
    return second(dequantize(quantize(y, 0.05, 0), 0.05, 0)), torch.sin(y)


def float_result_itself(x: Tensor, first: Linear, second: Linear) -> tuple[Tensor, Tensor]:
    y = first(quantized_input(x))
    return second(dequantize(quantize(y.view(-1, 4), 0.05, 0), 0.05, 0)), y


def float_linear_reads_it(x: Tensor, first: Linear, second: Linear) -> tuple[Tensor, Tensor]:
    y = first(quantized_input(x)).view(-1, 4)
    return second(dequantize(quantize(y, 0.05, 0), 0.05, 0)), second(y)


def different_numbers(x: Tensor, first: Linear, second: Linear) -> tuple[Tensor, Tensor]:
    y = first(quantized_input(x)).view(-1, 4)
    return (
        second(dequantize(quantize(y, 0.05, 0), 0.05, 0)),
        second(dequantize(quantize(y, 0.05, 1), 0.05, 1)),
    )


def narrow_range(x: Tensor, first: Linear, second: Linear) -> Tensor:
    y = LIBRARY.quantize_per_tensor(first(quantized_input(x)).view(-1, 4), 0.05, 0, -127, 127, torch.int8)
    return second(dequantize(y, 0.05, 0))


def average_pool(x: Tensor, first: Linear, second: Linear) -> Tensor:
    y = nn.functional.avg_pool1d(first(quantized_input(x)), 3)
    return second(dequantize(quantize(y, 0.05, 0), 0.05, 0))


def gelu(x: Tensor, first: Linear, second: Linear) -> Tensor:
    y = nn.functional.gelu(first(quantized_input(x))).view(-1, 4)
    return second(dequantize(quantize(y, 0.05, 0), 0.05, 0))


def clamp_to_tensors(x: Tensor, first: Linear, second: Linear) -> Tensor:
    y = first(quantized_input(x)).view(-1, 4)
    return second(dequantize(quantize(y.clamp(torch.tensor(0.0)), 0.05, 0), 0.05, 0))


def dropout_in_training(x: Tensor, first: Linear, second: Linear) -> Tensor:
    y = torch.ops.aten.dropout(first(quantized_input(x)).view(-1, 4), 0.0, True)
    return second(dequantize(quantize(y, 0.05, 0), 0.05, 0))


def padding_with_a_number(x: Tensor, first: Linear, second: Linear) -> Tensor:
    y = nn.functional.pad(first(quantized_input(x))[:, :3], (0, 1), value=0.3)
    return second(dequantize(quantize(y, 0.05, 0), 0.05, 0))


def cat_without_quantize(x: Tensor, first: Linear, second: Linear) -> Tensor:
    y = quantize(first(quantized_input(x)), 0.05, 0)
    parts = [dequantize(y, 0.05, 0)[:, :2], dequantize(y, 0.05, 3)[:, :2]]
    return second(torch.cat(parts, 1))


def cat_with_integers(x: Tensor, first: Linear, second: Linear) -> Tensor:
    y = torch.cat([first(quantized_input(x))[:, :3], x[:, :1].to(torch.int32)], 1)
    return second(dequantize(quantize(y, 0.05, 0), 0.05, 0))


def quantize_written(x: Tensor, first: Linear, second: Linear) -> tuple[Tensor, Tensor]:
    y = first(quantized_input(x))
    z = quantize(y.view(-1, 4), 0.05, 0)
    z.clamp_(-3, 3)
    return second(dequantize(z, 0.05, 0)), z


def only_a_view_of_floats(x: Tensor, first: Linear, second: Linear) -> Tensor:
    y = torch.sin(first(quantized_input(x))).view(-1, 4)
    return second(dequantize(quantize(y, 0.05, 0), 0.05, 0))


def written_before(x: Tensor, first: Linear, second: Linear) -> Tensor:
    y = first(quantized_input(x))
    z = y.view(-1, 4)
    y.mul_(0.5)
    return second(dequantize(quantize(z, 0.05, 0), 0.05, 0))


def written_in_between(x: Tensor, first: Linear, second: Linear) -> Tensor:
    y = dequantize(quantize(first(quantized_input(x)), 0.05, 0), 0.05, 0)
    z = y.view(-1, 4)
    y.add_(1)
    return second(z)


def relu_in_place_seen_elsewhere(x: Tensor, first: Linear, second: Linear) -> tuple[Tensor, Tensor]:
    y = first(quantized_input(x))
    z = y.view(-1, 4).relu_()
    return second(dequantize(quantize(z, 0.05, 0), 0.05, 0)), y


def int8_written(x: Tensor, first: Linear, second: Linear) -> Tensor:
    y = quantize(first(quantized_input(x)), 0.05, 0)
    z = dequantize(y, 0.05, 0).view(-1, 4)
    y.clamp_(-3, 3)
    return second(z) + y.sum()


@pytest.mark.parametrize(
    "function",
    [
        uses_float,
        float_result_itself,
        float_linear_reads_it,
        different_numbers,
        narrow_range,
        average_pool,
        gelu,
        clamp_to_tensors,
        dropout_in_training,
        padding_with_a_number,
        cat_without_quantize,
        cat_with_integers,
        quantize_written,
        only_a_view_of_floats,
        written_before,
        written_in_between,
        relu_in_place_seen_elsewhere,
        int8_written,
    ],
    ids=lambda function: function.__name__,
)
def test_nothing_moves(function: Callable[..., Any]) -> None:
    check_left_alone(Model(function, Linear(8, 12), Linear(4, 3)), floats(4, 8))


def test_graphs_without_quantized_linears_are_left_alone() -> None:
    """Int8 convolutions are for other backends, which look for dequantize and quantize around them."""

    def function(x: Tensor) -> Tensor:
        y = nn.functional.max_pool2d(dequantize(x, 0.05, 0), 2)
        return quantize(
            nn.functional.conv2d(dequantize(quantize(y, 0.04, 0), 0.04, 0), torch.ones(2, 1, 2, 2)), 1, 0
        )

    check_left_alone(Model(function), int8_tensor(2, 1, 6, 6))


# What else could go wrong


def test_relu_in_place_of_a_linear() -> None:
    def function(x: Tensor, first: Linear, second: Linear) -> Tensor:
        y = nn.functional.relu_(first(quantized_input(x))).view(-1, 4)
        return second(dequantize(quantize(y, 0.05, 0), 0.05, 0))

    after = check_joined(Model(function, Linear(8, 12), Linear(4, 3)), floats(4, 8), changes=1)
    (relu,) = called(after, "aten.relu_")
    assert all(is_quantize(user) for user in relu.users)


def test_views_that_need_dense_values() -> None:
    """A quantize makes a slice dense, so a view of it is possible; without it, it takes a copy."""

    def function(x: Tensor, first: Linear, second: Linear) -> Tensor:
        y = dequantize(quantize(first(quantized_input(x))[:, :8], 0.05, 0), 0.05, 0)
        z = quantize(y.view(-1, 4), 0.05, 0)
        return second(dequantize(z, 0.05, 0))

    check_joined(Model(function, Linear(8, 12), Linear(4, 3)), floats(4, 8), changes=2)


def test_metadata_is_kept() -> None:
    class Layers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = Model(
                lambda x, linear: quantize(linear(quantized_input(x)).view(-1, 4), 0.05, 0), Linear(8, 12)
            )
            self.second = Model(lambda x, linear: linear(dequantize(x, 0.05, 0).flip(1)), Linear(4, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    after, count = join(torch.export.export(Layers(), (floats(4, 8),)))
    assert count == 2
    layers = {}
    for node in after.graph.nodes:
        if node.op == "call_function":
            assert "stack_trace" in node.meta
            layers[node.name] = list(node.meta["nn_module_stack"].values())[-1][0]
    behind = called(after, "aten.linear")[0]
    (hoisted,) = behind.users
    (reshape,) = hoisted.users
    (flip,) = reshape.users
    (sunk,) = flip.users
    assert is_quantize(hoisted) and is_dequantize(sunk)
    assert [layers[node.name] for node in (hoisted, reshape, flip, sunk)] == [
        "first", "first", "second", "second",
    ]  # fmt: skip


def test_the_callers_program_is_untouched() -> None:
    model = Model(uses_int8, Linear(8, 12), Linear(4, 3))
    program = torch.export.export(model, (floats(4, 8),))
    before = str(program.graph)
    joined, count = join(program)
    assert count == 1 and str(program.graph) == before != str(joined.graph)


def uses_int8(x: Tensor, first: Linear, second: Linear) -> Tensor:
    y = first(quantized_input(x)).view(-1, 4)
    return second(dequantize(quantize(y, 0.05, 0), 0.05, 0))


def test_int8_output_of_the_graph() -> None:
    """A quantize that is the program's result is replaced there too, under its new name."""

    def function(x: Tensor, linear: Linear) -> Tensor:
        return quantize(linear(quantized_input(x)).view(-1, 4), 0.05, 0)

    after = check_joined(Model(function, Linear(8, 12)), floats(4, 8), changes=1)
    (result,) = after.graph.output_node().args[0]
    assert str(result.target) == "aten.reshape.default"


def test_decomposed_programs() -> None:
    """run_decompositions leaves other operators: view, split_with_sizes, pools with indices."""

    def function(x: Tensor, first: Linear, second: Linear) -> Tensor:
        y = first(quantized_input(x)).view(-1, 2, 12)
        y = nn.functional.max_pool1d(torch.cat(y.split(6, 2), 1), 2).transpose(1, 2).flatten(1)
        return second(dequantize(quantize(y, 0.05, 0), 0.05, 0))

    x = floats(4, 8)
    program = torch.export.export(Model(function, Linear(8, 24), Linear(12, 3)), (x,))
    kept = torch.export.default_decompositions()
    kept.pop(torch.ops.aten.linear.default, None)
    decomposed = program.run_decompositions(kept)
    after, count = join(decomposed)
    assert count == 1 and torch.equal(run(after, x), run(program, x))
    check_values(after)
