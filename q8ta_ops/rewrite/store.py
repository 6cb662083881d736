"""Where the constants of a module live, and the clean-up of what a change of its graph left unused."""

from __future__ import annotations

from typing import Protocol

import torch
from torch.fx import Graph, Node

from .nodes import find_fake_mode


class Store(Protocol):
    """The constants of one module, as nodes of its graph. One class for each kind of module."""

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


def erase_unused(store: Store, node: Node) -> None:
    """Erases a node that nothing uses any more, and what then became unused above it.

    Graph inputs stay, and so does what has an effect besides its result.
    """
    if node.users:
        return
    above = node.all_input_nodes
    if node.op == "call_function" and not node.is_impure():
        store.graph.erase_node(node)
    elif not store.discard(node):
        return
    for each in above:
        erase_unused(store, each)


def fake_constant(graph: Graph, tensor: torch.Tensor) -> torch.Tensor | None:
    """What export would record as the value of a new constant; None in a graph without recorded values."""
    mode = find_fake_mode(graph)
    return None if mode is None else mode.from_tensor(tensor, static_shapes=True)
