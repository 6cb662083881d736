"""Between dtypes and between devices."""

from __future__ import annotations

import pytest
import torch
from same import DTYPES, assert_same, check, sample, to_vk


@pytest.mark.parametrize("to", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.filterwarnings("ignore:Casting complex values to real")
def test_dtype_to_dtype(dtype, to):
    x = sample(3, 5, dtype=dtype)
    check(lambda v: v.to(to), x)
    check(lambda v: v.t().to(to), x)
    check(lambda v: torch.zeros(5, 3, dtype=to, device=v.device).t().copy_(v), x)
    # Device and dtype at once, both ways.
    assert_same(x.to("vk", to), x.to(to))
    assert torch.equal(to_vk(x).to("cpu", to), x.to(to))


METHODS = {
    "float": lambda x: x.float(),
    "double": lambda x: x.double(),
    "half": lambda x: x.half(),
    "bfloat16": lambda x: x.bfloat16(),
    "int": lambda x: x.int(),
    "long": lambda x: x.long(),
    "short": lambda x: x.short(),
    "char": lambda x: x.char(),
    "byte": lambda x: x.abs().byte(),
    "bool": lambda x: x.bool(),
    "type": lambda x: x.type(torch.float64),
    "type_as": lambda x: x.type_as(torch.ones(1, dtype=torch.int16, device=x.device)),
    "to another": lambda x: x.to(torch.ones(1, dtype=torch.int16, device=x.device)),
    "to itself": lambda x: x.to(x.dtype) is x,
    "to a copy": lambda x: x.to(x.dtype, copy=True),
}


@pytest.mark.parametrize("how", METHODS)
def test_conversion_methods(how):
    check(METHODS[how], sample(3, 5))


@pytest.mark.parametrize("name", ["vk", "vk:0"])
@pytest.mark.parametrize("kind", [str, torch.device])
def test_names_of_the_device(kind, name):
    device = kind(name)
    x = sample(3, 5)
    on_vk = x.to(device)
    assert on_vk.device == torch.device("vk", 0) and on_vk.is_vk and not on_vk.is_cpu
    assert torch.equal(on_vk.cpu(), x) and torch.ones(2, device=device).device == torch.device("vk:0")
    assert on_vk.to(device) is on_vk


def test_ways_to_move():
    x = sample(3, 5)
    for moved in (x.vk(), x.vk(0), x.vk("vk:0"), x.to(device="vk"), x.to("vk", non_blocking=True), to_vk(x)):
        assert moved.device == torch.device("vk:0") and torch.equal(moved.cpu(), x)
    on_vk = x.vk()
    for back in (
        on_vk.cpu(),
        on_vk.to("cpu"),
        on_vk.to(torch.device("cpu")),
        on_vk.to(x),
        on_vk.to("cpu", non_blocking=True),
        torch.empty(3, 5).copy_(on_vk),
        torch.empty(5, 3).t().copy_(on_vk),
    ):
        assert back.device.type == "cpu" and torch.equal(back, x)
    assert on_vk.vk() is on_vk and x.cpu() is x
    assert on_vk.get_device() == 0 and x.get_device() == -1


def test_changes_after_a_move_do_not_reach_the_source():
    x = sample(4)
    on_vk = x.to("vk")
    x.add_(1)
    assert torch.equal(on_vk.cpu(), x - 1)
    back = on_vk.cpu()
    on_vk.zero_()
    assert torch.equal(back, x - 1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_strides_survive_moves(dtype):
    x = sample(4, 6, dtype=dtype)
    for view in (x.t(), x[::2], x[1:, 3:], x[:, ::2].t(), x[:0], x[:1].expand(5, 6), x[2]):
        assert_same(view.to("vk"), view.to("cpu", copy=True))
        back = to_vk(view).cpu()
        assert torch.equal(back, view) and back.stride() == view.to("cpu", copy=True).stride()


def test_large_tensors_travel_in_pieces():
    values = torch.arange((16 << 20) // 4 * 2 + 12345, dtype=torch.int32)  # over two pieces of 16 MiB
    on_vk = values.to("vk")
    assert torch.equal(on_vk.cpu(), values)
    assert torch.equal(on_vk.clone()[4194000:4195000].cpu(), values[4194000:4195000])


def test_numpy_and_lists():
    x = torch.arange(4.0, device="vk")
    with pytest.raises(TypeError, match=r"vk:0 device type tensor to numpy.*cpu\(\)"):
        x.numpy()
    assert x.numpy(force=True).tolist() == x.tolist() == x.cpu().numpy().tolist()
    with pytest.raises(TypeError, match="vk:0"):
        import numpy

        numpy.asarray(x)


def test_storages():
    x = torch.arange(4, dtype=torch.int32, device="vk")
    storage = x.untyped_storage()
    assert storage.device == torch.device("vk:0") and storage.nbytes() == 16 and storage.is_vk
    assert bytes(storage.cpu().tolist()) == x.cpu().numpy().tobytes()
    assert bytes(storage.cpu().vk().tolist()) == x.cpu().numpy().tobytes()
    assert storage.data_ptr() == x.data_ptr() != 0
    assert x[1:].data_ptr() == x.data_ptr() + 4
    assert torch.empty(0, device="vk").data_ptr() == 0
    clone = storage.clone()
    clone.fill_(0)
    assert x.tolist() == [0, 1, 2, 3] and set(clone.tolist()) == {0}
    storage.resize_(32)
    assert storage.nbytes() == 32 and x.tolist() == [0, 1, 2, 3]
    storage.resize_(0)
    assert storage.nbytes() == 0


def test_type_strings():
    x = torch.ones(2, device="vk")
    assert x.type() == "torch.vk.FloatTensor"
    assert str(x.device) == "vk:0" and repr(x.device) == "device(type='vk', index=0)"


def test_what_has_no_form_on_the_device_says_so():
    with pytest.raises((RuntimeError, NotImplementedError)):
        sample(3, 3).to_sparse().to("vk")
    with pytest.raises(NotImplementedError, match="Sparse"):
        torch.empty(3, 3, device="vk", layout=torch.sparse_coo)
    assert torch.equal(sample(3).to("vk").cpu(), sample(3))


def test_meta_tensors():
    meta = torch.empty(3, 4, device="vk").to("meta")
    assert meta.device.type == "meta"
    with pytest.raises(NotImplementedError, match="meta"):
        meta.to("vk")
    module = torch.nn.Linear(3, 2, device="meta").to_empty(device="vk")
    assert module.weight.device == torch.device("vk:0")
