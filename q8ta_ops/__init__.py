"""Statically quantized int8 linear layers for PyTorch on Vulkan: ``torch.ops.q8ta`` and what makes it usable.

Importing registers the ops and starts nothing: Vulkan is loaded by the first op that needs it.
"""

import importlib

from . import ops as ops
from .device import enable_vk_device
from .export import load, save
from .layouts import Layout
from .rewrite import RewriteResult, rewrite
from .runtime import (
    DefaultDevice,
    DeviceInfo,
    Dispatch,
    Profile,
    clear_weight_cache,
    default_device,
    devices,
    profile,
    use_device,
    weight_cache_size,
)
from .self_test import SelfTestReport, self_test
from .version import __version__ as __version__

__all__ = [
    "DefaultDevice",
    "DeviceInfo",
    "Dispatch",
    "Layout",
    "Profile",
    "Q8taConfig",
    "Q8taQuantizer",
    "RewriteResult",
    "SelfTestReport",
    "clear_weight_cache",
    "default_device",
    "devices",
    "enable_vk_device",
    "load",
    "profile",
    "quantize",
    "rewrite",
    "save",
    "self_test",
    "use_device",
    "weight_cache_size",
]


_NEED_TORCHAO = {"Q8taConfig": ".quantizer", "Q8taQuantizer": ".quantizer", "quantize": ".quantization"}


def __getattr__(name: str) -> object:
    # torchao is an extra; only what quantizes needs it.
    module = _NEED_TORCHAO.get(name)
    if module is not None:
        try:
            return getattr(importlib.import_module(module, __name__), name)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.split(".")[0] != "torchao":
                raise
            raise ImportError(f"{name} needs torchao: pip install q8ta-ops[quantize]") from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
