"""torch.vk.graph: what is captured once and replayed computes what the same calls compute."""

from __future__ import annotations

import gc
import os
import textwrap
import threading

import pytest
import torch
from fork_server import ForkServer
from same import sample, to_vk
from samples import LinearSample, make_sample
from torch.export.passes import move_to_device_pass

import q8ta_ops

KIB = 1 << 10


def on_vk(linear: LinearSample, op: str) -> list:
    return [to_vk(a) if isinstance(a, torch.Tensor) else a for a in linear.arguments(op)]


def captured(work) -> tuple[torch.vk.Graph, object]:
    graph = torch.vk.Graph()
    with torch.vk.graph(graph):
        result = work()
    return graph, result


def captured_linear(linear: LinearSample) -> tuple[torch.vk.Graph, torch.Tensor]:
    """A graph whose inputs nobody else has."""
    graph = torch.vk.Graph()
    arguments = on_vk(linear, "linear_gemv")
    with torch.vk.graph(graph):
        y = torch.ops.q8ta.linear_gemv(*arguments)
    return graph, y


def held_bytes() -> int:
    """Memory that is neither a tensor's nor free for the next one."""
    gc.collect()
    torch.vk.empty_cache()
    return torch.vk.memory_reserved() - torch.vk.memory_allocated()


@pytest.mark.parametrize("op", ["linear", "linear_gemv", "linear_dequant"])
@pytest.mark.parametrize("rows", [1, 5, 64])
def test_a_replay_computes_what_a_call_computes(op, rows):
    if op == "linear_gemv" and rows != 1:
        pytest.skip("takes one row")
    linear = make_sample((rows,), 48, 40, seed=rows)
    arguments = on_vk(linear, op)
    call = getattr(torch.ops.q8ta, op)
    graph, y = captured(lambda: call(*arguments))
    generator = torch.Generator().manual_seed(7)
    for _ in range(5):
        x = torch.randint(-128, 128, linear.x.shape, dtype=torch.int8, generator=generator)
        arguments[0].copy_(x)
        graph.replay()
        got = y.cpu()
        assert torch.equal(got, call(arguments[0], *arguments[1:]).cpu())
        assert torch.equal(got, call(x, *linear.arguments(op)[1:]))


def test_a_chain_of_other_operators():
    x, other = sample(6, 8).to("vk"), sample(6, 8, seed=1).to("vk")

    def work() -> list[torch.Tensor]:
        a = (x + other).relu() * x
        b = a.t().contiguous()
        c = torch.cat([b, b.clamp(-0.5, 0.5)])
        c[2:4].copy_(c[4:6])
        return [a, b, c, c.clone()[1:]]

    graph, outputs = captured(work)
    for seed in range(2, 6):
        x.copy_(sample(6, 8, seed=seed))
        graph.replay()
        for got, wanted in zip(outputs, work(), strict=True):
            assert torch.equal(got.cpu(), wanted.cpu())


def test_what_is_captured_does_not_run():
    x = torch.zeros(4, device="vk")
    one = torch.ones(4, device="vk")
    graph, _ = captured(lambda: x.add_(one))
    assert x.tolist() == [0] * 4
    for _ in range(3):
        graph.replay()
    assert x.tolist() == [3] * 4


def test_a_thousand_replays_in_order_without_waiting():
    x = torch.zeros(100, device="vk")
    one = torch.ones(100, device="vk")
    graph, _ = captured(lambda: x.add_(one))
    torch.vk.synchronize()
    before = torch.vk.memory_stats()
    for _ in range(1000):
        graph.replay()
    after = torch.vk.memory_stats()
    assert torch.equal(x.cpu(), torch.full((100,), 1000.0))
    assert after == before, "a replay allocates nothing"


def test_replays_among_other_work():
    """Every other operation writes what the next replay reads, or reads what the last one wrote."""
    x = torch.zeros(50, device="vk")
    graph, y = captured(lambda: x + x)
    for step in range(60):
        x.copy_(torch.full((50,), step))
        graph.replay()
        x.copy_(y)
        graph.replay()
        z = y.clone()
        y.copy_(x)
        if step % 10 == 9:
            assert z.tolist() == [4.0 * step] * 50 and y.tolist() == [2.0 * step] * 50


def test_two_graphs_take_turns():
    a = torch.ones(30, device="vk")
    one = torch.ones(30, device="vk")
    add, _ = captured(lambda: a.add_(one))
    double, b = captured(lambda: a + a)
    expected = 1
    for _ in range(10):
        add.replay()
        double.replay()
        a.copy_(b)
        expected = 2 * (expected + 1)
        add.replay()
        add.replay()
        expected += 2
    assert a.tolist() == [expected] * 30


def test_memory_of_the_graph_is_nobody_elses():
    """Tensors of the capture that are gone, in between and at its end, keep their memory for the replays."""
    x = sample(100).to("vk")

    def work() -> torch.Tensor:
        y = x + x
        for _ in range(5):
            y = y * x
        return y

    graph, y = captured(work)
    graph.replay()
    wanted = y.cpu()
    others = [torch.full((100,), float(i), device="vk") for i in range(30)]
    for _ in range(3):
        graph.replay()
        assert torch.equal(y.cpu(), wanted)
        assert all(other.tolist() == [i] * 100 for i, other in enumerate(others))
    address = y.data_ptr()
    del y
    assert all(torch.empty(100, device="vk").data_ptr() != address for _ in range(30))


def test_a_capture_reuses_its_memory():
    x = sample(1 << 14).to("vk")
    before = torch.vk.memory_stats()["reserved_bytes"]

    def work() -> torch.Tensor:
        y = x
        for _ in range(100):
            y = y + x
        return y

    graph, y = captured(work)
    assert torch.vk.memory_stats()["reserved_bytes"] - before <= 4 * y.nbytes
    graph.replay()
    assert torch.equal(y.cpu(), work().cpu())


def test_scratch_memory_is_the_graphs():
    linear = make_sample((37,), 60, 52)
    arguments = on_vk(linear, "linear")
    graph, y = captured(lambda: [torch.ops.q8ta.linear(*arguments) for _ in range(3)])
    others = [torch.ops.q8ta.linear(*arguments) for _ in range(5)]
    graph.replay()
    assert all(torch.equal(each.cpu(), linear.expected("linear")) for each in [*y, *others])


def test_a_graph_outlives_its_tensors():
    linear = make_sample((1,), 64, 32)
    graph, y = captured_linear(linear)
    gc.collect()
    torch.vk.empty_cache()
    kept = [torch.zeros(size, dtype=torch.int8, device="vk") for size in (64, 32, 128, 2048, 512) * 3]
    graph.replay()
    assert torch.equal(y.cpu(), linear.expected("linear_gemv"))
    assert all(not each.any().item() for each in kept)


def test_tensors_outlive_their_graph():
    x = sample(10).to("vk")
    graph, y = captured(lambda: x + x)
    graph.replay()
    del graph
    gc.collect()
    kept = [torch.zeros(10, device="vk") for _ in range(10)]
    assert torch.equal(y.cpu(), sample(10) * 2) and all(not each.any().item() for each in kept)


def test_reset_frees_the_memory_and_allows_another_capture():
    start = held_bytes()
    x = torch.zeros(64 * KIB, device="vk")
    graph = torch.vk.Graph()
    for round_ in range(3):
        with torch.vk.graph(graph):
            y = x + x
            for _ in range(4):
                y = y + y
        graph.replay()
        del y
        assert held_bytes() - start >= 2 * x.nbytes
        graph.reset()
        graph.reset()
        assert held_bytes() == start, round_
        with pytest.raises(RuntimeError, match="nothing to replay"):
            graph.replay()


def test_captures_do_not_pile_up():
    x = sample(1000).to("vk")
    start = held_bytes()
    allocated = torch.vk.memory_allocated()
    for _ in range(200):
        graph, y = captured(lambda: (x + x) * x)
        graph.replay()
    del graph, y
    assert held_bytes() == start and torch.vk.memory_allocated() == allocated


def test_reset_while_a_replay_is_in_flight():
    x = sample(64, 64).to("vk")
    for _ in range(10):
        graph, y = captured(lambda: (x + x) * x)
        graph.replay()
        result = y.clone()
        graph.reset()
        del graph, y
        torch.zeros(64, 64, device="vk")
        assert torch.equal(result.cpu(), (sample(64, 64) * 2) * sample(64, 64))


def test_an_empty_graph():
    graph, _ = captured(lambda: None)
    graph.replay()
    graph.reset()


def test_many_commands():
    """More than one submission takes when they are not captured, and more than a profile's first queries."""
    x = torch.zeros(8, device="vk")
    one = torch.ones(8, device="vk")

    def work() -> None:
        for _ in range(400):
            x.add_(one)

    graph, _ = captured(work)
    with torch.vk.profile() as profile:
        graph.replay()
    graph.replay()
    assert x.tolist() == [800] * 8
    assert len(profile.dispatches) >= 400
    assert all(dispatch.gpu_us is not None for dispatch in profile.dispatches)


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


@pytest.mark.parametrize("what", CANNOT_BE_CAPTURED)
def test_what_cannot_be_captured(what):
    call, message = CANNOT_BE_CAPTURED[what]
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


def test_a_profile_of_replays():
    linear = make_sample((1,), 64, 32)
    arguments = on_vk(linear, "linear_gemv")
    graph, y = captured(lambda: torch.ops.q8ta.linear_gemv(*arguments))
    graph.replay()
    with q8ta_ops.profile() as profile:
        for _ in range(3):
            graph.replay()
        torch.ops.q8ta.linear_gemv(*arguments)
        graph.replay()
    graph.replay()
    assert torch.equal(y.cpu(), linear.expected("linear_gemv"))
    assert [(d.op, d.M, d.K, d.N) for d in profile.dispatches] == [("linear_gemv", 1, 64, 32)] * 5
    assert all(dispatch.gpu_us > 0 for dispatch in profile.dispatches)


def test_a_quantized_model():
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8)).eval()
    program = q8ta_ops.quantize(
        model, (sample(4, 16),), calibration=[(sample(4, 16, seed=s),) for s in range(4)]
    )
    module = program.module()
    x = sample(4, 16, seed=9)
    expected = module(x)
    on_device = move_to_device_pass(program, "vk").module()
    torch.vk.reset_fallbacks()
    run = torch.vk.make_graphed_callables(on_device, (torch.empty(4, 16, device="vk"),))
    assert torch.equal(run(x.to("vk")).cpu(), expected) and torch.vk.fallbacks() == {}
    assert torch.equal(run(x.flip(0).to("vk")).cpu(), module(x.flip(0)))


def test_graphed_callables():
    weight = sample(8).to("vk")
    run = torch.vk.make_graphed_callables(
        lambda a, b: {"sum": a + b, "product": a * weight}, (weight, weight)
    )
    for seed in range(3):
        a, b = sample(8, seed=seed), sample(8, seed=seed + 10)
        result = run(a.to("vk"), b)
        assert torch.equal(result["sum"].cpu(), a + b)
        assert torch.equal(result["product"].cpu(), a * sample(8))
    with pytest.raises(ValueError, match="expected 2"):
        run(weight)
    with pytest.raises(ValueError, match=r"float32 \[8\], as in the capture, got torch.float32 \[4\]"):
        run(weight, weight[:4])
    with pytest.raises(ValueError, match="got torch.int8"):
        run(weight, weight.to(torch.int8))
    with pytest.raises(RuntimeError, match="aten::item .*cannot be captured"):
        torch.vk.make_graphed_callables(lambda a: a * a[0].item(), (weight,))


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
