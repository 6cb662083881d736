"""Makes chosen Vulkan calls fail: builds the layer of `fault_layer/` and drives it.

The Vulkan loader loads the layer in a process of its own that `layer_environment()` was given to. There
`FaultLayer()` says which call fails, and what is alive.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).parent / "fault_layer"
NAME = "VK_LAYER_Q8TA_faults"

SUCCESS = 0
OUT_OF_HOST_MEMORY = -1
OUT_OF_DEVICE_MEMORY = -2
INITIALIZATION_FAILED = -3
DEVICE_LOST = -4
MEMORY_MAP_FAILED = -5
EXTENSION_NOT_PRESENT = -7
FEATURE_NOT_PRESENT = -8
TOO_MANY_OBJECTS = -10
FRAGMENTED_POOL = -12
OUT_OF_POOL_MEMORY = -1000069000
INVALID_EXTERNAL_HANDLE = -1000072003

_MEMORY = (OUT_OF_DEVICE_MEMORY, OUT_OF_HOST_MEMORY)

# What each function may fail with, by the specification.
RESULTS: dict[str, tuple[int, ...]] = {
    "AllocateCommandBuffers": _MEMORY,
    "AllocateDescriptorSets": (*_MEMORY, OUT_OF_POOL_MEMORY, FRAGMENTED_POOL),
    "AllocateMemory": (*_MEMORY, TOO_MANY_OBJECTS, INVALID_EXTERNAL_HANDLE),
    "BeginCommandBuffer": _MEMORY,
    "BindBufferMemory": _MEMORY,
    "BindBufferMemory2": _MEMORY,
    "CreateBuffer": _MEMORY,
    "CreateCommandPool": _MEMORY,
    "CreateComputePipelines": _MEMORY,
    "CreateDebugUtilsMessengerEXT": (OUT_OF_HOST_MEMORY,),
    "CreateDescriptorPool": (*_MEMORY, FRAGMENTED_POOL),
    "CreateDescriptorSetLayout": _MEMORY,
    "CreateDevice": (
        *_MEMORY,
        INITIALIZATION_FAILED,
        DEVICE_LOST,
        EXTENSION_NOT_PRESENT,
        FEATURE_NOT_PRESENT,
        TOO_MANY_OBJECTS,
    ),
    "CreateFence": _MEMORY,
    "CreateInstance": (*_MEMORY, INITIALIZATION_FAILED, EXTENSION_NOT_PRESENT),
    "CreatePipelineCache": _MEMORY,
    "CreatePipelineLayout": _MEMORY,
    "CreateQueryPool": _MEMORY,
    "CreateShaderModule": _MEMORY,
    "DeviceWaitIdle": (*_MEMORY, DEVICE_LOST),
    "EndCommandBuffer": _MEMORY,
    "EnumerateDeviceExtensionProperties": _MEMORY,
    "EnumeratePhysicalDevices": (*_MEMORY, INITIALIZATION_FAILED),
    "FlushMappedMemoryRanges": _MEMORY,
    "GetFenceStatus": (*_MEMORY, DEVICE_LOST),
    "GetMemoryHostPointerPropertiesEXT": (OUT_OF_HOST_MEMORY, INVALID_EXTERNAL_HANDLE),
    "GetQueryPoolResults": (*_MEMORY, DEVICE_LOST),
    "InvalidateMappedMemoryRanges": _MEMORY,
    "MapMemory": (*_MEMORY, MEMORY_MAP_FAILED),
    "QueueSubmit": (*_MEMORY, DEVICE_LOST),
    "QueueWaitIdle": (*_MEMORY, DEVICE_LOST),
    "ResetFences": (OUT_OF_DEVICE_MEMORY,),
    "WaitForFences": (*_MEMORY, DEVICE_LOST),
}


def why_not_built() -> str | None:
    """Why the layer cannot be built here; None if it can."""
    if _compiler() is None:
        return "there is no C++ compiler"
    return None if _headers() is not None else "the headers of Vulkan layers (vk_layer.h) are not there"


@cache
def layer_environment() -> dict[str, str]:
    """Environment variables for a process in which Vulkan has the layer. Builds it on first use (seconds)."""
    library = _build()
    # VK_ADD_LAYER_PATH counts only where VK_LAYER_PATH is not set.
    path = "VK_LAYER_PATH" if os.environ.get("VK_LAYER_PATH") else "VK_ADD_LAYER_PATH"
    return {
        path: os.pathsep.join(filter(None, [str(library.parent), os.environ.get(path)])),
        "VK_INSTANCE_LAYERS": NAME,
        "Q8TA_TEST_FAULT_LAYER": str(library),
    }


def _compiler() -> str | None:
    return os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")


def _headers() -> Path | None:
    roots = [os.environ.get(name) for name in ("Q8TA_DEPS", "VULKAN_SDK")]
    roots += [str(SOURCES.parents[1] / ".deps/sysroot/usr"), "/usr", "/usr/local"]
    folders = [Path(root) / "include" for root in roots if root]
    return next((folder for folder in folders if (folder / "vulkan/vk_layer.h").exists()), None)


def _build() -> Path:
    """The library. Kept in the machine's temporary files, by the contents of its sources."""
    sources = sorted(SOURCES.iterdir())
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"q8ta-fault-layer-{os.getuid()}-{digest}"
    library = folder / "libq8ta_faults.so"
    if library.exists():
        return library
    with tempfile.TemporaryDirectory(prefix=folder.name, dir=folder.parent) as making:
        made = Path(making) / "made"
        made.mkdir()
        units = [str(source) for source in sources if source.suffix == ".cpp"]
        options = ["-std=c++20", "-O1", "-shared", "-fPIC", f"-I{_headers()}"]
        subprocess.run([_compiler(), *options, *units, "-o", str(made / library.name)], check=True)
        layer = {
            "name": NAME,
            "type": "GLOBAL",
            "library_path": str(library),
            "api_version": "1.3.0",
            "implementation_version": "1",
            "description": "makes chosen calls fail",
        }
        (made / "faults.json").write_text(json.dumps({"file_format_version": "1.2.0", "layer": layer}))
        try:
            made.rename(folder)
        except OSError:  # another process was faster
            assert library.exists()
    return library


class FaultLayer:
    """The layer in this process. Functions are named without "vk"."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(os.environ["Q8TA_TEST_FAULT_LAYER"])  # the one that the loader has
        for name, arguments, result in (
            ("arm", [ctypes.c_char_p, ctypes.c_uint64, ctypes.c_int, ctypes.c_int], ctypes.c_int),
            ("made", [ctypes.c_char_p], ctypes.c_uint64),
            ("failed", [], ctypes.c_uint64),
            ("alive", [ctypes.c_char_p], ctypes.c_int64),
            ("leak_objects", [ctypes.c_char_p], None),
            ("waiting", [], ctypes.c_int64),
            ("call_name", [ctypes.c_uint32], ctypes.c_char_p),
        ):
            function = getattr(self._library, f"q8ta_faults_{name}")
            function.argtypes, function.restype = arguments, result

    def functions(self) -> Iterator[str]:
        """All that can be made to fail."""
        index = 0
        while (name := self._library.q8ta_faults_call_name(index)) is not None:
            yield name.decode()
            index += 1

    def arm(self, function: str, countdown: int, result: int, *, sticky: bool = False) -> None:
        """The `countdown`-th call of `function` from now (1: the next) fails; if `sticky`, all later ones."""
        assert self._library.q8ta_faults_arm(function.encode(), countdown, result, sticky), function

    def disarm(self) -> None:
        """Nothing fails any more, except on devices that are lost."""
        self._library.q8ta_faults_disarm()

    @contextmanager
    def failing(
        self, function: str, result: int, countdown: int = 1, *, sticky: bool = True
    ) -> Iterator[None]:
        """The same for the block; afterwards nothing fails."""
        self.arm(function, countdown, result, sticky=sticky)
        try:
            yield
        finally:
            self.disarm()

    def made(self, function: str) -> int:
        """Calls since `forget_counts`."""
        return self._library.q8ta_faults_made(function.encode())

    def failed(self) -> int:
        """Calls that were made to fail since `forget_counts`."""
        return self._library.q8ta_faults_failed()

    def forget_counts(self) -> None:
        self._library.q8ta_faults_forget_counts()

    def alive(self, kind: str = "") -> int:
        """Objects of devices that are not lost; of a kind such as "Buffer", or of all."""
        return self._library.q8ta_faults_alive(kind.encode())

    def leak_objects(self, kind: str) -> None:
        """After each call that fails from now on, the next object of the kind is not destroyed. "": none."""
        self._library.q8ta_faults_leak_objects(kind.encode())

    def lose_devices(self) -> None:
        """Every open device is lost, as after a fault of the GPU."""
        self._library.q8ta_faults_lose_devices()

    def hang(self, hangs: bool) -> None:
        """While true no work ends."""
        self._library.q8ta_faults_hang(hangs)

    def take_apart_at_exit(self) -> None:
        """At the process's end the driver crashes if a thread is in it or calls it later, like NVIDIA's."""
        self._library.q8ta_faults_take_apart_at_exit()

    def pretend_discrete(self) -> None:
        """Every device says that it is a discrete GPU. To be called before there are any."""
        self._library.q8ta_faults_pretend_discrete()

    def waiting(self) -> int:
        """Threads that wait for work that hangs."""
        return self._library.q8ta_faults_waiting()
