"""relu, relu6, hardtanh and clamp as one thing: limits that a value is cut to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.fx import Node

from .forms import Quantization
from .nodes import arguments, target_name

_LIMITS_IN_NAME = {"relu": (0.0, math.inf), "relu6": (0.0, 6.0)}
_LIMITS_IN_ARGUMENTS = {
    "hardtanh": ("min_val", "max_val"),
    "clamp": ("min", "max"),
    "clamp_min": ("min", None),
    "clamp_max": (None, "max"),
}


@dataclass(frozen=True)
class Limits:
    """The values that can come out of a clamp: low..high, float32 numbers (or infinities)."""

    low: float = -math.inf
    high: float = math.inf

    def then(self, second: Limits) -> Limits:
        """The limits of this clamp followed by a second one."""
        return Limits(*(min(max(limit, second.low), second.high) for limit in (self.low, self.high)))

    @property
    def is_relu(self) -> bool:
        """Whether this is what the operators call the activation "relu"."""
        return self.low == 0.0 and self.high == math.inf

    @property
    def is_none(self) -> bool:
        """Whether nothing is cut."""
        return self == Limits()

    def activation_under(self, output: Quantization) -> str | None:
        """The activation that gives the same int8 values as this clamp in front of that quantization.

        Quantizing never falls as its input rises. So a limit can go where the value at the limit is quantized
        to the end of int8 already: everything beyond ends there with it.

        Args:
            output: a quantization to -128..127.

        Returns:
            "none" or "relu", or None where neither is exact.
        """
        if self.high != math.inf and quantized(self.high, output) != 127:
            return None
        if self.low == 0.0:
            return "relu"
        if self.low != -math.inf and quantized(self.low, output) != -128:
            return None
        return "none"


def limits_of(node: Node) -> Limits | None:
    """The limits of a node that clamps to literal numbers (relu, relu6, hardtanh, clamp ...), else None."""
    name = target_name(node)
    if not name.startswith("aten.") or not name.endswith(".default"):
        return None
    kind = name.removeprefix("aten.").removesuffix(".default").removesuffix("_")
    if kind in _LIMITS_IN_NAME:
        return Limits(*_LIMITS_IN_NAME[kind])
    if kind not in _LIMITS_IN_ARGUMENTS:
        return None
    call = arguments(node)
    low, high = (None if name is None else call[name] for name in _LIMITS_IN_ARGUMENTS[kind])
    low, high = -math.inf if low is None else low, math.inf if high is None else high
    if not all(isinstance(limit, (int, float)) for limit in (low, high)):
        return None
    # A clamp of a float32 tensor compares in float32.
    low, high = (torch.tensor(limit, dtype=torch.float64).float().item() for limit in (low, high))
    # Not for NaN; and torch lets the upper limit win where they are the wrong way round.
    return Limits(low, high) if low <= high else None


def quantized(value: float, numbers: Quantization) -> int:
    """The int8 value that the operators make of a float32 number (design.md, numerics)."""
    y = torch.tensor(value, dtype=torch.float32)
    scaled = torch.round(y * torch.tensor(1.0 / numbers.scale, dtype=torch.float64).float())
    return int(torch.clamp(scaled + numbers.zero_point, numbers.quant_min, numbers.quant_max))
