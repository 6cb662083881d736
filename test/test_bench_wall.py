"""Timing on the CPU that is the fastest at the moment leaves a thread where it may run."""

from __future__ import annotations

import os

import pytest

from q8ta_ops.bench import wall

needs_affinity = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system cannot keep a thread on a CPU"
)


@needs_affinity
def test_the_fastest_cpu_is_chosen_and_left_again(monkeypatch) -> None:
    """Each CPU's loop is said to take longer than the one's before: the first is the fastest."""
    allowed = os.sched_getaffinity(0)
    timed: list[int] = []

    def loop_us() -> float:
        (cpu,) = os.sched_getaffinity(0)
        timed.append(cpu)
        return 1.0 + list(dict.fromkeys(timed)).index(cpu)

    monkeypatch.setattr(wall, "loop_us", loop_us)
    with wall.on_quiet_cpu():
        assert os.sched_getaffinity(0) == {timed[0]}
        assert set(timed) == allowed
    assert os.sched_getaffinity(0) == allowed


@needs_affinity
def test_an_error_leaves_the_cpu_too() -> None:
    allowed = os.sched_getaffinity(0)
    with pytest.raises(ZeroDivisionError), wall.on_quiet_cpu():
        assert len(os.sched_getaffinity(0)) == 1
        raise ZeroDivisionError
    assert os.sched_getaffinity(0) == allowed


def test_where_threads_cannot_be_kept_on_a_cpu(monkeypatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    with wall.on_quiet_cpu():
        pass
