"""Our op through torch, on tensors of the vk device: what a call costs beside its kernels."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from ..device import enable_vk_device
from .cpu import failure
from .samples import Sample, check_equal
from .settings import Settings
from .spread import Absent, Contestant, Figures
from .vulkan import copies_for

QUEUED = "q8ta linear on vk tensors"
REPLAYED = "q8ta linear on vk tensors, replayed"
_CALLS = 64


class _Calls:
    """Many calls with weights that take turns; each takes the result of the one before where sizes allow."""

    def __init__(self, sample: Sample, settings: Settings) -> None:
        self.count = 4 if settings.quick else _CALLS
        self.chained = sample.shape.K == sample.shape.N
        x, *rest = (each.to("vk") if isinstance(each, torch.Tensor) else each for each in sample.arguments())
        self.x, self.before, weights, self.after = x, rest[:2], rest[2], rest[3:]
        copies = min(copies_for(sample.shape.weight_bytes, settings), self.count)
        self.weights = [weights, *(weights.clone() for _ in range(copies - 1))]

    def one(self, x: torch.Tensor, index: int = 0) -> torch.Tensor:
        weights = self.weights[index % len(self.weights)]
        return torch.ops.q8ta.linear.default(x, *self.before, weights, *self.after)

    def all(self) -> torch.Tensor:
        y = self.x
        for i in range(self.count):
            y = self.one(y if self.chained else self.x, i)
        return y


def contestants(sample: Sample, settings: Settings) -> tuple[list[Contestant], list[Absent]]:
    """``torch.ops.q8ta.linear`` on vk tensors, called, and captured once and replayed.

    Figures: "wall" is that of a call among many that are queued before anyone waits, "queue" the time until
    such a call returns, "call_and_wait" one call with its wait.
    """
    enable_vk_device()
    calls = _Calls(sample, settings)
    checked = check_equal(QUEUED, calls.one(calls.x, -1).cpu(), sample.expected)
    last = calls.all().cpu()

    def wall(run: Callable[[], object]) -> Figures:
        start = time.perf_counter()
        run()
        queued = time.perf_counter()
        torch.vk.synchronize()
        end = time.perf_counter()
        return {"wall": (end - start) / calls.count * 1e6, "queue": (queued - start) / calls.count * 1e6}

    def call_and_wait() -> Figures:
        start = time.perf_counter()
        calls.one(calls.x)
        torch.vk.synchronize()
        return {"call_and_wait": (time.perf_counter() - start) * 1e6}

    details = {"calls": calls.count, "chained": calls.chained, "weight_copies": len(calls.weights)}
    samplers = [lambda: wall(calls.all), call_and_wait]
    called = Contestant(QUEUED, samplers, {"checked": checked, **details})

    graph = torch.vk.Graph()
    try:
        with torch.vk.graph(graph):
            output = calls.all()
        graph.replay()
    except RuntimeError as error:
        return [called], [Absent(REPLAYED, failure(error))]
    checked = check_equal(REPLAYED, output.cpu(), last)
    replayed = Contestant(REPLAYED, [lambda: wall(graph.replay)], {"checked": checked, **details})
    return [called, replayed], []
