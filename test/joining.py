"""What the tests of `join_linears` share: models of plain operators, exact runs, checks of joined graphs."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from models import DYNAMIC_BATCH, int8_tensor, same, targets
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Interpreter, Node

import q8ta_ops
from q8ta_ops.rewrite import commute

LIBRARY = torch.ops.quantized_decomposed
INPUT = (0.05, 3)
ZERO_POINTS = (-128, 0, 127)


def quantize(x: Tensor, scale: float, zero_point: int) -> Tensor:
    return LIBRARY.quantize_per_tensor(x, scale, zero_point, -128, 127, torch.int8)


def dequantize(x: Tensor, scale: float, zero_point: int) -> Tensor:
    return LIBRARY.dequantize_per_tensor(x, scale, zero_point, -128, 127, torch.int8)


class Linear(nn.Module):
    """A float linear of dequantized int8 weights: results of about -8..8 for inputs of about -6..6."""

    def __init__(self, in_features: int, out_features: int, seed: int = 0) -> None:
        super().__init__()
        self.register_buffer("weights", int8_tensor(out_features, in_features, seed=seed))
        self.register_buffer("bias", torch.linspace(-1, 1, out_features))
        self.scale = 0.02 / in_features**0.5

    def forward(self, x: Tensor) -> Tensor:
        weights = LIBRARY.dequantize_per_tensor(self.weights, self.scale, 0, -127, 127, torch.int8)
        return nn.functional.linear(x, weights, self.bias)


class Model(nn.Module):
    """A function of a float tensor of two dimensions, with some linears to call: `function(model, x)`."""

    def __init__(self, function: Callable[..., Any], *linears: Linear) -> None:
        super().__init__()
        self.function = function
        self.linears = nn.ModuleList(linears)

    def forward(self, x: Tensor) -> Any:
        return self.function(x, *self.linears)


class Float64Linears(Interpreter):
    """Runs a graph with the sums of its linears in float64: float32 sums depend on strides."""

    def run_node(self, n: Node) -> Any:
        if n.target is not torch.ops.aten.linear.default:
            return super().run_node(n)
        operands, _ = self.fetch_args_kwargs_from_env(n)
        return nn.functional.linear(*(each.double() for each in operands)).float()


def run(module: GraphModule | ExportedProgram, *inputs: Tensor) -> Any:
    module = module.module() if isinstance(module, ExportedProgram) else module
    return Float64Linears(module).run(*inputs)


@contextmanager
def joining_only() -> Iterator[list[int]]:
    """Within this, q8ta_ops.rewrite joins linears and replaces none of them. Gives the numbers of changes."""
    counts: list[int] = []

    def replace_linears(store: Any) -> tuple[list[Any], list[Any]]:
        counts.append(commute.join_linears(store))
        return [], []

    with (
        mock.patch("q8ta_ops.rewrite.graph_module.replace_linears", replace_linears),
        mock.patch("q8ta_ops.rewrite.exported_program.replace_linears", replace_linears),
    ):
        yield counts


def join(module: Any) -> tuple[Any, int]:
    """A joined copy of a module, checked, and the number of changes."""
    with joining_only() as counts:
        joined = q8ta_ops.rewrite(module).module
    if isinstance(joined, ExportedProgram):
        joined.validate()
    return joined, counts[0]


def save_and_load(program: ExportedProgram) -> ExportedProgram:
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file)


def check_joined(model: nn.Module, x: Tensor, changes: int | None = None) -> GraphModule:
    """Joins both kinds of module, with a dynamic batch, and compares every bit. Returns the GraphModule."""
    program = torch.export.export(model, (x,), dynamic_shapes={"x": DYNAMIC_BATCH[0]})
    before = program.module()
    after, count = join(before)
    after_program, count_program = join(program)
    assert count == count_program and targets(after) == targets(after_program)
    assert count > 0 if changes is None else count == changes
    check_values(after_program)
    loaded = save_and_load(after_program)
    again, count_again = join(after)
    assert count_again == 0 and targets(again) == targets(after)
    for rows in (x.shape[0], 2, 7):
        inputs = x.repeat(8, *[1] * (x.dim() - 1))[:rows]
        expected = run(before, inputs)
        for each in (after, after_program, loaded):
            assert same(run(each, inputs), expected)
    return after


def check_left_alone(model: nn.Module, x: Tensor) -> None:
    for module in (torch.export.export(model, (x,)), torch.export.export(model, (x,)).module()):
        joined, count = join(module)
        assert count == 0 and targets(joined) == targets(module)
        assert same(run(joined, x), run(module, x))


def check_values(program: ExportedProgram) -> None:
    """Every recorded value is what the operator gives: type, sizes, symbols."""
    for node in program.graph.nodes:
        # torch 2.11 cannot run linear on a fake tensor of symbolic sizes that is not contiguous.
        if node.op == "call_function" and node.target is not torch.ops.aten.linear.default:
            values = {each: each.meta["val"] for each in node.all_input_nodes}
            args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
            expected, recorded = node.target(*args, **kwargs), node.meta["val"]
            if isinstance(expected, Tensor):
                assert (recorded.dtype, str(recorded.shape)) == (expected.dtype, str(expected.shape))


def called(module: GraphModule, name: str) -> list[Node]:
    """The nodes that call an operator, by a part of its name."""
    return [node for node in module.graph.nodes if node.op == "call_function" and name in str(node.target)]


def floats(*sizes: int) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(5)) * 3


def quantized_input(x: Tensor) -> Tensor:
    return dequantize(quantize(x, *INPUT), *INPUT)


def is_quantize(node: Node) -> bool:
    return "quantized_decomposed.quantize_per_tensor" in str(node.target)


def is_dequantize(node: Node) -> bool:
    return "quantized_decomposed.dequantize_per_tensor" in str(node.target)


def assert_int8_between_linears(module: GraphModule) -> None:
    """Linears follow each other; results are quantized at once, inputs dequantized just before, no more."""
    linears = called(module, "aten.linear")
    for linear in linears[:-1]:
        assert all(is_quantize(user) for user in linear.users)
    for linear in linears[1:]:
        assert is_dequantize(linear.args[0]) and not is_quantize(linear.args[0])
    floats = [node for node in module.graph.nodes if is_dequantize(node)]
    assert {user for node in floats for user in node.users} == set(linears)
