"""`python -m q8ta_ops demo`: a real model's int8 linear layers on Vulkan, compared with the host kernel.

Trains a small MLP on scikit-learn's digits, quantizes it (PT2E), rewrites it, and runs the test set on a
Vulkan device in batches (`linear`) and one by one (`linear_gemv`), then again with the host kernel.
"""

from __future__ import annotations

import contextlib
import logging
import statistics
import textwrap
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import q8ta_ops

BATCH = 128
DEVICE_TYPES = ("discrete", "integrated", "virtual", "other", "cpu")
"""Kinds of Vulkan devices, the ones to prefer first."""


class Digits(nn.Module):
    """MLP 64-128-64-10 over 8x8 images: float32 [M, 64] to float32 [M, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(64, 128)
        self.fc2 = nn.Linear(128, 64)
        self.fc3 = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))


@dataclass
class Data:
    """Images float32 [M, 64] in 0..1 and labels int64 [M]."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def accuracy(self, logits: Tensor) -> float:
        """Share of the test set in which the largest of logits [M, 10] is the label's."""
        return (logits.argmax(dim=1) == self.test_labels).double().mean().item()


@dataclass
class Run:
    """One pass over the test set: what came out, and what the q8ta operators computed on the way.

    outputs: the program's result for each call. layers: for each call, the result of each q8ta operator.
    """

    outputs: list[Tensor]
    layers: list[list[Tensor]]
    dispatches: list[Any]


class LayerRecorder(torch.fx.Interpreter):
    """Runs a graph and keeps what its q8ta operators return."""

    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module)
        self.layers: list[Tensor] = []

    def run_node(self, n: torch.fx.Node) -> Any:
        result = super().run_node(n)
        if str(n.target).startswith("q8ta."):
            self.layers.append(result)
        return result


def load_data() -> Data:
    """scikit-learn's digits, four fifths to train and one to test, always the same split."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    split = train_test_split(
        torch.tensor(digits.data, dtype=torch.float32) / 16,
        torch.tensor(digits.target),
        test_size=0.2,
        random_state=0,
        stratify=digits.target,
    )
    return Data(train_images=split[0], test_images=split[1], train_labels=split[2], test_labels=split[3])


def train(data: Data, epochs: int = 40) -> Digits:
    """A trained model in eval mode. Seeded; the caller's random state and thread count stay as they were."""
    threads = torch.get_num_threads()
    # So small a model gains nothing from threads, and loses much where the cores are busy.
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Digits()
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(epochs):
            for rows in torch.randperm(len(data.train_images)).split(64):
                loss = nn.functional.cross_entropy(model(data.train_images[rows]), data.train_labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    torch.set_num_threads(threads)
    return model.eval().requires_grad_(False)


def quantize(model: Digits, data: Data) -> torch.fx.GraphModule:
    """PT2E with `Q8taQuantizer`, calibrated on the training images: dequantize, float linear, quantize."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    exported = torch.export.export(model, (data.train_images[:BATCH],), dynamic_shapes=dynamic_batch())
    prepared = prepare_pt2e(exported.module(), q8ta_ops.Q8taQuantizer(outputs="always"))
    for images in data.train_images.split(BATCH):
        prepared(images)
    return convert_pt2e(prepared)


def dynamic_batch() -> tuple[dict[int, torch.export.Dim]]:
    """The dynamic shapes of one input whose first size is free."""
    return ({0: torch.export.Dim("batch")},)


def run(module: torch.fx.GraphModule, batches: list[Tensor]) -> Run:
    """Runs a program over the batches on the device in use, keeping every layer's result."""
    outputs, layers = [], []
    module(batches[0])  # the first use of a kernel compiles it, which is not what the profile is to show
    with q8ta_ops.profile() as profiled:
        for images in batches:
            recorder = LayerRecorder(module)
            outputs.append(recorder.run(images))
            layers.append(recorder.layers)
    return Run(outputs, layers, profiled.dispatches)


def milliseconds(module: torch.fx.GraphModule, batches: list[Tensor], repeats: int = 3) -> float:
    """Median wall time of a pass over the batches, all of Python included."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        for images in batches:
            module(images)
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def count_equal(first: Run, second: Run) -> tuple[int, int]:
    """How many calls, and how many layer results in all of them, are equal bit for bit."""
    calls = sum(torch.equal(a, b) for a, b in zip(first.outputs, second.outputs, strict=True))
    pairs = zip(first.layers, second.layers, strict=True)
    layers = sum(torch.equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))
    return calls, layers


def choose_device() -> Any | None:
    """The Vulkan device to show: the one CPU tensors go to, else the best there is. None if there is none."""
    default = q8ta_ops.default_device()
    if default.device is not None:
        return default.device
    # Of several software devices take lavapipe, which the tests run on.
    usable = [device for device in q8ta_ops.devices() if not device.unusable_because]
    usable.sort(key=lambda device: (DEVICE_TYPES.index(device.type), "llvmpipe" not in device.name))
    return usable[0] if usable else None


def print_device(device: Any) -> None:
    """Prints which device runs the demo, and why if it is not the one that CPU tensors go to."""
    default = q8ta_ops.default_device()
    print(f"device    {device.name} ({device.type}), Vulkan {device.api_version}")
    print(f"driver    {device.driver}")
    if default.device is None:
        what = "a software device, " if device.type == "cpu" else ""
        text = (
            f"{what}chosen by the demo itself: CPU tensors go to the {default.name}, because {default.reason}"
        )
        print(textwrap.fill(text, 100, initial_indent=" " * 10, subsequent_indent=" " * 10))


def print_layers(replaced: list[Any], dispatches: list[Any]) -> bool:
    """Prints a line for each layer, and returns whether every layer ran on Vulkan."""
    on_vulkan = True
    for layer in replaced:
        shape = (layer.op, layer.in_features, layer.out_features)
        kernels = sorted({d.kernel for d in dispatches if (d.op, d.K, d.N) == shape})
        on_vulkan &= bool(kernels) and not any(kernel.startswith("host/") for kernel in kernels)
        relu = "relu" if layer.activation == "relu" else ""
        size = f"{layer.in_features} -> {layer.out_features}"
        print(f"  {layer.layer:<7}{layer.op:<13}{size:<12}{relu:<6}{', '.join(kernels) or 'did not run'}")
    return on_vulkan


@dataclass
class Comparison:
    """One program over the whole test set on Vulkan and on the host.

    exact: every result and every layer of every call is equal bit for bit. on_vulkan: no layer ran elsewhere.
    """

    logits: Tensor
    exact: bool
    on_vulkan: bool


def compare(name: str, result: Any, batches: list[Tensor], device: Any) -> Comparison:
    """Runs a rewritten program on both, prints its layers, times and equality."""
    module = result.module.module()
    with q8ta_ops.use_device(str(device.index)):
        vulkan = run(module, batches)
        vulkan_ms = milliseconds(module, batches)
    with q8ta_ops.use_device("host"):
        host = run(module, batches)
        host_ms = milliseconds(module, batches)

    print(f"{name}\n  layer  op           K -> N      relu  kernel")
    on_vulkan = print_layers(result.replaced, vulkan.dispatches)
    gpu_ms = sum(d.gpu_us or 0.0 for d in vulkan.dispatches) / 1e3
    print(f"  time   Vulkan {vulkan_ms:.1f} ms (kernels {gpu_ms:.1f} ms), host kernel {host_ms:.1f} ms")
    calls, layers = count_equal(vulkan, host)
    all_layers = len(batches) * len(result.replaced)
    exact = calls == len(batches) and layers == all_layers > 0
    print(f"  equal  {calls} of {len(batches)} results, {layers} of {all_layers} int8 layer results")
    return Comparison(torch.cat(vulkan.outputs), exact, on_vulkan)


def program_for(converted: torch.fx.GraphModule, example: Tensor, dynamic: bool) -> Any:
    """Exports the converted graph for the example's batch size, or for any, and rewrites it."""
    shapes = dynamic_batch() if dynamic else None
    return q8ta_ops.rewrite(torch.export.export(converted, (example,), dynamic_shapes=shapes))


def verdict(data: Data, float_logits: Tensor, converted_logits: Tensor, runs: list[Comparison]) -> bool:
    """Prints the accuracies and whether all agrees, and returns the latter."""
    batched, single = runs
    print(f"accuracy on {len(data.test_labels)} test images")
    print(f"  fp32 model               {data.accuracy(float_logits):.2%}")
    print(f"  converted (PT2E) graph   {data.accuracy(converted_logits):.2%}")
    print(f"  Vulkan, in batches       {data.accuracy(batched.logits):.2%}")
    print(f"  Vulkan, one by one       {data.accuracy(single.logits):.2%}")
    same_class = (batched.logits.argmax(dim=1) == converted_logits.argmax(dim=1)).sum().item()
    print(f"  same class as the converted graph (float32 sums): {same_class} of {len(converted_logits)}")

    exact = all(each.exact for each in runs)
    on_vulkan = all(each.on_vulkan for each in runs)
    same = torch.equal(batched.logits, single.logits)
    # The converted graph sums in float32 and may round one quantum the other way; a lost percent is a fault.
    close = abs(data.accuracy(batched.logits) - data.accuracy(converted_logits)) <= 0.01
    print(f"every layer ran on Vulkan: {yes(on_vulkan)}")
    print(f"batches and single rows give the same: {yes(same)}")
    print(f"bit-exact with the host kernel: {yes(exact)}")
    if not close:
        print("the Vulkan program's accuracy is not the converted graph's")
    return exact and on_vulkan and same and close


def yes(condition: bool) -> str:
    """For people."""
    return "yes" if condition else "no"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps notices of torch and torchao (deprecations, optional extensions) out of the demo's output."""
    loggers = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def main() -> int:
    """Runs the demo. Returns 0 if all agrees, 1 if anything does not or something it needs is missing."""
    with quiet():
        return show()


def show() -> int:
    """The demo itself, see `main`."""
    try:
        device = choose_device()
    except (ValueError, RuntimeError) as error:
        # Q8TA_DEVICE or Q8TA_DISABLE asks for what is not here.
        print(error)
        return 1
    if device is None:
        print("No Vulkan device: the demo cannot show anything here.")
        print(f"CPU tensors go to the host, because {q8ta_ops.default_device().reason}")
        print("A driver in software is enough: the package mesa-vulkan-drivers of Debian and Ubuntu has one.")
        return 1
    print_device(device)
    try:
        data = load_data()
        import torchao  # noqa: F401
    except ImportError as error:
        print(f"The demo needs {error.name}: pip install q8ta-ops[demo]")
        return 1

    start = time.perf_counter()
    model = train(data)
    trained = time.perf_counter()
    converted = quantize(model, data)
    batches, rows = list(data.test_images.split(BATCH)), list(data.test_images.split(1))
    programs = program_for(converted, batches[0], True), program_for(converted, rows[0], False)
    seconds = time.perf_counter()
    print(f"model     MLP 64-128-64-10 on scikit-learn's digits: {trained - start:.1f} s to train,")
    print(f"          {seconds - trained:.1f} s to quantize, export and rewrite")

    runs = [
        compare(f"in batches of {BATCH} ({len(batches)} calls)", programs[0], batches, device),
        compare(f"one by one ({len(rows)} calls)", programs[1], rows, device),
    ]
    return 0 if verdict(data, model(data.test_images), converted(data.test_images), runs) else 1
