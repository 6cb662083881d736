"""Many random cases, faster than hypothesis draws them, each one compared bit for bit with the reference.

    python test/many_cases.py --cases 200000 --seed 1 --device llvmpipe --progress /tmp/cases.json
    python test/many_cases.py --cases 200000 --seed 1000001 --vk --progress /tmp/vk_cases.json

A case is its seed: `--cases 1 --seed 4711` repeats one, on the same kernel path if the other options are the
same. Several processes can share the work by ranges of seeds. With `--progress`, a run that crashed, hung or
was stopped goes on behind the case that it was at, which the file names and the summary counts. The exit
status is 0 if every case was right and the validation layers said nothing.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import faulthandler
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

PATHS = {
    "default": (),
    "no coopmat": ("coopmat",),
    "no coopmat, int_dot": ("coopmat", "int_dot"),
    "no coopmat, subgroup": ("coopmat", "subgroup"),
    "no coopmat, int_dot, subgroup": ("coopmat", "int_dot", "subgroup"),
    "host": (),
}
BLOCK = 100  # cases in a row on one path
LONGEST_BLOCK = 600  # seconds; beyond it the process ends with the stacks of its threads


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, required=True, help="how many")
    parser.add_argument("--seed", type=int, default=1, help="of the first case; the others follow")
    parser.add_argument("--device", default=os.environ.get("Q8TA_DEVICE", "llvmpipe"))
    parser.add_argument("--vk", action="store_true", help="tensors on vk, and its other operators, too")
    parser.add_argument("--products", type=int, default=2_000_000, help="most products M * K * N of a case")
    parser.add_argument("--validation", default="1", help="Q8TA_VALIDATION")
    parser.add_argument("--progress", type=Path, help="where the run notes how far it is")
    return parser.parse_args()


class Tally:
    """What has been counted, kept in a file so that a crash loses no more than the case that it was in."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.end = arguments.seed + arguments.cases
        self.counts = {
            "next seed": arguments.seed,
            "cases": 0,
            "wrong": 0,
            "errors": 0,
            "validation messages": 0,
            "crashed at": [],
            "seconds": 0.0,
            "kinds": {},
            "kernels": {},
        }
        self._file = None
        if arguments.progress is not None:
            with contextlib.suppress(FileNotFoundError):
                self.counts = json.loads(arguments.progress.read_text())
                if self.counts.pop("running", None) is not None:
                    self.counts["crashed at"].append(self.counts["next seed"])
                    self.counts["next seed"] += 1
            self._file = os.open(arguments.progress, os.O_WRONLY | os.O_CREAT, 0o644)

    def save(self, running: int | None) -> None:
        """Notes which case runs now, if one does."""
        if self._file is not None:
            noted = json.dumps(self.counts | ({} if running is None else {"running": running}))
            os.pwrite(self._file, (noted + " " * 400 + "\n").encode(), 0)

    def add(self, name: str, key: str, count: int = 1) -> None:
        self.counts[name][key] = self.counts[name].get(key, 0) + count


def main() -> int:
    arguments = _arguments()
    os.environ["Q8TA_DEVICE"] = arguments.device
    os.environ["Q8TA_VALIDATION"] = arguments.validation
    os.environ["Q8TA_TUNE_CACHE"] = "/nonexistent/tuning.txt"
    sys.path.append(str(Path(__file__).parent / "vk"))
    warnings.filterwarnings("ignore", message=".*has no kernel on the device.*")
    # After the environment is set.
    import torch

    import q8ta_ops

    place: Callable = lambda tensor: tensor  # noqa: E731
    if arguments.vk:
        from same import to_vk

        q8ta_ops.enable_vk_device()
        place = to_vk
    torch.set_num_threads(max(1, torch.get_num_threads() // 2))
    print(f"{q8ta_ops.default_device().name}, torch {torch.__version__}, {q8ta_ops.__file__}", flush=True)
    tally = Tally(arguments)
    run(tally, arguments, place)
    counts = tally.counts
    print(json.dumps(counts, indent=1))
    bad = counts["wrong"] or counts["errors"] or counts["validation messages"] or counts["crashed at"]
    return 1 if bad else 0


def run(tally: Tally, arguments: argparse.Namespace, place: Callable) -> None:
    """Runs the cases that are left, in blocks that share a kernel path."""
    from promised import keeps_subnormals

    import q8ta_ops
    from q8ta_ops import _C

    counts = tally.counts
    paths = [path for path in PATHS if not (arguments.vk and path == "host")]
    last_print = 0.0
    while counts["next seed"] < tally.end:
        block = counts["next seed"] // BLOCK
        path = paths[block % len(paths)]
        faulthandler.dump_traceback_later(LONGEST_BLOCK, exit=True, file=sys.__stderr__)
        start, messages = time.monotonic(), len(_C.validation_messages())
        device = "host" if path == "host" else arguments.device
        # One block in ten notes which kernels ran; the others run as a program's calls do.
        profiled = block // len(paths) % 10 == 0
        with q8ta_ops.use_device(device, PATHS[path]), profile_if(profiled) as kernels:
            preserving = keeps_subnormals(place)
            while counts["next seed"] < tally.end and counts["next seed"] // BLOCK == block:
                seed = counts["next seed"]
                tally.save(running=seed)
                run_case(tally, seed, arguments, place, preserving, path)
                counts["next seed"] += 1
                counts["cases"] += 1
        for kernel, count in kernels.items():
            tally.add("kernels", kernel, count)
        counts["validation messages"] += len(_C.validation_messages()) - messages
        counts["seconds"] = round(counts["seconds"] + time.monotonic() - start, 3)
        tally.save(running=None)
        if time.monotonic() - last_print > 10:
            last_print = time.monotonic()
            shown = ("cases", "wrong", "errors", "validation messages", "seconds")
            print(", ".join(f"{counts[name]} {name}" for name in shown), flush=True)
    faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def profile_if(wanted: bool) -> Iterator[dict[str, int]]:
    """Counts the kernels that run in the block, if wanted, as its end is reached."""
    import q8ta_ops

    kernels: collections.Counter[str] = collections.Counter()
    if not wanted:
        yield kernels
        return
    with q8ta_ops.profile() as profile:
        yield kernels
    kernels.update(dispatch.kernel for dispatch in profile.dispatches)


def run_case(
    tally: Tally, seed: int, arguments: argparse.Namespace, place: Callable, preserving: bool, path: str
) -> None:
    """One case: most are calls of a linear operator."""
    from choosing import SeededChooser
    from promised import check_call, check_linear
    from random_linears import linear_case
    from random_ops import pack_call, requantize_call, unpack_call

    others = {"requantize": requantize_call, "pack": pack_call, "unpack": unpack_call}
    kinds = ["linear"] * 9 + list(others)
    if arguments.vk:
        from random_elementwise import elementwise_call

        others["elementwise"] = elementwise_call
        kinds += ["elementwise"] * 8
    chooser = SeededChooser(seed)
    kind = chooser.one_of(kinds)
    try:
        if kind == "linear":
            case = linear_case(chooser, arguments.products)
            kind = case.op
            check_linear(case, place, preserving)
        else:
            # Requantize of CPU tensors is done by the host, which keeps subnormal numbers.
            check_call(others[kind](chooser), place, preserving or not arguments.vk)
    except AssertionError as error:
        tally.counts["wrong"] += 1
        print(f"seed {seed} on {path}: {error}", flush=True)
    except Exception as error:
        tally.counts["errors"] += 1
        print(f"seed {seed} on {path}: {type(error).__name__}: {error}", flush=True)
    tally.add("kinds", kind)


if __name__ == "__main__":
    sys.exit(main())
