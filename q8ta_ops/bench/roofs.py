"""What no kernel can beat on a Vulkan device: its memory, its arithmetic, a dispatch that does nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .. import _benchmark
from ..runtime import default_device
from .samples import check_equal
from .settings import Settings
from .shapes import EMPTY, READ_ONCE
from .spread import Absent, Contestant, take_turns
from .vulkan import copies_for, fetch, memory_of, sampler

# Threads of a workgroup and 16-byte loads of an invocation: the fastest is the roof.
READ_ACCESSES = ((128, 4), (256, 4), (256, 8), (512, 4), (256, 16))
COPY_ACCESSES = ((256, 1), (256, 4))
DOT4_CHAINS, DOT4_STEPS = 8, 8  # shaders/benchmark/dot4.comp
# Workgroups and turns of their loops, from the slowest device to the fastest.
Sizes = tuple[tuple[int, int], ...]
DOT4_SIZES: Sizes = ((4, 4), (64, 16), (1024, 64), (8192, 512))
MATRIX_SIZES: Sizes = ((2, 4), (64, 32), (2048, 512))
_PATTERN_WORDS = 1 << 20


def _pattern(words: int) -> Tensor:
    return torch.randint(
        -(1 << 31), (1 << 31) - 1, (words,), dtype=torch.int32, generator=torch.Generator().manual_seed(5)
    )


def _repeated(pattern: Tensor, words: int) -> Tensor:
    return pattern.repeat(math.ceil(words / pattern.numel()))[:words]


def empty_dispatch(settings: Settings) -> Contestant:
    """A dispatch of one workgroup that does nothing, with the barrier before it."""
    native = _benchmark.empty_dispatch()
    counted = torch.arange(32, dtype=torch.int32)
    checked = check_equal(EMPTY, fetch(native, 0, counted), counted)
    return Contestant(EMPTY, [sampler(native, settings, 1, "gpu")], {"checked": checked})


def sums_by_invocation(words: Tensor, threads: int, loads: int) -> Tensor:
    """What shaders/benchmark/memory.comp computes: int32, for each invocation the sum of its words."""
    workgroup_words = threads * loads * 4
    padded = torch.zeros(math.ceil(words.numel() / workgroup_words) * workgroup_words, dtype=torch.int32)
    padded[: words.numel()] = words
    return padded.view(-1, loads, threads, 4).sum((1, 3), dtype=torch.int32).flatten()


def _sums_of_repeated(pattern: Tensor, words: int, threads: int, loads: int) -> Tensor:
    """``sums_by_invocation`` of so many words that the pattern fills again and again."""
    whole, rest = divmod(words, pattern.numel())
    if whole == 0 or pattern.numel() % (threads * loads * 4) != 0:
        return sums_by_invocation(_repeated(pattern, words), threads, loads)
    parts = [sums_by_invocation(pattern, threads, loads).repeat(whole)]
    if rest > 0:
        parts.append(sums_by_invocation(pattern[:rest], threads, loads))
    return torch.cat(parts)


def _read(name: str, total_bytes: int, window_bytes: int, access: tuple[int, int], settings: Settings):
    threads, loads = access
    pattern = _pattern(min(_PATTERN_WORDS, total_bytes // 4))
    native = _benchmark.read(
        words=memory_of(pattern),
        total_bytes=total_bytes,
        window_bytes=window_bytes,
        threads=threads,
        loads=loads,
    )
    expected = _sums_of_repeated(pattern, window_bytes // 4, threads, loads)
    checked = check_equal(name, fetch(native, 0, expected), expected)
    samplers = [sampler(native, settings, native.copies, "gpu")]
    if native.copies > 1:
        samplers.append(sampler(native, settings, 1, "gpu_warm"))
    details = {"checked": checked, "threads": threads, "loads": loads, "windows": native.copies}
    return Contestant(name, samplers, details)


def _fastest(candidates: list[Contestant], settings: Settings) -> Contestant:
    take_turns(candidates, samples=3)
    return min(candidates, key=lambda each: each.spreads["gpu"].median)


def read_once(weight_bytes: int, settings: Settings) -> Contestant:
    """Reading as many bytes as the weights have, from other memory each time, as fast as the best of
    ``READ_ACCESSES`` does."""
    window = math.ceil(weight_bytes / 16) * 16
    total = (window + 256) * copies_for(weight_bytes, settings)
    candidates = [_read(READ_ONCE, total, window, access, settings) for access in READ_ACCESSES]
    return _fastest(candidates, settings)


def read_much(settings: Settings) -> Contestant:
    """Reading ``settings.roof_bytes``."""
    candidates = [
        _read("read", settings.roof_bytes, settings.roof_bytes, access, settings) for access in READ_ACCESSES
    ]
    return _fastest(candidates, settings)


def _copy(name: str, access: tuple[int, int] | None, settings: Settings) -> Contestant:
    size = settings.roof_bytes
    pattern = _pattern(min(_PATTERN_WORDS, size // 4))
    native = _benchmark.copy(words=memory_of(pattern), bytes=size, shader=access)
    expected = _repeated(pattern, size // 4)
    checked = check_equal(name, fetch(native, 0, expected), expected)
    return Contestant(name, [sampler(native, settings, 1, "gpu")], {"checked": checked, "access": access})


def copies(settings: Settings) -> list[Contestant]:
    """The device's own copy and the fastest copying shader, of ``settings.roof_bytes``."""
    shaders = [_copy("copy by a shader", access, settings) for access in COPY_ACCESSES]
    return [_copy("vkCmdCopyBuffer", None, settings), _fastest(shaders, settings)]


def dot4_expected(invocations: int) -> Tensor:
    """int32 [invocations]: shaders/benchmark/dot4.comp after one turn, in torch."""
    index = torch.arange(invocations, dtype=torch.int64)
    factor = _wrapped(index * 2654435761 + 12345)
    sums = [factor ^ _wrapped(torch.tensor(i * 16843009)) for i in range(DOT4_CHAINS)]
    for _ in range(DOT4_STEPS):
        sums = [_wrapped(each + _dot4(each, factor)) for each in sums]
    result = sums[0]
    for each in sums[1:]:
        result = result ^ each
    return result.to(torch.int32)


def _wrapped(values: Tensor) -> Tensor:
    """int64 values as int32 would hold them."""
    low = values & 0xFFFFFFFF
    return torch.where(low >= 1 << 31, low - (1 << 32), low)


def _dot4(a: Tensor, b: Tensor) -> Tensor:
    total = torch.zeros_like(a)
    for shift in range(0, 32, 8):
        bytes_a, bytes_b = ((each >> shift & 0xFF ^ 0x80) - 0x80 for each in (a, b))
        total = total + bytes_a * bytes_b
    return total


def _sized(make: Callable[[int, int], _benchmark.Contestant], sizes: Sizes) -> tuple[int, int]:
    """The first (workgroups, turns) that keep the device busy for so long that nothing else counts."""
    enough_us = 100.0
    for workgroups, turns in sizes[:-1]:
        native = make(workgroups, turns)
        native.time(1, 1)  # the driver may still compile
        gpu, wall = native.time(1, 1)
        if (wall if gpu is None else gpu) >= enough_us:
            return workgroups, turns
    return sizes[-1]


def dot4(settings: Settings) -> tuple[Contestant, int]:
    """Packed int8 products with operands in registers, and the operations (multiplies and additions) of one
    op."""
    workgroups, turns = _sized(
        lambda workgroups, turns: _benchmark.dot4(workgroups=workgroups, turns=turns), DOT4_SIZES
    )
    native = _benchmark.dot4(workgroups=workgroups, turns=turns)
    expected = dot4_expected(workgroups * 256)
    checked = check_equal("dot4", fetch(native, 0, expected), expected)
    details = {"checked": checked, "kernel": native.time_commands(1)[0][0]}
    operations = workgroups * 256 * turns * DOT4_CHAINS * DOT4_STEPS * 8
    return Contestant("dot4", [sampler(native, settings, 1, "gpu")], details), operations


def cooperative_matrix(shape: tuple[int, int, int], settings: Settings) -> tuple[Contestant, int]:
    """int8 cooperative matrices of one (M, N, K) with fragments in registers, and the operations of one op.

    Raises:
        RuntimeError: the device or the build has none.
    """
    subgroups = 4
    workgroups, turns = _sized(
        lambda workgroups, turns: _benchmark.cooperative_matrix(
            shape=shape, workgroups=workgroups, turns=turns
        ),
        MATRIX_SIZES,
    )
    native = _benchmark.cooperative_matrix(shape=shape, workgroups=workgroups, turns=turns)
    M, N, K = shape
    factors = [sum(1 % modulus + step * i + 1 for i in range(4)) for modulus, step in ((97, 3), (89, 5))]
    expected = torch.full((workgroups * subgroups, M, N), K * factors[0] * factors[1], dtype=torch.int32)
    name = f"cooperative matrix {M}x{N}x{K}"
    checked = check_equal(name, fetch(native, 0, expected), expected)
    operations = workgroups * subgroups * turns * 16 * M * N * K * 2
    return Contestant(name, [sampler(native, settings, 1, "gpu")], {"checked": checked}), operations


def _cooperative_matrices(settings: Settings) -> tuple[list[tuple[Contestant, int]], list[Absent]]:
    device = default_device().device
    shapes = device.features["cooperative_matrix_int8"] if device is not None else []
    if not shapes:
        return [], [Absent("cooperative matrix", "the device has none for int8")]
    present, absent = [], []
    for shape in shapes:
        try:
            present.append(cooperative_matrix(tuple(shape), settings))
        except RuntimeError as error:
            absent.append(Absent(f"cooperative matrix {'x'.join(map(str, shape))}", str(error)))
    return present, absent


@dataclass
class Roofs:
    """Limits of a device, measured.

    Attributes:
        copy_gb_s: read and written bytes of the fastest copy, in GB/s.
        read_gb_s: the same of reading alone.
        tops: int8 operations (2 a multiply-add) of the fastest unit, in 10^12/s.
        empty_us: a dispatch that does nothing.
    """

    copy_gb_s: float
    read_gb_s: float
    tops: float
    empty_us: float
    contestants: list[dict[str, object]] = field(default_factory=list)
    absent: list[Absent] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        return {**self.__dict__, "absent": [each.__dict__ for each in self.absent]}

    def time_us(self, bytes_moved: int, multiplies: int) -> float:
        """The least time of work that moves so many bytes and multiplies so often."""
        return max(bytes_moved / self.copy_gb_s * 1e-3, 2 * multiplies / self.tops * 1e-6)


def measure_roofs(settings: Settings, cuda_copy: Contestant | Absent) -> Roofs:
    """Measures all roofs of the current device. ``cuda_copy``: torch's copy on the same device, of
    ``settings.roof_bytes``."""
    empty, read = empty_dispatch(settings), read_much(settings)
    matrices, absent = _cooperative_matrices(settings)
    multiplying = [dot4(settings), *matrices]
    copying = copies(settings)
    if isinstance(cuda_copy, Absent):
        absent.append(cuda_copy)
    else:
        copying.append(cuda_copy)
    contestants = [empty, read, *(each for each, _ in multiplying), *copying]
    take_turns(contestants, settings.samples)

    def gpu(contestant: Contestant) -> float:
        return contestant.spreads["gpu"].median

    size = settings.roof_bytes
    rates: dict[int, dict[str, float]] = {id(read): {"gb_s": size / gpu(read) * 1e-3}}
    rates |= {id(each): {"tops": operations / gpu(each) * 1e-6} for each, operations in multiplying}
    rates |= {id(each): {"gb_s": 2 * size / gpu(each) * 1e-3} for each in copying}
    return Roofs(
        copy_gb_s=max(rates[id(each)]["gb_s"] for each in copying),
        read_gb_s=rates[id(read)]["gb_s"],
        tops=max(rates[id(each)]["tops"] for each, _ in multiplying),
        empty_us=gpu(empty),
        contestants=[
            {
                "name": each.name,
                "us": {name: spread.as_dict() for name, spread in each.spreads.items()},
                **rates.get(id(each), {}),
                **each.details,
            }
            for each in contestants
        ],
        absent=absent,
    )
