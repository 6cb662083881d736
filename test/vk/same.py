"""Doing the same on the CPU and on vk, and comparing everything that can be seen of the results."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map

DTYPES = (
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
)


def sample(*sizes: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    """Values that every dtype holds exactly: small integers (of both signs where the dtype has them)."""
    generator = torch.Generator().manual_seed(seed)
    low = 0 if dtype in (torch.bool, torch.uint8) else -9
    high = 2 if dtype == torch.bool else 10
    values = torch.randint(low, high, sizes, generator=generator)
    if dtype.is_complex:
        return torch.complex(values.double(), values.flip(0).double() if sizes else values.double()).to(dtype)
    return values.to(dtype)


SIZES = [(), (1,), (3,), (4,), (5, 7), (2, 3, 5), (0, 3), (1000,), (257, 129)]
SPECIAL = torch.tensor(
    [0.0, -0.0, 1e-45, -1e-40, 1.5, -2.5, 3e38, -3e38, math.inf, -math.inf, math.nan, 0.5, -0.5, 127.5, 1e9]
)


def floats(*sizes: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed)) * 50


def to_vk(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor on vk with the same storage around it: the same strides and storage offset."""
    if tensor.device.type != "cpu":
        return tensor
    whole = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage()).to("vk")
    moved = whole.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())
    return moved.requires_grad_(tensor.requires_grad)


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    storage = tensor.detach().untyped_storage().clone()
    copy = torch.empty(0, dtype=tensor.dtype)
    copy.set_(storage, tensor.storage_offset(), tensor.size(), tensor.stride())
    return copy.requires_grad_(tensor.requires_grad)


def _map_tensors(function: Callable[[torch.Tensor], torch.Tensor], values: Any) -> Any:
    return tree_map(lambda value: function(value) if isinstance(value, torch.Tensor) else value, values)


def assert_same(on_vk: Any, on_cpu: Any, what: str = "result", *, layout: bool = True) -> None:
    """Equal values, dtypes and sizes (with `layout` also strides and offsets), each tensor on its device."""
    vk_leaves, vk_tree = tree_flatten(on_vk)
    cpu_leaves, cpu_tree = tree_flatten(on_cpu)
    assert vk_tree == cpu_tree, what
    for got, want in zip(vk_leaves, cpu_leaves, strict=True):
        if not isinstance(want, torch.Tensor):
            assert type(got) is type(want) and (got == want or got != got and want != want), what
            continue
        assert got.device.type == "vk" and want.device.type == "cpu", f"{what} is on {got.device}"
        assert (got.dtype, got.shape) == (want.dtype, want.shape), what
        if layout:
            assert (got.stride(), got.storage_offset()) == (want.stride(), want.storage_offset()), what
        assert (got.requires_grad, got.is_leaf) == (want.requires_grad, want.is_leaf), what
        brought = got.detach().cpu()
        assert brought.device.type == "cpu" and brought.dtype == want.dtype, what
        torch.testing.assert_close(brought, want.detach(), rtol=0, atol=0, equal_nan=True, msg=what)


def check(function: Callable[..., Any], *inputs: Any, layout: bool = True) -> Any:
    """Calls `function` with CPU inputs and with the same ones on vk; compares results and inputs afterwards.

    Returns the result on vk.
    """
    cpu_inputs = _map_tensors(_copied, inputs)
    vk_inputs = _map_tensors(to_vk, _map_tensors(_copied, inputs))
    want = function(*cpu_inputs)
    got = function(*vk_inputs)
    assert_same(got, want, layout=layout)
    assert_same(vk_inputs, cpu_inputs, "an input afterwards")
    return got
