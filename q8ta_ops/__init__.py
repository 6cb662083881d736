"""Statically quantized int8 linear layers for PyTorch on Vulkan: ``torch.ops.q8ta`` and what makes it usable.

Importing registers the ops and starts nothing: Vulkan is loaded by the first op that needs it.
"""

from . import ops as ops
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

__all__ = [
    "DefaultDevice",
    "DeviceInfo",
    "Dispatch",
    "Layout",
    "Profile",
    "Q8taQuantizer",
    "RewriteResult",
    "clear_weight_cache",
    "default_device",
    "devices",
    "profile",
    "rewrite",
    "use_device",
    "weight_cache_size",
]


def __getattr__(name: str) -> object:
    # torchao is an extra; only the quantizer needs it.
    if name == "Q8taQuantizer":
        try:
            from .quantizer import Q8taQuantizer
        except ModuleNotFoundError as error:
            if error.name is None or error.name.split(".")[0] != "torchao":
                raise
            raise ImportError("Q8taQuantizer needs torchao: pip install q8ta-ops[quantize]") from error
        return Q8taQuantizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
