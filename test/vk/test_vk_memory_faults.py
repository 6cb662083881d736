"""Memory that runs out for vk tensors, in the allocator and elsewhere, and what is given up for it."""

from __future__ import annotations

import textwrap

import pytest
from fault_runs import marks
from vk_fault_runs import run_on_vk

pytestmark = marks


def test_memory_that_the_cache_cannot_give_back_yet():
    """It waits for the work on it first. If that fails, the memory stays in the cache."""
    run_on_vk(
        """
        big = torch.empty(1 << 20, dtype=torch.uint8, device="vk")
        torch.vk.synchronize()
        y = big.clone()
        del big, y
        reserved = torch.vk.memory_reserved()
        with layer.failing("EndCommandBuffer", OUT_OF_HOST_MEMORY):
            with pytest.raises(RuntimeError, match="vkEndCommandBuffer"):
                torch.vk.empty_cache()
        assert torch.vk.memory_reserved() == reserved
        torch.vk.empty_cache()
        assert torch.vk.memory_reserved() == torch.vk.memory_allocated() < reserved
        """
    )


def test_memory_that_has_run_out_until_the_cache_is_freed():
    """The allocation waits for the work on cached blocks, frees them and is tried again."""
    run_on_vk(
        """
        torch.vk.empty_cache()
        big = torch.full((1 << 20,), 3.0, device="vk")
        layer.hang(True)
        y = big + 1
        z = y + 1
        del y
        event = torch.vk.Event()
        event.record()
        assert not event.query()  # the work is in flight
        reserved = torch.vk.memory_reserved()
        layer.forget_counts()
        layer.arm("CreateBuffer", 1, OUT_OF_DEVICE_MEMORY)
        threading.Timer(0.3, layer.hang, [False]).start()
        small = torch.empty(1000, device="vk")
        assert layer.failed() == 1 and layer.made("CreateBuffer") == 2
        assert torch.vk.memory_reserved() == torch.vk.memory_allocated() < reserved
        assert event.query()
        assert torch.equal(z.cpu(), torch.full((1 << 20,), 5.0))
        """
    )


def test_a_profile_that_is_read_again_after_the_cache_was_freed_is_whole():
    """The wait at its end is tried again, and must find what the first attempt could not read."""
    run_on_vk(
        """
        x = torch.ones(1000, device="vk")
        for number in (1, 2):
            unused = torch.empty(1 << 20, device="vk")
            torch.vk.synchronize()
            del unused  # memory for the cache to give back
            layer.forget_counts()
            with torch.vk.profile() as profile:
                y = (x + 1) * 2
                layer.arm("GetQueryPoolResults", number, OUT_OF_DEVICE_MEMORY)
            assert layer.failed() == 1
            layer.disarm()
            assert len(profile.dispatches) == 2, profile.dispatches
            assert y.tolist() == [4.0] * 1000
        """
    )


TAKES_MEMORY = [
    ("CreateBuffer", "target.copy_(wide)"),
    ("CreateBuffer", "target.cpu()"),
    ("BeginCommandBuffer", "(on_vk + 1).cpu()"),
]


@pytest.mark.parametrize(("function", "work"), TAKES_MEMORY)
def test_memory_that_an_operator_takes_itself(function, work):
    """It is there again without the cache; else the error is torch's, as for a tensor."""
    run_on_vk(
        f"""
        wide = torch.arange(3_000_000, dtype=torch.float32)
        target = torch.empty(3_000_000, device="vk")
        big = torch.empty(1 << 20, device="vk")
        del big
        torch.vk.synchronize()
        reserved = torch.vk.memory_reserved()
        layer.forget_counts()
        with layer.failing({function!r}, OUT_OF_DEVICE_MEMORY):
            sizes = r"; tensors take \\d+ of \\d+ reserved bytes"
            with pytest.raises(torch.OutOfMemoryError, match="vk: out of memory.*VK_ERROR_OUT.*" + sizes):
                {work}
        assert layer.failed() == 2
        assert torch.vk.memory_reserved() < reserved

        big = torch.empty(1 << 20, device="vk")
        big.fill_(2)
        del big
        torch.vk.synchronize()
        reserved = torch.vk.memory_reserved()
        layer.forget_counts()
        with layer.failing({function!r}, OUT_OF_DEVICE_MEMORY, sticky=False):
            {work}
        assert layer.failed() == 1
        assert torch.vk.memory_reserved() < reserved
        target.copy_(wide)
        assert torch.equal(target.cpu(), wide) and torch.equal((on_vk + 1).cpu(), x + 1)
        """
    )


IN_TILES = """
import gc

def right(sample, wanted):
    assert torch.equal(sample.call("linear").cpu(), wanted)

def in_tiles(sample):
    return torch.ops.q8ta_vk_testing.weights_in_tiles(sample.weights)

def bytes_kept():
    gc.collect()
    return q8ta_ops.weight_cache_size()

q8ta_ops.clear_weight_cache()
kept = make_sample((3,), 200, 300, seed=5).mapped(lambda tensor: tensor.to("vk"))
wanted = kept.expected("linear")
right(kept, wanted)
rows_alone = bytes_kept()
in_tiles(kept)
assert bytes_kept() > rows_alone > 0
torch.vk.empty_cache()
"""


def test_weights_in_tiles_make_room_for_tensors():
    """Here for one of their size, which the driver cannot give: they are the first to go, and stay away."""
    run_on_vk(
        IN_TILES
        + textwrap.dedent(
            """
            size = in_tiles(kept).nbytes
            with layer.failing("CreateBuffer", OUT_OF_DEVICE_MEMORY):
                tensor = torch.empty(size, dtype=torch.uint8, device="vk")
                assert bytes_kept() == rows_alone
            assert in_tiles(kept) is None
            right(kept, wanted)
            del tensor
            torch.vk.empty_cache()
            assert in_tiles(kept) is not None
            """
        )
    )


def test_a_copy_in_tiles_that_the_driver_has_no_memory_for():
    run_on_vk(
        IN_TILES
        + textwrap.dedent(
            """
            other = make_sample((3,), 3000, 300, seed=6).mapped(lambda tensor: tensor.to("vk"))
            expected_of_other = other.expected("linear")
            with layer.failing("CreateBuffer", OUT_OF_DEVICE_MEMORY):
                assert in_tiles(other) is None
                assert in_tiles(kept) is not None
            assert in_tiles(other) is None
            right(other, expected_of_other)
            """
        )
    )


def test_weights_in_tiles_make_room_for_calls_with_cpu_tensors():
    """These do not ask torch's allocator."""
    run_on_vk(
        IN_TILES
        + textwrap.dedent(
            """
            on_cpu = make_sample((3,), 200, 300, seed=7)
            expected_on_cpu = on_cpu.expected("linear")
            with layer.failing("CreateBuffer", OUT_OF_DEVICE_MEMORY, sticky=False):
                right(on_cpu, expected_on_cpu)
            assert layer.failed() > 0
            assert in_tiles(kept) is None
            """
        )
    )


def test_weights_in_tiles_make_room_for_what_linear_takes_itself():
    """Scratch memory for x in padded rows."""
    run_on_vk(
        IN_TILES
        + textwrap.dedent(
            """
            tall = make_sample((9000,), 205, 8, seed=8).mapped(lambda tensor: tensor.to("vk"))
            expected_of_tall = tall.expected("linear")
            right(tall.replaced(x=tall.x[:3]), expected_of_tall[:3])  # the kernel, the weights
            y = torch.empty(9000 * 8, dtype=torch.int8, device="vk")
            del y  # memory for y
            in_tiles(kept)
            layer.forget_counts()
            with layer.failing("CreateBuffer", OUT_OF_DEVICE_MEMORY, sticky=False):
                right(tall, expected_of_tall)
            assert layer.failed() == 1
            assert in_tiles(kept) is None
            """
        )
    )
