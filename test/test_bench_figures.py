"""The benchmark's statistics, verdicts and arguments, on planted figures."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from q8ta_ops.bench.command_line import describe_verdicts, parse_shape, parser, settings_of
from q8ta_ops.bench.shapes import BARS, DEQUANT, FP16, LINEAR, SECTIONS, SHAPES, Bar, Shape, section_of
from q8ta_ops.bench.spread import Contestant, Spread, take_turns
from q8ta_ops.bench.verdicts import judge

SHAPE = Shape(1, 1000, 2000)


def spread(median: float) -> dict[str, float]:
    return Spread.of([median]).as_dict()


def result(section: str, shape: Shape, **us: float) -> dict[str, Any]:
    """A result with planted medians on the GPU; underscores in names stand for spaces."""
    rows = [{"name": name.replace("_", " "), "us": {"gpu": spread(value)}} for name, value in us.items()]
    return {"section": section, "shape": list(shape), "contestants": rows, "absent": []}


def bar(kind: str, limit: float | None, beyond: float | None = None, **others: Any) -> Bar:
    return Bar("planted", kind, others.pop("section", "gemv"), ((SHAPE, limit, beyond),), **others)


def test_spread_of_planted_samples() -> None:
    planted = Spread.of([5.0, 1.0, 2.0, 4.0, 3.0])
    assert planted == Spread(median=3.0, q25=2.0, q75=4.0, min=1.0, max=5.0, count=5)
    assert Spread.of([1.0, 2.0]).median == 1.5
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0, 7.0, 7.0, 1)
    with pytest.raises(ValueError, match="at least one"):
        Spread.of([])


def test_contestants_take_turns_and_the_warm_up_does_not_count() -> None:
    order: list[str] = []

    def sampler(name: str, values: list[float]):
        remaining = iter(values)

        def sample() -> dict[str, float]:
            order.append(name)
            return {"gpu": next(remaining)}

        return sample

    first = Contestant("first", [sampler("first", [1000.0, 1.0, 3.0, 2.0])])
    second = Contestant("second", [sampler("second", [2000.0, 10.0, 10.0, 40.0])])
    take_turns([first, second], samples=3, warm_up=1)
    assert [sorted(order[i : i + 2]) for i in range(0, 8, 2)] == [["first", "second"]] * 4
    assert first.spreads["gpu"] == Spread(2.0, 1.5, 2.5, 1.0, 3.0, 3)
    assert (second.spreads["gpu"].median, second.spreads["gpu"].max) == (10.0, 40.0)


def test_nobody_always_follows_the_same_contestant() -> None:
    order: list[str] = []

    def sampler(name: str):
        return lambda: order.append(name) or {"gpu": 1.0}

    names = ["a", "b", "c", "d"]
    take_turns([Contestant(name, [sampler(name)]) for name in names], samples=15, warm_up=2)
    pairs = list(zip(order, order[1:], strict=False))
    for name in names:
        before = [earlier for earlier, later in pairs if later == name and earlier != name]
        assert max(before.count(other) for other in names) <= 10, (name, before)


@pytest.mark.parametrize(
    ("opponent_us", "met", "beyond_met"), [(15.0, True, False), (20.0, True, True), (14.9, False, False)]
)
def test_speedup(opponent_us: float, met: bool, beyond_met: bool) -> None:
    results = [result("gemv", SHAPE, q8ta_linear=10.0, fp16_linear=opponent_us)]
    (verdict,) = judge(results, None, [bar("speedup", 1.5, 2.0, against=(FP16,))])
    assert verdict.value == pytest.approx(opponent_us / 10)
    assert (verdict.met, verdict.beyond_met) == (met, beyond_met)
    if met:
        assert verdict.missed_by is None
    else:
        assert verdict.missed_by == pytest.approx((1.5 - 1.49) / 1.5)


def test_the_fastest_opponent_counts_and_absent_ones_are_named() -> None:
    results = [result("gemv", SHAPE, q8ta_linear=10.0, slow=50.0, fast=12.0)]
    (verdict,) = judge(results, None, [bar("speedup", 1.5, against=("slow", "fast", "gone"))])
    assert verdict.value == pytest.approx(1.2)
    assert verdict.because == "fast (absent: gone)"


def test_at_most() -> None:
    results = [result("gemv", SHAPE, q8ta_linear=2.6, empty_dispatch=2.0)]
    bars = [bar("at_most", limit, 1.15, against=("empty dispatch",)) for limit in (1.4, 1.2)]
    within, above = judge(results, None, bars)
    assert (within.value, within.met, within.beyond_met) == (pytest.approx(1.3), True, False)
    assert above.met is False and above.missed_by == pytest.approx(0.1 / 1.2)


def test_bandwidth_counts_the_weights_alone() -> None:
    # 2,000,000 bytes in 1 us are 2000 GB/s.
    (verdict,) = judge([result("gemv", SHAPE, q8ta_linear=1.0)], 2500.0, [bar("bandwidth", 0.75, 0.9)])
    assert (verdict.value, verdict.met, verdict.beyond_met) == (pytest.approx(0.8), True, False)


def test_dequant_may_write_the_extra_bytes() -> None:
    # 3 * 2000 extra bytes at 6 GB/s take 1 us.
    planted = [{**result("gemv", SHAPE), "contestants": []}]
    planted[0]["contestants"] = [
        {"name": LINEAR, "us": {"gpu": spread(3.0)}},
        {"name": DEQUANT, "us": {"gpu": spread(4.8)}},
    ]
    (verdict,) = judge(planted, 6.0, [bar("dequant", 1.15, section="dequant", ours=DEQUANT)])
    assert verdict.value == pytest.approx(1.2) and verdict.met is False


def test_exact_counts_repeats() -> None:
    row = {"name": LINEAR, "repeats": 100, "equal": 99, "kernels": ["k"]}
    planted = [{"section": "exact", "shape": list(SHAPE), "contestants": [row], "absent": []}]
    (verdict,) = judge(planted, None, [bar("exact", 1.0, section="exact")])
    assert (verdict.value, verdict.met) == (0.99, False)


@pytest.mark.parametrize("kind", ["speedup", "at_most", "bandwidth", "dequant", "exact"])
def test_what_was_not_measured_is_neither_met_nor_missed(kind: str) -> None:
    alone = [[result("gemv", SHAPE, **{name: 1.0})] for name in ("q8ta_linear", "fp16_linear")]
    for results in [[], *(alone if kind != "exact" else [])]:
        (verdict,) = judge(results, None, [bar(kind, 1.0, 2.0, against=("gone",))])
        assert (verdict.value, verdict.met, verdict.beyond_met, verdict.missed_by) == (None,) * 4
        assert verdict.because


def test_a_bar_of_another_section_or_shape_is_not_judged_by_this_one() -> None:
    planted = bar("speedup", 1.0, against=(FP16,))
    us = {"q8ta_linear": 1.0, "fp16_linear": 9.0}
    for results in ([result("gemm", SHAPE, **us)], [result("gemv", Shape(1, 1000, 2001), **us)]):
        assert judge(results, None, [planted])[0].value is None
    assert judge([result("gemv", SHAPE, **us)], None, [planted])[0].met is True


def test_cpu_is_judged_by_the_wall() -> None:
    planted = result("cpu", SHAPE)
    planted["contestants"] = [
        {"name": name, "us": {"wall": spread(us)}} for name, us in ((LINEAR, 11.0), ("_int_mm", 10.0))
    ]
    (verdict,) = judge([planted], None, [bar("at_most", 1.2, section="cpu", against=("_int_mm",))])
    assert verdict.value == pytest.approx(1.1) and verdict.met is True


def test_the_report_names_what_was_missed_and_by_how_much() -> None:
    results = [result("gemv", SHAPE, q8ta_linear=10.0, fp16_linear=12.0)]
    verdicts = judge(results, None, [bar("speedup", 1.5, 2.0, against=(FP16,)), bar("bandwidth", 0.9)])
    text = describe_verdicts([verdict.as_dict() for verdict in verdicts])
    assert "planted, 1x1000x2000: 1.200 >= 1.5 MISSED by 20%; not beyond 2  [fp16 linear]" in text
    assert "1 of 2 were not measured" in text


def test_every_bar_is_at_a_shape_that_is_measured() -> None:
    assert {bar.section for bar in BARS} <= set(SECTIONS)
    gpu = {shape for section in ("gemv", "few_rows", "gemm") for shape in SHAPES[section]}
    for each in BARS:
        measured = gpu if each.section == "dequant" else set(SHAPES[each.section])
        assert {shape for shape, _, _ in each.shapes} <= measured, each.claim
        for _, limit, beyond in each.shapes:
            if limit is not None and beyond is not None:
                assert (beyond > limit) == each.at_least, each.claim


@pytest.mark.parametrize("section", ["gemv", "few_rows", "gemm"])
def test_shapes_are_where_a_user_would_find_them(section: str) -> None:
    assert {section_of(shape) for shape in SHAPES[section]} == {section}


def test_arguments() -> None:
    assert parse_shape("2x30x400") == Shape(2, 30, 400)
    for wrong in ("2x3", "2x3x4x5", "0x3x4", "axbxc", "2x-3x4", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="MxKxN"):
            parse_shape(wrong)
    parsed = parser().parse_args(["--shapes", "1x8x8,4x8x8,64x8x8", "--only", "gemm,cpu", "--samples", "2"])
    settings = settings_of(parsed)
    assert settings.sections == ("gemm", "cpu") and settings.samples == 2
    assert settings.shapes["gemm"] == (Shape(64, 8, 8),) and len(settings.shapes["cpu"]) == 3
    with pytest.raises(SystemExit):
        parser().parse_args(["--only", "gemm,typo"])
