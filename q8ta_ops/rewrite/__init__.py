"""Rewrite of quantized graphs: float linears between dequantize and quantize become q8ta operators."""

from __future__ import annotations

from typing import overload

from torch.export import ExportedProgram
from torch.fx import GraphModule

from .exported_program import rewrite_exported_program
from .graph_module import rewrite_graph_module
from .result import Replaced, RewriteResult, Skipped

__all__ = ["Replaced", "RewriteResult", "Skipped", "rewrite"]


@overload
def rewrite(module: GraphModule) -> RewriteResult[GraphModule]: ...
@overload
def rewrite(module: ExportedProgram) -> RewriteResult[ExportedProgram]: ...
def rewrite(module: GraphModule | ExportedProgram) -> RewriteResult:
    """Replaces quantized linears by q8ta operators, in a copy of the module.

    Looks for a per-tensor dequantize (int8) -> linear with constant int8 weights, dequantized per output
    feature or per tensor -> relu, relu6, hardtanh, clamp or none -> a per-tensor quantize (int8). Puts there

    - `q8ta.linear`, or `q8ta.linear_gemv` where the graph is specialized to one row;
    - `q8ta.linear_dequant` (float32 result) where the result is not quantized, or not only quantized.

    The same in other forms is found too: `quantized_decomposed` or torchao's affine operators with constant
    numbers; linears that `run_decompositions()` took apart; uint8 activations, which become int8 where the
    quantize and all that reads its result are in the graph; linears between which the graph quantizes with
    other numbers, or moves and clamps values in float (see `commute.py`).

    The int8 operators compute the exact integer sum, the graph that convert_pt2e returns sums in float32: the
    results can differ by one quantum where rounding falls the other way. All other changes keep every bit.

    Weight sums (int32 [N]) and, where the graph has none of this form, weight scales (float32 [N]) become
    buffers. What nothing uses afterwards is removed: dequantize nodes, their constants, and the float weights
    that convert_pt2e leaves in the module. Rewriting twice changes nothing more.

    Args:
        module: a GraphModule from `convert_pt2e`, or an ExportedProgram of one. It is not changed. Tensors
            that the graph only reads are shared with the result, not copied.

    Returns:
        The new module of the same kind; what was replaced; and, for each linear that was left alone, its node
        and the reason.

    Raises:
        TypeError: `module` is neither of the two.
    """
    if isinstance(module, ExportedProgram):
        return rewrite_exported_program(module)
    if isinstance(module, GraphModule):
        return rewrite_graph_module(module)
    kind = type(module).__name__
    raise TypeError(f"module: expected a torch.fx.GraphModule or a torch.export.ExportedProgram, got {kind}")
