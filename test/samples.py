"""Sample inputs of the q8ta ops, shared by the tests: every one is made from a seed."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from reference import linear_dequant_ref, linear_ref
from torch import Tensor

OPS = ("linear", "linear_gemv", "linear_dequant")

# (M, K, N) that the original kernel's pull request was tested on.
PULL_REQUEST_SHAPES = (
    *((m, k, n) for m in (1, 4, 32) for k, n in ((64, 32), (128, 64), (256, 128))),
    (1, 512, 512),
    (1, 2048, 2048),
    (1, 512, 9059),
    (256, 2048, 2048),
)

# Around every block, word, subgroup and tile boundary.
GRID_VALUES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65)


def orthogonal_grid(seed: int = 0) -> list[tuple[int, int, int]]:
    """256 triples (M, K, N) of ``GRID_VALUES`` in which every pair of values of every two axes occurs once.

    A Latin square over shuffled values: a defect that needs two particular sizes cannot hide between samples.
    """
    generator = torch.Generator().manual_seed(seed)
    count = len(GRID_VALUES)
    order = torch.randperm(count, generator=generator).tolist()
    return [
        (GRID_VALUES[m], GRID_VALUES[k], GRID_VALUES[order[(m + k) % count]])
        for m in range(count)
        for k in range(count)
    ]


def random_int8(generator: torch.Generator, *sizes: int) -> Tensor:
    """int8 tensor over the whole range -128..127."""
    return torch.randint(-128, 128, sizes, dtype=torch.int8, generator=generator)


def round_up_to_4(length: int) -> int:
    """Length to which ExecuTorch's graphs pad sums, scales and bias."""
    return (length + 3) // 4 * 4


def row_sums(weights: Tensor) -> Tensor:
    """int32 ``[N]``: the sum of each row of int8 ``[N, K]``."""
    return weights.sum(dim=1, dtype=torch.int32)


@dataclass(frozen=True, eq=False)
class LinearSample:
    """The arguments of one call, with the reference's answer at hand."""

    x: Tensor
    input_scale: float
    input_zero_point: int
    weights: Tensor
    weight_sums: Tensor
    weight_scales: Tensor
    output_scale: float
    output_zero_point: int
    bias: Tensor | None = None
    activation: str = "none"

    def arguments(self, op: str) -> tuple:
        """Positional arguments of ``torch.ops.q8ta.<op>``."""
        head = (
            self.x,
            self.input_scale,
            self.input_zero_point,
            self.weights,
            self.weight_sums,
            self.weight_scales,
        )
        output = () if op == "linear_dequant" else (self.output_scale, self.output_zero_point)
        return (*head, *output, self.bias, self.activation)

    def call(self, op: str) -> Tensor:
        """What the package computes."""
        return getattr(torch.ops.q8ta, op).default(*self.arguments(op))

    def expected(self, op: str) -> Tensor:
        """What the reference computes, on the CPU."""
        arguments = self.mapped(Tensor.cpu).arguments(op)
        return (linear_dequant_ref if op == "linear_dequant" else linear_ref)(*arguments)

    def mapped(self, function: Callable[[Tensor], Tensor]) -> LinearSample:
        """The same call with ``function`` of every tensor."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(
            self, **{name: function(value) for name, value in values.items() if isinstance(value, Tensor)}
        )

    @property
    def rows(self) -> int:
        """M: the product of x's leading sizes."""
        return self.x.shape[:-1].numel()

    def with_weights(self, weights: Tensor) -> LinearSample:
        """The same call with other weights and their sums."""
        return replace(self, weights=weights, weight_sums=row_sums(weights))

    def replaced(self, **changes: object) -> LinearSample:
        """The same call with some arguments changed."""
        return replace(self, **changes)

    def ops(self) -> tuple[str, ...]:
        """The ops that take this sample: linear_gemv takes exactly one row."""
        return OPS if self.rows == 1 else ("linear", "linear_dequant")


def make_sample(
    leading: Sequence[int],
    depth: int,
    columns: int,
    seed: int = 0,
    *,
    bias: bool = True,
    activation: str = "none",
    zero_points: tuple[int, int] | None = None,
) -> LinearSample:
    """A random call with x int8 ``[*leading, depth]`` and ``columns`` output channels.

    ``zero_points`` (input, output) are random unless given. The output scale is chosen so that most results
    fall inside the int8 range and some saturate.
    """
    generator = torch.Generator().manual_seed(seed)
    x = random_int8(generator, *leading, depth)
    weights = random_int8(generator, columns, depth)
    weight_scales = torch.rand(columns, generator=generator) * 0.02 + 0.001
    uniform = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    if zero_points is None:
        drawn = torch.randint(-128, 128, (2,), generator=generator).tolist()
        zero_points = (drawn[0], drawn[1])
    input_scale = 0.005 + 0.1 * uniform[0]
    # 74 is the standard deviation of a uniform int8; the input's zero point adds to x's.
    spread = math.hypot(74.0, zero_points[0]) * 74.0 * math.sqrt(depth) * input_scale * 0.011
    return LinearSample(
        x=x,
        input_scale=input_scale,
        input_zero_point=zero_points[0],
        weights=weights,
        weight_sums=row_sums(weights),
        weight_scales=weight_scales,
        output_scale=spread / (30.0 + 60.0 * uniform[1]),
        output_zero_point=zero_points[1],
        bias=torch.randn(columns, generator=generator) * spread * uniform[2] if bias else None,
        activation=activation,
    )


def epilogue_sample(
    y: Tensor, output_scale: float, output_zero_point: int = 0, activation: str = "none"
) -> LinearSample:
    """A call with one row whose float result before requantization is exactly ``y`` (float32 ``[N]``).

    The accumulator is 0, so the bias alone arrives at the epilogue.
    """
    columns = y.numel()
    weights = torch.ones(columns, 1, dtype=torch.int8)
    return LinearSample(
        x=torch.zeros(1, 1, dtype=torch.int8),
        input_scale=1.0,
        input_zero_point=0,
        weights=weights,
        weight_sums=row_sums(weights),
        weight_scales=torch.ones(columns),
        output_scale=output_scale,
        output_zero_point=output_zero_point,
        bias=y,
        activation=activation,
    )


def run_in_eight_threads(work: Callable[[int], None]) -> None:
    """Calls ``work(0)`` to ``work(7)`` at once, each in a thread of its own, and fails if one hangs."""
    threads = [threading.Thread(target=work, args=(thread,), daemon=True) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=90)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
