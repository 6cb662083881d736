"""What scripts in processes of their own begin with, in the tests of signals, forks, threads and exits."""

from __future__ import annotations

import os
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from fork_server import ForkServer

DEVICE = os.environ["Q8TA_DEVICE"]
Script = Callable[..., subprocess.CompletedProcess[str]]

on_both = pytest.mark.parametrize("device", sorted({DEVICE, "host"}))

# `right` computes with every operator and compares.
PREPARE = """
import atexit, gc, os, signal, sys, threading, time, warnings
import torch, q8ta_ops
from q8ta_ops import _C
from children import wait_for
from samples import make_sample
torch.set_num_threads(1)  # libgomp's own threads do not survive a fork; they are not what is tested
samples = [make_sample((rows,), 40, 24, seed=rows) for rows in (1, 3, 33)]
expected = [[sample.expected(op) for op in sample.ops()] for sample in samples]

def right():
    return all(
        torch.equal(sample.call(op), want)
        for sample, wanted in zip(samples, expected)
        for op, want in zip(sample.ops(), wanted)
    )

def signalled_soon(number, seconds=0.1):
    thread = threading.Timer(seconds, os.kill, (os.getpid(), number))
    thread.start()
    return thread
"""

# Behind that: threads that compute until the end, or until `stop`.
BUSY = """
stop = False

def work():
    while not stop:
        assert right()

assert right()
threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
for thread in threads:
    thread.start()
"""


@contextmanager
def scripts_behind(beginning: str) -> Iterator[Script]:
    """Runs scripts that begin so, with environment variables changed."""
    server = ForkServer()
    yield lambda text, **environment: server.run(beginning + textwrap.dedent(text), **environment)
    server.close()


def said_at_the_end(done: subprocess.CompletedProcess[str]) -> str:
    """What is in stderr, without the report of what Triton leaves at exit (3.8, with torch 2.15)."""
    report = (
        "nanobind: leaked ",
        " - leaked ",
        " - ... skipped",
        "nanobind: this is likely",
        "See https://nanobind",
    )
    return "".join(line for line in done.stderr.splitlines(keepends=True) if not line.startswith(report))


def assert_ended_as_with_torch(done: subprocess.CompletedProcess[str]) -> None:
    """torch itself ends by SIGABRT when daemon threads are in any operator at exit (seen with 2.13 and
    `torch._int_mm`): such threads must not make the process hang or crash otherwise."""
    fine = done.returncode == 0 and not said_at_the_end(done)
    said = done.stderr.splitlines()
    as_torch = done.returncode == -6 and said and all(line.startswith("terminate called ") for line in said)
    assert done.stdout == "ends\n" and (fine or as_torch), (done.returncode, done.stdout + done.stderr)
