"""Brings int8 values from linear to linear: what lies between them moves to the int8 side.

    linear -> view -> quantize                        linear -> quantize -> view
    dequantize -> view -> linear                      view -> dequantize -> linear
    dequantize -> quantize, same numbers              nothing
    dequantize -> quantize, other numbers             q8ta.requantize
    dequantize -> view -> quantize, other numbers     view -> q8ta.requantize

for every operator in `commuting.py` in the place of view. After each of these the graph computes the same
bits. It is done where it puts a quantize directly behind a linear, or a dequantize directly in front of one,
or where both ends of a path with a linear on it are int8.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterable, Iterator

import torch
from torch.fx import Node

from .clamps import Limits, limits_of
from .commuting import (
    add_call,
    does_nothing,
    keeps_grid,
    on_integers,
    operands,
    passes,
    survives,
    written_values,
)
from .forms import Quantization, dequantize_form, problem_of, quantize_form
from .linear_forms import LINEAR
from .nodes import arguments, fake_value, target_name
from .store import Store
from .weights import DEQUANTIZES


def join_linears(store: Store) -> int:
    """Moves what commutes with quantization to the int8 side, in place, where that joins linears.

    Expects linears as `aten.linear` and int8 activations as `quantized_decomposed` with literal numbers.

    Returns:
        How many quantize nodes and inputs of linears were replaced.
    """
    joiner = _Joiner(store)
    for node in list(store.graph.nodes):
        if quantize_form(node) is not None:
            joiner.join_quantize(node)
        elif is_quantized_linear(node):
            joiner.join_input(node)
    joiner.erase_unused()
    return joiner.changes


def is_quantized_linear(node: Node) -> bool:
    """Whether a node is a linear whose weight is dequantized."""
    if target_name(node) != LINEAR:
        return False
    weight = arguments(node)["weight"]
    return isinstance(weight, Node) and target_name(weight) in DEQUANTIZES


class _Joiner:
    def __init__(self, store: Store) -> None:
        self.changes = 0
        self._graph = store.graph
        self._written = written_values(store.graph)
        # The int8 values that quantizing a float node gives. A float node never changes its values here.
        self._integers: dict[tuple[Node, Quantization], Node] = {}
        self._grids: dict[Node, Quantization | None] = {}
        self._unused: set[Node] = set()

    def join_quantize(self, quantize: Node) -> None:
        """Replaces a quantize node by int8 values that come from further up, where that is of use."""
        node, numbers = quantize_form(quantize)
        if quantize in self._written or not self._is_of_use(quantize, node, numbers):
            return
        with self._graph.inserting_before(quantize):
            integers = self._quantized(node, numbers, quantize)
        quantize.replace_all_uses_with(integers)
        self._replaced(node)

    def join_input(self, linear: Node) -> None:
        """Puts a dequantize directly in front of a linear whose input comes from one further up."""
        node = arguments(linear)["input"]
        if self._source(node) is not None:
            return
        numbers = self._grid(node)
        if numbers is None:
            return
        dequantize = next(leaf for leaf in self._leaves(node, numbers))
        with self._graph.inserting_before(linear):
            integers = self._quantized(node, numbers, dequantize)
            moved = add_call(
                self._graph,
                dequantize.target,
                (integers, *dequantize.args[1:]),
                dequantize.kwargs,
                dequantize,
            )
        linear.args = (moved, *linear.args[1:])
        self._replaced(node)

    def _replaced(self, node: Node) -> None:
        """Remembers what may be unused now: the paths to `node`, its users, parts of splits on the way."""
        for each in _reachable([node], operands):
            self._unused.update([each, *each.users])
        self.changes += 1

    def erase_unused(self) -> None:
        """Erases the float nodes that nothing uses any more."""
        for node in reversed(list(self._graph.nodes)):
            part = node.target is operator.getitem
            if node in self._unused and not node.users and (part or passes(node)):
                self._unused.update(node.all_input_nodes)
                self._graph.erase_node(node)

    def _is_of_use(self, quantize: Node, node: Node, numbers: Quantization) -> bool:
        """Whether a quantize of `node` gets next to a linear, or is on a path with int8 at both ends."""
        if problem_of(numbers) or (numbers.quant_min, numbers.quant_max) != (-128, 127):
            return False
        leaves = self._leaves(node, numbers)
        if all(self._source(leaf) is not None for leaf in leaves):
            return _reaches_linear(leaves, lambda each: each.all_input_nodes) or _reaches_linear(
                [quantize], lambda each: each.users
            )
        if not all(self._source(leaf) is not None or _is_float32(leaf, numbers) for leaf in leaves):
            return False
        return any(
            leaf is not node and _is_result(leaf, numbers) and self._wanted(leaf) == {numbers}
            for leaf in leaves
        )

    def _quantized(self, node: Node, numbers: Quantization, old: Node) -> Node:
        """The int8 values that quantizing a float node gives, added at the insertion point where needed.

        Args:
            old: the quantize (or dequantize) whose work this does.
        """
        key = (node, numbers)
        if key not in self._integers:
            self._integers[key] = self._add_quantized(node, numbers, old)
        return self._integers[key]

    def _add_quantized(self, node: Node, numbers: Quantization, old: Node) -> Node:
        source = self._source(node)
        if source is not None:
            values, own = source
            return values if own == numbers and survives(numbers) else self._requantize(*source, numbers, old)
        inputs = self._inputs(node, numbers)
        if not inputs:
            return add_call(self._graph, old.target, (node, *old.args[1:]), old.kwargs, old)
        if does_nothing(node, numbers):
            return self._quantized(inputs[0], numbers, old)
        own = self._grid(node)
        if own is not None and own != numbers:
            # Behind slices and maxima, where there are fewer values, and once for all that reads them.
            return self._requantize(self._quantized(node, own, old), own, numbers, old)
        replaced = {each: self._quantized(each, numbers, old) for each in inputs}
        return on_integers(self._graph, node, replaced, numbers)

    def _requantize(self, values: Node, own: Quantization, numbers: Quantization, old: Node) -> Node:
        args = (values, own.scale, own.zero_point, numbers.scale, numbers.zero_point)
        return add_call(self._graph, torch.ops.q8ta.requantize.default, args, {}, old)

    def _source(self, node: Node) -> tuple[Node, Quantization] | None:
        """The int8 values that a float node is dequantized from, and their numbers."""
        form = dequantize_form(node)
        if form is None or problem_of(form[1]) or {node, form[0]} & self._written:
            return None
        # The range of a dequantize says nothing about its result.
        return form[0], dataclasses.replace(form[1], quant_min=-128, quant_max=127)

    def _inputs(self, node: Node, numbers: Quantization) -> tuple[Node, ...]:
        """The values of a commuting node; empty where a path of such nodes begins."""
        return () if node in self._written or _is_result(node, numbers) else operands(node)

    def _leaves(self, node: Node, numbers: Quantization) -> set[Node]:
        """The nodes where the paths begin that lead through commuting nodes to `node`."""
        leaves: set[Node] = set()
        for each in _reachable([node], lambda each: self._inputs(each, numbers)):
            if not self._inputs(each, numbers):
                leaves.add(each)
        return leaves

    def _grid(self, node: Node) -> Quantization | None:
        """Numbers under which a float node is exactly the dequantized form of int8 values, where known."""
        if node not in self._grids:
            self._grids[node] = self._find_grid(node)
        return self._grids[node]

    def _find_grid(self, node: Node) -> Quantization | None:
        source = self._source(node)
        if source is not None:
            return source[1] if survives(source[1]) else None
        grids = set() if node in self._written else {self._grid(each) for each in operands(node)}
        numbers = grids.pop() if len(grids) == 1 else None
        limits = limits_of(node)
        if numbers is None or (limits is not None and not keeps_grid(limits, numbers)):
            return None
        return numbers

    def _wanted(self, node: Node) -> set[Quantization | None]:
        """What becomes of a float node behind commuting nodes: numbers of quantizes, None for other uses."""
        wanted: set[Quantization | None] = set()

        def further(each: Node) -> list[Node]:
            commuting = []
            for user in each.users:
                form = quantize_form(user)
                if form is not None:
                    wanted.add(form[1])
                elif operands(user):
                    commuting.append(user)
                elif user.target is not operator.getitem or user.users:  # export leaves unused parts
                    wanted.add(None)
                if user in self._written:
                    wanted.add(None)
            return commuting

        for _ in _reachable([node], further):
            pass
        return wanted


def _is_result(node: Node, numbers: Quantization) -> bool:
    """Whether a node is a quantized linear, or clamps behind one that are a part of the operator."""
    limits = Limits()
    while (own := limits_of(node)) is not None and len(node.args[0].users) == 1:
        limits, node = own.then(limits), node.args[0]
    return is_quantized_linear(node) and limits.activation_under(numbers) is not None


def _is_float32(node: Node, numbers: Quantization) -> bool:
    value = fake_value(node)
    return _is_result(node, numbers) or (value is not None and value.dtype == torch.float32)


def _reaches_linear(start: Iterable[Node], step: Callable[[Node], Iterable[Node]]) -> bool:
    nodes = _reachable(start, lambda node: step(node) if passes(node) else ())
    return any(is_quantized_linear(node) for node in nodes)


def _reachable(start: Iterable[Node], step: Callable[[Node], Iterable[Node]]) -> Iterator[Node]:
    """Every node that steps lead to, `start` included, once."""
    seen: set[Node] = set()
    waiting = list(start)
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            yield node
            waiting.extend(step(node))
