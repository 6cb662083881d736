"""Samples of contestants that take turns, and their statistics."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

Figures = dict[str, float]
"""Microseconds of one op, by what was measured: "gpu", "gpu_warm", "kernels", "wall", ..."""


@dataclass(frozen=True)
class Spread:
    """Statistics of samples: quartiles by linear interpolation."""

    median: float
    q25: float
    q75: float
    min: float
    max: float
    count: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """Of at least one sample.

        Raises:
            ValueError: there are none.
        """
        if not samples:
            raise ValueError("samples: expected at least one")
        if len(samples) == 1:
            q25 = median = q75 = samples[0]
        else:
            q25, median, q75 = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(median, q25, q75, min(samples), max(samples), len(samples))

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass
class Contestant:
    """One way to compute something.

    Attributes:
        name: one of the names in ``shapes``.
        samplers: each call of each returns new figures.
        details: for the report: how its result was checked, its kernels, ...
        spreads: what ``take_turns`` has measured, by figure.
    """

    name: str
    samplers: list[Callable[[], Figures]]
    details: dict[str, object] = field(default_factory=dict)
    spreads: dict[str, Spread] = field(default_factory=dict)


@dataclass(frozen=True)
class Absent:
    """A contestant that was not measured."""

    name: str
    because: str


def take_turns(contestants: Sequence[Contestant], samples: int, warm_up: int = 1) -> None:
    """Samples all contestants in turns, so that they see the same state of the machine.

    Each round has an order of its own, the same in every run: what ran just before decides how warm a device
    is, and so its clocks, and no contestant shall always follow the same one. Fills in their ``spreads`` from
    ``samples`` rounds, after ``warm_up`` rounds that do not count.
    """
    collected: list[dict[str, list[float]]] = [{} for _ in contestants]
    each_sampler = [
        (sample, figures)
        for contestant, figures in zip(contestants, collected, strict=True)
        for sample in contestant.samplers
    ]
    for turn in range(warm_up + samples):
        for sample, figures in random.Random(turn).sample(each_sampler, len(each_sampler)):
            for name, microseconds in sample().items():
                if turn >= warm_up:
                    figures.setdefault(name, []).append(microseconds)
    for contestant, figures in zip(contestants, collected, strict=True):
        contestant.spreads = {name: Spread.of(values) for name, values in figures.items()}
