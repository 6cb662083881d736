"""Whether calls let other threads of Python run."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable


def another_thread_runs_during(call: Callable[[], object], seconds: float = 10) -> bool:
    """Repeats `call` until another thread has run a few times. With a switch interval of minutes, it does so
    only if the call itself lets the GIL go."""
    wanted = 5
    turns = 0
    stop = False

    def count() -> None:
        nonlocal turns
        while not stop:
            turns += 1
            time.sleep(1e-5)

    interval = sys.getswitchinterval()
    counter = threading.Thread(target=count, daemon=True)
    try:
        sys.setswitchinterval(600)
        counter.start()
        before = turns
        end = time.monotonic() + seconds
        while turns < before + wanted and time.monotonic() < end:
            call()
    finally:
        stop = True
        sys.setswitchinterval(interval)
        counter.join(timeout=10)
    return turns >= before + wanted
