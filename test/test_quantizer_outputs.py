"""Which results Q8taQuantizer quantizes, with which range, and that int8 goes from linear to linear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

pytest.importorskip("torchao")

from models import OneLinear, Residual, exact, q8ta_targets, quantized, same, targets  # noqa: E402

import q8ta_ops  # noqa: E402
from q8ta_ops.quantizer import Q8taConfig, Q8taQuantizer  # noqa: E402
from q8ta_ops.quantizer.observers import reach_ends  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")

LIBRARY = "quantized_decomposed"


@pytest.fixture(autouse=True)
def fixed_weights() -> None:
    torch.manual_seed(7)


def quantizes(module: GraphModule) -> list[Node]:
    return [node for node in module.graph.nodes if f"{LIBRARY}.quantize_per_tensor" in str(node.target)]


def parameters(node: Node) -> tuple[Any, ...]:
    """Scale, zero point and range of a quantize node."""
    return node.args[1:]


@pytest.mark.parametrize(
    ("outputs", "ops"),
    [("auto", ["linear_dequant"] * 3), ("always", ["linear"] * 3), ("never", ["linear_dequant"] * 3)],
)
def test_everything_annotated_is_rewritten(outputs: str, ops: list[str]) -> None:
    result = q8ta_ops.rewrite(
        quantized(Residual(), torch.randn(5, 16), quantizer=Q8taQuantizer(outputs=outputs))
    )
    assert q8ta_targets(result.module) == ops and result.skipped == []


class Model(nn.Module):
    """A few linears `a`, `b`, ... with 16 inputs (or as many as given), and what a test does with them."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], **sizes: int) -> None:
        super().__init__()
        self.run = forward
        for name in "abcd":
            setattr(self, name, nn.Linear(sizes.get(name, 16), 16))

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def shared_by_two(m: Any, x: Tensor) -> Any:
    y = m.a(x)
    return m.b(torch.relu(y)), m.c(y)


def also_float(m: Any, x: Tensor) -> Any:
    y = torch.relu(m.a(x))
    return m.b(y), y + 1


def two_heads(m: Any, x: Tensor) -> Any:
    first = torch.relu(m.a(x))
    return m.c(torch.cat([first, m.b(x)], dim=-1)), m.d(first)


def query_key_value(m: Any, x: Tensor) -> Any:
    y = m.a(x)
    return torch.softmax(m.b(y), -1) * m.c(y) + m.d(y)


def split(m: Any, x: Tensor) -> Any:
    first, second = m.a(x).chunk(2, dim=-1)
    return m.b(first) + m.c(second)


# For each model: the operators in graph order under "auto" (d: linear_dequant, l: linear), and how many
# different quantizations the activations have, the model's input included.
AUTO = {
    "direct": (lambda m, x: m.b(m.a(x)), {}, "ld", 2),
    "relu": (lambda m, x: m.b(torch.relu(m.a(x))), {}, "ld", 2),
    "relu6": (lambda m, x: m.b(nn.functional.relu6(m.a(x))), {}, "ld", 2),
    "hardtanh": (lambda m, x: m.b(nn.functional.hardtanh(m.a(x), -0.3, 0.3)), {}, "ld", 2),
    "hardtanh in place": (lambda m, x: m.b(nn.functional.hardtanh(m.a(x), -0.3, 0.3, True)), {}, "ld", 2),
    "clamps": (lambda m, x: m.b(m.a(x).clamp(-0.5, 0.3).clamp(min=-0.4)), {}, "ld", 2),
    "dropout": (lambda m, x: m.b(nn.functional.dropout(torch.relu(m.a(x)), training=False)), {}, "ld", 2),
    "shape": (lambda m, x: m.b(m.a(x).view(-1, 2, 8).transpose(1, 2).flatten(1)), {}, "ld", 2),
    "relu behind a view": (lambda m, x: m.b(torch.relu(m.a(x).view(-1, 2, 8)).flatten(1)), {}, "ld", 2),
    "two consumers": (shared_by_two, {}, "ldd", 2),
    "softmax": (lambda m, x: m.b(torch.softmax(m.a(x), -1)), {}, "dd", 2),
    "gelu": (lambda m, x: m.b(nn.functional.gelu(m.a(x))), {}, "dd", 2),
    "norm": (lambda m, x: m.b(nn.functional.layer_norm(m.a(x), (16,))), {}, "dd", 2),
    "residual": (lambda m, x: m.b(m.a(x) + x), {}, "dd", 2),
    "also float": (also_float, {}, "dd", 2),
    "two heads": (two_heads, {"c": 32}, "lldd", 2),
    "query, key, value": (query_key_value, {}, "lddd", 2),
    "split": (split, {"b": 8, "c": 8}, "ldd", 2),
}


@pytest.mark.parametrize("observer", ["histogram", "minmax"])
@pytest.mark.parametrize("name", AUTO)
def test_auto(name: str, observer: str) -> None:
    forward, sizes, ops, quantizations = AUTO[name]
    x = torch.randn(5, 16) * 2
    quantizer = Q8taQuantizer(observer=observer)
    converted = quantized(Model(forward, **sizes), x, dynamic=True, quantizer=quantizer)
    found = {parameters(node) for node in quantizes(converted)}
    assert len(found) == quantizations and quantizer.skipped == []
    result = q8ta_ops.rewrite(converted)
    names = {"l": "linear", "d": "linear_dequant"}
    assert q8ta_targets(result.module) == [names[letter] for letter in ops]
    # int8 all the way between linears, and no clamp is left that the quantization does itself.
    if "l" in ops and name != "two consumers":
        left = targets(result.module)
        assert [each for each in left if "quantize_per" in each] == [f"{LIBRARY}.quantize_per_tensor.default"]
        assert not any(word in each for each in left for word in ("relu", "tanh", "clamp"))
    assert same(result.module(x), exact(converted, x))


def test_never_gives_every_input_a_scale_of_its_own() -> None:
    forward, sizes, _, _ = AUTO["two heads"]
    model = Model(forward, **sizes)
    converted = quantized(model, torch.randn(5, 16), quantizer=Q8taQuantizer(outputs="never"))
    # The model's input, the concatenation, and d's input, which is a part of it.
    assert len({parameters(node) for node in quantizes(converted)}) == 3
    assert "aten.linear.default" not in [str(node.args[0].target) for node in quantizes(converted)]


def test_outputs_per_module() -> None:
    quantizer = Q8taQuantizer(outputs="never").set_module_name("fc3", Q8taConfig(outputs="always"))
    result = q8ta_ops.rewrite(quantized(Residual(), torch.randn(5, 16), quantizer=quantizer))
    assert q8ta_targets(result.module) == ["linear_dequant", "linear_dequant", "linear"]


class Written(nn.Module):
    """A result is changed in place, through itself or a view of it, before the next linear reads it."""

    def __init__(self, write: Callable[[Tensor], Any], read_view: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 4)
        self.write, self.read_view = write, read_view

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        view = y.view(-1, 16)
        self.write(y)
        return self.second(view if self.read_view else y)


def zero_some(y: Tensor) -> None:
    y[:, :12] = 0


@pytest.mark.parametrize("outputs", ["auto", "always"])
@pytest.mark.parametrize(
    ("write", "read_view", "ops"),
    [
        (zero_some, False, 1),
        (zero_some, True, 1),
        (lambda y: y.add_(3), False, 2),  # what add_ returns is what the second linear reads
        (lambda y: y.add_(3), True, 1),
        (lambda y: y.t().narrow(0, 0, 8).relu_(), False, 1),
        (lambda y: y * 2, True, 2),
    ],
)
def test_writes_in_place(outputs: str, write: Callable[[Tensor], Any], read_view: bool, ops: int) -> None:
    model, x = Written(write, read_view), torch.randn(5, 16)
    quantizer = Q8taQuantizer(outputs=outputs, observer="minmax")
    result = q8ta_ops.rewrite(quantized(model, x, quantizer=quantizer))
    assert len(result.replaced) == ops
    assert (result.module(x) - model(x)).abs().max() < 0.06
    reasons = [why for _, why in quantizer.skipped]
    assert reasons == [] if ops == 2 else "is changed in place after it was computed" in reasons[0]


LIMITS = [(-1.0, 1.0), (-2.0, 2.0), (-0.3, 0.3), (0.0, 6.0), (-1.0, 3.0), (-3.0172, 3.0172), (-4.0, 0.0)]


@pytest.mark.parametrize("observer", ["histogram", "minmax"])
@pytest.mark.parametrize("limits", LIMITS)
def test_a_clamp_can_go(limits: tuple[float, float], observer: str) -> None:
    """Calibrated with data that reach both limits, quantizing clamps exactly as the clamp does."""
    model = OneLinear(1, 1, bias=False)
    nn.init.ones_(model.fc.weight)
    model.activation = nn.Hardtanh(*limits)
    converted = quantized(
        model,
        torch.linspace(-40, 40, 999)[:, None],
        quantizer=Q8taQuantizer(observer=observer, outputs="always"),
    )
    _, scale, zero_point, *_ = quantizes(converted)[-1].args
    values = torch.cat([torch.linspace(2 * limits[0] - 1, 2 * limits[1] + 1, 4001), torch.tensor(limits)])

    def quantize(y: Tensor) -> Tensor:
        return torch.clamp(torch.round(y * (1.0 / scale)) + zero_point, -128, 127)

    assert torch.equal(quantize(values), quantize(values.clamp(*limits)))
    assert quantize(torch.tensor(limits)).tolist() == [-128, 127]
    # Seven bits would do that, too.
    assert scale > (limits[1] - limits[0]) / 256


def test_reach_ends() -> None:
    """The scale and zero point of min-max for random ranges that fill their limits."""
    random = torch.Generator().manual_seed(0)
    changed = 0
    for index in range(600):
        low, high = (torch.rand(2, generator=random) * 5).tolist()
        low, high = -low, low if index % 2 else high
        scale = torch.tensor([(torch.tensor(high) - torch.tensor(low)) / 255])
        zero_point = (-128 - torch.round(torch.tensor(low) / scale)).to(torch.int64)
        reached = reach_ends(scale, zero_point, low, high)
        inverse = torch.tensor(1.0 / reached.item(), dtype=torch.float32)
        ends = torch.round(torch.tensor([low, high]) * inverse) + zero_point
        assert ends[0] <= -128 and ends[1] >= 127
        assert 0.997 * scale < reached <= scale
        changed += bool(reached != scale)
    assert changed > 50  # symmetric ranges need it


def test_a_shared_range_is_not_bent_to_the_limits_of_one() -> None:
    scale, zero_point = torch.tensor([0.05]), torch.tensor([-128])
    assert reach_ends(scale, zero_point, 0.0, 6.0) is scale
