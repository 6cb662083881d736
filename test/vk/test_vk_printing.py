"""Tensors on vk print as on the CPU, with the device named."""

from __future__ import annotations

import pytest
import torch
from same import sample, to_vk

PRINTED = {
    "floats": torch.tensor([[1.5, -2.25], [3e8, 4e-8]]),
    "whole floats": torch.arange(4.0),
    "integers": torch.arange(6).view(2, 3),
    "int8": sample(2, 3, dtype=torch.int8),
    "bools": torch.tensor([True, False]),
    "half": torch.arange(3, dtype=torch.float16),
    "bfloat16": torch.arange(3, dtype=torch.bfloat16),
    "complex": torch.tensor([1 + 2j, -3.5j]),
    "nan and infinity": torch.tensor([float("nan"), float("inf"), -1]),
    "nothing": torch.empty(0),
    "nothing in two dimensions": torch.empty(0, 3, dtype=torch.int32),
    "a number": torch.tensor(3.25),
    "long": torch.arange(5000),
    "wide": torch.arange(4000.0).view(4, 1000),
    "a view": torch.arange(12.0).view(3, 4).t()[1:],
    "expanded": torch.arange(3.0).expand(2, 3),
}


@pytest.mark.parametrize("what", PRINTED)
def test_repr(what):
    on_cpu = PRINTED[what]
    printed = repr(to_vk(on_cpu))
    assert "device='vk:0'" in printed
    without = printed.replace(", device='vk:0'", "").replace("device='vk:0', ", "")
    # The device may have moved the end to a line of its own.
    assert "".join(without.split()) == "".join(repr(on_cpu).split())


def test_repr_of_what_requires_grad():
    x = torch.tensor([1.0, 2.0], device="vk", requires_grad=True)
    assert repr(x) == "tensor([1., 2.], device='vk:0', requires_grad=True)"
    assert repr(x * 2) == "tensor([2., 4.], device='vk:0', grad_fn=<MulBackward0>)"
    assert repr(torch.nn.Parameter(torch.ones(1, device="vk"))).startswith("Parameter containing:")


def test_other_forms():
    x = torch.tensor(2.5, device="vk")
    assert f"{x:.2f}" == "2.50" and f"{torch.tensor(3, device='vk'):d}" == "3"
    assert str(x) == repr(x) == "tensor(2.5000, device='vk:0')"
    assert "vk:0" in repr(x.untyped_storage())
    assert repr(torch.nn.Linear(2, 3).to("vk")) == repr(torch.nn.Linear(2, 3))
