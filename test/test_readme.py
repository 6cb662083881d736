"""The README tells the truth: its example runs as printed, and what it points to exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_example_runs_as_printed(tmp_path: Path) -> None:
    examples = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert len(examples) == 1
    lines = [line for line in examples[0].splitlines() if line]
    assert len(lines) <= 15, "the README promises a short example"

    # In an empty directory, so that the installed package is what gets imported.
    finished = subprocess.run(
        [sys.executable, "-c", examples[0]], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert finished.returncode == 0, finished.stderr
    printed = re.fullmatch(r"on (.+): error ([\d.]+), one int8 step is ([\d.]+)\n", finished.stdout)
    assert printed is not None, finished.stdout
    error, step = float(printed[2]), float(printed[3])
    # The input's and the weights' rounding add to the half step of the output's own.
    assert 0 < error < 3 * step


def test_named_files_exist() -> None:
    named = re.findall(r"bash ((?:scripts|\.ci)/[\w.]+)", README)  # commands
    named += re.findall(r"\]\((?!https?://)([^)#]+)\)", README)  # links
    named += re.findall(r"^\| `(\w+/(?:\w+/)?)` \|", README, re.MULTILINE)  # the table of folders
    assert {"scripts/demo.sh", "scripts/test.sh", ".ci/run", "LICENSE", "csrc/vulkan/"} <= set(named)
    assert [name for name in named if not (ROOT / name).exists()] == []
