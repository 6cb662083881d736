"""Every kind of model that the rewrite is for, and every quantizer: what the matrix tests run through.

converted, x = convert("MLP", "X86")        # what convert_pt2e returns, and an input for it
replaced, int8 = expected("MLP", "X86")     # how many linears have to be replaced, how many with int8 results
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import Chain, OneLinear, Residual, SharedInput, SharedWeight, quantized
from torch import Tensor, nn
from torch.fx import GraphModule
from torchao.quantization.pt2e.quantizer.arm_inductor_quantizer import (
    ArmInductorQuantizer,
    get_default_arm_inductor_quantization_config,
)
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
    X86InductorQuantizer,
    get_default_x86_inductor_quantization_config,
)
from torchao.quantization.pt2e.quantizer.xpu_inductor_quantizer import (
    XPUInductorQuantizer,
    get_default_xpu_inductor_quantization_config,
)
from torchao.testing.pt2e._xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config

import q8ta_ops


class Relu6(nn.Module):
    """Three linears with relu6 and hardtanh between them. The results are large, so that those cut."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(16, 24), nn.Linear(24, 12), nn.Linear(12, 5)
        self.relu6, self.hardtanh = nn.ReLU6(), nn.Hardtanh(-1.0, 1.0)
        with torch.no_grad():
            self.fc1.weight.mul_(15)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(self.hardtanh(self.fc2(self.relu6(self.fc1(x)))))


class FeedForward(nn.Module):
    """The second half of a transformer's layer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.norm = nn.Linear(16, 32), nn.Linear(32, 16), nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.fc2(nn.functional.gelu(self.fc1(x))))


class TwoHeads(nn.Module):
    """A common layer, and two layers that use its result."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.first, self.second = nn.Linear(16, 24), nn.Linear(24, 3), nn.Linear(24, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.relu(self.body(x))
        return self.first(y), self.second(y)


class Concatenation(nn.Module):
    """Two layers whose results are joined for a third."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.fc = nn.Linear(16, 8), nn.Linear(16, 12), nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.cat([torch.relu(self.left(x)), self.right(x)], dim=-1))


def encoder_layer() -> nn.Module:
    """Attention (whose projections are functional linears on packed weights) and feed-forward."""
    return nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: OneLinear(12, 7), (5, 12)),
    "linear and relu": (lambda: OneLinear(12, 7, relu="relu"), (5, 12)),
    "no bias": (lambda: OneLinear(12, 7, bias=False), (5, 12)),
    "1-D": (lambda: OneLinear(12, 7), (12,)),
    "2-D, one row": (lambda: OneLinear(12, 7), (1, 12)),
    "3-D": (lambda: OneLinear(12, 7), (2, 3, 12)),
    "4-D": (lambda: OneLinear(12, 7), (2, 3, 4, 12)),
    "MLP": (Chain, (5, 16)),
    "MLP with relu6": (Relu6, (5, 16)),
    "feed-forward": (FeedForward, (2, 3, 16)),
    "encoder layer": (encoder_layer, (2, 3, 16)),
    "residual": (Residual, (5, 16)),
    "shared input": (SharedInput, (5, 16)),
    "tied weights": (SharedWeight, (5, 16)),
    "two heads": (TwoHeads, (5, 16)),
    "concatenation": (Concatenation, (5, 16)),
}

QUANTIZERS: dict[str, Callable[[], Any]] = {
    "Q8ta": q8ta_ops.Q8taQuantizer,
    "XNNPACK": lambda: XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True)),
    "XPU": lambda: XPUInductorQuantizer().set_global(get_default_xpu_inductor_quantization_config()),
    "ARM": lambda: ArmInductorQuantizer().set_global(get_default_arm_inductor_quantization_config()),
    "X86": lambda: X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config()),
    "X86, reduced": lambda: X86InductorQuantizer().set_global(
        get_default_x86_inductor_quantization_config(reduce_range=True)
    ),
}

OLD_TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 13)
INDUCTOR_QUANTIZERS = ("XPU", "ARM", "X86", "X86, reduced")


def skip_where_nothing_is_quantized(quantizer: str) -> None:
    if quantizer in INDUCTOR_QUANTIZERS and OLD_TORCH:
        pytest.skip("torchao 0.18's Inductor quantizers annotate no linear on torch older than 2.13")


"""They annotate no linear on torch older than 2.13 (torchao 0.18)."""

CASES = [
    (model, quantizer)
    for model in MODELS
    for quantizer in QUANTIZERS
    if quantizer != "X86, reduced" or model in ("linear and relu", "MLP", "shared input", "concatenation")
]

LINEARS = {
    "MLP": 3, "MLP with relu6": 3, "feed-forward": 2, "encoder layer": 4, "residual": 3, "shared input": 3,
    "tied weights": 2, "two heads": 3, "concatenation": 3,
}  # fmt: skip
"""How many linears a model has, if not one."""

INT8_RESULTS = {
    "MLP": 2, "MLP with relu6": 2, "encoder layer": 1, "tied weights": 1, "two heads": 1, "concatenation": 2,
}  # fmt: skip
"""How many of them have a result that only linears use, if any: through relu, relu6, dropout or cat."""


def expected(model: str, quantizer: str) -> tuple[int, int]:
    """How many linears the preconditions (design.md 4) allow to replace, and how many of these by an operator
    with an int8 result."""
    linears, int8 = LINEARS.get(model, 1), INT8_RESULTS.get(model, 0)
    if quantizer == "XNNPACK":
        # It quantizes every result, the model's included.
        return linears, linears
    if quantizer in INDUCTOR_QUANTIZERS and model == "encoder layer":
        # They leave the two projections of the attention in float: those are no nn.Linear.
        linears -= 2
    if quantizer in ("XPU", "X86") and model == "shared input":
        # They quantize both operands of the product; one of them is a linear's result.
        int8 = 1
    if quantizer == "X86, reduced":
        # 0..127, and the operators quantize to the whole range.
        int8 = 0
    return linears, int8


@functools.cache
def convert(model: str, quantizer: str) -> tuple[GraphModule, Tensor]:
    """What `convert_pt2e` returns for a model with fixed weights, and an input (of the calibration)."""
    make, sizes = MODELS[model]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        x = torch.randn(sizes)
        return quantized(make(), x, quantizer=QUANTIZERS[quantizer]()), x
