"""fill_, zero_ and what is made of them, in every dtype, at any place, and in graphs: nothing is uploaded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from graphs import captured
from same import DTYPES, check, sample
from torch import Tensor

VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "all": lambda x: x,
    "transposed": lambda x: x.t(),
    "rows": lambda x: x[1:3],
    "one element": lambda x: x[2, 3],
    "every other": lambda x: x[::2, 1::3],
    "odd pieces": lambda x: x.view(-1)[5:8],
    "nothing": lambda x: x[:0],
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("view", VIEWS)
def test_fill(view, dtype):
    value = True if dtype == torch.bool else 3 if not dtype.is_complex else 3 - 2j

    def fill(x: Tensor) -> Tensor:
        VIEWS[view](x).fill_(value)
        return x

    def zero(x: Tensor) -> Tensor:
        VIEWS[view](x).zero_()
        return x

    for size in ((5, 7), (4, 4)):
        check(fill, sample(*size, dtype=dtype))
        check(zero, sample(*size, dtype=dtype, seed=1))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_fills_in_a_graph(dtype):
    """A graph cannot hold an upload."""
    x = sample(5, 7, dtype=dtype)
    on_vk = x.to("vk")
    options = {"dtype": dtype, "device": "vk"}
    graph, made = captured(
        lambda: [
            torch.zeros(3, **options),
            torch.full((2, 3), 1, **options),
            torch.ones_like(on_vk),
            on_vk.new_zeros(1),
            on_vk[1:, ::2].fill_(1),
        ]
    )
    assert torch.equal(on_vk.cpu(), x), "nothing of it has happened"
    for _ in range(2):
        graph.replay()
        x[1:, ::2].fill_(1)
        wanted = [
            torch.zeros(3, dtype=dtype),
            torch.full((2, 3), 1, dtype=dtype),
            torch.ones_like(x),
            x.new_zeros(1),
            x[1:, ::2],
        ]
        assert all(torch.equal(got.cpu(), want) for got, want in zip(made, wanted, strict=True))
        assert torch.equal(on_vk.cpu(), x)
        x = sample(5, 7, dtype=dtype, seed=2)
        on_vk.copy_(x)
        for tensor in made[:4]:
            tensor.copy_(sample(*tensor.shape, dtype=dtype, seed=3))


@pytest.mark.parametrize("dtype", [torch.int8, torch.float64])
def test_more_than_one_dispatch_fills(dtype):
    count = ((64 << 20) + 4096) // dtype.itemsize
    x = torch.full((count,), 5, dtype=dtype, device="vk")
    with torch.vk.profile() as profile:
        x.fill_(7)
    assert [dispatch.kernel for dispatch in profile.dispatches] == ["fill", "fill"]
    assert torch.equal(x.cpu(), torch.full((count,), 7, dtype=dtype))
