"""Devices, threads, memory, profiling: how the ops behave in a process rather than what they compute."""

from __future__ import annotations

import gc
import os
import threading

import pytest
import torch
from gil import another_thread_runs_during
from samples import make_sample, random_int8, run_in_eight_threads

import q8ta_ops

DEVICE = os.environ["Q8TA_DEVICE"]


def assert_right(seed: int = 0, rows: int = 3) -> None:
    sample = make_sample((rows,), 40, 24, seed=seed)
    for op in sample.ops():
        assert torch.equal(sample.call(op), sample.expected(op))


def test_devices_describe_themselves():
    found = q8ta_ops.devices()
    assert [device.index for device in found] == list(range(len(found)))
    for device in found:
        assert device.name and device.driver and device.api_version
        assert device.type in ("discrete", "integrated", "virtual", "cpu", "other")
        assert device.features and all(isinstance(name, str) for name in device.features)
        assert set(device.kernels) >= {"linear", "linear_gemv", "linear_dequant", "pack", "unpack"}
        assert device.kernels["linear_gemv"].startswith("linear_gemv/")
        assert device.kernels["linear"].startswith("linear_gemm/")
        with pytest.raises((AttributeError, TypeError)):
            device.name = "other"
    assert q8ta_ops.devices() == found


def test_default_device_is_the_named_one():
    default = q8ta_ops.default_device()
    assert default.reason
    if DEVICE == "host":
        assert default.name == "host" and default.device is None
    else:
        assert default.device in q8ta_ops.devices() and default.name == default.device.name
        assert DEVICE in default.name or DEVICE == str(default.device.index)


def test_use_device_nests_and_restores():
    outer = q8ta_ops.default_device().name
    with q8ta_ops.use_device("host"):
        assert q8ta_ops.default_device().name == "host"
        with q8ta_ops.use_device(DEVICE):
            assert q8ta_ops.default_device().name == outer
            assert_right(1)
        assert q8ta_ops.default_device().name == "host"
        with pytest.raises(KeyError), q8ta_ops.use_device(DEVICE):
            raise KeyError("from inside the block")
        assert q8ta_ops.default_device().name == "host"
        assert_right(2)
    assert q8ta_ops.default_device().name == outer


def test_use_device_accepts_index_and_part_of_a_name():
    for device in q8ta_ops.devices():
        for name in (str(device.index), device.name, device.name[:5]):
            with q8ta_ops.use_device(name):
                assert q8ta_ops.default_device().name[:5] == device.name[:5]


@pytest.mark.parametrize("name", ["no such device", "-1", "999"])
def test_use_device_refuses_unknown_names(name):
    before = q8ta_ops.default_device().name
    with pytest.raises(ValueError) as error, q8ta_ops.use_device(name):
        pass
    assert "host" in str(error.value)
    assert all(device.name in str(error.value) for device in q8ta_ops.devices())
    assert q8ta_ops.default_device().name == before
    assert_right()


def test_use_device_refuses_unknown_kernel_families():
    with pytest.raises(ValueError, match="subgroup"), q8ta_ops.use_device(None, disable=("warp",)):
        pass
    assert_right()


def test_profile_records_each_dispatch(path):
    one = make_sample((1,), 33, 9, seed=1)
    many = make_sample((2, 3), 33, 9, seed=2)
    with q8ta_ops.profile() as profile:
        one.call("linear_gemv")
        many.call("linear_dequant")
        one.call("linear")
    kept = [d for d in profile.dispatches if d.op != "weights" and "pack/" not in d.kernel]
    assert [(d.op, d.M, d.K, d.N) for d in kept] == [
        ("linear_gemv", 1, 33, 9),
        ("linear_dequant", 6, 33, 9),
        ("linear", 1, 33, 9),
    ]
    for dispatch in kept:
        if path.id == "host":
            assert dispatch.gpu_us is None
        else:
            assert 0 <= dispatch.gpu_us < 10_000_000
    one.call("linear")
    assert len(kept) == len([d for d in profile.dispatches if d.op != "weights" and "pack/" not in d.kernel])


def test_weights_are_packed_once(path):
    sample = make_sample((4,), 48, 20, seed=3)
    path.check(sample, "linear")
    with q8ta_ops.profile() as profile:
        for _ in range(3):
            sample.call("linear")
    assert [d for d in profile.dispatches if d.op == "weights"] == []


def test_eight_threads_at_once(target):
    """Every thread has its own weights and shapes, and one weight is shared by all."""
    shared = make_sample((3,), 64, 48, seed=99)
    shared_expected = shared.expected("linear")
    own = [
        [make_sample((rows,), 16 + 13 * thread, 8 + 5 * thread, seed=thread) for rows in (1, 2 + thread)]
        for thread in range(8)
    ]
    expected = [[[s.expected(op) for op in s.ops()] for s in samples] for samples in own]
    start = threading.Barrier(8)
    failures: list[str] = []

    def work(thread: int) -> None:
        try:
            start.wait(timeout=30)
            for turn in range(12):
                for sample, wanted in zip(own[thread], expected[thread], strict=True):
                    for op, want in zip(sample.ops(), wanted, strict=True):
                        if not torch.equal(sample.call(op), want):
                            failures.append(f"thread {thread}, turn {turn}: {op} differs")
                if not torch.equal(shared.call("linear"), shared_expected):
                    failures.append(f"thread {thread}, turn {turn}: the shared weight's result differs")
                if turn == 6 and thread == 0:
                    q8ta_ops.clear_weight_cache()
        except Exception as error:  # a thread's exception would vanish otherwise
            failures.append(f"thread {thread}: {error!r}")

    run_in_eight_threads(work)
    assert failures == []


def test_the_gil_is_released_while_a_call_waits(target):
    sample = make_sample((32,), 512, 512, seed=4)
    sample.call("linear")
    assert another_thread_runs_during(lambda: sample.call("linear"))


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads /proc")
def test_memory_is_flat_over_2000_calls(target):
    """Every call has new weights; the sizes change from call to call."""
    generator = torch.Generator().manual_seed(5)
    sizes = torch.randint(1, 160, (2000, 2), generator=generator).tolist()
    q8ta_ops.clear_weight_cache()
    resident = []
    packed = 0
    for turn, (depth, columns) in enumerate(sizes):
        weights = random_int8(generator, columns, depth)
        sums = weights.sum(1, dtype=torch.int32)
        rows = 1 if turn % 2 else 1 + turn % 9
        x = torch.zeros(rows, depth, dtype=torch.int8)
        torch.ops.q8ta.linear(x, 0.1, 0, weights, sums, torch.ones(columns), 0.1, 0, None, "none")
        packed += weights.numel()
        if turn % 100 == 99:
            gc.collect()
            resident.append(resident_bytes())
    assert q8ta_ops.weight_cache_size() < packed / 20, "dead weights stay in the cache"
    growth = resident[-1] - resident[len(resident) // 4]
    assert growth < 12 << 20, f"resident memory grew by {growth >> 10} KiB: {[r >> 10 for r in resident]}"
