"""Every way to make a tensor gives on vk what it gives on the CPU."""

from __future__ import annotations

import pytest
import torch
from same import DTYPES, assert_same, check, sample

CREATED = {
    "empty, then filled": lambda d: torch.empty(2, 3, device=d).fill_(4),
    "empty with a memory format": lambda d: torch.empty(
        2, 3, 4, 5, device=d, memory_format=torch.channels_last
    ).fill_(1),
    "empty in three dimensions": lambda d: torch.empty(
        1, 2, 3, 4, 5, device=d, memory_format=torch.channels_last_3d
    ).fill_(1),
    "empty_strided": lambda d: torch.empty_strided((2, 3), (5, 1), device=d).fill_(2),
    "empty_strided, transposed": lambda d: torch.empty_strided((2, 3), (1, 2), device=d).fill_(2),
    "empty_permuted": lambda d: torch.empty_permuted((2, 3, 4), (2, 0, 1), device=d).fill_(2),
    "zeros": lambda d: torch.zeros(3, 4, device=d),
    "zeros without elements": lambda d: torch.zeros(3, 0, 4, device=d),
    "zeros of no dimension": lambda d: torch.zeros((), device=d),
    "ones": lambda d: torch.ones(7, device=d, dtype=torch.int16),
    "full": lambda d: torch.full((2, 2), 3.5, device=d),
    "full of a bool": lambda d: torch.full((2, 2), True, device=d),
    "full of a complex number": lambda d: torch.full((2,), 1 - 2j, device=d),
    "arange": lambda d: torch.arange(17, device=d),
    "arange of floats": lambda d: torch.arange(0.5, 3, 0.25, device=d),
    "arange downwards": lambda d: torch.arange(5, -5, -2, device=d),
    "linspace": lambda d: torch.linspace(0, 1, 9, device=d),
    "logspace": lambda d: torch.logspace(0, 2, 5, device=d, dtype=torch.float64),
    "eye": lambda d: torch.eye(3, 4, device=d),
    "tensor of a list": lambda d: torch.tensor([[1, 2], [3, 4]], device=d),
    "tensor of a number": lambda d: torch.tensor(2.5, device=d),
    "tensor of nothing": lambda d: torch.tensor([], device=d),
    "tensor with requires_grad": lambda d: torch.tensor([1.0], device=d, requires_grad=True),
    "as_tensor": lambda d: torch.as_tensor([1.5, 2.5], device=d),
    "scalar_tensor": lambda d: torch.scalar_tensor(3, device=d),
    "tril_indices": lambda d: torch.tril_indices(3, 4, device=d),
    "triu_indices": lambda d: torch.triu_indices(3, 4, 1, device=d),
    "hann_window": lambda d: torch.hann_window(8, device=d),
    "complex": lambda d: torch.complex(torch.ones(2, device=d), torch.zeros(2, device=d)),
    "vander": lambda d: torch.vander(torch.arange(4, device=d)),
    "meshgrid": lambda d: torch.meshgrid(torch.arange(2, device=d), torch.arange(3, device=d), indexing="ij"),
    "cartesian_prod": lambda d: torch.cartesian_prod(torch.arange(2, device=d), torch.arange(3, device=d)),
    "device as a context": lambda d: _in_context(d),
    "new Tensor by sizes": lambda d: torch.ones(2, device=d).new(3).fill_(1),
}


def _in_context(device: str) -> torch.Tensor:
    with torch.device(device):
        return torch.ones(3) + torch.arange(3)


@pytest.mark.parametrize("how", CREATED)
def test_created(how):
    create = CREATED[how]
    assert_same(create("vk"), create("cpu"))


LIKE = {
    "empty_like": lambda x: torch.empty_like(x).fill_(1),
    "empty_like, other dtype": lambda x: torch.empty_like(x, dtype=torch.int32).fill_(1),
    "empty_like, contiguous": lambda x: torch.empty_like(x, memory_format=torch.contiguous_format).fill_(1),
    "zeros_like": torch.zeros_like,
    "ones_like": torch.ones_like,
    "full_like": lambda x: torch.full_like(x, 3),
    "new_empty": lambda x: x.new_empty(2, 3).fill_(1),
    "new_empty_strided": lambda x: x.new_empty_strided((2, 3), (1, 4)).fill_(1),
    "new_zeros": lambda x: x.new_zeros(3),
    "new_ones": lambda x: x.new_ones(3, 2),
    "new_full": lambda x: x.new_full((2, 2), 7),
    "new_tensor": lambda x: x.new_tensor([1, 2]),
    "clone": torch.clone,
    "clone, contiguous": lambda x: x.clone(memory_format=torch.contiguous_format),
    "contiguous": lambda x: x.contiguous(),
    "detach": lambda x: x.detach(),
    "alias": lambda x: torch.ops.aten.alias(x),
}


@pytest.mark.parametrize("how", LIKE)
def test_created_like_another(how):
    check(LIKE[how], sample(3, 4))
    check(LIKE[how], sample(3, 4, dtype=torch.int64).t())
    check(LIKE[how], sample(2, 3, 4, 5).to(memory_format=torch.channels_last))
    check(LIKE[how], sample(4, 6)[:, 1:4])
    check(LIKE[how], sample(0, 3))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_fills_and_comes_back(dtype):
    assert_same(torch.zeros(5, dtype=dtype, device="vk"), torch.zeros(5, dtype=dtype))
    for size in (1, 2, 3, 5, 8, 129):  # also sizes whose bytes are no multiple of a word
        assert_same(torch.ones(size, dtype=dtype, device="vk"), torch.ones(size, dtype=dtype))
    check(lambda x: x.clone().fill_(1), sample(3, 5, dtype=dtype))


@pytest.mark.parametrize(
    "dtype", [torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2], ids=str
)
def test_rarer_dtypes_travel(dtype):
    values = torch.arange(6).to(dtype)
    on_vk = values.to("vk")
    assert on_vk.dtype == dtype
    assert torch.equal(on_vk.cpu().view(torch.uint8), values.view(torch.uint8))
    assert torch.equal(on_vk[1:4].clone().cpu().view(torch.uint8), values[1:4].clone().view(torch.uint8))


RANDOM = {
    "rand": lambda d: torch.rand(9, device=d),
    "randn": lambda d: torch.randn(3, 3, device=d),
    "randint": lambda d: torch.randint(-5, 5, (9,), device=d),
    "randperm": lambda d: torch.randperm(9, device=d),
    "rand_like": lambda d: torch.rand_like(torch.empty(5, device=d)),
    "randn_like": lambda d: torch.randn_like(torch.empty(5, device=d)),
    "normal_": lambda d: torch.empty(5, device=d).normal_(1, 2),
    "uniform_": lambda d: torch.empty(5, device=d).uniform_(1, 2),
    "bernoulli": lambda d: torch.bernoulli(torch.full((9,), 0.5, device=d)),
    "multinomial": lambda d: torch.multinomial(torch.ones(5, device=d), 3),
    "dropout": lambda d: torch.nn.functional.dropout(torch.ones(9, device=d), 0.5),
}


@pytest.mark.parametrize("how", RANDOM)
def test_random_numbers_are_the_cpus(how):
    draw = RANDOM[how]
    torch.manual_seed(5)
    on_vk = draw("vk")
    torch.manual_seed(5)
    assert_same(on_vk, draw("cpu"))


def test_a_generator_of_the_device():
    first = torch.rand(4, device="vk", generator=torch.Generator("cpu").manual_seed(3))
    assert torch.equal(first.cpu(), torch.rand(4, generator=torch.Generator().manual_seed(3)))


def test_fork_rng_restores_the_state():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with torch.random.fork_rng(device_type="vk"):
        torch.rand(5, device="vk")
    assert torch.equal(torch.rand(3, device="vk").cpu(), expected)


def test_nn_init_and_parameters():
    torch.manual_seed(2)
    on_vk = torch.nn.Linear(4, 3, device="vk")
    torch.manual_seed(2)
    on_cpu = torch.nn.Linear(4, 3)
    assert_same(dict(on_vk.named_parameters()), dict(on_cpu.named_parameters()))
