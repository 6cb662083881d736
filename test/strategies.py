"""hypothesis for the property tests: its profiles, and the choices of choosing.py drawn (and shrunk) by it.

HYPOTHESIS_PROFILE=ci     the default: few examples, the same ones in every run
HYPOTHESIS_PROFILE=deep   about an hour in all, other examples in every run. A failure prints the decorator
                          `reproduce_failure` that repeats its example; `--hypothesis-seed=1` repeats a run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

T = TypeVar("T")
Test = TypeVar("Test", bound=Callable)

_COMMON = {
    "deadline": None,
    "database": None,
    # `path` is the same for every example of a test; building a sample takes what it takes.
    "suppress_health_check": [
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
}
settings.register_profile("ci", derandomize=True, max_examples=60, **_COMMON)
settings.register_profile("deep", max_examples=5_000, print_blob=True, **_COMMON)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci")
settings.load_profile(PROFILE)


def examples(ci: int) -> Callable[[Test], Test]:
    """Decorates a property test: `ci` examples in that profile, and in proportion, with the time for them, in
    another."""
    ratio = settings().max_examples / settings.get_profile("ci").max_examples

    def decorated(test: Test) -> Test:
        if PROFILE != "ci":
            test = pytest.mark.timeout(3 * 3600)(test)
        return settings(max_examples=round(ci * ratio))(test)

    return decorated


class DrawingChooser:
    """Choices drawn by hypothesis."""

    def __init__(self, draw: Callable) -> None:
        self._draw = draw

    def integer(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def one_of(self, options: Sequence[T]) -> T:
        return options[self._draw(st.integers(0, len(options) - 1))]


@st.composite
def drawn(draw: Callable, build: Callable[..., T], *arguments: object) -> T:
    """What `build(chooser, *arguments)` makes of drawn choices."""
    return build(DrawingChooser(draw), *arguments)
