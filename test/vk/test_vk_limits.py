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
