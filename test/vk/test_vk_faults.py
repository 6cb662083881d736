"""Vulkan calls that fail, for vk tensors: an error that says so or a right result, and nothing that is lost.

See `test_vulkan_faults`, whose long form (Q8TA_TEST_FAULTS) is this one's, too. A device that is lost takes
its tensors along: each further use says so, and the process can end.
"""

from __future__ import annotations

import pytest
from fault_runs import marks, problems_with_a_leak, sweep
from vk_fault_runs import run_on_vk

pytestmark = marks


def test_every_call():
    found = sweep("vk", "warm", 1 / 50)
    fired = {name for name, count in found["failed"].items() if count > 0}
    assert fired >= {"CreateBuffer", "EndCommandBuffer", "QueueSubmit", "ResetFences", "WaitForFences"}


def test_the_sweep_finds_a_leak():
    (problem,) = problems_with_a_leak("vk", "Buffer")
    assert "more objects: [{'Buffer': " in problem


LOST = [
    ("QueueSubmit", "(on_vk + 1).cpu()", "add"),
    ("QueueSubmit", "(on_vk + 1, torch.vk.synchronize())", "add"),
    ("QueueSubmit", "graph.replay()", "weights, linear"),
    ("QueueSubmit", "(on_vk + 1, graph.replay())", "add, weights, linear"),
    ("WaitForFences", "(on_vk + 1).cpu()", "add"),
    ("WaitForFences", "(graph.replay(), torch.vk.synchronize())", "weights, linear"),
    ("GetFenceStatus", "(on_vk + 1, event.record(), event.query())", "add"),
    ("GetQueryPoolResults", "(on_vk + 1, begin.elapsed_time(end))", "add"),
]


@pytest.mark.parametrize(("function", "work", "ops"), LOST, ids=[function for function, _, _ in LOST])
def test_a_lost_device_is_said_to_be_lost_at_each_use(function, work, ops):
    """And the ops that were queued then are named."""
    run_on_vk(
        f"""
        begin, end, event = (torch.vk.Event(enable_timing=True) for _ in range(3))
        begin.record()
        graph = torch.vk.Graph()
        with torch.vk.graph(graph):
            y = kept.call("linear")
        end.record()
        end.synchronize()
        event.record()
        torch.vk.synchronize()
        named = "was lost.*VK_ERROR_DEVICE_LOST.*in work that holds: {ops}"
        with layer.failing({function!r}, DEVICE_LOST):
            with pytest.raises(RuntimeError, match=named):
                {work}
        uses = [
            lambda: on_vk.cpu(), lambda: on_vk + 1, lambda: x.to("vk"), lambda: torch.empty(3, device="vk"),
            lambda: kept.call("linear"), lambda: graph.replay(), lambda: event.record(), event.query,
            event.synchronize, torch.vk.synchronize, torch.vk.empty_cache, lambda: str(on_vk),
        ]
        for use in uses:
            with pytest.raises(RuntimeError, match=named + ".*only a new process"):
                use()
        right()  # CPU tensors get another device
        del on_vk, kept, graph, y, begin, end, event
        """
    )


def test_a_loop_that_asks_for_an_event_ends_when_the_device_is_lost():
    run_on_vk(
        """
        event = torch.vk.Event()
        layer.hang(True)
        y = on_vk + 1
        event.record()
        assert not event.query()
        layer.lose_devices()
        with pytest.raises(RuntimeError, match="was lost"):
            while not event.query():
                pass
        layer.hang(False)
        """
    )


def test_a_device_that_is_lost_while_threads_wait():
    run_on_vk(
        """
        outcomes = []

        def wait(work):
            try:
                outcomes.append(str(work()))
            except RuntimeError as error:
                outcomes.append(str(error))

        y = on_vk + 1
        layer.hang(True)
        waits = (torch.vk.synchronize, y.cpu, lambda: kept.call("linear").cpu())
        threads = [threading.Thread(target=wait, args=(work,), daemon=True) for work in waits]
        for thread in threads:
            thread.start()
        while layer.waiting() == 0:
            time.sleep(0.01)
        layer.lose_devices()
        layer.hang(False)
        for thread in threads:
            thread.join(30)
        assert len(outcomes) == 3 and all("was lost" in outcome for outcome in outcomes), outcomes
        """
    )


def test_exit_while_threads_are_in_the_driver():
    """One waits for the GPU, two for it; all that a process has may be alive then."""
    run_on_vk(
        """
        y = on_vk + 1
        layer.take_apart_at_exit()
        layer.hang(True)
        for work in (torch.vk.synchronize, y.cpu, lambda: kept.call("linear").cpu()):
            threading.Thread(target=work, daemon=True).start()
        while layer.waiting() == 0:
            time.sleep(0.01)
        """
    )


def test_work_that_was_queued_survives_a_driver_that_is_short_of_memory():
    """What an operator has returned is computed, however often recording and submitting fails in between."""
    run_on_vk(
        """
        for function in ("EndCommandBuffer", "QueueSubmit", "ResetFences", "BeginCommandBuffer"):
            for _ in range(8):  # all batches have been used
                torch.vk.synchronize()
                (on_vk * 2).cpu()
            y = on_vk
            for _ in range(20):
                y = y + 1
            with layer.failing(function, OUT_OF_DEVICE_MEMORY):
                for _ in range(3):
                    if function == "BeginCommandBuffer":
                        break
                    with pytest.raises(RuntimeError, match=f"vk{function} failed with VK_ERROR_OUT"):
                        y.cpu()
                added = 20
                try:
                    for _ in range(200):
                        y = y + 1
                        added += 1
                except RuntimeError as error:
                    assert "VK_ERROR_OUT_OF_DEVICE_MEMORY" in str(error)
            y = y + 1
            assert torch.equal(y.cpu(), x + added + 1), function
        """
    )


def test_a_submission_that_fails_while_others_are_in_flight():
    run_on_vk(
        """
        layer.hang(True)
        y = on_vk
        for _ in range(250):  # three submissions that do not end, and one that is open
            y = y + 1
        layer.hang(False)
        layer.forget_counts()
        layer.arm("QueueSubmit", 1, OUT_OF_HOST_MEMORY)
        z = y + 1
        assert torch.equal(z.cpu(), x + 251) and layer.failed() == 1
        """
    )


def test_a_replay_and_what_comes_before_it_are_one_submission():
    """And if that one fails, nothing is lost of what came before, and the graph has not run."""
    run_on_vk(
        """
        count, source = torch.zeros(3, device="vk"), torch.ones(3, device="vk")
        static = torch.zeros(3, device="vk")
        graph = torch.vk.Graph()
        with torch.vk.graph(graph):
            count.add_(static)
        torch.vk.synchronize()
        layer.forget_counts()
        for step in range(1, 4):
            static.copy_(source * step)
            graph.replay()
        assert layer.made("QueueSubmit") == 3
        assert count.cpu().tolist() == [6.0] * 3
        layer.forget_counts()
        static.copy_(source * 0)
        torch.vk.Event().record()  # is passed before the graph has run
        graph.replay()
        assert layer.made("QueueSubmit") == 2

        for failing in ("QueueSubmit", "EndCommandBuffer"):
            count.zero_()
            torch.vk.synchronize()
            static.copy_(source * 7)
            with layer.failing(failing, OUT_OF_HOST_MEMORY), pytest.raises(RuntimeError, match=failing):
                graph.replay()
            assert static.cpu().tolist() == [7.0] * 3 and count.cpu().tolist() == [0.0] * 3
            graph.replay()
            assert count.cpu().tolist() == [7.0] * 3

        with torch.vk.profile() as profile:
            static.copy_(source + 1)
            graph.replay()
        assert [dispatch.op for dispatch in profile.dispatches] == ["add", "copy", "add"], profile.dispatches
        assert count.cpu().tolist() == [9.0] * 3

        layer.hang(True)
        static.copy_(source)
        graph.replay()
        layer.lose_devices()
        with pytest.raises(RuntimeError, match="copy.*add"):
            torch.vk.synchronize()
        layer.hang(False)
        """
    )


def test_a_profile_of_an_operator_that_failed_half_way():
    """Records and timestamps stay in step."""
    run_on_vk(
        """
        for number in range(1, 5):
            torch.vk.empty_cache()
            with torch.vk.profile() as profile:
                y = on_vk + number
                layer.arm("AllocateDescriptorSets", number, OUT_OF_HOST_MEMORY)
                try:
                    for _ in range(70):
                        y = y + 1
                except RuntimeError as error:
                    assert "vkAllocateDescriptorSets" in str(error)
                layer.disarm()
                z = on_vk * 3
            assert torch.equal(z.cpu(), x * 3)
            assert all(dispatch.gpu_us is not None for dispatch in profile.dispatches)
        """
    )


def test_an_event_without_a_point_has_no_time():
    run_on_vk(
        """
        begin, end = (torch.vk.Event(enable_timing=True) for _ in range(2))
        begin.record()
        with layer.failing("CreateQueryPool", OUT_OF_DEVICE_MEMORY):
            with pytest.raises(RuntimeError, match="vkCreateQueryPool failed"):
                end.record()
        torch.vk.synchronize()
        with pytest.raises(RuntimeError):
            begin.elapsed_time(end)
        end.record()
        end.synchronize()
        assert begin.elapsed_time(end) >= 0
        """
    )
