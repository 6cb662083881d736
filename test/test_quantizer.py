"""Q8taQuantizer: every linear it annotates is one that the rewrite takes, and it leaves the others alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

pytest.importorskip("torchao")

from models import (  # noqa: E402
    Chain,
    OneLinear,
    Residual,
    exact,
    quantized,
    targets,
)
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e  # noqa: E402
from torchao.quantization.pt2e.quantizer import ComposableQuantizer  # noqa: E402
from torchao.quantization.pt2e.quantizer.arm_inductor_quantizer import (  # noqa: E402
    ArmInductorQuantizer,
    get_default_arm_inductor_quantization_config,
)
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY  # noqa: E402
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (  # noqa: E402
    X86InductorQuantizer,
    get_default_x86_inductor_quantization_config,
)

import q8ta_ops  # noqa: E402
from q8ta_ops.quantizer import ASKED_FOR_FLOAT, Q8taConfig, Q8taQuantizer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")

LIBRARY = "quantized_decomposed"


@pytest.fixture(autouse=True)
def fixed_weights() -> None:
    torch.manual_seed(7)


def calls(module: GraphModule, name: str) -> list[Node]:
    return [node for node in module.graph.nodes if str(node.target) == f"{LIBRARY}.{name}.default"]


def without_input(node: Node) -> tuple[Any, ...]:
    return node.args[1:]


@pytest.mark.parametrize("relu", ["none", "relu", "relu_"])
@pytest.mark.parametrize("bias", [True, False])
def test_the_configuration(bias: bool, relu: str) -> None:
    converted = quantized(OneLinear(12, 7, bias, relu), torch.randn(5, 12))
    inputs, outputs = calls(converted, "quantize_per_tensor")
    for quantize in (inputs, outputs):
        scale, zero_point, *rest = without_input(quantize)
        assert scale > 0 and -128 <= zero_point <= 127
        assert rest == [-128, 127, torch.int8]
    # The result is quantized after the relu: its range then begins at 0.
    assert str(outputs.args[0].target) == (
        "aten.linear.default" if relu == "none" else f"aten.{relu}.default"
    )
    assert (outputs.args[2] == -128) == (relu != "none")

    (weight,) = calls(converted, "dequantize_per_channel")
    values, scales, zero_points = (getattr(converted, node.target) for node in weight.args[:3])
    assert weight.args[3:] == (0, -127, 127, torch.int8)
    assert values.dtype == torch.int8 and values.shape == (7, 12)
    assert values.min() >= -127 and values.abs().amax(dim=1).tolist() == [127] * 7
    assert scales.shape == (7,) and scales.dtype == torch.float32 and (scales > 0).all()
    assert (zero_points == 0).all()


@pytest.mark.parametrize("model", [Chain, Residual])
def test_one_quantize_between_linears(model: type[nn.Module]) -> None:
    converted = quantized(model(), torch.randn(5, 16))
    quantizes = calls(converted, "quantize_per_tensor")
    dequantizes = calls(converted, "dequantize_per_tensor")
    # Nothing is quantized twice: every dequantize has the parameters of the quantize that it reads.
    assert all(not str(node.args[0].target).startswith(f"{LIBRARY}.dequantize") for node in quantizes)
    for dequantize in dequantizes:
        assert without_input(dequantize) == without_input(dequantize.args[0])


def test_minmax_takes_the_whole_range() -> None:
    x = torch.linspace(-1.0, 4.0, 60).reshape(5, 12)
    model = OneLinear(12, 7)
    exported = torch.export.export(model, (x,)).module()
    prepared = prepare_pt2e(exported, Q8taQuantizer(observer="minmax"))
    for batch in (x, x * 2, x - 3):
        prepared(batch)
    (quantize,) = calls(convert_pt2e(prepared), "quantize_per_tensor")
    assert quantize.args[1] == (torch.tensor(8.0 - -4.0) / 255).item()
    assert quantize.args[2] == -128 + 85


def test_histogram_cuts_outliers_off() -> None:
    x = torch.randn(200, 12, generator=torch.Generator().manual_seed(1))
    x[0, 0] = 40.0
    scales = []
    for observer in ("minmax", "histogram"):
        converted = quantized(OneLinear(12, 7), x, quantizer=Q8taQuantizer(observer=observer))
        scales.append(calls(converted, "quantize_per_tensor")[0].args[1])
    assert scales[1] < scales[0]


def test_weights_per_tensor() -> None:
    model = OneLinear(12, 7)
    largest = model.fc.weight.abs().max().item()
    converted = quantized(model, torch.randn(5, 12), quantizer=Q8taQuantizer(per_channel=False))
    (weight,) = [node for node in calls(converted, "dequantize_per_tensor") if node.args[0].op == "get_attr"]
    assert weight.args[2:] == (0, -127, 127, torch.int8)
    assert weight.args[1] == pytest.approx(largest / 127, rel=1e-6)
    values = getattr(converted, weight.args[0].target)
    assert values.dtype == torch.int8 and values.abs().max() == 127
    result = q8ta_ops.rewrite(converted)
    assert len(result.replaced) == 1 and result.skipped == []


@pytest.mark.parametrize("observer", ["histogram", "minmax"])
@pytest.mark.parametrize("activation", [nn.Identity(), nn.ReLU(), nn.ReLU6(), nn.Hardtanh()])
@pytest.mark.parametrize("outputs", ["auto", "always"])
def test_all_zero_data_still_has_a_scale(observer: str, activation: nn.Module, outputs: str) -> None:
    model = nn.Sequential(nn.Linear(12, 7), activation, nn.Linear(7, 3, bias=False)).eval()
    nn.init.zeros_(model[0].weight)
    nn.init.zeros_(model[0].bias)
    x = torch.zeros(5, 12)
    exported = torch.export.export(model, (x,)).module()
    prepared = prepare_pt2e(exported, Q8taQuantizer(outputs=outputs, observer=observer))
    prepared(x)
    result = q8ta_ops.rewrite(convert_pt2e(prepared))
    assert len(result.replaced) == 2
    assert torch.equal(result.module(x), torch.zeros(5, 3))


class Functional(nn.Module):
    """Linears as functions, of a parameter, a buffer, and a tensor that is neither."""

    def __init__(self) -> None:
        super().__init__()
        self.parameter = nn.Parameter(torch.randn(16, 12))
        self.register_buffer("buffer", torch.randn(8, 16))
        self.plain = torch.randn(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(nn.functional.linear(x, self.parameter))
        x = nn.functional.linear(x, self.buffer, self.buffer[:, 0])
        return nn.functional.linear(x, self.plain)


@pytest.mark.parametrize("sizes", [(12,), (3, 12), (2, 3, 12), (2, 1, 3, 12)])
def test_functional_linears_and_ranks(sizes: tuple[int, ...]) -> None:
    x = torch.randn(sizes)
    quantizer = Q8taQuantizer()
    converted = quantized(Functional(), x, quantizer=quantizer)
    result = q8ta_ops.rewrite(converted)
    assert quantizer.skipped == [] and result.skipped == [] and len(result.replaced) == 3
    assert torch.equal(result.module(x), exact(converted, x))


class ComputedWeight(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, x.abs())


class DoublePrecision(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.double())


class TooWide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(65794, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean(dim=1, keepdim=True).expand(-1, 65794))


class WideBias(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight, x)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (ComputedWeight, "its weight is not a parameter or buffer: it comes from aten.abs.default"),
        (DoublePrecision, "its weight is torch.float64, expected torch.float32"),
        (TooWide, "it has 65794 input features, the bound of exact int32 sums is 65793"),
        (WideBias, "its bias is not float32 [8]"),
    ],
)
def test_other_linears_stay_float(model: type[nn.Module], reason: str) -> None:
    quantizer = Q8taQuantizer()
    converted = quantized(model(), torch.randn(5, 8), quantizer=quantizer)
    assert not any(LIBRARY in name for name in targets(converted))
    assert "aten.linear.default" in targets(converted)
    assert [why for _, why in quantizer.skipped] == [reason]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)
        self.extra = nn.Parameter(torch.randn(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(self.down(torch.tanh(self.up(x))), self.extra)


class Nested(nn.Module):
    """Two blocks and a head, which is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.blocks, self.head = Block(), nn.ModuleList([Block()]), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.head(self.blocks[0](torch.tanh(self.first(x))))))


PER_TENSOR = Q8taConfig(per_channel=False)


@pytest.mark.parametrize(
    ("configure", "expected"),
    [
        (lambda q: q, "ccc ccc cc"),
        (lambda q: q.set_global(None), "--- --- --"),
        (lambda q: q.set_global(PER_TENSOR), "ttt ttt tt"),
        (lambda q: q.set_module_name("first", None), "--- ccc cc"),
        (lambda q: q.set_module_name("blocks.0.up", PER_TENSOR), "ccc tcc cc"),
        (lambda q: q.set_module_name("head", None), "ccc ccc --"),
        (lambda q: q.set_module_name("hea", None), "ccc ccc cc"),
        (lambda q: q.set_module_type(nn.Linear, None), "--c --c --"),
        (lambda q: q.set_module_type(Block, PER_TENSOR), "ttt ttt cc"),
        # The innermost of its kind counts, names beat types, both beat the global one.
        (lambda q: q.set_module_type(Block, None).set_module_type(nn.Linear, PER_TENSOR), "tt- tt- tt"),
        (lambda q: q.set_module_name("first", None).set_module_name("first.up", PER_TENSOR), "t-- ccc cc"),
        (lambda q: q.set_module_name("first", PER_TENSOR).set_module_type(nn.Linear, None), "ttt --c --"),
        (lambda q: q.set_global(None).set_module_type(Block, PER_TENSOR), "ttt ttt --"),
    ],
)
@pytest.mark.parametrize("strict", [False, True])
def test_configuration_of_modules(configure: Callable[[Any], Any], expected: str, strict: bool) -> None:
    """For each linear: c weights per channel, t per tensor, - left in float."""
    exported = torch.export.export(Nested().eval(), (torch.randn(2, 8),), strict=strict).module()
    quantizer = configure(Q8taQuantizer())
    assert isinstance(quantizer, Q8taQuantizer)
    quantizer.annotate(exported)
    found = ""
    for node in exported.graph.nodes:
        if str(node.target) == "aten.linear.default":
            annotation = node.meta.get(Q_ANNOTATION_KEY)
            spec = annotation.input_qspec_map[node.args[1]] if annotation else None
            found += "-" if spec is None else "t" if spec.qscheme == torch.per_tensor_symmetric else "c"
    assert found == expected.replace(" ", "")
    assert [why for _, why in quantizer.skipped] == [ASKED_FOR_FLOAT] * found.count("-")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Q8taQuantizer(outputs="int8"),
            r"outputs: expected one of 'auto', 'always', 'never', got 'int8'",
        ),
        (lambda: Q8taQuantizer(outputs=True), r"outputs: expected one of .*, got True"),
        (
            lambda: Q8taQuantizer(observer="mse"),
            r"observer: expected one of 'histogram', 'minmax', got 'mse'",
        ),
        (lambda: Q8taConfig(per_channel=1), r"per_channel: expected True or False, got 1"),
        (
            lambda: Q8taQuantizer().set_global("minmax"),
            r"config: expected a Q8taConfig or None, got 'minmax'",
        ),
        (
            lambda: Q8taQuantizer().set_module_type("Linear", None),
            r"module_type: expected a class, got 'Linear'",
        ),
        (lambda: Q8taQuantizer().set_module_name(nn.Linear, None), r"module_name: expected a string"),
    ],
)
def test_wrong_arguments(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


needs_inductor_quantizers = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13),
    reason="torchao 0.18's Inductor quantizers annotate nothing on torch 2.11",
)


@needs_inductor_quantizers
def test_what_another_quantizer_annotated_stays() -> None:
    x86 = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())
    both = ComposableQuantizer([x86, q8ta_ops.Q8taQuantizer()])
    converted = quantized(OneLinear(12, 7), torch.randn(5, 12), quantizer=both)
    assert {node.args[5] for node in calls(converted, "quantize_per_tensor")} == {torch.uint8}


@needs_inductor_quantizers
def test_arm_quantizer_is_rewritten() -> None:
    arm = ArmInductorQuantizer().set_global(get_default_arm_inductor_quantization_config())
    x = torch.randn(5, 16)
    converted = quantized(Chain(), x, quantizer=arm)
    result = q8ta_ops.rewrite(converted)
    assert len(result.replaced) == 3 and result.skipped == []
    assert torch.equal(result.module(x), exact(converted, x))


@pytest.mark.parametrize("name", ["Q8taConfig", "Q8taQuantizer", "quantize"])
def test_import_without_torchao(name: str) -> None:
    code = f"""
import sys
class Blocked:
    def find_spec(self, name, *_):
        if name.split(".")[0] == "torchao":
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
import q8ta_ops
q8ta_ops.rewrite
try:
    q8ta_ops.{name}
except ImportError as error:
    print("said:", error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert f"said: {name} needs torchao: pip install q8ta-ops[quantize]" in run.stdout
