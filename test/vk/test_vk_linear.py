"""The q8ta operators on vk tensors: views, queued work, mixed devices, results that no binding holds.

The cases that they share with CPU tensors are in test_vk_linear_cases.py.
"""

from __future__ import annotations

import sys
import weakref

import pytest
import torch
from same import to_vk
from samples import (
    OPS,
    LinearSample,
    make_sample,
)

import q8ta_ops

TENSORS = ("x", "weights", "weight_sums", "weight_scales", "bias")


def call(op: str, sample: LinearSample) -> torch.Tensor:
    return getattr(torch.ops.q8ta, op)(
        *(to_vk(value) if isinstance(value, torch.Tensor) else value for value in sample.arguments(op))
    )


def test_any_storage_offset(path):
    sample = make_sample((3,), 20, 12, seed=3)
    for offset in (1, 2, 3, 4, 5, 7, 16, 17, 64):

        def shifted(tensor: torch.Tensor, offset: int = offset) -> torch.Tensor:
            room = torch.full((tensor.numel() + offset,), 99).to(tensor.dtype)
            room[offset:] = tensor.reshape(-1)
            return room[offset:].view(tensor.shape)

        changed = sample.replaced(**{name: shifted(getattr(sample, name)) for name in TENSORS})
        path.check(changed)
        path.check(changed.replaced(x=shifted(sample.x[:1])))


def test_views_of_results_are_inputs(path):
    """Chains whose tensors are views of others, as a model's are."""
    first = make_sample((6,), 24, 32, seed=1)
    y = call("linear", first)
    for x, expected in (
        (y[1:4], first.expected("linear")[1:4]),
        (y[:, 3:19], first.expected("linear")[:, 3:19]),
    ):
        second = make_sample((x.shape[0],), x.shape[1], 10, seed=2).replaced(x=expected.contiguous())
        arguments = [a.to("vk") if isinstance(a, torch.Tensor) else a for a in second.arguments("linear")]
        assert torch.equal(torch.ops.q8ta.linear(x, *arguments[1:]).cpu(), second.expected("linear"))


def test_inputs_are_not_modified():
    sample = make_sample((3,), 30, 14, seed=14)
    for op in sample.ops():
        arguments = [to_vk(a) if isinstance(a, torch.Tensor) else a for a in sample.arguments(op)]
        getattr(torch.ops.q8ta, op)(*arguments).fill_(1)
        for argument, before in zip(arguments, sample.arguments(op), strict=True):
            if isinstance(argument, torch.Tensor):
                assert torch.equal(argument.cpu(), before) and argument._version == 0


def test_many_queued_before_anyone_waits():
    """More work than a batch holds, results kept: the last one is right, and so is the first."""
    samples = [make_sample((2,), 33, 17, seed=seed) for seed in range(8)]
    results = [(sample, call("linear", sample)) for _ in range(40) for sample in samples]
    assert all(torch.equal(result.cpu(), sample.expected("linear")) for sample, result in reversed(results))


def test_a_chain_stays_on_the_device():
    layers = [
        make_sample((4,), 32, 32, seed=seed, zero_points=(0, 0), activation="relu") for seed in range(20)
    ]
    x = layers[0].x
    y = x.to("vk")
    moved = [[to_vk(a) if isinstance(a, torch.Tensor) else a for a in s.arguments("linear")] for s in layers]
    torch.vk.reset_fallbacks()
    for layer, arguments in zip(layers, moved, strict=True):
        x = layer.replaced(x=x).expected("linear")
        y = torch.ops.q8ta.linear(y, *arguments[1:])
    assert torch.vk.fallbacks() == {} and torch.equal(y.cpu(), x)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("name", TENSORS)
def test_mixed_devices_name_the_argument(op, name):
    sample = make_sample((1,), 12, 6, seed=1)
    names = ("x", None, None, "weights", "weight_sums", "weight_scales")
    names += ("bias",) if op == "linear_dequant" else (None, None, "bias")
    arguments = list(sample.arguments(op))
    for index, argument in enumerate(names):
        if argument is not None and argument != name:
            arguments[index] = arguments[index].to("vk")
    # One on vk among CPU tensors, too: whichever is not where x is.
    wanted = r"\b(weights|weight_sums|weight_scales|bias)\b" if name == "x" else rf"\b{name}\b"
    with pytest.raises(RuntimeError, match=wanted) as raised:
        getattr(torch.ops.q8ta, op)(*arguments)
    assert "vk:0" in str(raised.value) and "cpu" in str(raised.value)
    alone = list(sample.arguments(op))
    alone[names.index(name)] = alone[names.index(name)].to("vk")
    with pytest.raises(RuntimeError, match=wanted):
        getattr(torch.ops.q8ta, op)(*alone)
    assert torch.equal(call(op, sample).cpu(), sample.expected(op))


def test_the_namespace_never_falls_back_silently():
    """An operator without a kernel refuses vk tensors instead of computing somewhere else."""
    with torch.library._scoped_library("q8ta", "FRAGMENT") as library:
        library.define("only_in_this_test(Tensor x) -> Tensor")
        library.impl("only_in_this_test", lambda x: x + 1, "CPU")
        assert torch.ops.q8ta.only_in_this_test(torch.ones(1)) == 2
        with pytest.raises(NotImplementedError, match="only_in_this_test has no kernel for the vk device"):
            torch.ops.q8ta.only_in_this_test(torch.ones(1, device="vk"))
    # Else torch 2.11 looks for it when Inductor is imported, in vain.
    assert "only_in_this_test" not in list(torch.ops.q8ta)


@pytest.mark.parametrize(
    ("op", "rows", "columns"), [("linear_dequant", 180, 200_000), ("linear", 260, 600_001)]
)
def test_a_result_that_no_binding_holds(op, rows, columns):
    """y has more than 128 MiB, the smallest maxStorageBufferRange that Vulkan allows."""
    sample = make_sample((rows,), 4, columns, seed=8)
    arguments = sample.arguments(op)
    function = getattr(torch.ops.q8ta, op).default
    with q8ta_ops.use_device("host"):
        expected = function(*arguments)
    result = function(*[each.to("vk") if isinstance(each, torch.Tensor) else each for each in arguments])
    assert expected.nbytes > 128 << 20
    assert torch.equal(result.cpu(), expected)
    torch.vk.empty_cache()


@pytest.mark.parametrize("op", OPS)
def test_arguments_are_let_go(op):
    """What the caller still has is unchanged, and what nobody has any more is freed, also after an error."""
    linear = make_sample((1,), 32, 16)
    arguments = [to_vk(a) if isinstance(a, torch.Tensor) else a for a in linear.arguments(op)]
    tensors = [a for a in arguments if isinstance(a, torch.Tensor)]
    function = getattr(torch.ops.q8ta, op).default
    function(*arguments)
    before = [sys.getrefcount(tensor) for tensor in tensors]
    torch.vk.synchronize()
    allocated = torch.vk.memory_allocated()
    for _ in range(20):
        y = function(*(a.clone() if isinstance(a, torch.Tensor) else a for a in arguments))
        assert torch.equal(y.cpu(), linear.expected(op))
        del y
        with pytest.raises(RuntimeError, match="activation"):
            function(*arguments[:-1], "tanh")
    clones = [a.clone() if isinstance(a, torch.Tensor) else a for a in arguments]
    function(*clones)
    watched = [weakref.ref(a) for a in clones if isinstance(a, torch.Tensor)]
    del clones
    assert all(reference() is None for reference in watched)
    assert [sys.getrefcount(tensor) for tensor in tensors] == before
    q8ta_ops.clear_weight_cache()
    assert torch.vk.memory_allocated() <= allocated
