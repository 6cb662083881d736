"""Memory of the vk device: statistics, reuse, what is given back, running out of it, and no growth."""

from __future__ import annotations

import gc
import re
from pathlib import Path

import pytest
import torch
from same import sample
from samples import make_sample

KIB = 1 << 10
MIB = 1 << 20


@pytest.fixture(autouse=True)
def nothing_cached() -> None:
    gc.collect()
    torch.vk.empty_cache()
    torch.vk.reset_peak_memory_stats()


def allocated() -> int:
    return torch.vk.memory_allocated()


def test_allocated_follows_the_tensors():
    start = allocated()
    x = torch.empty(MIB, dtype=torch.uint8, device="vk")
    assert allocated() - start == MIB
    y = torch.empty(3 * MIB, dtype=torch.uint8, device="vk")
    assert allocated() - start == 4 * MIB
    view = x[10:]
    del x
    assert allocated() - start == 4 * MIB, "a view keeps the memory"
    del view
    assert allocated() - start == 3 * MIB
    y.untyped_storage().resize_(0)
    assert allocated() - start <= KIB


@pytest.mark.parametrize("bytes_", [1, 3, 100, 511, 512, 513, 1000, 4097, 100_000, MIB + 1, 5 * MIB - 3])
def test_what_a_tensor_takes(bytes_):
    start = allocated()
    x = torch.empty(bytes_, dtype=torch.uint8, device="vk")
    assert bytes_ <= allocated() - start <= max(bytes_ * 9 / 8 + 64, 512)
    assert x.untyped_storage().nbytes() == bytes_


def test_tensors_without_elements_take_nothing():
    before = torch.vk.memory_stats()
    kept = [
        torch.empty(0, device="vk"),
        torch.empty(3, 0, device="vk"),
        torch.ones(4, device="vk")[4:].clone(),
    ]
    after = torch.vk.memory_stats()
    assert after["allocated_bytes.all.current"] == before["allocated_bytes.all.current"] and len(kept) == 3


def test_peaks():
    start = allocated()
    x = torch.empty(2 * MIB, dtype=torch.uint8, device="vk")
    del x
    y = torch.empty(MIB, dtype=torch.uint8, device="vk")
    assert torch.vk.max_memory_allocated() == start + 2 * MIB
    assert torch.vk.max_memory_reserved() >= torch.vk.max_memory_allocated()
    torch.vk.reset_peak_memory_stats()
    assert torch.vk.max_memory_allocated() == allocated() == start + y.nbytes


def test_freed_memory_is_used_again():
    x = torch.empty(MIB, dtype=torch.uint8, device="vk")
    address = x.data_ptr()
    before = torch.vk.memory_stats()
    del x
    y = torch.empty(MIB, dtype=torch.uint8, device="vk")
    after = torch.vk.memory_stats()
    assert y.data_ptr() == address
    assert after["cache_hits"] == before["cache_hits"] + 1
    assert after["reserved_bytes.all.current"] == before["reserved_bytes.all.current"]


def test_an_address_stands_for_a_tensor_only_while_it_lives():
    """torch's pickling makes tensors from addresses alone."""
    x = torch.arange(10, device="vk")
    storage = x.untyped_storage()
    again = torch._C._construct_storage_from_data_pointer(x.data_ptr(), x.device, storage.nbytes())
    assert torch.equal(torch.empty(0, dtype=x.dtype, device="vk").set_(again).cpu(), torch.arange(10))
    address, size = x.data_ptr(), storage.nbytes()
    del x, storage, again
    gc.collect()
    dead = torch._C._construct_storage_from_data_pointer(address, torch.device("vk", 0), size)
    with pytest.raises(RuntimeError, match="not a vk tensor's"):
        torch.empty(0, dtype=torch.int64, device="vk").set_(dead).cpu()


def test_empty_cache_gives_back_what_is_free():
    kept = torch.full((MIB,), 7, dtype=torch.uint8, device="vk")
    freed = torch.empty(2 * MIB, dtype=torch.uint8, device="vk")
    torch.vk.empty_cache()
    assert torch.vk.memory_reserved() == allocated()
    del freed
    assert torch.vk.memory_reserved() == allocated() + 2 * MIB
    torch.vk.empty_cache()
    assert torch.vk.memory_reserved() == allocated()
    assert int(kept.cpu().sum(dtype=torch.int64)) == 7 * MIB


def test_counts():
    torch.vk.empty_cache()
    before = torch.vk.memory_stats()

    def change(name: str) -> int:
        return torch.vk.memory_stats()[name] - before[name]

    kept = [torch.empty(100, dtype=torch.uint8, device="vk") for _ in range(10)]
    assert change("allocation.all.allocated") == change("allocation.all.current") == 10
    assert change("active.all.current") == change("segment.all.current") == 10
    assert change("requested_bytes.all.current") == change("requested_bytes.all.allocated") == 1000
    taken = change("allocated_bytes.all.current")
    assert taken >= 1000 and taken == change("active_bytes.all.current") == change(
        "reserved_bytes.all.current"
    )
    assert change("allocation.all.freed") == change("allocated_bytes.all.freed") == 0
    kept.clear()
    assert change("allocation.all.freed") == 10 and change("allocation.all.current") == 0
    assert change("allocated_bytes.all.freed") == change("allocated_bytes.all.allocated") == taken
    assert change("requested_bytes.all.freed") == 1000
    assert change("reserved_bytes.all.current") == taken and change("segment.all.current") == 10
    torch.vk.empty_cache()
    assert change("reserved_bytes.all.freed") == taken and change("segment.all.freed") == 10


def test_resetting_counts():
    kept = torch.empty(MIB, dtype=torch.uint8, device="vk")
    torch.vk.reset_accumulated_memory_stats()
    torch.vk.reset_peak_memory_stats()
    stats = torch.vk.memory_stats()
    assert stats["allocation.all.allocated"] == stats["allocated_bytes.all.freed"] == stats["cache_hits"] == 0
    assert stats["allocation.all.peak"] == stats["allocation.all.current"] >= 1
    assert stats["allocated_bytes.all.current"] >= kept.nbytes
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(1 << 60, dtype=torch.uint8, device="vk")
    stats = torch.vk.memory_stats()
    assert stats["num_ooms"] == stats["num_alloc_retries"] == 1


def test_memory_info():
    """What is free is not this process's alone to change."""
    free, total = torch.vk.mem_get_info()
    assert 0 < free <= total
    kept = torch.empty(64 * MIB, dtype=torch.uint8, device="vk")
    less, same = torch.accelerator.get_memory_info()
    assert same == total and 0 <= less <= total - kept.nbytes


def test_memory_is_not_reused_before_the_work_on_it_is_done():
    """A freed tensor's memory goes to the next one while copies from it may still be queued."""
    results = []
    for value in range(50):
        source = torch.full((1000,), value, dtype=torch.int32).to("vk")
        results.append(source.clone())
        del source
    assert [int(result[999]) for result in results] == list(range(50))
    assert all(
        torch.equal(result.cpu(), torch.full((1000,), i, dtype=torch.int32))
        for i, result in enumerate(results)
    )


ABSURD = {"2^60 bytes": 1 << 60, "2^50 bytes": 1 << 50, "more than any machine has": 1 << 47}


@pytest.mark.parametrize("size", ABSURD)
def test_out_of_memory(size):
    kept = torch.arange(1000, device="vk")
    torch.empty(MIB, dtype=torch.uint8, device="vk")  # now cached
    taken = allocated()
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError) as raised:
            torch.empty(ABSURD[size], dtype=torch.uint8, device="vk")
        numbers = [int(number) for number in re.findall(r"\d+", str(raised.value))]
        assert ABSURD[size] in numbers and taken in numbers, raised.value
        assert allocated() == taken, "the failure is not counted as memory"
    assert torch.vk.memory_reserved() == taken, "the cache was tried first"
    assert torch.equal((kept * 2).cpu(), torch.arange(0, 2000, 2))
    linear = make_sample((2,), 20, 12)
    on_vk = [a.to("vk") if isinstance(a, torch.Tensor) else a for a in linear.arguments("linear")]
    assert torch.equal(torch.ops.q8ta.linear(*on_vk).cpu(), linear.expected("linear"))


def test_out_of_memory_while_growing_leaves_the_tensor():
    x = torch.arange(10, device="vk")
    with pytest.raises(torch.OutOfMemoryError):
        x.untyped_storage().resize_(1 << 60)
    assert x.tolist() == list(range(10)) and x.untyped_storage().nbytes() == 80


def resident_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1])


def one_round(linear_arguments: list, x: torch.Tensor) -> None:
    torch.ops.q8ta.linear(*linear_arguments)
    y = torch.ops.q8ta.linear_dequant(*linear_arguments[:6], None, "relu")
    z = (y + 1).t().contiguous()
    z[:3].copy_(x)
    torch.cat([z, z]).fill_(2)
    torch.erfinv(z)  # one that falls back
    z[0, 0].item()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_no_growth_over_many_ops():
    linear = make_sample((8,), 64, 48)
    arguments = [a.to("vk") if isinstance(a, torch.Tensor) else a for a in linear.arguments("linear")]
    x = sample(3, 8).to("vk")
    for _ in range(60):
        one_round(arguments, x)
    torch.vk.synchronize()
    before, resident = torch.vk.memory_stats(), resident_kib()
    for _ in range(250):  # 8 operators each
        one_round(arguments, x)
    torch.vk.synchronize()
    after = torch.vk.memory_stats()
    assert after["allocated_bytes.all.current"] == before["allocated_bytes.all.current"]
    assert after["reserved_bytes.all.current"] == before["reserved_bytes.all.current"]
    assert after["reserved_bytes.all.peak"] == before["reserved_bytes.all.peak"]
    assert resident_kib() - resident < 4 * KIB, "the process has grown by 4 MiB"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_no_growth_over_many_replays_and_events():
    linear = make_sample((8,), 64, 48)
    arguments = [a.to("vk") if isinstance(a, torch.Tensor) else a for a in linear.arguments("linear")]

    def one_round() -> None:
        graph = torch.vk.Graph()
        with torch.vk.graph(graph):
            y = torch.ops.q8ta.linear(*arguments)
        begin, end = (torch.vk.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(20):
            graph.replay()
        end.record()
        end.synchronize()
        assert torch.equal(y.cpu(), linear.expected("linear"))

    for _ in range(20):
        one_round()
    gc.collect()
    torch.vk.synchronize()
    before, resident = torch.vk.memory_stats(), resident_kib()
    for _ in range(60):
        one_round()
    gc.collect()
    torch.vk.synchronize()
    after = torch.vk.memory_stats()
    assert after["allocated_bytes.all.current"] == before["allocated_bytes.all.current"]
    assert after["reserved_bytes.all.peak"] == before["reserved_bytes.all.peak"]
    assert resident_kib() - resident < 4 * KIB, "the process has grown by 4 MiB"


def test_no_growth_without_waiting():
    """Nothing waits for results: what is queued must not pile up."""
    x = sample(64, 64).to("vk")
    for _ in range(100):
        x = x.clone()
    torch.vk.synchronize()
    before = torch.vk.memory_stats()
    for _ in range(2000):
        x = x.clone()
    after = torch.vk.memory_stats()
    assert after["reserved_bytes.all.peak"] == before["reserved_bytes.all.peak"]
    assert torch.equal(x.cpu(), sample(64, 64))
