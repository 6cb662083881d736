"""Chains of small layers whose tensors stay on the vk device, in one run on one machine.

First 32 layers of linear_gemv 512x512: what a call costs the host, the wall time of the chain, called and
replayed as a graph, and the GPU time of its kernels. Then an MLP of 8 int8 layers 1024 wide, batches 1 and
256. Against them the same layers in float16 on CUDA, eager and as a CUDA graph, where there is CUDA. Results
are compared with the host kernel before anything is timed.

    python benchmarks/vk_device.py [--json FILE]
"""

import argparse
import json
import time
from collections.abc import Callable

import torch

import q8ta_ops
from q8ta_ops.bench.wall import gpu_us, median_us, queue_us

SCALE, ZERO_POINT = 0.05, 3


class Int8Layer:
    """A square int8 layer with random weights on a device."""

    def __init__(self, width: int, seed: int, device: str) -> None:
        generator = torch.Generator().manual_seed(seed)
        weights = torch.randint(-127, 128, (width, width), dtype=torch.int8, generator=generator)
        self.parameters = [
            each.to(device)
            for each in (
                weights,
                weights.sum(1, dtype=torch.int32),
                torch.full((width,), 1.0 / (64 * width**0.5)),
                torch.randn(width, generator=generator),
            )
        ]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        weights, sums, scales, bias = self.parameters
        op = torch.ops.q8ta.linear_gemv.default if x.shape[0] == 1 else torch.ops.q8ta.linear.default
        return op(x, SCALE, ZERO_POINT, weights, sums, scales, SCALE, ZERO_POINT, bias, "relu")


def chain(layers: list[Callable[[torch.Tensor], torch.Tensor]], x: torch.Tensor) -> torch.Tensor:
    for layer in layers:
        x = layer(x)
    return x


def measure_int8(width: int, depth: int, batch: int) -> dict[str, float]:
    x = torch.randint(-128, 128, (batch, width), dtype=torch.int8, generator=torch.Generator().manual_seed(1))
    with q8ta_ops.use_device("host"):
        expected = chain([Int8Layer(width, seed, "cpu") for seed in range(depth)], x)
    layers = [Int8Layer(width, seed, "vk") for seed in range(depth)]
    on_device = x.to("vk")
    assert torch.equal(chain(layers, on_device).cpu(), expected), (
        "the vk device disagrees with the host kernel"
    )
    torch.vk.reset_fallbacks()
    run = lambda: chain(layers, on_device)  # noqa: E731
    wall = median_us(run, torch.vk.synchronize, count=200, warm_up=20)
    queued = queue_us(run, torch.vk.synchronize, count=200, warm_up=20)
    kernels_us, kernels = gpu_us(run, 20)
    graph = torch.vk.Graph()
    with torch.vk.graph(graph):
        result = run()
    replay = median_us(graph.replay, torch.vk.synchronize, count=200, warm_up=20)
    assert torch.equal(result.cpu(), expected), "the replayed graph disagrees with the host kernel"
    assert not torch.vk.fallbacks()
    return {
        "wall_us": wall,
        "replay_us": replay,
        "queue_us_per_op": queued / depth,
        "gpu_us": kernels_us,
        "kernels": len(kernels),
    }


def measure_float16(width: int, depth: int, batch: int) -> dict[str, float]:
    modules = []
    for _ in range(depth):
        modules += [torch.nn.Linear(width, width), torch.nn.ReLU()]
    model = torch.nn.Sequential(*modules).half().cuda().eval()
    x = torch.randn(batch, width, dtype=torch.float16, device="cuda")
    with torch.no_grad():
        eager = median_us(lambda: model(x), torch.cuda.synchronize, count=200, warm_up=20)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            model(x)
        replayed = median_us(graph.replay, torch.cuda.synchronize, count=200, warm_up=20)
    return {"cuda_float16_eager_us": eager, "cuda_float16_graph_us": replayed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", help="file to write all figures to")
    arguments = parser.parse_args()
    q8ta_ops.enable_vk_device()
    results: dict[str, object] = {
        "torch": torch.__version__,
        "device": torch.vk.get_device_name(),
        "rows": [],
    }
    print(f"device: {results['device']}; torch {results['torch']}")
    end = time.perf_counter() + 3.0
    while time.perf_counter() < end:  # a machine that was idle is slower at first
        measure_int8(512, 32, 1)
    for width, depth, batch in ((512, 32, 1), (1024, 8, 1), (1024, 8, 256)):
        row: dict[str, object] = {"width": width, "depth": depth, "batch": batch}
        row |= measure_int8(width, depth, batch)
        line = (
            f"{depth} layers of {width}, batch {batch}: wall {row['wall_us']:.1f} us, replayed "
            f"{row['replay_us']:.1f} us, queueing an op {row['queue_us_per_op']:.2f} us, "
            f"{row['kernels']} kernels {row['gpu_us']:.1f} us on the GPU"
        )
        if torch.cuda.is_available():
            row |= measure_float16(width, depth, batch)
            line += (
                f"; float16 on CUDA: eager {row['cuda_float16_eager_us']:.1f} us, "
                f"graph {row['cuda_float16_graph_us']:.1f} us"
            )
        print(line, flush=True)
        results["rows"].append(row)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
