"""Which operators commute with per-tensor quantization, and the node that does the same to int8 values.

Quantizing treats every element alike and never falls as its input rises. So it can change places with

- operators that only move elements: reshape, transpose, slice, concatenation and so on;
- operators that take a maximum: of integers it is found at the same element;
- clamps: the limits are quantized too, and a limit that falls on the end of int8 does nothing any more.

The exchange is exact for every float32 input but NaN, whose quantization is not defined.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from .clamps import Limits, limits_of, quantized
from .forms import DEQUANTIZE, QUANTIZE, Quantization
from .nodes import arguments, operator_of, target_name

REQUANTIZE = "q8ta.requantize.default"
_SPLITS = (
    "aten.split.Tensor",
    "aten.split.sizes",
    "aten.split_with_sizes.default",
    "aten.chunk.default",
    "aten.unbind.int",
)
_POOL_WITH_INDICES = "aten.max_pool2d_with_indices.default"
# Each of these runs on int8 (max_pool1d as max_pool2d). adaptive_max_pool does not: it stays in float.
_MOVES_OR_MAXIMUM = frozenset((
    "aten.view.default",
    "aten._unsafe_view.default",
    "aten.reshape.default",
    "aten.flatten.using_ints",
    "aten.unflatten.int",
    "aten.permute.default",
    "aten.transpose.int",
    "aten.movedim.int",
    "aten.movedim.intlist",
    "aten.t.default",
    "aten.squeeze.default",
    "aten.squeeze.dim",
    "aten.squeeze.dims",
    "aten.unsqueeze.default",
    "aten.slice.Tensor",
    "aten.narrow.default",
    "aten.select.int",
    "aten.index_select.default",
    "aten.flip.default",
    "aten.expand.default",
    "aten.repeat.default",
    "aten.contiguous.default",
    "aten.clone.default",
    "aten.cat.default",
    "aten.stack.default",
    *_SPLITS,
    "aten.max_pool1d.default",
    "aten.max_pool2d.default",
    "aten.max_pool3d.default",
    _POOL_WITH_INDICES,
    "aten.amax.default",
))  # fmt: skip


def operands(node: Node) -> tuple[Node, ...]:
    """The values that a commuting operator works on; empty for every other node."""
    if node.op != "call_function" or not node.args:
        return ()
    values = node.args[0]
    if node.target is operator.getitem:
        # Not the indices of a pool: among integers are more ties than among floats.
        parts = target_name(values)
        commutes = parts in _SPLITS or (parts == _POOL_WITH_INDICES and node.args[1] == 0)
    else:
        commutes = target_name(node) in _MOVES_OR_MAXIMUM or is_identity(node) or limits_of(node) is not None
    if not commutes:
        return ()
    return (values,) if isinstance(values, Node) else tuple(values)


def is_identity(node: Node) -> bool:
    """Whether a node returns its input: dropout outside of training, alias, detach."""
    name = target_name(node)
    if name == "aten.dropout.default":
        return arguments(node)["train"] is False
    return name in ("aten.alias.default", "aten.detach.default")


def on_integers(graph: Graph, node: Node, replaced: dict[Node, Node], numbers: Quantization) -> Node:
    """Adds what a commuting node is for int8 values, at the graph's insertion point, and returns it.

    Args:
        replaced: the int8 values to take instead of each of `operands(node)`.
        numbers: the quantization of the values.
    """
    name, limits = target_name(node), limits_of(node)
    if limits is not None:
        bounds = _bounds(limits, numbers)
        return add_call(graph, torch.ops.aten.clamp.default, (replaced[node.args[0]], *bounds), {}, node)
    if name == "aten.max_pool1d.default":
        return _pooled(graph, node, replaced[node.args[0]])
    target = node.target
    if name in ("aten.view.default", "aten._unsafe_view.default"):
        # A quantize or dequantize that was between made a slice dense, so that a view was possible.
        target = torch.ops.aten.reshape.default
    args, kwargs = map_arg((node.args, dict(node.kwargs)), lambda each: replaced.get(each, each))
    return add_call(graph, target, args, kwargs, node)


def add_call(graph: Graph, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], old: Node) -> Node:
    """Adds a call at the graph's insertion point: the metadata of `old`, but the value that it has itself.

    There is no value in a graph that has none for an argument (convert_pt2e records none for what it adds).
    """
    node = graph.call_function(target, args, kwargs)
    dropped = ("val", "example_value", "tensor_meta", "quantization_annotation")
    node.meta = {key: value for key, value in old.meta.items() if key not in dropped}
    inputs = [each.meta.get("val") for each in node.all_input_nodes]
    if all(value is not None for value in inputs):
        values = dict(zip(node.all_input_nodes, inputs, strict=True))
        args, kwargs = map_arg((node.args, dict(node.kwargs)), values.__getitem__)
        # Fake tensors bring their mode with them, and their symbolic sizes.
        node.meta["val"] = target(*args, **kwargs)
    return node


def does_nothing(node: Node, numbers: Quantization) -> bool:
    """Whether a commuting node leaves int8 values as they are, since quantizing has cut them already."""
    limits = limits_of(node)
    return is_identity(node) or (limits is not None and _bounds(limits, numbers) == (None, None))


def _bounds(limits: Limits, numbers: Quantization) -> tuple[int | None, int | None]:
    low, high = quantized(limits.low, numbers), quantized(limits.high, numbers)
    return low if low > numbers.quant_min else None, high if high < numbers.quant_max else None


def _pooled(graph: Graph, node: Node, x: Node) -> Node:
    """max_pool1d as max_pool2d over one row: torch has no int8 kernel for the first."""
    call = arguments(node)
    size, stride, padding, dilation = (
        _one(call[key]) for key in ("kernel_size", "stride", "padding", "dilation")
    )
    row = add_call(graph, torch.ops.aten.unsqueeze.default, (x, -2), {}, node)
    stride = size if stride is None else stride
    args = (row, [1, size], [1, stride], [0, padding], [1, dilation], call["ceil_mode"])
    pooled = add_call(graph, torch.ops.aten.max_pool2d.default, args, {}, node)
    return add_call(graph, torch.ops.aten.squeeze.dim, (pooled, -2), {}, node)


def _one(sizes: Any) -> Any:
    """The number in a list that may have one element, or none (then None)."""
    if not isinstance(sizes, (list, tuple)):
        return sizes
    return sizes[0] if sizes else None


@functools.cache
def survives(numbers: Quantization) -> bool:
    """Whether every int8 value comes back from dequantize and then quantize with the same numbers.

    float32 is exact enough unless a scale is so small or large that its products leave the normal range.
    """
    every = torch.arange(numbers.quant_min, numbers.quant_max + 1)
    return torch.equal(_quantized(_dequantized(every, numbers), numbers), every)


@functools.cache
def keeps_grid(limits: Limits, numbers: Quantization) -> bool:
    """Whether a clamp of dequantized int8 values gives dequantized int8 values: those of the clamped int8."""
    every = torch.arange(numbers.quant_min, numbers.quant_max + 1)
    clamped = _dequantized(every, numbers).clamp(limits.low, limits.high)
    bounds = (quantized(limit, numbers) for limit in (limits.low, limits.high))
    return torch.equal(_dequantized(every.clamp(*bounds), numbers), clamped)


def _dequantized(values: torch.Tensor, numbers: Quantization) -> torch.Tensor:
    return (values - numbers.zero_point).to(torch.float32) * numbers.scale


def _quantized(values: torch.Tensor, numbers: Quantization) -> torch.Tensor:
    rounded = torch.round(values * (1.0 / numbers.scale)) + numbers.zero_point
    return rounded.clamp(numbers.quant_min, numbers.quant_max).to(torch.int64)


def written_values(graph: Graph) -> set[Node]:
    """Nodes whose memory something in the graph writes to, through the node itself or a view of it."""
    origin: dict[Node, Node] = {}
    written: set[Node] = set()
    attributes: dict[Any, Node] = {}

    def root(node: Node) -> Node:
        while (above := origin.get(node)) is not None:
            node = above
        return node

    def share(first: Node, second: Node) -> None:
        if root(first) is not root(second):
            origin[root(first)] = root(second)

    for node in graph.nodes:
        if node.op == "get_attr":
            share(node, attributes.setdefault(node.target, node))
        if node.op in ("placeholder", "get_attr", "output") or node.target == "_guards_fn":
            continue
        if node.target is operator.getitem or is_identity(node):
            share(node, node.args[0])
            continue
        called = operator_of(node)
        if called is None:
            written.update(node.all_input_nodes)  # who knows
            continue
        call = arguments(node)
        for argument in called._schema.arguments:
            if argument.alias_info is None:
                continue
            for value in _nodes_of(call[argument.name]):
                if argument.alias_info.is_write and not _is_own(node, value):
                    written.add(value)
                share(node, value)
    roots = {root(node) for node in written}
    return {node for node in graph.nodes if root(node) in roots}


def _nodes_of(value: Any) -> list[Node]:
    found: list[Node] = []
    map_arg(value, found.append)
    return found


def _is_own(node: Node, value: Node) -> bool:
    """Whether nobody but a clamp in place can see that it changes `value` (relu_ of a linear's result)."""
    called = operator_of(value)
    fresh = called is not None and all(each.alias_info is None for each in called._schema.arguments)
    # What a quantize makes anew can become a view of int8 values that others read too.
    fresh = fresh and target_name(value) != QUANTIZE and not is_identity(value)
    return fresh and limits_of(node) is not None and list(value.users) == [node]


def passes(node: Node) -> bool:
    """Whether a node can lie on a path between linears: it commutes, quantizes, dequantizes, requantizes."""
    return bool(operands(node)) or target_name(node) in (QUANTIZE, DEQUANTIZE, REQUANTIZE)
