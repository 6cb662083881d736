"""`torch.vk.profile`: which kernels ran on the device, for how long, and how close to its limits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .device import vk_library


@dataclass(frozen=True)
class Dispatch:
    """One kernel that ran.

    Attributes:
        kernel: its name, as `q8ta_ops.profile` has it.
        op: what it ran for.
        M, K, N: the sizes of a matrix product; else M is the number of elements and K and N are 1 or 0.
        gpu_us: microseconds on the GPU; None for host kernels and on devices without timestamps.
        bytes: of the memory that it was given to read and write. It may touch less.
        device: the device's name, or "host".
        begin_us: when it began, in microseconds since the first one on its device; None where gpu_us is.
    """

    kernel: str
    op: str
    M: int
    K: int
    N: int
    workgroups: int
    gpu_us: float | None
    bytes: int
    device: str
    begin_us: float | None

    @property
    def shape(self) -> str:
        """`MxKxN` of a matrix product, else the number of elements."""
        sizes = (self.M, self.K, self.N)
        return "x".join(map(str, sizes)) if self.K > 1 or self.N > 1 else str(self.M or "")

    @property
    def operations(self) -> int:
        """Multiplications and additions of a matrix product; 0 for anything else."""
        return 2 * self.M * self.K * self.N if self.op.startswith("linear") and self.K * self.N > 0 else 0


@dataclass(frozen=True)
class KernelAverages:
    """Dispatches of one kernel (and of one shape, unless the shapes were taken together).

    Attributes:
        calls: how many there were.
        gpu_us: the sum of their times, None if one is not known.
        share: that of their time in the whole profile's, 0 to 1; None likewise.
    """

    kernel: str
    shape: str
    workgroups: str
    calls: int
    gpu_us: float | None
    bytes: int
    operations: int
    share: float | None

    @property
    def gpu_us_mean(self) -> float | None:
        return None if self.gpu_us is None else self.gpu_us / self.calls

    @property
    def gb_per_s(self) -> float | None:
        """Gigabytes per second, of the memory that the kernels were given."""
        return self.bytes / self.gpu_us * 1e-3 if self.gpu_us else None

    @property
    def tops(self) -> float | None:
        """10^12 operations per second; None for what is no matrix product."""
        return self.operations / self.gpu_us * 1e-6 if self.gpu_us and self.operations else None


_COLUMNS: tuple[tuple[str, Callable[[KernelAverages], object], str], ...] = (
    ("kernel", lambda row: row.kernel, ""),
    ("shape", lambda row: row.shape, ""),
    ("workgroups", lambda row: row.workgroups, ""),
    ("calls", lambda row: row.calls, ""),
    ("GPU us", lambda row: row.gpu_us, ".1f"),
    ("us each", lambda row: row.gpu_us_mean, ".2f"),
    ("GB/s", lambda row: row.gb_per_s, ".1f"),
    ("TOPS", lambda row: row.tops, ".2f"),
    ("share", lambda row: row.share, ".1%"),
)
_SORT_KEYS = ("gpu_us", "calls", "gpu_us_mean", "gb_per_s", "tops", "bytes", "kernel")


def _cell(value: object, form: str) -> str:
    return "-" if value is None else format(value, form)


@dataclass
class Profile:
    """What :func:`profile` collects, complete after its block. As a string it is :meth:`table`."""

    dispatches: list[Dispatch] = field(default_factory=list)

    def key_averages(self, group_by_shape: bool = True) -> list[KernelAverages]:
        """The dispatches of each kernel and shape (or each kernel) taken together, the most time first."""
        groups: dict[tuple[str, str, str], list[Dispatch]] = {}
        for dispatch in self.dispatches:
            shape = (dispatch.shape, str(dispatch.workgroups)) if group_by_shape else ("", "")
            groups.setdefault((dispatch.kernel, *shape), []).append(dispatch)
        total = _sum_us(self.dispatches)
        averages = []
        for (kernel, shape, workgroups), dispatches in groups.items():
            gpu_us = _sum_us(dispatches)
            averages.append(
                KernelAverages(
                    kernel,
                    shape,
                    workgroups,
                    len(dispatches),
                    gpu_us,
                    sum(dispatch.bytes for dispatch in dispatches),
                    sum(dispatch.operations for dispatch in dispatches),
                    gpu_us / total if gpu_us is not None and total else None,
                )
            )
        return sorted(averages, key=lambda row: row.gpu_us or 0.0, reverse=True)

    def table(
        self, sort_by: str = "gpu_us", row_limit: int | None = None, group_by_shape: bool = True
    ) -> str:
        """:meth:`key_averages` as text, and a last line with the sum.

        Raises:
            ValueError: no column is called `sort_by`.
        """
        if sort_by not in _SORT_KEYS:
            raise ValueError(f"sort_by: expected one of {', '.join(_SORT_KEYS)}, got {sort_by!r}")
        averages = self.key_averages(group_by_shape)
        if sort_by == "kernel":
            averages.sort(key=lambda row: row.kernel)
        else:
            averages.sort(key=lambda row: getattr(row, sort_by) or 0, reverse=True)
        rows = [[title for title, _, _ in _COLUMNS]]
        for average in averages[:row_limit]:
            rows.append([_cell(value(average), form) for _, value, form in _COLUMNS])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for row in rows:
            texts = (cell.ljust(width) for cell, width in zip(row[:3], widths[:3], strict=True))
            numbers = (cell.rjust(width) for cell, width in zip(row[3:], widths[3:], strict=True))
            lines.append("  ".join((*texts, *numbers)).rstrip())
        lines.insert(1, "-" * max(map(len, lines)))
        total = _cell(_sum_us(self.dispatches), ".1f")
        return "\n".join([*lines, f"{len(self.dispatches)} dispatches, {total} us on the GPU"])

    def __str__(self) -> str:
        return self.table()

    def export_chrome_trace(self, path: str | Path) -> None:
        """Writes the dispatches on a time line, for chrome://tracing or ui.perfetto.dev: JSON, one track for
        each device. Those without times are left out."""
        Path(path).write_text(json.dumps({"traceEvents": list(self._trace_events())}), encoding="utf-8")

    def _trace_events(self) -> Iterator[dict[str, object]]:
        tracks: dict[str, int] = {}
        for dispatch in self.dispatches:
            if dispatch.begin_us is None:
                continue
            if dispatch.device not in tracks:
                tracks[dispatch.device] = len(tracks)
                names = (("process_name", dispatch.device), ("thread_name", "kernels"))
                for event, name in names:
                    yield {
                        "ph": "M",
                        "name": event,
                        "pid": tracks[dispatch.device],
                        "tid": 0,
                        "args": {"name": name},
                    }
            yield {
                "ph": "X",
                "name": dispatch.kernel,
                "cat": "kernel",
                "ts": dispatch.begin_us,
                "dur": dispatch.gpu_us,
                "pid": tracks[dispatch.device],
                "tid": 0,
                "args": {
                    "op": dispatch.op,
                    "shape": dispatch.shape,
                    "workgroups": dispatch.workgroups,
                    "bytes": dispatch.bytes,
                },
            }


def _sum_us(dispatches: Iterable[Dispatch]) -> float | None:
    times = [dispatch.gpu_us for dispatch in dispatches]
    return None if None in times else sum(times)


@contextmanager
def profile() -> Iterator[Profile]:
    """Records every kernel that ops of this process run inside the block, with its GPU time.

    Waits for the device at both ends. Not nestable, neither in itself nor in `q8ta_ops.profile`. Measured
    work takes a little longer.
    """
    result = Profile()
    vk_library().start_profile()
    try:
        yield result
    finally:
        result.dispatches.extend(Dispatch(*record) for record in vk_library().stop_profile())
