"""Every kernel and tile that can be chosen for a problem computes it bit for bit, and is the one that runs.

Q8TA_TEST_REPEATS repeats each call (100 on a GPU: a race need not show at once). Without it, a software
device, which takes a tenth of a second to compile each, tries only a few candidates in each case.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from forced_paths import DISABLED, missing_kernel
from samples import LinearSample, make_sample, run_in_eight_threads

import q8ta_ops
from q8ta_ops import _C

DEVICE = os.environ["Q8TA_DEVICE"]
REPEATS = int(os.environ.get("Q8TA_TEST_REPEATS", "2"))
THOROUGH = "Q8TA_TEST_REPEATS" in os.environ

pytestmark = [
    pytest.mark.skipif(DEVICE == "host", reason="the session computes on the host"),
    pytest.mark.timeout(600),
]

Sizes = tuple[int, int, int]

# M, K, N off every edge: of tiles of 16 to 256, of words of 4 columns, of chunks of 16 bytes, of the loops
# along K of one or more subgroups.
SHAPES = [
    (1, 1, 1),
    (1, 1100, 67),
    (2, 17, 30),
    (3, 530, 21),
    (4, 100, 40),
    (5, 33, 7),
    (8, 1040, 66),
    (9, 47, 13),
    (17, 129, 131),
    (33, 533, 70),
    (70, 300, 135),
    # Whole tiles, and columns that lanes own; the last row of blocks of columns is shorter.
    (128, 264, 256),
    (20, 1040, 2064),
    # More than eight tiles of rows and than 16 of columns: bands of columns, the last of them narrower.
    (1100, 40, 2200),
]
# Of weights in tiles, which are blocks of 64 rows and 64 bytes of K. The kernel takes two blocks along K in a
# turn, a workgroup of it four blocks of rows; its lanes finish 16 columns each.
IN_TILES = [
    (1, 1, 16),
    (5, 63, 48),
    (127, 64, 64),
    (128, 65, 80),
    (129, 127, 240),
    (128, 128, 256),  # whole tiles
    (256, 129, 256),
    (256, 256, 512),
    (1100, 80, 4400),  # bands of columns of the largest tile, too
    (255, 320, 320),
    (130, 1000, 336),
    (33, 533, 272),
    (384, 1024, 1024),
]
BEYOND_A_BLOCK = (1, 63, 64, 65, 100)
PATHS = [path for path in DISABLED if path != "host"]


def name_of(value: object) -> str | None:
    return "x".join(map(str, value)) if isinstance(value, tuple) else None


@contextmanager
def preferred(sizes: Sizes, float_output: bool, variant: str) -> Iterator[None]:
    """Problems of this shape class are computed by the variant inside the block."""
    _C.prefer_linear(sizes, float_output, variant)
    try:
        yield
    finally:
        _C.prefer_linear(sizes, float_output, "")


def some(candidates: list, sizes: Sizes, path_id: str, float_output: bool) -> list:
    """All candidates; on a software device the first, and a sixth of the others, in each case another."""
    default = q8ta_ops.default_device()
    if THOROUGH or default.device.type != "cpu":
        return candidates
    case = 2 * (len(PATHS) * SHAPES.index(sizes) + PATHS.index(path_id)) + float_output
    return candidates[:1] + candidates[1 + case % 6 :: 6]


def sample_of(sizes: Sizes) -> LinearSample:
    M, K, N = sizes
    return make_sample((M,), K, N, seed=M + K + N, activation="relu" if M % 2 else "none")


@pytest.mark.parametrize("float_output", [False, True], ids=["int8", "float32"])
@pytest.mark.parametrize("path_id", PATHS)
@pytest.mark.parametrize("sizes", SHAPES, ids=name_of)
def test_every_candidate_is_right(sizes: Sizes, path_id: str, float_output: bool) -> None:
    if (reason := missing_kernel(path_id)) is not None:
        pytest.skip(reason)
    sample = sample_of(sizes)
    op = "linear_dequant" if float_output else "linear"
    expected = sample.expected(op)
    with q8ta_ops.use_device(DEVICE, disable=DISABLED[path_id]):
        candidates = _C.linear_candidates(sizes, float_output)
        assert len({variant for variant, _, _ in candidates}) == len(candidates)
        for variant, kernel, workgroups in some(candidates, sizes, path_id, float_output):
            with preferred(sizes, float_output, variant):
                with q8ta_ops.profile() as profile:
                    first = sample.call(op)
                ran = [(d.kernel, d.workgroups) for d in profile.dispatches if d.kernel.startswith("linear_")]
                assert ran == [(kernel, workgroups)], variant
                for result in (first, *(sample.call(op) for _ in range(REPEATS - 1))):
                    assert torch.equal(result, expected), variant


def candidates_in_tiles(sizes: Sizes, float_output: bool = False) -> list[str]:
    """Those that can read weights in tiles."""
    if (reason := missing_kernel("coopmat")) is not None:
        pytest.skip(reason)
    in_tiles = [variant for variant, _, _ in _C.linear_candidates(sizes, float_output, weights_in_tiles=True)]
    assert set(in_tiles) <= {variant for variant, _, _ in _C.linear_candidates(sizes, float_output)}
    return in_tiles


@pytest.mark.parametrize("float_output", [False, True], ids=["int8", "float32"])
@pytest.mark.parametrize("sizes", IN_TILES, ids=name_of)
def test_every_candidate_is_right_of_weights_in_tiles(sizes: Sizes, float_output: bool) -> None:
    """Against the host kernel: calls have their weights in tiles only where the product is large."""
    in_tiles = candidates_in_tiles(sizes, float_output)
    if "NVIDIA" in q8ta_ops.default_device().name:
        assert in_tiles
    for variant in in_tiles:
        for _ in range(REPEATS):
            assert _C.find_difference(sizes, float_output, variant, weights_in_tiles=True) == ""


@pytest.mark.parametrize("beyond", BEYOND_A_BLOCK)
@pytest.mark.parametrize("blocks", [0, 1, 4])
def test_weights_in_tiles_with_rows_beyond_a_block(blocks: int, beyond: int) -> None:
    """Where lanes own no columns, no kernel reads them: all others take rows."""
    sizes = (70, 200, 64 * blocks + beyond)
    in_tiles = candidates_in_tiles(sizes)
    assert not in_tiles or beyond == 64
    for variant in in_tiles:
        assert _C.find_difference(sizes, False, variant, weights_in_tiles=True) == ""


@pytest.mark.parametrize("sizes", [(1, 40, 24), (3, 40, 24), (40, 40, 24)], ids=name_of)
def test_the_first_candidate_is_the_one_that_is_chosen(sizes: Sizes) -> None:
    (_, kernel, workgroups), *_ = _C.linear_candidates(sizes, False)
    with q8ta_ops.profile() as profile:
        sample_of(sizes).call("linear")
    assert [(d.kernel, d.workgroups) for d in profile.dispatches][-1] == (kernel, workgroups)


def test_a_preference_is_for_its_shape_class_alone() -> None:
    sizes, larger = (40, 48, 24), (70, 48, 24)
    usual, other = _C.linear_candidates(sizes, False)[:2]

    def workgroups(shape: Sizes) -> int:
        with q8ta_ops.profile() as profile:
            sample_of(shape).call("linear")
        return profile.dispatches[-1].workgroups

    assert other[2] != usual[2]
    before = workgroups(larger)
    with preferred((33, 48, 24), False, other[0]):  # 33 to 64 rows
        assert workgroups(sizes) == other[2]
        assert workgroups(larger) == before
        with q8ta_ops.use_device(DEVICE, disable=("int_dot",)):
            assert workgroups(sizes) == _C.linear_candidates(sizes, False)[0][2]
    assert workgroups(sizes) == usual[2]


def test_choices_while_eight_threads_compute_and_another_changes_them() -> None:
    samples = [sample_of((M, 40, 24)) for M in (1, 3, 9, 20)]
    expected = [sample.expected("linear") for sample in samples]
    variants = [variant for variant, _, _ in _C.linear_candidates((20, 40, 24), False)]

    def compute(thread: int) -> None:
        for i in range(30):
            index = (thread + i) % len(samples)
            assert torch.equal(samples[index].call("linear"), expected[index])
            if thread == 0:
                _C.prefer_linear((20, 40, 24), False, variants[i % len(variants)])

    try:
        run_in_eight_threads(compute)
    finally:
        _C.prefer_linear((20, 40, 24), False, "")


def test_more_shapes_than_are_remembered() -> None:
    """The table of choices has 1,024 places, which problems that share one take from each other."""
    one = make_sample((1,), 4, 4, seed=1)
    expected = one.expected("linear")
    for columns in range(1, 41):
        for depth in range(1, 31):
            sizes = (1, depth, columns)
            assert _C.tested_kernel(sizes).startswith("linear_gemv/")
    assert torch.equal(one.call("linear"), expected)
