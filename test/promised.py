"""What README promises of a result, as a comparison: bit for bit the reference, with two limits.

Numbers that are not numbers: where a scale's product or y overflows so that infinities meet zeros or each
other, the formula has no value there, and nothing is promised of that element.

Subnormal numbers (float32 below 2^-126): the host kernel, `requantize` of CPU tensors, and every operator
that only selects or moves (relu, clamp, maximum, minimum, max, cat, copies) keep them. Vulkan lets a driver
take them for zero wherever an operation reads or makes one, and no shader here asks for anything else. What
that can change, in the linear operators: f32(input_scale), weight_scales, their product, that times the sum,
bias, y, and f32(1 / output_scale), which is subnormal for output scales above 2^126. A result is exact on
every device if none of these is subnormal (zeros are not); else it may be what comes of some of them being
zeros of their sign (`linear_possible` and so on). y * f32(1 / output_scale) is no such place: where it is
subnormal it rounds to 0 in any case. lavapipe 22.3 keeps subnormal numbers, although it reports
shaderDenormPreserveFloat32 as false; NVIDIA's driver does not keep them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from random_linears import Case
from random_ops import Call
from reference import linear_dequant_possible, linear_possible
from samples import LinearSample, row_sums
from torch import Tensor


def same_bits(first: Tensor, second: Tensor) -> Tensor:
    """Where two tensors hold the same number: for float32 of the same sign, zeros too; NaNs are all one."""
    if first.dtype != torch.float32:
        return first == second
    return (first.view(torch.int32) == second.view(torch.int32)) | (first.isnan() & second.isnan())


def unlike(got: Tensor, exact: Tensor, allowed: Callable[[], list[Tensor]] | None = None) -> Tensor:
    """Elements that are neither the exact ones nor, if there are any, one of the allowed ones."""
    wrong = ~same_bits(got, exact)
    if allowed is not None and wrong.any():
        for candidate in allowed():
            wrong &= ~same_bits(got, candidate)
    return wrong


def wrong_elements(case: Case, got: Tensor, preserving: bool) -> Tensor:
    """Elements of a linear operator's result that break the promise.

    Args:
        case: with tensors on the CPU.
        got: the result, on the CPU, with the sizes of the expected one.
        preserving: whether subnormal numbers have to be kept.
    """
    sample = case.sample
    y = sample.expected("linear_dequant")
    exact = y if case.op == "linear_dequant" else sample.expected(case.op)
    possible = linear_dequant_possible if case.op == "linear_dequant" else linear_possible
    allowed = None if preserving else lambda: possible(*sample.arguments(case.op))
    no_number = y.isnan()
    if case.op != "linear_dequant" and not preserving and sample.output_scale > 2.0**126:
        no_number |= y.isinf()  # infinity times a reciprocal that may be 0
    return unlike(got, exact, allowed) & ~no_number


def result_of(case: Case, place: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> Tensor:
    """Calls the operator on tensors that `place` puts somewhere; checks all but the values of its result.

    Raises:
        AssertionError: the result has other sizes or another type, is elsewhere or has gaps, or x changed.
    """
    placed = case.sample.mapped(place)
    result = placed.call(case.op)
    expected_sizes = (*case.sample.x.shape[:-1], case.sample.weights.shape[0])
    dtype = torch.float32 if case.op == "linear_dequant" else torch.int8
    assert (tuple(result.shape), result.dtype) == (expected_sizes, dtype)
    assert result.is_contiguous() and result.device == placed.x.device
    assert torch.equal(placed.x.cpu(), case.sample.x), "x was changed"
    return result.cpu()


def describe(case: Case, got: Tensor, wrong: Tensor) -> str:
    """The call, and the first elements that are wrong."""
    expected = case.sample.expected(case.op)
    places = [tuple(place.tolist()) for place in wrong.nonzero()[:5]]
    pairs = [(place, got[place].item(), expected[place].item()) for place in places]
    return f"{int(wrong.sum())} of {wrong.numel()} wrong; (place, got, expected): {pairs}; {case}"


def check_linear(case: Case, place: Callable[[Tensor], Tensor], preserving: bool) -> None:
    """Fails, with all that is needed to repeat the call, if the promise is broken."""
    got = result_of(case, place)
    wrong = wrong_elements(case, got, preserving)
    assert not wrong.any(), describe(case, got, wrong)


def check_call(call: Call, place: Callable[[Tensor], Tensor], preserving: bool) -> None:
    """The same for any other call: `place` puts its tensors somewhere, which are not changed."""
    before = [tensor.clone() for tensor in call.tensors]
    placed = [place(tensor) for tensor in call.tensors]
    result = call.run(*placed)
    assert all(result.device == tensor.device for tensor in placed)
    got = result.cpu()
    exact, *allowed = call.expected()
    assert (got.shape, got.dtype) == (exact.shape, exact.dtype), str(call)
    for placed_tensor, tensor in zip(placed, before, strict=True):
        assert same_bits(placed_tensor.cpu(), tensor).all(), f"an input was changed: {call}"
    wrong = unlike(got, exact, None if preserving or not allowed else lambda: allowed)
    if not call.signed_zeros:
        wrong &= got != exact
    places = [tuple(place.tolist()) for place in wrong.nonzero()[:5]]
    pairs = [(place, got[place].item(), exact[place].item()) for place in places]
    assert not wrong.any(), (
        f"{int(wrong.sum())} of {wrong.numel()} wrong; (place, got, expected): {pairs}; {call}"
    )


def subnormal_samples() -> list[LinearSample]:
    """Calls in which each of the numbers named above is subnormal, so that losing it changes results."""
    weights = torch.tensor([[1], [100], [-7]], dtype=torch.int8)
    ones = torch.ones(3)

    def sample(input_scale: float, weight_scales: Tensor, output_scale: float, bias: Tensor | None = None):
        sums = row_sums(weights)
        x = torch.tensor([[3], [-128]], dtype=torch.int8)
        return LinearSample(x, input_scale, 0, weights, sums, weight_scales, output_scale, 0, bias)

    return [
        sample(1e-40, ones, 1e-38),
        sample(1e-40, ones * 1e10, 1e-29),
        sample(1.0, ones * 1e-40, 1e-38),
        sample(1e-20, ones * 1e-20, 1e-38),
        sample(2.0**-126, ones, 2.0**-127, -ones * 2.5 * 2.0**-126),
        sample(2.0**-126, ones, 2.0**-127, ones * 0.5 * 2.0**-126),
        sample(1e34, ones, 2.5e38),
    ]


def keeps_subnormals(place: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> bool:
    """Whether the linear operators' kernels, as chosen now, keep subnormal numbers: measured, not asked."""
    return all(
        torch.equal(sample.mapped(place).call(op).cpu(), sample.expected(op))
        for sample in subnormal_samples()
        for op in ("linear", "linear_dequant")
    )
