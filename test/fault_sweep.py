"""Makes the Vulkan calls of a scenario fail, one after the other, and writes what came of it (JSON).

    python fault_sweep.py cpu warm 0.1 [number of the first one]

For a process that has the layer (`fault_injection.layer_environment`). "cold": each fault meets a device that
was just opened, by losing the one before it; "warm": one device serves all. The number is the share of all
faults that is tried. Q8TA_TEST_PROGRESS names a file that gets a line for each fault and each problem.

A device that was lost is kept, since others may still refer to it: 16 MB with lavapipe and validation. So
one process tries at most MOST of the faults that need new devices.
"""

from __future__ import annotations

import gc
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from fault_injection import DEVICE_LOST, OUT_OF_DEVICE_MEMORY, RESULTS, FaultLayer
from fault_scenarios import Step, cpu_steps, vk_steps

import q8ta_ops
from q8ta_ops import _C

# An error of the library: it names the call or says what could not be done, and why.
TEXT = re.compile(r"VK_[A-Z_]+|out of memory|was lost")

MOST = 200


@dataclass(frozen=True)
class Fault:
    """The `number`-th call of `function` in a round fails with `result`; if `sticky`, all later ones, too."""

    function: str
    number: int
    result: int
    sticky: bool


class Sweep:
    def __init__(self, scenario: str, state: str) -> None:
        self.layer = FaultLayer()
        self.cold = state == "cold"
        self.loses = scenario == "cpu"  # tensors on vk do not survive a lost device
        if scenario == "vk":
            q8ta_ops.enable_vk_device()
        self.steps: dict[str, Step] = vk_steps() if scenario == "vk" else cpu_steps()
        self.outcomes: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.problems: list[str] = []
        self.left = 0  # faults for another process

    def renew(self) -> None:
        """The next call opens the device anew."""
        if not self.cold:
            return
        self.layer.lose_devices()
        work, _ = self.steps["rows"]
        try:
            work()
        except RuntimeError:
            return
        self.problems.append("a lost device was not noticed")

    def round(self, what: object, *, faulty: bool) -> None:
        """All steps. A step may fail by an error of the library, if a call was made to fail."""
        for name, (work, expected) in self.steps.items():
            failed = self.layer.failed()
            try:
                result = work()
            except (RuntimeError, torch.OutOfMemoryError) as error:
                self.outcomes[type(error).__name__] += 1
                if not faulty or not TEXT.search(str(error)):
                    self.problems.append(f"{what}, {name}: {type(error).__name__}: {error}")
                continue
            if self.layer.failed() > failed:
                self.outcomes["right"] += 1
            if not torch.equal(result, expected):
                self.problems.append(f"{what}, {name}: wrong result")

    def alive(self) -> dict[str, int]:
        """Objects by kind. What is recorded is kept for the next time, up to a limit: that is no leak."""
        gc.collect()
        if not self.loses:
            torch.vk.synchronize()
        kinds = ("Buffer", "Memory", "CommandPool", "Fence", "Pipeline", "PipelineLayout")
        kinds += ("DescriptorSetLayout", "ShaderModule")
        for kind, most in (("CommandBuffer", 70), ("DescriptorPool", 250), ("QueryPool", 12)):
            if (count := self.layer.alive(kind)) > most:
                self.problems.append(f"{count} objects of kind {kind}")
        return {kind: self.layer.alive(kind) for kind in kinds}

    def faults(self) -> Iterator[Fault]:
        """Those of a round: every call, with each of the results that it may have."""
        self.renew()
        self.layer.forget_counts()
        self.round("counting", faulty=False)
        made = {function: self.layer.made(function) for function in self.layer.functions()}
        for function, count in made.items():
            for number in range(1, count + 1):
                for result in RESULTS[function]:
                    if result == DEVICE_LOST and not self.loses:
                        continue
                    yield Fault(function, number, result, sticky=False)
                    if result == OUT_OF_DEVICE_MEMORY:
                        yield Fault(function, number, result, sticky=True)

    def meet(self, fault: Fault) -> None:
        """A round with the fault, and two without."""
        self.renew()
        self.layer.forget_counts()
        self.layer.arm(fault.function, fault.number, fault.result, sticky=fault.sticky)
        self.round(fault, faulty=True)
        self.layer.disarm()
        self.failed[fault.function] += self.layer.failed()
        self.round(f"after {fault}", faulty=fault.result == DEVICE_LOST)
        self.round(f"again after {fault}", faulty=False)

    def leaves_more(self, fault: Fault) -> list[dict[str, int]]:
        """By how many objects of each kind each of up to four times of the fault raised those alive.

        Arenas may grow once, where work took longer than before; what leaks does so every time.
        """
        growth: list[dict[str, int]] = []
        while len(growth) < 4 and all(growth):
            before = self.alive()
            self.meet(fault)
            after = self.alive()
            growth.append({kind: more for kind in after if (more := after[kind] - before[kind]) > 0})
        return growth if all(growth) else []

    def run(self, share: float, first: int, leaked: str) -> None:
        """The faults of the share from the `first` one; if they need new devices, MOST of them.

        `leaked`: an object of this kind, such as "Buffer", is leaked with each fault, until that is noticed.
        """
        for _ in range(4):
            self.round("at first", faulty=False)
        everything = list(self.faults())
        step = max(1, round(1 / share))
        # How often a function is called depends on what is done already: its first call is the surest.
        firsts = {fault.function: index for index, fault in reversed(list(enumerate(everything)))}
        chosen = [everything[i] for i in sorted({*range(0, len(everything), step), *firsts.values()})]
        self.round("before", faulty=False)
        self.layer.leak_objects(leaked)
        messages = len(_C.validation_messages())
        last = min(first + MOST, len(chosen)) if self.cold else len(chosen)
        for number, fault in enumerate(chosen[first:last], first + 1):
            problems = len(self.problems)
            if growth := self.leaves_more(fault):
                self.problems.append(f"after {fault}, each time more objects: {growth}")
            if new := _C.validation_messages()[messages:]:
                messages += len(new)
                self.problems.append(f"{fault}: validation: {new}")
            if leaked and self.problems:
                break
            report(f"{number} of {len(chosen)}: {fault}", *self.problems[problems:])
        self.layer.leak_objects("")
        self.outcomes["faults"] = last - first
        self.left = len(chosen) - last


def report(*lines: str) -> None:
    if progress := os.environ.get("Q8TA_TEST_PROGRESS"):
        with open(progress, "a") as file:
            file.writelines(f"{time.strftime('%H:%M:%S')} {line}\n" for line in lines)


def main(scenario: str, state: str, share: float, first: int = 0, leaked: str = "") -> None:
    sweep = Sweep(scenario, state)
    sweep.run(share, first, leaked)
    found = {"outcomes": sweep.outcomes, "failed": sweep.failed, "problems": sweep.problems[:40]}
    print(json.dumps({**found, "left": sweep.left}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), *map(int, sys.argv[4:5]))
