"""seeded_fault.py over_read|leak|race: one fault in the library's code that the sanitizer must report.

Run by ``scripts/sanitize.sh``. The report ends the process; leaks are found when it ends anyway.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from pathlib import Path

import torch

import q8ta_ops
from q8ta_ops import Layout

BYTES = 4096


def tensor_at(address: int, count: int) -> torch.Tensor:
    """int8 ``[1, count]`` over memory that is somebody else's."""
    return torch.frombuffer((ctypes.c_int8 * count).from_address(address), dtype=torch.int8).view(1, -1)


def over_read(libc: ctypes.CDLL) -> None:
    torch.ops.q8ta.pack(tensor_at(libc.malloc(BYTES), BYTES + 4), Layout.PACKED_INT8_4W)


def leak(libc: ctypes.CDLL) -> None:
    """Constructs an object in memory that is lost, and with it what the constructor has allocated."""
    library = ctypes.CDLL(str(Path(q8ta_ops.__file__).with_name("libq8ta_vulkan.so")))
    constructor = library["_ZN4q8ta7kernels17HostPackedWeightsC1Ell"]  # HostPackedWeights(int64_t, int64_t)
    constructor.argtypes = [ctypes.c_void_p, ctypes.c_long, ctypes.c_long]
    constructor(libc.malloc(BYTES), 64, 64)


def race(libc: ctypes.CDLL) -> None:
    """One thread packs what another writes; ctypes releases the GIL, and so does torch."""
    address = libc.malloc(BYTES)
    libc.memset(address, 0, BYTES)
    x = tensor_at(address, BYTES)
    start = threading.Barrier(2)

    def write() -> None:
        start.wait()
        for value in range(2000):
            libc.memset(address, value % 128, BYTES)

    def read() -> None:
        start.wait()
        for _ in range(2000):
            torch.ops.q8ta.pack(x, Layout.PACKED_INT8_4W)

    threads = [threading.Thread(target=target) for target in (write, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    with q8ta_ops.use_device("host"):
        {"over_read": over_read, "leak": leak, "race": race}[sys.argv[1]](libc)


main()
