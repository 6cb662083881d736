"""pack and unpack on vk: every test of test_pack.py, and what only a device can get wrong."""

from __future__ import annotations

import pytest
import torch
from reference import pack_ref
from same import to_vk
from samples import random_int8
from test_pack import (  # noqa: F401  collected here, on vk
    LAYOUTS,
    check,
    test_4w_equals_the_contiguous_tensor,
    test_bad_words,
    test_bad_x,
    test_batches,
    test_empty,
    test_sizes,
    test_sizes_that_the_words_do_not_hold,
    test_strides,
    test_the_kernel_named_in_the_profile_ran,
    test_unknown_layouts,
    test_unpack_drops_whatever_the_padding_holds,
    test_unpack_takes_strided_words,
    test_words_hold_the_lowest_index_in_the_lowest_byte,
)

import q8ta_ops


@LAYOUTS
def test_any_storage_offset(layout):
    x = random_int8(torch.Generator().manual_seed(1), 6, 7)
    words = pack_ref(x, layout)
    for offset in (1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65):
        room = torch.full((offset + x.numel() + 3,), 99, dtype=torch.int8)
        room[offset:-3] = x.reshape(-1)
        check(room[offset:-3].view(x.shape), layout, to_vk)
        many = torch.full((offset + words.numel(),), -1, dtype=torch.int32)
        many[offset:] = words.reshape(-1)
        back = torch.ops.q8ta.unpack(to_vk(many)[offset:].view(words.shape), layout, list(x.shape))
        assert torch.equal(back.cpu(), x)


@LAYOUTS
def test_nothing_behind_the_result_is_written(layout):
    """unpack writes whole words: the last one may hold bytes that are no one's."""
    for depth in (1, 2, 3, 5, 6, 7):
        x = random_int8(torch.Generator().manual_seed(depth), 3, depth)
        words = torch.ops.q8ta.pack(to_vk(x), layout)
        results = [torch.ops.q8ta.unpack(words, layout, [3, depth]) for _ in range(20)]
        assert all(torch.equal(result.cpu(), x) for result in results)


@LAYOUTS
def test_queued_chains(layout):
    """Nobody waits between the operators, and nothing falls back to the CPU."""
    x = random_int8(torch.Generator().manual_seed(3), 37, 53)
    y = to_vk(x)
    torch.vk.reset_fallbacks()
    for _ in range(50):
        y = torch.ops.q8ta.unpack(torch.ops.q8ta.pack(y, layout), layout, list(x.shape))
    assert torch.vk.fallbacks() == {} and torch.equal(y.cpu(), x)


@LAYOUTS
@pytest.mark.parametrize("sizes", [(3, 40, 1 << 20), (3, 3 << 20 | 1, 15), (1 << 17, 31, 34)], ids=str)
def test_more_than_one_binding_takes(layout, sizes):
    """128 MiB on lavapipe: done in pieces of one matrix, of rows of odd length, of many matrices."""
    if torch.vk.get_device_properties().features["max_binding_bytes"] > 1 << 27:
        pytest.skip("the device's bindings take it all")
    generator = torch.Generator().manual_seed(4)
    x = torch.randint(-(1 << 62), 1 << 62, (-(-torch.Size(sizes).numel() // 8),), generator=generator)
    x = x.view(torch.int8)[: torch.Size(sizes).numel()].view(sizes)
    with q8ta_ops.use_device("host"):
        expected = torch.ops.q8ta.pack(x, layout)
    words = torch.ops.q8ta.pack(x.to("vk"), layout)
    assert torch.equal(words.cpu(), expected)
    back = torch.ops.q8ta.unpack(words, layout, list(sizes))
    del words
    assert torch.equal(back.cpu(), x)
    del back
    torch.vk.empty_cache()


@LAYOUTS
def test_rows_that_no_binding_takes_are_refused(layout):
    most = torch.vk.get_device_properties().features["max_binding_bytes"]
    if most > 1 << 27:
        pytest.skip("the device's bindings take it all")
    with pytest.raises(RuntimeError, match=r"\bx\b.*four rows.*binding"):
        torch.ops.q8ta.pack(torch.empty(1, most // 4, dtype=torch.int8, device="vk"), layout)
    torch.vk.empty_cache()
