"""Inductor on the vk device: operators are called, nothing is generated.

torch looks for these classes in `torch.vk` when it first compiles for the device, and only then is this
module imported. A graph in which there is something to generate has to be compiled with
`options={"fallback_by_default": True}`, so that every operator in it is called.
"""

from __future__ import annotations

from typing import NoReturn

from torch._inductor import ir
from torch._inductor.codegen import wrapper
from torch._inductor.codegen.common import (
    DeviceOpOverrides,
    get_device_op_overrides,
    register_device_op_overrides,
)
from torch._inductor.codegen.wrapper_fxir import WrapperFxCodegen
from torch._inductor.scheduler import BaseScheduling
from torch._inductor.virtualized import V
from torch._ops import OpOverload

__all__ = ["CppWrapperCodegen", "PythonWrapperCodegen", "Scheduling", "WrapperFxCodegen"]


class VkDeviceOpOverrides(DeviceOpOverrides):
    """What generated Python code says about the device."""

    def import_get_raw_stream_as(self, name: str) -> str:
        return f"{name} = lambda index: 0  # one stream a device"

    def set_device(self, device_idx: int) -> str:
        return f"torch.vk.set_device({device_idx})"

    def synchronize(self) -> str:
        return "torch.vk.synchronize()"

    def device_guard(self, device_idx: int) -> str:
        return f"torch.vk.device({device_idx})"


class Scheduling(BaseScheduling):
    """Has no kernels to generate, and says so."""

    def group_fn(self, sizes: object) -> tuple:
        return tuple(tuple(size) for size in sizes)

    def can_fuse_vertical(self, node1: object, node2: object) -> bool:
        return False

    def can_fuse_horizontal(self, node1: object, node2: object) -> bool:
        return False

    def flush(self) -> None:
        pass

    def codegen_node(self, node: object) -> NoReturn:
        raise NotImplementedError(
            "Inductor generates no code for the vk device, and this graph holds operators that it would "
            'generate code for: compile it with options={"fallback_by_default": True}, which calls them'
        )


class PythonWrapperCodegen(wrapper.PythonWrapperCodegen):
    """Calls the operators, one after the other. What it leaves out took a third of the time of queueing a
    chain of small layers (H200, 32 layers: 7.1 us an operator with it, 4.7 without)."""

    def __init__(self) -> None:
        super().__init__()
        self._held: set[str] = set()

    @classmethod
    def create(cls, is_subgraph: bool, *arguments: object) -> wrapper.PythonWrapperCodegen:
        return wrapper.PythonWrapperCodegen.create(is_subgraph, *arguments) if is_subgraph else cls()

    def codegen_input_size_asserts(self) -> None:
        """Not where all is on vk. They protect generated kernels, which read memory unasked; operators check
        what they are given."""
        if not V.graph.device_types <= {"vk"}:
            super().codegen_input_size_asserts()

    def generate_fallback_kernel(self, node: ir.FallbackKernel) -> None:
        """Calls what an overload of ours holds, without looking that up and without its frame of Python."""
        overload = node.op_overload
        if isinstance(overload, OpOverload) and overload.namespace == "q8ta":
            name = str(overload).replace(".", "_")
            if name not in self._held:
                self._held.add(name)
                self.header.writeline(f"{name} = torch.ops.{overload}._op")
            node.python_kernel_name = name
        super().generate_fallback_kernel(node)


class CppWrapperCodegen(PythonWrapperCodegen):
    """Refuses: what AOTInductor would write for an unknown device does not compile."""

    @staticmethod
    def create(*arguments: object, **options: object) -> NoReturn:
        raise NotImplementedError("Inductor writes no C++ for the vk device: package a program on the CPU")


# torch 2.11 registers what it has for its own devices when it first asks for one, unless any is registered by
# then: a function compiled for CUDA after one for vk was written as for the CPU, which was no Python.
get_device_op_overrides("cpu")
register_device_op_overrides("vk", VkDeviceOpOverrides())
