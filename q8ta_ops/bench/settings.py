"""What a run measures and how long it takes over it."""

from __future__ import annotations

from dataclasses import dataclass, field

from .shapes import QUICK_SHAPES, SECTIONS, SHAPES, Section, Shape, section_of

MIB = 1 << 20


@dataclass(frozen=True)
class Settings:
    """Settings of one run.

    Attributes:
        sections: which parts are measured.
        shapes: of each section.
        samples: rounds of the contestants' turns that count.
        batch_us: how long the ops of one sample take together, in microseconds.
        rotate_bytes: copies of the weights together have at least so many bytes, in turn.
        most_copies: but no more copies than this.
        roof_bytes: what the copy and the reading of memory are measured on.
        check_repeats: how often each result of ours is compared before anything is timed.
        exact_repeats: how often results are compared in the section "exact".
        warm_up_s: seconds of work before the first measurement.
        autotune: shapes for which CUDA's max-autotune opponent is measured, which takes minutes to tune.
        cpu_sample_s: seconds of a CPU contestant's turn, at least one call.
    """

    sections: tuple[Section, ...] = SECTIONS
    shapes: dict[Section, tuple[Shape, ...]] = field(default_factory=lambda: SHAPES)
    samples: int = 15
    batch_us: float = 3000.0
    rotate_bytes: int = 256 * MIB
    most_copies: int = 1024
    roof_bytes: int = 512 * MIB
    check_repeats: int = 3
    exact_repeats: int = 100
    warm_up_s: float = 1.0
    autotune: tuple[Shape, ...] = ()
    cpu_sample_s: float = 0.02
    quick: bool = False


def quick_settings() -> Settings:
    """Seconds on a software device: it shows that everything works, not how fast it is."""
    return Settings(
        shapes=QUICK_SHAPES,
        samples=3,
        batch_us=200.0,
        rotate_bytes=MIB // 4,
        most_copies=3,
        roof_bytes=MIB,
        check_repeats=1,
        exact_repeats=3,
        warm_up_s=0.0,
        cpu_sample_s=0.0,
        quick=True,
    )


def shapes_by_section(shapes: tuple[Shape, ...]) -> dict[Section, tuple[Shape, ...]]:
    """The shapes that a user names: in their section by rows, and in exact, cpu and vk."""
    return {
        section: tuple(shape for shape in shapes if section in ("exact", "cpu", "vk", section_of(shape)))
        for section in SECTIONS
    }
