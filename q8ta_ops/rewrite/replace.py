"""Puts q8ta operators in the place of matched linears. The same for every kind of module.

What differs between the kinds, where constants live, is behind `Store`.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch.fx import Graph, GraphModule, Node

from .match import (
    DEQUANTIZE,
    DEQUANTIZE_PER_CHANNEL,
    LINEAR,
    Match,
    NoMatch,
    decomposed_linear,
    match_linear,
)
from .nodes import fake_value, find_fake_mode, layer_name, target_name
from .result import Replaced, Skipped


class Store(Protocol):
    """The constants of one module, as nodes of its graph."""

    graph: Graph

    def constant(self, node: Node) -> torch.Tensor | None:
        """The tensor behind a node if nothing in the graph writes to it, else None."""
        ...

    def key(self, node: Node) -> str:
        """Name of the constant behind a node: equal for two nodes that stand for one tensor."""
        ...

    def add_buffer(self, stem: str, tensor: torch.Tensor) -> Node:
        """Adds a buffer under a free name that begins with `stem`."""
        ...

    def discard(self, node: Node) -> bool:
        """Erases an unused node of a constant, and the constant if it was the last. False: not a constant."""
        ...


def replace_linears(store: Store) -> tuple[list[Replaced], list[Skipped]]:
    """Rewrites `store.graph` in place, in graph order.

    Returns:
        One record for every linear: those that were replaced and those that were left alone.
    """
    replaced: list[Replaced] = []
    skipped: list[Skipped] = []
    buffers = _Buffers(store)
    for node in list(store.graph.nodes):
        if decomposed_linear(node):
            reason = f"it is decomposed into {target_name(node)}: rewrite before run_decompositions()"
            skipped.append(Skipped(node, reason))
        if target_name(node) != LINEAR:
            continue
        try:
            match = match_linear(node, store.constant)
        except NoMatch as reason:
            skipped.append(Skipped(node, str(reason)))
            continue
        replaced.append(_replace(store, buffers, match))
    return replaced, skipped


def skipped_in_nested_graphs(module: GraphModule) -> list[Skipped]:
    """Records for the linears in graphs that control flow operators call: the rewrite stays out of them."""
    nested = [child for child in module.modules() if isinstance(child, GraphModule) and child is not module]
    nodes = [node for child in nested for node in child.graph.nodes]
    return [Skipped(node, "it is in a nested graph") for node in nodes if target_name(node) == LINEAR]


class _Buffers:
    """The buffers that operators need, made once for each weight."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._made: dict[tuple[str, str], Node] = {}

    def weight_sums(self, match: Match) -> Node:
        """int32 [N]: sum over K of each row of the weights."""
        key = ("sums", self._store.key(match.weights.node))
        if key not in self._made:
            sums = match.weights.values.detach().sum(dim=1, dtype=torch.int32)
            self._made[key] = self._store.add_buffer("q8ta_weight_sums", sums)
        return self._made[key]

    def weight_scales(self, match: Match) -> Node:
        """float32 [N]: the graph's own scales where they have this form, else a new buffer."""
        weights = match.weights
        if weights.scales_node is not None:
            return weights.scales_node
        key = ("scales", weights.dequantize.name)
        if key not in self._made:
            self._made[key] = self._store.add_buffer("q8ta_weight_scales", weights.scales)
        return self._made[key]


def _replace(store: Store, buffers: _Buffers, match: Match) -> Replaced:
    linear, weights = match.linear, match.weights
    graph = store.graph
    # At the linear's own place: all operands come before it, all consumers after it.
    with graph.inserting_before(linear):
        weight_sums, weight_scales = buffers.weight_sums(match), buffers.weight_scales(match)
    activation = "relu" if match.relu is not None else "none"
    operands = (match.x, match.input_scale, match.input_zero_point, weights.node, weight_sums, weight_scales)
    if match.quantizes:
        operands += (match.output_scale, match.output_zero_point)
    operator = getattr(torch.ops.q8ta, match.op).default
    with graph.inserting_before(linear):
        node = graph.create_node(
            "call_function", operator, (*operands, match.bias, activation), name=f"q8ta_{match.op}"
        )
    node.meta = _metadata(match)
    record = Replaced(
        op=match.op,
        node=node,
        linear=linear.name,
        layer=layer_name(linear),
        in_features=weights.values.shape[1],
        out_features=weights.values.shape[0],
        activation=activation,
        note=match.note,
    )

    for old in match.quantizes or (match.relu or linear,):
        old.replace_all_uses_with(node)
    for old in (*match.quantizes, match.relu, linear):
        if old is not None:
            graph.erase_node(old)
    for dequantize in (match.dequantize, weights.dequantize):
        _erase_unused(store, dequantize)
    return record


def _metadata(match: Match) -> dict[str, Any]:
    """The linear's metadata (its place in the model), with the value of the new result."""
    dropped = ("val", "tensor_meta", "quantization_annotation")
    meta = {key: value for key, value in match.linear.meta.items() if key not in dropped}
    value = fake_value(match.linear)
    if value is not None:
        dtype = torch.int8 if match.quantizes else torch.float32
        meta["val"] = value.new_empty(value.shape, dtype=dtype)
    return meta


def _erase_unused(store: Store, node: Node) -> None:
    """Erases a dequantize that nothing uses any more, and what then became unused above it."""
    if node.users:
        return
    above = node.all_input_nodes
    if target_name(node) in (DEQUANTIZE, DEQUANTIZE_PER_CHANNEL):
        store.graph.erase_node(node)
    elif not store.discard(node):
        return
    for each in above:
        _erase_unused(store, each)


def fake_constant(graph: Graph, tensor: torch.Tensor) -> torch.Tensor | None:
    """What export would record as the value of a new constant; None in a graph without recorded values."""
    mode = find_fake_mode(graph)
    return None if mode is None else mode.from_tensor(tensor, static_shapes=True)
