"""The driver of many random cases: it counts, names what is wrong, and goes on where it was stopped."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import many_cases
import promised
import pytest
import torch
from many_cases import BLOCK, PATHS, Tally, run

ON_THE_HOST = BLOCK * list(PATHS).index("host")
"""The first seed of a block that the host computes."""


@pytest.fixture
def arguments(tmp_path: Path) -> argparse.Namespace:
    return argparse.Namespace(
        cases=20,
        seed=ON_THE_HOST,
        device=os.environ["Q8TA_DEVICE"],
        vk=False,
        products=10_000,
        progress=tmp_path / "progress.json",
    )


def run_all(arguments: argparse.Namespace) -> dict:
    tally = Tally(arguments)
    run(tally, arguments, lambda tensor: tensor)
    assert json.loads(arguments.progress.read_text()) == tally.counts
    return tally.counts


def test_right_cases_are_counted(arguments):
    counts = run_all(arguments)
    assert (counts["cases"], counts["next seed"]) == (20, ON_THE_HOST + 20)
    assert counts["wrong"] == counts["errors"] == counts["validation messages"] == 0
    assert sum(counts["kinds"].values()) == 20 and counts["kernels"]["host/gemm"] > 5


def test_wrong_results_and_errors_are_counted_with_their_seeds(arguments, monkeypatch, capsys):
    arguments.cases = 2
    monkeypatch.setattr(promised, "same_bits", lambda got, want: torch.zeros(want.shape, dtype=torch.bool))
    wrong = run_all(arguments)["wrong"]
    assert wrong > 0 and f"seed {ON_THE_HOST} on host" in capsys.readouterr().out

    def broken(*_: object) -> None:
        raise RuntimeError("no device")

    arguments.progress = arguments.progress.with_name("second.json")
    monkeypatch.setattr(promised, "check_linear", broken)
    monkeypatch.setattr(promised, "check_call", broken)
    assert run_all(arguments)["errors"] == 2
    assert f"seed {ON_THE_HOST + 1} on host: RuntimeError: no device" in capsys.readouterr().out


def test_a_run_goes_on_behind_the_case_that_it_crashed_at(arguments, monkeypatch):
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    tally = Tally(arguments)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(many_cases, "run_case", stopped)
        run(tally, arguments, lambda tensor: tensor)
    counts = run_all(arguments)
    assert counts["crashed at"] == [ON_THE_HOST] and counts["cases"] == 19
