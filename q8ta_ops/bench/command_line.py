"""Measures the int8 linear kernels, what a user would pick instead, and what the hardware allows."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..runtime import default_device, use_device
from .settings import Settings, quick_settings, shapes_by_section
from .shapes import GEMM, SECTIONS, Shape


def parse_shape(text: str) -> Shape:
    """ "MxKxN" as a shape.

    Raises:
        argparse.ArgumentTypeError: it is something else.
    """
    sizes = text.lower().split("x")
    if len(sizes) != 3 or not all(size.isdigit() and int(size) > 0 for size in sizes):
        raise argparse.ArgumentTypeError(f"expected MxKxN, for example 1x4096x4096, got {text!r}")
    return Shape(*map(int, sizes))


def _shapes(text: str) -> tuple[Shape, ...]:
    return tuple(map(parse_shape, text.split(",")))


def _autotune(text: str) -> tuple[Shape, ...]:
    return GEMM if text == "all" else _shapes(text)


def _sections(text: str) -> tuple[str, ...]:
    chosen = tuple(text.split(","))
    unknown = [each for each in chosen if each not in SECTIONS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    return chosen


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    made = argparse.ArgumentParser(prog="python -m q8ta_ops bench", description=__doc__.split("\n")[0])
    made.add_argument("--quick", action="store_true", help="small shapes, seconds: does everything work?")
    made.add_argument("--only", type=_sections, metavar="SECTION,...", help=f"of {', '.join(SECTIONS)}")
    made.add_argument("--shapes", type=_shapes, metavar="MxKxN,...", help="these instead of the table's")
    made.add_argument("--device", help="as in Q8TA_DEVICE; default: the automatic choice")
    made.add_argument("--samples", type=int, help="of each contestant")
    made.add_argument(
        "--autotune",
        type=_autotune,
        metavar="MxKxN,...|all",
        help="shapes for which CUDA's max-autotune is an opponent, too; tuning takes up to a minute each",
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="writes every figure")
    made.add_argument(
        "--plots", type=Path, metavar="DIR", help="writes roofline.png and bars.png (matplotlib)"
    )
    return made


def settings_of(arguments: argparse.Namespace) -> Settings:
    """What the arguments ask for."""
    settings = quick_settings() if arguments.quick else Settings()
    sections = arguments.only or settings.sections
    settings = replace(settings, sections=sections)
    if arguments.shapes:
        settings = replace(settings, shapes=shapes_by_section(arguments.shapes))
    if arguments.samples:
        settings = replace(settings, samples=arguments.samples)
    if arguments.autotune:
        settings = replace(settings, autotune=arguments.autotune)
    return settings


def describe_verdicts(verdicts: Sequence[dict[str, Any]]) -> str:
    """One line a bar and shape, those that were measured."""
    lines = []
    for each in verdicts:
        if each["value"] is None:
            continue
        sign = ">=" if each["at_least"] else "<="
        bar = "" if each["bar"] is None else f" {sign} {each['bar']:g}"
        state = {True: "met", False: "MISSED", None: ""}[each["met"]]
        if each["missed_by"] is not None:
            state += f" by {each['missed_by']:.0%}"
        if each["beyond"] is not None:
            state += f"; {'beyond' if each['beyond_met'] else 'not beyond'} {each['beyond']:g}"
        shape = "x".join(map(str, each["shape"]))
        note = f"  [{each['because']}]" if each["because"] else ""
        lines.append(f"  {each['claim']}, {shape}: {each['value']:.3f}{bar} {state.strip('; ')}{note}")
    left = sum(each["value"] is None for each in verdicts)
    lines.append(f"  ({left} of {len(verdicts)} were not measured; the JSON says why)")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; 1 if a result was wrong, 2 if plots were asked for and cannot be made."""
    parsed = parser().parse_args(arguments)
    from . import plots
    from .run import Run

    if parsed.plots is not None and (because := plots.unavailable_because()) is not None:
        print(because)
        return 2
    chosen = nullcontext(default_device()) if parsed.device is None else use_device(parsed.device)
    with chosen as device:
        print(f"device: {device.name} ({device.reason})", flush=True)
        document = Run(settings_of(parsed), lambda line: print(line, flush=True)).measure()
    print("bars:")
    print(describe_verdicts(document["verdicts"]))
    for each in document["wrong"]:
        print(f"WRONG RESULT, not timed: {each}")
    if parsed.json is not None:
        parsed.json.write_text(json.dumps(document, indent=1), encoding="utf-8")
    if parsed.plots is not None:
        for path in plots.draw(document, parsed.plots):
            print(f"wrote {path}")
    print(f"took {document['seconds']} s")
    return 1 if document["wrong"] else 0
