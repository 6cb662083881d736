"""Bad input raises an error that names the argument, real or fake tensors; the next good call is right."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from forced_paths import on_the_cpu
from samples import OPS, LinearSample, make_sample
from torch._subclasses.fake_tensor import FakeTensorMode

ERRORS = (RuntimeError, ValueError, TypeError)
N = 6
K = 12


@dataclass(frozen=True)
class Mistake:
    """One change that makes a good call bad."""

    id: str
    argument: str  # pattern that the message must hold
    change: Callable[[LinearSample], dict[str, object]]
    ops: tuple[str, ...] = OPS
    by_value: bool = False  # seen only in a tensor's values, which a fake tensor does not have


def scalar(name: str, *values: float) -> list[Mistake]:
    ops = OPS[:2] if name.startswith("output") else OPS
    return [Mistake(f"{name}={value}", rf"\b{name}\b", lambda s, v=value: {name: v}, ops) for value in values]


def dtype(name: str, *dtypes: torch.dtype) -> list[Mistake]:
    return [
        Mistake(f"{name}:{d}", rf"\b{name}\b", lambda s, d=d: {name: getattr(s, name).to(d)}) for d in dtypes
    ]


def length(name: str, *lengths: int) -> list[Mistake]:
    def resized(sample: LinearSample, wanted: int) -> torch.Tensor:
        tensor = getattr(sample, name)
        return tensor.repeat(3)[:wanted]

    return [Mistake(f"{name}[{n}]", rf"\b{name}\b", lambda s, n=n: {name: resized(s, n)}) for n in lengths]


def rank(name: str) -> list[Mistake]:
    return [
        Mistake(f"{name} 2-D", rf"\b{name}\b", lambda s: {name: getattr(s, name)[None]}),
        Mistake(f"{name} 0-D", rf"\b{name}\b", lambda s: {name: getattr(s, name)[0]}),
    ]


def scale_value(value: float) -> Mistake:
    def changed(sample: LinearSample) -> dict[str, object]:
        scales = sample.weight_scales.clone()
        scales[N - 1] = value
        return {"weight_scales": scales}

    return Mistake(f"weight_scales holds {value}", r"\bweight_scales\b", changed, by_value=True)


def elsewhere(name: str) -> Mistake:
    return Mistake(f"{name} on meta", rf"\b{name}\b", lambda s: {name: getattr(s, name).to("meta")})


BAD_SCALES = (math.nan, math.inf, -math.inf, 0.0, -0.0, -0.5)

MISTAKES = [
    *dtype("x", torch.uint8, torch.int32, torch.float32, torch.bool),
    *dtype("weights", torch.uint8, torch.int32, torch.float32),
    *dtype("weight_sums", torch.int64, torch.int8, torch.float32),
    *dtype("weight_scales", torch.float64, torch.float16, torch.int32),
    *dtype("bias", torch.float64, torch.bfloat16, torch.int32),
    *scalar("input_scale", *BAD_SCALES),
    *scalar("output_scale", *BAD_SCALES),
    *(scale_value(value) for value in BAD_SCALES),
    *scalar("input_zero_point", -129, 128, 2**31, -(2**40)),
    *scalar("output_zero_point", -129, 128, 2**31, -(2**40)),
    *length("weight_sums", 0, 1, 5, 7, 9, 12),
    *length("weight_scales", 0, 1, 5, 7, 9, 12),
    *length("bias", 0, 1, 5, 7, 9, 12),
    *rank("weight_sums"),
    *rank("weight_scales"),
    *rank("bias"),
    Mistake("x 0-D", r"\bx\b", lambda s: {"x": s.x[0, 0]}),
    Mistake("x without K", r"\b(x|weights)\b", lambda s: {"x": s.x[:, :0]}),
    Mistake("K of x too small", r"\b(x|weights)\b", lambda s: {"x": s.x[:, : K - 1]}),
    Mistake("K of x too large", r"\b(x|weights)\b", lambda s: {"x": s.x.repeat(1, 2)}),
    Mistake("weights 1-D", r"\bweights\b", lambda s: {"weights": s.weights[0]}),
    Mistake("weights 3-D", r"\bweights\b", lambda s: {"weights": s.weights[None]}),
    Mistake("weights transposed", r"\b(x|weights)\b", lambda s: {"weights": s.weights.t()}),
    Mistake("no output channel", r"\bweights\b", lambda s: {"weights": s.weights[:0]}),
    Mistake("K is 0", r"\b(x|weights)\b", lambda s: {"x": s.x[:, :0], "weights": s.weights[:, :0]}),
    Mistake(
        "K over the bound",
        r"65,?793",
        lambda s: {"x": s.x[:1, :1].expand(1, 65794), "weights": s.weights[:, :1].expand(N, 65794)},
    ),
    *(
        Mistake(f"activation={name!r}", r"\bactivation\b", lambda s, name=name: {"activation": name})
        for name in ("gelu", "", "ReLU", "relu6", "None")
    ),
    *(
        Mistake(
            f"gemv with x {sizes}",
            r"\bx\b",
            lambda s, sizes=sizes: {"x": torch.zeros(*sizes, K, dtype=torch.int8)},
            ops=("linear_gemv",),
        )
        for sizes in ((2,), (0,), (2, 3), (2, 1), (1, 0), (65,))
    ),
    *(elsewhere(name) for name in ("x", "weights", "weight_sums", "weight_scales", "bias")),
]
CASES = [pytest.param(m, op, id=f"{op}: {m.id}") for m in MISTAKES for op in m.ops]


def good() -> LinearSample:
    return make_sample((1,), K, N, seed=1)


def assert_next_call_is_right(op: str, place: Callable[[torch.Tensor], torch.Tensor]) -> None:
    sample = make_sample((1,), K, N, seed=2, activation="relu").mapped(place)
    assert torch.equal(sample.call(op).cpu(), sample.expected(op))


@pytest.mark.parametrize(("mistake", "op"), CASES)
def test_bad_input_names_the_argument(target, place, mistake, op):
    if target == "vk" and mistake.by_value:
        pytest.skip("values on the device are not looked at: that would wait for it")
    bad = good().replaced(**mistake.change(good())).mapped(place)
    with pytest.raises(ERRORS, match=mistake.argument):
        bad.call(op)
    assert_next_call_is_right(op, place)


FAKE_CASES = [case for case in CASES if not case.values[0].by_value and "meta" not in case.values[0].id]


@pytest.mark.parametrize(("mistake", "op"), FAKE_CASES)
def test_fake_tensors_give_the_same_errors(place, mistake, op):
    bad = good().replaced(**mistake.change(good())).mapped(place)
    with FakeTensorMode() as mode:
        arguments = [mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in bad.arguments(op)]
        with pytest.raises(ERRORS, match=mistake.argument):
            getattr(torch.ops.q8ta, op)(*arguments)


def properties(tensor: torch.Tensor) -> tuple:
    return tensor.shape, tensor.dtype, tensor.stride(), tensor.device


@pytest.mark.parametrize("leading", [(), (1,), (1, 1, 1), (4,), (2, 3), (0,), (3, 0)], ids=str)
def test_fake_tensors_have_the_real_results_properties(place, leading):
    sample = make_sample(leading, K, N, seed=3).mapped(place)
    for op in sample.ops():
        with FakeTensorMode() as mode:
            arguments = [
                mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in sample.arguments(op)
            ]
            fake = getattr(torch.ops.q8ta, op)(*arguments)
        assert properties(fake) == properties(sample.call(op))


@pytest.mark.parametrize("op", OPS)
def test_meta_tensors_compute_shapes(op):
    sample = make_sample((1, 1), K, N, seed=4)
    arguments = [a.to("meta") if isinstance(a, torch.Tensor) else a for a in sample.arguments(op)]
    result = getattr(torch.ops.q8ta, op)(*arguments)
    assert result.device.type == "meta" and result.shape == (1, 1, N)


def test_backward_says_that_there_is_none(target, place):
    sample = make_sample((1,), K, N, seed=5).mapped(place)
    bias = sample.bias.clone().requires_grad_()
    result = sample.replaced(bias=bias).call("linear_dequant")
    assert torch.equal(result.detach().cpu(), sample.expected("linear_dequant"))
    with pytest.raises(ERRORS, match="(?i)backward|derivative|autograd"):
        result.sum().backward()
    assert bias.grad is None
    assert_next_call_is_right("linear_dequant", place)


def test_int8_results_never_require_grad(target, place):
    sample = make_sample((1,), K, N, seed=6).mapped(place)
    changed = sample.replaced(
        bias=sample.bias.clone().requires_grad_(), weight_scales=sample.weight_scales.clone().requires_grad_()
    )
    for op in ("linear", "linear_gemv"):
        result = changed.call(op)
        assert not result.requires_grad and torch.equal(result.cpu(), sample.expected(op))


def test_an_error_in_the_middle_leaves_the_cache_right(path):
    sample = make_sample((4,), K, N, seed=7)
    for mistake in MISTAKES:
        if "linear" in mistake.ops and not (mistake.by_value and path.place is not on_the_cpu):
            bad = sample.replaced(**mistake.change(sample)).mapped(path.place)
            with pytest.raises(ERRORS, match=mistake.argument):
                bad.call("linear")
    path.check(sample)
