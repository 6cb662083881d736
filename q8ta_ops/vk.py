"""What becomes `torch.vk`: devices, memory and synchronization, named as in `torch.cuda`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .device import vk_library
from .runtime import DeviceInfo, devices
from .vk_event import Event
from .vk_graph import Graph, graph, is_current_stream_capturing, make_graphed_callables
from .vk_profile import Profile, profile

__all__ = [
    "Event",
    "Graph",
    "Profile",
    "graph",
    "is_current_stream_capturing",
    "make_graphed_callables",
    "profile",
]

Device = torch.device | str | int | None


def _index(device: Device = None) -> int:
    if device is None:
        return current_device()
    if isinstance(device, int):
        return device
    named = torch.device(device)
    if named.type != "vk":
        raise ValueError(f"device: expected a vk device, got {named}")
    return current_device() if named.index is None else named.index


def _checked_index(device: Device) -> int:
    """Of a device that there is: torch.accelerator says less about others."""
    index = _index(device)
    vk_library().vulkan_index(index)
    return index


def is_available() -> bool:
    """Whether there is a device: always, once `q8ta_ops.enable_vk_device` has succeeded."""
    return device_count() > 0


def is_initialized() -> bool:
    return True


def _is_in_bad_fork() -> bool:
    return vk_library().in_bad_fork()


def device_count() -> int:
    return vk_library().device_count()


def current_device() -> int:
    """Index of the calling thread's device."""
    return vk_library().current_device()


def set_device(device: Device) -> None:
    vk_library().set_device(_index(device))


@contextmanager
def device(device: Device) -> Iterator[None]:
    """Makes a device the thread's current one inside the block."""
    previous = current_device()
    set_device(device)
    try:
        yield
    finally:
        set_device(previous)


def get_device_properties(device: Device = None) -> DeviceInfo:
    return devices()[vk_library().vulkan_index(_index(device))]


def get_device_name(device: Device = None) -> str:
    return get_device_properties(device).name


def synchronize(device: Device = None) -> None:
    """Waits for all work on the device. An error of the device surfaces here at the latest."""
    vk_library().synchronize(_index(device))


def host_view(tensor: torch.Tensor) -> torch.Tensor:
    """A CPU tensor in the memory of a vk tensor: the same sizes, strides and dtype, and nothing is copied.

    Waits for all work on the device. The host may use the view while no work on the tensor is queued: after
    later work on it, only after `synchronize()` or another call of this. Work that is queued afterwards sees
    what the host has written. The memory stays as long as the view does. torch counts in-place operators on
    the view as edits of the tensor; it does not count what NumPy writes through it
    (see `q8ta_ops.clear_weight_cache`).

    Raises:
        ValueError: the tensor is not on vk.
        RuntimeError: its memory is not host-visible (`get_device_properties().host_visible_memory` tells
            where it is: on devices that share the host's memory); it requires gradients; or the thread
            captures a graph.
    """
    return vk_library().host_view(tensor)


def memory_stats(device: Device = None) -> dict[str, int]:
    """What `torch.cuda.memory_stats` tells, under the same names ("allocated_bytes.all.current"), and
    "cache_hits", allocations that got a block which had been freed."""
    index = _checked_index(device)
    return {**torch.accelerator.memory_stats(index), "cache_hits": vk_library().cache_hits(index)}


def memory_allocated(device: Device = None) -> int:
    """Bytes of device memory that tensors have."""
    return torch.accelerator.memory_allocated(_checked_index(device))


def max_memory_allocated(device: Device = None) -> int:
    """The most bytes that tensors have had since the start or `reset_peak_memory_stats`."""
    return torch.accelerator.max_memory_allocated(_checked_index(device))


def memory_reserved(device: Device = None) -> int:
    """Bytes of device memory that tensors have or that are kept for the next ones."""
    return torch.accelerator.memory_reserved(_checked_index(device))


def max_memory_reserved(device: Device = None) -> int:
    return torch.accelerator.max_memory_reserved(_checked_index(device))


def reset_peak_memory_stats(device: Device = None) -> None:
    torch.accelerator.reset_peak_memory_stats(_checked_index(device))


def reset_accumulated_memory_stats(device: Device = None) -> None:
    torch.accelerator.reset_accumulated_memory_stats(_checked_index(device))


def mem_get_info(device: Device = None) -> tuple[int, int]:
    """Bytes of the device's memory that this process can still have, and all of them."""
    return torch.accelerator.get_memory_info(_checked_index(device))


def empty_cache() -> None:
    """Gives memory that no tensor has back to the driver. Waits for all work."""
    vk_library().empty_cache()


def fallbacks() -> dict[str, int]:
    """How often each operator without a kernel on the device ran on the CPU, since `reset_fallbacks`."""
    return vk_library().fallback_counts()


def reset_fallbacks() -> None:
    vk_library().reset_fallback_counts()


# Random numbers are made on the CPU, so its generator's state is this device's, too.
def get_rng_state(device: Device = None) -> torch.Tensor:
    return torch.get_rng_state()


def set_rng_state(state: torch.Tensor, device: Device = None) -> None:
    torch.set_rng_state(state)


def manual_seed_all(seed: int) -> None:
    torch.default_generator.manual_seed(seed)


manual_seed = manual_seed_all


def get_amp_supported_dtype() -> list[torch.dtype]:
    return [torch.float16, torch.bfloat16]


# Inductor asks for these when it first compiles for the device.
_INDUCTOR = ("Scheduling", "PythonWrapperCodegen", "CppWrapperCodegen", "WrapperFxCodegen")


def __getattr__(name: str) -> object:
    if name in _INDUCTOR:
        from . import inductor

        return getattr(inductor, name)
    raise AttributeError(f"module 'torch.vk' has no attribute {name!r}")
