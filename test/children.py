"""Waits for children made by fork, in tests and in the scripts that they run."""

from __future__ import annotations

import os
import signal
import sys
import time


def wait_for(child: int, seconds: float = 60) -> int:
    """How the child has ended: its exit status, or a signal's number below 0. One that hangs is killed."""
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            print("the child hangs", file=sys.stderr, flush=True)
            end = float("inf")
        time.sleep(0.005)
