"""Rewrite of a GraphModule, as `convert_pt2e` returns it: constants are attributes (get_attr nodes)."""

from __future__ import annotations

import copy
from operator import attrgetter
from typing import Any

import torch
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.fx import Graph, GraphModule, Node
from torch.utils._pytree import tree_leaves, tree_map_only

from .nodes import only_read
from .replace import replace_linears, skipped_in_nested_graphs
from .result import RewriteResult
from .store import fake_constant


def rewrite_graph_module(module: GraphModule) -> RewriteResult[GraphModule]:
    """Returns a rewritten copy of `module` that shares the tensors which the graph only reads."""
    copied = _copy_sharing_constants(module)
    _record_in_one_mode(copied.graph)
    store = AttributeStore(copied)
    replaced, skipped = replace_linears(store)
    if replaced:
        _drop_unused_parameters(copied)
    copied.graph.lint()
    copied.recompile()
    return RewriteResult(copied, replaced, skipped + skipped_in_nested_graphs(copied))


def _record_in_one_mode(graph: Graph) -> None:
    """Gives the recorded values one fake mode where they have several, as `make_fx` leaves them.

    It does so for real tensors, so all sizes are numbers.
    """

    def fakes(node: Node) -> list[FakeTensor]:
        return [value for value in tree_leaves(node.meta.get("val")) if isinstance(value, FakeTensor)]

    if len({value.fake_mode for node in graph.nodes for value in fakes(node)}) < 2:
        return
    mode = FakeTensorMode()

    def moved(value: FakeTensor) -> torch.Tensor:
        with mode:
            return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device=value.device)

    for node in graph.nodes:
        if fakes(node):
            node.meta["val"] = tree_map_only(FakeTensor, moved, node.meta["val"])


class AttributeStore:
    """Constants of a GraphModule (see `store.Store`)."""

    def __init__(self, module: GraphModule) -> None:
        self.module = module
        self.graph = module.graph

    def constant(self, node: Node) -> torch.Tensor | None:
        if not isinstance(node, Node) or node.op != "get_attr":
            return None
        tensor = _attribute(self.module, node.target)
        same = [other for other in self.graph.nodes if other.op == "get_attr" and other.target == node.target]
        return tensor if isinstance(tensor, torch.Tensor) and all(only_read(each) for each in same) else None

    def key(self, node: Node) -> str:
        return str(node.target)

    def add_buffer(self, stem: str, tensor: torch.Tensor) -> Node:
        index = 0
        while hasattr(self.module, f"{stem}_{index}"):
            index += 1
        name = f"{stem}_{index}"
        self.module.register_buffer(name, tensor)
        node = self.graph.create_node("get_attr", name)
        value = fake_constant(self.graph, tensor)
        if value is not None:
            node.meta["val"] = value
        return node

    def discard(self, node: Node) -> bool:
        if node.op != "get_attr" or not isinstance(_attribute(self.module, node.target), torch.Tensor):
            return False
        self.graph.erase_node(node)
        if node.target not in _used_attributes(self.module):
            _delete_attribute(self.module, node.target)
        return True


def _attribute(module: GraphModule, target: str) -> Any:
    try:
        return attrgetter(target)(module)
    except AttributeError:
        return None


def _delete_attribute(module: GraphModule, target: str) -> None:
    path, _, name = target.rpartition(".")
    delattr(attrgetter(path)(module) if path else module, name)


def _used_attributes(module: GraphModule) -> set[str]:
    return {node.target for node in module.graph.nodes if node.op in ("get_attr", "call_module")}


def _copy_sharing_constants(module: GraphModule) -> GraphModule:
    store = AttributeStore(module)
    # deepcopy takes an object found in the memo as its own copy. Tensors that the graph may write to are not
    # put there: running the result must not change the caller's module either.
    shared = [tensor for node in module.graph.nodes if (tensor := store.constant(node)) is not None]
    shared += [tensor for _, tensor in _unused_parameters(module)]
    return copy.deepcopy(module, {id(tensor): tensor for tensor in shared})


def _unused_parameters(module: GraphModule) -> list[tuple[str, torch.nn.Parameter]]:
    """Parameters that no node reaches, not even through a submodule that it calls."""
    used = _used_attributes(module)

    def is_used(name: str) -> bool:
        parts = name.split(".")
        return any(".".join(parts[:length]) in used for length in range(1, len(parts) + 1))

    parameters = module.named_parameters(remove_duplicate=False)
    return [(name, parameter) for name, parameter in parameters if not is_used(name)]


def _drop_unused_parameters(module: GraphModule) -> None:
    """Drops the float weights that convert_pt2e leaves behind: four times the size of the int8 ones."""
    for name, _ in _unused_parameters(module):
        _delete_attribute(module, name)
