"""Damaged and crafted program files: a clean error, or a program that runs or raises; never a crash.

test/fuzz/fuzz_program_files.py looks for longer.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzzed_loading import load_and_run, saved_programs
from hypothesis import given
from program_mutations import mutated
from strategies import drawn, examples

PROGRAMS = saved_programs()


@pytest.mark.parametrize("which", range(len(PROGRAMS)))
def test_unchanged_files_run(which: int, tmp_path: Path) -> None:
    content, x = PROGRAMS[which]
    assert load_and_run(content, x, tmp_path / "same.pt2") == "runs"


@examples(ci=250)
@given(content=drawn(lambda chooser: mutated(PROGRAMS[0][0], chooser)))
def test_changed_file(content: bytes, tmp_path: Path) -> None:
    load_and_run(content, PROGRAMS[0][1], tmp_path / "changed.pt2")


@examples(ci=150)
@given(content=drawn(lambda chooser: mutated(PROGRAMS[1][0], chooser)))
def test_changed_file_with_other_operators(content: bytes, tmp_path: Path) -> None:
    load_and_run(content, PROGRAMS[1][1], tmp_path / "changed.pt2")
