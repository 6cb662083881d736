"""What the tests of the rewrite share: both kinds of module, and checks of what was done to them."""

from __future__ import annotations

from typing import Any

import torch
from models import exact, q8ta_targets, targets
from torch import Tensor, nn

import q8ta_ops


def both_kinds(model: nn.Module, *inputs: Tensor) -> list[Any]:
    """The model's graph as a GraphModule and as an ExportedProgram."""
    program = torch.export.export(model, inputs)
    return [program.module(), program]


def runnable(module: Any) -> torch.fx.GraphModule:
    """Something to call, of either kind."""
    return module if isinstance(module, torch.fx.GraphModule) else module.module()


def state_of(module: Any) -> dict[str, Tensor]:
    """Parameters and buffers, of either kind."""
    return module.state_dict() if isinstance(module, torch.fx.GraphModule) else module.state_dict


def check_left_alone(model: nn.Module, inputs: tuple[Tensor, ...], reason: str) -> None:
    """Both kinds: nothing replaced, one record whose reason contains `reason`, results as before."""
    for module in both_kinds(model, *inputs):
        result = q8ta_ops.rewrite(module)
        assert result.replaced == [] and q8ta_targets(result.module) == []
        ((node, why),) = result.skipped
        assert reason in why, why
        assert str(node.target) == "aten.linear.default" and node in result.module.graph.nodes
        assert targets(result.module) == targets(module)
        before, after = (runnable(m) for m in (module, result.module))
        assert torch.equal(before(*inputs), after(*inputs))


def check_replaced(model: nn.Module, x: Tensor, op: str) -> list[Any]:
    """Both kinds: replaced by `op`, nothing left alone, exact results. Returns the two rewrite results."""
    results = []
    for module in both_kinds(model, x):
        result = q8ta_ops.rewrite(module)
        assert q8ta_targets(result.module) == [op] and result.skipped == []
        before, after = (runnable(m) for m in (module, result.module))
        assert torch.equal(exact(before, x), after(x))
        results.append(result)
    return results
