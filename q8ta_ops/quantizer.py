"""A PT2E quantizer that annotates linear layers so that `q8ta_ops.rewrite` accepts every one of them.

Needs torchao (`pip install q8ta-ops[quantize]`); the rest of the package works without it.

    exported = torch.export.export(model, (example,)).module()
    prepared = prepare_pt2e(exported, q8ta_ops.Q8taQuantizer())
    prepared(calibration_batch)
    converted = convert_pt2e(prepared)
    program = q8ta_ops.rewrite(converted).module
"""

from __future__ import annotations

from operator import attrgetter

import torch
from torch.fx import Node
from torchao.quantization.pt2e import HistogramObserver, PerChannelMinMaxObserver
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

from .ops import MAX_K

ACTIVATION_SPEC = QuantizationSpec(
    dtype=torch.int8,
    quant_min=-128,
    quant_max=127,
    qscheme=torch.per_tensor_affine,
    observer_or_fake_quant_ctr=HistogramObserver,
)
"""Activations: int8, per tensor, affine, the whole range."""

WEIGHT_SPEC = QuantizationSpec(
    dtype=torch.int8,
    quant_min=-127,
    quant_max=127,
    qscheme=torch.per_channel_symmetric,
    ch_axis=0,
    observer_or_fake_quant_ctr=PerChannelMinMaxObserver,
)
"""Weights: int8, one scale for each output feature, zero point 0, -127..127."""

_RELU = (torch.ops.aten.relu.default, torch.ops.aten.relu_.default)


class Q8taQuantizer(Quantizer):
    """Annotates every float32 `aten.linear` (and a relu behind it) for the q8ta operators.

    Inputs and outputs become int8 per tensor (affine, -128..127), weights int8 per output channel
    (symmetric, -127..127), the bias stays float32. A relu that is the linear's only user belongs to it:
    then the relu's result is quantized and the linear's own is not.

    Args:
        quantize_output: True (the default) quantizes the result of every linear. False quantizes a result
            only where the next linear wants int8 anyway; the others stay float32 and become `linear_dequant`.
            A chain of linears loses little by the first; transformers are clearly more accurate with the
            second.

    Left alone: a linear whose weight is computed in the graph, is not float32, or has more than 65,793 input
    features, and a linear that another quantizer (of a `ComposableQuantizer`) annotated before.
    """

    def __init__(self, *, quantize_output: bool = True) -> None:
        super().__init__()
        self.quantize_output = quantize_output

    def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
        """Writes the annotations into the node metadata of `model` and returns it."""
        for node in model.graph.nodes:
            if node.op == "call_function" and node.target is torch.ops.aten.linear.default:
                self._annotate_linear(model, node)
        return model

    def validate(self, model: torch.fx.GraphModule) -> None:
        """Nothing to check: what the annotations ask for is what the operators accept."""

    def _annotate_linear(self, model: torch.fx.GraphModule, linear: Node) -> None:
        x, weights = linear.args[0], linear.args[1]
        if not isinstance(x, Node) or not _is_float32_weight(model, weights) or _is_annotated(linear):
            return
        relu = _only_relu(linear)
        if relu is not None and _is_annotated(relu):
            return
        linear.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(
            input_qspec_map={x: ACTIVATION_SPEC, weights: WEIGHT_SPEC}, _annotated=True
        )
        if relu is not None:
            relu.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(_annotated=True)
        if self.quantize_output:
            # Behind the relu: a range that holds negative numbers would waste half of the int8 values.
            output = relu if relu is not None else linear
            output.meta[Q_ANNOTATION_KEY].output_qspec = ACTIVATION_SPEC


def _is_annotated(node: Node) -> bool:
    annotation = node.meta.get(Q_ANNOTATION_KEY)
    return annotation is not None and annotation._annotated


def _only_relu(linear: Node) -> Node | None:
    users = list(linear.users)
    return users[0] if len(users) == 1 and users[0].target in _RELU else None


def _is_float32_weight(model: torch.fx.GraphModule, weights: object) -> bool:
    if not isinstance(weights, Node) or weights.op != "get_attr":
        return False
    value = attrgetter(weights.target)(model)
    return (
        isinstance(value, torch.Tensor)
        and value.dtype == torch.float32
        and value.dim() == 2
        and 1 <= value.shape[1] <= MAX_K
    )
