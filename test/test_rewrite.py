"""q8ta_ops.rewrite on what convert_pt2e returns: which operators it puts where, and exact results."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("torchao")

from models import (  # noqa: E402
    Chain,
    OneLinear,
    Residual,
    SharedInput,
    SharedWeight,
    exact,
    q8ta_targets,
    quantized,
    same,
    targets,
)

import q8ta_ops  # noqa: E402

# torch's own copy of an exported graph's argument structure.
pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")


def data(*sizes: int, seed: int = 0) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def fixed_weights() -> None:
    torch.manual_seed(7)


@pytest.mark.parametrize("relu", ["none", "relu", "relu_"])
@pytest.mark.parametrize("bias", [True, False])
def test_one_linear(bias: bool, relu: str) -> None:
    x = data(5, 33)
    converted = quantized(OneLinear(33, 19, bias, relu), x)
    result = q8ta_ops.rewrite(converted)
    assert targets(result.module) == [
        "quantized_decomposed.quantize_per_tensor.default",
        "q8ta.linear.default",
        "quantized_decomposed.dequantize_per_tensor.default",
    ]
    assert result.skipped == []
    (record,) = result.replaced
    assert (record.op, record.layer, record.in_features, record.out_features) == ("linear", "fc", 33, 19)
    assert record.activation == ("none" if relu == "none" else "relu")
    assert record.node in result.module.graph.nodes
    assert torch.equal(result.module(x), exact(converted, x))


@pytest.mark.parametrize(
    ("sizes", "op"),
    [
        ((12,), "linear_gemv"),
        ((1, 12), "linear_gemv"),
        ((1, 1, 12), "linear_gemv"),
        ((1, 1, 1, 12), "linear_gemv"),
        ((6, 12), "linear"),
        ((3, 1, 12), "linear"),
        ((2, 3, 12), "linear"),
        ((2, 3, 4, 12), "linear"),
    ],
)
def test_input_shapes(sizes: tuple[int, ...], op: str) -> None:
    x = data(*sizes)
    converted = quantized(OneLinear(12, 7, relu="relu"), x)
    result = q8ta_ops.rewrite(converted)
    assert q8ta_targets(result.module) == [op]
    assert result.module(x).shape == (*sizes[:-1], 7)
    assert torch.equal(result.module(x), exact(converted, x))


@pytest.mark.parametrize(
    ("model", "ops"),
    [
        (Chain, ["linear"] * 3),
        (Residual, ["linear"] * 3),
        (SharedInput, ["linear"] * 3),
        (SharedWeight, ["linear"] * 2),
    ],
)
@pytest.mark.parametrize("dynamic", [False, True])
def test_models(model: type[nn.Module], ops: list[str], dynamic: bool) -> None:
    x = data(6, 16)
    converted = quantized(model(), x, dynamic=dynamic)
    result = q8ta_ops.rewrite(converted)
    assert q8ta_targets(result.module) == ops
    assert result.skipped == []
    assert "aten.linear.default" not in targets(result.module)
    for rows in (6, 1, 3, 65) if dynamic else (6,):
        x = data(rows, 16, seed=rows)
        assert same(result.module(x), exact(converted, x))


def test_chain_of_int8_never_leaves_int8() -> None:
    result = q8ta_ops.rewrite(quantized(Chain(), data(6, 16)))
    first, second, third = (record.node for record in result.replaced)
    assert second.args[0] is first and third.args[0] is second
    # The quantization parameters too are handed on: an output's are the next input's.
    assert second.args[1:3] == first.args[6:8] and third.args[1:3] == second.args[6:8]
    assert [record.activation for record in result.replaced] == ["relu", "relu", "none"]


def test_close_to_the_float_graph() -> None:
    x = data(64, 33)
    converted = quantized(OneLinear(33, 19), x)
    scale = [node for node in converted.graph.nodes if "quantize_per_tensor" in str(node.target)][-1].args[1]
    quanta = (q8ta_ops.rewrite(converted).module(x) - converted(x)).abs() / scale
    # One quantum, since the float graph sums in float32 and can land on the other side of a tie.
    assert round(quanta.max().item()) <= 1


def test_dynamic_batch_keeps_the_general_operator() -> None:
    converted = quantized(OneLinear(12, 7), data(4, 12), dynamic=True)
    result = q8ta_ops.rewrite(converted)
    assert q8ta_targets(result.module) == ["linear"]
    rows = result.replaced[0].node.meta["val"].shape[0]
    assert isinstance(rows, torch.SymInt)
    assert result.replaced[0].node.meta["val"].dtype == torch.int8


def test_float_results_use_linear_dequant() -> None:
    x = data(4, 16)
    quantizer = q8ta_ops.Q8taQuantizer(outputs="auto")
    converted = quantized(Chain(), x, quantizer=quantizer)
    result = q8ta_ops.rewrite(converted)
    assert q8ta_targets(result.module) == ["linear", "linear", "linear_dequant"]
    assert result.replaced[2].note == "its result is not quantized"
    assert torch.equal(result.module(x), exact(converted, x))


def test_result_used_as_int8_and_as_float() -> None:
    x = data(4, 16)
    converted = quantized(Residual(), x, quantizer=q8ta_ops.Q8taQuantizer(outputs="auto"))
    result = q8ta_ops.rewrite(converted)
    first = result.replaced[0]
    # relu's result goes to a quantize and to the addition: the relu is folded, the quantize stays.
    assert (first.op, first.activation) == ("linear_dequant", "relu")
    assert first.note == "its result is also used as float by aten.add.Tensor"
    assert sorted(str(user.target) for user in first.node.users) == [
        "aten.add.Tensor",
        "quantized_decomposed.quantize_per_tensor.default",
    ]
    assert torch.equal(result.module(x), exact(converted, x))


class ReluAndMore(nn.Module):
    """The result of the linear itself is used besides its relu."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.fc(x)
        return torch.relu(y), torch.sigmoid(y)


def test_relu_is_folded_only_as_the_only_user() -> None:
    x = data(4, 16)
    converted = quantized(ReluAndMore(), x, quantizer=q8ta_ops.Q8taQuantizer(outputs="auto"))
    result = q8ta_ops.rewrite(converted)
    assert [(r.op, r.activation) for r in result.replaced] == [("linear_dequant", "none")]
    assert "aten.relu.default" in targets(result.module)
    assert same(result.module(x), exact(converted, x))


def test_shared_weight_has_one_sums_buffer() -> None:
    converted = quantized(SharedWeight(), data(4, 16))
    result = q8ta_ops.rewrite(converted)
    sums = {
        node.args[4].target: result.module.get_buffer(node.args[4].target)
        for node in result.module.graph.nodes
        if "q8ta" in str(node.target) and node.op == "call_function"
    }
    weights = {record.node.args[3].target for record in result.replaced}
    assert len(sums) == len(weights)
    assert all(tensor.dtype == torch.int32 and tensor.shape == (16,) for tensor in sums.values())


def test_buffers_hold_sums_and_scales() -> None:
    result = q8ta_ops.rewrite(quantized(OneLinear(12, 7), data(4, 12)))
    attributes = [argument.target for argument in result.replaced[0].node.args[3:6]]
    weights, sums, scales = (result.module.get_buffer(name) for name in attributes)
    assert torch.equal(sums, weights.sum(1, dtype=torch.int32)) and sums.dtype == torch.int32
    assert scales.dtype == torch.float32 and scales.shape == (7,)
    assert set(result.module.state_dict()) == {*attributes, "fc.bias"}


def test_callers_module_is_untouched_and_weights_are_shared() -> None:
    x = data(4, 16)
    converted = quantized(Chain(), x)
    code, graph, result_before = converted.code, str(converted.graph), converted(x)
    state = {
        name: (id(tensor), tensor.clone()) for name, tensor in converted.state_dict(keep_vars=True).items()
    }
    result = q8ta_ops.rewrite(converted)
    assert converted.code == code and str(converted.graph) == graph
    assert torch.equal(converted(x), result_before)
    after = converted.state_dict(keep_vars=True)
    assert set(after) == set(state)
    for name, (identity, values) in state.items():
        assert id(after[name]) == identity and torch.equal(after[name], values)
    for record in result.replaced:
        name = record.node.args[3].target
        assert result.module.get_buffer(name).data_ptr() == converted.get_buffer(name).data_ptr()


class Counter(nn.Module):
    """Counts its calls in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 8)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return self.fc(x) + self.calls


def test_buffers_that_the_graph_writes_are_not_shared() -> None:
    x = data(4, 16)
    converted = quantized(Counter(), x)
    calls = converted.calls.item()
    result = q8ta_ops.rewrite(converted)
    assert q8ta_targets(result.module) == ["linear"]
    result.module(x)
    result.module(x)
    assert converted.calls.item() == calls and result.module.calls.item() == calls + 2


@pytest.mark.parametrize("model", [Chain, Residual, SharedInput])
def test_rewriting_twice_changes_nothing(model: type[nn.Module]) -> None:
    quantizer = q8ta_ops.Q8taQuantizer(outputs="auto")
    once = q8ta_ops.rewrite(quantized(model(), data(4, 16), quantizer=quantizer))
    twice = q8ta_ops.rewrite(once.module)
    assert once.replaced and twice.replaced == [] and twice.skipped == []
    assert twice.module.code == once.module.code
    assert list(twice.module.state_dict()) == list(once.module.state_dict())


def test_a_rewritten_module_can_be_exported() -> None:
    x = data(4, 16)
    result = q8ta_ops.rewrite(quantized(Residual(), x, dynamic=True))
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(result.module, (x,), dynamic_shapes=shapes)
    assert q8ta_targets(program) == ["linear"] * 3
    other = data(9, 16, seed=3)
    assert torch.equal(program.module()(other), result.module(other))


def test_result_prints_every_linear() -> None:
    text = str(q8ta_ops.rewrite(quantized(Chain(), data(4, 16))))
    assert text.splitlines() == [
        "3 replaced, 0 left alone",
        "  fc1: q8ta.linear + relu, 16 -> 24",
        "  fc2: q8ta.linear + relu, 24 -> 12",
        "  fc3: q8ta.linear, 12 -> 5",
    ]


@pytest.mark.parametrize("wrong", [nn.Linear(4, 4), lambda x: x, None])
def test_other_kinds_are_refused(wrong: object) -> None:
    with pytest.raises(TypeError, match="module: expected a torch.fx.GraphModule or a torch.export"):
        q8ta_ops.rewrite(wrong)


class RandomModel(nn.Module):
    """Eight linears at random: with and without relu and bias, residual connections, float operators."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        choice = torch.Generator().manual_seed(seed)
        self.kinds = torch.randint(0, 5, (8,), generator=choice).tolist()
        self.layers = nn.ModuleList(nn.Linear(16, 16, bias=kind != 1) for kind in self.kinds)

    def forward(self, x: Tensor) -> Tensor:
        earlier = x
        for kind, layer in zip(self.kinds, self.layers, strict=True):
            y = layer(x)
            if kind == 0:
                y = torch.relu(y)
            elif kind == 2:
                y = torch.relu(y) + earlier
            elif kind == 3:
                y = torch.tanh(y)
            elif kind == 4:
                y, earlier = torch.relu(y) - y, y
            x = y
        return x


@pytest.mark.parametrize("outputs", ["always", "auto"])
@pytest.mark.parametrize("seed", range(4))
def test_random_models(seed: int, outputs: str) -> None:
    x = data(5, 16, seed=seed)
    quantizer = q8ta_ops.Q8taQuantizer(outputs=outputs)
    converted = quantized(RandomModel(seed), x, dynamic=True, quantizer=quantizer)
    result = q8ta_ops.rewrite(converted)
    assert len(result.replaced) == 8 and result.skipped == []
    for rows in (5, 17):
        x = data(rows, 16, seed=rows)
        assert torch.equal(result.module(x), exact(converted, x))
