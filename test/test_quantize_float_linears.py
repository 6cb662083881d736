"""Which linears q8ta_ops.quantize leaves in float, by wish or by need, and that it says so."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("torchao")

from models import q8ta_targets  # noqa: E402

import q8ta_ops  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")


def data(*sizes: int, seed: int = 0) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def fixed_weights() -> None:
    torch.manual_seed(7)


class Tower(nn.Module):
    """A head that has two names."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh())
        self.head = nn.Linear(16, 4)
        self.alias = self.head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


@pytest.mark.parametrize(
    ("float_modules", "left"),
    [
        ((), []),
        (["head"], ["head"]),
        (["alias"], ["head"]),
        ("body.0", ["body.0"]),
        ({"body"}, ["body.0", "body.2"]),
        ((nn.Sequential, "head"), ["body.0", "body.2", "head"]),
        (nn.Linear, ["body.0", "body.2", "head"]),
    ],
)
def test_modules_that_stay_in_float(
    caplog: pytest.LogCaptureFixture, float_modules: Any, left: list[str]
) -> None:
    model, x = Tower(), data(4, 16)
    with caplog.at_level(logging.INFO, logger="q8ta_ops"):
        program = q8ta_ops.quantize(model, (x,), [x], float_modules=float_modules)
    assert len(q8ta_targets(program)) == 3 - len(left)
    again = q8ta_ops.rewrite(program)
    assert again.replaced == [] and len(again.skipped) == len(left)
    records = [record for record in caplog.records if record.name == "q8ta_ops"]
    assert [record.levelno for record in records] == [logging.INFO] * len(left)
    assert [record.getMessage().split()[1] for record in records] == left
    if len(left) == 3:
        assert torch.equal(program.module()(x), model(x))


class Mixed(nn.Module):
    """A linear that can be quantized between two that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(16, 16, dtype=torch.float64)
        self.fc = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.fc(self.wide(x.double()).float()))
        return nn.functional.linear(y, y)


def test_what_cannot_be_quantized_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    x = data(4, 16)
    with caplog.at_level(logging.INFO, logger="q8ta_ops"):
        program = q8ta_ops.quantize(Mixed(), (x,), [x])
    assert q8ta_targets(program) == ["linear_dequant"]
    records = [
        (record.levelname, record.getMessage()) for record in caplog.records if record.name == "q8ta_ops"
    ]
    assert records == [
        ("WARNING", "linear wide stays in float: its weight is torch.float64, expected torch.float32"),
        (
            "WARNING",
            "linear linear_2 stays in float: its weight is not a parameter or buffer: "
            "it comes from aten.tanh.default",
        ),
    ]


class InBranches(nn.Module):
    """Linears in the branches of a condition, which are graphs of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.yes, self.no = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.fc(x))
        return torch.cond(y.sum() > 0, lambda z: self.yes(z), lambda z: self.no(z), (y,))


def test_nested_graphs_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    x = data(4, 16)
    with caplog.at_level(logging.INFO, logger="q8ta_ops"):
        program = q8ta_ops.quantize(InBranches(), (x,), [x])
    assert q8ta_targets(program) == ["linear_dequant"]
    messages = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(messages) == 2
    assert all(message.endswith("stays in float: it is in a nested graph") for message in messages)
