"""Contestants that run on a Vulkan device without torch in the loop: many ops in one submission."""

from __future__ import annotations

import atexit
import math
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from .. import _benchmark
from ..layouts import Layout
from .samples import Sample, check_equal
from .settings import MIB, Settings
from .spread import Contestant, Figures

# Runs before the devices are closed: what was registered later is called first.
atexit.register(_benchmark.close_all)

_MOST_OPS = 2048  # in one submission


def copies_for(weight_bytes: int, settings: Settings) -> int:
    """How many copies of the weights are so many bytes that no cache holds what the next op reads."""
    copies = math.ceil(settings.rotate_bytes / weight_bytes)
    return min(max(copies, 2), settings.most_copies)


def memory_of(tensor: Tensor) -> tuple[int, int]:
    """Address and bytes of a contiguous CPU tensor, which the caller must keep alive."""
    assert tensor.is_contiguous() and tensor.device.type == "cpu"
    return tensor.data_ptr(), tensor.numel() * tensor.element_size()


def fetch(contestant: _benchmark.Contestant, copy: int, like: Tensor) -> Tensor:
    """The result of one op, as a tensor of the dtype and shape of ``like``."""
    result = torch.empty_like(like)
    assert contestant.result_bytes == memory_of(result)[1]
    contestant.fetch_result(copy, result.data_ptr())
    return result


def sampler(
    contestant: _benchmark.Contestant, settings: Settings, copies: int, name: str, kernels_only: bool = False
) -> Callable[[], Figures]:
    """Samples an op's mean time in one submission of about ``settings.batch_us``, all of it whole rounds
    through the copies. On a device without timestamps it is the wall time."""

    def once(count: int) -> tuple[float, float]:
        gpu, wall = contestant.time(count, copies, kernels_only)
        return (wall if gpu is None else gpu), wall

    once(copies)  # the driver may still compile
    rounds = settings.batch_us / max(once(copies)[0] * copies, 1e-3)
    most = max(_MOST_OPS // copies, 1)
    count = copies * min(max(math.ceil(rounds), 1), most)

    def sample() -> Figures:
        gpu, wall = once(count)
        return {name: gpu, "wall_in_batch": wall} if name == "gpu" else {name: gpu}

    return sample


def commands_of(contestant: _benchmark.Contestant, ops: int = 16) -> list[dict[str, object]]:
    """The commands of one op with their medians when each is measured on its own."""
    times = contestant.time_commands(ops)
    count = len(times) // ops
    rows = []
    for i in range(count):
        kernel, workgroups, _ = times[i]
        measured = [us for _, _, us in times[i::count] if us is not None]
        rows.append(
            {"kernel": kernel, "workgroups": workgroups, "gpu_us": median(measured) if measured else None}
        )
    return rows


def _contestant(
    name: str, native: _benchmark.Contestant, settings: Settings, copies: int, checked: str
) -> Contestant:
    commands = commands_of(native)
    samplers = [
        sampler(native, settings, copies, "gpu"),
        sampler(native, settings, 1, "gpu_warm"),
    ]
    if len(commands) > 1:
        samplers.append(sampler(native, settings, copies, "kernels", kernels_only=True))
    details = {"checked": checked, "weight_copies": copies, "commands": commands}
    return Contestant(name, samplers, details)


def _arguments(sample: Sample, x: Tensor, weights: Tensor, copies: int) -> dict[str, object]:
    return {
        "sizes": tuple(sample.shape),
        "x": memory_of(x),
        "weights": memory_of(weights),
        "weight_sums": sample.weight_sums.data_ptr(),
        "weight_scales": sample.weight_scales.data_ptr(),
        "bias": sample.bias.data_ptr(),
        "input_scale": sample.input_scale,
        "input_zero_point": sample.input_zero_point,
        "output_scale": sample.output_scale,
        "output_zero_point": sample.output_zero_point,
        "relu": True,
        "copies": copies,
    }


def _check_copies(
    name: str, native: _benchmark.Contestant, like: Tensor, expected: Tensor, unpack: Callable, repeats: int
) -> str:
    """Compares the results of every copy, or of some of many, ``repeats`` times each; large ones once."""
    large = native.result_bytes > 16 * MIB
    chosen = sorted({*range(min(native.copies, 1 if large else 4)), native.copies - 1})
    repeats = 1 if large else repeats
    for _ in range(repeats):
        for copy in chosen:
            checked = check_equal(name, unpack(fetch(native, copy, like)), expected)
    return checked


def _linear(sample: Sample, copies: int, float_output: bool) -> tuple[_benchmark.Contestant, Tensor]:
    native = _benchmark.linear(
        **_arguments(sample, sample.x, sample.weights, copies), float_output=float_output
    )
    return native, sample.expected_float if float_output else sample.expected


def exact_results(sample: Sample, repeats: int, float_output: bool) -> tuple[int, list[str]]:
    """How many of ``repeats`` results of ours are equal to the host kernel's, and the kernels that ran."""
    native, expected = _linear(sample, 1, float_output)
    equal = sum(torch.equal(fetch(native, 0, expected), expected) for _ in range(repeats))
    return equal, [kernel for kernel, _, _ in native.time_commands(1)]


def linear(name: str, sample: Sample, settings: Settings, float_output: bool = False) -> Contestant:
    """Our op as a user of the vk device gets it, x and y row-major; "kernels" leaves out packing.

    Raises:
        WrongResult: a result is not equal to the host kernel's.
        RuntimeError: the device cannot run it.
    """
    copies = copies_for(sample.shape.weight_bytes, settings)
    native, expected = _linear(sample, copies, float_output)
    checked = _check_copies(name, native, expected, expected, lambda y: y, settings.check_repeats)
    return _contestant(name, native, settings, copies, checked)


def blocked_weights(weights: Tensor) -> Tensor:
    """int8 [N, K] to int32 words [K4, N8, 8] of 4 consecutive k: 4x4 blocks, two by two, zero-padded."""
    N, K = weights.shape
    K4, N8 = math.ceil(K / 4), math.ceil(N / 8)
    padded = weights
    if (N8 * 8, K4 * 4) != (N, K):
        padded = weights.new_zeros(N8 * 8, K4 * 4)
        padded[:N, :K] = weights
    return padded.view(torch.int32).t().contiguous().view(K4, N8, 8)


def pull_request(name: str, sample: Sample, settings: Settings) -> Contestant:
    """The pull request's GEMV (x and y in 4W) or GEMM (x and y in 4H4W), kernel alone.

    Raises:
        WrongResult: a result is not equal to the host kernel's.
        RuntimeError: the device cannot run it.
    """
    layout = Layout.PACKED_INT8_4W if sample.shape.M == 1 else Layout.PACKED_INT8_4H4W
    copies = copies_for(sample.shape.weight_bytes, settings)
    x, weights = torch.ops.q8ta.pack(sample.x, layout), blocked_weights(sample.weights)
    native = _benchmark.pull_request(**_arguments(sample, x, weights, copies), float_output=False)
    expected = sample.expected
    like = torch.ops.q8ta.pack(expected, layout)
    checked = _check_copies(
        name, native, like, expected, lambda y: torch.ops.q8ta.unpack(y, layout, expected.shape), 1
    )
    return _contestant(name, native, settings, copies, checked)
