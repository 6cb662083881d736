"""Puts q8ta operators in the place of linears. The same for every kind of module.

What differs between the kinds, where constants live, is behind `Store`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from .commute import join_linears
from .commuting import written_values
from .dialects import to_literals
from .forms import quantize_form
from .linear_forms import LINEAR, erase_leftovers, recompose
from .match import Match, match_linear
from .nodes import fake_value, layer_name, target_name
from .result import NoMatch, Replaced, Skipped
from .store import Store, erase_unused
from .uint8 import shift_to_int8


def replace_linears(store: Store) -> tuple[list[Replaced], list[Skipped]]:
    """Rewrites `store.graph` in place, in graph order.

    First the graph is brought into one form, without a change of any result: quantizations with literal
    numbers, whole linears, int8 instead of uint8, quantizations next to linears. Then linears are matched.

    Returns:
        One record for every linear: those that were replaced and those that were left alone.
    """
    to_literals(store)
    recomposed, skipped = recompose(store)
    shift_to_int8(store)
    join_linears(store)
    buffers, written = _Buffers(store), written_values(store.graph)
    replaced: list[Replaced] = []
    for node in list(store.graph.nodes):
        if target_name(node) != LINEAR:
            continue
        try:
            match = match_linear(node, store, written)
        except NoMatch as reason:
            left = recomposed[node].restore(store) if node in recomposed else node
            skipped.append(Skipped(left, str(reason)))
            continue
        replaced.append(_replace(store, buffers, match))
    erase_leftovers(store, recomposed)
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
    linear, weights, output = match.linear, match.weights, match.output
    graph = store.graph
    # At the linear's own place: all operands come before it, all consumers after it.
    with graph.inserting_before(linear):
        weight_sums, weight_scales = buffers.weight_sums(match), buffers.weight_scales(match)
    operands = (match.x, match.input.scale, match.input.zero_point, weights.node, weight_sums, weight_scales)
    if output.quantizes:
        _, numbers = quantize_form(output.quantizes[0])
        operands += (numbers.scale, numbers.zero_point)
    operator = getattr(torch.ops.q8ta, match.op).default
    with graph.inserting_before(linear):
        node = graph.create_node(
            "call_function", operator, (*operands, match.bias, output.activation), name=f"q8ta_{match.op}"
        )
    node.meta = _metadata(match)
    record = Replaced(
        op=match.op,
        node=node,
        linear=linear.name,
        layer=layer_name(linear),
        in_features=weights.values.shape[1],
        out_features=weights.values.shape[0],
        activation=output.activation,
        note=output.note,
    )

    folded = (linear, *output.clamps)
    for old in output.quantizes or folded[-1:]:
        old.replace_all_uses_with(node)
    for old in (*output.quantizes, *reversed(folded)):
        graph.erase_node(old)
    for dequantize in (match.dequantize, weights.dequantize):
        erase_unused(store, dequantize)
    return record


def _metadata(match: Match) -> dict[str, Any]:
    """The linear's metadata (its place in the model), with the value of the new result."""
    dropped = ("val", "tensor_meta", "quantization_annotation")
    meta = {key: value for key, value in match.linear.meta.items() if key not in dropped}
    value = fake_value(match.linear)
    if value is not None:
        dtype = torch.int8 if match.output.quantizes else torch.float32
        meta["val"] = value.new_empty(value.shape, dtype=dtype)
    return meta
