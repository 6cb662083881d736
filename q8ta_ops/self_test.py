"""The long self-test: every kernel and tile that can be chosen on a device, compared with the host kernel.

A short one runs by itself: each pipeline computes a small problem before its first use.
"""

from __future__ import annotations

import itertools
import platform
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from . import _C
from .runtime import DeviceInfo, default_device, use_device
from .version import __version__

# M, K, N: around the edges of tiles, of words, of chunks of 16 bytes and of the kernels' loops along K.
SHAPES = (
    (1, 1, 1),
    (1, 17, 5),
    (1, 533, 67),
    (1, 4099, 66),
    (1, 9000, 129),
    (2, 100, 30),
    (3, 1100, 67),
    (4, 4099, 40),
    (5, 64, 131),
    (8, 2050, 65),
    (9, 48, 12),
    (16, 1040, 100),
    (17, 15, 33),
    (20, 1040, 48),
    (33, 533, 130),
    (70, 300, 257),
    (128, 264, 256),
    (128, 256, 512),
    (130, 300, 336),
    (130, 1100, 140),
)

# Together these allow every kernel; each is tested once.
_DISABLED = ((), ("int_dot",), ("subgroup",), ("int_dot", "subgroup"))


@dataclass(frozen=True)
class Case:
    """One kernel on one problem. ``difference`` says what is wrong; it is empty if nothing is."""

    variant: str
    sizes: tuple[int, int, int]
    float_output: bool
    weights_in_tiles: bool
    difference: str

    @property
    def shader(self) -> str:
        """The variant's name without the numbers of its tile."""
        return self.variant.split()[0]


@dataclass(frozen=True)
class SelfTestReport:
    """What :func:`self_test` found. ``str()`` of it is meant to be pasted into an issue.

    Attributes:
        cases: all that were run.
        switched_off: features that are not used in this process because the short self-test found them
            wrong, with what showed it.
    """

    device: DeviceInfo
    cases: tuple[Case, ...]
    switched_off: tuple[tuple[str, str], ...]

    @property
    def passed(self) -> bool:
        """Whether every kernel gave every bit that the host kernel gives."""
        return not any(case.difference for case in self.cases)

    def __str__(self) -> str:
        device = self.device
        lines = [
            f"q8ta-ops {__version__} self-test, torch {torch.__version__}, {platform.platform()}",
            f"device    {device.name} ({device.type}, Vulkan {device.api_version})",
            f"driver    {device.driver}",
            "features  " + ", ".join(f"{name} {value}" for name, value in device.features.items()),
        ]
        for shader in dict.fromkeys(case.shader for case in self.cases):
            lines += _describe([case for case in self.cases if case.shader == shader])
        lines += [f"switched off: {feature}: {evidence}" for feature, evidence in self.switched_off]
        wrong = sum(bool(case.difference) for case in self.cases)
        lines.append(f"{wrong} of {len(self.cases)} cases are wrong" if wrong else "passed")
        return "\n".join(lines)


def _describe(cases: list[Case]) -> list[str]:
    wrong = [case for case in cases if case.difference]
    variants = len({case.variant for case in cases})
    verdict = f"WRONG in {len(wrong)}" if wrong else "right"
    lines = [f"{cases[0].shader:<29} {variants:>3} variants, {len(cases):>4} cases: {verdict}"]
    for case in wrong[:5]:
        sizes = " x ".join(map(str, case.sizes))
        kind = ("float32" if case.float_output else "int8") + ", weights in tiles" * case.weights_in_tiles
        lines.append(f"    {case.variant}, {sizes}, {kind}: {case.difference}")
    return lines


def self_test(
    device: str | int | None = None, *, shapes: Iterable[tuple[int, int, int]] = SHAPES
) -> SelfTestReport:
    """Runs every kernel and tile that can be chosen on a device, and compares every bit with the host kernel.

    Takes seconds on a GPU, minutes on a software device. Changes nothing: what is wrong is switched off by
    the short self-test before its first use.

    Args:
        device: an index or a part of a name from :func:`devices`; None for the default device.
        shapes: M, K, N of the problems.

    Raises:
        ValueError: no such device.
        RuntimeError: it cannot be used, or there is no Vulkan device.
    """
    default = default_device() if device is None else None
    if default is not None and default.device is None:
        raise RuntimeError(f"the self-test needs a Vulkan device: {default.reason}")
    problems = list(itertools.product(shapes, (False, True), (False, True)))
    cases: dict[tuple[str, tuple[int, int, int], bool, bool], Case] = {}
    for disabled in _DISABLED:
        with use_device(default.device.index if default else device, disabled) as used:
            if used.device is None:
                raise RuntimeError("the self-test needs a Vulkan device, not the host")
            for sizes, float_output, in_tiles in problems:
                for variant, _, _ in _C.linear_candidates(sizes, float_output, in_tiles):
                    key = (variant, sizes, float_output, in_tiles)
                    if key not in cases:
                        cases[key] = Case(*key, _difference(*key))
            switched_off = tuple(_C.switched_off())
    return SelfTestReport(used.device, tuple(cases.values()), switched_off)


def _difference(variant: str, sizes: tuple[int, int, int], float_output: bool, in_tiles: bool) -> str:
    try:
        return _C.find_difference(sizes, float_output, variant, in_tiles)
    except RuntimeError as error:  # also a result: a pipeline that cannot be made, a device that is lost
        return f"error: {error}"


def main() -> int:
    """Prints the report of the default device; 1 if something is wrong."""
    report = self_test()
    print(report)
    return 0 if report.passed else 1
