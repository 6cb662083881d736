"""Random calls of the linear operators: every choice that a caller has, with a liking for borders."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from choosing import (
    LARGEST,
    SMALLEST,
    Chooser,
    as_input_scale,
    as_output_scale,
    generator_of,
    near_borders,
    scale_of,
    sometimes,
)
from random_tensors import arranged, expanded, float_values, int8_values, split_rows
from samples import LinearSample, round_up_to_4, row_sums
from torch import Tensor

ROWS = (1, 1, 1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129)
DEPTHS = (1, 2, 3, 4, 5, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257)
COLUMNS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129)


@dataclass(frozen=True)
class Case:
    """One call: the operator's name and its arguments."""

    op: str
    sample: LinearSample

    def __str__(self) -> str:
        s = self.sample
        values = (
            f"{name} {tuple(value.shape)} strides {value.stride()} offset {value.storage_offset()}"
            for name, value in vars(s).items()
            if isinstance(value, Tensor)
        )
        return (
            f"{self.op}: scales {s.input_scale!r} -> {s.output_scale!r}, zero points {s.input_zero_point} "
            f"-> {s.output_zero_point}, activation {s.activation}, bias {s.bias is not None}; "
            + "; ".join(values)
        )


def _sizes(chooser: Chooser, most_products: int) -> tuple[int, int, int]:
    """M, K, N whose product is at most `most_products`, or one row of one column."""
    rows = near_borders(chooser, ROWS, 130)
    depth, columns = near_borders(chooser, DEPTHS, 300), near_borders(chooser, COLUMNS, 200)
    if sometimes(chooser, 12):
        depth = chooser.integer(300, 9000)
    if sometimes(chooser, 24):
        columns = chooser.integer(200, 3000)
    if sometimes(chooser, 24):
        rows = chooser.integer(130, 700)
    columns = max(1, min(columns, most_products // depth))
    return max(1, min(rows, most_products // (depth * columns))), depth, columns


def _weight_scales(chooser: Chooser, columns: int, low: int, high: int) -> Tensor:
    """float32 [N] of about 2^low to 2^high: one number for all, powers of two, or any."""
    generator = generator_of(chooser)
    kind = chooser.one_of(("any", "one", "powers of two"))
    if kind == "one":
        return torch.full((columns,), scale_of(chooser, low, high), dtype=torch.float64).float()
    scales = torch.exp2(torch.randint(low, high + 1, (columns,), generator=generator).double())
    if kind == "any":
        scales *= 1 + torch.rand(columns, generator=generator, dtype=torch.float64)
    return scales.clamp(SMALLEST, LARGEST).float()


def _bias(chooser: Chooser, columns: int, spread: float) -> Tensor | None:
    kind = chooser.one_of(("none", "fitting", "fitting", "zero", "any"))
    if kind == "none":
        return None
    if kind == "zero":
        return torch.full((columns,), chooser.one_of((0.0, -0.0)))
    if kind == "any":
        return float_values(chooser, columns)
    values = torch.randn(columns, generator=generator_of(chooser), dtype=torch.float64) * spread
    return values.clamp(-LARGEST, LARGEST).float()


def _per_channel(chooser: Chooser, values: Tensor) -> Tensor:
    """[N], or padded to N rounded up to 4 with what must not be used; in some arrangement."""
    missing = round_up_to_4(len(values)) - len(values)
    if missing and sometimes(chooser, 3):
        padding = (
            torch.full((missing,), -(2**31))
            if values.dtype == torch.int32
            else torch.full((missing,), math.nan)
        )
        values = torch.cat([values, padding.to(values.dtype)])
    return arranged(chooser, values)


def linear_case(chooser: Chooser, most_products: int = 2_000_000) -> Case:
    """A call of linear, linear_gemv or linear_dequant with at most about `most_products` products."""
    rows, depth, columns = _sizes(chooser, most_products)
    leading = split_rows(chooser, rows, chooser.integer(0 if rows == 1 else 1, 4))
    if leading and sometimes(chooser, 30):
        leading[chooser.integer(0, len(leading) - 1)] = 0
    x = expanded(chooser, arranged(chooser, int8_values(chooser, *leading, depth)))
    weights = expanded(chooser, arranged(chooser, int8_values(chooser, columns, depth)))

    # Exponents of two of the input's scale and of the weights': 15 orders of magnitude each in "wide".
    ranges = {
        "ordinary": ((-10, -3), (-10, -5)),
        "exact": ((-4, 4), (-4, 4)),
        "wide": ((-50, 50), (-50, 50)),
        "wider": ((-126, 126), (-126, 126)),
        "subnormal": ((-149, -60), (-110, 20)),
    }
    magnitude = chooser.one_of(("ordinary", "ordinary", "exact", "wide", "wide", "wider", "subnormal"))
    of_input, of_weights = ranges[magnitude]
    input_scale = as_input_scale(scale_of(chooser, *of_input))
    weight_scales = _weight_scales(chooser, columns, *of_weights)
    input_zero_point = chooser.one_of((0, -128, 127, chooser.integer(-128, 127)))
    output_zero_point = chooser.one_of((0, -128, 127, chooser.integer(-128, 127)))
    sums = row_sums(weights)
    if sometimes(chooser, 20):  # they are used as given
        sums = sums + torch.arange(columns, dtype=torch.int32) * 100

    plain = LinearSample(
        x, input_scale, input_zero_point, weights, sums, weight_scales, 1.0, output_zero_point
    )
    y = plain.expected("linear_dequant").double().abs()
    spread = y[y.isfinite()].max().item() if y.isfinite().any() else 1.0
    spread = max(spread, SMALLEST)
    bias = _bias(chooser, columns, spread)
    if magnitude == "exact":  # halves on purpose
        output_scale = math.ldexp(1.0, math.ceil(math.log2(spread)) - chooser.integer(1, 8))
    elif sometimes(chooser, 4):
        output_scale = scale_of(chooser, -127, 127)
    else:
        output_scale = spread / chooser.integer(1, 1000)
    sample = plain.replaced(
        weight_sums=_per_channel(chooser, sums),
        weight_scales=_per_channel(chooser, weight_scales),
        output_scale=as_output_scale(output_scale),
        bias=None if bias is None else _per_channel(chooser, bias),
        activation=chooser.one_of(("none", "relu")),
    )
    return Case(chooser.one_of(sample.ops()), sample)
