"""`python run.py GROUP EVERY OCCURRENCES [verbose]` with the interposer preloaded: failing allocations.

Each scenario is repeated with its next allocation failing until none fails any more. What must hold each
time: an exception that Python code can catch, or the right result; then the right result without a fault; no
validation message; nothing that fails in a destructor or a callback. Prints a line a scenario; exit status 1
if something does not hold.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import sys

import torch
from scenarios import GROUPS, Results, Scenario

from q8ta_ops import _C

faulthandler.enable()


class Faults:
    """The interposer's functions."""

    def __init__(self, every: int, occurrences: int, verbose: bool) -> None:
        self._library = ctypes.CDLL(None)
        self._library.faults_end.restype = ctypes.c_char_p
        self._settings = (every, occurrences, verbose)

    def begin_anew(self) -> None:
        """Every call site may fail again."""
        self._library.faults_begin_anew()

    def begin(self) -> None:
        watched = self._library.faults_watch(b"/q8ta_ops/")
        assert watched >= 3, f"{watched} libraries of q8ta_ops are loaded"
        self._library.faults_begin(*self._settings)

    def end(self) -> str | None:
        """Where an allocation failed since `begin`."""
        where = self._library.faults_end()
        return None if where is None else where.decode()


class Judge:
    def __init__(self) -> None:
        self.problems: list[str] = []
        self._messages = 0
        self._unraisable: list[str] = []
        sys.unraisablehook = lambda arguments: self._unraisable.append(
            f"{arguments.err_msg or ''} {arguments.object!r}: {arguments.exc_value!r}"
        )

    def wrong(self, results: Results) -> bool:
        return not all(torch.equal(got, want) for got, want in results)

    def complain(self, scenario: str, where: str | None, what: str) -> None:
        self.problems.append(f"{scenario}: {what}, after a failure in {where}")
        print("PROBLEM", self.problems[-1], flush=True)

    def look_around(self, scenario: str, where: str | None) -> None:
        """Validation messages and exceptions that nobody could catch."""
        messages = _C.validation_messages()[self._messages :]
        self._messages += len(messages)
        # VMA loses the memory that it has just got from the driver when it has none to note it down.
        messages = [text for text in messages if not ("DestroyDevice" in text and "_DEVICE_MEMORY" in text)]
        for what in (*messages, *self._unraisable):
            self.complain(scenario, where, what)
        if _C.stop_profile():
            self.complain(scenario, where, "the profile goes on")
        self._unraisable.clear()


def exhaust(name: str, scenario: Scenario, faults: Faults, judge: Judge) -> tuple[int, int]:
    """Returns how many allocations failed, and how many of those became exceptions.

    After a failure in a first use there is no call without a fault, which would be that use: the next attempt
    goes on from what the failed one has left.
    """
    failures = exceptions = 0
    while True:
        results, problem, raised = None, None, False
        faults.begin()
        try:
            results = scenario()
        except (MemoryError, RuntimeError) as error:
            raised = True
            if not str(error) and not isinstance(error, MemoryError):
                problem = f"an exception without a message: {error!r}"
            text = repr(error)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is judged
            raised = True
            problem = text = f"{type(error).__name__}: {error}"
        finally:
            where = faults.end()
        if results is not None and judge.wrong(results):
            problem = "a wrong result"
        if where is None:
            if raised:
                problem = f"an exception without a fault: {text}"
        else:
            failures += 1
            exceptions += raised
        if problem is not None:
            judge.complain(name, where, problem)
        judge.look_around(name, where)
        if where is None:
            return failures, exceptions
        results = None
        if name.startswith("first use"):
            continue
        try:
            if judge.wrong(scenario()):
                judge.complain(name, where, "a wrong result of the next call")
        except BaseException as error:  # noqa: BLE001
            judge.complain(name, where, f"the next call fails: {error!r}")
        judge.look_around(name, where)


def main(group: str, every: int, occurrences: int, verbose: bool) -> int:
    torch.set_num_threads(1)
    faults, judge = Faults(every, occurrences, verbose), Judge()
    total = 0
    for name, scenario in GROUPS[group]():
        if not name.startswith("first use"):
            faults.begin_anew()
        failures, exceptions = exhaust(name, scenario, faults, judge)
        total += failures
        print(f"{group}: {name}: {failures} failed allocations, {exceptions} exceptions", flush=True)
    gc.collect()
    _C.close()
    judge.look_around("at the end", None)
    print(f"{group}: {total} failed allocations, {len(judge.problems)} problems", flush=True)
    return 1 if judge.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), len(sys.argv) > 4))
