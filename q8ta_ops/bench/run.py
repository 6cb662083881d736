"""One run: warms up, measures the roofs and every section, and collects what the JSON holds."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from .. import runtime
from ..version import __version__
from . import cpu, cuda, roofs, vk_tensors, vulkan
from .roofs import Roofs
from .samples import Sample, WrongResult
from .settings import Settings
from .shapes import (
    DEQUANT,
    GEMM_PULL_REQUEST,
    LINEAR,
    PULL_REQUEST,
    READ_ONCE,
    WITHOUT_COOPMAT,
    Section,
    Shape,
)
from .spread import Absent, Contestant, take_turns
from .verdicts import Result, judge, main_us

FORMAT = 1
OURS = (LINEAR, DEQUANT, WITHOUT_COOPMAT, vk_tensors.QUEUED, vk_tensors.REPLAYED)


def environment(device: runtime.DefaultDevice) -> dict[str, Any]:
    """What the figures belong to."""
    described = device.device
    return {
        "q8ta_ops": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "vulkan": None
        if described is None
        else {
            "name": described.name,
            "driver": described.driver,
            "type": described.type,
            "features": described.features,
        },
        "cuda": {"name": torch.cuda.get_device_name(), "version": torch.version.cuda}
        if torch.cuda.is_available()
        else None,
        "disabled": os.environ.get("Q8TA_DISABLE", ""),
    }


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


class Run:
    """Measures what the settings ask for on the current device; ``say`` gets a line about each step."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self.say = say
        self.device = runtime.default_device()
        self.vulkan = self.device.device
        if self.vulkan is not None:
            limit = int(self.vulkan.features["max_binding_bytes"]) // 16 * 16
            settings = replace(settings, roof_bytes=min(settings.roof_bytes, limit))
        self.settings = settings
        self.roofs: Roofs | None = None
        self.no_roofs_because = ""
        self.results: list[Result] = []
        self.wrong: list[str] = []

    def measure(self) -> dict[str, Any]:
        """Everything, as one JSON document."""
        start = time.perf_counter()
        self._measure_roofs()
        for section in self.settings.sections:
            for shape in self._shapes(section):
                began = time.perf_counter()
                result = self._measure_shape(section, shape)
                result["seconds"] = round(time.perf_counter() - began, 2)
                self.results.append(result)
                self.say(describe(result))
        copy_gb_s = None if self.roofs is None else self.roofs.copy_gb_s
        return {
            "format": FORMAT,
            "environment": environment(self.device),
            "settings": {
                "samples": self.settings.samples,
                "rotate_bytes": self.settings.rotate_bytes,
                "batch_us": self.settings.batch_us,
                "quick": self.settings.quick,
                "sections": list(self.settings.sections),
            },
            "roofs": {"absent": [Absent("roofs", self.no_roofs_because).__dict__]}
            if self.roofs is None
            else self.roofs.as_dict(),
            "results": self.results,
            "verdicts": [each.as_dict() for each in judge(self.results, copy_gb_s)],
            "wrong": self.wrong,
            "seconds": round(time.perf_counter() - start, 1),
        }

    def _shapes(self, section: Section) -> tuple[Shape, ...]:
        if section != "dequant":
            return self.settings.shapes.get(section, ())
        # linear_dequant is measured beside linear wherever that is; on its own only if nothing else is asked.
        if any(each in self.settings.sections for each in ("gemv", "few_rows", "gemm")):
            return ()
        return tuple(
            shape for each in ("gemv", "few_rows", "gemm") for shape in self.settings.shapes.get(each, ())
        )

    def _measure_roofs(self) -> None:
        if self.vulkan is None or not set(self.settings.sections) - {"exact", "cpu"}:
            self.no_roofs_because = "no section that was asked for needs them"
            if self.vulkan is None:
                self.no_roofs_because = self.device.reason
            return
        try:
            self._warm_up()
            self.roofs = roofs.measure_roofs(self.settings, cuda.copy_roof(self.settings, self.vulkan.name))
        except RuntimeError as error:
            self.no_roofs_because = first_line(error)
            self.say(f"no roofs: {self.no_roofs_because}")
            return
        self.say(
            f"roofs: copy {self.roofs.copy_gb_s:.0f} GB/s, read {self.roofs.read_gb_s:.0f} GB/s, "
            f"{self.roofs.tops:.3g} TOPS, empty dispatch {self.roofs.empty_us:.2f} us"
        )

    def _warm_up(self) -> None:
        """A machine that was idle is slower at first."""
        contestant, _ = roofs.dot4(self.settings)
        end = time.perf_counter() + self.settings.warm_up_s
        while time.perf_counter() < end:
            take_turns([contestant], samples=1)

    def _measure_shape(self, section: Section, shape: Shape) -> Result:
        sample = Sample(shape)
        if section == "exact":
            return self._repeat(sample)
        if section == "cpu":
            contestants, absent = cpu.opponents(sample, self.settings)
            self._add(LINEAR, lambda: cpu.ours(sample, self.settings), contestants, absent)
        elif section == "vk":
            contestants, absent = [], []
            try:
                contestants, absent = vk_tensors.contestants(sample, self.settings)
            except WrongResult as error:
                self._note_wrong(error, vk_tensors.QUEUED, absent)
            except (RuntimeError, OSError) as error:
                absent.append(Absent(vk_tensors.QUEUED, first_line(error)))
        else:
            contestants, absent = self._on_device(section, sample)
        take_turns(contestants, self.settings.samples, warm_up=2)
        return self._result(section, sample, contestants, absent)

    def _repeat(self, sample: Sample) -> Result:
        """The section "exact": nothing is timed."""
        rows: list[dict[str, Any]] = []
        absent: list[Absent] = []
        for name in (LINEAR, DEQUANT):
            if self.vulkan is None:
                absent.append(Absent(name, f"no Vulkan device: {self.device.reason}"))
                continue
            repeats = self.settings.exact_repeats
            try:
                equal, kernels = vulkan.exact_results(sample, repeats, float_output=name == DEQUANT)
            except RuntimeError as error:
                absent.append(Absent(name, first_line(error)))
                continue
            rows.append({"name": name, "ours": True, "repeats": repeats, "equal": equal, "kernels": kernels})
            if equal != repeats:
                self.wrong.append(f"{name} {sample.shape}: {repeats - equal} of {repeats} results were wrong")
        return {
            "section": "exact",
            "shape": list(sample.shape),
            "contestants": rows,
            "absent": [each.__dict__ for each in absent],
        }

    def _on_device(self, section: Section, sample: Sample) -> tuple[list[Contestant], list[Absent]]:
        """What runs on the GPU: ours and the pull request's, roofs of the shape, CUDA's."""
        contestants, absent = self._on_vulkan(section, sample)
        if section == "dequant":
            return contestants, absent
        name = None if self.vulkan is None else self.vulkan.name
        present, missing = cuda.opponents(sample, self.settings, name)
        return contestants + present, absent + missing

    def _on_vulkan(self, section: Section, sample: Sample) -> tuple[list[Contestant], list[Absent]]:
        settings, shape = self.settings, sample.shape
        contestants: list[Contestant] = []
        absent: list[Absent] = []
        if self.vulkan is None:
            because = f"no Vulkan device: {self.device.reason}"
            return [], [Absent(name, because) for name in (LINEAR, DEQUANT, PULL_REQUEST)]
        self._add(LINEAR, lambda: vulkan.linear(LINEAR, sample, settings), contestants, absent)
        self._add(DEQUANT, lambda: vulkan.linear(DEQUANT, sample, settings, True), contestants, absent)
        if section == "dequant":
            return contestants, absent
        self._add(
            PULL_REQUEST, lambda: vulkan.pull_request(PULL_REQUEST, sample, settings), contestants, absent
        )
        if section in ("gemv", "few_rows"):
            self._add(READ_ONCE, lambda: roofs.read_once(shape.weight_bytes, settings), contestants, absent)
        if section == "gemv":
            self._add(roofs.EMPTY, lambda: roofs.empty_dispatch(settings), contestants, absent)
        if shape == GEMM_PULL_REQUEST or (settings.quick and section == "gemm"):
            self._add(WITHOUT_COOPMAT, lambda: self._without_coopmat(sample), contestants, absent)
        return contestants, absent

    def _without_coopmat(self, sample: Sample) -> Contestant:
        with runtime.use_device(self.vulkan.index, disable=("coopmat",)):
            return vulkan.linear(WITHOUT_COOPMAT, sample, self.settings)

    def _add(
        self,
        name: str,
        make: Callable[[], Contestant],
        contestants: list[Contestant],
        absent: list[Absent],
    ) -> None:
        """Adds a contestant of ours, or why it is not there. A wrong result is noted and never timed."""
        try:
            contestants.append(make())
        except WrongResult as error:
            self._note_wrong(error, name, absent)
        except RuntimeError as error:
            absent.append(Absent(name, first_line(error)))

    def _note_wrong(self, error: WrongResult, name: str, absent: list[Absent]) -> None:
        self.wrong.append(str(error))
        absent.append(Absent(name, f"wrong result: {error}"))

    def _result(
        self, section: Section, sample: Sample, contestants: list[Contestant], absent: list[Absent]
    ) -> Result:
        shape = sample.shape
        rows = []
        for each in contestants:
            spreads = each.spreads
            row: dict[str, Any] = {
                "name": each.name,
                "ours": each.name in OURS,
                "us": {name: spread.as_dict() for name, spread in spreads.items()},
            }
            us = main_us(row)["median"]
            if each.name not in (READ_ONCE, roofs.EMPTY):
                row["gb_s"] = shape.weight_bytes / us * 1e-3
                row["tops"] = 2 * shape.multiplies / us * 1e-6
                if self.roofs is not None and section != "cpu" and each.name in (*OURS, PULL_REQUEST):
                    moved = sample.bytes_moved(float_output=each.name == DEQUANT)
                    row["roof_share"] = self.roofs.time_us(moved, shape.multiplies) / us
            rows.append(row | each.details)
        return {
            "section": section,
            "shape": list(shape),
            "contestants": rows,
            "absent": [each.__dict__ for each in absent],
        }


def first_line(error: Exception) -> str:
    """The first line of an error's message, not too long for a table."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def describe(result: Result) -> str:
    """A table of one shape."""
    lines = [f"{result['section']} {'x'.join(map(str, result['shape']))} (M x K x N)"]
    for row in result["contestants"]:
        if "us" not in row:
            lines.append(
                f"  {row['name']:<40} {row['equal']} of {row['repeats']} results equal: "
                + ", ".join(row["kernels"])
            )
            continue
        figures, main = row["us"], main_us(row)
        line = f"  {row['name']:<40}{main['median']:10.2f} us [{main['q25']:.2f} .. {main['q75']:.2f}]"
        if "gb_s" in row:
            line += f" {row['gb_s']:7.1f} GB/s {row['tops']:7.3f} TOPS"
        if "roof_share" in row:
            line += f" {row['roof_share']:4.0%} of the roof"
        others = [f"{name} {each['median']:.2f}" for name, each in figures.items() if each is not main]
        lines.append(line + (f"  ({', '.join(others)})" if others else ""))
    by_reason: dict[str, list[str]] = {}
    for each in result["absent"]:
        by_reason.setdefault(each["because"], []).append(each["name"])
    lines += [f"  absent: {', '.join(names)}: {because}" for because, names in by_reason.items()]
    return "\n".join(lines)
