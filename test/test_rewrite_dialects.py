"""q8ta_ops.rewrite on other ways to write a quantization: overloads for tensors, torchao's operators."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

pytest.importorskip("torchao")

import torchao.quantization.quant_primitives  # noqa: E402, F401
from models import OneLinear, exact, int8_tensor, q8ta_targets, quantized, targets  # noqa: E402
from torchao.quantization.granularity import PerAxis, PerTensor  # noqa: E402
from torchao.quantization.pt2e import MappingType  # noqa: E402
from torchao.quantization.pt2e._affine_quantization import AffineQuantizedMinMaxObserver  # noqa: E402
from torchao.quantization.pt2e.quantizer import (  # noqa: E402
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
)
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY  # noqa: E402

import q8ta_ops  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")

WEIGHTS = int8_tensor(6, 8)
X = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))


def constant(value: Any, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(value, dtype=dtype)


class TensorNumbers(nn.Module):
    """The pattern with an overload that takes its numbers as tensors: "tensor" or "tensor2"."""

    def __init__(self, overload: str = "tensor", **numbers: Tensor) -> None:
        super().__init__()
        self.overload = overload
        self.register_buffer("weights", WEIGHTS)
        defaults = {"scale": constant(0.05), "zero_point": constant(3, torch.int64)}
        if overload == "tensor2":
            defaults |= {"low": constant(-128, torch.int64), "high": constant(127, torch.int64)}
        for name, value in (defaults | numbers).items():
            self.register_buffer(name, value)

    def numbers(self) -> tuple[Any, ...]:
        limits = (self.low, self.high) if self.overload == "tensor2" else (-128, 127)
        return (self.scale, self.zero_point, *limits, torch.int8)

    def forward(self, x: Tensor) -> Tensor:
        library = torch.ops.quantized_decomposed
        quantize = getattr(library.quantize_per_tensor, self.overload)
        dequantize = getattr(library.dequantize_per_tensor, self.overload)
        x = dequantize(quantize(x, *self.numbers()), *self.numbers())
        w = library.dequantize_per_tensor(self.weights, 0.013, 0, -127, 127, torch.int8)
        return quantize(nn.functional.linear(x, w), *self.numbers())


class Affine(nn.Module):
    """The pattern in torchao's operators. `weight` and `activation` override arguments of the calls."""

    half = False

    def __init__(
        self, weight: dict[str, Any] | None = None, activation: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("weights", WEIGHTS)
        self.weight = {"block_size": (1, 8), "scale": torch.linspace(0.01, 0.02, 6), "zero_point": None}
        self.weight |= {"input_dtype": torch.int8, "quant_min": -127, "quant_max": 127} | (weight or {})
        self.x = {"scale": constant(0.05), "zero_point": constant(3, torch.int32)}
        self.x |= {"quant_min": -128, "quant_max": 127, "dtype": torch.int8} | (activation or {})
        for prefix, values in (("weight", self.weight), ("x", self.x)):
            for name in ("scale", "zero_point"):
                self.register_buffer(f"{prefix}_{name}", values.pop(name))

    def forward(self, x: Tensor) -> Tensor:
        weight = {"scale": self.weight_scale, "zero_point": self.weight_zero_point}
        numbers = {"scale": self.x_scale, "zero_point": self.x_zero_point}
        numbers |= {key: self.x[key] for key in ("quant_min", "quant_max")}
        x = self._quantized(x, numbers)
        half = {"output_dtype": torch.float16} if self.half else {}
        x = torch.ops.torchao.dequantize_affine(
            x, block_size=x.shape, input_dtype=self.x["dtype"], **numbers, **half
        )
        w = torch.ops.torchao.dequantize_affine(self.weights, **weight, **self.weight, **half)
        y = nn.functional.linear(x, w)
        return self._quantized(y, numbers)

    def _quantized(self, x: Tensor, numbers: dict[str, Any]) -> Tensor:
        return torch.ops.torchao.quantize_affine(
            x, block_size=x.shape, output_dtype=self.x["dtype"], **numbers
        )


def both_kinds(model: nn.Module) -> list[Any]:
    program = torch.export.export(model, (X,))
    return [program.module(), program]


def runnable(module: Any) -> GraphModule:
    return module if isinstance(module, GraphModule) else module.module()


def check_replaced(model: nn.Module) -> list[Any]:
    """Both kinds: one q8ta.linear, the quantize in front of it in literal numbers, exact results."""
    results = []
    for module in both_kinds(model):
        result = q8ta_ops.rewrite(module)
        assert targets(result.module) == [
            "quantized_decomposed.quantize_per_tensor.default",
            "q8ta.linear.default",
        ]
        assert result.skipped == []
        assert torch.equal(runnable(result.module)(X), exact(runnable(module), X))
        results.append(result)
    return results


def check_left_alone(model: nn.Module, reason: str) -> None:
    for module in both_kinds(model):
        result = q8ta_ops.rewrite(module)
        ((_, why),) = result.skipped
        assert result.replaced == [] and reason in why, why
        assert torch.equal(runnable(result.module)(X), runnable(module)(X))


@pytest.mark.parametrize("overload", ["tensor", "tensor2"])
@pytest.mark.parametrize("sizes", [(), (1,)])
def test_tensor_overloads_with_constants(overload: str, sizes: tuple[int, ...]) -> None:
    numbers = {"scale": constant(0.05).expand(sizes).clone()}
    for result in check_replaced(TensorNumbers(overload, **numbers)):
        state = runnable(result.module).state_dict()
        # The constants are numbers now.
        assert set(state) == {"weights", "q8ta_weight_sums_0", "q8ta_weight_scales_0"}


def test_tensor_overloads_in_float64() -> None:
    # The overload takes the number out of the tensor, whatever its type.
    check_replaced(TensorNumbers(scale=constant(0.05, torch.float64)))


@pytest.mark.parametrize("overload", ["tensor", "tensor2"])
def test_tensor_overloads_with_computed_numbers(overload: str) -> None:
    class Computed(TensorNumbers):
        def numbers(self) -> tuple[Any, ...]:
            return (self.scale * 2, *super().numbers()[1:])

    check_left_alone(
        Computed(overload),
        f"dequantize_per_tensor.{overload}, not from a dequantize with constant numbers",
    )


def test_numbers_that_the_graph_writes() -> None:
    class Adaptive(TensorNumbers):
        def forward(self, x: Tensor) -> Tensor:
            result = super().forward(x)
            self.scale.mul_(1)
            return result

    check_left_alone(Adaptive(), "dequantize_per_tensor.tensor, not from")


@pytest.mark.parametrize(
    "weight",
    [
        {},
        {"block_size": (1, 8), "scale": torch.linspace(0.01, 0.02, 6).reshape(6, 1)},
        {"zero_point": torch.zeros(6)},
        {"zero_point": torch.zeros(6, dtype=torch.int32), "quant_min": None, "quant_max": None},
        {"block_size": (6, 8), "scale": constant(0.013)},
        {"block_size": (6, 8), "scale": constant([0.013]), "zero_point": constant([0], torch.int32)},
    ],
)
def test_affine_weights(weight: dict[str, Any]) -> None:
    check_replaced(Affine(weight))


@pytest.mark.parametrize(
    "activation",
    [
        {},
        {"zero_point": constant(3.0)},
        {"zero_point": constant([-128], torch.int64), "scale": constant([0.03])},
        {"quant_min": None, "quant_max": None},
    ],
)
def test_affine_activations(activation: dict[str, Any]) -> None:
    check_replaced(Affine(activation=activation))


def test_affine_uint8_activations() -> None:
    activation = {"zero_point": constant(100), "quant_min": 0, "quant_max": 255, "dtype": torch.uint8}

    class BackToFloat(Affine):
        def forward(self, x: Tensor) -> Tensor:
            numbers = (self.x_scale, self.x_zero_point, torch.uint8, 0, 255)
            return torch.ops.torchao.dequantize_affine(super().forward(x), (3, 6), *numbers)

    for module in both_kinds(BackToFloat(activation=activation)):
        result = q8ta_ops.rewrite(module)
        assert q8ta_targets(result.module) == ["linear"]
        assert torch.equal(runnable(result.module)(X), exact(runnable(module), X))


@pytest.mark.parametrize(
    ("weight", "reason"),
    [
        (
            {"block_size": (1, 4), "scale": torch.ones(6, 2)},
            "in blocks of [1, 4], expected [1, 8] (the rows)",
        ),
        ({"block_size": (6, 1), "scale": torch.ones(8)}, "in blocks of [6, 1], expected [1, 8] (the rows)"),
        ({"zero_point": torch.ones(6)}, "its weight zero points are not all 0"),
        ({"block_size": (6, 8), "scale": constant(1.0), "zero_point": constant(2)}, "has the zero point 2"),
        ({"block_size": (6, 8), "scale": constant(-1.0)}, "its weight has the scale -1.0"),
        ({"scale": -torch.ones(6)}, "its weight scales are not all finite and above 0"),
    ],
)
def test_affine_weights_that_are_refused(weight: dict[str, Any], reason: str) -> None:
    check_left_alone(Affine(weight), reason)


@pytest.mark.parametrize(
    ("activation", "reason"),
    [
        # torchao rounds with the types that it is given: not what the operators do in float32.
        ({"scale": constant(0.05, torch.float64)}, "torchao.dequantize_affine.default, not from"),
        ({"zero_point": constant(2.5)}, "torchao.dequantize_affine.default, not from"),
        ({"scale": constant(1e-40)}, "its input has the scale"),
    ],
)
def test_affine_activations_that_are_refused(activation: dict[str, Any], reason: str) -> None:
    class FloatResult(Affine):
        def _quantized(self, x: Tensor, numbers: dict[str, Any]) -> Tensor:
            return super()._quantized(x, numbers) if x.shape == X.shape else x

    check_left_alone(FloatResult(activation=activation), reason)


def test_affine_half_precision_is_refused() -> None:
    class Half(Affine):
        half = True

        def _quantized(self, x: Tensor, numbers: dict[str, Any]) -> Tensor:
            return super()._quantized(x, numbers) if x.shape == X.shape else x

    check_left_alone(Half(), "its input is dequantized to torch.float16, expected torch.float32")


class AffineQuantizer(Quantizer):
    """Annotates linears with torchao's affine observers: convert_pt2e then writes its affine operators."""

    def annotate(self, model: GraphModule) -> GraphModule:
        activations = self._spec(MappingType.ASYMMETRIC, PerTensor(), -128)
        weights = self._spec(MappingType.SYMMETRIC, PerAxis(0), -127)
        for node in model.graph.nodes:
            if node.target is torch.ops.aten.linear.default:
                node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(
                    input_qspec_map={node.args[0]: activations, node.args[1]: weights},
                    output_qspec=activations,
                    _annotated=True,
                )
        return model

    def _spec(self, mapping_type: Any, granularity: Any, quant_min: int) -> QuantizationSpec:
        observer = AffineQuantizedMinMaxObserver.with_args(
            mapping_type=mapping_type,
            granularity=granularity,
            target_dtype=torch.int8,
            quant_min=quant_min,
            quant_max=127,
            eps=1e-6,
        )
        return QuantizationSpec(
            dtype=torch.int8, quant_min=quant_min, quant_max=127, observer_or_fake_quant_ctr=observer
        )

    def validate(self, model: GraphModule) -> None:
        pass


def test_what_torchao_makes_of_affine_observers() -> None:
    converted = quantized(OneLinear(8, 6), X, quantizer=AffineQuantizer())
    assert "torchao.dequantize_affine" in targets(converted)
    for module in (converted, torch.export.export(converted, (X,))):
        result = q8ta_ops.rewrite(module)
        assert q8ta_targets(result.module) == ["linear"] and result.skipped == []
        assert not any("torchao" in name for name in targets(result.module))
        assert torch.equal(runnable(result.module)(X), exact(converted, X))
        twice = q8ta_ops.rewrite(result.module)
        assert twice.replaced == [] and targets(twice.module) == targets(result.module)
