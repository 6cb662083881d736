"""What the tests of torch.vk.graph share."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch
from same import to_vk
from samples import LinearSample


def on_vk(linear: LinearSample, op: str) -> list:
    """The arguments of the op, on vk."""
    return [to_vk(a) if isinstance(a, torch.Tensor) else a for a in linear.arguments(op)]


def captured(work: Callable[[], Any]) -> tuple[torch.vk.Graph, Any]:
    """A graph of what `work` does, and what it returned."""
    graph = torch.vk.Graph()
    with torch.vk.graph(graph):
        result = work()
    return graph, result


def held_bytes() -> int:
    """Memory that is neither a tensor's nor free for the next one."""
    gc.collect()
    torch.vk.empty_cache()
    return torch.vk.memory_reserved() - torch.vk.memory_allocated()
