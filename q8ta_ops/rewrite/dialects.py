"""Per-tensor quantization written in other ways becomes `quantized_decomposed` with literal numbers.

These mean the same, bit for bit, where scale and zero point are constants of the graph:

    quantized_decomposed.quantize_per_tensor            literal numbers: what everything after this reads
    quantized_decomposed.quantize_per_tensor.tensor     scale and zero point are tensors
    quantized_decomposed.quantize_per_tensor.tensor2    the range too
    torchao.quantize_affine                             one block, the whole tensor

and the dequantize of each. Weights are read in all of their forms by `weights.py`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch.fx import Node

from .forms import DEQUANTIZE, QUANTIZE, result_dtype
from .nodes import arguments, target_name
from .store import Store, erase_unused

QUANTIZE_AFFINE = "torchao.quantize_affine.default"
DEQUANTIZE_AFFINE = "torchao.dequantize_affine.default"
_OTHER_FORMS = {
    QUANTIZE.replace("default", "tensor"): "quantize_per_tensor",
    QUANTIZE.replace("default", "tensor2"): "quantize_per_tensor",
    QUANTIZE_AFFINE: "quantize_per_tensor",
    DEQUANTIZE.replace("default", "tensor"): "dequantize_per_tensor",
    DEQUANTIZE.replace("default", "tensor2"): "dequantize_per_tensor",
    DEQUANTIZE_AFFINE: "dequantize_per_tensor",
}


def to_literals(store: Store) -> None:
    """Rewrites in place every node whose numbers are constants of the graph, and leaves the others alone."""
    for node in list(store.graph.nodes):
        name = _OTHER_FORMS.get(target_name(node))
        if name is None:
            continue
        call = arguments(node)
        affine = "affine" in target_name(node)
        numbers = _affine_numbers(call, store) if affine else _numbers(call, call["dtype"], store)
        if numbers is None:
            continue
        constants = [each for each in node.all_input_nodes if each is not call["input"]]
        node.target = getattr(_quantized_decomposed(), name).default
        node.args = (call["input"], *numbers)
        node.kwargs = {"out_dtype": call["out_dtype"]} if call.get("out_dtype") is not None else {}
        for each in constants:
            erase_unused(store, each)


def _quantized_decomposed() -> Any:
    """The operators of that library. A graph may hold nothing but torchao's: then nobody registered them."""
    if not hasattr(torch.ops.quantized_decomposed, "quantize_per_tensor"):
        import_module("torch.ao.quantization.fx._decomposed")
    return torch.ops.quantized_decomposed


def _affine_numbers(call: dict[str, Any], store: Store) -> tuple[Any, ...] | None:
    scale = store.constant(call["scale"])
    # torchao calculates in the types of scale and result: in others than float32 it rounds differently.
    if scale is None or scale.dtype != torch.float32:
        return None
    dequantizes = "input_dtype" in call
    if dequantizes and result_dtype(call) != torch.float32:
        return None
    dtype = call["input_dtype"] if dequantizes else call["output_dtype"]
    if dtype not in (torch.int8, torch.uint8, torch.int16, torch.int32):
        return None
    limits = torch.iinfo(dtype)
    defaults = {"zero_point": 0, "quant_min": limits.min, "quant_max": limits.max}
    given = {key: call[key] for key in defaults if call[key] is not None}
    return _numbers(call | defaults | given, dtype, store)


def _numbers(call: dict[str, Any], dtype: torch.dtype, store: Store) -> tuple[Any, ...] | None:
    """scale, zero_point, quant_min, quant_max and dtype, or None where one is not a constant of the graph."""
    scale = _number(call["scale"], store)
    integers = [_number(call[key], store) for key in ("zero_point", "quant_min", "quant_max")]
    if scale is None or any(number is None or not float(number).is_integer() for number in integers):
        return None
    return (float(scale), *(int(number) for number in integers), dtype)


def _number(value: Any, store: Store) -> float | int | None:
    """A literal number, or the one element of a constant tensor."""
    if isinstance(value, Node):
        tensor = store.constant(value)
        return tensor.item() if tensor is not None and tensor.numel() == 1 else None
    return value if isinstance(value, (int, float)) else None
