"""q8ta_ops.rewrite on ExportedPrograms: signature, state, dynamic batch, saving, and what comes after."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

pytest.importorskip("torchao")

from models import (  # noqa: E402
    DYNAMIC_BATCH,
    Chain,
    HandMade,
    OneLinear,
    Residual,
    SharedInput,
    SharedWeight,
    exact,
    int8_tensor,
    q8ta_targets,
    quantized,
    same,
    targets,
)

import q8ta_ops  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")


def data(*sizes: int, seed: int = 0) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def fixed_weights() -> None:
    torch.manual_seed(7)


def program_of(model: nn.Module, x: Tensor, dynamic: bool = True) -> ExportedProgram:
    """The model quantized, and exported again."""
    converted = quantized(model, x, dynamic=dynamic)
    return torch.export.export(converted, (x,), dynamic_shapes=DYNAMIC_BATCH if dynamic else None)


def save_and_load(program: ExportedProgram) -> ExportedProgram:
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file)


@pytest.mark.parametrize("model", [Chain, Residual, SharedInput, SharedWeight])
def test_models_with_a_dynamic_batch(model: type[nn.Module]) -> None:
    program = program_of(model(), data(6, 16))
    result = q8ta_ops.rewrite(program)
    assert isinstance(result.module, ExportedProgram)
    assert result.skipped == [] and q8ta_targets(result.module) == ["linear"] * len(result.replaced)
    result.module.validate()
    loaded = save_and_load(result.module)
    before, after, after_load = program.module(), result.module.module(), loaded.module()
    for rows in (6, 1, 3, 65):
        x = data(rows, 16, seed=rows)
        expected = exact(before, x)
        assert same(after(x), expected) and same(after_load(x), expected)


@pytest.mark.parametrize(
    ("sizes", "op"),
    [
        ((12,), "linear_gemv"),
        ((1, 12), "linear_gemv"),
        ((1, 1, 12), "linear_gemv"),
        ((1, 2, 1, 12), "linear"),
        ((4, 1, 12), "linear"),
    ],
)
def test_static_shapes(sizes: tuple[int, ...], op: str) -> None:
    x = data(*sizes)
    program = program_of(OneLinear(12, 7, relu="relu_"), x, dynamic=False)
    result = q8ta_ops.rewrite(program)
    assert q8ta_targets(result.module) == [op]
    assert torch.equal(result.module.module()(x), exact(program.module(), x))
    assert torch.equal(save_and_load(result.module).module()(x), result.module.module()(x))


def test_signature_and_state() -> None:
    result = q8ta_ops.rewrite(program_of(OneLinear(12, 7), data(4, 12)))
    program = result.module
    placeholders = [node.name for node in program.graph.nodes if node.op == "placeholder"]
    specs = program.graph_signature.input_specs
    assert [spec.arg.name for spec in specs] == placeholders
    # Buffers come before what the user passes in, and nothing is left of the dequantized weights.
    assert [spec.kind for spec in specs] == [InputKind.PARAMETER] + [InputKind.BUFFER] * 3 + [
        InputKind.USER_INPUT
    ]
    assert set(program.state_dict) == {"fc.bias", "_scale_0", "_frozen_param0", "q8ta_weight_sums_0"}
    assert program.constants == {}
    sums = program.state_dict["q8ta_weight_sums_0"]
    weights = program.state_dict["_frozen_param0"]
    assert torch.equal(sums, weights.sum(1, dtype=torch.int32)) and sums.dtype == torch.int32
    value = result.replaced[0].node.args[4].meta["val"]
    assert value.dtype == torch.int32 and value.shape == (7,)


def test_callers_program_is_untouched_and_tensors_are_shared() -> None:
    program = program_of(Residual(), data(4, 16))
    text, signature = str(program.graph), str(program.graph_signature)
    state = {name: (id(tensor), tensor.clone()) for name, tensor in program.state_dict.items()}
    result = q8ta_ops.rewrite(program)
    assert str(program.graph) == text and str(program.graph_signature) == signature
    assert set(program.state_dict) == set(state)
    for name, (identity, values) in state.items():
        tensor = program.state_dict[name]
        assert id(tensor) == identity and torch.equal(tensor, values)
    for name in set(result.module.state_dict) & set(state):
        assert result.module.state_dict[name] is program.state_dict[name]
    program.validate()


def test_constants_that_are_not_saved() -> None:
    model = HandMade(int8_tensor(6, 8))
    model.register_buffer("zero_points", model.zero_points, persistent=False)
    x = int8_tensor(3, 8, seed=1)
    program = torch.export.export(model, (x,))
    assert set(program.constants) == {"zero_points"}
    result = q8ta_ops.rewrite(program)
    assert set(program.constants) == {"zero_points"} and result.module.constants == {}
    assert torch.equal(result.module.module()(x), exact(program.module(), x))


def test_rewriting_twice_changes_nothing() -> None:
    once = q8ta_ops.rewrite(program_of(Residual(), data(4, 16)))
    twice = q8ta_ops.rewrite(once.module)
    assert len(once.replaced) == 3 and twice.replaced == [] and twice.skipped == []
    assert str(twice.module.graph) == str(once.module.graph)
    assert str(twice.module.graph_signature) == str(once.module.graph_signature)


def test_rewriting_a_loaded_program() -> None:
    program = save_and_load(program_of(Chain(), data(4, 16)))
    result = q8ta_ops.rewrite(program)
    assert q8ta_targets(result.module) == ["linear"] * 3
    x = data(5, 16)
    assert torch.equal(result.module.module()(x), exact(program.module(), x))


def test_results_that_are_outputs_keep_their_place() -> None:
    class Outputs(nn.Module):
        """Results of both operators are graph outputs, between others."""

        def __init__(self) -> None:
            super().__init__()
            self.first = HandMade(int8_tensor(6, 8))
            self.second = HandMade(int8_tensor(5, 8), relu=True, float_output=True)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return x + 1, self.first(x), self.second(x), x.abs()

    x = int8_tensor(3, 8, seed=1)
    program = torch.export.export(Outputs(), (x,))
    result = q8ta_ops.rewrite(program)
    assert q8ta_targets(result.module) == ["linear", "linear_dequant"]
    names = [spec.arg.name for spec in result.module.graph_signature.output_specs]
    assert names[1:3] == ["q8ta_linear", "q8ta_linear_dequant"]
    assert same(result.module.module()(x), exact(program.module(), x))
    assert same(save_and_load(result.module).module()(x), exact(program.module(), x))


class Stateful(nn.Module):
    """A linear, a buffer that the graph writes, a buffer that is not saved, and a lifted constant."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = HandMade(int8_tensor(6, 8), float_output=True)
        self.register_buffer("calls", torch.zeros(6))
        self.register_buffer("offset", torch.linspace(0, 1, 6), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        self.calls.add_(y.sum(0))
        return y + self.offset + torch.tensor([1.0, 2, 3, 4, 5, 6])


@pytest.mark.parametrize("functional", [False, True])
def test_other_state_survives(functional: bool) -> None:
    x = int8_tensor(3, 8, seed=1)
    program = torch.export.export(Stateful(), (x,))
    if functional:
        # Writes to buffers become outputs of the graph; the linear is kept.
        program = program.run_decompositions({})
    result = q8ta_ops.rewrite(program)
    assert q8ta_targets(result.module) == ["linear_dequant"]
    assert set(result.module.constants) == set(program.constants)
    before, after = program.module(), result.module.module()
    for _ in range(2):
        assert torch.equal(after(x), exact(before, x))
    # What the linear feeds into a written buffer arrives there too, after two calls of each.
    assert torch.equal(after.calls, before.calls) and after.calls.abs().sum() > 0
    assert save_and_load(result.module).module()(x).shape == (3, 6)


def test_what_comes_after() -> None:
    x = data(4, 16)
    result = q8ta_ops.rewrite(program_of(Residual(), x))
    expected = result.module.module()(x)
    assert torch.equal(result.module.run_decompositions().module()(x), expected)
    assert torch.equal(torch.export.unflatten(result.module)(x), expected)
    assert q8ta_targets(result.module.run_decompositions()) == ["linear"] * 3


def test_module_of_the_rewritten_program_is_a_fixed_point() -> None:
    result = q8ta_ops.rewrite(program_of(Chain(), data(4, 16)))
    again = q8ta_ops.rewrite(result.module.module())
    assert again.replaced == [] and again.skipped == []
    assert targets(again.module) == targets(result.module)


def test_saved_file_holds_the_operators(tmp_path: Path) -> None:
    x = data(4, 16)
    result = q8ta_ops.rewrite(program_of(Chain(), x))
    torch.export.save(result.module, tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2")
    assert q8ta_targets(loaded) == ["linear"] * 3
    assert torch.equal(loaded.module()(x), result.module.module()(x))
