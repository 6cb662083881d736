"""Vulkan calls that fail, for CPU tensors: an error that says so or a right result, and no harm that lasts.

A layer of our own (`fault_layer/`) makes them fail in processes of their own, above the validation layers. CI
tries a share of all faults (`fault_runs` says how to try all). Q8TA_TEST_SHAPES=10000 is the long form of
`test_many_shapes`.
"""

from __future__ import annotations

import os

import pytest
from fault_runs import marks, problems_with_a_leak, run, sweep
from test_process import needs_layers

DEVICE = os.environ["Q8TA_DEVICE"]
SHAPES = int(os.environ.get("Q8TA_TEST_SHAPES", "100"))

pytestmark = marks


def test_every_call_on_an_open_device():
    found = sweep("cpu", "warm", 1 / 30)
    fired = {name for name, count in found["failed"].items() if count > 0}
    assert fired >= {"CreateBuffer", "EndCommandBuffer", "QueueSubmit", "ResetFences", "WaitForFences"}


def test_every_call_on_a_new_device():
    """Each fault meets a device that was opened after the loss of another one."""
    found = sweep("cpu", "cold", 1 / 80)
    assert found["failed"]["CreateDevice"] > 0 and found["failed"]["CreateComputePipelines"] > 0


@pytest.mark.parametrize("kind", ["Buffer", "Memory"])
def test_the_sweep_finds_a_leak(kind):
    """One object lost with each fault, by the layer: the sweep must not take it for an arena that grows."""
    (problem,) = problems_with_a_leak("cpu", kind)
    assert f"more objects: [{{'{kind}': " in problem


def test_every_call_before_there_is_a_device():
    """After each failure the next call tries anew, and nothing is left of the attempt."""
    made = run(
        """
        q8ta_ops.devices()
        print({name: layer.made(name) for name in layer.functions() if layer.made(name) > 0})
        """
    ).splitlines()[0]
    run(
        f"""
        def failures():
            # From the last, and these the last: other layers make such calls, too, and do not mind.
            last = "EnumerateDeviceExtensionProperties"
            for function, count in sorted({made}.items(), key=lambda item: item[0] == last):
                for number in range(count, 0, -1):
                    for result in RESULTS[function]:
                        layer.forget_counts()
                        layer.arm(function, number, result)
                        try:
                            q8ta_ops.devices()
                        except RuntimeError as error:
                            assert "VK_ERROR" in str(error) or "found no driver" in str(error), error
                        if layer.alive() > 0:
                            return
                        assert layer.failed() == 1, (function, number, result)
                        layer.disarm()
                        yield function

        assert len(list(failures())) >= 10
        right()
        """
    )


def test_a_lost_device_is_opened_anew():
    run(
        """
        for _ in range(3):
            right()
            layer.lose_devices()
            with pytest.raises(RuntimeError, match="was lost.*VK_ERROR_DEVICE_LOST"):
                right()
            right()
            with q8ta_ops.profile() as profile:
                right()
            assert len(profile.dispatches) > 0
            layer.lose_devices()
            with pytest.raises(RuntimeError, match="was lost"), q8ta_ops.profile():
                right()
        """
    )


def test_a_device_that_is_lost_and_cannot_be_opened():
    run(
        """
        right()
        layer.lose_devices()
        with layer.failing("CreateDevice", INITIALIZATION_FAILED):
            for _ in range(3):
                with pytest.raises(RuntimeError, match="VK_ERROR"):
                    right()
        right()
        """
    )


def test_a_device_that_is_lost_while_threads_wait():
    run(
        """
        right()
        outcomes = []

        def wait():
            try:
                right()
                outcomes.append("right")
            except RuntimeError as error:
                outcomes.append(str(error))

        layer.hang(True)
        threads = [threading.Thread(target=wait, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        while layer.waiting() < 4:
            time.sleep(0.01)
        layer.lose_devices()
        layer.hang(False)
        for thread in threads:
            thread.join(30)
        assert len(outcomes) == 4 and all("was lost" in outcome for outcome in outcomes), outcomes
        right()
        """
    )


def test_exit_while_threads_are_in_the_driver():
    """NVIDIA's (580) crashes if threads are in it or call it after what it does at exit."""
    run(
        """
        right()
        layer.take_apart_at_exit()
        layer.hang(True)
        for _ in range(3):
            threading.Thread(target=right, daemon=True).start()
        while layer.waiting() < 3:
            time.sleep(0.01)
        """
    )


@pytest.mark.parametrize("result", ["OUT_OF_HOST_MEMORY", "OUT_OF_DEVICE_MEMORY"])
def test_a_wait_that_fails_is_tried_again(result):
    """The work it is for is still running: its memory must not be used for anything else."""
    run(
        f"""
        right()
        layer.forget_counts()
        with layer.failing("WaitForFences", {result}):
            right()
        assert layer.failed() > 0
        """
    )


def test_waits_that_always_fail():
    """There are three ways to wait; if all fail, the device counts as lost."""
    run(
        """
        right()
        layer.arm("GetFenceStatus", 1, OUT_OF_HOST_MEMORY, sticky=True)
        with layer.failing("WaitForFences", OUT_OF_HOST_MEMORY):
            right()
            layer.arm("GetFenceStatus", 1, OUT_OF_HOST_MEMORY, sticky=True)
            layer.arm("QueueWaitIdle", 1, DEVICE_LOST)
            with pytest.raises(RuntimeError, match="was lost.*vkQueueWaitIdle"):
                right()
        right()
        """
    )


def test_submissions_are_tried_again_when_the_device_has_nothing_else_to_do():
    run(
        """
        right()
        layer.forget_counts()
        layer.arm("QueueSubmit", 1, OUT_OF_DEVICE_MEMORY)
        right()
        assert layer.failed() == 1
        with layer.failing("QueueSubmit", OUT_OF_DEVICE_MEMORY):
            with pytest.raises(RuntimeError, match="vkQueueSubmit failed with VK_ERROR_OUT_OF_DEVICE_MEMORY"):
                right()
        right()
        """
    )


@pytest.mark.parametrize("result", ["OUT_OF_POOL_MEMORY", "FRAGMENTED_POOL"])
def test_descriptor_pools_that_drivers_count_otherwise(result):
    run(
        f"""
        right()
        for seed in range(3):
            other = make_sample((3,), 40, 24, seed=seed)
            wanted = other.expected("linear")
            layer.forget_counts()
            with layer.failing("AllocateDescriptorSets", {result}, sticky=False):
                right(other, wanted)
            assert layer.failed() == 1
        with layer.failing("AllocateDescriptorSets", {result}):
            with pytest.raises(RuntimeError, match="vkAllocateDescriptorSets failed"):
                right(make_sample((3,), 40, 28), make_sample((3,), 40, 28).expected("linear"))
        right()
        """
    )


@needs_layers
def test_validation_sees_what_is_done_about_a_failure():
    """The layers below the faults are on: a failed call did not happen for them, what follows did."""
    run(
        """
        right()
        with layer.failing("CreateBuffer", OUT_OF_DEVICE_MEMORY), pytest.raises(RuntimeError):
            right(make_sample((3,), 40, 28), None)
        try:
            _C.seed_validation_fault("core")
        except RuntimeError as error:
            print("caught:", error)
        assert len(_C.validation_messages()) == 1
        _C.validation_messages = list
        """
    )


def test_many_shapes():
    """Shapes and kernels by the thousand: memory reaches a limit, and no limit of a driver is met."""
    output = run(
        f"""
        def resident():
            status = open("/proc/self/status").read()
            return int(status.split("VmRSS:")[1].split()[0]) // 1024

        def work(i):
            M, K, N = (1, 3, 9, 33)[i % 4], 1 + 7 * i % 997, 1 + 5 * i % 509
            for path in ([], ["int_dot"], ["subgroup", "int_dot"])[i // 4 % 3 : i // 4 % 3 + 1]:
                with q8ta_ops.use_device({DEVICE!r}, disable=path):
                    sample = make_sample((M,), K, N, seed=i)
                    for op in ("linear", "linear_dequant"):
                        assert torch.equal(sample.call(op), sample.expected(op)), (M, K, N, path)

        def count(first, last):
            for i in range(first, last):
                work(i)
                if i % 50 == 0:
                    q8ta_ops.clear_weight_cache()
            q8ta_ops.clear_weight_cache()
            kinds = ("Buffer", "CommandBuffer", "CommandPool", "DescriptorPool", "Fence", "Pipeline")
            return {{kind: layer.alive(kind) for kind in kinds}}

        half = {SHAPES} // 2
        first, megabytes = count(0, half), resident()
        second, grown = count(half, 2 * half), resident() - megabytes
        print(first, second, megabytes, grown)
        assert second["Pipeline"] <= 200, "a pipeline is a kernel with its tiles, not a shape"
        assert second["CommandBuffer"] <= 70 and second["DescriptorPool"] <= 250
        for kind in ("Buffer", "CommandPool", "Fence"):
            assert second[kind] <= first[kind] + 2, kind
        assert grown < 100, "megabytes"
        """
    )
    print(output)
