"""Chains of small int8 layers whose tensors stay on the vk device, in one run on one machine.

First 32 layers of linear_gemv 512x512, then an MLP of 8 layers 1024 wide at batches 1 and 256. Of each chain:

- wall time until its result is there: called, replayed as a graph, and compiled (aot_eager, Inductor);
- what queueing an op costs the host, and the GPU time of the kernels, one by one and in all;
- operators that fell back to the CPU and kernels that pack or unpack between layers: none of either.

Against them, where there is CUDA, each eager and as a CUDA graph: the same layers in float16, and the best
int8 that torch offers there (for one row products and sums compiled by Inductor, for more torch._int_mm and a
compiled requantization), compiled as a whole and layer by layer. Results are compared before they are timed.

Each round of each runs on the CPU that is the fastest just then: on a host that others share, the same loop
took 1.8 times as long on the one CPU as on the next, and which one it was changed within milliseconds.

    python benchmarks/vk_device.py [--json FILE] [--profile FILE] [--quick]
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._inductor.exc import InductorError

import q8ta_ops
from q8ta_ops.bench.wall import median_us, on_quiet_cpu, queue_us

SCALE, ZERO_POINT = 0.05, 3

# What a chain of small layers may take: microseconds an op and once for the wait; replayed, times its kernels
OP_US, WAIT_US = 6.0, 60.0
REPLAY_RATIO = 1.3

Run = Callable[[], object]
Figures = dict[str, float]


@dataclass(frozen=True)
class Settings:
    count: int = (
        40  # in each of so many rounds, through which the host's and others' ups and downs are spread
    )
    rounds: int = 9
    warm_up: int = 5
    profiled: int = 20
    # A GPU that was idle, while something was compiled for instance, runs at lower clocks at first
    busy_seconds: float = 1.5


QUICK = Settings(count=5, rounds=1, warm_up=1, profiled=2, busy_seconds=0.0)


class Int8Layer(nn.Module):
    """A square int8 layer with relu and random weights."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        weights = torch.randint(-127, 128, (width, width), dtype=torch.int8, generator=generator)
        self.register_buffer("weights", weights)
        self.register_buffer("sums", weights.sum(1, dtype=torch.int32))
        self.register_buffer("scales", torch.full((width,), 1.0 / (64 * width**0.5)))
        self.register_buffer("bias", torch.randn(width, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        op = torch.ops.q8ta.linear_gemv.default if x.shape[0] == 1 else torch.ops.q8ta.linear.default
        return op(
            x,
            SCALE,
            ZERO_POINT,
            self.weights,
            self.sums,
            self.scales,
            SCALE,
            ZERO_POINT,
            self.bias,
            "relu",
        )


def torch_int8_layer(x: Tensor, weights: Tensor, offset: Tensor, multiplier: Tensor, bias: Tensor) -> Tensor:
    """The same of torch's own operators, for Inductor to compile."""
    if x.shape[0] == 1:
        sums = (x.to(torch.int32) * weights.to(torch.int32)).sum(1, dtype=torch.int32)[None]
    else:
        sums = torch._int_mm(x, weights.t())
    y = torch.relu((sums - offset).float() * multiplier + bias)
    return (torch.round(y * (1.0 / SCALE)) + ZERO_POINT).clamp(-128, 127).to(torch.int8)


class TorchInt8Layer(nn.Module):
    """A layer's constants, with what does not depend on x computed beforehand, as a user could do."""

    def __init__(self, layer: Int8Layer) -> None:
        super().__init__()
        self.register_buffer("weights", layer.weights.clone())
        self.register_buffer("offset", ZERO_POINT * layer.sums)
        self.register_buffer("multiplier", layer.scales * SCALE)
        self.register_buffer("bias", layer.bias.clone())

    def constants(self) -> tuple[Tensor, ...]:
        return self.weights, self.offset, self.multiplier, self.bias

    def forward(self, x: Tensor) -> Tensor:
        return torch_int8_layer(x, *self.constants())


class FloatLayer(nn.Module):
    """The same layer in floating point."""

    def __init__(self, layer: Int8Layer) -> None:
        super().__init__()
        width = len(layer.bias)
        self.linear = nn.Linear(width, width)
        with torch.no_grad():
            self.linear.weight.copy_(layer.weights * layer.scales[:, None])
            self.linear.bias.copy_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.linear(x))


@dataclass(frozen=True)
class Chain:
    """`depth` layers `width` wide, and what goes in."""

    width: int
    depth: int
    batch: int

    def layers(self) -> list[Int8Layer]:
        return [Int8Layer(self.width, seed) for seed in range(self.depth)]

    def input(self) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return torch.randint(-128, 128, (self.batch, self.width), dtype=torch.int8, generator=generator)

    def __str__(self) -> str:
        return f"{self.depth} layers {self.width} x {self.width}, batch {self.batch}"


@torch.no_grad()
def keep_busy(seconds: float) -> None:
    layer, x = Int8Layer(512, 0).to("vk"), Chain(512, 1, 1).input().to("vk")
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for _ in range(32):
            layer(x)
        torch.vk.synchronize()


def times_in_rounds(runs: dict[str, Run], settings: Settings) -> Figures:
    """Median wall time of each run, and until it is queued; the lowest and highest of the rounds of each."""
    rounds: dict[str, list[float]] = {}
    for _ in range(settings.rounds):
        for name, run in runs.items():
            for suffix, measure in (("_us", median_us), ("_queue_us", queue_us)):
                with on_quiet_cpu():
                    taken = measure(run, torch.vk.synchronize, count=settings.count, warm_up=settings.warm_up)
                rounds.setdefault(name + suffix, []).append(taken)
    figures: Figures = {}
    for name, times in rounds.items():
        figures |= {name: statistics.median(times), f"{name}_low": min(times), f"{name}_high": max(times)}
    return figures


def kernel_times(run: Run, settings: Settings) -> tuple[Figures, str]:
    """GPU time of the kernels, measured one by one, and the table of the last run."""
    sums: list[float] = []
    for _ in range(settings.profiled):
        run()
        with torch.vk.profile() as profile:
            run()
        sums.append(sum(dispatch.gpu_us or 0.0 for dispatch in profile.dispatches))
    names = [dispatch.kernel for dispatch in profile.dispatches]
    return {
        "gpu_us": statistics.median(sums),
        "kernels": len(names),
        "packs": sum("pack" in name for name in names),  # "unpack", too
    }, profile.table()


@torch.no_grad()
def measure_vk(chain: Chain, settings: Settings) -> tuple[Figures, str]:
    model = nn.Sequential(*chain.layers())
    with q8ta_ops.use_device("host"):
        expected = model(chain.input())
    model, x = model.to("vk"), chain.input().to("vk")
    assert torch.equal(model(x).cpu(), expected), "the vk device disagrees with the host kernel"
    layers = list(model)

    def call() -> Tensor:  # the operators alone, as the bars have it: nn.Module adds what it does anywhere
        y = x
        for layer in layers:
            y = layer.forward(y)
        return y

    graph = torch.vk.Graph()
    with torch.vk.graph(graph):
        result = call()
    graph.replay()
    assert torch.equal(result.cpu(), expected), "the replayed graph disagrees with the host kernel"
    runs: dict[str, Run] = {"call": call, "module": lambda: model(x), "replay": graph.replay}
    torch._dynamo.reset()
    for backend in ("aot_eager", "inductor"):
        compiled = torch.compile(model, fullgraph=True, backend=backend)
        assert torch.equal(compiled(x).cpu(), expected), f"compiled by {backend} it computes something else"
        runs[backend] = functools.partial(compiled, x)

    keep_busy(settings.busy_seconds)
    torch.vk.reset_fallbacks()
    figures = times_in_rounds(runs, settings)
    times, table = kernel_times(call, settings)
    figures |= times
    figures["fallbacks"] = sum(torch.vk.fallbacks().values())
    return figures, table


def cuda_us(name: str, run: Run, settings: Settings) -> Figures:
    """Wall time of the call, and of a CUDA graph of it: medians of rounds, as on vk."""
    run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    figures = {}
    for kind, each in (("eager", run), ("graph", graph.replay)):
        rounds = []
        for _ in range(settings.rounds):
            with on_quiet_cpu():
                rounds.append(
                    median_us(each, torch.cuda.synchronize, count=settings.count, warm_up=settings.warm_up)
                )
        figures[f"cuda_{name}_{kind}_us"] = statistics.median(rounds)
    return figures


def check_torch_int8(result: Tensor, chain: Chain) -> None:
    """Inductor may fuse a product and a sum, so that a value differs by 1; anything else is wrong."""
    with q8ta_ops.use_device("host"):
        expected = Int8Layer(chain.width, 0)(chain.input())
    difference = (result.cpu().int() - expected.int()).abs()
    assert difference.max() <= 1 and (difference != 0).float().mean() < 0.01, "torch's int8 layer is wrong"


@torch.no_grad()
def measure_cuda(chain: Chain, settings: Settings) -> Figures:
    float_model = nn.Sequential(*(FloatLayer(layer) for layer in chain.layers())).half().cuda().eval()
    float_x = ((chain.input().float() - ZERO_POINT) * SCALE).half().cuda()
    figures = cuda_us("float16", lambda: float_model(float_x), settings)

    x = chain.input().cuda()
    layers = [TorchInt8Layer(layer).cuda() for layer in chain.layers()]

    def whole() -> Run:
        model = torch.compile(nn.Sequential(*layers), fullgraph=True, dynamic=False)
        model(x)
        return lambda: model(x)

    def by_layer() -> Run:
        one = torch.compile(torch_int8_layer, fullgraph=True, dynamic=False)
        constants = [layer.constants() for layer in layers]
        check_torch_int8(one(x, *constants[0]), chain)

        def run() -> Tensor:
            y = x
            for each in constants:
                y = one(y, *each)
            return y

        return run

    for name, compiled in (("int8_whole", whole), ("int8_by_layer", by_layer)):
        torch._dynamo.reset()
        try:
            figures |= cuda_us(name, compiled(), settings)
        except InductorError as error:  # 2.11 writes Python that does not parse
            print(f"CUDA, {name}: absent: {str(error).splitlines()[0]}")
    return figures


def report(chain: Chain, figures: Figures) -> None:
    def spread(name: str) -> str:
        low, high = figures[f"{name}_low"], figures[f"{name}_high"]
        return f"{figures[name]:8.1f} us [{low:.1f} .. {high:.1f}]"

    has_bars = chain.width == 512
    print(f"{chain}: medians of rounds, and the lowest and highest round")
    titles = {
        "call": "vk, called",
        "module": "as nn.Module",
        "aot_eager": "aot_eager",
        "inductor": "inductor",
        "replay": "replayed",
    }
    for name, title in titles.items():
        line = f"  {title:13} {spread(f'{name}_us')}"
        if has_bars and name != "replay":
            line += f" (bar {OP_US * chain.depth + WAIT_US:.0f})"
        line += f"; queueing {spread(f'{name}_queue_us')}"
        if name == "replay":
            line += f"; {figures['replay_us'] / figures['gpu_us']:.2f} x the kernels"
            line += f" (bar {REPLAY_RATIO})" * has_bars
        else:
            line += f", {figures[f'{name}_queue_us'] / chain.depth:.2f} an op"
            line += f" (bar {OP_US:.0f})" * has_bars
        print(line)
    counted = "{kernels} kernels, {gpu_us:.1f} us on the GPU; {packs} pack or unpack; {fallbacks} fallbacks"
    print("  " + counted.format(**figures))


def report_cuda(chain: Chain, figures: Figures) -> None:
    print(f"{chain} on CUDA")
    for name, title in (
        ("float16", "float16"),
        ("int8_whole", "int8, compiled as a whole"),
        ("int8_by_layer", "int8, compiled by layer"),
    ):
        eager, graph = figures.get(f"cuda_{name}_eager_us"), figures.get(f"cuda_{name}_graph_us")
        if eager is not None and graph is not None:
            print(f"  {title}: eager {eager:.1f} us, graph {graph:.1f} us", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", help="file to write all figures to")
    parser.add_argument("--profile", help="file to write the tables of kernels to")
    parser.add_argument("--quick", action="store_true", help="few repetitions: whether it runs, not how fast")
    arguments = parser.parse_args()
    settings = QUICK if arguments.quick else Settings()
    q8ta_ops.enable_vk_device()
    device = torch.vk.get_device_name()
    print(f"device: {device}; torch {torch.__version__}")
    chains = (Chain(512, 32, 1), Chain(1024, 8, 1), Chain(1024, 8, 256))
    rows, tables = [], []
    for chain in chains:
        figures, table = measure_vk(chain, settings)
        report(chain, figures)
        print(table, flush=True)
        rows.append({"width": chain.width, "depth": chain.depth, "batch": chain.batch, **figures})
        tables.append(f"{chain}\n{table}\n")
        assert figures["fallbacks"] == 0 and figures["packs"] == 0, "something left the device, or was packed"
        gc.collect()
    if torch.cuda.is_available():  # last: whatever becomes of it, the figures of vk are printed
        for chain, row in zip(chains, rows, strict=True):
            row |= measure_cuda(chain, settings)
            report_cuda(chain, row)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"torch": torch.__version__, "device": device, "rows": rows}, file, indent=1)
    if arguments.profile:
        with open(arguments.profile, "w", encoding="utf-8") as file:
            file.write("\n".join(tables))


if __name__ == "__main__":
    main()
