"""DLPack: torch hands vk memory to torch; whoever would read it as host memory is refused or gets a copy."""

from __future__ import annotations

import gc

import numpy
import pytest
import torch
from same import DTYPES, sample, to_vk
from torch.utils.dlpack import from_dlpack, to_dlpack


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


def test_the_memory_lives_as_long_as_either():
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


def test_to_and_from_the_host_by_a_copy():
    x = sample(3, 4).to("vk")
    on_host = torch.from_dlpack(x.__dlpack__(dl_device=(torch.utils.dlpack.DLDeviceType.kDLCPU, 0)))
    assert on_host.is_cpu and torch.equal(on_host, sample(3, 4))
    array = numpy.arange(6, dtype=numpy.float32).reshape(2, 3)
    moved = torch.from_dlpack(array, device="vk")
    assert moved.is_vk and torch.equal(moved.cpu(), torch.from_numpy(array))


def test_nobody_reads_it_as_host_memory():
    x = to_vk(sample(3))
    with pytest.raises((RuntimeError, BufferError, ValueError), match="(?i)device"):
        numpy.from_dlpack(x)
    with pytest.raises(ValueError, match="device type vk"):
        torch.from_dlpack(x)  # asks the tensor for its device, for which torch has no answer
    with pytest.raises(BufferError, match="gradient"):
        x.requires_grad_().__dlpack__()
    with pytest.raises(TypeError, match=r"Tensor\.cpu\(\)"):
        x.detach().numpy()
