"""Linears that `run_decompositions()` took apart are put together again, so that one form is matched.

Where the weight is a dequantize node, `aten.linear` appears after decomposition as one of

    [view | unsqueeze] -> mm or addmm with the transposed weight             -> [view | squeeze]
    expand -> view     -> bmm with the transposed and expanded weight -> view -> [add of the bias]

What stands before and after the product only changes the leading sizes: the rows keep their order. So the
whole is `aten.linear` of a node before the product, in the place of a node after it with equal leading sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.fx.node import map_arg

from .commuting import written_values
from .nodes import arguments, fake_value, target_name
from .result import NoMatch, Skipped
from .store import Store
from .weights import DEQUANTIZES

LINEAR = "aten.linear.default"
_PRODUCTS = {"aten.addmm.default": "mat1", "aten.mm.default": "self", "aten.bmm.default": "self"}
_VIEWS = (
    "aten.view.default",
    "aten._unsafe_view.default",
    "aten.reshape.default",
    "aten.unsqueeze.default",
    "aten.squeeze.default",
    "aten.squeeze.dim",
    "aten.squeeze.dims",
    "aten.clone.default",
    "aten.contiguous.default",
)
_EXPAND = "aten.expand.default"


@dataclass(frozen=True)
class _Copy:
    """What an erased node was."""

    node: Node
    target: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    meta: dict[str, Any]
    name: str


@dataclass(frozen=True)
class Recomposed:
    """An `aten.linear` node that took the place of others.

    `copies` are those, in graph order; the last one's result is the linear's. `product` is the mm, addmm or
    bmm among them. `x` and `weight` were the linear's operands when it was made.
    """

    linear: Node
    x: Node
    weight: Node
    product: Node
    copies: tuple[_Copy, ...]

    def restore(self, store: Store) -> Node:
        """Takes the linear apart again. Returns the node of the product."""
        call = arguments(self.linear)
        now = {self.x: call["input"], self.weight: call["weight"]}
        for copy in self.copies:
            args, kwargs = (map_arg(each, lambda old: now.get(old, old)) for each in (copy.args, copy.kwargs))
            with store.graph.inserting_before(self.linear):
                node = store.graph.create_node("call_function", copy.target, args, kwargs)
            node.meta, now[copy.node] = copy.meta, node
        self.linear.replace_all_uses_with(now[self.copies[-1].node])
        store.graph.erase_node(self.linear)
        for copy in self.copies:
            now[copy.node].name = copy.name
        return now[self.product]


def recompose(store: Store) -> tuple[dict[Node, Recomposed], list[Skipped]]:
    """Puts the decomposed linears of `store.graph` together, in place.

    Returns:
        The new linear nodes and what they stand for; and the products with a dequantized weight that are no
        linear, with the reason.
    """
    recomposed, skipped = {}, []
    written = written_values(store.graph)
    for node in list(store.graph.nodes):
        if target_name(node) not in _PRODUCTS:
            continue
        weight_path = _weight_path(node)
        if not weight_path:
            continue
        try:
            made = _recompose(store, node, weight_path, written)
        except NoMatch as reason:
            skipped.append(Skipped(node, str(reason)))
            continue
        recomposed[made.linear] = made
    return recomposed, skipped


def erase_leftovers(store: Store, recomposed: dict[Node, Recomposed]) -> None:
    """Erases what only the nodes of the decomposed linears used, such as sizes."""
    unused: set[Node] = set()
    for made in recomposed.values():
        for copy in made.copies:
            map_arg((copy.args, copy.kwargs), unused.add)
    for node in reversed(store.graph.nodes):
        if node in unused and not node.users and node.op == "call_function" and not node.is_impure():
            unused.update(node.all_input_nodes)
            store.graph.erase_node(node)


def _recompose(store: Store, product: Node, weight_path: list[Node], written: set[Node]) -> Recomposed:
    call = arguments(product)
    weight, bias = weight_path[-1].args[0], None
    if target_name(product) == "aten.addmm.default":
        bias = call["self"]
        if (call["beta"], call["alpha"]) != (1, 1):
            raise NoMatch(
                f"it scales its parts (beta {call['beta']}, alpha {call['alpha']}), expected 1 and 1"
            )
        if len(_constant_shape(bias, store)) != 1:
            raise NoMatch("it adds something else than a bias with one dimension")
    inputs = _inputs(call[_PRODUCTS[target_name(product)]], written)
    results = _results(product)
    x, result = _with_equal_leading_sizes(inputs, results)
    above, below = inputs[: inputs.index(x)], results[: results.index(result) + 1]
    addition = _bias_addition(result, store) if target_name(product) == "aten.bmm.default" else None
    if addition is not None:
        bias = arguments(addition)["other"]
        below.append(addition)

    erased = set(below)
    for node in (*above, *weight_path):
        if all(user in erased for user in node.users):
            erased.add(node)
    last = below[-1]
    with store.graph.inserting_before(last):
        linear = store.graph.call_function(torch.ops.aten.linear.default, (x, weight, bias))
    linear.meta = {key: value for key, value in product.meta.items() if key not in ("val", "tensor_meta")}
    if "val" in last.meta:
        linear.meta["val"] = last.meta["val"]
    last.replace_all_uses_with(linear)
    copies = tuple(
        _Copy(node, node.target, node.args, node.kwargs, node.meta, node.name)
        for node in store.graph.nodes
        if node in erased
    )
    for copy in reversed(copies):
        store.graph.erase_node(copy.node)
    linear.name = product.name
    return Recomposed(linear, x, weight, product, copies)


def _weight_path(product: Node) -> list[Node]:
    """The nodes from a product's second operand up to, not including, a dequantize node; [] if there is none.

    Empty as well where they do anything but transpose [N, K] and, for bmm, repeat the result.
    """
    node = arguments(product)["mat2"]
    path = []
    if target_name(product) == "aten.bmm.default":
        expanded = _shape(node)
        while target_name(node) in (*_VIEWS, _EXPAND):
            path.append(node)
            # A view may pass through any shape; an expand must repeat whole matrices.
            if target_name(node) == _EXPAND and _shape(node)[-2:] != expanded[-2:]:
                return []
            node = node.args[0]
        if _shape(node) != expanded[-2:]:
            return []
    if not isinstance(node, Node) or not _is_transpose(node):
        return []
    path.append(node)
    return path if target_name(node.args[0]) in DEQUANTIZES else []


def _is_transpose(node: Node) -> bool:
    """Whether a node swaps the two dimensions of a matrix."""
    name = target_name(node)
    if name == "aten.t.default":
        return True
    if name == "aten.permute.default":
        return [dim % 2 for dim in node.args[1]] == [1, 0]
    if name == "aten.transpose.int":
        value = fake_value(node)
        return (value is None or value.dim() == 2) and (node.args[1] - node.args[2]) % 2 == 1
    return False


def _shape(node: object) -> tuple[Any, ...]:
    value = fake_value(node) if isinstance(node, Node) else None
    return () if value is None else tuple(value.shape)


def _constant_shape(node: Any, store: Store) -> tuple[Any, ...]:
    value = store.constant(node) if isinstance(node, Node) else None
    return _shape(node) if value is None else tuple(value.shape)


def _inputs(x: Node, written: set[Node]) -> list[Node]:
    """A product's first operand, and what is above it and may hold the same rows in the same order."""
    nodes = [x]
    while target_name(nodes[-1]) in (*_VIEWS, _EXPAND):
        node = nodes[-1]
        above = node.args[0]
        # What is written to a copy does not reach its source.
        if node in written or not _equal(_shape(node)[-1:], _shape(above)[-1:]):
            break
        nodes.append(above)
    return nodes


def _results(product: Node) -> list[Node]:
    """What holds the rows of a product's result: the product, then views of it that have no siblings."""
    nodes = [product]
    while len(nodes[-1].users) == 1:
        (user,) = nodes[-1].users
        if target_name(user) not in _VIEWS or not _equal(_shape(user)[-1:], _shape(nodes[-1])[-1:]):
            break
        nodes.append(user)
    return nodes


def _with_equal_leading_sizes(inputs: list[Node], results: list[Node]) -> tuple[Node, Node]:
    """The outermost pair; the product's own operand and result are one.

    Views with equal sizes hold the same rows, and an expand between them has not repeated any.
    """
    for result in reversed(results):
        for x in reversed(inputs):
            if _shape(x) and _equal(_shape(x)[:-1], _shape(result)[:-1]):
                return x, result
    return inputs[0], results[0]


def _equal(first: tuple[Any, ...], second: tuple[Any, ...]) -> bool:
    """Whether sizes are known to be equal. Does not add a guard to the program where they are symbolic."""
    return len(first) == len(second) and all(
        statically_known_true(a == b) for a, b in zip(first, second, strict=True)
    )


def _bias_addition(result: Node, store: Store) -> Node | None:
    """The `result + bias` that is all that happens to a result."""
    if len(result.users) != 1:
        return None
    (user,) = result.users
    if target_name(user) != "aten.add.Tensor" or user.args[0] is not result:
        return None
    call = arguments(user)
    is_bias = _equal(_constant_shape(call["other"], store), _shape(result)[-1:])
    return user if is_bias and call["alpha"] == 1 else None
