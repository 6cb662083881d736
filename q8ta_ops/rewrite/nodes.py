"""Small questions about graph nodes that matching and replacing both ask."""

from __future__ import annotations

from typing import Any

import torch
from torch._guards import detect_fake_mode
from torch._ops import OpOverload, OpOverloadPacket
from torch._subclasses import FakeTensorMode
from torch.fx import Graph, Node


def operator_of(node: Node) -> OpOverload | None:
    """The operator that a node calls, or None where it calls something else."""
    # torchao puts its own operators into graphs without saying which overload: they have one.
    if isinstance(node.target, OpOverloadPacket):
        return node.target.default if node.target.overloads() == ["default"] else None
    return node.target if isinstance(node.target, OpOverload) else None


def target_name(node: Node) -> str:
    """Name of what a call_function node calls, such as "aten.linear.default"; empty for other nodes.

    Comparing names instead of operator objects keeps this package from having to register the
    `quantized_decomposed` library itself: who made the graph has it.
    """
    return str(operator_of(node) or node.target) if node.op == "call_function" else ""


def arguments(node: Node) -> dict[str, Any]:
    """Arguments of an operator call by schema name, defaults filled in."""
    schema = operator_of(node)._schema
    bound = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    bound.update(zip((a.name for a in schema.arguments), node.args, strict=False))
    bound.update(node.kwargs)
    return bound


def fake_value(node: Node) -> torch.Tensor | None:
    """The tensor that export recorded for a node (shape and dtype, no data), or None."""
    value = node.meta.get("val")
    return value if isinstance(value, torch.Tensor) else None


def find_fake_mode(graph: Graph) -> FakeTensorMode | None:
    """The mode that the recorded tensors of a graph belong to, or None where there are none."""
    return detect_fake_mode([value for node in graph.nodes if (value := fake_value(node)) is not None])


def only_read(node: Node) -> bool:
    """Whether no user of the node can write to its tensor, directly or through a view."""
    for user in node.users:
        if user.op == "output":
            continue
        operator = operator_of(user)
        if operator is None or any(
            argument.alias_info is not None for argument in operator._schema.arguments
        ):
            return False
    return True


def layer_name(node: Node) -> str:
    """Path of the module that a node came from, or an empty string."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return ""
    path = list(stack.values())[-1][0]
    return path.removeprefix("L['self'].") if isinstance(path, str) else ""


def describe(node: Any) -> str:
    """What produces or uses a value, in words, for a reason that a person reads."""
    if not isinstance(node, Node):
        return f"the literal {node!r}"
    if node.op == "placeholder":
        return f"the graph input {node.name}"
    if node.op == "get_attr":
        return f"the attribute {node.target}"
    if node.op == "output":
        return "the graph's output"
    return target_name(node) or f"{node.op} {node.target}"
