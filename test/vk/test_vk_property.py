"""Properties of vk tensors: any call gives the CPU's bits, on every kernel path of the linear operators."""

from __future__ import annotations

from hypothesis import given
from promised import check_call, keeps_subnormals
from random_elementwise import elementwise_call
from same import to_vk
from strategies import drawn, examples
from test_property_kernels import (  # noqa: F401  collected here, on vk
    test_linear,
    test_pack,
    test_relu_gives_no_negative_zero,
    test_requantize,
    test_subnormal_numbers_are_kept,
    test_unpack,
)


@examples(ci=150)
@given(call=drawn(elementwise_call))
def test_elementwise(call):
    check_call(call, to_vk, preserving=keeps_subnormals(to_vk))
