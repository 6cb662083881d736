"""reports.py FILE...: prints what sanitizers reported, and fails if that is anything but others' leaks.

At the end of a Python process much is lost that is the interpreter's or torch's own. A leak is ours if one of
our libraries is among the callers of the allocation.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

FAULT = re.compile(r"ERROR: AddressSanitizer|runtime error:|(?:WARNING|ERROR|FATAL): ThreadSanitizer")
LIBRARY = r"/(?:libq8ta_vulkan|_torch_ops|_vk_device_torch_\d+_\d+|_C)\.(?:\S+\.)?so\+"
SOURCE = r"/csrc/(?:vulkan|kernels|ops|device|bindings)/\w+\.(?:cpp|h):\d"
# With its function, which ours have. Callers are found by following frame pointers, which the interpreter
# does not keep: what follows its functions can be any number, once one in the data of a library of ours.
OURS = re.compile(rf" in \S.*{LIBRARY}|{SOURCE}")


def leaks(report: str) -> list[str]:
    """The paragraphs of a report that each describe one leak."""
    return [
        part for part in re.split(r"\n\s*\n", report) if re.match(r"\s*(?:Direct|Indirect) leak of", part)
    ]


def main() -> None:
    reports = [Path(name).read_text(errors="replace") for name in sys.argv[1:]]
    faults = [report for report in reports if FAULT.search(report)]
    found = [leak for report in reports for leak in leaks(report)]
    ours = [leak for leak in found if OURS.search(leak)]
    for text in faults + ours:
        print(text, "\n")
    print(f"{len(reports)} reports, {len(faults)} of faults; {len(found)} leaks, {len(ours)} of them ours")
    sys.exit(1 if faults or ours else 0)


main()
