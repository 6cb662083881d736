"""Wall and GPU times of calls from Python, for the scripts in `benchmarks/`."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator

from ..runtime import profile


def median_us(
    run: Callable[[], object],
    finish: Callable[[], object] = lambda: None,
    *,
    seconds: float = 0.0,
    count: int = 20,
    warm_up: int = 10,
) -> float:
    """Median wall time of a run and of waiting for it by ``finish``, in microseconds.

    Takes at least ``count`` samples and goes on for ``seconds``, after ``warm_up`` runs that do not count.
    """
    for _ in range(warm_up):
        run()
        finish()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < count or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        finish()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def queue_us(run: Callable[[], object], finish: Callable[[], object], *, count: int, warm_up: int) -> float:
    """Median time until a run has been queued, in microseconds; ``finish`` waits for it."""
    times = []
    for _ in range(warm_up + count):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
        finish()
    return statistics.median(times[warm_up:]) * 1e6


def loop_us(turns: int = 5_000) -> float:
    """Wall time of a loop that uses nothing but the CPU, in microseconds."""
    start = time.perf_counter()
    for _ in range(turns):
        pass
    return (time.perf_counter() - start) * 1e6


@contextlib.contextmanager
def on_quiet_cpu() -> Iterator[None]:
    """Keeps the calling thread on the CPU that is the fastest at the moment, where the system allows that.

    What runs on a core's other hyperthread can halve its speed. If that is another guest of the same host, no
    scheduler here knows, so each CPU is timed. Threads that are started inside stay on that CPU, too.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    times: dict[int, float] = {}
    try:
        for cpu in allowed:
            os.sched_setaffinity(0, {cpu})
            times[cpu] = min(loop_us() for _ in range(3))
        os.sched_setaffinity(0, {min(times, key=times.__getitem__)})
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def gpu_us(run: Callable[[], object], calls: int) -> tuple[float, list[str]]:
    """Median over calls of the summed GPU time of their kernels, in microseconds, and the kernels' names."""
    sums, names = [], []
    for _ in range(calls):
        with profile() as profiled:
            run()
        sums.append(sum(dispatch.gpu_us or 0.0 for dispatch in profiled.dispatches))
        names = [dispatch.kernel for dispatch in profiled.dispatches]
    return statistics.median(sums), names
