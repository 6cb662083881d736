"""Observers of activations that may lie behind a clamp (relu6, hardtanh, ...).

Quantizing clamps, too: where the clamp's bounds already become -128 and 127, the clamp itself changes nothing
and the rewrite drops it. torchao's own parameters miss that by one step where a bound falls half way between
two steps, as the bounds of a symmetric range do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchao.quantization.pt2e import HistogramObserver, MinMaxObserver

# How near to the middle between two steps a bound is at risk: more than float32 rounding can move it.
_MARGIN = 2.0**-12
_SHRINK = 1 - 2.0**-9


class _Clamped:
    """Makes an int8 scale a little smaller where `lower` or `upper` misses its end by rounding."""

    def __init__(self, *, lower: float, upper: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lower, self.upper = lower, upper

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """float32 [1] scale and integer [1] zero point."""
        scale, zero_point = super().calculate_qparams()
        if not torch.isfinite(scale).all():
            return scale, zero_point
        return reach_ends(scale, zero_point, self.lower, self.upper), zero_point


class ClampedHistogramObserver(_Clamped, HistogramObserver):
    """torchao's HistogramObserver for values in [lower, upper]."""


class ClampedMinMaxObserver(_Clamped, MinMaxObserver):
    """torchao's MinMaxObserver for values in [lower, upper]."""


def reach_ends(scale: Tensor, zero_point: Tensor, lower: float, upper: float) -> Tensor:
    """The scale, or a slightly smaller one with which no bound lies half a step short of its end.

    Bounds further inside are left alone: then the observed range is wider than [lower, upper], because the
    tensor shares its parameters with others.
    """
    low = lower / scale.item() + zero_point.item()
    high = upper / scale.item() + zero_point.item()
    if abs(low + 127.5) < _MARGIN or abs(high - 126.5) < _MARGIN:
        # Both bounds move outwards, by more than the margin: half a step or more times 1/512.
        return scale * _SHRINK
    return scale
