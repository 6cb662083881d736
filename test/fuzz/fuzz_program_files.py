"""Looks for program files that crash the process, or that make q8ta_ops.load raise an error not its own.

With choices from a seed, or led by coverage (pip install atheris):

    python test/fuzz/fuzz_program_files.py --seconds 3600 [--seed 1]
    python test/fuzz/fuzz_program_files.py --atheris [options of libFuzzer]

The file that is being tried is kept, so that a crash leaves it behind; the path is printed first.
"""

from __future__ import annotations

import argparse
import collections
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("Q8TA_DEVICE", "host")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

T = TypeVar("T")

MEMORY_BYTES = 12 << 30  # a crafted program may ask for any size: then it gets an error, not the machine


class FuzzedChooser:
    """Choices read from the bytes of a fuzzer."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider

    def integer(self, low: int, high: int) -> int:
        return self._provider.ConsumeIntInRange(low, high)

    def one_of(self, options: Sequence[T]) -> T:
        return options[self.integer(0, len(options) - 1)]


def fuzz_with_seeds(seconds: float, seed: int, path: Path) -> None:
    from choosing import SeededChooser
    from fuzzed_loading import load_and_run, saved_programs
    from program_mutations import mutated

    programs = saved_programs()
    ends: collections.Counter[str] = collections.Counter()
    begin = told = time.monotonic()
    while time.monotonic() - begin < seconds:
        chooser = SeededChooser(seed)
        content, x = chooser.one_of(programs)
        try:
            ends[load_and_run(mutated(content, chooser), x, path)] += 1
        except BaseException:
            print(f"seed {seed}: {path}", flush=True)
            raise
        seed += 1
        if time.monotonic() - told > 60:
            told = time.monotonic()
            print(f"{sum(ends.values())} files: {dict(ends)}; the next seed is {seed}", flush=True)
    print(f"{sum(ends.values())} files: {dict(ends)}")


def fuzz_with_atheris(options: list[str], path: Path) -> None:
    import atheris

    import q8ta_ops

    with atheris.instrument_imports(include=["q8ta_ops.program_file", "q8ta_ops.manifest", "zipfile"]):
        for name in [name for name in sys.modules if name.startswith(("q8ta_ops.program_file", "zipfile"))]:
            del sys.modules[name]
        import q8ta_ops.program_file
    from fuzzed_loading import load_and_run, saved_programs
    from program_mutations import mutated

    for name in ("open_archive", "read_program", "check_descriptions"):
        setattr(q8ta_ops.export, name, getattr(q8ta_ops.program_file, name))
    programs = saved_programs()

    def one_input(data: bytes) -> None:
        chooser = FuzzedChooser(atheris.FuzzedDataProvider(data))
        content, x = chooser.one_of(programs)
        load_and_run(mutated(content, chooser), x, path)

    atheris.Setup([sys.argv[0], *options], one_input)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--atheris", action="store_true")
    arguments, options = parser.parse_known_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    path = Path(tempfile.mkdtemp()) / "tried.pt2"
    print(path, flush=True)
    if arguments.atheris:
        fuzz_with_atheris(options, path)
    else:
        fuzz_with_seeds(arguments.seconds, arguments.seed, path)


if __name__ == "__main__":
    main()
