"""Reads the constant int8 weights of a linear, in whatever form their dequantize is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from ..ops import MAX_K
from .dialects import DEQUANTIZE_AFFINE
from .forms import DEQUANTIZE, is_scale, result_dtype
from .nodes import arguments, describe, target_name
from .result import NoMatch
from .store import Store

DEQUANTIZE_PER_CHANNEL = "quantized_decomposed.dequantize_per_channel.default"
DEQUANTIZES = (DEQUANTIZE, DEQUANTIZE_PER_CHANNEL, DEQUANTIZE_AFFINE)
"""Names of the operators that can produce a linear's weight."""


@dataclass(frozen=True)
class Weights:
    """Constant int8 weights: `values` int8 [N, K] of `node`, `scales` float32 [N].

    `scales_node` is the node that holds exactly `scales` already, or None where a buffer has to be made.
    """

    node: Node
    values: torch.Tensor
    scales: torch.Tensor
    scales_node: Node | None
    dequantize: Node


def match_weights(dequantize: Any, store: Store) -> Weights:
    """Reads the weights that a dequantize node produces.

    Raises:
        NoMatch: they are not constant, not int8 [N, K], not symmetric, or not quantized per tensor or row.
    """
    name = target_name(dequantize) if isinstance(dequantize, Node) else ""
    if name not in DEQUANTIZES:
        raise NoMatch(f"its weight comes from {describe(dequantize)}, not from a dequantize of int8 values")
    call = arguments(dequantize)
    if result_dtype(call) != torch.float32:
        raise NoMatch(f"its weight is dequantized to {result_dtype(call)}, expected torch.float32")
    node = call["input"]
    values = store.constant(node)
    if values is None:
        raise NoMatch(f"its weight is not constant: the int8 values come from {describe(node)}")
    # The declared range is not needed: whatever int8 values are stored, the operator takes them.
    dtype = call["input_dtype"] if name == DEQUANTIZE_AFFINE else call["dtype"]
    if values.dtype != torch.int8 or dtype != torch.int8:
        raise NoMatch(f"its weight is {values.dtype}, expected torch.int8")
    if values.dim() != 2 or values.shape[0] < 1 or values.shape[1] < 1:
        raise NoMatch(f"its weight has the shape {list(values.shape)}, expected [N, K] with N and K above 0")
    if values.shape[1] > MAX_K:
        raise NoMatch(f"it has {values.shape[1]} input features, the bound of exact int32 sums is {MAX_K}")
    if name == DEQUANTIZE:
        return Weights(node, values, _per_tensor_scales(call, values.shape[0]), None, dequantize)
    if name == DEQUANTIZE_AFFINE:
        _check_blocks(call["block_size"], values)
        scales, zero_points = call["scale"], call["zero_point"]
    else:
        # Axis -2 of a matrix is axis 0.
        if call["axis"] not in (0, -2):
            raise NoMatch(f"its weight is quantized along axis {call['axis']}, expected axis 0 (the rows)")
        scales, zero_points = call["scales"], call["zero_points"]
    return Weights(
        node, values, *_per_channel_scales(scales, zero_points, values.shape[0], store), dequantize
    )


def _per_tensor_scales(call: dict[str, Any], out_features: int) -> torch.Tensor:
    scale, zero_point = call["scale"], call["zero_point"]
    if not isinstance(scale, (int, float)) or not isinstance(zero_point, int):
        raise NoMatch("its weight has a scale or zero point that is computed in the graph")
    if zero_point != 0:
        raise NoMatch(f"its weight has the zero point {zero_point}, expected 0")
    if not is_scale(scale):
        raise NoMatch(f"its weight has the scale {scale}, expected a finite number above 0 in float32")
    return torch.full((out_features,), scale, dtype=torch.float32)


def _check_blocks(block_size: Any, values: torch.Tensor) -> None:
    # One scale for each row. One for the whole weight is per tensor, see `dialects.py`.
    if len(block_size) != 2 or block_size[0] != 1 or block_size[1] not in (-1, values.shape[1]):
        raise NoMatch(
            f"its weight is quantized in blocks of {list(block_size)}, "
            f"expected [1, {values.shape[1]}] (the rows) or the whole"
        )


def _per_channel_scales(
    scales_node: Any, zero_points_node: Any, out_features: int, store: Store
) -> tuple[torch.Tensor, Node | None]:
    """float32 [N], and the node that holds it in this form already, if it does."""
    scales = store.constant(scales_node)
    if scales is None:
        raise NoMatch(f"its weight scales are not constant: they come from {describe(scales_node)}")
    if scales.shape not in ((out_features,), (out_features, 1)):
        raise NoMatch(f"its weight scales have the shape {list(scales.shape)}, expected [{out_features}]")
    if zero_points_node is not None:
        zero_points = store.constant(zero_points_node)
        if zero_points is None:
            source = describe(zero_points_node)
            raise NoMatch(f"its weight zero points are not constant: they come from {source}")
        if bool((zero_points != 0).any()):
            raise NoMatch("its weight zero points are not all 0")
    as_float32 = scales.detach().to(torch.float32).reshape(-1).contiguous()
    if not bool((torch.isfinite(as_float32) & (as_float32 > 0)).all()):
        raise NoMatch("its weight scales are not all finite and above 0 in float32")
    reusable = scales.dtype == torch.float32 and scales.dim() == 1 and scales.is_contiguous()
    return as_float32, scales_node if reusable else None
