"""Devices, the choice among them, profiling and the weight cache."""

import atexit
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from . import _C


@dataclass(frozen=True)
class DeviceInfo:
    """A Vulkan device of this machine.

    Attributes:
        index: what ``Q8TA_DEVICE`` and :func:`use_device` may name it by, beside a part of ``name``.
        type: ``"discrete"``, ``"integrated"``, ``"virtual"``, ``"cpu"`` (a software driver) or ``"other"``.
        features: what the kernels decide by.
        kernels: for each op the kernel family that it uses here.
        host_visible_memory: whether the memory of vk tensors there is the host's, too (`torch.vk.host_view`).
        unusable_because: why our kernels cannot run here; empty if they can.
    """

    index: int
    name: str
    driver: str
    type: str
    api_version: str
    features: dict[str, object]
    kernels: dict[str, str]
    host_visible_memory: bool
    unusable_because: str = ""


@dataclass(frozen=True)
class DefaultDevice:
    """Where CPU tensors go: ``name`` is ``"host"`` or the device's, ``reason`` a sentence."""

    name: str
    reason: str
    device: DeviceInfo | None = None


@dataclass(frozen=True)
class Dispatch:
    """One kernel that ran. ``gpu_us`` is None for host kernels and on devices without timestamps."""

    kernel: str
    op: str
    M: int
    K: int
    N: int
    workgroups: int
    gpu_us: float | None


@dataclass
class Profile:
    """What :func:`profile` collects; complete after its block."""

    dispatches: list[Dispatch] = field(default_factory=list)


def _device_info(described: dict) -> DeviceInfo:
    gemv, gemm = described.pop("gemv"), described.pop("gemm")
    kernels = {
        "linear": f"{gemm} ({gemv} for one row)",
        "linear_gemv": gemv,
        "linear_dequant": f"{gemm}/float32 ({gemv}/float32 for one row)",
        "pack": "pack/4h4w, pack/4w",
        "unpack": "unpack/4h4w, unpack/4w",
    }
    return DeviceInfo(kernels=kernels, **described)


def devices() -> list[DeviceInfo]:
    """All Vulkan devices, also those that are too old. Empty when there is no Vulkan loader or driver."""
    if _C.unavailable_because() is not None:
        return []
    return [_device_info(described) for described in _C.devices()]


def unavailable_because() -> str | None:
    """Why there is no Vulkan in this process at all; None if there is."""
    return _C.unavailable_because()


def default_device() -> DefaultDevice:
    """Where ops on CPU tensors run now, and why.

    Raises:
        ValueError: ``Q8TA_DEVICE`` or ``Q8TA_DISABLE`` names something that does not exist.
        RuntimeError: the device that is named cannot be used.
    """
    index, reason = _C.selection()
    if index is None:
        return DefaultDevice("host", reason)
    device = devices()[index]
    return DefaultDevice(device.name, reason, device)


@contextmanager
def use_device(name: str | int | None, disable: Sequence[str] = ()) -> Iterator[DefaultDevice]:
    """Runs ops on CPU tensors on another device inside the block, in every thread of the process.

    Args:
        name: ``"host"``, an index or a part of a name from :func:`devices`; None for the automatic choice.
            Overrides ``Q8TA_DEVICE``.
        disable: hardware features to do without: ``"coopmat"``, ``"int_dot"``, ``"subgroup"``. Overrides
            ``Q8TA_DISABLE``.

    Raises:
        ValueError: no such device or feature; the message lists what exists.
        RuntimeError: the device cannot be used.
    """
    previous = _C.current_request()
    _C.set_request(("" if name is None else str(name), list(disable)))
    try:
        yield default_device()
    finally:
        _C.set_request(previous)


@contextmanager
def profile() -> Iterator[Profile]:
    """Records every kernel that ops of this process run inside the block, with its GPU time. Not nestable."""
    result = Profile()
    _C.start_profile()
    try:
        yield result
    finally:
        result.dispatches.extend(Dispatch(*record) for record in _C.stop_profile())


def clear_weight_cache() -> None:
    """Drops all packed weights; the next call of each op packs again.

    Needed only after edits that torch does not count: through ``.data``, through NumPy, or of inference
    tensors.
    """
    _C.clear_weight_cache()


def weight_cache_size() -> int:
    """Bytes that the packed weights and the parameters of the output channels take on the devices."""
    return _C.weight_cache_bytes()


# Weights are cached by the address of their storage, which is sound only while the storage lives. The
# singular of this function copies instead of stealing, and so leaks the handle.
_C.watch_storages(torch._C._aoti.alloc_tensors_by_stealing_from_void_ptrs)


@atexit.register
def _close() -> None:
    """Destroys what is left on the devices if validation is on, which then reports leaks. Not while daemon
    threads are alive: they may be in an operator."""
    others = (thread for thread in threading.enumerate() if not isinstance(thread, threading._DummyThread))
    if not any(thread.daemon for thread in others):
        _C.close()
