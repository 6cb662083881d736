"""torch.vk.graph: what is captured once and replayed computes what the same calls compute."""

from __future__ import annotations

import gc

import pytest
import torch
from graphs import captured, held_bytes, on_vk
from same import sample
from samples import LinearSample, make_sample
from torch.export.passes import move_to_device_pass

import q8ta_ops

KIB = 1 << 10


def captured_linear(linear: LinearSample) -> tuple[torch.vk.Graph, torch.Tensor]:
    """A graph whose inputs nobody else has."""
    graph = torch.vk.Graph()
    arguments = on_vk(linear, "linear_gemv")
    with torch.vk.graph(graph):
        y = torch.ops.q8ta.linear_gemv(*arguments)
    return graph, y


@pytest.mark.parametrize(
    ("op", "rows"),
    [("linear_gemv", 1), *((op, rows) for op in ("linear", "linear_dequant") for rows in (1, 5, 64))],
)
def test_a_replay_computes_what_a_call_computes(op, rows):
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
    before = torch.vk.memory_reserved()

    def work() -> torch.Tensor:
        y = x
        for _ in range(100):
            y = y + x
        return y

    graph, y = captured(work)
    assert torch.vk.memory_reserved() - before <= 4 * y.nbytes
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
    pytest.importorskip("torchao", reason="quantize() needs it")
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
