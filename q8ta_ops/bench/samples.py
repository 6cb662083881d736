"""The inputs of one shape and the results that every contestant must have."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from ..runtime import use_device
from .shapes import Shape

INPUT_SCALE, INPUT_ZERO_POINT, OUTPUT_ZERO_POINT = 0.02, 3, -4


class WrongResult(Exception):
    """A contestant computed something else than it should: it is not timed."""


class Sample:
    """A linear layer with relu: random int8 x [M, K] and weights [N, K], and scales that use int8's range."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        M, K, N = shape
        generator = torch.Generator().manual_seed(M * 31 + K * 7 + N)
        self.x = torch.randint(-128, 128, (M, K), dtype=torch.int8, generator=generator)
        self.weights = torch.randint(-127, 128, (N, K), dtype=torch.int8, generator=generator)
        self.weight_sums = self.weights.sum(1, dtype=torch.int32)
        self.weight_scales = torch.rand(N, generator=generator) * 0.01 + 1e-3
        self.bias = torch.randn(N, generator=generator)
        self.input_scale, self.input_zero_point = INPUT_SCALE, INPUT_ZERO_POINT
        # A product of two int8 has a standard deviation of about 74 * 73: two of the sum's reach 127.
        self.output_scale = 2 * 5400 * K**0.5 * INPUT_SCALE * 6e-3 / 127
        self.output_zero_point = OUTPUT_ZERO_POINT

    def arguments(self, op: str = "linear") -> tuple:
        """Positional arguments of ``torch.ops.q8ta.<op>``."""
        head = (self.x, self.input_scale, self.input_zero_point)
        head += (self.weights, self.weight_sums, self.weight_scales)
        output = () if op == "linear_dequant" else (self.output_scale, self.output_zero_point)
        return (*head, *output, self.bias, "relu")

    def _on_host(self, op: str) -> Tensor:
        with use_device("host"):
            return getattr(torch.ops.q8ta, op)(*self.arguments(op))

    @cached_property
    def expected(self) -> Tensor:
        """int8 [M, N] by the host kernel, which the tests compare with the reference."""
        return self._on_host("linear")

    @cached_property
    def expected_float(self) -> Tensor:
        """float32 [M, N]: what linear_dequant returns."""
        return self._on_host("linear_dequant")

    def bytes_moved(self, float_output: bool = False) -> int:
        """The fewest bytes that must pass through memory: every input once, every output once."""
        M, K, N = self.shape
        return N * K + M * K + M * N * (4 if float_output else 1) + 12 * N


def check_equal(name: str, result: Tensor, expected: Tensor) -> str:
    """ "equal" if it is.

    Raises:
        WrongResult: it is not; the message says where.
    """
    if result.dtype == expected.dtype and torch.equal(result, expected):
        return "equal"
    if result.dtype != expected.dtype or result.shape != expected.shape:
        raise WrongResult(
            f"{name}: {result.dtype} {tuple(result.shape)}, expected {expected.dtype} {tuple(expected.shape)}"
        )
    wrong = (result != expected).nonzero()
    first = tuple(wrong[0].tolist())
    raise WrongResult(
        f"{name}: {len(wrong)} of {expected.numel()} values differ, the first at {first}: "
        f"{result[first].item()}, expected {expected[first].item()}"
    )
