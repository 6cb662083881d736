"""Rewrite of the graph that torch.compile hands to a backend: parameters and buffers are placeholders.

Their values come with every call, as the real tensors of the module. So a constant here is a promise that the
module's owner can break, and `DynamoStore` records which ones a rewrite has relied on (`compile.py` watches
them).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch._dynamo.source import ConstantSource
from torch._ops import OpOverload, OpOverloadPacket
from torch._subclasses import FakeTensor
from torch.fx import GraphModule, Node

from .graph_module import AttributeStore
from .nodes import only_read, target_name
from .replace import replace_linears, skipped_in_nested_graphs
from .result import RewriteResult

_ATEN = torch.ops.aten
# What a module that was not exported calls. These functions take their arguments as the operators do.
_OPERATORS = {
    torch.nn.functional.linear: _ATEN.linear.default,
    torch.relu: _ATEN.relu.default,
    torch.relu_: _ATEN.relu_.default,
    torch.nn.functional.relu_: _ATEN.relu_.default,
}
_METHODS = {"relu": _ATEN.relu.default, "relu_": _ATEN.relu_.default}


class DynamoStore(AttributeStore):
    """Constants of a dynamo graph (see `replace.Store`): parameters and buffers of the compiled module.

    Attributes:
        relied_on: what the rewrite has asked for, by the name of the placeholder or attribute.
        added: the buffers that it has added, by name.
    """

    def __init__(self, module: GraphModule, inputs: Sequence[Any]) -> None:
        super().__init__(module)
        placeholders = [node for node in self.graph.nodes if node.op == "placeholder"]
        self._inputs = {
            node.name: value
            for node, value in zip(placeholders, inputs, strict=True)
            if _belongs_to_module(node) and isinstance(value, torch.Tensor)
        }
        self.relied_on: dict[str, torch.Tensor] = {}
        self.added: dict[str, torch.Tensor] = {}

    def constant(self, node: Node) -> torch.Tensor | None:
        if isinstance(node, Node) and node.op == "placeholder":
            tensor = self._inputs.get(node.name) if only_read(node) else None
        else:
            tensor = super().constant(node)
        if tensor is None or isinstance(tensor, FakeTensor):
            return None
        if node.target not in self.added:
            self.relied_on[self.key(node)] = tensor
        return tensor

    def key(self, node: Node) -> str:
        return node.name if node.op == "placeholder" else super().key(node)

    def add_buffer(self, stem: str, tensor: torch.Tensor) -> Node:
        node = super().add_buffer(stem, tensor)
        # AOTAutograd wants to know where every tensor of a dynamo graph comes from.
        sources = getattr(self.module, "_param_name_to_source", None)
        if sources is not None:
            sources[node.target] = ConstantSource(node.target)
        self.added[node.target] = tensor
        return node

    def discard(self, node: Node) -> bool:
        # Placeholders stay: how the graph is called is fixed by now.
        return node.op != "placeholder" and super().discard(node)


def rewrite_dynamo_graph(
    module: GraphModule, inputs: Sequence[Any]
) -> tuple[RewriteResult[GraphModule], DynamoStore]:
    """Rewrites `module` in place, as it came from dynamo with its `inputs` (real tensors for parameters).

    Returns:
        What was done, and the store: what it has relied on and added.
    """
    for node in module.graph.nodes:
        _rename_value(node, "example_value", "val")  # the rewrite knows export's name for it
        _use_operator(node)
    store = DynamoStore(module, inputs)
    replaced, skipped = replace_linears(store)
    _detach_operands(module)
    for node in module.graph.nodes:
        _rename_value(node, "val", "example_value")  # Inductor takes placeholders with "val" for export's
    module.graph.lint()
    module.recompile()
    return RewriteResult(module, replaced, skipped + skipped_in_nested_graphs(module)), store


def copy_of(module: GraphModule) -> GraphModule:
    """A copy of a dynamo graph's nodes, without its tensors, that can be rewritten in its place."""
    copied = copy.deepcopy(module.graph)
    for node, original in zip(copied.nodes, module.graph.nodes, strict=True):
        node.name = original.name  # a copy renames nodes that are called like a Python builtin
        # Not the rest: it leads to the user's tensors and frames, and a copy may live long.
        node.meta = {
            key: original.meta[key] for key in ("example_value", "tensor_dict") if key in original.meta
        }
    return GraphModule(module, copied)


def _belongs_to_module(placeholder: Node) -> bool:
    """Whether dynamo has lifted this input out of a module (or the user has marked it as static)."""
    return bool(placeholder.meta.get("tensor_dict", {}).get("_dynamo_static_input_type"))


def _rename_value(node: Node, old: str, new: str) -> None:
    if old in node.meta:
        node.meta[new] = node.meta.pop(old)


def _use_operator(node: Node) -> None:
    """Makes a call of a Python function what export would have recorded, where the rewrite looks for it."""
    if node.op == "call_method" and node.target in _METHODS:
        node.op, node.target = "call_function", _METHODS[node.target]
    elif node.op != "call_function":
        return
    elif node.target is torch.nn.functional.relu:
        inplace = node.kwargs.get("inplace", node.args[1] if len(node.args) > 1 else False)
        node.target = _ATEN.relu_.default if inplace is True else _ATEN.relu.default
        node.args, node.kwargs = (node.kwargs.get("input", *node.args[:1]),), {}
    elif isinstance(node.target, OpOverloadPacket):
        node.target = next(
            (each for each in _overloads(node.target) if _fits(node, each._schema)), node.target
        )
    else:
        node.target = _OPERATORS.get(node.target, node.target)


def _overloads(packet: OpOverloadPacket) -> list[OpOverload]:
    """The overloads that a call without one may mean, of those that the rewrite looks for."""
    names = packet.overloads()
    if packet._qualified_op_name.split("::")[0] == "aten":
        names = [name for name in names if name == "default"]
    return [getattr(packet, name) for name in names]


def _fits(node: Node, schema: torch.FunctionSchema) -> bool:
    """Whether a call gives tensors where the schema has them, and only there."""
    types = {argument.name: str(argument.type) for argument in schema.arguments}
    values = dict(zip(types, node.args, strict=False)) | dict(node.kwargs)
    for name, value in values.items():
        if isinstance(value, Node):
            value = value.meta.get("val")
        if name not in types or isinstance(value, torch.Tensor) != (
            "Tensor" in types[name] and value is not None
        ):
            return False
    return len(node.args) <= len(types)


def _detach_operands(module: GraphModule) -> None:
    """Keeps autograd away from the q8ta operators: they have no backward, and a bias is often a parameter.

    Without this, AOTAutograd would trace a backward that nobody asked for, and fail.
    """
    graph = module.graph
    for node in list(graph.nodes):
        if not target_name(node).startswith("q8ta."):
            continue
        for operand in node.all_input_nodes:
            value = operand.meta.get("val")
            if isinstance(value, torch.Tensor) and value.requires_grad:
                with graph.inserting_before(node):
                    detached = graph.call_function(_ATEN.detach.default, (operand,))
                detached.meta["val"] = value.detach()
                node.replace_input_with(operand, detached)
