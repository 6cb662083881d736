"""Many threads call operators of mixed shapes for minutes: results right, memory flat, throughput steady.

Each thread draws jobs at random: layers that all threads share, layers with new weights, weights edited in
place, pack and unpack, requantize; with --vk also layers on the vk device, graphs that are captured, replayed
and thrown away, and tensors that another thread frees. Every result is compared with a reference that was
computed before. Prints a line for each minute (shorter runs: for each sixth), and exits with 1 if

- a result was wrong, an operator raised an error, or a thread did not end,
- packed weights or vk tensors are left behind when the threads have ended,
- resident memory grew by more than --most-growth MiB from the first line to the last. It was seen to grow by
  less than 3, in the arenas of malloc that 16 threads share and in the driver; losing 48 bytes in each call
  makes 16 of 350,000 calls, which take a minute or two,
- the last line's calls are fewer than --least-ratio times the first one's. That needs a machine with nothing
  else to do. Single lines vary with it, so the end also gives the medians of the first and last third and the
  slope of the whole run. The CPU time of a call and what other processes took tell whether the machine or the
  package has become slower.

    python benchmarks/load.py [--minutes 10] [--threads 16] [--device NAME] [--vk]
"""

from __future__ import annotations

import argparse
import gc
import os
import queue
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from steadiness import Reading, Slice, Trend
from torch import Tensor

import q8ta_ops

sys.path.insert(0, str(Path(__file__).parent.parent / "test"))

from samples import LinearSample, make_sample

MIB = 1 << 20
# (M, K, N): one row, few rows, GEMMs; odd sizes among them.
SHAPES = [(1, 256, 64), (1, 37, 13), (2, 64, 33), (5, 129, 40), (8, 96, 96), (33, 65, 31), (64, 128, 72)]


class Layer:
    """A call of one operator and the reference's answer."""

    def __init__(self, shape: tuple[int, int, int], op: str, seed: int) -> None:
        M, K, N = shape
        self.op = op
        self.rows = M
        self.sample = make_sample((M,), K, N, seed=seed, activation="relu" if seed % 2 else "none")
        self.expected = self.sample.expected(op)

    def check(self, sample: LinearSample | None = None) -> None:
        result = (sample or self.sample).call(self.op)
        require(result.cpu(), self.expected, self.op)


def require(result: Tensor, expected: Tensor, what: str) -> None:
    if not torch.equal(result, expected):
        raise AssertionError(f"{what} {list(expected.shape)}: a wrong result")


def make_layers() -> list[Layer]:
    layers = []
    for i, shape in enumerate(SHAPES):
        ops = ("linear", "linear_dequant", *(["linear_gemv"] if shape[0] == 1 else []))
        layers += [Layer(shape, op, seed=10 * i + j) for j, op in enumerate(ops)]
    return layers


def pack_all(layers: list[Layer]) -> None:
    """The host kernel packs weights that 32 rows have met."""
    for layer in layers:
        for _ in range(32 // layer.rows + 1):
            layer.check()


Job = Callable[[], None]


class Worker:
    """The jobs of one thread on CPU tensors."""

    def __init__(self, layers: list[Layer], seed: int) -> None:
        self.layers = layers
        self.random = random.Random(seed)
        self.edited = Layer((4, 50, 24), "linear", seed=1000 + 2 * seed)
        other = self.edited.sample.with_weights(self.edited.sample.weights.flip(0).contiguous())
        self.versions = [(self.edited.sample.weights.clone(), self.edited.expected)]
        self.versions.append((other.weights, other.expected("linear")))
        self.x = torch.randint(-128, 128, (3, 7, 41), dtype=torch.int8)

    def jobs(self) -> list[Job]:
        return [self.shared_layer, self.new_weights, self.edited_weights, self.packing, self.requantizing]

    def layer(self) -> Layer:
        return self.random.choice(self.layers)

    def shared_layer(self) -> None:
        self.layer().check()

    def new_weights(self) -> None:
        layer = self.layer()
        layer.check(layer.sample.replaced(weights=layer.sample.weights.clone()))

    def edited_weights(self) -> None:
        sample = self.edited.sample
        weights, expected = self.random.choice(self.versions)
        sample.weights.copy_(weights)
        sample.weight_sums.copy_(weights.sum(1, dtype=torch.int32))
        require(sample.call("linear"), expected, "linear with edited weights")

    def packing(self) -> None:
        layout = self.random.choice((4, 5))
        packed = torch.ops.q8ta.pack(self.x, layout)
        require(torch.ops.q8ta.unpack(packed, layout, list(self.x.shape)), self.x, "pack and unpack")

    def requantizing(self) -> None:
        require(torch.ops.q8ta.requantize(self.x, 0.5, 3, 0.5, 3), self.x, "requantize")


class VkWorker(Worker):
    """And those on vk tensors."""

    def __init__(
        self, layers: list[Layer], seed: int, handed_over: queue.Queue[tuple[Tensor, Tensor]]
    ) -> None:
        super().__init__(layers, seed)
        self.handed_over = handed_over
        self.resident = [(layer, layer.sample.mapped(lambda tensor: tensor.to("vk"))) for layer in layers]
        self.replays = 0

    def jobs(self) -> list[Job]:
        on_vk = [self.resident_layer, self.moved_layer, self.elementwise, self.from_another_thread]
        return [*super().jobs(), *on_vk, self.replay]

    def resident_layer(self) -> None:
        layer, sample = self.random.choice(self.resident)
        layer.check(sample)

    def moved_layer(self) -> None:
        layer = self.layer()
        layer.check(layer.sample.mapped(lambda tensor: tensor.to("vk")))

    def elementwise(self) -> None:
        count = self.random.randint(1, 500)
        x = torch.arange(count, dtype=torch.float32)
        on_vk = x.to("vk")
        require(torch.cat([on_vk + 1, on_vk.clamp(max=3)]).cpu(), torch.cat([x + 1, x.clamp(max=3)]), "cat")

    def from_another_thread(self) -> None:
        layer, sample = self.random.choice(self.resident)
        self.handed_over.put((sample.call(layer.op), layer.expected))
        result, expected = self.handed_over.get()
        require(result.cpu(), expected, "a tensor of another thread")

    def replay(self) -> None:
        """A graph for a few replays with other inputs."""
        layer, sample = self.random.choice(self.resident)
        x = torch.zeros_like(sample.x)
        graph = torch.vk.Graph()
        with torch.vk.graph(graph):
            y = sample.replaced(x=x).call(layer.op)
        for _ in range(3):
            x.copy_(layer.sample.x)
            graph.replay()
            require(y.cpu(), layer.expected, "a replayed graph")
            x.zero_()


class Load:
    """The threads and what they have done."""

    def __init__(self, workers: list[Worker]) -> None:
        self.workers = workers
        self.calls = [0] * len(workers)
        self.errors: list[BaseException] = []
        self.stop = threading.Event()
        self.begun = threading.Barrier(len(workers) + 1)
        self.threads = [
            threading.Thread(target=self._run, args=(i,), daemon=True) for i in range(len(workers))
        ]

    def _run(self, index: int) -> None:
        worker = self.workers[index]
        jobs = worker.jobs()
        try:
            for job in jobs:
                job()
            self.begun.wait()
            while not self.stop.is_set():
                worker.random.choice(jobs)()
                self.calls[index] += 1
        except BaseException as error:
            self.errors.append(error)
            self.stop.set()
            self.begun.abort()

    def start(self) -> None:
        for thread in self.threads:
            thread.start()
        try:
            self.begun.wait()
        except threading.BrokenBarrierError:
            pass  # an error, which is reported

    def finish(self) -> bool:
        """False if a thread hangs."""
        self.stop.set()
        end = time.monotonic() + 120
        for thread in self.threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self.threads)


def resident_bytes() -> int:
    """Of this process; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    return 1024 * int(next(line for line in status.read_text().splitlines() if "VmRSS" in line).split()[1])


def device_bytes(vk: bool) -> tuple[int, int]:
    """What packed weights and vk tensors take, and what is reserved for vk tensors."""
    weights = q8ta_ops.weight_cache_size()
    if not vk:
        return weights, 0
    torch.vk.synchronize()
    return weights + torch.vk.memory_allocated(), torch.vk.memory_reserved()


# A line is printed for this many slices, from which the trends come.
SLICES_A_LINE = 6


def watch(load: Load, seconds: float, lines: int, vk: bool) -> tuple[list[Slice], list[tuple[int, int]]]:
    """Prints a line for each part of the time. Returns the slices, and each part's calls and memory."""
    print("  seconds      calls  a minute  CPU us each  others %  resident MiB  in use MiB  reserved MiB")
    first = last = line_begin = Reading.now(0)
    slices, parts = [], []
    count = lines * SLICES_A_LINE
    for i in range(1, count + 1):
        load.stop.wait(max(0.0, first.wall + seconds * i / count - time.monotonic()))
        now = Reading.now(sum(load.calls))
        slices.append(Slice.between(last, now))
        last = now
        if i % SLICES_A_LINE == 0 or load.errors:
            line, line_begin = Slice.between(line_begin, now), now
            resident, (in_use, reserved) = resident_bytes(), device_bytes(vk)
            memory = f"{resident / MIB:12.1f}  {in_use / MIB:10.2f}  {reserved / MIB:12.2f}"
            speed = f"{line.rate:8.0f}  {line.cpu_us:11.1f}  {line.others_percent:8.1f}"
            print(f"{now.wall - first.wall:9.1f}  {now.calls:9}  {speed}  {memory}", flush=True)
            parts.append((line.calls, resident))
        if load.errors:
            break
    return slices, parts


def main(options: argparse.Namespace) -> int:
    torch.set_num_threads(1)  # the threads are ours
    seconds = options.seconds or 60 * options.minutes
    if options.vk:
        q8ta_ops.enable_vk_device()
    layers = make_layers()
    pack_all(layers)
    at_first = device_bytes(options.vk)[0]
    handed_over: queue.Queue[tuple[Tensor, Tensor]] = queue.Queue()
    workers: list[Worker] = [
        VkWorker(layers, i, handed_over) if options.vk else Worker(layers, i) for i in range(options.threads)
    ]
    load = Load(workers)
    load.start()
    print(
        f"{options.threads} threads on {q8ta_ops.default_device().name}" + (" and vk" if options.vk else "")
    )
    lines = max(round(seconds / 60), 6) if seconds < 360 else round(seconds / 60)
    slices, parts = watch(load, seconds, lines, options.vk)
    problems = [f"{type(error).__name__}: {error}" for error in load.errors]
    if not load.finish():
        print("a thread does not end", flush=True)
        os._exit(1)
    load.workers.clear()
    workers.clear()
    gc.collect()
    left = device_bytes(options.vk)[0] - at_first
    ratio = parts[-1][0] / max(parts[0][0], 1)
    growth = (parts[-1][1] - parts[0][1]) / MIB
    print(f"last part / first part: {ratio:.3f}; resident memory grew by {growth:.1f} MiB")
    if not load.errors:
        rates, others = [part.rate for part in slices], [part.others_percent for part in slices]
        print("calls a minute:", Trend.of(rates))
        print("CPU us a call: ", Trend.of([part.cpu_us for part in slices]))
        print(f"other processes had {min(others):.0f} to {max(others):.0f} % of the machine's CPU time")
        if min(others) < max(others):
            print(f"its correlation with calls a minute: {statistics.correlation(others, rates):.2f}")
    if left > 0 and not load.errors:
        problems.append(f"{left} bytes of packed weights or vk tensors were left behind")
    if growth > options.most_growth:
        problems.append(f"resident memory grew by more than {options.most_growth} MiB")
    if ratio < options.least_ratio:
        problems.append(f"throughput fell below {options.least_ratio} of the beginning's")
    for problem in problems:
        print("FAILED:", problem)
    return 1 if problems else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seconds", type=float, help="instead of --minutes")
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--device", help="where CPU tensors go: an index, a part of a name, or host")
    parser.add_argument("--vk", action="store_true", help="vk tensors, too")
    parser.add_argument("--most-growth", type=float, default=16, metavar="MIB")
    parser.add_argument("--least-ratio", type=float, default=0.95)
    return parser.parse_args()


if __name__ == "__main__":
    parsed = arguments()
    if parsed.device is not None:
        os.environ["Q8TA_DEVICE"] = parsed.device
    sys.exit(main(parsed))
