"""torch.compile(model, backend="q8ta"): weights and scales that change after compilation."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from compiling import (
    chain,
    compiled_with,
    data,
    needs_inductor,
    rewritten,
)
from compiling import fresh_dynamo as _fresh_dynamo  # noqa: F401 (a fixture)
from models import int8_tensor
from torch import Tensor, nn
from torch._dynamo.utils import counters


def flip(model: Any) -> None:
    model._frozen_param0.neg_()


def set_attribute(model: Any) -> None:
    model._frozen_param1 = int8_tensor(*model._frozen_param1.shape, seed=5)


def load_in_place(model: Any) -> None:
    state = {
        name: -value if value.dtype == torch.int8 else value * 2 for name, value in state_of(model).items()
    }
    model.load_state_dict(state)


def load_by_assignment(model: Any) -> None:
    state = {name: value.clone() for name, value in state_of(model).items()}
    state["_frozen_param2"] = state["_frozen_param2"] // 2
    model.load_state_dict(state, assign=True)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def scale(model: Any) -> None:
    with torch.no_grad():
        model._scale_0.mul_(3.0)
        model.fc1.bias.add_(1.0)


CHANGES = [flip, set_attribute, load_in_place, load_by_assignment, scale]


@pytest.mark.parametrize("inner", ["eager", "aot_eager"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_after_compilation_counts(target, inner, change):
    converted = chain()
    compiled = compiled_with(inner, converted)
    before = compiled(data(4))
    change(converted)
    with torch._dynamo.config.patch(error_on_recompile=True):
        after = compiled(data(4))
        assert torch.equal(compiled(data(4)), after)
    assert torch.equal(after, rewritten(converted)(data(4)))
    assert not torch.equal(after, before)


@needs_inductor
@pytest.mark.timeout(240)
def test_every_change_after_compilation_counts_with_inductor(target):
    converted = chain()
    compiled = compiled_with("inductor", converted)
    compiled(data(4))
    with torch._dynamo.config.patch(error_on_recompile=True):
        for change in CHANGES:
            change(converted)
            assert torch.equal(compiled(data(4)), rewritten(converted)(data(4))), change.__name__


def test_what_was_derived_is_derived_once(monkeypatch):
    from q8ta_ops import compile as under_test

    calls = []
    original = under_test.rewrite_dynamo_graph
    monkeypatch.setattr(under_test, "rewrite_dynamo_graph", lambda *a: calls.append(1) or original(*a))
    converted = chain()
    compiled = compiled_with("eager", converted)
    for _ in range(3):
        compiled(data(4))
    assert len(calls) == 1
    flip(converted)
    for _ in range(3):
        compiled(data(4))
    assert len(calls) == 2


@pytest.mark.parametrize("inner", ["eager", "aot_eager"])
def test_a_change_that_needs_another_graph_runs_uncompiled(inner, caplog):
    converted = chain()
    compiled = compiled_with(inner, converted)
    compiled(data(4))
    converted._zero_point_1.fill_(2)
    for _ in range(2):
        assert torch.equal(compiled(data(4)), rewritten(converted)(data(4)))
    assert caplog.text.count("torch.compiler.reset()") == 1
    flip(converted)
    assert torch.equal(compiled(data(4)), rewritten(converted)(data(4)))
    converted._zero_point_1.zero_()
    assert torch.equal(compiled(data(4)), rewritten(converted)(data(4)))


@needs_inductor
@pytest.mark.timeout(240)
def test_two_models_of_one_shape_share_code_and_not_sums():
    """The second one comes from Inductor's cache."""
    models = [chain(), chain()]
    models[1]._frozen_param0.neg_()
    for model in models:
        torch.compiler.reset()
        assert torch.equal(compiled_with("inductor", model)(data(4)), rewritten(model)(data(4)))
    assert counters["inductor"]["fxgraph_cache_hit"] >= 1


def test_the_model_and_its_memory_are_the_users():
    converted = chain()
    before = copy.deepcopy(converted.state_dict())
    code = converted.code
    compiled_with("aot_eager", converted)(data(4))
    assert converted.code == code and converted.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in converted.state_dict().items())
