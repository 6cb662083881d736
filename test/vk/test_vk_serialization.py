"""Tensors and modules on vk in pickle, torch.save, deepcopy, state_dict, DataLoader and share_memory."""

from __future__ import annotations

import copy
import io
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from same import DTYPES, assert_same, sample, to_vk
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def saved(value: object) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_save_and_load(dtype):
    x = sample(3, 5, dtype=dtype)
    for view in (x, x.t(), x[1:, ::2], x[:0]):
        assert_same(torch.load(saved(to_vk(view))), view)


@pytest.mark.parametrize("target", ["cpu", "vk", "vk:0", "meta"])
@pytest.mark.parametrize("source", ["cpu", "vk"])
def test_map_location(source, target):
    x = sample(3, 5)
    for location in (target, torch.device(target), {source if source == "cpu" else "vk:0": target}):
        loaded = torch.load(saved(x.to(source)), map_location=location)
        assert loaded.device == (torch.device("vk:0") if "vk" in target else torch.device(target))
        assert target == "meta" or torch.equal(loaded.cpu(), x)


def test_map_location_as_a_function():
    loaded = torch.load(saved(sample(3).to("vk")), map_location=lambda storage, location: storage)
    assert loaded.device.type == "cpu" and torch.equal(loaded, sample(3))


def test_a_device_that_is_missing_says_so():
    buffer = saved(sample(3))
    with pytest.raises(RuntimeError, match="(?i)device.*(index|ordinal)|invalid|99"):
        torch.load(buffer, map_location="vk:99")


def test_shared_storages_stay_shared():
    x = sample(4, 4).to("vk")
    first, second = torch.load(saved([x, x[1:].t()]))
    assert first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()
    first.zero_()
    assert second.cpu().abs().sum() == 0


def test_old_format_and_memory_mapped_files(tmp_path):
    x = sample(3, 4)
    old = io.BytesIO()
    torch.save(x.to("vk"), old, _use_new_zipfile_serialization=False)
    old.seek(0)
    assert_same(torch.load(old), x)
    path = tmp_path / "x.pt"
    torch.save(x.to("vk"), path)
    assert torch.equal(torch.load(path, map_location="cpu", mmap=True), x)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(protocol):
    x = sample(3, 4)
    assert_same(pickle.loads(pickle.dumps(x.to("vk"), protocol)), x)
    assert_same(pickle.loads(pickle.dumps(to_vk(x.t()[1:]), protocol)), x.t()[1:], layout=False)
    parameter = pickle.loads(pickle.dumps(nn.Parameter(x.to("vk")), protocol))
    assert isinstance(parameter, nn.Parameter) and parameter.is_vk and parameter.requires_grad


def test_deepcopy():
    x = to_vk(sample(4, 4).t()[1:])
    copied = copy.deepcopy(x)
    assert_same(copied, sample(4, 4).t()[1:])
    copied.zero_()
    assert torch.equal(x.cpu(), sample(4, 4).t()[1:])
    module = nn.Linear(3, 2).to("vk")
    twin = copy.deepcopy(module)
    assert twin.weight.is_vk and torch.equal(twin.weight.cpu(), module.weight.cpu())
    assert twin.weight.data_ptr() != module.weight.data_ptr()
    assert copy.copy(x).data_ptr() == x.data_ptr()


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))


def test_state_dict():
    on_cpu, on_vk = model(), model().to("vk")
    state = on_vk.state_dict()
    assert all(tensor.is_vk for tensor in state.values())
    assert_same(dict(state), dict(on_cpu.state_dict()))
    other = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))
    other.load_state_dict(torch.load(saved(state), map_location="cpu"))  # to the CPU
    assert torch.equal(other[0].weight, on_cpu[0].weight)
    other = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)).to("vk")
    other.load_state_dict(on_cpu.state_dict())  # from the CPU
    assert other[0].weight.is_vk and torch.equal(other[0].weight.cpu(), on_cpu[0].weight)
    other.load_state_dict(state, assign=True)
    assert other[0].weight.data_ptr() == on_vk[0].weight.data_ptr()


def test_modules_move():
    module = model()
    same = module.vk()
    assert same is module and all(p.is_vk for p in module.parameters()) and module[1].running_mean.is_vk
    assert module.half()[0].weight.dtype == torch.float16 and module[0].weight.is_vk
    assert not any(p.is_vk for p in module.float().cpu().parameters())
    whole = torch.load(saved(model().to("vk")), weights_only=False)
    assert whole[0].weight.is_vk


def test_optimizer_state():
    module = model().to("vk")
    optimizer = torch.optim.Adam(module.parameters())
    module(sample(3, 4).to("vk")).sum().backward()
    optimizer.step()
    other = torch.optim.Adam(module.parameters())
    other.load_state_dict(torch.load(saved(optimizer.state_dict())))
    assert other.state[module[0].weight]["exp_avg"].is_vk


@pytest.mark.parametrize("workers", [0, 1])
def test_data_loader_with_pinned_memory(workers):
    x, y = sample(12, 3), torch.arange(12)
    context = "spawn" if workers else None
    loader = DataLoader(
        TensorDataset(x, y),
        batch_size=5,
        pin_memory=True,
        num_workers=workers,
        multiprocessing_context=context,
    )
    seen = [(a.to("vk", non_blocking=True), b.to("vk", non_blocking=True)) for a, b in loader]
    assert torch.equal(torch.cat([a for a, _ in seen]).cpu(), x)
    assert torch.equal(torch.cat([b for _, b in seen]).cpu(), y)
    assert all(a.is_pinned() and b.is_pinned() for a, b in loader)


def test_pinned_memory():
    x = sample(5)
    assert torch.equal(x.pin_memory(), x) and torch.equal(x.pin_memory().to("vk").cpu(), x)
    assert torch.equal(torch.empty(5, pin_memory=True).copy_(x), x)
    with pytest.raises(RuntimeError, match="(?i)pin"):
        x.to("vk").pin_memory()


def test_what_is_pinned():
    x = sample(3, 5)
    pinned = x.pin_memory()
    assert pinned.is_cpu and pinned.is_pinned() and pinned[1:, 2].is_pinned() and not x.is_pinned()
    assert pinned.pin_memory().data_ptr() == pinned.data_ptr(), "it is pinned already"
    assert torch.from_numpy(pinned.numpy()[1:]).is_pinned(), "the same memory"
    if not torch.cuda.is_available():  # else torch takes the memory from CUDA, and asks vk about it
        assert torch.empty(5, pin_memory=True).is_pinned() and torch.ones(5, pin_memory=True).is_pinned()
    assert not pinned.clone().is_pinned() and not torch.empty(0).pin_memory().is_pinned()
    assert not x.to("vk").is_pinned()
    assert pinned.untyped_storage().is_pinned("vk")


def test_memory_is_pinned_only_while_it_is_in_use():
    pinned = sample(1 << 16).pin_memory()
    address, bytes_ = pinned.data_ptr(), pinned.untyped_storage().nbytes()
    del pinned
    kept = [torch.empty(1 << 16) for _ in range(8)]  # one of them may get the address
    storage = torch._C._construct_storage_from_data_pointer(address, torch.device("cpu"), bytes_)
    assert not torch.empty(0).set_(storage).is_pinned() and not any(each.is_pinned() for each in kept)


def test_pinned_tensors_from_many_threads():
    def work(seed: int) -> bool:
        each = [sample(100, seed=seed + i).pin_memory() for i in range(50)]
        return all(x.is_pinned() and torch.equal(x, sample(100, seed=seed + i)) for i, x in enumerate(each))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(0, 400, 50)))


def test_collections_and_subclasses():
    class Named(torch.Tensor):
        pass

    x = sample(3).as_subclass(Named).to("vk")
    assert isinstance(x, Named) and x.is_vk and torch.equal(x.cpu(), sample(3))
    parameters = nn.ParameterList([torch.ones(2), torch.zeros(3)]).to("vk")
    assert all(p.is_vk for p in parameters)
