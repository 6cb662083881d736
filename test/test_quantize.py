"""q8ta_ops.quantize: a float model in, an exact program of q8ta operators out, and the model as it was."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

pytest.importorskip("torchao")

from models import (  # noqa: E402
    DYNAMIC_BATCH,
    Chain,
    OneLinear,
    Residual,
    SharedInput,
    SharedWeight,
    exact,
    q8ta_targets,
    same,
    targets,
)
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e  # noqa: E402

import q8ta_ops  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")

QUANTIZE = "quantized_decomposed.quantize_per_tensor.default"
DEQUANTIZE = "quantized_decomposed.dequantize_per_tensor.default"


def data(*sizes: int, seed: int = 0) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def fixed_weights() -> None:
    torch.manual_seed(7)


class FeedForward(nn.Module):
    """A transformer's feed-forward layer, before its normalization."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 40), nn.Linear(40, 16)
        self.activation, self.dropout = nn.GELU(), nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.down(self.dropout(self.activation(self.up(self.norm(x))))))


class TwoHeads(nn.Module):
    """Two linears, concatenated into a third."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.out = nn.Linear(16, 8), nn.Linear(16, 8), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.cat([nn.functional.relu6(self.left(x)), self.right(x)], dim=-1))


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(16, 24), nn.ReLU6(), nn.Dropout(), nn.Linear(24, 12), nn.Hardtanh(), nn.Linear(12, 5)
    )


def encoder_layer() -> nn.Module:
    return nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)


def attention_data() -> Tensor:
    return data(6, 5, 16)


INT8 = ["quantize", "linear", "linear", "linear_dequant"]
# For each model: what the graph consists of, by the last word of each operator; shape operators left out.
MODELS = {
    "mlp": (mlp, INT8),
    "residual": (Residual, ["quantize", "linear_dequant", "quantize", "linear_dequant", "add", "add"]
                 + ["quantize", "linear_dequant"]),
    "feed-forward": (FeedForward, ["layer_norm", "quantize", "linear_dequant", "gelu", "quantize"]
                     + ["linear_dequant", "add"]),
    "two heads": (TwoHeads, ["quantize", "linear", "linear", "cat", "linear_dequant"]),
    "shared input": (SharedInput, ["quantize", *["linear_dequant"] * 3, "sigmoid", "mul"]),
    "shared weight": (SharedWeight, ["quantize", "linear", "linear_dequant"]),
    "encoder layer": (encoder_layer, ["quantize", "linear_dequant", "scaled_dot_product_attention"]
                      + ["quantize", "linear_dequant", "add", "layer_norm"]
                      + ["quantize", "linear", "linear_dequant", "add", "layer_norm"]),
}  # fmt: skip
SHAPE_WORDS = (
    "sym_size view reshape transpose permute unflatten unsqueeze squeeze contiguous select dropout".split()
)


def computing(program: ExportedProgram) -> list[str]:
    """What each operator of a graph computes, in one word."""
    names = [name for name in targets(program) if not name.startswith("<built-in")]  # symbolic sizes
    words = [name.split(".")[1].removesuffix("_per_tensor") for name in names]
    return [word for word in words if word not in SHAPE_WORDS]


@pytest.mark.parametrize("name", MODELS)
def test_models(name: str) -> None:
    make, expected = MODELS[name]
    model = make()
    x = attention_data() if name == "encoder layer" else data(6, 16)
    batches = [x, x * 1.5, x[:3] - 0.5]
    program = q8ta_ops.quantize(model, (x,), batches, DYNAMIC_BATCH)
    # Which of two independent linears comes first is not ours to say.
    assert sorted(computing(program)) == sorted(expected)
    assert "aten.linear.default" not in targets(program)

    exported = torch.export.export(model.eval(), (x,), dynamic_shapes=DYNAMIC_BATCH)
    prepared = prepare_pt2e(exported.module(), q8ta_ops.Q8taQuantizer())
    for batch in batches:
        prepared(batch)
    converted = convert_pt2e(prepared)
    for rows in (6, 1, 9):
        x = data(rows, *x.shape[1:], seed=rows)
        assert same(program.module()(x), exact(converted, x))


def test_always_gives_int8_results() -> None:
    x = data(6, 16)
    program = q8ta_ops.quantize(Chain(), (x,), [x], outputs="always")
    assert targets(program) == [QUANTIZE, *["q8ta.linear.default"] * 3, DEQUANTIZE]


def test_exact_numbers() -> None:
    """Where every scale is 1, int8 loses nothing: the program gives what the float model gives."""
    model = OneLinear(16, 8)
    with torch.no_grad():
        model.fc.weight.copy_(torch.randint(-127, 128, (8, 16)))
        model.fc.weight[:, 3] = 127
    x = torch.randint(-128, 128, (20, 16)).float()
    x[0, 0], x[1, 1] = -128, 127
    program = q8ta_ops.quantize(model, (x,), [x], observer="minmax")
    assert q8ta_targets(program) == ["linear_dequant"]
    assert torch.equal(program.module()(x), model(x))


@pytest.mark.parametrize("per_channel", [True, False])
def test_error_bound(per_channel: bool) -> None:
    """Half a step for each input, weight and output is all that quantizing may cost."""
    model, x = OneLinear(16, 8), data(50, 16)
    program = q8ta_ops.quantize(
        model, (x,), [x], observer="minmax", outputs="always", per_channel=per_channel
    )
    (node,) = [node for node in program.graph.nodes if str(node.target) == "q8ta.linear.default"]
    x_step, y_step = node.args[1] / 2, node.args[6] / 2
    weight = model.fc.weight.detach()
    largest = weight.abs().amax(1) if per_channel else weight.abs().max().expand(8)
    w_step = largest / 127 / 2
    bound = weight.abs().sum(1) * x_step + x.abs().sum(1)[:, None] * w_step + 16 * x_step * w_step + y_step
    assert ((program.module()(x) - model(x)).abs() <= bound * 1.0001).all()


def test_every_batch_counts_and_is_read_once() -> None:
    read = []

    def batches() -> Iterator[Any]:
        for low, high in ((-1.0, 0.5), (0.0, 2.0), (-3.0, 0.0)):
            read.append(low)
            yield (torch.linspace(low, high, 32).reshape(2, 16),)

    x = data(2, 16)
    program = q8ta_ops.quantize(OneLinear(16, 8), x, batches(), observer="minmax")
    (node,) = [node for node in program.graph.nodes if str(node.target) == QUANTIZE]
    assert read == [-1.0, 0.0, -3.0]
    assert node.args[1] == (torch.tensor(2.0 - -3.0) / 255).item() and node.args[2] == -128 + 153


class Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 8)

    def forward(self, x: Tensor, scale: Tensor, *, shift: Tensor | None = None) -> Tensor:
        y = self.fc(x) * scale
        return y if shift is None else y + shift


def test_keyword_arguments() -> None:
    x, one, zero = data(4, 16), torch.ones(()), torch.zeros(())
    shapes = {"x": {0: torch.export.Dim("batch")}, "scale": None, "shift": None}
    example = {"x": x, "scale": one, "shift": zero}
    model = Keywords()
    program = q8ta_ops.quantize(model, example, [example], shapes)
    assert q8ta_targets(program) == ["linear_dequant"]
    by_position = q8ta_ops.quantize(model, (x, one), [(x, one), [x, one]])
    x = data(4, 16, seed=2)
    assert torch.equal(program.module()(x=x, scale=one, shift=zero), by_position.module()(x, one))
    assert program.module()(x=data(9, 16), scale=one, shift=zero).shape == (9, 8)


def test_one_tensor_for_two_arguments() -> None:
    """torch.export takes them for one input, whatever the calls afterwards pass."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(16, 16)

        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return self.fc(x) * scale

    x, ones = data(4, 16), torch.ones(4, 16)
    model = Scaled()
    by_position = q8ta_ops.quantize(model, (x, x), [(x, ones)]).module()
    by_name = q8ta_ops.quantize(model, {"x": x, "scale": x}, [{"x": x, "scale": ones}]).module()
    plain = by_position(x, ones)
    assert (plain - model(x, ones)).abs().max() < 0.05
    assert torch.equal(by_position(x, ones * 2), plain * 2)
    assert torch.equal(by_name(x=x, scale=ones * 2), plain * 2)


class Stateful(nn.Module):
    """Has every kind of state: weights, a normalization, dropout, and a counter of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.dropout = nn.Linear(16, 12), nn.BatchNorm1d(12), nn.Dropout(0.5)
        self.second = nn.Linear(12, 4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return self.second(self.dropout(self.norm(self.first(x)))) + self.calls


def test_the_model_stays_as_it_is() -> None:
    model, x = Stateful(), data(6, 16)
    model.norm.running_mean.add_(0.3)
    model.train()
    model.second.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    state = {name: (id(each), each.clone()) for name, each in model.state_dict(keep_vars=True).items()}
    program = q8ta_ops.quantize(model, (x,), [x, x])
    assert {name: module.training for name, module in model.named_modules()} == modes
    after = model.state_dict(keep_vars=True)
    assert list(after) == list(state)
    for name, (identity, values) in state.items():
        assert id(after[name]) == identity and torch.equal(after[name], values), name
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert torch.is_grad_enabled()

    # The program counts from where the model was. No dropout, and the normalization's own mean.
    module = program.module()
    first, second = module(x), module(x)
    torch.testing.assert_close(second - first, torch.ones(6, 4))
    model.calls.zero_()
    assert (first - model.eval()(x)).abs().max() < 0.1


def test_the_modes_come_back_after_an_error() -> None:
    model = Chain().train()
    with pytest.raises(ValueError):
        q8ta_ops.quantize(model, (data(4, 16),), [])
    assert all(module.training for module in model.modules())


NAN = float("nan")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"calibration": []}, "calibration: expected at least one batch, got an empty iterable"),
        ({"calibration": iter(())}, "calibration: expected at least one batch, got an empty iterable"),
        ({"calibration": data(4, 16)}, "calibration: expected an iterable of batches, got one Tensor"),
        ({"calibration": {"x": data(4, 16)}}, "calibration: expected an iterable of batches, got one dict"),
        ({"calibration": [data(4, 16), 7]}, "calibration: batch 1: expected a tuple .*, got int"),
        ({"calibration": [data(4, 16), data(5, 16)]}, "calibration: batch 1 does not run: .*size"),
        ({"calibration": [(data(4, 16), 1)]}, "calibration: batch 0 does not run: .*argument"),
        ({"calibration": [data(4, 16) * NAN]}, "calibration: .*nan"),
        ({"calibration": [data(4, 16) * NAN], "observer": "minmax"}, "calibration: NaN, .* of x"),
        ({"calibration": [data(4, 16) / 0], "observer": "minmax"}, "calibration: NaN, .* of x"),
        ({"example_inputs": 3}, "example_inputs: expected a tuple of arguments, .*, got int"),
        ({"observer": "mse"}, "observer: expected one of 'histogram', 'minmax', got 'mse'"),
        ({"outputs": "int8"}, "outputs: expected one of 'auto', 'always', 'never', got 'int8'"),
        ({"per_channel": None}, "per_channel: expected True or False, got None"),
        ({"float_modules": ["fc4"]}, r"float_modules: the model has no module 'fc4'; did you mean 'fc\d'\?"),
        ({"float_modules": [3]}, "float_modules: the model has no module 3"),
        ({"float_modules": [nn.Conv2d]}, "float_modules: the model has no module of type Conv2d"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    x = data(4, 16)
    with pytest.raises(ValueError, match=message):
        q8ta_ops.quantize(Chain(), **({"example_inputs": (x,), "calibration": [x]} | arguments))


@pytest.mark.parametrize("observer", ["histogram", "minmax"])
def test_all_zero_data(observer: str) -> None:
    zeros = torch.zeros(4, 16)
    model = mlp()
    for name, parameter in model.named_parameters():
        nn.init.zeros_(parameter) if "bias" in name else None
    program = q8ta_ops.quantize(model, (zeros,), [zeros], observer=observer)
    assert computing(program) == INT8
    assert torch.equal(program.module()(zeros), torch.zeros(4, 5))
    assert torch.isfinite(program.module()(data(4, 16))).all()


@pytest.mark.parametrize("progress", [True, False, None])
def test_progress(capsys: pytest.CaptureFixture, progress: bool | None) -> None:
    pytest.importorskip("tqdm")
    x = data(4, 16)
    q8ta_ops.quantize(OneLinear(16, 8), (x,), [x] * 3, progress=progress)
    shown = capsys.readouterr().err
    assert ("3/3" in shown) == (progress is True)


def test_progress_without_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    x = data(4, 16)
    assert q8ta_ops.quantize(OneLinear(16, 8), (x,), [x]) is not None
    with pytest.raises(ImportError, match=r"tqdm.*pip install q8ta-ops\[quantize\]"):
        q8ta_ops.quantize(OneLinear(16, 8), (x,), [x], progress=True)


def test_the_name_is_the_function() -> None:
    """Importing a submodule sets its name in the package: none may be called as the function is."""
    from q8ta_ops import quantization, quantizer

    assert q8ta_ops.quantize is quantization.quantize and callable(q8ta_ops.quantize)
    assert q8ta_ops.Q8taQuantizer is quantizer.Q8taQuantizer
