"""Loads the op library and registers the fake kernels that torch.compile, torch.export and opcheck need.

The ops themselves are C++ (csrc/ops). The checks here repeat those that need no data, so that a wrong call
fails while it is traced, with the same argument named.
"""

import importlib
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from .layouts import Layout, packed_shape

MAX_K = 65_793  # beyond it an int32 accumulator can overflow: 65,793 * 255 * 128 < 2**31

torch.ops.load_library(Path(__file__).with_name("_torch_ops.so"))

# Quantized programs hold the operators of `quantized_decomposed`, too: loading one needs them.
with suppress(ModuleNotFoundError):
    importlib.import_module("torch.ao.quantization.fx._decomposed")


def _check(condition: bool, op: str, argument: str, message: str) -> None:
    torch._check(condition, lambda: f"q8ta::{op}: {argument}: {message}")


def _check_tensor(op: str, argument: str, tensor: Tensor, dtype: torch.dtype, x: Tensor) -> None:
    _check(tensor.dtype == dtype, op, argument, f"expected {dtype}, got {tensor.dtype}")
    _check(
        tensor.device == x.device,
        op,
        argument,
        f"expected a tensor on {x.device}, as x is, got one on {tensor.device}",
    )


def _check_per_channel(op: str, argument: str, tensor: Tensor, dtype: torch.dtype, x: Tensor, N: int) -> None:
    _check_tensor(op, argument, tensor, dtype, x)
    padded = (N + 3) // 4 * 4
    _check(
        tensor.dim() == 1 and (tensor.shape[0] == N or tensor.shape[0] == padded),
        op,
        argument,
        f"expected shape [{N}] (or [{padded}], padded to a multiple of 4), got {list(tensor.shape)}",
    )


def _check_quantization(op: str, prefix: str, scale: float, zero_point: int) -> None:
    _check(
        0.0 < scale < float("inf"),
        op,
        f"{prefix}_scale",
        f"expected a finite number > 0 in float32, got {scale}",
    )
    _check(
        -128 <= zero_point <= 127,
        op,
        f"{prefix}_zero_point",
        f"expected a value in [-128, 127], got {zero_point}",
    )


def _linear_shape(
    op: str,
    x: Tensor,
    weights: Tensor,
    weight_sums: Tensor,
    weight_scales: Tensor,
    bias: Tensor | None,
    activation: str,
) -> list[int]:
    _check_tensor(op, "x", x, torch.int8, x)
    _check_tensor(op, "weights", weights, torch.int8, x)
    _check(x.dim() >= 1, op, "x", "expected shape [..., K], got a scalar")
    _check(weights.dim() == 2, op, "weights", f"expected shape [N, K], got {list(weights.shape)}")
    N, K = weights.shape
    _check(
        N >= 1 and K >= 1,
        op,
        "weights",
        f"expected at least one row and one column, got {list(weights.shape)}",
    )
    _check(
        K <= MAX_K,
        op,
        "weights",
        f"expected K of at most {MAX_K} (beyond it an int32 accumulator can overflow), got {K}",
    )
    _check(x.shape[-1] == K, op, "x", f"expected last size {K} (the K of weights), got {list(x.shape)}")
    _check_per_channel(op, "weight_sums", weight_sums, torch.int32, x, N)
    _check_per_channel(op, "weight_scales", weight_scales, torch.float32, x, N)
    if bias is not None:
        _check_per_channel(op, "bias", bias, torch.float32, x, N)
    _check(activation in ("none", "relu"), op, "activation", f"expected 'none' or 'relu', got '{activation}'")
    return [*x.shape[:-1], N]


@torch.library.register_fake("q8ta::linear")
def _linear(
    x: Tensor,
    input_scale: float,
    input_zero_point: int,
    weights: Tensor,
    weight_sums: Tensor,
    weight_scales: Tensor,
    output_scale: float,
    output_zero_point: int,
    bias: Tensor | None = None,
    activation: str = "none",
    op: str = "linear",
) -> Tensor:
    shape = _linear_shape(op, x, weights, weight_sums, weight_scales, bias, activation)
    _check_quantization(op, "input", input_scale, input_zero_point)
    _check_quantization(op, "output", output_scale, output_zero_point)
    return x.new_empty(shape)


@torch.library.register_fake("q8ta::linear_gemv")
def _linear_gemv(x: Tensor, *args, **kwargs) -> Tensor:
    y = _linear(x, *args, **kwargs, op="linear_gemv")
    rows = 1
    for size in x.shape[:-1]:
        rows = rows * size
    _check(
        rows == 1,
        "linear_gemv",
        "x",
        f"expected exactly one row (the product of the leading sizes), got {rows}; "
        "q8ta::linear takes any number",
    )
    return y


@torch.library.register_fake("q8ta::linear_dequant")
def _linear_dequant(
    x: Tensor,
    input_scale: float,
    input_zero_point: int,
    weights: Tensor,
    weight_sums: Tensor,
    weight_scales: Tensor,
    bias: Tensor | None = None,
    activation: str = "none",
) -> Tensor:
    shape = _linear_shape("linear_dequant", x, weights, weight_sums, weight_scales, bias, activation)
    _check_quantization("linear_dequant", "input", input_scale, input_zero_point)
    return x.new_empty(shape, dtype=torch.float32)


@torch.library.register_fake("q8ta::requantize")
def _requantize(
    x: Tensor, input_scale: float, input_zero_point: int, output_scale: float, output_zero_point: int
) -> Tensor:
    _check_tensor("requantize", "x", x, torch.int8, x)
    _check_quantization("requantize", "input", input_scale, input_zero_point)
    _check_quantization("requantize", "output", output_scale, output_zero_point)
    return x.new_empty(x.shape)


# int8 results never require a gradient: there is nothing to do under the autograd key, and torch's own
# fallback there would only cost time.
_autograd = torch.library.Library("q8ta", "IMPL", "Autograd")
for _name in ("linear", "linear_gemv", "requantize", "pack", "unpack"):
    _autograd.impl(_name, torch.library.fallthrough_kernel)


def _no_backward(ctx, grad: Tensor) -> Tensor:
    raise RuntimeError(
        "q8ta::linear_dequant has no backward: it is an inference op. Train the float model and quantize it "
        "afterwards, or call it under torch.no_grad()."
    )


# Its result is float32, so a bias or weight_scales that require a gradient would make torch look for one.
torch.library.register_autograd("q8ta::linear_dequant", _no_backward)


def _check_layout(op: str, layout: int) -> None:
    _check(
        layout in (Layout.PACKED_INT8_4H4W, Layout.PACKED_INT8_4W),
        op,
        "layout",
        f"expected 4 (PACKED_INT8_4H4W) or 5 (PACKED_INT8_4W), got {layout}",
    )


@torch.library.register_fake("q8ta::pack")
def _pack(x: Tensor, layout: int) -> Tensor:
    _check_layout("pack", layout)
    _check_tensor("pack", "x", x, torch.int8, x)
    _check(x.dim() >= 2, "pack", "x", f"expected shape [..., M, K], got {list(x.shape)}")
    return x.new_empty(packed_shape(x.shape, layout), dtype=torch.int32)


@torch.library.register_fake("q8ta::unpack")
def _unpack(packed: Tensor, layout: int, sizes: list[int]) -> Tensor:
    _check_layout("unpack", layout)
    _check_tensor("unpack", "packed", packed, torch.int32, packed)
    _check(len(sizes) >= 2, "unpack", "sizes", f"expected [..., M, K], got {sizes}")
    expected = packed_shape(sizes, layout)
    _check(
        packed.dim() == len(expected)
        and all(got == want for got, want in zip(packed.shape, expected, strict=True)),
        "unpack",
        "packed",
        f"expected shape {expected} for sizes {sizes}, got {list(packed.shape)}",
    )
    return packed.new_empty(sizes, dtype=torch.int8)
