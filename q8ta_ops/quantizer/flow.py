"""Where the result of a linear goes: behind its activation, and on to the linears that read it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from torch.fx import Node

from ..rewrite.clamps import Limits, limits_of
from ..rewrite.commuting import operands
from ..rewrite.nodes import target_name


@dataclass
class Region:
    """Tensors that hold the same values in different shapes.

    Attributes:
        sources: results of linears that flow into it.
        edges: (tensor, linear) where a linear takes a tensor of it as input.
        other_sources: whether values come from anything but `sources`.
        other_consumers: whether anything but the linears of `edges` uses the values.
    """

    sources: list[Node] = field(default_factory=list)
    edges: list[tuple[Node, Node]] = field(default_factory=list)
    other_sources: bool = False
    other_consumers: bool = False


def region_of(source: Node, sources: Collection[Node], inputs: Mapping[Node, Node]) -> Region:
    """The region that `source` belongs to.

    Args:
        source: one of `sources`.
        sources: nodes whose values are a linear's result.
        inputs: for each linear, the node of its input.
    """
    region = Region()
    seen, waiting = {source}, [source]
    while waiting:
        node = waiting.pop()
        if node in sources:
            region.sources.append(node)
            reached = []
        elif carried(node):
            reached = list(carried(node))
        else:
            region.other_sources = True
            continue
        for user in node.users:
            if carried(user):
                reached.append(user)
            elif inputs.get(user) is node:
                region.edges.append((node, user))
            elif not target_name(user).startswith("aten.sym_"):  # asks for a size only
                region.other_consumers = True
        for other in reached:
            if other not in seen:
                seen.add(other)
                waiting.append(other)
    return region


def carried(node: Node) -> tuple[Node, ...]:
    """The tensors whose values a node hands on as they are or clamped; empty for every other node."""
    # relu_ and its like change what the other users of the tensor see.
    in_place = target_name(node).endswith("_.default")
    return () if in_place and len(node.args[0].users) > 1 else operands(node)


def activated(linear: Node, stop_at: Collection[Node]) -> tuple[Node, Limits]:
    """The node of a linear's result behind the clamps that only it feeds, and the limits of its values.

    Shape operators may lie between: the result is the last clamp, or the linear itself without any.
    """
    result, limits, node = linear, Limits(), linear
    while len(node.users) == 1:
        (user,) = node.users
        if user in stop_at:
            break
        clamp = limits_of(user)
        if clamp is not None:
            result, limits = user, limits.then(clamp)
        elif carried(user) != (node,):
            break
        node = user
    return result, limits
