"""Scenarios of the vk device (see scenarios.py)."""

from __future__ import annotations

import ctypes

import torch
from same import sample
from scenarios import SHAPES, Results, samples
from torch import Tensor

import q8ta_ops


def enabled() -> Results:
    q8ta_ops.enable_vk_device()
    assert torch.vk.device_count() >= 1
    return copies()


def copies() -> Results:
    x = sample(6, 10)
    on_vk = x.to("vk")
    strided = torch.empty(10, 6).t().copy_(on_vk.cpu())
    int8 = sample(5, 3, dtype=torch.int8)
    moved = int8.to("vk")
    moved[1:, :2].fill_(3)
    int8[1:, :2] = 3
    grown = on_vk.clone().resize_(12, 10)[:6]
    return [
        (on_vk.clone().cpu(), x),
        (on_vk.t().contiguous().cpu(), x.t()),
        (on_vk[2:4].cpu(), x[2:4]),
        (strided, x),
        (moved.cpu(), int8),
        (grown.cpu(), x),
        (torch.tensor(on_vk[3, 4].item()), x[3, 4]),
    ]


def linears() -> Results:
    results = []
    for shape in SHAPES:
        linear, expected = samples.get(*shape)
        on_vk = linear.mapped(lambda tensor: tensor.to("vk"))
        results += [(on_vk.call(op).cpu(), expected[op]) for op in linear.ops()]
    return results


_kept: dict[str, Tensor] = {}


def same_weights() -> Results:
    """The copies that the kernels read stay."""
    linear, expected = samples.get(3, 37, 13)
    on_vk = linear.mapped(lambda tensor: tensor.to("vk"))
    on_vk = on_vk.replaced(weights=_kept.setdefault("weights", on_vk.weights))
    results = [(on_vk.call("linear").cpu(), expected["linear"]) for _ in range(2)]
    on_vk.weights.add_(0)
    return [*results, (on_vk.call("linear").cpu(), expected["linear"])]


def elementwise() -> Results:
    x, y = sample(7, 9), sample(7, 9, seed=1)
    a, b = x.to("vk"), y.to("vk")
    pairs = [
        (a + b, x + y),
        (a * 2 - b, x * 2 - y),
        (torch.maximum(a, b), torch.maximum(x, y)),
        (a.clamp(-3, 5).relu_(), x.clamp(-3, 5).relu()),
        (a[:, ::2] + b[:, ::2], x[:, ::2] + y[:, ::2]),
        (a.max(), x.max()),
        (a.amax(1), x.amax(1)),
        (torch.cat([a, b[:2]]), torch.cat([x, y[:2]])),
        (torch.stack([a, b], 1), torch.stack([x, y], 1)),
        (a.to(torch.float64), x.to(torch.float64)),
        (torch.full((3, 4), 7, device="vk"), torch.full((3, 4), 7)),
    ]
    return [(got.cpu(), want) for got, want in pairs]


def quantizing() -> Results:
    import torch.ao.quantization.fx._decomposed  # noqa: F401  registers the operators

    x = sample(4, 5)
    ops = torch.ops.quantized_decomposed
    quantized = ops.quantize_per_tensor(x.to("vk"), 0.5, 1, -128, 127, torch.int8)
    back = ops.dequantize_per_tensor(quantized, 0.5, 1, -128, 127, torch.int8)
    int8 = sample(4, 5, dtype=torch.int8)
    again = torch.ops.q8ta.requantize(int8.to("vk"), 0.5, 3, 0.5, 3)
    packed = torch.ops.q8ta.pack(int8.to("vk"), 4)
    return [
        (back.cpu(), x),
        (again.cpu(), int8),
        (torch.ops.q8ta.unpack(packed, 4, [4, 5]).cpu(), int8),
    ]


def fallback() -> Results:
    x = sample(4, 5)
    return [(x.to("vk").cumsum(0).cpu(), x.cumsum(0))]


def many_tensors() -> Results:
    """More memory of new sizes in use at once than before, then all of it freed."""
    kept = [torch.full((100 + 37 * i,), i, dtype=torch.int32, device="vk") for i in range(40)]
    results = [(tensor.cpu()[:1], torch.tensor([i], dtype=torch.int32)) for i, tensor in enumerate(kept)]
    del kept
    torch.vk.empty_cache()
    return results


def many_ops() -> Results:
    """More than one submission holds."""
    x = torch.zeros(64, device="vk")
    for _ in range(150):
        x = x + 1
    linear, expected = samples.get(3, 37, 13)
    on_vk = linear.mapped(lambda tensor: tensor.to("vk"))
    ys = [on_vk.call("linear") for _ in range(40)]
    return [(x.cpu(), torch.full((64,), 150.0)), *((y.cpu(), expected["linear"]) for y in ys)]


def new_graph() -> torch.vk.Graph:
    """Without a fault: pybind11 ends the process if memory is short when it notes down a new object."""
    interposer = ctypes.CDLL(None)
    interposer.faults_pause(True)
    try:
        return torch.vk.Graph()
    finally:
        interposer.faults_pause(False)


def graphs() -> Results:
    linear, expected = samples.get(3, 37, 13)
    on_vk = linear.mapped(lambda tensor: tensor.to("vk"))
    x = sample(4, 5).to("vk")
    captured = new_graph()
    with torch.vk.graph(captured):
        y = on_vk.call("linear")
        z = (x + 1).mul_(2)
        z[1:3].copy_(x[1:3])
    captured.replay()
    x.copy_(sample(4, 5, seed=2))
    captured.replay()
    want = (sample(4, 5, seed=2) + 1) * 2
    want[1:3] = sample(4, 5, seed=2)[1:3]
    results = [(y.cpu(), expected["linear"]), (z.cpu(), want)]
    captured.reset()
    with torch.vk.graph(captured):
        w = x + x
    captured.replay()
    results.append((w.cpu(), 2 * sample(4, 5, seed=2)))
    try:
        with torch.vk.graph(new_graph()):
            x.cpu()
    except (RuntimeError, MemoryError):
        pass
    else:
        raise AssertionError("a copy to the host was captured")
    return results


def events() -> Results:
    x = sample(4, 5).to("vk")
    begin, end = torch.vk.Event(enable_timing=True), torch.vk.Event(enable_timing=True)
    begin.record()
    y = x + x
    end.record()
    end.synchronize()
    assert end.query() and begin.elapsed_time(end) >= 0
    torch.vk.synchronize()
    return [(y.cpu(), 2 * sample(4, 5))]


def profiles() -> Results:
    with torch.vk.profile() as profile:
        results = same_weights()
        results += elementwise()
    assert profile.dispatches and str(profile)
    return results


def profiled_graph() -> Results:
    x = sample(4, 5).to("vk")
    captured = new_graph()
    with torch.vk.graph(captured):
        y = x + x
    with torch.vk.profile():
        captured.replay()
        captured.replay()
    return [(y.cpu(), 2 * sample(4, 5))]


def statistics() -> Results:
    assert (
        torch.vk.memory_stats()["reserved_bytes.all.current"] >= 0 and torch.vk.get_device_properties().name
    )
    torch.vk.fallbacks()
    q8ta_ops.weight_cache_size()
    try:
        torch.empty(1 << 60, dtype=torch.uint8, device="vk")
    except (RuntimeError, MemoryError):
        return []
    raise AssertionError("there was so much memory")


def refused_arguments() -> Results:
    linear, _ = samples.get(3, 37, 13)
    on_vk = linear.mapped(lambda tensor: tensor.to("vk"))
    for wrong in (on_vk.replaced(x=linear.x), on_vk.replaced(weights=on_vk.weights[:, 1:])):
        try:
            wrong.call("linear")
        except (RuntimeError, MemoryError):
            continue
        raise AssertionError("wrong arguments were taken")
    return []


def pinned() -> Results:
    x = sample(40, 50)
    return [(x.pin_memory().to("vk", non_blocking=True).cpu(), x)]


SCENARIOS = (
    ("first use of vk", enabled),
    ("first use of linears", linears),
    ("first use of elementwise kernels", elementwise),
    ("first use of quantizing kernels", quantizing),
    ("first use of graphs", graphs),
    ("first use of events", events),
    ("first use of a profile", profiles),
    ("first use of many ops", many_ops),
    ("first use of much memory", many_tensors),
    ("copies", copies),
    ("linears", linears),
    ("same weights", same_weights),
    ("elementwise", elementwise),
    ("quantizing", quantizing),
    ("fallback", fallback),
    ("many tensors", many_tensors),
    ("graphs", graphs),
    ("events", events),
    ("profiles", profiles),
    ("profiled graph", profiled_graph),
    ("statistics", statistics),
    ("refused arguments", refused_arguments),
    ("pinned", pinned),
)
