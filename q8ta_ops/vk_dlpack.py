"""What DLPack needs of vk tensors and torch's own methods do not know."""

from __future__ import annotations

import functools
from enum import IntEnum
from typing import Any

import torch
from torch.overrides import has_torch_function_unary
from torch.utils.dlpack import DLDeviceType

from .device import vk_library

_HOST = (DLDeviceType.kDLCPU, 0)


def extend_tensor() -> None:
    """Makes `__dlpack__` and `__dlpack_device__` of `torch.Tensor` know vk tensors; others see no change."""
    export, device = torch.Tensor.__dlpack__, torch.Tensor.__dlpack_device__

    @functools.wraps(device)
    def __dlpack_device__(self: torch.Tensor) -> tuple[IntEnum, int]:
        if _is_on_vk(self):  # torch knows such a device as "privateuse1" only, which no renamed one is called
            return DLDeviceType.kDLExtDev, self.device.index
        return device(self)

    @functools.wraps(export)
    def __dlpack__(
        self: torch.Tensor,
        *,
        dl_device: tuple[IntEnum, int] | None = None,
        copy: bool | None = None,
        **others: Any,
    ) -> object:
        if dl_device == _HOST and not copy and _is_on_vk(self) and _can_be_exported_as_it_is(self):
            self = vk_library().host_view(self)
        return export(self, dl_device=dl_device, copy=copy, **others)

    torch.Tensor.__dlpack__, torch.Tensor.__dlpack_device__ = __dlpack__, __dlpack_device__


def _is_on_vk(tensor: torch.Tensor) -> bool:
    return not has_torch_function_unary(tensor) and tensor.device.type == "vk"


def _can_be_exported_as_it_is(tensor: torch.Tensor) -> bool:
    """DLPack knows no negated views: copies of them are exported. torch refuses what requires gradients."""
    return not tensor.requires_grad and not tensor.is_neg() and vk_library().is_host_visible(tensor)
