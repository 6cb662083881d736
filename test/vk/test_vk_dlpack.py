"""DLPack hands vk memory to torch, and to others as host memory where it is the host's, too.

`test_vk_host_view.py` is about the latter without DLPack.
"""

from __future__ import annotations

import gc
import inspect

import numpy
import pytest
import torch
from same import DTYPES, sample, to_vk
from samples import make_sample
from torch.utils.dlpack import DLDeviceType, from_dlpack, to_dlpack

HOST = (DLDeviceType.kDLCPU, 0)
host_visible = pytest.mark.usefixtures("host_visible_memory")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_memory_is_shared(dtype):
    x = to_vk(sample(3, 4, dtype=dtype))
    y = from_dlpack(to_dlpack(x))
    assert (y.device, y.dtype, y.shape, y.data_ptr()) == (x.device, x.dtype, x.shape, x.data_ptr())
    x.fill_(1)
    assert torch.equal(y.cpu(), torch.ones(3, 4, dtype=dtype))
    y[1].zero_()
    assert not x[1].cpu().any() and x[0].cpu().all()


def test_strides_and_no_elements():
    x = to_vk(sample(4, 6))
    y = from_dlpack(to_dlpack(x.t()[::2]))
    assert y.stride() == (2, 6) and torch.equal(y.cpu(), sample(4, 6).t()[::2])
    assert from_dlpack(to_dlpack(torch.empty(3, 0, device="vk"))).shape == (3, 0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_memory_of_a_view_is_shared(dtype):
    """A capsule holds the address of the view's first element, somewhere in the memory of its tensor."""
    x = to_vk(sample(5, 7, dtype=dtype))
    for view in (x[2:4], x[1:, 3:6], x.t()[2:], x[4, 6]):
        y = from_dlpack(to_dlpack(view))
        assert (y.data_ptr(), y.shape, y.stride()) == (view.data_ptr(), view.shape, view.stride())
        assert torch.equal(y.cpu(), view.cpu())
    y = from_dlpack(to_dlpack(x[1, 3:6]))
    y.fill_(1)
    expected = sample(5, 7, dtype=dtype)
    expected[1, 3:6] = 1
    assert torch.equal(x.cpu(), expected), "and what is around the view stays"
    y.copy_(x[0, :3])
    expected[1, 3:6] = expected[0, :3]
    assert torch.equal(x.cpu(), expected)


def test_operators_on_views():
    """Kernels read and write them in place, wherever in its memory they begin."""
    x = to_vk(sample(9, 11))
    a, b = (from_dlpack(to_dlpack(x[row, 3:8])) for row in (2, 5))
    expected = sample(9, 11)
    assert torch.equal((a * b + 1).cpu(), expected[2, 3:8] * expected[5, 3:8] + 1)
    a.add_(b)
    expected[2, 3:8] += expected[5, 3:8]
    assert torch.equal(x.cpu(), expected)
    whole = torch.arange(-60, 60, dtype=torch.int8)
    on_vk = whole.to("vk")
    y = from_dlpack(to_dlpack(on_vk[5:28]))
    assert torch.equal(y.clamp(-52, -40).cpu(), whole[5:28].clamp(-52, -40))
    y.clamp_(-52, -40)
    whole[5:28].clamp_(-52, -40)
    assert torch.equal(on_vk.cpu(), whole)


def test_growing_a_view_leaves_what_it_came_from():
    x = to_vk(sample(20))
    y = from_dlpack(to_dlpack(x[4:9]))
    y.resize_(50)[5:].zero_()
    assert torch.equal(x.cpu(), sample(20))
    assert torch.equal(y.cpu()[:5], sample(20)[4:9])


def test_linear_on_views():
    """Also where the memory's owner edits the weights, which torch does not count for the view."""
    linear = make_sample((3,), 37, 21)
    whole = torch.cat([torch.zeros(5, 37, dtype=torch.int8), linear.weights]).to("vk")
    x = torch.cat([torch.zeros(2, 37, dtype=torch.int8), linear.x]).to("vk")
    views = {"x": from_dlpack(to_dlpack(x[2:])), "weights": from_dlpack(to_dlpack(whole[5:]))}
    for seed in range(3):
        linear = linear.with_weights(make_sample((3,), 37, 21, seed=seed).weights)
        whole[5:].copy_(linear.weights)
        on_vk = linear.mapped(to_vk).replaced(**views)
        for _ in range(2):
            assert torch.equal(on_vk.call("linear").cpu(), linear.expected("linear"))


def test_the_memory_lives_as_long_as_either():
    gc.collect()
    start = torch.vk.memory_allocated()
    x = torch.full((1000,), 7.0, device="vk")
    y = from_dlpack(to_dlpack(x))
    del x
    gc.collect()
    others = [torch.full((1000,), 3.0, device="vk") for _ in range(5)]
    assert y.cpu().eq(7).all() and all(other.cpu().eq(3).all() for other in others)
    del y, others
    gc.collect()
    assert torch.vk.memory_allocated() == start


def test_versioned_capsules():
    x = to_vk(sample(5))
    assert torch.from_dlpack(x.__dlpack__(max_version=(1, 0))).data_ptr() == x.data_ptr()
    copied = torch.from_dlpack(x.__dlpack__(max_version=(1, 0), copy=True))
    assert copied.is_vk and copied.data_ptr() != x.data_ptr() and torch.equal(copied.cpu(), sample(5))


def test_torch_takes_tensors_themselves():
    x = to_vk(sample(3, 4))
    assert x.__dlpack_device__() == (DLDeviceType.kDLExtDev, 0)
    for y in (torch.from_dlpack(x), torch.from_dlpack(x[1:]), torch.from_dlpack(x, device="vk:0")):
        assert y.device == x.device and torch.equal(y.cpu(), sample(3, 4)[-len(y) :])
        y[-1].add_(1)
        assert torch.equal(x[-1].cpu(), y[-1].cpu()) and torch.equal(x[0].cpu(), sample(3, 4)[0])
        y[-1].sub_(1)
    assert torch.equal(torch.from_dlpack(x, copy=True).zero_().cpu(), torch.zeros(3, 4))
    assert torch.equal(torch.from_dlpack(x, device="cpu"), sample(3, 4))
    assert torch.equal(x.cpu(), sample(3, 4))


@host_visible
@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != torch.bfloat16], ids=str)
def test_numpy_shares_the_memory(dtype):
    x = to_vk(sample(5, 7, dtype=dtype))
    for view in (x, x[2:4], x[1:, 3:6], x.t()[2:]):
        array = numpy.from_dlpack(view, device="cpu")
        assert array.ctypes.data == torch.vk.host_view(view).data_ptr()
        assert torch.equal(torch.from_numpy(array), view.cpu())
    x.zero_()
    torch.vk.synchronize()
    assert not array.any()
    array[1] = 1
    expected = torch.zeros(5, 7, dtype=dtype)
    expected.t()[3] = 1
    assert torch.equal(x.cpu(), expected)


@host_visible
def test_numpy_keeps_the_memory():
    gc.collect()
    start = torch.vk.memory_allocated()
    array = numpy.from_dlpack(torch.full((1000,), 7.0, device="vk"), device="cpu")
    others = [torch.full((1000,), 3.0, device="vk") for _ in range(5)]
    torch.vk.synchronize()
    assert (array == 7).all() and torch.vk.memory_allocated() > start
    del array, others
    gc.collect()
    assert torch.vk.memory_allocated() == start


@host_visible
@pytest.mark.parametrize("copy", [None, False])
def test_exports_to_the_host_share_the_memory(copy):
    x = to_vk(sample(4))
    capsule = x.__dlpack__(max_version=(1, 0), dl_device=HOST, copy=copy)
    y = torch.from_dlpack(capsule)
    y.neg_()
    assert y.is_cpu and torch.equal(x.cpu(), -sample(4))


def test_exports_that_are_copies():
    x = to_vk(sample(3, 4))
    copied = numpy.from_dlpack(x, device="cpu", copy=True)
    assert numpy.array_equal(copied, sample(3, 4))
    copied[:] = 0
    assert torch.equal(x.cpu(), sample(3, 4))
    negated = to_vk(sample(3, dtype=torch.complex64)).conj().imag
    assert negated.is_neg()
    exported = torch.from_dlpack(negated.__dlpack__(dl_device=HOST))
    assert torch.equal(exported, -sample(3, dtype=torch.complex64).imag)


def test_from_the_host_by_a_copy():
    array = numpy.arange(6, dtype=numpy.float32).reshape(2, 3)
    moved = torch.from_dlpack(array, device="vk")
    assert moved.is_vk and torch.equal(moved.cpu(), torch.from_numpy(array))


def test_nobody_reads_it_as_host_memory():
    x = to_vk(sample(3))
    with pytest.raises((RuntimeError, BufferError, ValueError), match="(?i)device"):
        numpy.from_dlpack(x)
    with pytest.raises(BufferError, match="conj"):
        to_vk(sample(3, dtype=torch.complex64)).conj().__dlpack__(dl_device=HOST)
    for device in (None, HOST):
        with pytest.raises(BufferError, match="gradient"):
            to_vk(sample(3)).requires_grad_().__dlpack__(dl_device=device)
    with pytest.raises(TypeError, match=r"Tensor\.cpu\(\)"):
        x.numpy()


def test_other_tensors_are_exported_as_ever():
    x = sample(3, 4)
    assert x.__dlpack_device__() == HOST and torch.from_dlpack(x).data_ptr() == x.data_ptr()
    assert numpy.from_dlpack(x).ctypes.data == x.data_ptr()
    assert torch.from_dlpack(x.__dlpack__(dl_device=HOST, copy=True)).data_ptr() != x.data_ptr()
    with pytest.raises(AssertionError, match="stream"):
        x.__dlpack__(stream=1)
    parameters = inspect.signature(torch.Tensor.__dlpack__).parameters
    assert list(parameters)[:5] == ["self", "stream", "max_version", "dl_device", "copy"]
    assert parameters["stream"].default == -1 and "DLpack" in torch.Tensor.__dlpack__.__doc__


def test_subclasses_are_asked():
    class Counted(torch.Tensor):
        calls = []

        @classmethod
        def __torch_function__(cls, function, types, arguments=(), keywords=None):
            cls.calls.append(function)
            return super().__torch_function__(function, types, arguments, keywords or {})

    x = to_vk(sample(3)).as_subclass(Counted)
    Counted.calls.clear()
    assert torch.equal(torch.from_dlpack(x).cpu(), sample(3))
    assert Counted.calls[:2] == [torch.Tensor.__dlpack_device__, torch.Tensor.__dlpack__]
