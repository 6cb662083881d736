"""Runs scripts and sweeps in processes in which Vulkan calls fail (`fault_injection`).

CI tries a share of all faults. Q8TA_TEST_FAULTS=1 is all of them (half an hour), Q8TA_TEST_FAULTS=0.1 a
tenth; Q8TA_TEST_PROGRESS names a file that says how far it is.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import textwrap
from collections import Counter
from functools import cache

import pytest
from fault_injection import layer_environment, why_not_built
from fork_server import ForkServer

SHARE = os.environ.get("Q8TA_TEST_FAULTS")
LONG = SHARE is not None or "Q8TA_TEST_SHAPES" in os.environ
SECONDS = 4 * 3600 if LONG else 130

marks = [
    pytest.mark.timeout(SECONDS + 15),
    pytest.mark.skipif(os.environ["Q8TA_DEVICE"] == "host", reason="the session computes on the host"),
    pytest.mark.skipif(why_not_built() is not None, reason=str(why_not_built())),
]

_BEFORE = """
import threading, time
import pytest, torch
import q8ta_ops
from q8ta_ops import _C
from fault_injection import *
from samples import make_sample

layer = FaultLayer()
linear = make_sample((3,), 40, 24)
expected = linear.expected("linear")

def right(sample=linear, wanted=expected):
    assert torch.equal(sample.call("linear"), wanted)
"""

_AFTER = """
assert _C.validation_messages() == [], _C.validation_messages()
print("the end")
"""


@cache
def _server() -> ForkServer:
    server = ForkServer()
    atexit.register(server.close)
    return server


def run(script: str) -> str:
    """Runs a script that finds `layer`, a sample `linear` and `right()`, which calls it. Returns its output.

    No validation message may be there at its end, and its process has to end well.
    """
    whole = _BEFORE + textwrap.dedent(script) + _AFTER
    done: subprocess.CompletedProcess[str] = _server().run(whole, seconds=SECONDS, **layer_environment())
    assert done.returncode == 0 and done.stdout.endswith("the end\n"), done.stdout + done.stderr
    assert "alidation" not in done.stderr, done.stderr
    return done.stdout


def sweep(scenario: str, state: str, share: float) -> dict[str, Counter[str]]:
    """What `fault_sweep.py` counted for a share of the faults. It may have found no problem."""
    share = share if SHARE is None else float(SHARE)
    totals: dict[str, Counter[str]] = {"outcomes": Counter(), "failed": Counter()}
    left = 1
    while left > 0:
        found = _sweep(scenario, state, share, totals["outcomes"]["faults"])
        assert found["problems"] == [], "\n".join(found["problems"])
        for name, total in totals.items():
            total.update(found[name])
        left = found["left"]
    assert totals["outcomes"]["RuntimeError"] > 0 and totals["outcomes"]["right"] > 0, totals
    print(totals)
    return totals


def problems_with_a_leak(scenario: str, kind: str) -> list[str]:
    """What `fault_sweep.py` says about faults that each make an object of that kind leak."""
    return _sweep(scenario, "warm", 1e-6, 0, kind)["problems"]


def _sweep(*arguments: object) -> dict:
    output = run(f"""
        import warnings
        warnings.simplefilter("ignore")
        import fault_sweep
        fault_sweep.main{arguments!r}
    """)
    return json.loads(output.splitlines()[-2])
