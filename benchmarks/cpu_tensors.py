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

import torch

import q8ta_ops
from q8ta_ops import _C
from q8ta_ops.bench.samples import Sample
from q8ta_ops.bench.shapes import Shape
from q8ta_ops.bench.wall import gpu_us, median_us

SHAPES = [
    Shape(1, 512, 512),
    Shape(1, 2048, 2048),
    Shape(1, 4096, 4096),
    Shape(32, 2048, 2048),
    Shape(256, 2048, 2048),
]


class Layer(Sample):
    """A sample with the two calls that are compared."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        # The overload, which is what a rewritten graph calls, and a partial: the time of a call is the op's,
        # not that of looking up its overload and its arguments.
        op = torch.ops.q8ta.linear_gemv if shape.M == 1 else torch.ops.q8ta.linear
        self.call = functools.partial(op.default, *self.arguments())

    def call_torch(self) -> torch.Tensor:
        """The same numbers by torch._int_mm and eager torch ops."""
        accumulators = torch._int_mm(self.x, self.weights.t()) - self.input_zero_point * self.weight_sums
        y = accumulators.float() * (self.weight_scales * self.input_scale)
        y = (y + self.bias).clamp_(min=0)
        q = torch.round(y * (1.0 / self.output_scale)) + self.output_zero_point
        return q.clamp_(-128, 127).to(torch.int8)


def measure_device(layer: Layer) -> dict[str, object]:
    # Calls and empty submissions take turns, so that both see the same state of the machine.
    walls, empties = [], []
    for _ in range(20):
        walls.append(median_us(layer.call, seconds=0.05))
        empties.append(_C.empty_submit_us(500))
    wall, empty = statistics.median(walls), statistics.median(empties)
    kernels, names = gpu_us(layer.call, 100)
    return {
        "wall_us": wall,
        "wall_us_range": [min(walls), max(walls)],
        "empty_submit_us": empty,
        "gpu_us": kernels,
        "ratio": wall / (empty + kernels),
        "kernels": ", ".join(names),
    }


def measure_host(layer: Layer) -> dict[str, object]:
    with q8ta_ops.use_device("host"):
        assert torch.equal(layer.call(), layer.call_torch()), "the host kernel disagrees with torch"
        ours = median_us(layer.call, seconds=1.0)
    opponent = median_us(layer.call_torch, seconds=1.0)
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
        median_us(Layer(SHAPES[0]).call, seconds=3.0)  # a machine that was idle is slower at first
        for shape in SHAPES:
            layer = Layer(shape)
            row: dict[str, object] = shape._asdict()
            print(f"{str(shape):>14}", end="")
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
