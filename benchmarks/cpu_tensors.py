"""What a call with CPU tensors costs, beside what it cannot avoid, in one run on one machine.

On a Vulkan device: the wall time of an op call against an empty submit-and-wait plus the GPU time of its
kernels. On the host: the op against torch._int_mm followed by the same epilogue in torch. Prints a table and,
with --json, writes every figure.

    python benchmarks/cpu_tensors.py [--device NAME] [--json FILE]
"""

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable

import torch

import q8ta_ops
from q8ta_ops import _C

SHAPES = [(1, 512, 512), (1, 2048, 2048), (1, 4096, 4096), (32, 2048, 2048), (256, 2048, 2048)]
INPUT_SCALE, INPUT_ZERO_POINT, OUTPUT_SCALE, OUTPUT_ZERO_POINT = 0.02, 3, 0.5, -4


class Layer:
    """Random int8 weights [N, K] and an input [M, K]."""

    def __init__(self, M: int, K: int, N: int) -> None:
        generator = torch.Generator().manual_seed(M + K + N)
        self.x = torch.randint(-128, 128, (M, K), dtype=torch.int8, generator=generator)
        self.weights = torch.randint(-127, 128, (N, K), dtype=torch.int8, generator=generator)
        self.sums = self.weights.sum(1, dtype=torch.int32)
        self.scales = torch.rand(N, generator=generator) * 0.01 + 1e-3
        self.bias = torch.randn(N, generator=generator)
        # The overload, which is what a rewritten graph calls, and a partial: the time of a call is the op's,
        # not that of looking up its overload and its arguments.
        self.call = functools.partial(
            torch.ops.q8ta.linear_gemv.default if M == 1 else torch.ops.q8ta.linear.default,
            self.x,
            INPUT_SCALE,
            INPUT_ZERO_POINT,
            self.weights,
            self.sums,
            self.scales,
            OUTPUT_SCALE,
            OUTPUT_ZERO_POINT,
            self.bias,
            "relu",
        )

    def call_torch(self) -> torch.Tensor:
        """The same numbers by torch._int_mm and eager torch ops."""
        accumulators = torch._int_mm(self.x, self.weights.t()) - INPUT_ZERO_POINT * self.sums
        y = accumulators.float() * (self.scales * INPUT_SCALE)
        y = (y + self.bias).clamp_(min=0)
        q = torch.round(y * (1.0 / OUTPUT_SCALE)) + OUTPUT_ZERO_POINT
        return q.clamp_(-128, 127).to(torch.int8)


def median_us(run: Callable[[], object], seconds: float = 1.0) -> float:
    """Median wall time of a call in microseconds, over `seconds` or at least 20 calls."""
    for _ in range(10):
        run()
    times = []
    end = time.perf_counter() + seconds
    while len(times) < 20 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def gpu_us(run: Callable[[], object], calls: int = 100) -> tuple[float, str]:
    """Median over calls of the summed GPU time of a call's kernels, and the kernels' names."""
    sums, names = [], ""
    for _ in range(calls):
        with q8ta_ops.profile() as profile:
            run()
        sums.append(sum(dispatch.gpu_us or 0.0 for dispatch in profile.dispatches))
        names = ", ".join(dispatch.kernel for dispatch in profile.dispatches)
    return statistics.median(sums), names


def measure_device(layer: Layer) -> dict[str, object]:
    # Calls and empty submissions take turns, so that both see the same state of the machine.
    walls, empties = [], []
    for _ in range(20):
        walls.append(median_us(layer.call, seconds=0.05))
        empties.append(_C.empty_submit_us(500))
    wall, empty = statistics.median(walls), statistics.median(empties)
    kernels, names = gpu_us(layer.call)
    return {
        "wall_us": wall,
        "wall_us_range": [min(walls), max(walls)],
        "empty_submit_us": empty,
        "gpu_us": kernels,
        "ratio": wall / (empty + kernels),
        "kernels": names,
    }


def measure_host(layer: Layer) -> dict[str, object]:
    with q8ta_ops.use_device("host"):
        assert torch.equal(layer.call(), layer.call_torch()), "the host kernel disagrees with torch"
        ours = median_us(layer.call)
    opponent = median_us(layer.call_torch)
    return {"host_us": ours, "int_mm_and_epilogue_us": opponent, "ratio": ours / opponent}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", help="as in Q8TA_DEVICE; default: the automatic choice")
    parser.add_argument("--json", help="file to write all figures to")
    arguments = parser.parse_args()
    results = {"torch": torch.__version__, "threads": torch.get_num_threads(), "layers": []}
    with q8ta_ops.use_device(arguments.device) as device:
        results["device"] = device.name
        print(f"device: {device.name}; torch {torch.__version__}, {torch.get_num_threads()} threads")
        median_us(Layer(*SHAPES[0]).call, seconds=3.0)  # a machine that was idle is slower at first
        for shape in SHAPES:
            layer = Layer(*shape)
            row: dict[str, object] = {"M": shape[0], "K": shape[1], "N": shape[2]}
            print(f"{'x'.join(map(str, shape)):>14}", end="")
            if device.device is not None:
                row["device"] = on_device = measure_device(layer)
                print(
                    f"  call {on_device['wall_us']:8.1f} us = {on_device['ratio']:.2f} x (empty submit "
                    f"{on_device['empty_submit_us']:.1f} + GPU {on_device['gpu_us']:.1f})",
                    end="",
                )
            row["host"] = on_host = measure_host(layer)
            print(
                f"  host {on_host['host_us']:8.1f} us = {on_host['ratio']:.2f} x _int_mm + epilogue "
                f"{on_host['int_mm_and_epilogue_us']:.1f}"
            )
            results["layers"].append(row)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
