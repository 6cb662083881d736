"""The load test for seconds, and what one call leaves behind. benchmarks/load.py itself runs for minutes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from samples import make_sample

import q8ta_ops

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
LOAD = BENCHMARKS / "load.py"
STATUS = Path("/proc/self/status")
DEVICE = os.environ["Q8TA_DEVICE"]

pytestmark = [
    pytest.mark.timeout(200),
    pytest.mark.skipif(not STATUS.exists(), reason="reads /proc"),
]


@pytest.mark.parametrize("arguments", [("--vk",), ("--device", "host")], ids=" ".join)
def test_many_threads(arguments: tuple[str, ...]) -> None:
    """Right results and no memory left behind. A busy machine's speed says nothing in such a short time."""
    if DEVICE == "host" and "--vk" in arguments:
        pytest.skip("the session computes on the host")
    command = [sys.executable, LOAD, "--seconds", "2", "--least-ratio", "0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    calls = [int(line.split()[1]) for line in done.stdout.splitlines() if re.match(r" +\d+\.\d +\d", line)]
    assert len(calls) == 6 and calls == sorted(calls) and calls[-1] > 50, done.stdout
    assert re.search(r"calls a minute: median of the first third \d+, .* % over the run\n", done.stdout)


def test_trends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from steadiness import Trend

    falls = Trend.of([100 - i for i in range(41)])
    assert (falls.first, falls.last) == (94, 66)
    assert falls.slope == pytest.approx(-50) and falls.error == pytest.approx(0, abs=1e-6)
    noise = Trend.of([100, 130, 75] * 20 + [1])  # one bad value at the end
    assert noise.first == noise.last == 100 and abs(noise.slope) < 2 * noise.error


def resident_bytes() -> int:
    return 1024 * int(re.search(r"VmRSS:\s+(\d+)", STATUS.read_text())[1])


def test_a_call_leaves_nothing_behind() -> None:
    """torch's own conversion of a string argument loses 48 bytes in each call."""
    calls = 40_000
    sample = make_sample((1,), 8, 4)
    with q8ta_ops.use_device("host"):
        for _ in range(2000):
            sample.call("linear")
        before = resident_bytes()
        for _ in range(calls):
            sample.call("linear")
    assert (resident_bytes() - before) / calls < 8
