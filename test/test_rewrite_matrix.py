"""q8ta_ops.rewrite: every kind of model x every quantizer x every kind of graph."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule

pytest.importorskip("torchao")

from matrix import CASES, convert, expected, skip_where_nothing_is_quantized  # noqa: E402
from models import exact, q8ta_targets, same  # noqa: E402

import q8ta_ops  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")

# On lavapipe every kernel has to be compiled: a few models are enough there.
ON_THE_DEVICE = ("MLP with relu6", "encoder layer")


def tensors(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


def steps_apart(module: GraphModule, got: Any, want: Any) -> float:
    """How many steps of its quantization two results are apart; of its range / 255 for a float result."""
    outputs = module.graph.output_node().all_input_nodes
    distances = []
    for output, first, second in zip(outputs, tensors(got), tensors(want), strict=True):
        is_int8 = "dequantize_per_tensor" in str(output.target)
        step = output.args[1] if is_int8 else ((second.max() - second.min()) / 255).item()
        distances.append(((first - second).abs().max() / step).item())
    return max(distances)


@pytest.mark.parametrize(("model", "quantizer"), CASES)
def test_matrix(model: str, quantizer: str) -> None:
    skip_where_nothing_is_quantized(quantizer)
    converted, x = convert(model, quantizer)
    program = torch.export.export(converted, (x,))
    decomposed = program.run_decompositions()
    linears, int8 = expected(model, quantizer)
    results = []
    with q8ta_ops.use_device(os.environ["Q8TA_DEVICE"] if model in ON_THE_DEVICE else "host"):
        for module, runnable in (
            (converted, converted),
            (program, program.module()),
            (decomposed, decomposed.module()),
        ):
            result = q8ta_ops.rewrite(module)
            rewritten = result.module if isinstance(result.module, GraphModule) else result.module.module()
            got = rewritten(x)
            assert len(result.replaced) == linears, str(result)
            assert sum(record.op != "linear_dequant" for record in result.replaced) == int8, str(result)
            assert same(got, exact(runnable, x))
            assert round(steps_apart(converted, got, runnable(x)), 2) <= 1
            results.append((q8ta_targets(result.module), [record.layer for record in result.replaced]))
    # As many operators, of the same kinds and from the same layers, in whatever form the graph was.
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("quantizer", ["XPU", "ARM", "X86"])
def test_float_projections_have_a_reason(quantizer: str) -> None:
    skip_where_nothing_is_quantized(quantizer)
    result = q8ta_ops.rewrite(convert("encoder layer", quantizer)[0])
    assert [reason.split(",")[0] for _, reason in result.skipped] == [
        "its input comes from aten.transpose.int",
        "its input comes from aten.reshape.default",
    ]
