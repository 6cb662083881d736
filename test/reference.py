"""The one reference implementation of the q8ta ops, in plain torch on the CPU.

Written from the specification, not from the kernels: every result of the package is compared with these
functions by ``torch.equal``. For each row m and output channel n::

    acc  = sum_k x[m,k] * w[n,k]                                   int32, exact
    adj  = acc - input_zero_point * weight_sums[n]                 int32, exact
    mult = f32(input_scale) * weight_scales[n]                     one f32 multiplication
    y    = f32(adj) * mult ;  y = y + bias[n]                      two f32 operations, never fused
    y    = max(y, 0)                                               if activation is relu; of zeros, +0.0
    q    = clamp(roundEven(y * f32(1.0 / output_scale)) + output_zero_point, -128, 127)

``f32(1.0 / output_scale)`` is divided in double, then rounded. The clamp precedes the conversion to integer.
Each float step is one torch operation on float32 tensors, which rounds once.

``linear_possible``, ``requantize_possible`` and ``possible`` are a second reference, for devices that take
subnormal numbers for zero, as Vulkan allows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

LAYOUT_4H4W = 4
LAYOUT_4W = 5

# How many weights are widened to float64 at a time: bounds the memory of the large shapes.
_CHUNK_ELEMENTS = 1 << 23


def accumulate_ref(x: Tensor, weights: Tensor) -> Tensor:
    """Exact ``x @ weights.T``: int8 ``[M, K]`` and int8 ``[N, K]`` to int64 ``[M, N]``.

    float64 holds every partial sum exactly: |sum| <= K * 2^14, below 2^53 for any K that fits memory.
    """
    rows, depth = x.shape
    columns = weights.shape[0]
    wide_x = x.to(torch.float64)
    result = torch.empty(rows, columns, dtype=torch.int64)
    step = max(1, _CHUNK_ELEMENTS // max(1, depth))
    for start in range(0, columns, step):
        part = weights[start : start + step].to(torch.float64)
        result[:, start : start + step] = (wide_x @ part.t()).to(torch.int64)
    return result


def linear_dequant_ref(
    x: Tensor,
    input_scale: float,
    input_zero_point: int,
    weights: Tensor,
    weight_sums: Tensor,
    weight_scales: Tensor,
    bias: Tensor | None = None,
    activation: str = "none",
) -> Tensor:
    """Reference of ``q8ta::linear_dequant``: float32 ``[..., N]``.

    x int8 ``[..., K]``, weights int8 ``[N, K]``, weight_sums int32, weight_scales float32 and bias float32 of
    length N or more (only the first N are read).
    """
    if activation not in ("none", "relu"):
        raise RuntimeError(f"activation must be 'none' or 'relu', got {activation!r}")
    columns, depth = weights.shape
    acc = accumulate_ref(x.reshape(x.shape[:-1].numel(), depth), weights)
    adj = acc - input_zero_point * weight_sums[:columns].to(torch.int64)
    mult = torch.tensor(input_scale, dtype=torch.float32) * weight_scales[:columns]
    y = adj.to(torch.float32) * mult
    if bias is not None:
        y = y + bias[:columns]
    if activation == "relu":
        y = _relu_ref(y)
    return y.reshape(*x.shape[:-1], columns)


def linear_ref(
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
) -> Tensor:
    """Reference of ``q8ta::linear`` and ``q8ta::linear_gemv``: int8 ``[..., N]``. Arguments as above."""
    y = linear_dequant_ref(
        x, input_scale, input_zero_point, weights, weight_sums, weight_scales, bias, activation
    )
    return _quantize_ref(y, torch.tensor(1.0 / output_scale, dtype=torch.float32), output_zero_point)


def requantize_ref(
    x: Tensor, input_scale: float, input_zero_point: int, output_scale: float, output_zero_point: int
) -> Tensor:
    """Reference of ``q8ta::requantize``: int8 of any shape, dequantized and quantized again.

    y = f32(x - input_zero_point) * f32(input_scale)
    q = clamp(roundEven(y * f32(1.0 / output_scale)) + output_zero_point, -128, 127)
    """
    y = (x.to(torch.int32) - input_zero_point).to(torch.float32) * torch.tensor(input_scale)
    return _quantize_ref(y, torch.tensor(1.0 / output_scale, dtype=torch.float32), output_zero_point)


def _relu_ref(y: Tensor) -> Tensor:
    # torch.maximum(-0.0, 0.0) is either zero, by the element's place in the tensor.
    return torch.relu(y) + 0.0


def _quantize_ref(y: Tensor, inverse: Tensor, output_zero_point: int) -> Tensor:
    rounded = torch.round(y * inverse)  # torch.round breaks ties to even
    shifted = rounded + torch.tensor(float(output_zero_point), dtype=torch.float32)
    return torch.clamp(shifted, -128.0, 127.0).to(torch.int8)


def _flushed(value: Tensor) -> Tensor:
    """Subnormal numbers replaced by zeros of their sign."""
    smallest_normal = torch.finfo(torch.float32).tiny
    return torch.where(value.abs() < smallest_normal, torch.copysign(torch.zeros(()), value), value)


def either(value: Tensor) -> list[Tensor]:
    """A float32 operand or result as it is and, if it holds subnormal numbers, with these as zeros."""
    flushed = _flushed(value)
    return [value] if torch.equal(flushed, value) else [value, flushed]


def possible(operation: Callable[..., Tensor], *operands: list[Tensor]) -> list[Tensor]:
    """Every result of an operation on float32 tensors of which each may be any of several.

    Each element has a choice of its own: what was computed is right if each element is that of one of them.
    """
    results = (operation(*chosen) for chosen in itertools.product(*operands))
    return [each for result in results for each in either(result)]


def linear_dequant_possible(
    x: Tensor,
    input_scale: float,
    input_zero_point: int,
    weights: Tensor,
    weight_sums: Tensor,
    weight_scales: Tensor,
    bias: Tensor | None = None,
    activation: str = "none",
) -> list[Tensor]:
    """What `linear_dequant_ref` may be where an operation may take subnormal numbers for zeros."""
    one = torch.ones(weight_scales.shape)
    adj = linear_dequant_ref(x, 1.0, input_zero_point, weights, weight_sums, one)
    columns = weights.shape[0]
    scale = torch.tensor(input_scale, dtype=torch.float32)
    mult = possible(torch.mul, either(scale), either(weight_scales[:columns]))
    y = possible(torch.mul, [adj], mult)
    if bias is not None:
        y = possible(torch.add, y, either(bias[:columns]))
    return possible(_relu_ref, y) if activation == "relu" else y


def linear_possible(
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
) -> list[Tensor]:
    """What `linear_ref` may be where an operation may take subnormal numbers for zeros."""
    y = linear_dequant_possible(
        x, input_scale, input_zero_point, weights, weight_sums, weight_scales, bias, activation
    )
    return _quantize_possible(y, output_scale, output_zero_point)


def requantize_possible(
    x: Tensor, input_scale: float, input_zero_point: int, output_scale: float, output_zero_point: int
) -> list[Tensor]:
    """What `requantize_ref` may be where an operation may take subnormal numbers for zeros."""
    difference = (x.to(torch.int32) - input_zero_point).to(torch.float32)
    y = possible(torch.mul, [difference], either(torch.tensor(input_scale)))
    return _quantize_possible(y, output_scale, output_zero_point)


def _quantize_possible(y: list[Tensor], output_scale: float, output_zero_point: int) -> list[Tensor]:
    # y * inverse below 2^-126 rounds to 0, flushed or not: only the operands matter.
    inverses = either(torch.tensor(1.0 / output_scale, dtype=torch.float32))
    return [_quantize_ref(value, inverse, output_zero_point) for value in y for inverse in inverses]


def _ceil4(length: int) -> int:
    return (length + 3) // 4


def packed_sizes_ref(sizes: tuple[int, ...], layout: int) -> tuple[int, ...]:
    """Shape of the int32 words that hold an int8 tensor of ``sizes`` ``[..., M, K]`` in ``layout``."""
    if len(sizes) < 2:
        raise RuntimeError(f"x must have at least 2 dimensions, got {len(sizes)}")
    *batch, rows, depth = sizes
    if layout == LAYOUT_4H4W:
        return (*batch, _ceil4(rows), _ceil4(depth), 4)
    if layout == LAYOUT_4W:
        return (*batch, rows, _ceil4(depth))
    raise RuntimeError(f"layout {layout} is not supported")


def pack_ref(x: Tensor, layout: int) -> Tensor:
    """Reference of ``q8ta::pack``: int8 ``[..., M, K]`` to int32 words.

    4H4W (4): ``[..., ceil(M/4), ceil(K/4), 4]``, the last dimension being the row within the block.
    4W (5): ``[..., M, ceil(K/4)]``. Byte 0, the lowest, is the lowest k; padding is 0.
    """
    sizes = tuple(x.shape)
    words_shape = packed_sizes_ref(sizes, layout)
    *batch, rows, depth = sizes
    padded_rows = 4 * _ceil4(rows) if layout == LAYOUT_4H4W else rows
    padded = torch.zeros(*batch, padded_rows, 4 * _ceil4(depth), dtype=torch.int64)
    padded[..., :rows, :depth] = x.to(torch.int64)
    quads = padded.reshape(*batch, padded_rows, _ceil4(depth), 4) & 0xFF
    words = torch.zeros(quads.shape[:-1], dtype=torch.int64)
    for byte in range(4):
        words = words | (quads[..., byte] << (8 * byte))
    words = torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)
    if layout == LAYOUT_4H4W:
        words = words.reshape(*batch, padded_rows // 4, 4, _ceil4(depth)).transpose(-1, -2)
    return words.reshape(words_shape).contiguous()


def tiles_ref(weights: Tensor) -> Tensor:
    """int8 ``[N, K]`` in blocks of 64 rows x 64 bytes of K, as the matrix kernel reads them, zero-padded.

    Of a block chunk c of 16 bytes holds row c // 8 + c // 4 % 2 * 32, columns from 16 * (c % 4) on.
    """
    N, K = weights.shape
    N64, K64 = -(-N // 64), -(-K // 64)
    padded = torch.zeros(64 * N64, 64 * K64, dtype=torch.int8)
    padded[:N, :K] = weights
    blocks = padded.view(N64, 64, K64, 4, 16).transpose(1, 2)  # [N64, K64, row, column, byte]
    chunks = [blocks[:, :, c // 8 + c // 4 % 2 * 32, c % 4] for c in range(256)]
    return torch.stack(chunks, dim=2).reshape(-1)


def unpack_ref(packed: Tensor, layout: int, sizes: list[int] | tuple[int, ...]) -> Tensor:
    """Reference of ``q8ta::unpack``: the inverse of :func:`pack_ref`, int8 of ``sizes``, padding dropped."""
    sizes = tuple(sizes)
    if tuple(packed.shape) != packed_sizes_ref(sizes, layout):
        raise RuntimeError(f"packed has shape {tuple(packed.shape)}, which does not hold {sizes}")
    *batch, rows, depth = sizes
    words = packed.to(torch.int64)
    if layout == LAYOUT_4H4W:
        words = words.transpose(-1, -2).reshape(*batch, 4 * _ceil4(rows), _ceil4(depth))
    quads = torch.stack([(words >> (8 * byte)) & 0xFF for byte in range(4)], dim=-1)
    signed = torch.where(quads >= 128, quads - 256, quads).to(torch.int8)
    flat = signed.reshape(*batch, words.shape[-2], 4 * _ceil4(depth))
    return flat[..., :rows, :depth].contiguous()
