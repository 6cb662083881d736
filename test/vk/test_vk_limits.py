"""Sizes past the devices' limits, on vk: the tests of test_limits.py."""

from collections.abc import Iterator

import pytest
import torch
from test_limits import (  # noqa: F401  collected here, on vk
    on_the_session_device,
    test_more_workgroups_than_one_dimension_takes,
    test_output_over_the_binding_range,
    test_pack_of_long_and_of_wide_tensors,
    test_weights_over_the_binding_range,
    test_x_over_the_binding_range,
)


@pytest.fixture(autouse=True)
def memory_goes_back(on_the_session_device: None) -> Iterator[None]:  # noqa: F811
    yield
    torch.vk.empty_cache()


def test_a_copy_is_cut_into_pieces_for_a_slow_gpu() -> None:
    """A GPU that moves 8 GB/s takes too long over more than 1 GiB for some watchdogs."""
    edges = (slice(0, 5), slice((1 << 30) - 3, (1 << 30) + 2), slice((1 << 30) + 2, None))
    x, y = (torch.empty((1 << 30) + 7, dtype=torch.int8, device="vk") for _ in range(2))
    for value, edge in enumerate(edges):
        x[edge].fill_(value)
    with torch.vk.profile() as profile:
        y.copy_(x)
    assert [dispatch.op for dispatch in profile.dispatches] == ["copy", "copy"]
    assert [dispatch.bytes for dispatch in profile.dispatches] == [2 << 30, 14]
    for value, edge in enumerate(edges):
        assert torch.equal(y[edge].cpu(), torch.full((5,), value, dtype=torch.int8))
