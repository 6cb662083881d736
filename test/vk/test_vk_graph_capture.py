"""The capture of a torch.vk.graph: what it refuses, errors in it, other threads, exit and fork."""

from __future__ import annotations

import os
import textwrap
import threading

import pytest
import torch
from fork_server import ForkServer
from graphs import captured, held_bytes, on_vk
from same import sample
from samples import make_sample

CANNOT_BE_CAPTURED = {
    "cpu": (lambda x: x.cpu(), r"aten::to .*copies to host memory"),
    "item": (lambda x: x[0].item(), r"aten::item .*copies to host memory"),
    "numpy": (lambda x: x.tolist(), r"aten::.*copies to host memory"),
    "upload": (lambda x: x.copy_(torch.ones(8)), r"aten::copy_ .*copies from host memory"),
    "to vk": (lambda x: torch.ones(8).to("vk"), r"aten::to .*copies from host memory"),
    "fallback": (lambda x: torch.erfinv(x), r"aten::erfinv .*host memory"),
    "fallback in place": (lambda x: x.erfinv_(), r"aten::erfinv_ .*host memory"),
    "synchronize": (lambda x: torch.vk.synchronize(), r"waits for the device"),
    "event": (lambda x: torch.vk.Event().record(), r"records an event"),
    "nested": (lambda x: torch.vk.graph(torch.vk.Graph()).__enter__(), r"capturing a graph already"),
    "profile": (lambda x: torch.vk.profile().__enter__(), r"waits for the device"),
}


# Where the host has no access to the device's memory these are refused for that, or copy.
WAITS_WHERE_MEMORY_IS_HOST_VISIBLE = {
    "host view": lambda x: torch.vk.host_view(x),
    "export to the host": lambda x: x.__dlpack__(dl_device=(1, 0)),
}


@pytest.mark.parametrize("what", CANNOT_BE_CAPTURED)
def test_what_cannot_be_captured(what):
    check_not_captured(*CANNOT_BE_CAPTURED[what])


@pytest.mark.usefixtures("host_visible_memory")
@pytest.mark.parametrize("what", WAITS_WHERE_MEMORY_IS_HOST_VISIBLE)
def test_sharing_with_the_host_cannot_be_captured(what):
    check_not_captured(WAITS_WHERE_MEMORY_IS_HOST_VISIBLE[what], r"waits for the device")


def check_not_captured(call, message):
    x = torch.full((8,), 0.25, device="vk")
    graph = torch.vk.Graph()
    with torch.vk.graph(graph):
        y = x + x
        with pytest.raises(RuntimeError, match=message):
            call(x)
        z = y + x
    assert x.tolist() == [0.25] * 8, "nothing of it has happened"
    graph.replay()
    assert z.tolist() == [0.75] * 8, "the capture went on without it"


def test_an_exception_ends_the_capture():
    x = torch.ones(8, device="vk")
    start = held_bytes()
    graph = torch.vk.Graph()
    with pytest.raises(KeyError), torch.vk.graph(graph):
        assert torch.vk.is_current_stream_capturing()
        x.add_(x)
        raise KeyError
    assert not torch.vk.is_current_stream_capturing()
    assert held_bytes() == start and (x + x).tolist() == [2] * 8
    with pytest.raises(RuntimeError, match="nothing to replay"):
        graph.replay()
    with torch.vk.graph(graph):
        y = x + x
    x.fill_(3)
    graph.replay()
    assert y.tolist() == [6] * 8


def test_an_operator_that_fails_while_it_is_captured():
    linear = make_sample((2,), 16, 8)
    arguments = on_vk(linear, "linear")
    graph = torch.vk.Graph()
    with torch.vk.graph(graph):
        with pytest.raises(RuntimeError, match="weights"):
            torch.ops.q8ta.linear(*arguments[:3], arguments[3].t(), *arguments[4:])
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(1 << 60, dtype=torch.uint8, device="vk")
        y = torch.ops.q8ta.linear(*arguments)
    graph.replay()
    assert torch.equal(y.cpu(), linear.expected("linear"))


def test_emptying_the_cache_in_a_capture():
    x = sample(1000).to("vk")
    torch.empty(5000, device="vk")  # now cached
    graph = torch.vk.Graph()
    with torch.vk.graph(graph):
        y = x + x
        freed = y + x
        z = freed * x
        del freed
        torch.vk.empty_cache()
        z = z + y
    graph.replay()
    assert torch.equal(z.cpu(), sample(1000) * 3 * sample(1000) + sample(1000) * 2)


def test_wrong_order_of_calls():
    graph = torch.vk.Graph()
    with pytest.raises(RuntimeError, match="nothing to replay"):
        graph.replay()
    with pytest.raises(RuntimeError, match="not being captured"):
        graph.capture_end()
    graph.capture_begin()
    with pytest.raises(RuntimeError, match="being captured"):
        graph.capture_begin()
    with pytest.raises(RuntimeError, match="being captured"):
        graph.reset()
    graph.capture_end()
    with pytest.raises(RuntimeError, match="reset"):
        graph.capture_begin()


def test_a_graph_that_dies_in_its_capture():
    graph = torch.vk.Graph()
    graph.capture_begin()
    y = torch.empty(8, device="vk")
    del graph
    assert not torch.vk.is_current_stream_capturing()
    assert y.fill_(2).tolist() == [2] * 8


def in_a_thread(work) -> object:
    """The result of `work`, or the exception that it raised."""
    results: list[object] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    return results[0]


def test_other_threads_work_on_during_a_capture():
    x = sample(50).to("vk")
    mine = sample(50, seed=1).to("vk")
    graph = torch.vk.Graph()
    with torch.vk.graph(graph):
        y = x + x
        for _ in range(20):
            result = in_a_thread(lambda: (mine + mine).cpu())
            assert torch.equal(result, sample(50, seed=1) * 2)
        ended = in_a_thread(graph.capture_end)
        assert isinstance(ended, RuntimeError) and "this thread" in str(ended)
        z = y + x
    graph.replay()
    assert torch.equal(z.cpu(), sample(50) * 2 + sample(50))


def test_another_thread_with_memory_of_the_capture():
    x = sample(50).to("vk")
    graph = torch.vk.Graph()
    with torch.vk.graph(graph):
        y = x + x
        for work in (lambda: y + x, lambda: y.cpu(), lambda: y.copy_(x)):
            error = in_a_thread(work)
            assert isinstance(error, RuntimeError) and "another thread is capturing" in str(error)
    graph.replay()
    assert torch.equal(in_a_thread(lambda: (y + x).cpu()), sample(50) * 2 + sample(50))


def test_a_backward_in_a_capture_is_refused():
    x = sample(8).to("vk").requires_grad_()
    graph = torch.vk.Graph()
    with pytest.raises(RuntimeError, match="another thread is capturing|cannot be captured"):
        with torch.vk.graph(graph):
            (x * x).backward(torch.empty(8, device="vk"))
    y = sample(8).to("vk").requires_grad_()
    (y * y).sum().backward()
    assert torch.equal(y.grad.cpu(), sample(8) * 2)


def test_graphs_in_several_threads():
    def work(thread: int) -> bool:
        linear = make_sample((1 + thread,), 40, 24, seed=thread)
        arguments = on_vk(linear, "linear")
        for _ in range(8):
            graph, y = captured(lambda: torch.ops.q8ta.linear(*arguments))
            for _ in range(5):
                y.zero_()
                graph.replay()
                if not torch.equal(y.cpu(), linear.expected("linear")):
                    return False
        return True

    results: list[object] = []
    threads = [threading.Thread(target=lambda t=t: results.append(work(t)), daemon=True) for t in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [True] * 4


def test_one_graph_replayed_by_several_threads():
    x = torch.zeros(20, device="vk")
    one = torch.ones(20, device="vk")
    graph, _ = captured(lambda: x.add_(one))

    def work() -> None:
        for _ in range(50):
            graph.replay()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert x.tolist() == [200] * 20


IN_A_PROCESS_OF_ITS_OWN = {
    "alive at exit": """
        graph, unused = torch.vk.Graph(), torch.vk.Graph()
        x = torch.ones(5, device="vk")
        with torch.vk.graph(graph):
            y = x + x
        graph.replay()
        graph.cycle = graph
        event = torch.vk.Event(enable_timing=True)
        event.record()
        import sys
        sys.kept = (graph, event)
        print("done")
        """,
    "in a capture at exit": """
        graph = torch.vk.Graph()
        x = torch.ones(5, device="vk")
        graph.capture_begin()
        y = x + x
        print("done")
        """,
    "a thread that ends in its capture": """
        import threading
        graphs = [torch.vk.Graph()]
        x = torch.ones(5, device="vk")
        def work():
            graphs[0].capture_begin()
            x + x
        thread = threading.Thread(target=work)
        thread.start(); thread.join()
        assert (x + x).tolist() == [2] * 5
        graphs.clear()
        assert (x + x).tolist() == [2] * 5
        print("done")
        """,
    "fork": """
        import os, sys, time
        graph = torch.vk.Graph()
        x = torch.ones(5, device="vk")
        with torch.vk.graph(graph):
            y = x + x
        graph.replay()
        event = torch.vk.Event(enable_timing=True)
        event.record()
        child = os.fork()
        if child == 0:
            calls = [graph.replay, graph.reset, torch.vk.Graph().capture_begin, event.query, event.record,
                     event.synchronize]
            for call in calls:
                try:
                    call()
                except RuntimeError as error:
                    assert "forked" in str(error), error
                else:
                    sys.exit("no error")
            del graph, event, y
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        graph.replay()
        assert y.tolist() == [2] * 5
        print("done")
        """,
}


@pytest.mark.parametrize("validation", [None, "1"], ids=["plain", "validated"])
@pytest.mark.parametrize("what", IN_A_PROCESS_OF_ITS_OWN)
def test_in_a_process_of_its_own(what, validation):
    if validation is not None and os.environ["Q8TA_VALIDATION"] == "0":
        pytest.skip("the session has no validation layers")
    server = ForkServer()
    enable = "import torch, q8ta_ops\nq8ta_ops.enable_vk_device()\n"
    done = server.run(
        enable + textwrap.dedent(IN_A_PROCESS_OF_ITS_OWN[what]), seconds=60, Q8TA_VALIDATION=validation
    )
    server.close()
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stdout + done.stderr
    assert "alidation" not in done.stderr and "rror" not in done.stderr, done.stderr


def test_interrupted_when_the_capture_has_just_begun():
    """A signal's handler raises between the capture's begin and the block, so that no block ends it."""

    class Interrupted(torch.vk.Graph):
        def capture_begin(self):
            super().capture_begin()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), torch.vk.graph(Interrupted()):
        pass
    assert not torch.vk.is_current_stream_capturing()
