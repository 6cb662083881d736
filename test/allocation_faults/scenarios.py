"""Work whose allocations are made to fail, one after another. Each scenario returns pairs (got, expected)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from samples import LinearSample, make_sample
from torch import Tensor

import q8ta_ops

Results = list[tuple[Tensor, Tensor]]
Scenario = Callable[[], Results]


class Samples:
    """Samples with their answers, computed once: what is measured should be the package alone."""

    def __init__(self) -> None:
        self._known: dict[tuple, tuple[LinearSample, dict[str, Tensor]]] = {}

    def get(self, rows: int, depth: int, columns: int) -> tuple[LinearSample, dict[str, Tensor]]:
        key = (rows, depth, columns)
        if key not in self._known:
            sample = make_sample((rows,), depth, columns, seed=rows)
            self._known[key] = sample, {op: sample.expected(op) for op in sample.ops()}
        return self._known[key]


samples = Samples()
# One row, a few rows, a GEMM; sizes that need padding.
SHAPES = ((1, 64, 32), (1, 37, 13), (3, 40, 24), (3, 37, 13), (33, 48, 20), (33, 37, 13))


def linears(rows: int, depth: int, columns: int) -> Results:
    sample, expected = samples.get(rows, depth, columns)
    return [(sample.call(op), expected[op]) for op in sample.ops()]


def strided_linear() -> Results:
    """No argument is contiguous: each is copied."""
    sample, expected = samples.get(3, 40, 24)

    def spread(tensor: Tensor) -> Tensor:
        return torch.stack([tensor, torch.zeros_like(tensor)], -1)[..., 0]

    return [(sample.mapped(spread).call(op), expected[op]) for op in sample.ops()]


def new_weights() -> Results:
    q8ta_ops.clear_weight_cache()
    return [pair for shape in SHAPES for pair in linears(*shape)]


def edited_weights() -> Results:
    sample, expected = samples.get(33, 48, 20)
    sample.weights.add_(0)
    return [(sample.call(op), expected[op]) for op in sample.ops()]


def new_scales() -> Results:
    sample, expected = samples.get(1, 64, 32)
    fresh = sample.replaced(weight_scales=sample.weight_scales.clone())
    doubled = sample.replaced(weight_scales=2 * sample.weight_scales)
    doubled.call("linear")
    return [(fresh.call(op), expected[op]) for op in sample.ops()]


def large_tensors() -> Results:
    """Memory that is imported where host and device share it."""
    sample, expected = samples.get(600, 512, 512)
    return [(sample.call("linear"), expected["linear"])]


def packing() -> Results:
    x = torch.arange(2 * 5 * 7, dtype=torch.int8).view(2, 5, 7)
    results = []
    for layout in (q8ta_ops.Layout.PACKED_INT8_4W, q8ta_ops.Layout.PACKED_INT8_4H4W):
        packed = torch.ops.q8ta.pack(x, layout)
        results.append((torch.ops.q8ta.unpack(packed, layout, list(x.shape)), x))
        strided = torch.ops.q8ta.pack(x.transpose(1, 2), layout)
        results.append((torch.ops.q8ta.unpack(strided, layout, [2, 7, 5]), x.transpose(1, 2)))
    return results


def requantizing() -> Results:
    x = torch.arange(-128, 128, dtype=torch.int16).to(torch.int8)
    return [(torch.ops.q8ta.requantize(x, 0.5, 3, 0.5, 3), x)]


def refused_arguments() -> Results:
    """Error messages are made of strings, which may fail, too."""
    sample, _ = samples.get(3, 40, 24)
    for wrong in (
        sample.replaced(x=sample.x[:, :-1]),
        sample.replaced(input_scale=-1.0),
        sample.replaced(weight_scales=torch.zeros(24)),
        sample.replaced(activation="gelu"),
    ):
        try:
            wrong.call("linear")
        except (RuntimeError, MemoryError):
            continue
        raise AssertionError("wrong arguments were taken")
    return []


def profiled() -> Results:
    with q8ta_ops.profile() as profile:
        results = linears(3, 40, 24)
        results += linears(1, 37, 13)
    assert all(dispatch.kernel for dispatch in profile.dispatches)
    return results


def questions() -> Results:
    assert q8ta_ops.devices() and q8ta_ops.default_device().name
    with q8ta_ops.use_device("host"):
        results = linears(3, 40, 24)
    q8ta_ops.weight_cache_size()
    return results


def all_shapes() -> Results:
    return [pair for shape in SHAPES for pair in linears(*shape)]


def on_cpu_tensors() -> Iterator[tuple[str, Scenario]]:
    """The first is the first use of the device in this process."""
    yield "first use", all_shapes
    yield "warm", all_shapes
    yield "strided", strided_linear
    yield "new weights", new_weights
    yield "edited weights", edited_weights
    yield "new scales", new_scales
    yield "large tensors", large_tensors
    yield "pack and unpack", packing
    yield "requantize", requantizing
    yield "refused arguments", refused_arguments
    yield "profile", profiled
    yield "questions", questions


def on_vk_tensors() -> Iterator[tuple[str, Scenario]]:
    from vk_scenarios import SCENARIOS

    yield from SCENARIOS


GROUPS = {"device": on_cpu_tensors, "host": on_cpu_tensors, "vk": on_vk_tensors}
