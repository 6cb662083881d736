"""Ten thousand operators: neither the device's memory nor the process grows."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from same import to_vk
from samples import make_sample

ROUNDS = 850
MIB = 1 << 20


def resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmRSS:\s+(\d+)", status)[1])


def work() -> Callable[[], torch.Tensor]:
    """Twelve operators of all kinds. The weights are edited each time, so that they are packed again."""
    linear = make_sample((8,), 37, 44).mapped(to_vk)
    x = torch.randn(8, 44, generator=torch.Generator().manual_seed(0)).to("vk")
    ops = torch.ops.q8ta

    def one_round() -> torch.Tensor:
        linear.weights[0].fill_(3)
        y = ops.linear(*linear.arguments("linear"))
        z = ops.linear_dequant(*linear.arguments("linear_dequant"))
        y = ops.unpack(ops.pack(y, 4), 4, list(y.shape))
        y = ops.requantize(y, 0.1, 0, 0.2, 3).clamp_(min=-100)
        z = torch.cat([(z / 3 + x).relu_(), x * 2])[::2].contiguous()
        return z.sub_(y.narrow(1, 0, 1).to(torch.float32))

    return one_round


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_nothing_grows():
    one_round = work()
    for _ in range(100):
        result = one_round()
    torch.vk.synchronize()
    before, resident = torch.vk.memory_stats(), resident_bytes()
    for _ in range(ROUNDS):
        result = one_round()
    torch.vk.synchronize()
    after = torch.vk.memory_stats()
    for name in ("allocated_bytes.all.current", "reserved_bytes.all.current", "reserved_bytes.all.peak"):
        assert after[name] == before[name], name
    assert resident_bytes() - resident < 6 * MIB
    assert result.isfinite().all().item()
