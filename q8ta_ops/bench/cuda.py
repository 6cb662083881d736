"""What a PyTorch user has on CUDA: opponents on the same GPU and the same inputs.

Their GPU time is that of a CUDA graph of many calls, which no launch can slow down; "eager" is the wall time
of a call when many are queued. The weights take turns as ours do.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from .cpu import failure
from .samples import Sample, WrongResult, check_equal
from .settings import Settings
from .shapes import (
    BF16,
    COMPILED_GEMV,
    COMPILED_WEIGHT_ONLY,
    FP16,
    INT_MM,
    INT_MM_AUTOTUNE,
    INT_MM_REQUANTIZE,
)
from .spread import Absent, Contestant, Figures
from .vulkan import copies_for

OPPONENTS = (INT_MM, INT_MM_REQUANTIZE, INT_MM_AUTOTUNE, COMPILED_GEMV, COMPILED_WEIGHT_ONLY, FP16, BF16)
CUDA_COPY = "torch copy on CUDA"
_MOST_CALLS = 2048  # in one graph

Call = Callable[[Tensor], Tensor]
"""One call of a layer with the given weights."""


def unavailable_because(vulkan_device: str | None) -> str | None:
    """Why there are no CUDA opponents; None if there are."""
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    name = torch.cuda.get_device_name()
    if vulkan_device is not None and name not in vulkan_device and vulkan_device not in name:
        return f"CUDA's device is {name}, not {vulkan_device}"
    return None


def _graph_sampler(
    call: Call, weights: list[Tensor], settings: Settings, figure: str
) -> Callable[[], Figures]:
    def capture(count: int) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for i in range(count):
                call(weights[i % len(weights)])
        return graph

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def replay_us(graph: torch.cuda.CUDAGraph) -> float:
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e3

    probe = capture(len(weights))
    replay_us(probe)
    rounds = math.ceil(settings.batch_us / max(replay_us(probe), 1.0))
    count = len(weights) * min(max(rounds, 1), max(_MOST_CALLS // len(weights), 1))
    graph = probe if count == len(weights) else capture(count)
    return lambda: {figure: replay_us(graph) / count}


def _eager_sampler(call: Call, weights: list[Tensor], settings: Settings) -> Callable[[], Figures]:
    def eager_us(calls: int) -> float:
        torch.cuda.synchronize()
        start = time.perf_counter()
        for i in range(calls):
            call(weights[i % len(weights)])
        torch.cuda.synchronize()
        return (time.perf_counter() - start) / calls * 1e6

    calls = min(max(math.ceil(settings.batch_us / eager_us(4)), 4), 200)
    return lambda: {"eager": eager_us(calls)}


def _contestant(name: str, call: Call, weights: list[Tensor], checked: str, settings: Settings) -> Contestant:
    for each in weights[:3]:  # compiles, and lets libraries choose
        call(each)
    torch.cuda.synchronize()
    samplers = [
        _graph_sampler(call, weights, settings, "gpu"),
        _graph_sampler(call, weights[:1], settings, "gpu_warm"),
        _eager_sampler(call, weights, settings),
    ]
    return Contestant(name, samplers, {"checked": checked, "weight_copies": len(weights)})


class TorchLayer:
    """A sample's tensors on a device of torch, and each opponent as a call."""

    def __init__(self, sample: Sample, settings: Settings, device: str = "cuda") -> None:
        torch._dynamo.reset()  # each shape is compiled for itself
        self.sample = sample
        self.settings = settings
        self.x = sample.x.to(device)
        self.copies = [sample.weights.to(device, copy=True)]
        count = copies_for(sample.shape.weight_bytes, settings)
        self.copies += [self.copies[0].clone() for _ in range(count - 1)]
        # What does not depend on x is computed beforehand, as the opponents' users could do.
        self.offset = (sample.input_zero_point * sample.weight_sums).to(device)
        self.scales = sample.weight_scales.to(device)
        self.multiplier = self.scales * sample.input_scale
        self.bias = sample.bias.to(device)

    def requantize(self, accumulators: Tensor) -> Tensor:
        """int32 [..., N] to int8: zero point, scales, bias, relu, rounding."""
        y = (accumulators - self.offset).float() * self.multiplier + self.bias
        y = torch.round(torch.relu(y) * (1.0 / self.sample.output_scale)) + self.sample.output_zero_point
        return y.clamp(-128, 127).to(torch.int8)

    def int_mm(self, weights: Tensor) -> Tensor:
        return torch._int_mm(self.x, weights.t())

    def int_mm_requantize(self, weights: Tensor) -> Tensor:
        return self.requantize(torch._int_mm(self.x, weights.t()))

    def gemv(self, weights: Tensor) -> Tensor:
        return self.requantize((self.x.to(torch.int32) * weights.to(torch.int32)).sum(1, dtype=torch.int32))

    def weight_only(self, weights: Tensor) -> Tensor:
        """float32 sums, which GPUs multiply faster; not exact beyond 2^24."""
        sums = ((self.x.float() - self.sample.input_zero_point) * weights.float()).sum(1)
        return sums * self.multiplier

    def check_requantized(self, name: str, result: Tensor) -> str:
        """Compilers may fuse the float steps, so that values differ by 1; anything else is wrong."""
        result, expected = result.cpu().view_as(self.sample.expected), self.sample.expected
        difference = (result.int() - expected.int()).abs()
        if difference.max() == 0:
            return "equal"
        if difference.max() > 1 or (difference != 0).float().mean() > 0.01:
            raise WrongResult(f"{name}: differs by up to {int(difference.max())}")
        return f"{int((difference != 0).sum())} of {expected.numel()} values differ by 1"

    def check_float(self, name: str, result: Tensor, expected: Tensor, tolerance: float) -> str:
        error = ((result.float() - expected).abs().max() / expected.abs().max()).item()
        if not error < tolerance:
            raise WrongResult(f"{name}: relative error {error:.2g}")
        return f"relative error {error:.1g}"

    def make(self, name: str) -> Contestant | Absent:
        """One of ``OPPONENTS``, checked and ready to be timed."""
        M, K, N = self.sample.shape
        if name in (COMPILED_GEMV, COMPILED_WEIGHT_ONLY) and M != 1:
            return Absent(name, "it takes one row")
        if name in (INT_MM, INT_MM_REQUANTIZE, INT_MM_AUTOTUNE) and (M <= 16 or K % 8 or N % 8):
            return Absent(name, "torch._int_mm on CUDA takes M > 16 and K and N that 8 divides")
        if name == INT_MM_AUTOTUNE and self.sample.shape not in self.settings.autotune:
            return Absent(name, "tuning takes minutes: name the shape with --autotune")
        if name in (FP16, BF16):
            return self._half(name, torch.float16 if name == FP16 else torch.bfloat16)
        if name == INT_MM:
            call: Call = self.int_mm
            exact = (self.x[:2].double() @ self.copies[0].double().t()).to(torch.int32)
            checked = check_equal(name, call(self.copies[-1])[:2], exact)
        elif name == COMPILED_WEIGHT_ONLY:
            call = torch.compile(self.weight_only, dynamic=False)
            sums = (self.x.double() - self.sample.input_zero_point) @ self.copies[0].double().t()
            expected = (sums * self.multiplier).float().view(N)
            checked = self.check_float(name, call(self.copies[-1]), expected, 1e-4)
        else:
            mode = "max-autotune-no-cudagraphs" if name == INT_MM_AUTOTUNE else None
            function = self.gemv if name == COMPILED_GEMV else self.int_mm_requantize
            call = torch.compile(function, dynamic=False, mode=mode)
            checked = self.check_requantized(name, call(self.copies[-1]))
        return _contestant(name, call, self.copies, checked, self.settings)

    def _half(self, name: str, dtype: torch.dtype) -> Contestant:
        """Without bias, relu and quantization, which the int8 layers have: the least work."""
        x = (self.x.float() * self.sample.input_scale).to(dtype)
        weights = (self.copies[0].float() * self.scales[:, None]).to(dtype)
        count = copies_for(2 * self.sample.shape.weight_bytes, self.settings)
        copies = [weights, *(weights.clone() for _ in range(count - 1))]
        rows = x[:2].float() @ weights.float().t()
        checked = self.check_float(name, torch.nn.functional.linear(x, copies[-1])[:2], rows, 0.02)
        return _contestant(name, lambda w: torch.nn.functional.linear(x, w), copies, checked, self.settings)


def opponents(
    sample: Sample, settings: Settings, vulkan_device: str | None
) -> tuple[list[Contestant], list[Absent]]:
    """All CUDA opponents of a shape that exist here, and why the others do not."""
    because = unavailable_because(vulkan_device)
    if because is not None:
        return [], [Absent(name, because) for name in OPPONENTS]
    torch.cuda.empty_cache()
    layer = TorchLayer(sample, settings)
    present, absent = [], []
    for name in OPPONENTS:
        try:
            made = layer.make(name)
        except Exception as error:  # an opponent that fails must not end the run, nor vanish
            made = Absent(name, failure(error))
        (absent if isinstance(made, Absent) else present).append(made)
    return present, absent


def copy_roof(settings: Settings, vulkan_device: str | None) -> Contestant | Absent:
    """torch's copy of ``settings.roof_bytes`` on the same device."""
    because = unavailable_because(vulkan_device)
    if because is not None:
        return Absent(CUDA_COPY, because)
    source = torch.randint(-128, 128, (settings.roof_bytes,), dtype=torch.int8, device="cuda")
    destination = torch.empty_like(source)
    sample = _graph_sampler(lambda to: to.copy_(source), [destination], settings, "gpu")
    equal = torch.equal(destination, source)
    if not equal:
        raise WrongResult(f"{CUDA_COPY}: the copy differs")
    return Contestant(CUDA_COPY, [sample], {"checked": "equal"})
