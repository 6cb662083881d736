"""What `torch.ops.q8ta.linear.default` and its like call on vk does what torch's own callable does."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

import numpy
import pytest
import torch
from same import to_vk
from samples import make_sample
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

Place = Callable[[torch.Tensor], torch.Tensor]

OPS = ["linear", "linear_gemv", "linear_dequant", "requantize"]
PLACES = {"vk": to_vk, "cpu": lambda tensor: tensor}


def direct(op: str) -> torch._ops.OpOverload:
    return getattr(torch.ops.q8ta, op).default


def general(op: str) -> Callable:
    """torch's own."""
    return torch._C._get_operation_overload(f"q8ta::{op}", "")[0]


def arguments(op: str, place: Place = to_vk) -> tuple:
    sample = make_sample([1 if op == "linear_gemv" else 3], 64, 20).mapped(place)
    return (sample.x, 0.5, 3, 0.25, -7) if op == "requantize" else sample.arguments(op)


def outcome(call: Callable, *positional: object, **named: object) -> object:
    """The values of the result, or which error it was."""
    try:
        result = call(*positional, **named)
    except Exception as error:
        return type(error), str(error)
    return result.device, result.dtype, result.cpu().tolist()


def assert_same(op: str, *positional: object, **named: object) -> object:
    wanted = outcome(general(op), *positional, **named)
    assert outcome(direct(op), *positional, **named) == wanted
    return wanted


@pytest.mark.parametrize("op", OPS)
def test_is_what_the_overload_calls_and_looks_like_torchs_own(op):
    wrapped = direct(op)._op
    assert type(wrapped).__name__ == "DirectCall" and wrapped.__module__ == "torch._ops.q8ta"
    assert direct(op).op is wrapped
    entries = {direct(op): op}
    assert entries[getattr(torch.ops.q8ta, op).default] == op


def test_hash_is_as_before_so_that_tables_by_operator_still_hold_it():
    from q8ta_ops.device import vk_library

    own = general("linear")
    assert hash(vk_library().direct_call(own, "q8ta::linear")) == hash(own)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("op", OPS)
def test_plain_calls(op, place):
    given = arguments(op, place)
    assert isinstance(assert_same(op, *given)[-1], list)


@pytest.mark.parametrize("op", ["linear", "linear_dequant"])
def test_absent_arguments(op):
    given = arguments(op)
    for absent in range(1, len(given) + 1):
        assert_same(op, *given[:-absent])
    assert_same(op, *given, 1)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_named_arguments(place):
    given = arguments("linear", place)
    names = [argument.name for argument in torch.ops.q8ta.linear.default._schema.arguments]
    plain = assert_same("linear", *given)
    for named in range(1, len(given) + 1):
        first = len(given) - named
        call = given[:first], dict(zip(names[first:], given[first:], strict=True))
        assert assert_same("linear", *call[0], **call[1]) == plain
    assert_same("linear", *given, bias=None)
    assert_same("linear", *given[:-1], activate="relu")


WRONG = [
    None,
    1,
    2,
    True,
    0.5,
    2**40,
    2**80,
    -(2**80),
    float("nan"),
    1j,
    "relu",
    "none",
    "\ud800",
    b"relu",
    [1],
]
WRONG += [(), object(), torch.tensor(1.0), torch.tensor(2), numpy.float64(0.5), numpy.float32(0.5)]
WRONG += [numpy.int64(2), numpy.ones(3, numpy.int8), torch.float32]


@pytest.mark.parametrize("position", range(10))
def test_any_object_in_any_place(position):
    given = list(arguments("linear"))
    for wrong in WRONG:
        given[position] = wrong
        got, wanted = (outcome(call("linear"), *given) for call in (direct, general))
        assert got == wanted or repr(got) == repr(wanted), wrong


def test_subclasses_decide_for_themselves():
    class Named(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            return function.__name__

    given = list(arguments("linear"))
    given[3] = given[3].as_subclass(Named)
    assert direct("linear")(*given) == "linear.default"


def test_parameters_are_tensors():
    given = list(arguments("linear"))
    plain = assert_same("linear", *given)
    given[5] = torch.nn.Parameter(given[5], requires_grad=False)
    assert assert_same("linear", *given) == plain


def test_modes_see_the_call():
    seen = []

    class FunctionMode(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.append(function)
            return function(*args, **(kwargs or {}))

    class DispatchMode(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(function)
            return function(*args, **(kwargs or {}))

    given = arguments("linear")
    plain = outcome(direct("linear"), *given)
    for mode in (FunctionMode(), DispatchMode()):
        with mode:
            result = direct("linear")(*given)
        assert seen.pop(0) is direct("linear") and not seen
        assert result.cpu().tolist() == plain[-1]


def test_fake_tensors_and_tracing():
    given = arguments("linear")
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = direct("linear")(*given)
        assert type(fake).__name__ == "FakeTensor" and fake.shape == (3, 20) and fake.device.type == "vk"
        assert direct("linear")(mode.from_tensor(given[0]), *given[1:]).shape == (3, 20)
    traced = make_fx(lambda x: direct("linear")(x, *given[1:]))(given[0])
    assert [node.target for node in traced.graph.nodes if node.op == "call_function"] == [direct("linear")]
    assert torch.equal(traced(given[0]), direct("linear")(*given))


def test_torchscript_and_vmap():
    given = arguments("requantize")

    def packet(x: torch.Tensor) -> torch.Tensor:
        return torch.ops.q8ta.requantize(x, 0.5, 3, 0.25, -7)

    assert torch.equal(torch.jit.script(packet)(given[0]), direct("requantize")(*given))
    assert_same("requantize", *given)
    vmapped = [
        outcome(torch.vmap(lambda x, call=call: call(x, *given[1:])), given[0])
        for call in (direct("requantize"), general("requantize"))
    ]
    assert vmapped[0] == vmapped[1]


def test_a_gradient_is_refused_alike():
    given = list(arguments("linear_dequant"))
    given[5] = given[5].clone().requires_grad_()
    results = [call("linear_dequant")(*given) for call in (direct, general)]
    assert results[0].requires_grad == results[1].requires_grad
    assert torch.equal(results[0].detach(), results[1].detach())


def test_a_text_is_not_taken_for_the_one_before():
    *rest, _ = arguments("linear")
    results = {}
    for text in ("relu", "none", "".join(["re", "lu"]), "none", "gelu", "\ud800", "none", "relu"):
        outcome = assert_same("linear", *rest, text)
        assert results.setdefault(text, outcome) == outcome
    assert results["relu"] != results["none"]


def test_nothing_is_kept():
    given = arguments("linear")
    wrong = (*given[:-1], "gelu")

    def counts() -> list[int]:
        return [sys.getrefcount(each) for each in given]

    def rounds(count: int) -> None:
        for _ in range(count):
            direct("linear")(*given)
            direct("linear")(*given, **{})
            with pytest.raises(RuntimeError, match="activation"):
                direct("linear")(*wrong)

    rounds(3)
    torch.vk.synchronize()
    gc.collect()
    before, allocated = counts(), torch.vk.memory_allocated()
    rounds(100)
    torch.vk.synchronize()
    gc.collect()
    assert (counts(), torch.vk.memory_allocated()) == (before, allocated)
