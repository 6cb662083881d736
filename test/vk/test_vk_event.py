"""torch.vk.Event: points in the device's work, with the semantics and the errors of torch.cuda.Event."""

from __future__ import annotations

import gc
import threading
import time

import pytest
import torch
from same import sample

import q8ta_ops


@pytest.fixture
def large() -> torch.Tensor:
    """A tensor that the device is a while at work on: some milliseconds for 60 passes."""
    software = q8ta_ops.default_device().device.type == "cpu"
    return torch.zeros(1 << (20 if software else 26), device="vk")


@pytest.fixture
def long_work(large):
    """Queues work that takes some milliseconds at least."""

    def queue() -> None:
        for _ in range(60):
            large.add_(large)

    return queue


def has_timestamps() -> bool:
    return bool(q8ta_ops.default_device().device.features["timestamps"])


def test_an_event_that_was_never_recorded():
    event = torch.vk.Event()
    assert event.query() is True
    event.synchronize()
    event.wait()
    assert isinstance(event, torch.Event)


@pytest.mark.parametrize("enable_timing", [False, True])
def test_passing(long_work, enable_timing):
    event = torch.vk.Event(enable_timing=enable_timing)
    torch.vk.synchronize()
    event.record()
    event.synchronize()
    assert event.query()
    long_work()
    event.record()
    assert not event.query(), "the work before it is still running"
    event.synchronize()
    assert event.query()
    assert torch.accelerator.current_stream().query(), "nothing else was queued"


def test_the_point_is_where_it_was_recorded(long_work):
    event = torch.vk.Event()
    x = sample(10).to("vk")
    y = x + x
    event.record()
    long_work()
    event.synchronize()
    assert event.query() and not torch.accelerator.current_stream().query()
    assert torch.equal(y.cpu(), sample(10) * 2)


def test_asking_is_enough_to_get_there():
    """Nobody waits, and what was queued is too little to be submitted by itself."""
    x = sample(10).to("vk")
    torch.vk.synchronize()
    event = torch.vk.Event()
    y = x + x
    event.record()
    end = time.monotonic() + 30
    while not event.query():
        assert time.monotonic() < end
    assert torch.equal(y.cpu(), sample(10) * 2)


def test_recording_again_moves_the_point(long_work):
    event = torch.vk.Event()
    event.record()
    event.synchronize()
    for _ in range(3):
        long_work()
        event.record()
        assert not event.query()
    event.synchronize()
    assert event.query()


def test_an_old_event_is_passed():
    event = torch.vk.Event()
    x = sample(10).to("vk")
    event.record()
    for _ in range(50):
        x = (x + x).clamp(-1, 1)
        torch.vk.synchronize()
    assert event.query()


def test_elapsed_time(long_work):
    if not has_timestamps():
        pytest.skip("the device has no timestamps")
    begin, middle, end = (torch.vk.Event(enable_timing=True) for _ in range(3))
    torch.vk.synchronize()
    start = time.perf_counter()
    begin.record()
    long_work()
    middle.record()
    end.record()
    end.synchronize()
    wall = (time.perf_counter() - start) * 1e3
    first, second, both = begin.elapsed_time(middle), middle.elapsed_time(end), begin.elapsed_time(end)
    assert isinstance(both, float) and 0 < first <= both <= wall and 0 <= second < first
    assert first + second == pytest.approx(both, rel=1e-6, abs=1e-5)
    assert end.elapsed_time(begin) == -both
    assert begin.elapsed_time(begin) == 0


def test_elapsed_time_of_events_recorded_again(long_work):
    if not has_timestamps():
        pytest.skip("the device has no timestamps")
    begin, end = (torch.vk.Event(enable_timing=True) for _ in range(2))
    for _ in range(20):
        begin.record()
        end.record()
    begin.record()
    long_work()
    end.record()
    torch.vk.synchronize()
    assert begin.elapsed_time(end) > 0.01


def test_errors_of_elapsed_time(long_work):
    timed, plain = torch.vk.Event(enable_timing=True), torch.vk.Event()
    for event in (timed, plain):
        event.record()
    torch.vk.synchronize()
    for first, second in ((timed, plain), (plain, timed), (plain, plain)):
        with pytest.raises(ValueError, match="enable_timing=True"):
            first.elapsed_time(second)
    with pytest.raises(ValueError, match="must be recorded"):
        timed.elapsed_time(torch.vk.Event(enable_timing=True))
    later = torch.vk.Event(enable_timing=True)
    long_work()
    later.record()
    with pytest.raises(RuntimeError, match="must be completed"):
        timed.elapsed_time(later)
    with pytest.raises(TypeError, match="end_event: expected a torch.vk.Event, got Event"):
        timed.elapsed_time(torch.Event("cpu"))


def test_what_an_event_cannot_be():
    with pytest.raises(ValueError, match="interprocess"):
        torch.vk.Event(interprocess=True)
    with pytest.raises(RuntimeError, match="(?i)device type"):
        torch.vk.Event().record(torch.Stream("cpu"))


def test_with_streams():
    """There is one stream, so waiting for an event changes nothing."""
    x = sample(10).to("vk")
    stream = torch.accelerator.current_stream()
    event = torch.vk.Event()
    y = x + x
    event.record(stream)
    event.wait(stream)
    stream.wait_event(event)
    recorded = stream.record_event()
    z = y + x
    recorded.synchronize()
    assert recorded.query() and event.query()
    assert torch.equal(z.cpu(), sample(10) * 3)


def test_torchs_own_events():
    if not has_timestamps():
        pytest.skip("the device has no timestamps")
    begin, end = (torch.Event("vk", enable_timing=True) for _ in range(2))
    begin.record()
    torch.ones(10, device="vk").add_(1)
    end.record()
    end.synchronize()
    assert begin.elapsed_time(end) >= 0 and end.device == torch.device("vk:0")


def test_many_events():
    """Kept and dropped, with and without timing, more than submissions are remembered."""
    x = sample(10).to("vk")
    kept = []
    for step in range(300):
        event = torch.vk.Event(enable_timing=step % 2 == 0)
        x = (x + x).clamp(-5, 5)
        event.record()
        if step % 3 == 0:
            kept.append(event)
    del event
    gc.collect()
    kept[-1].synchronize()
    assert all(event.query() for event in kept)
    timed = kept[::2]
    if has_timestamps():
        times = [timed[0].elapsed_time(event) for event in timed]
        assert times == sorted(times)


def test_events_in_threads():
    failures = []

    def work(seed: int) -> None:
        for step in range(30):
            x = sample(20, seed=seed).to("vk")
            event = torch.vk.Event(enable_timing=True)
            y = x * step
            event.record()
            event.synchronize()
            if not (event.query() and torch.equal(y.cpu(), sample(20, seed=seed) * step)):
                failures.append((seed, step))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures and not any(thread.is_alive() for thread in threads)


def test_events_around_a_replay(large):
    graph = torch.vk.Graph()
    with torch.vk.graph(graph):
        for _ in range(30):
            large.add_(large)
    begin, end = (torch.vk.Event(enable_timing=True) for _ in range(2))
    begin.record()
    graph.replay()
    end.record()
    assert not end.query()
    end.synchronize()
    if has_timestamps():
        assert begin.elapsed_time(end) > 0.01
    untimed = torch.vk.Event()
    graph.replay()
    untimed.record()
    assert not untimed.query()
    untimed.synchronize()
    assert untimed.query()
