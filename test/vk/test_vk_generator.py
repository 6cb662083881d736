"""Random numbers are made on the CPU: generators of the device are the CPU's, and so are their numbers."""

from __future__ import annotations

import torch


def test_a_generator_of_its_own() -> None:
    generator = torch.Generator(device="vk")
    generator.manual_seed(7)
    numbers = torch.randn(20, generator=generator)
    assert torch.equal(numbers, torch.randn(20, generator=torch.Generator().manual_seed(7)))


def test_the_default_generator() -> None:
    torch.manual_seed(3)
    on_vk = torch.randn(20, device="vk")
    torch.manual_seed(3)
    assert torch.equal(on_vk.cpu(), torch.randn(20))


def test_bernoulli_and_dropout_take_the_same_numbers_as_on_the_cpu() -> None:
    x = torch.full((4, 5), 0.5)
    torch.manual_seed(11)
    on_vk = [torch.bernoulli(x.to("vk")).cpu(), torch.nn.functional.dropout(x.to("vk"), 0.4).cpu()]
    torch.manual_seed(11)
    on_cpu = [torch.bernoulli(x), torch.nn.functional.dropout(x, 0.4)]
    for got, want in zip(on_vk, on_cpu, strict=True):
        assert torch.equal(got, want)
