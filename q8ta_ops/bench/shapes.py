"""What is measured, and what must hold: the sizes and the bars, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Section = Literal["exact", "gemv", "few_rows", "gemm", "dequant", "cpu", "vk"]
SECTIONS: tuple[Section, ...] = ("exact", "gemv", "few_rows", "gemm", "dequant", "cpu", "vk")

# Names of contestants, as they stand in the JSON.
LINEAR = "q8ta linear"
DEQUANT = "q8ta linear_dequant"
WITHOUT_COOPMAT = "q8ta linear without cooperative matrix"
PULL_REQUEST = "pull request 17566"
INT_MM = "_int_mm"
INT_MM_REQUANTIZE = "_int_mm + compiled requantize"
INT_MM_AUTOTUNE = "_int_mm + requantize, max-autotune"
COMPILED_GEMV = "compiled int8 GEMV"
COMPILED_WEIGHT_ONLY = "compiled int8-weight GEMV, float32 sums"
FP16 = "fp16 linear"
BF16 = "bf16 linear"
INT_MM_CONTIGUOUS = "_int_mm, weights transposed beforehand"
FBGEMM = "quantized.linear fbgemm"
ONEDNN = "quantized.linear onednn"
# Names of roofs.
EMPTY = "empty dispatch"
READ_ONCE = "reading the weights once"


class Shape(NamedTuple):
    """x is int8 [M, K], weights are int8 [N, K]."""

    M: int
    K: int
    N: int

    @property
    def multiplies(self) -> int:
        return self.M * self.K * self.N

    @property
    def weight_bytes(self) -> int:
        return self.K * self.N

    def __str__(self) -> str:
        return "x".join(map(str, self))


def section_of(shape: Shape) -> Section:
    """Where a shape belongs that a user names."""
    return "gemv" if shape.M == 1 else "few_rows" if shape.M <= 32 else "gemm"


GEMV_LARGE = (Shape(1, 8192, 28672), Shape(1, 11008, 16384))
GEMV_MIDDLE = (Shape(1, 4096, 4096), Shape(1, 4096, 11008), Shape(1, 2048, 2048), Shape(1, 512, 9059))
GEMV_SMALL = (Shape(1, 512, 512),)
FEW_ROWS = tuple(Shape(M, 4096, N) for N in (4096, 11008) for M in (2, 4, 8, 16, 32))
GEMM = (
    Shape(256, 2048, 2048),
    Shape(1024, 2048, 2048),
    Shape(1024, 4096, 4096),
    Shape(4096, 4096, 4096),
    Shape(8192, 8192, 8192),
)
GEMM_PULL_REQUEST = Shape(1024, 2048, 2048)
CPU_EQUAL = tuple(Shape(M, 2048, 2048) for M in (1, 4, 32, 512))
CPU_CLOSE = tuple(Shape(M, K, N) for K, N in ((4096, 11008), (512, 9059)) for M in (1, 4, 32, 512))

# Off every tile.
EXACT = (
    Shape(1, 511, 513),
    Shape(1, 4097, 1023),
    Shape(1, 512, 9059),
    *(Shape(M, 1000, 777) for M in (2, 3, 5, 9, 17, 31, 33)),
    Shape(129, 257, 383),
    Shape(255, 2050, 1001),
    Shape(1025, 515, 2047),
)

SHAPES: dict[Section, tuple[Shape, ...]] = {
    "exact": EXACT,
    "gemv": GEMV_LARGE + GEMV_MIDDLE + GEMV_SMALL,
    "few_rows": FEW_ROWS,
    "gemm": GEMM,
    "cpu": CPU_EQUAL + CPU_CLOSE,
    "vk": (*GEMV_MIDDLE, *GEMV_SMALL, Shape(8, 4096, 4096), *GEMM[:3]),
}
QUICK_SHAPES: dict[Section, tuple[Shape, ...]] = {
    "exact": (Shape(1, 67, 33), Shape(5, 67, 33)),
    "gemv": (Shape(1, 64, 32), Shape(1, 250, 131)),
    "few_rows": (Shape(2, 64, 64), Shape(7, 130, 66)),
    "gemm": (Shape(40, 64, 96), Shape(64, 128, 64)),
    "cpu": (Shape(1, 128, 64), Shape(32, 128, 64)),
    "vk": (Shape(1, 64, 32), Shape(40, 64, 96)),
}

Kind = Literal["speedup", "at_most", "bandwidth", "dequant", "exact"]


@dataclass(frozen=True)
class Bar:
    """One line of the table of issue 5.

    Attributes:
        claim: what is compared, in words.
        kind: what the value is:
            speedup: time of the fastest of ``against`` / our time; at least ``bar``;
            at_most: our time / time of the fastest of ``against``; at most ``bar``;
            bandwidth: weight bytes / our time, as a share of the copy's bandwidth; at least ``bar``;
            dequant: time of linear_dequant / (time of linear + writing the extra bytes at the copy's
            bandwidth); at most ``bar``;
            exact: the share of repeated results that are equal to the host kernel's; at least ``bar``.
        shapes: with their own bar and the figure beyond it (None: there is none of it).
        ours: the contestant that is judged.
    """

    claim: str
    kind: Kind
    section: Section
    shapes: tuple[tuple[Shape, float | None, float | None], ...]
    against: tuple[str, ...] = ()
    ours: str = LINEAR

    @property
    def at_least(self) -> bool:
        return self.kind in ("speedup", "bandwidth", "exact")


def _each(shapes: tuple[Shape, ...], bar: float | None, beyond: float | None = None):
    return tuple((shape, bar, beyond) for shape in shapes)


BARS: tuple[Bar, ...] = (
    Bar("int8 results, repeated: equal", "exact", "exact", _each(EXACT, 1.0)),
    Bar("float32 results, repeated: equal", "exact", "exact", _each(EXACT, 1.0), ours=DEQUANT),
    Bar(
        "GEMV, large weights: share of the copy's bandwidth",
        "bandwidth",
        "gemv",
        _each(GEMV_LARGE, 0.90, 0.95),
    ),
    Bar(
        "GEMV against the faster of fp16 linear and compiled int8",
        "speedup",
        "gemv",
        _each(GEMV_MIDDLE, 1.5, 2.0),
        (FP16, COMPILED_GEMV, COMPILED_WEIGHT_ONLY),
    ),
    Bar("GEMV 512x512 against an empty dispatch", "at_most", "gemv", _each(GEMV_SMALL, 1.4, 1.15), (EMPTY,)),
    Bar(
        "GEMV against the pull request's",
        "speedup",
        "gemv",
        (
            (GEMV_LARGE[0], 2.0, None),
            *_each((GEMV_LARGE[1], *GEMV_MIDDLE, *GEMV_SMALL), 1.2),
        ),
        (PULL_REQUEST,),
    ),
    Bar("few rows against fp16 linear", "speedup", "few_rows", _each(FEW_ROWS, 1.4, 2.0), (FP16,)),
    Bar(
        "few rows against reading the weights once",
        "at_most",
        "few_rows",
        tuple((Shape(M, 4096, 4096), bar, 1.15) for M, bar in ((8, 1.3), (16, 1.4), (32, 1.6))),
        (READ_ONCE,),
    ),
    Bar(
        "GEMM against _int_mm + compiled requantize",
        "speedup",
        "gemm",
        tuple((shape, bar, 1.25) for shape, bar in zip(GEMM, (1.0, 1.1, 1.1, 0.95, 0.95), strict=True)),
        (INT_MM_REQUANTIZE,),
    ),
    Bar("GEMM against _int_mm alone", "speedup", "gemm", _each(GEMM, None, 1.0), (INT_MM,)),
    Bar(
        "linear_dequant against linear + writing the extra bytes",
        "dequant",
        "dequant",
        _each(GEMV_LARGE + GEMV_MIDDLE + GEMV_SMALL + FEW_ROWS + GEMM, 1.15),
        ours=DEQUANT,
    ),
    Bar(
        "GEMM against the pull request's",
        "speedup",
        "gemm",
        _each((GEMM_PULL_REQUEST,), 5.0),
        (PULL_REQUEST,),
    ),
    Bar(
        "GEMM without cooperative matrix against the pull request's",
        "speedup",
        "gemm",
        _each((GEMM_PULL_REQUEST,), 2.5),
        (PULL_REQUEST,),
        ours=WITHOUT_COOPMAT,
    ),
    Bar(
        "host kernel against the best opponent",
        "at_most",
        "cpu",
        _each(CPU_EQUAL, 1.0) + _each(CPU_CLOSE, 1.2),
        (INT_MM, INT_MM_CONTIGUOUS, FBGEMM, ONEDNN),
    ),
)
