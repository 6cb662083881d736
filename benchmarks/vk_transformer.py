"""A real transformer on the vk device: all-MiniLM-L6-v2, quantized and saved by the example.

    python benchmarks/vk_transformer.py save FOLDER   # needs what examples/sentence_embeddings.py needs
    python benchmarks/vk_transformer.py run FOLDER    # needs torch and q8ta_ops alone

`run` loads the program, computes sentences on the CPU (with the host kernel) and on vk, and compares them bit
for bit, node by node where they differ. Then it prints what a forward takes, the table of kernels, and the
operators that fell back to the CPU with the time that they took: what to bring onto the device next.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export.passes import move_to_device_pass
from torch.fx import GraphModule, Interpreter, Node
from torch.utils._pytree import tree_map_only

import q8ta_ops
from q8ta_ops.bench.wall import median_us

PROGRAM, INPUTS = "minilm.pt2", "sentences.pt"
CALIBRATION, SENTENCES = 64, 40  # the example's batches hold 32: a full one and one with padding

Batch = tuple[Tensor, Tensor]


def save(folder: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
    import sentence_embeddings as example

    encoder, tokenizer = example.load_encoder()
    sentences = list(example.docstrings())
    with q8ta_ops.use_device("host"):
        program = example.quantize_encoder(encoder, tokenizer, sentences[-CALIBRATION:])
    batches = list(example.batches(tokenizer, sentences[:SENTENCES])) + [
        next(example.batches(tokenizer, sentences[:1]))
    ]
    folder.mkdir(parents=True, exist_ok=True)
    q8ta_ops.save(program, folder / PROGRAM)
    torch.save(batches, folder / INPUTS)
    print(f"{folder / PROGRAM}: {(folder / PROGRAM).stat().st_size / 1e6:.1f} MB, {len(batches)} batches")


class Recorded(Interpreter):
    """Keeps the value of every node."""

    def __init__(self, module: GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.values: dict[str, Any] = {}

    def run_node(self, node: Node) -> Any:
        self.values[node.name] = super().run_node(node)
        return self.values[node.name]


class Compared(Interpreter):
    """Computes each node on vk from what the CPU had before it, and says which differ."""

    def __init__(self, module: GraphModule, expected: dict[str, Any]) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.expected = expected
        self.differences: list[str] = []

    def run_node(self, node: Node) -> Any:
        result, expected = super().run_node(node), self.expected.get(node.name)
        if isinstance(result, Tensor) and isinstance(expected, Tensor):
            self._compare(node, result.cpu(), expected.cpu())
        return (
            tree_map_only(Tensor, lambda tensor: tensor.to("vk"), expected)
            if expected is not None
            else result
        )

    def _compare(self, node: Node, result: Tensor, expected: Tensor) -> None:
        if result.dtype == expected.dtype and torch.equal(result, expected):
            return
        text = f"{node.name} ({node.target})"
        if result.shape == expected.shape and result.is_floating_point():
            differs = result != expected
            tiny = torch.finfo(result.dtype).tiny
            subnormal = (expected[differs].abs() < tiny) & (result[differs].abs() < tiny)
            largest = (result - expected).abs().max().item()
            text += (
                f": {int(differs.sum())} of {result.numel()} values, {int(subnormal.sum())} of them "
                f"subnormal, by up to {largest:.3g}"
            )
        self.differences.append(text)


def compare(on_cpu: GraphModule, on_vk: GraphModule, batch: Batch) -> None:
    recorded = Recorded(on_cpu)
    recorded.run(*batch)
    compared = Compared(on_vk, recorded.values)
    compared.run(*(each.to("vk") for each in batch))
    print(f"    {len(compared.differences)} of {len(recorded.values)} nodes differ from the CPU's inputs on:")
    for text in compared.differences[:20]:
        print("     ", text)


@contextmanager
def host_times(names: Counter[str]) -> Iterator[None]:
    """Adds the microseconds that operators took on the host, with all that they called."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        yield
    for event in profile.key_averages():
        names[event.key] += event.cpu_time_total


def run(folder: Path) -> None:
    q8ta_ops.enable_vk_device()
    print(f"device: {torch.vk.get_device_name()}; torch {torch.__version__}")
    batches: list[Batch] = torch.load(folder / INPUTS, weights_only=True)
    program = q8ta_ops.load(folder / PROGRAM)
    on_cpu = program.module()
    on_vk = move_to_device_pass(q8ta_ops.load(folder / PROGRAM), "vk").module()
    kinds = Counter(str(node.target) for node in program.graph.nodes if str(node.target).startswith("q8ta."))
    print(", ".join(f"{count} {kind}" for kind, count in kinds.items()))

    equal = True
    for batch in batches:
        moved = tuple(each.to("vk") for each in batch)
        with q8ta_ops.use_device("host"):
            expected = on_cpu(*batch)
        torch.vk.reset_fallbacks()
        result = on_vk(*moved)
        fallbacks = torch.vk.fallbacks()
        computed = result.cpu()
        same = torch.equal(computed, expected)
        equal &= same
        print(f"{list(batch[0].shape)} tokens: {'equal to the CPU, bit for bit' if same else 'DIFFERENT'}")
        if not same:
            print(
                f"    {int((computed != expected).sum())} of {expected.numel()} values differ, by up to "
                f"{(computed - expected).abs().max().item():.3g}; least cosine "
                f"{torch.nn.functional.cosine_similarity(computed, expected).min().item():.7f}"
            )
            with q8ta_ops.use_device("host"):
                compare(on_cpu, on_vk, batch)

        def forward(call: Callable[..., Tensor] = on_vk, moved: Batch = moved) -> Tensor:
            return call(*moved)

        wall = median_us(forward, torch.vk.synchronize, count=10, warm_up=2)
        with q8ta_ops.use_device("host"):
            cpu = median_us(lambda batch=batch: on_cpu(*batch), count=5, warm_up=1)
        print(f"    a forward: vk {wall / 1e3:.2f} ms, CPU tensors on the host kernel {cpu / 1e3:.2f} ms")
        times: Counter[str] = Counter()
        with host_times(times):
            forward()
            torch.vk.synchronize()
        print(f"    {sum(fallbacks.values())} fallbacks; microseconds on the host, copies included:")
        for name in sorted(fallbacks, key=lambda name: -times[name.removesuffix(".out").rsplit(".", 1)[0]]):
            spent = times[name.removesuffix(".out").rsplit(".", 1)[0] if "." in name else name]
            print(f"      {fallbacks[name]:4} x {name:55} {spent:10.0f}")
    with torch.vk.profile() as profile:
        on_vk(*(each.to("vk") for each in batches[0]))
    print(f"kernels of a forward of {list(batches[0][0].shape)} tokens:")
    print(profile.table())
    if not equal:
        raise SystemExit("vk and CPU differ: see above")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["save", "run"])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    with torch.no_grad():
        (save if arguments.what == "save" else run)(arguments.folder)


if __name__ == "__main__":
    main()
