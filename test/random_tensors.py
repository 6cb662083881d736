"""Random sizes, values and arrangements in memory, for random cases of any operator."""

from __future__ import annotations

import math

import torch
from choosing import LARGEST, Chooser, generator_of, sometimes
from torch import Tensor


def split_rows(chooser: Chooser, rows: int, dimensions: int) -> list[int]:
    """`dimensions` sizes whose product is `rows`."""
    sizes = []
    for _ in range(dimensions - 1):
        divisors = [1, *(d for d in range(2, rows + 1) if rows % d == 0)] if rows else [1, 2, 3]
        sizes.append(chooser.one_of(divisors))
        rows //= sizes[-1]
    return [*sizes, rows] if dimensions else []


def int8_values(chooser: Chooser, *sizes: int) -> Tensor:
    """int8: mostly any values, sometimes small ones, the extremes or a single one."""
    generator = generator_of(chooser)
    kind = chooser.one_of(("any", "any", "any", "small", "extremes", "one"))
    if kind == "small":
        return torch.randint(-3, 4, sizes, dtype=torch.int8, generator=generator)
    if kind == "extremes":
        return torch.where(torch.rand(sizes, generator=generator) < 0.5, -128, 127).to(torch.int8)
    if kind == "one":
        return torch.full(sizes, chooser.one_of((0, -128, 127, 1, -1)), dtype=torch.int8)
    return torch.randint(-128, 128, sizes, dtype=torch.int8, generator=generator)


def float_values(chooser: Chooser, *sizes: int, nan: bool = False) -> Tensor:
    """float32: ordinary, of any magnitude, with few bits (sums and ties are exact), or special ones."""
    generator = generator_of(chooser)
    kind = chooser.one_of(("ordinary", "coarse", "wide", "subnormal", "special"))
    ordinary = torch.randn(sizes, generator=generator)
    if kind == "ordinary":
        return ordinary * 10
    if kind == "coarse":
        return torch.randint(-600, 601, sizes, generator=generator).float() / 4
    if kind == "wide":
        return ordinary * torch.exp2(torch.randint(-148, 127, sizes, generator=generator).double()).float()
    if kind == "subnormal":
        bits = torch.randint(-(2**24), 2**24, sizes, generator=generator).to(torch.int32)
        return torch.where(bits < 0, (bits + 2**24) | -(2**31), bits).to(torch.int32).view(torch.float32)
    special = [0.0, -0.0, 1.0, -1.0, 0.5, 2.5, 1e-45, -1e-45, 1e-39, -1e-39, LARGEST, -LARGEST]
    special += [math.inf, -math.inf] + [math.nan] * nan
    return torch.tensor(special)[torch.randint(0, len(special), sizes, generator=generator)]


def _garbage(length: int, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """What lies around a tensor's elements and must not be used: for floats also infinities and NaNs."""
    bits = torch.randint(-128, 128, (length * dtype.itemsize,), dtype=torch.int8, generator=generator)
    return bits.view(dtype)


def arranged(chooser: Chooser, dense: Tensor) -> Tensor:
    """The same values with other strides and another storage offset, between other values."""
    if sometimes(chooser, 3):
        return dense
    generator = generator_of(chooser)
    steps = [chooser.one_of((1, 1, 1, 2, 3)) for _ in dense.shape]
    # One dimension may be wider than it needs to be, as in a slice of a wider tensor.
    extra = [chooser.one_of((0, 0, 0, 1, 5)) for _ in dense.shape]
    order = list(range(dense.dim()))
    if dense.dim() > 1 and sometimes(chooser, 2):
        order = torch.randperm(dense.dim(), generator=generator).tolist()
    strides, distance = [0] * dense.dim(), 1
    for dimension in reversed(order):
        strides[dimension] = distance * steps[dimension]
        distance *= max(dense.shape[dimension], 1) * steps[dimension] + extra[dimension]
    offset = chooser.one_of((0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 33))
    storage = _garbage(offset + distance + 3, dense.dtype, generator)
    view = storage.as_strided(dense.shape, strides, offset)
    view.copy_(dense)
    return view


def expanded(chooser: Chooser, tensor: Tensor) -> Tensor:
    """Sometimes the first values along a dimension for all of it, by a stride of 0; else the tensor."""
    if not sometimes(chooser, 6) or tensor.dim() == 0:
        return tensor
    dimension = chooser.integer(0, tensor.dim() - 1)
    if tensor.shape[dimension] == 0:
        return tensor
    return tensor.narrow(dimension, 0, 1).expand(tensor.shape)
