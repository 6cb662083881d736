"""The vk device: tensors that stay on the GPU between operators.

    q8ta_ops.enable_vk_device()
    model.to("vk")(x.to("vk")).cpu()

Enabling registers torch's PrivateUse1 backend under the name `vk`, which changes what `torch.accelerator` and
pinned memory mean for the whole process: so it is done by this call and never by an import.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import threading
import types
from pathlib import Path

import torch

from .runtime import default_device

_lock = threading.Lock()
_loaded: types.ModuleType | None = None  # the library, which cannot be unloaded: its kernels take the slot
_module: types.ModuleType | None = None  # the same, once the device is enabled


def enable_vk_device() -> None:
    """Registers the device `vk` with torch, and `torch.vk` (see `vk.py`). Calling it again does nothing.

    `vk:0` is the Vulkan device that operators on CPU tensors use (see `q8ta_ops.default_device`); other
    hardware GPUs follow. Software devices such as lavapipe have to be named by `Q8TA_DEVICE`; if `vk:0` is
    one, other software devices follow, too.

    Raises:
        RuntimeError: another package has registered torch's PrivateUse1 backend; the library was not built
            for this version of torch; or there is no Vulkan device.
        ValueError: `Q8TA_DEVICE` names a device that does not exist.
    """
    with _lock:
        if _module is None:
            _enable()


def _enable() -> None:
    global _loaded, _module
    if _loaded is None:
        _check_slot()
    device = default_device()  # before anything is registered that cannot be taken back
    if device.device is None:
        raise RuntimeError(f"there is no Vulkan device for the vk device: {device.reason}")
    library = _loaded = _loaded or _load_library()
    library.open_devices()
    library.register_backend()
    torch.utils.rename_privateuse1_backend("vk")
    _module = library
    _shorten_calls(library)

    from . import vk, vk_dlpack

    torch._register_device_module("vk", vk)
    torch.utils.generate_methods_for_privateuse1_backend(
        for_tensor=True, for_module=True, for_packed_sequence=True, for_storage=True
    )
    vk_dlpack.extend_tensor()


def _shorten_calls(library: types.ModuleType) -> None:
    """Replaces what `torch.ops.q8ta.linear.default` and its like call by what calls the same with less ado.

    torch.compile's code calls operators by these names, too. The packets (`torch.ops.q8ta.linear`) keep
    torch's callables, by which TorchScript knows them.
    """
    for name in ("linear", "linear_gemv", "linear_dequant", "requantize"):
        overload = getattr(torch.ops.q8ta, name).default
        overload._op = library.direct_call(overload._op, f"q8ta::{name}")


def vk_library() -> types.ModuleType:
    """The compiled half. Raises RuntimeError before `enable_vk_device`."""
    if _module is None:
        raise RuntimeError("the vk device is not enabled: call q8ta_ops.enable_vk_device() first")
    return _module


def _check_slot() -> None:
    name = torch._C._get_privateuse1_backend_name()
    has_kernels = torch._C._dispatch_has_kernel_for_dispatch_key("aten::empty.memory_format", "PrivateUse1")
    if name not in ("privateuseone", "vk") or hasattr(torch, name) or has_kernels:
        raise RuntimeError(
            f"torch has one place for a backend like this (PrivateUse1), and {name!r} has taken it in this "
            "process"
        )


def _load_library() -> types.ModuleType:
    folder = Path(__file__).parent
    minor = "_".join(torch.__version__.split(".")[:2])
    suffixes = importlib.machinery.EXTENSION_SUFFIXES
    for suffix in suffixes:
        path = folder / f"_vk_device_torch_{minor}{suffix}"
        if path.exists():
            # One name for the module, whichever torch its file was built for.
            loader = importlib.machinery.ExtensionFileLoader("_vk_device", str(path))
            module = importlib.util.module_from_spec(importlib.util.spec_from_loader("_vk_device", loader))
            loader.exec_module(module)
            sys.modules["q8ta_ops._vk_device"] = module
            return module
    built = sorted(
        path.name.split(".")[0].removeprefix("_vk_device_torch_") for path in folder.glob("_vk_device_*")
    )
    versions = ", ".join(version.replace("_", ".") for version in built) or "no version of torch"
    raise RuntimeError(
        f"the vk device was built for {versions}, this is torch {torch.__version__}: build q8ta-ops again "
        "with it"
    )
