"""Where random cases get their choices from: a seed, or hypothesis (strategies.py), which shrinks them."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Protocol, TypeVar

import torch

T = TypeVar("T")

SMALLEST = 2.0**-149
"""The smallest float32 > 0; float32 numbers below `SMALLEST_NORMAL` are subnormal."""
SMALLEST_NORMAL = 2.0**-126
LARGEST = float(torch.finfo(torch.float32).max)


class Chooser(Protocol):
    """Makes choices. Earlier options, and numbers near the lower end, count as simpler."""

    def integer(self, low: int, high: int) -> int:
        """Any of low .. high, both ends included."""
        ...

    def one_of(self, options: Sequence[T]) -> T: ...


class SeededChooser:
    """The same choices for the same seed, in every process and on every machine."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def integer(self, low: int, high: int) -> int:
        return self._random.randint(low, high)

    def one_of(self, options: Sequence[T]) -> T:
        return options[self._random.randrange(len(options))]


def sometimes(chooser: Chooser, one_in: int) -> bool:
    """True about once in `one_in` times."""
    return chooser.integer(0, one_in - 1) == one_in - 1


def generator_of(chooser: Chooser) -> torch.Generator:
    """For the elements of tensors, of which nobody wants to choose each."""
    return torch.Generator().manual_seed(chooser.integer(0, 2**31 - 1))


def near_borders(chooser: Chooser, borders: Sequence[int], high: int) -> int:
    """One of the borders, more often than not, or any of 1 .. high."""
    return chooser.one_of(borders) if chooser.integer(0, 2) else chooser.integer(1, high)


def scale_of(chooser: Chooser, low: int, high: int) -> float:
    """A number in 2^low .. 2^(high + 1): a power of two, a float32 number, or one that only doubles hold."""
    exponent = chooser.integer(low, high)
    mantissa = chooser.one_of((1.0, 1.0 + chooser.integer(0, 2**23 - 1) * 2.0**-23, None))
    if mantissa is None:
        mantissa = 1.0 + chooser.integer(0, 2**52 - 1) * 2.0**-52
    return math.ldexp(mantissa, exponent)


def as_output_scale(scale: float) -> float:
    """The nearest scale that the operators take: its reciprocal is a finite float32 > 0."""
    return min(max(scale, 2.0**-127 * 1.01), LARGEST)


def as_input_scale(scale: float) -> float:
    """The nearest scale that the operators take: a finite float32 > 0."""
    return min(max(scale, SMALLEST), LARGEST)
