"""q8ta_ops.rewrite on graphs whose linears run_decompositions() took apart."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

pytest.importorskip("torchao")

from models import (  # noqa: E402
    DYNAMIC_BATCH,
    HandMade,
    OneLinear,
    Residual,
    exact,
    int8_tensor,
    q8ta_targets,
    quantized,
    same,
    targets,
)

import q8ta_ops  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")

LIBRARY = torch.ops.quantized_decomposed
WEIGHTS = int8_tensor(6, 8)


def data(*sizes: int, seed: int = 0) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def fixed_weights() -> None:
    torch.manual_seed(7)


def dequantized(x: Tensor) -> Tensor:
    return LIBRARY.dequantize_per_tensor(x, 0.05, 3, -128, 127, torch.int8)


class Product(HandMade):
    """A product with the dequantized weights, written by hand in `product`."""

    def forward(self, x: Tensor) -> Tensor:
        weights = LIBRARY.dequantize_per_tensor(self.weights, 0.02, 0, -127, 127, torch.int8)
        return self.product(dequantized(x), weights)

    def product(self, x: Tensor, weights: Tensor) -> Tensor:
        raise NotImplementedError


def decomposed(model: nn.Module, x: Tensor) -> list[Any]:
    """The model's graph, decomposed, as an ExportedProgram and as a GraphModule."""
    program = torch.export.export(model, (x,)).run_decompositions()
    return [program, program.module()]


def runnable(module: Any) -> GraphModule:
    return module if isinstance(module, GraphModule) else module.module()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("sizes", "dynamic"),
    [
        ((12,), False),
        ((1, 12), False),
        ((5, 12), False),
        ((5, 12), True),
        ((1, 1, 12), False),
        ((2, 3, 12), False),
        ((2, 3, 12), True),
        ((2, 3, 4, 12), False),
        ((2, 3, 4, 12), True),
    ],
)
def test_linear_of_any_dimensions(sizes: tuple[int, ...], dynamic: bool, bias: bool) -> None:
    x = data(*sizes)
    converted = quantized(OneLinear(12, 7, bias, "relu"), x, dynamic=dynamic)
    program = torch.export.export(converted, (x,), dynamic_shapes=DYNAMIC_BATCH if dynamic else None)
    taken_apart = program.run_decompositions()
    assert "aten.linear.default" not in targets(taken_apart)
    result = q8ta_ops.rewrite(taken_apart)
    # No view, no transpose and no size is left: what comes out is what comes out of the whole linear.
    assert targets(result.module) == targets(q8ta_ops.rewrite(program).module)
    assert [record.layer for record in result.replaced] == ["fc"] and result.skipped == []
    result.module.validate()
    for batch in (sizes[0], 1, 9) if dynamic else sizes[:1]:
        x = data(batch, *sizes[1:], seed=batch)
        assert torch.equal(result.module.module()(x), exact(converted, x))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 3])
def test_input_in_another_order(rows: int, bias: bool) -> None:
    """A transposed input is decomposed into a batch of products with the repeated weights."""

    class Transposed(OneLinear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.transpose(0, 1))

    x = data(rows, 2, 12)
    converted = quantized(Transposed(12, 7, bias), x)
    program = torch.export.export(converted, (x,)).run_decompositions()
    # PyTorch takes one of the two ways, by the strides that it sees.
    assert {"aten.bmm.default", "aten.mm.default", "aten.addmm.default"} & set(targets(program))
    result = q8ta_ops.rewrite(program)
    assert q8ta_targets(result.module) == ["linear"] and result.skipped == []
    assert not {"aten.bmm.default", "aten.expand.default", "aten.view.default"} & set(targets(result.module))
    assert torch.equal(result.module.module()(x), exact(converted, x))


def test_batched_product_with_repeated_weights() -> None:
    class Batched(Product):
        def product(self, x: Tensor, weights: Tensor) -> Tensor:
            return torch.bmm(x, weights.t().expand(2, 8, 6)) + self.bias

    x = int8_tensor(2, 3, 8)
    for module in decomposed(Batched(WEIGHTS, bias=torch.linspace(-1, 1, 6)), x):
        result = q8ta_ops.rewrite(module)
        assert targets(result.module) == ["q8ta.linear_dequant.default"]
        assert result.replaced[0].node.args[6] is not None
        assert torch.equal(runnable(result.module)(x), exact(runnable(module), x))


@pytest.mark.parametrize(
    "add",
    [
        lambda y, bias: torch.add(y, bias, alpha=2),
        lambda y, bias: y + bias[:1],
        lambda y, bias: (y + bias, y.sigmoid()),
        lambda y, bias: bias + y,
    ],
)
def test_other_additions_stay(add: Any) -> None:
    class Batched(Product):
        def product(self, x: Tensor, weights: Tensor) -> Any:
            return add(torch.bmm(x, weights.t().expand(2, 8, 6)), self.bias)

    x = int8_tensor(2, 3, 8)
    for module in decomposed(Batched(WEIGHTS, bias=torch.linspace(-1, 1, 6)), x):
        result = q8ta_ops.rewrite(module)
        assert q8ta_targets(result.module) == ["linear_dequant"]
        assert "aten.add.Tensor" in targets(result.module)
        assert same(runnable(result.module)(x), exact(runnable(module), x))


def test_weights_repeated_within_a_matrix_are_no_linear() -> None:
    class Repeated(Product):
        def product(self, x: Tensor, weights: Tensor) -> Tensor:
            # [8, 1] repeated to [2, 8, 6].
            return torch.bmm(x, weights.t().expand(2, 8, 6))

    for module in decomposed(Repeated(int8_tensor(1, 8)), int8_tensor(2, 3, 8)):
        result = q8ta_ops.rewrite(module)
        assert result.replaced == [] and result.skipped == []


def test_weights_repeated_row_by_row_are_no_linear() -> None:
    class Interleaved(Product):
        def product(self, x: Tensor, weights: Tensor) -> Tensor:
            # [8, 6] to [8, 2, 6], seen as two matrices: each holds some rows twice.
            return torch.bmm(x, weights.t().unsqueeze(1).expand(8, 2, 6).reshape(2, 8, 6))

    for module in decomposed(Interleaved(WEIGHTS), int8_tensor(2, 3, 8)):
        result = q8ta_ops.rewrite(module)
        assert result.replaced == [] and result.skipped == []


def test_repeated_rows() -> None:
    class Repeated(Product):
        def product(self, x: Tensor, weights: Tensor) -> Tensor:
            return torch.mm(x.unsqueeze(1).expand(3, 2, 8).reshape(6, 8), weights.t()).view(3, 2, 6)

    x = int8_tensor(3, 8)
    for module in decomposed(Repeated(WEIGHTS), x):
        result = q8ta_ops.rewrite(module)
        assert q8ta_targets(result.module) == ["linear_dequant"]
        assert torch.equal(runnable(result.module)(x), exact(runnable(module), x))


def test_a_copy_that_is_written_to_is_not_skipped() -> None:
    class Written(Product):
        def product(self, x: Tensor, weights: Tensor) -> Tensor:
            copy = x.clone()
            copy[0].add_(1)
            return torch.mm(copy, weights.t())

    x = int8_tensor(3, 8)
    module = torch.export.export(Written(WEIGHTS), (x,)).module()
    result = q8ta_ops.rewrite(module)
    assert result.replaced == [] and len(result.skipped) == 1
    assert torch.equal(result.module(x), module(x))


def test_batch_of_different_weights_is_no_linear() -> None:
    class Attention(nn.Module):
        def forward(self, query: Tensor, key: Tensor) -> Tensor:
            return torch.matmul(dequantized(query), dequantized(key).transpose(-1, -2))

    inputs = int8_tensor(2, 3, 8), int8_tensor(2, 5, 8)
    program = torch.export.export(Attention(), inputs).run_decompositions()
    result = q8ta_ops.rewrite(program)
    assert result.replaced == [] and result.skipped == []
    assert targets(result.module) == targets(program)


@pytest.mark.parametrize("transposed", ["t", "permute", "transpose", "negative"])
def test_ways_to_transpose(transposed: str) -> None:
    class Transposed(Product):
        def product(self, x: Tensor, weights: Tensor) -> Tensor:
            ways = {"t": weights.t, "permute": lambda: weights.permute(1, 0)}
            ways |= {
                "transpose": lambda: weights.transpose(1, 0),
                "negative": lambda: weights.permute(-1, -2),
            }
            return torch.mm(x, ways[transposed]())

    # Not decomposed any further: the operators of the graph are those above.
    x = int8_tensor(3, 8)
    program = torch.export.export(Transposed(WEIGHTS), (x,))
    result = q8ta_ops.rewrite(program)
    assert targets(result.module) == ["q8ta.linear_dequant.default"]
    assert torch.equal(result.module.module()(x), exact(program.module(), x))


def test_weights_that_are_not_transposed_are_no_linear() -> None:
    class Plain(Product):
        def product(self, x: Tensor, weights: Tensor) -> Tensor:
            same = weights.transpose(0, 0), weights.permute(0, 1)
            return torch.mm(x, weights) + torch.mm(x, same[0]) + torch.mm(x, same[1])

    program = torch.export.export(Plain(int8_tensor(8, 8)), (int8_tensor(3, 8),))
    assert {"aten.permute.default", "aten.transpose.int"} < set(targets(program))
    for module in (program, program.run_decompositions()):
        result = q8ta_ops.rewrite(module)
        assert result.replaced == [] and result.skipped == []


def test_views_that_do_not_match_up_stay() -> None:
    class Reshaped(Product):
        def product(self, x: Tensor, weights: Tensor) -> Tensor:
            return nn.functional.linear(x.reshape(6, 8), weights).reshape(3, 2, 6)

    x = int8_tensor(2, 3, 8)
    for module in decomposed(Reshaped(WEIGHTS), x):
        result = q8ta_ops.rewrite(module)
        assert q8ta_targets(result.module) == ["linear_dequant"]
        assert result.replaced[0].node.meta["val"].shape == (6, 6)
        assert runnable(result.module)(x).shape == (3, 2, 6)
        assert torch.equal(runnable(result.module)(x), exact(runnable(module), x))


def test_parts_with_other_users_stay() -> None:
    class Shared(Product):
        def product(self, x: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
            rows, transposed = x.view(6, 8), weights.t()
            y = torch.mm(rows, transposed)
            return y.view(2, 3, 6), y.sigmoid(), rows.sigmoid(), transposed.sigmoid()

    x = int8_tensor(2, 3, 8)
    for module in decomposed(Shared(WEIGHTS), x):
        result = q8ta_ops.rewrite(module)
        assert q8ta_targets(result.module) == ["linear_dequant"]
        assert same(runnable(result.module)(x), exact(runnable(module), x))


@pytest.mark.parametrize("sizes", [(8,), (3, 8), (2, 3, 8)])
@pytest.mark.parametrize("bias", [None, torch.linspace(-1, 1, 6)])
def test_a_linear_that_is_left_alone_stays_decomposed(bias: Tensor | None, sizes: tuple[int, ...]) -> None:
    class AfterSigmoid(HandMade):
        """The input is not quantized."""

        def forward(self, x: Tensor) -> Tensor:
            weights = LIBRARY.dequantize_per_tensor(self.weights, 0.02, 0, -127, 127, torch.int8)
            return nn.functional.linear(x.sigmoid(), weights, self.bias).relu()

    x = data(*sizes)
    modules = decomposed(AfterSigmoid(WEIGHTS, bias=bias), x)
    if len(sizes) == 3:
        dynamic = torch.export.export(AfterSigmoid(WEIGHTS, bias=bias), (x,), dynamic_shapes=DYNAMIC_BATCH)
        modules.append(dynamic.run_decompositions())
        assert "aten.sym_size.int" in targets(modules[-1])
    for module in modules:
        result = q8ta_ops.rewrite(module)
        ((node, reason),) = result.skipped
        assert reason.startswith("its input comes from aten.sigmoid.default")
        # The same nodes; a size that a view needs may stand in another place.
        names = [[(each.name, str(each.target)) for each in m.graph.nodes] for m in (result.module, module)]
        assert sorted(names[0]) == sorted(names[1])
        assert str(node.target) == ("aten.mm.default" if bias is None else "aten.addmm.default")
        assert node in result.module.graph.nodes
        if isinstance(result.module, ExportedProgram):
            result.module.validate()
        assert torch.equal(runnable(result.module)(x), runnable(module)(x))


@pytest.mark.parametrize(
    ("bias", "scaling", "reason"),
    [
        (torch.zeros(6), {"alpha": 2}, "it scales its parts (beta 1, alpha 2), expected 1 and 1"),
        (torch.zeros(6), {"beta": 0.5}, "it scales its parts (beta 0.5, alpha 1), expected 1 and 1"),
        (torch.zeros(3, 6), {}, "it adds something else than a bias with one dimension"),
    ],
)
def test_other_uses_of_addmm(bias: Tensor, scaling: dict[str, float], reason: str) -> None:
    class Scaled(Product):
        def product(self, x: Tensor, weights: Tensor) -> Tensor:
            return torch.addmm(self.bias, x, weights.t(), **scaling)

    x = int8_tensor(3, 8)
    for module in decomposed(Scaled(WEIGHTS, bias=bias), x):
        result = q8ta_ops.rewrite(module)
        assert result.replaced == [] and [why for _, why in result.skipped] == [reason]
        assert targets(result.module) == targets(module)


def test_saved_with_a_dynamic_batch() -> None:
    x = data(6, 16)
    converted = quantized(Residual(), x, dynamic=True)
    program = torch.export.export(converted, (x,), dynamic_shapes=DYNAMIC_BATCH).run_decompositions()
    result = q8ta_ops.rewrite(program)
    assert q8ta_targets(result.module) == ["linear"] * 3
    file = io.BytesIO()
    torch.export.save(result.module, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for rows in (6, 1, 17):
        x = data(rows, 16, seed=rows)
        assert torch.equal(loaded(x), exact(converted, x))


def test_callers_program_is_untouched() -> None:
    x = data(4, 16)
    program = torch.export.export(quantized(Residual(), x), (x,)).run_decompositions()
    text, signature = str(program.graph), str(program.graph_signature)
    result = q8ta_ops.rewrite(program)
    assert len(result.replaced) == 3
    assert str(program.graph) == text and str(program.graph_signature) == signature
    program.validate()
    twice = q8ta_ops.rewrite(result.module)
    assert twice.replaced == [] and twice.skipped == []
    assert str(twice.module.graph) == str(result.module.graph)
