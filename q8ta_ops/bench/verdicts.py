"""Whether the bars are met, from the results alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .shapes import BARS, LINEAR, Bar, Shape

Result = dict[str, Any]
"""One shape of one section, as it stands in the JSON."""


@dataclass(frozen=True)
class Verdict:
    """One bar at one shape.

    Attributes:
        value: as ``Bar.kind`` defines it; None if something for it was not measured.
        met, beyond_met: None where there is no such figure, or no value.
        missed_by: the share of the bar that lacks (0.1: 10 %); None unless the bar is missed.
        because: why there is no value, or against whom it was.
    """

    claim: str
    shape: Shape
    value: float | None
    bar: float | None
    beyond: float | None
    at_least: bool
    met: bool | None
    beyond_met: bool | None
    missed_by: float | None
    because: str

    def as_dict(self) -> dict[str, object]:
        return {**self.__dict__, "shape": list(self.shape)}


def row_of(results: Iterable[Result], section: str, shape: Shape, name: str) -> dict[str, Any] | None:
    """What was measured of a contestant or of a roof of a shape; None if it is not there."""
    for result in results:
        if result["section"] == section and tuple(result["shape"]) == tuple(shape):
            for row in result["contestants"]:
                if row["name"] == name:
                    return row
    return None


def main_us(row: dict[str, Any]) -> dict[str, float]:
    """The spread that counts: on the GPU with weights that no cache holds, or on the wall for the CPU."""
    figures = row["us"]
    return figures["gpu" if "gpu" in figures else "wall"]


def _median(results: Sequence[Result], section: str, shape: Shape, name: str) -> float | None:
    row = row_of(results, section, shape, name)
    return None if row is None else main_us(row)["median"]


def _value(
    bar: Bar, shape: Shape, results: Sequence[Result], copy_gb_s: float | None
) -> tuple[float | None, str]:
    if bar.kind == "exact":
        row = row_of(results, bar.section, shape, bar.ours)
        if row is None:
            return None, f"{bar.ours} was not measured"
        note = f"{row['equal']} of {row['repeats']}, {', '.join(row['kernels'])}"
        return row["equal"] / row["repeats"], note
    section: str = bar.section
    if bar.kind == "dequant":  # measured beside linear, wherever that was
        timed = (each for each in results if each["section"] in ("gemv", "few_rows", "gemm", "dequant"))
        section = next((each["section"] for each in timed if tuple(each["shape"]) == tuple(shape)), section)
    time = _median(results, section, shape, bar.ours)
    if time is None:
        return None, f"{bar.ours} was not measured"
    if bar.kind in ("bandwidth", "dequant"):
        if copy_gb_s is None:
            return None, "the copy's bandwidth was not measured"
        if bar.kind == "bandwidth":
            return shape.weight_bytes / time * 1e-3 / copy_gb_s, f"of {copy_gb_s:.0f} GB/s"
        linear = _median(results, section, shape, LINEAR)
        if linear is None:
            return None, f"{LINEAR} was not measured"
        return time / (linear + 3 * shape.M * shape.N / copy_gb_s * 1e-3), ""
    times = {name: _median(results, section, shape, name) for name in bar.against}
    measured = {name: us for name, us in times.items() if us is not None}
    if not measured:
        return None, f"not measured: {', '.join(bar.against)}"
    name, fastest = min(measured.items(), key=lambda each: each[1])
    missing = [each for each in bar.against if each not in measured]
    note = name + (f" (absent: {', '.join(missing)})" if missing else "")
    return (fastest / time if bar.kind == "speedup" else time / fastest), note


def judge(results: Sequence[Result], copy_gb_s: float | None, bars: Sequence[Bar] = BARS) -> list[Verdict]:
    """A verdict for every bar at every one of its shapes, also of those that were not measured."""
    verdicts = []
    for bar in bars:
        for shape, figure, beyond in bar.shapes:
            value, because = _value(bar, shape, results, copy_gb_s)

            def holds(limit: float | None, value: float | None = value, bar: Bar = bar) -> bool | None:
                if limit is None or value is None:
                    return None
                return value >= limit if bar.at_least else value <= limit

            met = holds(figure)
            missed_by = abs(value - figure) / figure if met is False else None
            verdicts.append(
                Verdict(
                    bar.claim,
                    shape,
                    value,
                    figure,
                    beyond,
                    bar.at_least,
                    met,
                    holds(beyond),
                    missed_by,
                    because,
                )
            )
    return verdicts
