"""Properties of the operators on CPU tensors: any call gives the reference's bits, on every kernel path.

What is promised of subnormal numbers, and of no other exception, is in promised.py.
"""

from __future__ import annotations

import pytest
import torch
from choosing import SMALLEST_NORMAL, SeededChooser
from hypothesis import given
from promised import (
    check_call,
    check_linear,
    describe,
    keeps_subnormals,
    result_of,
    subnormal_samples,
    wrong_elements,
)
from random_linears import Case, linear_case
from random_ops import Call, pack_call, requantize_call, unpack_call
from reference import linear_dequant_possible, linear_possible
from samples import LinearSample, epilogue_sample, row_sums
from strategies import drawn, examples

import q8ta_ops


@examples(ci=50)
@given(case=drawn(linear_case, 300_000))
def test_linear(path, case: Case):
    check_linear(case, path.place, preserving=keeps_subnormals(path.place))


@examples(ci=60)
@given(call=drawn(requantize_call))
def test_requantize(place, call: Call):
    check_call(call, place, preserving=keeps_subnormals(place))


@examples(ci=60)
@given(call=drawn(pack_call))
def test_pack(place, call: Call):
    check_call(call, place, preserving=True)


@examples(ci=60)
@given(call=drawn(unpack_call))
def test_unpack(place, call: Call):
    check_call(call, place, preserving=True)


def test_relu_gives_no_negative_zero(path):
    """The host kernel returned -0.0 for -0.0, and devices 0.0."""
    values = torch.tensor([-0.0, 0.0, -1e-45, 1e-45, -1.0, 1.0, -float("inf")]).repeat(3)
    for sample in (
        # A negative sum times a product of scales that rounds to 0.
        LinearSample(
            *(torch.tensor([[-1]], dtype=torch.int8).expand(9, 1), 1e-30, 0),
            *(torch.ones(33, 1, dtype=torch.int8), torch.ones(33, dtype=torch.int32)),
            *(torch.full((33,), 1e-30), 1.0, 0, None, "relu"),
        ),
        epilogue_sample(values, 1.0, activation="relu"),
    ):
        if "NVIDIA" not in q8ta_ops.default_device().name:  # flushes
            path.check(sample, "linear_dequant")
        assert not path.run("linear_dequant", sample).cpu().signbit().any()


def test_subnormal_numbers_are_kept(path):
    """By the host kernel always, by lavapipe as measured: their bits are compared without allowance."""
    if path.id == "host" or "llvmpipe" in q8ta_ops.default_device().name:
        assert keeps_subnormals(path.place)
    for sample in subnormal_samples():
        for op in ("linear", "linear_dequant"):
            check_linear(Case(op, sample), path.place, preserving=False)


@pytest.mark.parametrize("op", ["linear", "linear_dequant"])
def test_the_comparison_tells_flushed_numbers_from_kept_ones(op):
    for sample in subnormal_samples():
        case = Case(op, sample)
        exact = sample.expected(op)
        possible = linear_possible if op == "linear" else linear_dequant_possible
        flushed = possible(*sample.arguments(op))[-1]
        wrong = wrong_elements(case, flushed, preserving=True)
        if op == "linear" or sample.input_scale < 1:  # else only the output scale's reciprocal is subnormal
            assert wrong.any(), str(case)
        assert not wrong_elements(case, flushed, preserving=False).any()
        assert not wrong_elements(case, exact, preserving=True).any()
        assert wrong_elements(case, torch.full_like(exact, 77), preserving=False).all()


def test_what_flushing_changes_is_allowed_and_nothing_else():
    """A processor that flushes, at torch's request, stands in for a device that does.

    To it a subnormal scale is 0, which is an error that names it.
    """
    changed = 0
    with q8ta_ops.use_device("host"):
        cases = [Case(op, sample) for sample in subnormal_samples() for op in ("linear", "linear_dequant")]
        cases += [linear_case(SeededChooser(seed), 20_000) for seed in range(300)]
        cases = [case for case in cases if has_normal_scales(case.sample)]
        assert torch.set_flush_denormal(True), "this processor cannot flush"
        try:
            results = [result_of(case) for case in cases]
        finally:
            torch.set_flush_denormal(False)
        for case, got in zip(cases, results, strict=True):
            changed += bool(wrong_elements(case, got, preserving=True).any())
            wrong = wrong_elements(case, got, preserving=False)
            assert not wrong.any(), describe(case, got, wrong)
    assert changed >= 3


def has_normal_scales(sample: LinearSample) -> bool:
    scales = sample.weight_scales[: sample.weights.shape[0]].tolist()
    return min(sample.input_scale, 1 / sample.output_scale, sample.output_scale, *scales) >= SMALLEST_NORMAL


@pytest.mark.parametrize("seed", range(3))
def test_seeded_choices_are_the_same_everywhere(seed):
    """The driver of many cases names a case by its seed alone."""
    first, second = (linear_case(SeededChooser(seed)) for _ in range(2))
    assert str(first) == str(second) and torch.equal(first.sample.x, second.sample.x)
    assert torch.equal(result_of(first), result_of(second)) and row_sums(first.sample.weights).numel() > 0
