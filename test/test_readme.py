"""The README tells the truth: its example runs as printed, and what it points to exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


EXAMPLES = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def output_of(example: str, folder: Path) -> str:
    """Runs an example in an empty directory, so that the installed package is what gets imported."""
    lines = [line for line in example.splitlines() if line]
    assert len(lines) <= 15, "the README promises short examples"
    finished = subprocess.run(
        [sys.executable, "-c", example], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_journey_runs_as_printed(tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    operators, errors = output_of(EXAMPLES[0], tmp_path).splitlines()
    assert operators == "q8ta.linear.default q8ta.linear_dequant.default"
    printed = re.fullmatch(r"largest error ([\d.]+) of ([\d.]+)", errors)
    assert printed is not None, errors
    assert 0 < float(printed[1]) < 0.05 * float(printed[2])
    assert (tmp_path / "model.pt2").exists()


def test_operator_example_runs_as_printed(tmp_path: Path) -> None:
    printed = re.fullmatch(
        r"on (.+): error ([\d.]+), one int8 step is ([\d.]+)\n", output_of(EXAMPLES[1], tmp_path)
    )
    assert printed is not None
    error, step = float(printed[2]), float(printed[3])
    # The input's and the weights' rounding add to the half step of the output's own.
    assert 0 < error < 3 * step


def test_graph_example_runs_as_printed(tmp_path: Path) -> None:
    assert len(EXAMPLES) == 3
    assert output_of(EXAMPLES[2], tmp_path) == "tensor([1., 3., 5.])\n"


def test_named_files_exist() -> None:
    named = re.findall(r"bash ((?:scripts|\.ci)/[\w.]+)", README)  # commands
    named += re.findall(r"\]\((?!https?://)([^)#]+)\)", README)  # links
    named += re.findall(r"^\| `(\w+/(?:\w+/)?)` \|", README, re.MULTILINE)  # the table of folders
    assert {"scripts/demo.sh", "scripts/test.sh", ".ci/run", "LICENSE", "csrc/vulkan/"} <= set(named)
    assert [name for name in named if not (ROOT / name).exists()] == []
