"""pack and unpack equal the reference in both layouts; what does not fit is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from reference import pack_ref, unpack_ref
from samples import random_int8

import q8ta_ops
from q8ta_ops import Layout

LAYOUTS = pytest.mark.parametrize(
    "layout", [Layout.PACKED_INT8_4H4W, Layout.PACKED_INT8_4W], ids=["4H4W", "4W"]
)
LENGTHS = (1, 2, 3, 4, 5, 7, 8, 9, 31, 33, 64, 65)


Place = Callable[[torch.Tensor], torch.Tensor]


def check(x: torch.Tensor, layout: int, place: Place) -> None:
    """Packs x, unpacks it again and compares both ways with the reference."""
    placed = place(x)
    words = torch.ops.q8ta.pack(placed, layout)
    expected = pack_ref(x, layout)
    assert words.dtype == torch.int32 and words.shape == expected.shape and words.is_contiguous()
    assert words.device == placed.device and torch.equal(words.cpu(), expected)
    back = torch.ops.q8ta.unpack(words, layout, list(x.shape))
    assert back.dtype == torch.int8 and back.shape == x.shape and back.is_contiguous()
    assert back.device == placed.device and torch.equal(back.cpu(), x) and torch.equal(placed.cpu(), x)


def test_layout_values_are_those_of_exported_files():
    assert {layout.name: int(layout) for layout in Layout} == {
        "PACKED_INT8_4W4C": 3,
        "PACKED_INT8_4H4W": 4,
        "PACKED_INT8_4W": 5,
    }


@pytest.mark.kernels
@LAYOUTS
@pytest.mark.parametrize("rows", LENGTHS)
def test_sizes(target, place, layout, rows):
    generator = torch.Generator().manual_seed(rows)
    for depth in LENGTHS:
        check(random_int8(generator, rows, depth), layout, place)


@pytest.mark.kernels
@LAYOUTS
@pytest.mark.parametrize("leading", [(1,), (3,), (2, 3), (5, 1, 2)], ids=str)
def test_batches(target, place, layout, leading):
    check(random_int8(torch.Generator().manual_seed(1), *leading, 6, 10), layout, place)


@LAYOUTS
@pytest.mark.parametrize("sizes", [(0, 5), (5, 0), (0, 0), (0, 3, 5), (2, 0, 5), (2, 3, 0)], ids=str)
def test_empty(target, place, layout, sizes):
    with q8ta_ops.profile() as profile:
        check(torch.empty(sizes, dtype=torch.int8), layout, place)
    assert profile.dispatches == []


@LAYOUTS
def test_strides(target, place, layout):
    x = random_int8(torch.Generator().manual_seed(2), 3, 14, 18)
    flat = random_int8(torch.Generator().manual_seed(3), 1 + 9 * 7)
    for view in (
        x.transpose(1, 2),
        x.transpose(0, 1),
        x[:, ::2, ::3],
        x[:, 1:, 3:],
        x[0, :1].expand(5, 18),
        flat[1:].view(9, 7),
    ):
        check(view, layout, place)


def test_words_hold_the_lowest_index_in_the_lowest_byte(target, place):
    x = place(torch.arange(1, 1 + 5 * 6, dtype=torch.int8).reshape(5, 6))
    rows = torch.ops.q8ta.pack(x, Layout.PACKED_INT8_4W)
    assert rows.tolist()[0] == [0x04030201, 0x00000605]
    blocks = torch.ops.q8ta.pack(x, Layout.PACKED_INT8_4H4W)
    assert blocks.shape == (2, 2, 4)
    assert blocks[0, 0].tolist() == [0x04030201, 0x0A090807, 0x100F0E0D, 0x16151413]
    assert blocks[1].tolist() == [[0x1C1B1A19, 0, 0, 0], [0x00001E1D, 0, 0, 0]]
    assert torch.ops.q8ta.pack(place(torch.full((1, 1), -1, dtype=torch.int8)), 5).item() == 0xFF
    assert torch.ops.q8ta.pack(place(torch.full((1, 4), -1, dtype=torch.int8)), 5).item() == -1


def test_4w_equals_the_contiguous_tensor(target, place):
    x = random_int8(torch.Generator().manual_seed(4), 7, 12)
    words = torch.ops.q8ta.pack(place(x), Layout.PACKED_INT8_4W)
    assert torch.equal(words.cpu(), x.view(torch.int32))


@LAYOUTS
def test_unpack_drops_whatever_the_padding_holds(target, place, layout):
    x = random_int8(torch.Generator().manual_seed(5), 2, 5, 7)
    words = pack_ref(x, layout)
    padding = pack_ref(torch.ones_like(x), layout) * 0xFF
    garbage = words | torch.bitwise_not(padding)
    assert not torch.equal(garbage, words)
    assert torch.equal(torch.ops.q8ta.unpack(place(garbage), layout, [2, 5, 7]).cpu(), x)


@LAYOUTS
def test_unpack_takes_strided_words(target, place, layout):
    x = random_int8(torch.Generator().manual_seed(6), 9, 11)
    words = pack_ref(x, layout)
    strided = torch.stack([words, words + 1], dim=-1)[..., 0]
    assert not strided.is_contiguous()
    assert torch.equal(torch.ops.q8ta.unpack(place(strided), layout, [9, 11]).cpu(), x)
    assert torch.equal(unpack_ref(words, layout, [9, 11]), x)


@LAYOUTS
def test_the_kernel_named_in_the_profile_ran(target, place, layout):
    if q8ta_ops.default_device().device is None:
        pytest.skip("the session computes on the host")
    suffix = "4h4w" if layout == Layout.PACKED_INT8_4H4W else "4w"
    x = random_int8(torch.Generator().manual_seed(7), 33, 65)
    with q8ta_ops.profile() as profile:
        check(x, layout, place)
    assert [(d.op, d.kernel) for d in profile.dispatches if "pack" in d.op] == [
        ("pack", f"pack/{suffix}"),
        ("unpack", f"unpack/{suffix}"),
    ]


GOOD = torch.zeros(4, 8, dtype=torch.int8)
GOOD_WORDS = torch.zeros(4, 2, dtype=torch.int32)


@pytest.mark.parametrize("layout", [3, 0, 1, 2, 6, -1, 255])
def test_unknown_layouts(target, place, layout):
    with pytest.raises((RuntimeError, ValueError), match="layout"):
        torch.ops.q8ta.pack(place(GOOD), layout)
    with pytest.raises((RuntimeError, ValueError), match="layout"):
        torch.ops.q8ta.unpack(place(GOOD_WORDS), layout, [4, 8])
    check(random_int8(torch.Generator().manual_seed(8), 4, 8), Layout.PACKED_INT8_4W, place)


@LAYOUTS
@pytest.mark.parametrize(
    "x",
    [GOOD.to(torch.uint8), GOOD.float(), GOOD.int(), GOOD[0], GOOD[0, 0]],
    ids=lambda x: f"{x.dtype}{x.dim()}",
)
def test_bad_x(target, place, layout, x):
    with pytest.raises((RuntimeError, ValueError, TypeError), match=r"\bx\b"):
        torch.ops.q8ta.pack(place(x), layout)
    check(random_int8(torch.Generator().manual_seed(9), 4, 8), layout, place)


@LAYOUTS
@pytest.mark.parametrize("words", [GOOD_WORDS.long(), GOOD_WORDS.float(), GOOD], ids=lambda x: str(x.dtype))
def test_bad_words(target, place, layout, words):
    with pytest.raises((RuntimeError, ValueError, TypeError), match=r"\bpacked\b"):
        torch.ops.q8ta.unpack(place(words), layout, [4, 8])


@LAYOUTS
@pytest.mark.parametrize("sizes", [[], [8], [4, 9], [5, 8], [1, 4, 8], [2, 4, 8], [-4, 8], [4, -8]], ids=str)
def test_sizes_that_the_words_do_not_hold(target, place, layout, sizes):
    x = random_int8(torch.Generator().manual_seed(10), 4, 8)
    words = place(pack_ref(x, layout))
    with pytest.raises((RuntimeError, ValueError), match=r"\b(sizes|packed)\b"):
        torch.ops.q8ta.unpack(words, layout, sizes)
    assert torch.equal(torch.ops.q8ta.unpack(words, layout, [4, 8]).cpu(), x)
