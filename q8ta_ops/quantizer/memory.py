"""Whether a tensor is written to between where it is computed and where it is read.

prepare_pt2e observes a tensor, and convert_pt2e quantizes it, right where it is computed. What `y[:, 0] = 0`
changes after that would be missed.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch.fx import Node
from torch.fx.node import map_arg

from ..rewrite.commuting import is_identity
from ..rewrite.nodes import arguments, operator_of


def changed_between(tensor: Node, reader: Node) -> bool:
    """Whether a node after `tensor` and before `reader` writes to its memory, directly or through a view."""
    shared = _sharing_memory(tensor)
    node = tensor.next
    while node is not reader:
        if any(each in shared for each in _operands(node, written=True)):
            return True
        node = node.next
    return False


def _sharing_memory(tensor: Node) -> set[Node]:
    """The tensor, its views, and what it is a view of."""
    shared, waiting = {tensor}, [tensor]
    while waiting:
        node = waiting.pop()
        views = [user for user in node.users if node in _operands(user)]
        for other in (*_operands(node), *views):
            if other not in shared:
                shared.add(other)
                waiting.append(other)
    return shared


def _operands(node: Node, written: bool = False) -> Iterator[Node]:
    """The operands that a node's result may share memory with; or only those that it writes to."""
    operator = operator_of(node) if node.op == "call_function" else None
    if operator is None or is_identity(node):
        # getitem of what split returns, dropout outside of training, sizes
        yield from () if written else node.all_input_nodes
        return
    call = arguments(node)
    for argument in operator._schema.arguments:
        if argument.alias_info is not None and (argument.alias_info.is_write or not written):
            found: list[Node] = []
            map_arg(call[argument.name], found.append)
            yield from found
