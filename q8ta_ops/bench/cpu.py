"""The host kernel against what torch has on the CPU, in turns in one process."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from ..runtime import use_device
from .samples import Sample, WrongResult, check_equal
from .settings import Settings
from .shapes import FBGEMM, INT_MM, INT_MM_CONTIGUOUS, LINEAR, ONEDNN
from .spread import Absent, Contestant, Figures

OPPONENTS = (INT_MM, INT_MM_CONTIGUOUS, FBGEMM, ONEDNN)


def _sampler(call: Callable[[], object], settings: Settings) -> Callable[[], Figures]:
    """Each sample is the median of a turn's calls: what else the machine does disturbs single ones."""

    def sample() -> Figures:
        call()  # threads wake up, caches fill
        times: list[float] = []
        end = time.perf_counter() + settings.cpu_sample_s
        while not times or time.perf_counter() < end:
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return {"wall": statistics.median(times) * 1e6}

    return sample


def ours(sample: Sample, settings: Settings) -> Contestant:
    """``torch.ops.q8ta.linear`` on the host, epilogue included."""
    arguments = sample.arguments()
    op = torch.ops.q8ta.linear.default
    sampled = _sampler(lambda: op(*arguments), settings)

    def sample_on_host() -> Figures:
        with use_device("host"):
            return sampled()

    with use_device("host"):
        checked = check_equal(LINEAR, op(*arguments), _exact(sample))
    return Contestant(LINEAR, [sample_on_host], {"checked": checked})


def _exact(sample: Sample) -> Tensor:
    """int8 [M, N] with float64 sums, which are exact: independent of the host kernel's integer product."""
    accumulators = (sample.x.double() @ sample.weights.double().t()).to(torch.int64)
    adjusted = accumulators - sample.input_zero_point * sample.weight_sums
    y = adjusted.float() * (torch.tensor(sample.input_scale) * sample.weight_scales) + sample.bias
    y = torch.relu(y)
    rounded = torch.round(y * torch.tensor(1.0 / sample.output_scale, dtype=torch.float32))
    return (rounded + sample.output_zero_point).clamp(-128, 127).to(torch.int8)


def _int_mm(name: str, sample: Sample, settings: Settings) -> Contestant:
    """The int32 sums alone, without the epilogue."""
    transposed = sample.weights.t()
    if name == INT_MM_CONTIGUOUS:
        transposed = transposed.contiguous()
    exact = (sample.x[:2].double() @ sample.weights.double().t()).to(torch.int32)
    checked = check_equal(name, torch._int_mm(sample.x, transposed)[:2], exact)
    return Contestant(
        name, [_sampler(lambda: torch._int_mm(sample.x, transposed), settings)], {"checked": checked}
    )


def _quantized_linear(name: str, engine: str, sample: Sample, settings: Settings) -> Contestant | Absent:
    """torch's quantized.linear: quint8 in and out, the same weights and scales, relu fused."""
    if engine not in torch.backends.quantized.supported_engines:
        return Absent(name, f"this torch has no quantized engine {engine}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantized tensors are deprecated
        return _measured_quantized_linear(name, engine, sample, settings)


def _measured_quantized_linear(name: str, engine: str, sample: Sample, settings: Settings) -> Contestant:
    scales = sample.weight_scales.double()
    zeros = torch.zeros_like(scales, dtype=torch.int64)
    weights = torch._make_per_channel_quantized_tensor(sample.weights, scales, zeros, 0)
    # uint8 = int8 + 128 on both ends.
    x = torch._make_per_tensor_quantized_tensor(
        (sample.x.to(torch.int16) + 128).to(torch.uint8), sample.input_scale, sample.input_zero_point + 128
    )
    previous = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine
    try:
        packed = torch.ops.quantized.linear_prepack(weights, sample.bias)
    finally:
        torch.backends.quantized.engine = previous
    call = torch.ops.quantized.linear_relu.default
    arguments = (x, packed, sample.output_scale, sample.output_zero_point + 128)
    result = call(*arguments).int_repr().to(torch.int16) - 128
    difference = (result - sample.expected).abs()
    # Without VNNI fbgemm adds pairs of products in saturating int16; the float steps are its own, too.
    checked = f"differs by up to {int(difference.max())}, on average {difference.float().mean():.2g}"
    if difference.float().mean() > 2:
        raise WrongResult(f"{name}: {checked}")
    return Contestant(name, [_sampler(lambda: call(*arguments), settings)], {"checked": checked})


def failure(error: Exception) -> str:
    """Why an opponent could not be measured, in a line."""
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"


def opponents(sample: Sample, settings: Settings) -> tuple[list[Contestant], list[Absent]]:
    """All CPU opponents that exist here, and why the others do not."""
    present: list[Contestant] = []
    absent: list[Absent] = []
    for name in OPPONENTS:
        try:
            if name in (INT_MM, INT_MM_CONTIGUOUS):
                made: Contestant | Absent = _int_mm(name, sample, settings)
            else:
                made = _quantized_linear(name, "fbgemm" if name == FBGEMM else "onednn", sample, settings)
        except Exception as error:  # an opponent that fails must not end the run, nor vanish
            made = Absent(name, failure(error))
        if isinstance(made, Absent):
            absent.append(made)
        else:
            present.append(made)
    return present, absent
