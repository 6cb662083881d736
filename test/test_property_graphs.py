"""Properties of the rewrite: any graph computes the same bits afterwards, and every linear is accounted for.

A replaced linear gives what its definition says with exact sums; where one stays in float, it and everything
else gives what the graph says.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

pytest.importorskip("torchao")

from joining import Linear, run  # noqa: E402
from models import DYNAMIC_BATCH, q8ta_targets, targets  # noqa: E402
from promised import same_bits  # noqa: E402
from random_graphs import Expected, RandomModel, Step, random_model  # noqa: E402
from strategies import drawn, examples  # noqa: E402
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e  # noqa: E402

import q8ta_ops  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")


def check_rewritten(module: Any, *inputs: Tensor) -> Any:
    """Rewrites a GraphModule or an ExportedProgram and compares every bit. Returns the rewritten one."""
    graph_module = module if isinstance(module, GraphModule) else module.module()
    linears = targets(module).count("aten.linear.default")
    result = q8ta_ops.rewrite(module)
    assert len(result.replaced) + len(result.skipped) == linears, str(result)
    assert len(result.replaced) == sum(name.startswith("linear") for name in q8ta_targets(result.module))
    assert targets(result.module).count("aten.linear.default") == len(result.skipped)
    assert all(reason for _, reason in result.skipped)
    left_alone = {node.name for node, _ in result.skipped}
    for x in inputs:
        assert_same(run(result.module, x), Expected(graph_module, left_alone).run(x))
    return result.module


def assert_same(got: Any, expected: Any) -> None:
    got, expected = ([each] if isinstance(each, Tensor) else list(each) for each in (got, expected))
    for first, second in zip(got, expected, strict=True):
        # A zero's sign may differ: relu of a float -0.0 is -0.0, of an operator's 0.0.
        assert first.shape == second.shape and torch.equal(first, second), (first, second)


@examples(ci=60)
@given(model=drawn(random_model, True))
def test_quantized_graphs(model: tuple[RandomModel, Tensor]):
    """Without the cost of an export: the graph as it is traced."""
    module, x = model
    with q8ta_ops.use_device("host"):
        traced = make_fx(module, pre_dispatch=True)(x)
        rewritten = check_rewritten(traced, x, x * 0.3)
        again = q8ta_ops.rewrite(rewritten)
        assert again.replaced == [] and str(again.module.graph) == str(rewritten.graph)


@examples(ci=5)
@given(model=drawn(random_model, True))
def test_programs(model: tuple[RandomModel, Tensor], tmp_path_factory):
    """The same as programs with a dynamic batch, through a file."""
    module, x = model
    program = torch.export.export(module, (x,), dynamic_shapes={"x": DYNAMIC_BATCH[0]})
    with q8ta_ops.use_device("host"):
        rewritten = check_rewritten(program, x, x[:1])
        rewritten.validate()
        check_saved(rewritten, tmp_path_factory, x, x[:1])


@examples(ci=3)
@given(model=drawn(random_model, False))
def test_float_models(model: tuple[RandomModel, Tensor], tmp_path_factory):
    """A float model is quantized by PT2E, rewritten, saved and loaded."""
    module, x = model
    with q8ta_ops.use_device("host"):
        exported = torch.export.export(module, (x,), dynamic_shapes={"x": DYNAMIC_BATCH[0]})
        prepared = prepare_pt2e(exported.module(), q8ta_ops.Q8taQuantizer())
        prepared(x)
        converted = convert_pt2e(prepared)
        rewritten = check_rewritten(converted, x, x * 2)
        program = torch.export.export(converted, (x,), dynamic_shapes=DYNAMIC_BATCH)
        program = check_rewritten(program, x, x[:1])
        assert_same(run(program, x), run(rewritten, x))
        check_saved(program, tmp_path_factory, x, x[:1])


@examples(ci=2)
@given(model=drawn(random_model, False))
def test_quantize(model: tuple[RandomModel, Tensor], tmp_path_factory):
    """All of it by q8ta_ops.quantize: no linear stays in float, and the file gives the same bits."""
    module, x = model
    with q8ta_ops.use_device("host"):
        program = q8ta_ops.quantize(module, (x,), [(x,)], {"x": DYNAMIC_BATCH[0]})
        layers = [step for step in module.steps if step.name == "linear"]
        assert len([name for name in q8ta_targets(program) if name.startswith("linear")]) <= len(layers)
        assert "aten.linear.default" not in targets(program)
        check_saved(program, tmp_path_factory, x, x[:1])


def check_saved(program: ExportedProgram, folder: Any, *inputs: Tensor) -> None:
    """A program comes back from its file with the same bits."""
    if not q8ta_targets(program):
        return
    path = folder.mktemp("program") / "model.pt2"
    q8ta_ops.save(program, path)
    loaded = q8ta_ops.load(path)
    for x in inputs:
        for first, second in zip(run(loaded, x), run(program, x), strict=True):
            assert same_bits(first, second).all()


def test_a_graph_whose_values_were_recorded_one_by_one():
    """make_fx records each value with a fake mode of its own, which the rewrite refused."""
    module, x = _one_linear()
    traced = make_fx(module, pre_dispatch=True)(x)
    modes = {node.meta["val"].fake_mode for node in traced.graph.nodes if "val" in node.meta}
    assert len(modes) > 1
    assert len(q8ta_ops.rewrite(traced).replaced) == 1


def _one_linear() -> tuple[RandomModel, Tensor]:
    steps = [
        Step("quantized", (0,), (0.05, 3)),
        Step("linear", (1,), (0,)),
        Step("quantized", (2,), (0.1, 0)),
    ]
    return RandomModel(steps, [Linear(4, 3)], (3,)), torch.ones(2, 4)
