"""Q8taQuantizer: every linear it annotates is one that the rewrite takes, and it leaves the others alone."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

pytest.importorskip("torchao")

from models import Chain, OneLinear, Residual, exact, q8ta_targets, quantized, targets  # noqa: E402
from torchao.quantization.pt2e.quantizer import ComposableQuantizer  # noqa: E402
from torchao.quantization.pt2e.quantizer.arm_inductor_quantizer import (  # noqa: E402
    ArmInductorQuantizer,
    get_default_arm_inductor_quantization_config,
)
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (  # noqa: E402
    X86InductorQuantizer,
    get_default_x86_inductor_quantization_config,
)

import q8ta_ops  # noqa: E402

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


@pytest.mark.parametrize("quantize_output", [True, False])
def test_everything_annotated_is_rewritten(quantize_output: bool) -> None:
    quantizer = q8ta_ops.Q8taQuantizer(quantize_output=quantize_output)
    result = q8ta_ops.rewrite(quantized(Residual(), torch.randn(5, 16), quantizer=quantizer))
    assert len(result.replaced) == 3 and result.skipped == []
    expected = ["linear"] * 3 if quantize_output else ["linear_dequant"] * 3
    assert q8ta_targets(result.module) == expected


def test_all_zero_data_still_has_a_scale() -> None:
    model = OneLinear(12, 7)
    nn.init.zeros_(model.fc.weight)
    nn.init.zeros_(model.fc.bias)
    x = torch.zeros(5, 12)
    exported = torch.export.export(model.eval(), (x,)).module()
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    prepared = prepare_pt2e(exported, q8ta_ops.Q8taQuantizer())
    prepared(x)
    result = q8ta_ops.rewrite(convert_pt2e(prepared))
    assert len(result.replaced) == 1
    assert torch.equal(result.module(x), torch.zeros(5, 7))


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


@pytest.mark.parametrize("model", [ComputedWeight, DoublePrecision, TooWide])
def test_other_linears_stay_float(model: type[nn.Module]) -> None:
    converted = quantized(model(), torch.randn(5, 8))
    assert not any(LIBRARY in name for name in targets(converted))
    assert "aten.linear.default" in targets(converted)


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
def test_x86_quantizer_is_left_alone_with_the_reason() -> None:
    x86 = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())
    result = q8ta_ops.rewrite(quantized(Chain(), torch.randn(5, 16), quantizer=x86))
    assert result.replaced == []
    assert [why for _, why in result.skipped] == [
        "its input is quantized to torch.uint8, expected torch.int8"
    ] * 3


@needs_inductor_quantizers
def test_arm_quantizer_is_rewritten() -> None:
    arm = ArmInductorQuantizer().set_global(get_default_arm_inductor_quantization_config())
    x = torch.randn(5, 16)
    converted = quantized(Chain(), x, quantizer=arm)
    result = q8ta_ops.rewrite(converted)
    assert len(result.replaced) == 3 and result.skipped == []
    assert torch.equal(result.module(x), exact(converted, x))


def test_import_without_torchao() -> None:
    code = """
import sys
class Blocked:
    def find_spec(self, name, *_):
        if name.split(".")[0] == "torchao":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
import q8ta_ops
q8ta_ops.rewrite
try:
    q8ta_ops.Q8taQuantizer
except ImportError as error:
    print("said:", error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert "said:" in run.stdout and "pip install q8ta-ops[quantize]" in run.stdout
