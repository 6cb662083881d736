"""Smoothing: outliers of activations move into the weights, where one scale for each row copes with them.

An activation has one scale for the whole tensor, so that a few large channels leave few steps for all others.
Transformers have such channels behind a normalization and behind gelu. Multiplying a channel of a linear's
input by a power of two, and the same column of its weight by the inverse, changes no bit of the float result
(short of overflow and of numbers below 1e-38) and evens the channels out before they are quantized.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from .quantizer.flow import carried
from .rewrite.commuting import add_call, written_values
from .rewrite.graph_module import AttributeStore
from .rewrite.nodes import arguments, target_name
from .rewrite.store import erase_unused

_LINEAR = "aten.linear.default"


def smooth_inputs(
    module: GraphModule, strength: float, calibrate: Callable[[], None], wanted: Callable[[Node], bool]
) -> int:
    """Evens out the input channels of linears by exact powers of two, in place.

    Linears that read one tensor share its multiplication. Left alone: inputs that come from a linear (through
    clamps and shape operators), because there int8 may go from linear to linear, inputs that the graph writes
    to, and weights that several of these groups share.

    Args:
        module: what `torch.export.export(...).module()` returns.
        strength: 0 to 1. With s, channel k is divided by about max|x[k]|**s / max|w[:, k]|**(1 - s):
            1 makes all channels of the activation equally large, 0 all columns of the weight.
        calibrate: runs the calibration batches through `module`.
        wanted: which linears, by their nodes.

    Returns:
        The number of multiplications that were inserted.
    """
    store = AttributeStore(module)
    groups = _groups(store, wanted)
    for index, group in enumerate(groups):
        group.ranges = _ChannelRanges(group.weights[0].shape[1])
        name = f"q8ta_channel_ranges_{index}"
        module.add_submodule(name, group.ranges)
        with module.graph.inserting_before(group.linears[0]):
            group.observer = module.graph.call_module(name, (group.x,))
    module.recompile()
    calibrate()
    for group in groups:
        module.graph.erase_node(group.observer)
        module.delete_submodule(group.observer.target)
        _smooth(store, group, strength)
    module.graph.lint()
    module.recompile()
    return len(groups)


class _ChannelRanges(nn.Module):
    """The largest magnitude of every channel (last dimension) in all tensors that it was called with."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("largest", torch.zeros(channels))

    def forward(self, x: Tensor) -> None:
        if x.numel() > 0:
            rows = x.detach().reshape(-1, x.shape[-1])
            self.largest = torch.maximum(self.largest, rows.abs().amax(dim=0))


@dataclass
class _Group:
    """The linears that read one tensor, in graph order."""

    x: Node
    linears: list[Node]
    weights: list[Tensor]
    ranges: _ChannelRanges | None = None
    observer: Node | None = None


def _groups(store: AttributeStore, wanted: Callable[[Node], bool]) -> list[_Group]:
    written = written_values(store.graph)
    groups: dict[Node, _Group] = {}
    for node in store.graph.nodes:
        if target_name(node) != _LINEAR or not wanted(node):
            continue
        call = arguments(node)
        x, weight = call["input"], store.constant(call["weight"])
        if weight is None or weight.dtype != torch.float32 or x in written or _from_linear(x):
            continue
        group = groups.setdefault(x, _Group(x, [], []))
        group.linears.append(node)
        group.weights.append(weight)
    uses = Counter(key for group in groups.values() for key in {id(weight) for weight in group.weights})
    return [group for group in groups.values() if all(uses[id(weight)] == 1 for weight in group.weights)]


def _from_linear(x: Node) -> bool:
    """Whether a value comes from a linear, at least in part, through clamps and shape operators only."""
    waiting, seen = [x], {x}
    while waiting:
        node = waiting.pop()
        if target_name(node) == _LINEAR:
            return True
        for source in carried(node):
            if source not in seen:
                seen.add(source)
                waiting.append(source)
    return False


def _smooth(store: AttributeStore, group: _Group, strength: float) -> None:
    divisors = smoothing_divisors(group.ranges.largest, group.weights, strength)
    with store.graph.inserting_before(group.linears[0]):
        factors = store.add_buffer("q8ta_smoothing", 1 / divisors)
        multiply = torch.ops.aten.mul.Tensor
        product = add_call(store.graph, multiply, (group.x, factors), {}, group.linears[0])
    for linear, weight in zip(group.linears, group.weights, strict=True):
        old = arguments(linear)["weight"]
        with store.graph.inserting_before(linear):
            new = store.add_buffer("q8ta_smoothed_weight", weight.detach() * divisors)
        linear.args = (product, new, *linear.args[2:])
        erase_unused(store, old)


def smoothing_divisors(largest: Tensor, weights: list[Tensor], strength: float) -> Tensor:
    """The power of two that each channel is divided by: float32 [K].

    Args:
        largest: float32 [K], the largest magnitude of every channel of the activation.
        weights: float32 [N, K] each, of the linears that read it.
        strength: see `smooth_inputs`.
    """
    columns = torch.stack([weight.detach().abs().amax(dim=0) for weight in weights]).amax(dim=0)
    exponents = (largest.log2() * strength - columns.log2() * (1 - strength)).round()
    # A channel that is always 0, a column of zeros, NaN: nothing to even out.
    return torch.where(exponents.isfinite(), exponents, 0.0).clamp(-60, 60).exp2()
