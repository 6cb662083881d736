"""Scripts with vk tensors in which Vulkan calls fail (`fault_runs`)."""

from __future__ import annotations

import textwrap

from fault_runs import run

ENABLED = """
q8ta_ops.enable_vk_device()
x = torch.arange(-600, 600, dtype=torch.float32)
on_vk = x.to("vk")
kept = linear.mapped(lambda tensor: tensor.to("vk"))
assert torch.equal(kept.call("linear").cpu(), expected)
"""


def run_on_vk(script: str) -> str:
    """`x` is on the CPU, `on_vk` the same on vk; `kept` is `linear` there."""
    return run(ENABLED + textwrap.dedent(script))
