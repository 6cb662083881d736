"""How steadily something ran: throughput over time, its trend, and what else the machine was doing."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

STAT = Path("/proc/stat")


def busy_seconds() -> float:
    """CPU time that all processes of this machine, and others of its host (steal), have taken; else 0."""
    if not STAT.exists():
        return 0.0
    user, nice, system, _, _, irq, softirq, steal = map(int, STAT.read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Reading:
    """Counts since some beginning."""

    wall: float
    cpu: float  # of this process
    busy: float  # of the machine
    calls: int

    @staticmethod
    def now(calls: int) -> Reading:
        return Reading(time.monotonic(), time.process_time(), busy_seconds(), calls)


@dataclass(frozen=True)
class Slice:
    """What happened between two readings."""

    seconds: float
    calls: int
    cpu: float
    others: float  # CPU seconds of other processes

    @staticmethod
    def between(first: Reading, last: Reading) -> Slice:
        cpu = last.cpu - first.cpu
        return Slice(
            seconds=last.wall - first.wall,
            calls=last.calls - first.calls,
            cpu=cpu,
            others=max(0.0, last.busy - first.busy - cpu),
        )

    @property
    def rate(self) -> float:
        """Calls a minute."""
        return 60 * self.calls / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU time a call."""
        return 1e6 * self.cpu / max(self.calls, 1)

    @property
    def others_percent(self) -> float:
        """What other processes had of all CPUs."""
        return 100 * self.others / (self.seconds * (os.cpu_count() or 1))


@dataclass(frozen=True)
class Trend:
    """Of values at equal distances: the end of a run and its beginning, less sensitive to single ones."""

    first: float  # the median of the first third
    last: float  # and of the last
    slope: float  # of the straight line through all values, over the whole run, in percent of their mean
    error: float  # its standard error, as if values varied independently of each other

    @staticmethod
    def of(values: Sequence[float]) -> Trend:
        third = max(1, len(values) // 3)
        mean = statistics.fmean(values)
        at = [i / max(len(values) - 1, 1) for i in range(len(values))]
        spread = sum((x - 0.5) ** 2 for x in at)
        line = statistics.linear_regression(at, values)
        left = sum((y - line.intercept - line.slope * x) ** 2 for x, y in zip(at, values, strict=True))
        error = (left / max(len(values) - 2, 1) / spread) ** 0.5
        return Trend(
            first=statistics.median(values[:third]),
            last=statistics.median(values[-third:]),
            slope=100 * line.slope / mean,
            error=100 * error / mean,
        )

    def __str__(self) -> str:
        return (
            f"median of the first third {self.first:.0f}, of the last {self.last:.0f} "
            f"({self.last / self.first:.3f}); slope {self.slope:+.1f} +- {self.error:.1f} % over the run"
        )
