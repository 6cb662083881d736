"""`torch.vk.host_view`: CPU tensors in the memory of vk tensors, on devices that share the host's memory."""

from __future__ import annotations

import gc
import threading

import pytest
import torch
from fault_runs import marks, run
from graphs import captured
from same import DTYPES, sample, to_vk
from samples import make_sample
from torch.utils.dlpack import from_dlpack, to_dlpack

import q8ta_ops

host_visible = pytest.mark.usefixtures("host_visible_memory")


@host_visible
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_memory_is_shared(dtype):
    x = to_vk(sample(5, 7, dtype=dtype))
    view = torch.vk.host_view(x)
    assert view.is_cpu and (view.dtype, view.shape, view.stride()) == (dtype, x.shape, x.stride())
    assert torch.equal(view, sample(5, 7, dtype=dtype))
    x.fill_(1)
    torch.vk.synchronize()
    assert torch.equal(view, torch.ones(5, 7, dtype=dtype))
    view[1].zero_()
    assert not x[1].cpu().any() and x[0].cpu().all() and x[2:].cpu().all()


@host_visible
@pytest.mark.parametrize("dtype", [torch.int8, torch.float32, torch.complex128], ids=str)
def test_views(dtype):
    """Also those of memory that came by DLPack, which begin somewhere in that of another tensor."""
    x = to_vk(sample(5, 7, dtype=dtype))
    whole = torch.vk.host_view(x)
    for view in (x[2:4], x[1:, 3:6], x.t()[2:], x[4, 6], x[:, 2:3].expand(5, 4), x[::2, ::3], x.conj()):
        for tensor in (view, from_dlpack(to_dlpack(view)) if not view.is_conj() else view):
            on_host = torch.vk.host_view(tensor)
            assert (on_host.shape, on_host.stride()) == (view.shape, view.stride())
            assert on_host.is_conj() == view.is_conj() and torch.equal(on_host, view.cpu())
            offset = view.storage_offset() * view.element_size()
            assert on_host.data_ptr() == whole.data_ptr() + offset
    torch.vk.host_view(x[1:, 3:6]).fill_(1)
    expected = sample(5, 7, dtype=dtype)
    expected[1:, 3:6] = 1
    assert torch.equal(x.cpu(), expected), "and what is around the view stays"


@host_visible
def test_negated_views():
    x = to_vk(sample(6, dtype=torch.complex64)).conj().imag
    view = torch.vk.host_view(x)
    assert view.is_neg() and torch.equal(view, -sample(6, dtype=torch.complex64).imag)


@host_visible
@pytest.mark.parametrize("sizes", [(0,), (3, 0), (0, 2, 5)])
def test_no_elements(sizes):
    x = torch.empty(sizes, device="vk")
    view = torch.vk.host_view(x)
    assert view.is_cpu and (view.shape, view.stride(), view.dtype) == (x.shape, x.stride(), x.dtype)


@host_visible
def test_the_memory_lives_as_long_as_the_view():
    gc.collect()
    start = torch.vk.memory_allocated()
    x = torch.full((1000,), 7.0, device="vk")
    view, part = torch.vk.host_view(x), torch.vk.host_view(x[10:20])
    assert torch.vk.memory_allocated() - start == x.untyped_storage().nbytes() + 96, "a block of 4096 bytes"
    del x
    others = [torch.full((1000,), 3.0, device="vk") for _ in range(5)]
    torch.vk.empty_cache()
    assert view.eq(7).all() and part.eq(7).all() and all(other.cpu().eq(3).all() for other in others)
    del others, view
    assert torch.vk.memory_allocated() > start and part.eq(7).all()
    del part
    assert torch.vk.memory_allocated() == start


@host_visible
def test_growing_the_tensor_leaves_the_view():
    x = to_vk(sample(1000))
    view = torch.vk.host_view(x)
    x.resize_(5000)
    others = [torch.full((1000,), 3.0, device="vk") for _ in range(5)]
    torch.vk.synchronize()
    assert torch.equal(view, sample(1000)) and torch.equal(x.cpu()[:1000], sample(1000))
    view.zero_()
    assert torch.equal(x.cpu()[:1000], sample(1000)) and all(other.cpu().eq(3).all() for other in others)
    with pytest.raises(RuntimeError, match="not resizable"):
        view.resize_(2000)


@host_visible
@pytest.mark.parametrize("submitted", [False, True])
def test_queued_work_is_seen(submitted):
    x = torch.zeros(10_000, device="vk")
    for _ in range(50):
        x = x + 1
    if submitted:
        event = torch.vk.Event()
        event.record()
        event.query()
    assert torch.vk.host_view(x).eq(50).all()


@host_visible
def test_what_the_host_writes_is_seen_by_later_work():
    x = torch.zeros(3000, device="vk")
    y = torch.empty(3000, device="vk")
    for step in range(20):
        torch.vk.host_view(x).fill_(step)
        torch.mul(x, 2.0, out=y)
        assert torch.vk.host_view(y).eq(2 * step).all()
    view, result = torch.vk.host_view(x), torch.vk.host_view(y)
    graph, y = captured(lambda: x.mul(3.0))
    result = torch.vk.host_view(y)
    for step in range(5):
        view.fill_(step)
        graph.replay()
        torch.vk.synchronize()
        assert result.eq(3 * step).all()


@host_visible
def test_in_place_operators_on_the_view_are_counted():
    """As edits of the vk tensor: autograd notices them, and packed weights are packed again."""
    x = torch.ones(3, device="vk", requires_grad=True)
    y = torch.ones(3, device="vk")
    product = x * y
    torch.vk.host_view(y).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()

    linear = make_sample((3,), 37, 21)
    on_vk = linear.mapped(to_vk)
    for seed in range(3):
        linear = linear.with_weights(make_sample((3,), 37, 21, seed=seed).weights)
        torch.vk.host_view(on_vk.weights).copy_(linear.weights)
        on_vk = linear.mapped(to_vk).replaced(weights=on_vk.weights)
        for _ in range(2):
            assert torch.equal(on_vk.call("linear").cpu(), linear.expected("linear"))


@host_visible
def test_edits_that_are_not_counted():
    linear = make_sample((3,), 37, 21)
    on_vk = linear.mapped(to_vk)
    assert torch.equal(on_vk.call("linear").cpu(), linear.expected("linear"))
    linear = linear.with_weights(make_sample((3,), 37, 21, seed=1).weights)
    torch.vk.host_view(on_vk.weights).numpy()[:] = linear.weights.numpy()
    q8ta_ops.clear_weight_cache()
    on_vk = linear.mapped(to_vk).replaced(weights=on_vk.weights)
    assert torch.equal(on_vk.call("linear").cpu(), linear.expected("linear"))


@host_visible
def test_inference_tensors():
    with torch.inference_mode():
        x = to_vk(sample(3))
        torch.vk.host_view(x).add_(1)
    torch.vk.host_view(x).add_(1)
    y = to_vk(sample(3))
    with torch.inference_mode():
        torch.vk.host_view(y).add_(2)
    assert torch.equal(x.cpu(), sample(3) + 2) and torch.equal(y.cpu(), sample(3) + 2)


@host_visible
def test_threads():
    failed = []

    def work(number):
        x = torch.full((500,), float(number), device="vk")
        for step in range(50):
            torch.vk.host_view(x).add_(1)
            x.add_(1)
            if not torch.vk.host_view(x).eq(number + 2 * (step + 1)).all():
                failed.append((number, step))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_what_is_refused():
    with pytest.raises(ValueError, match="expected a vk tensor, got one on cpu"):
        torch.vk.host_view(torch.ones(3))
    with pytest.raises(RuntimeError, match=r"requires gradients; give it tensor\.detach\(\)"):
        torch.vk.host_view(torch.ones(3, device="vk", requires_grad=True))
    with pytest.raises(TypeError):
        torch.vk.host_view([1.0])


DISCRETE = """
layer.pretend_discrete()
q8ta_ops.enable_vk_device()
properties = torch.vk.get_device_properties()
assert (properties.type, properties.host_visible_memory) == ("discrete", False)
layer.forget_counts()
tensors = [torch.empty(size, device="vk") for size in (1, 1000, 1 << 20)]
assert layer.made("CreateBuffer") == 3 and layer.made("MapMemory") == 0
x = torch.arange(6.0).to("vk")
for tensor in (x, x[:0], x[2:]):
    with pytest.raises(RuntimeError, match=r"not host-visible: .* has it for itself.*\\.cpu\\(\\)"):
        torch.vk.host_view(tensor)
host = (1, 0)
copied = torch.from_dlpack(x.__dlpack__(dl_device=host))
assert copied.is_cpu and torch.equal(copied, torch.arange(6.0))
copied.zero_()
assert torch.equal(x.cpu(), torch.arange(6.0))
with pytest.raises((ValueError, BufferError), match="copy"):
    x.__dlpack__(dl_device=host, copy=False)
assert torch.from_dlpack(x).data_ptr() == x.data_ptr()
"""

NO_ROOM_TO_MAP = """
q8ta_ops.enable_vk_device()
assert torch.vk.get_device_properties().host_visible_memory
with layer.failing("MapMemory", MEMORY_MAP_FAILED):
    with pytest.raises(torch.OutOfMemoryError, match="could not allocate"):
        torch.empty(1 << 26, device="vk")
x = torch.empty(1 << 26, device="vk")
torch.vk.host_view(x)[-3:].fill_(5)
assert x[-4:].tolist()[1:] == [5, 5, 5]
"""

ONE_SUBMISSION = """
q8ta_ops.enable_vk_device()
x = torch.arange(6.0).to("vk")
for look in (torch.vk.synchronize, lambda: torch.vk.host_view(x)):
    x.add_(1)
    layer.forget_counts()
    look()
    assert layer.made("QueueSubmit") == 1
    torch.vk.synchronize()
    torch.vk.host_view(x)
    assert layer.made("QueueSubmit") == 1, "the host has seen it all"
assert torch.vk.host_view(x).tolist() == [2, 3, 4, 5, 6, 7]
"""

LOST = """
q8ta_ops.enable_vk_device()
x = torch.arange(6.0).to("vk")
view = torch.vk.host_view(x)
layer.lose_devices()
with pytest.raises(RuntimeError, match="was lost"):
    torch.vk.host_view(x.add(1))  # work that the host has not seen
with pytest.raises(RuntimeError, match="was lost"):
    torch.vk.host_view(x)
with pytest.raises(RuntimeError, match="was lost"):
    x.__dlpack__(dl_device=(1, 0))
del x
assert torch.equal(view, torch.arange(6.0))
"""


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(script, id=name, marks=marks)
        for name, script in (
            ("discrete", DISCRETE),
            ("map", NO_ROOM_TO_MAP),
            ("submissions", ONE_SUBMISSION),
            ("lost", LOST),
        )
    ],
)
def test_with_the_fault_layer(script):
    run(script)
