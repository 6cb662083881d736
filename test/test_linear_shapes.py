"""linear, linear_gemv and linear_dequant equal the reference for every size, on every forced kernel path."""

from __future__ import annotations

from functools import lru_cache

import pytest
from samples import GRID_VALUES, PULL_REQUEST_SHAPES, LinearSample, make_sample, orthogonal_grid

LARGE = (256, 2048, 2048)
SMALL_SHAPES = [shape for shape in PULL_REQUEST_SHAPES if shape != LARGE]
GRID = orthogonal_grid()


@lru_cache(maxsize=4)
def large_sample() -> tuple[LinearSample, object]:
    """The largest shape with its expected result, computed once for all paths."""
    rows, depth, columns = LARGE
    sample = make_sample((rows,), depth, columns, seed=11, activation="relu", zero_points=(-3, 7))
    return sample, sample.expected("linear")


@pytest.mark.kernels
@pytest.mark.parametrize("activation", ["none", "relu"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("shape", SMALL_SHAPES, ids=str)
def test_pull_request_shapes(path, shape, bias, activation):
    rows, depth, columns = shape
    path.check(make_sample((rows,), depth, columns, seed=sum(shape), bias=bias, activation=activation))


def test_largest_pull_request_shape(path):
    sample, expected = large_sample()
    path.check(sample, "linear", expected=expected)


@pytest.mark.kernels
@pytest.mark.parametrize("rows", GRID_VALUES)
def test_size_grid(path, rows):
    for seed, (m, depth, columns) in enumerate(GRID):
        if m == rows:
            path.check(grid_sample(m, depth, columns, seed))


@pytest.mark.kernels
@pytest.mark.parametrize("depth", GRID_VALUES)
def test_gemv_size_grid(path, depth):
    for seed, columns in enumerate(GRID_VALUES):
        path.check(grid_sample(1, depth, columns, 1000 + 16 * depth + seed), "linear_gemv", "linear_dequant")


def grid_sample(rows: int, depth: int, columns: int, seed: int) -> LinearSample:
    """Bias and relu in all four combinations over consecutive seeds, zero points random."""
    return make_sample(
        (rows,), depth, columns, seed, bias=seed % 2 == 0, activation="relu" if seed // 2 % 2 else "none"
    )


def test_the_grid_covers_every_pair_of_sizes():
    pairs = {(axes, t[axes[0]], t[axes[1]]) for t in GRID for axes in ((0, 1), (0, 2), (1, 2))}
    assert len(GRID) == 256 and len(pairs) == 3 * 256
