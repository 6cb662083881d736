"""Work that goes through all of the library's Vulkan calls, in steps with known results."""

from __future__ import annotations

from collections.abc import Callable

import torch
from reference import pack_ref
from samples import LinearSample, make_sample

import q8ta_ops

# A step returns what it computed. Its second half is what that has to be.
Step = tuple[Callable[[], torch.Tensor], torch.Tensor]

LARGE = (257, 1030)  # more bytes than the smallest piece of host memory that is imported instead of copied


def cpu_steps() -> dict[str, Step]:
    """For CPU tensors. All weights are packed anew, as nothing of the last round is in the cache."""
    ops = torch.ops.q8ta

    def call(linear: LinearSample, op: str) -> Step:
        return lambda: linear.call(op), linear.expected(op)

    few, some, odd = make_sample((1,), 40, 24), make_sample((3,), 40, 24), make_sample((5,), 37, 10)
    large = make_sample(LARGE[:1], LARGE[1], 260)
    values = make_sample((6,), 22, 4).x
    packed = pack_ref(values, 4)
    large_packed = pack_ref(large.x, 4)

    def profiled() -> torch.Tensor:
        with q8ta_ops.profile() as profile:
            y = some.call("linear")
        assert len(profile.dispatches) >= 1
        return y

    def cleared() -> torch.Tensor:
        q8ta_ops.clear_weight_cache()
        return torch.zeros(0)

    return {
        "clear": (cleared, torch.zeros(0)),
        "one row": call(few, "linear_gemv"),
        "rows": call(some, "linear"),
        "rows again": call(some, "linear"),
        "packed results": call(odd, "linear"),
        "float32": call(some, "linear_dequant"),
        "large": call(large, "linear_dequant"),
        "pack": (lambda: ops.pack(values, 4), packed),
        "unpack": (lambda: ops.unpack(packed, 4, list(values.shape)), values),
        "large pack": (lambda: ops.pack(large.x, 4), large_packed),
        "large unpack": (lambda: ops.unpack(large_packed, 4, list(large.x.shape)), large.x),
        "profile": (profiled, some.expected("linear")),
    }


def vk_steps() -> dict[str, Step]:
    """For vk tensors. Some stay from round to round: what is in them must survive, too."""
    ops = torch.ops.q8ta
    few, some, odd = make_sample((1,), 40, 24), make_sample((3,), 40, 24), make_sample((5,), 37, 10)
    kept = some.mapped(lambda tensor: tensor.to("vk"))
    kept_packed = odd.mapped(lambda tensor: tensor.to("vk"))
    numbers = torch.arange(-600, 600, dtype=torch.float32).reshape(30, 40)
    kept_numbers = numbers.to("vk")
    long = torch.arange(5_000_000, dtype=torch.int32)  # two pieces of an upload
    torch.vk.synchronize()

    def uploaded(linear: LinearSample, op: str) -> Step:
        return lambda: linear.mapped(lambda tensor: tensor.to("vk")).call(op).cpu(), linear.expected(op)

    def queued() -> torch.Tensor:
        x = kept_numbers
        for _ in range(150):
            x = x + 1
        return x.cpu()

    def replayed() -> torch.Tensor:
        graph = torch.vk.Graph()
        with torch.vk.graph(graph):
            y = kept.call("linear_dequant")
            z = y + y
        graph.replay()
        graph.replay()
        return z.cpu()

    def replay_profiled() -> torch.Tensor:
        graph = torch.vk.Graph()
        with torch.vk.graph(graph):
            y = kept.call("linear")
        with torch.vk.profile() as profile:
            graph.replay()
        assert len(profile.dispatches) >= 1
        return y.cpu()

    def timed() -> torch.Tensor:
        begin, end = (torch.vk.Event(enable_timing=True) for _ in range(2))
        begin.record()
        y = kept.call("linear")
        end.record()
        end.synchronize()
        assert end.query() and begin.elapsed_time(end) >= 0
        return y.cpu()

    def profiled() -> torch.Tensor:
        with torch.vk.profile() as profile:
            y = kept.call("linear_dequant") * 2
        assert len(profile.dispatches) >= 2
        return y.cpu()

    def emptied() -> torch.Tensor:
        torch.vk.empty_cache()
        return torch.zeros(0)

    def edited() -> torch.Tensor:
        """Packs the weights again."""
        kept_packed.weights.add_(0)
        return kept_packed.call("linear").cpu()

    y, y_float = some.expected("linear"), some.expected("linear_dequant")
    return {
        "empty": (emptied, torch.zeros(0)),
        "upload": uploaded(few, "linear_gemv"),
        "rows": (lambda: kept.call("linear").cpu(), y),
        "packed": (lambda: kept_packed.call("linear").cpu(), odd.expected("linear")),
        "edited": (edited, odd.expected("linear")),
        "long": (lambda: long.to("vk").cpu(), long),
        "float32": (
            lambda: torch.cat([kept_numbers * 2, kept_numbers.add(3)]).cpu(),
            torch.cat([numbers * 2, numbers + 3]),
        ),
        "strided": (lambda: kept_numbers.t().contiguous().cpu(), numbers.t().contiguous()),
        "pack": (lambda: ops.pack(kept.x, 4).cpu(), pack_ref(some.x, 4)),
        "queue": (queued, numbers + 150),
        "graph": (replayed, 2 * y_float),
        "profiled graph": (replay_profiled, y),
        "events": (timed, y),
        "profile": (profiled, 2 * y_float),
    }
