"""Embedding tables as int8: what a look-up returns, what is stored, and what is left alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import q8ta_ops
from q8ta_ops.embedding import quantize_embeddings, quantize_rows

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")

BATCH = ({0: torch.export.Dim("batch")},)
INDICES = torch.tensor([[3, 0, 11], [5, 5, 2]])


class Words(nn.Module):
    """Two look-ups in one table, one in another; the first table may be the output layer's weight, too."""

    def __init__(self, head: bool = False) -> None:
        super().__init__()
        self.words, self.others = nn.Embedding(12, 8, padding_idx=0), nn.Embedding(12, 8)
        self.head = nn.Linear(8, 12, bias=False) if head else None
        if self.head is not None:
            self.head.weight = self.words.weight

    def forward(self, indices: Tensor) -> Tensor:
        sums = self.words(indices) + self.words(11 - indices) + self.others(indices)
        return sums if self.head is None else self.head(sums)


@pytest.fixture(autouse=True)
def fixed_weights() -> None:
    torch.manual_seed(3)


def exported(model: nn.Module) -> torch.fx.GraphModule:
    return torch.export.export(model.eval(), (INDICES,), dynamic_shapes=BATCH).module()


def stored(module: nn.Module) -> dict[str, torch.dtype]:
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor.dtype for name, tensor in tensors}


def test_no_element_moves_by_more_than_half_a_step() -> None:
    table = torch.randn(50, 7) * torch.logspace(-30, 30, 50)[:, None]
    int8, scales = quantize_rows(table)
    assert int8.dtype == torch.int8 and scales.shape == (50, 1)
    assert int8.min() >= -127 and (int8.abs().amax(dim=1) == 127).all()
    error = (int8.double() * scales.double() - table.double()).abs()
    assert (error <= scales.double() * (0.5 + 1e-5)).all()


def test_a_row_of_zeros_stays_zero() -> None:
    int8, scales = quantize_rows(torch.tensor([[0.0, 0.0], [1.0, -2.0]]))
    assert int8.tolist() == [[0, 0], [64, -127]]
    assert torch.equal(scales, torch.tensor([[1.0], [2.0 / 127]]))


def test_a_look_up_is_row_times_scale() -> None:
    model = Words()
    module = exported(model)
    assert quantize_embeddings(module) == 3
    words, others = (
        int8 * scales for int8, scales in map(quantize_rows, (model.words.weight, model.others.weight))
    )
    for indices in (INDICES, torch.randint(0, 12, (5, 3))):
        assert torch.equal(module(indices), words[indices] + words[11 - indices] + others[indices])


def test_each_table_is_stored_once_and_no_longer_as_float() -> None:
    model = Words()
    module = exported(model)
    quantize_embeddings(module)
    assert sorted(map(str, stored(module).values())) == ["torch.float32"] * 2 + ["torch.int8"] * 2
    sizes = [buffer.numel() for buffer in module.buffers() if buffer.dtype == torch.float32]
    assert sizes == [12, 12], "of float32 only the scales are left"
    assert set(stored(model)) == {"words.weight", "others.weight"}, "the model itself keeps its tables"


def test_the_result_can_be_exported_again_with_its_dynamic_batch() -> None:
    module = exported(Words())
    quantize_embeddings(module)
    program = torch.export.export(module, (INDICES,), dynamic_shapes=BATCH)
    indices = torch.randint(0, 12, (7, 3))
    assert torch.equal(program.module()(indices), module(indices))
    assert all(value.dtype != torch.float32 or value.shape[1] == 1 for value in program.state_dict.values())


def test_a_table_that_a_linear_uses_stays_for_the_linear() -> None:
    model = Words(head=True)
    module = exported(model)
    assert quantize_embeddings(module) == 3
    words, others = (
        int8 * scales for int8, scales in map(quantize_rows, (model.words.weight, model.others.weight))
    )
    sums = words[INDICES] + words[11 - INDICES] + others[INDICES]
    assert torch.equal(module(INDICES), nn.functional.linear(sums, model.words.weight))


def test_only_float32_tables_change() -> None:
    module = exported(Words().double())
    before = module(INDICES)
    assert quantize_embeddings(module) == 0
    assert torch.equal(module(INDICES), before)


def test_a_table_that_the_graph_writes_to_is_left_alone() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.zeros(12, 2))

        def forward(self, indices: Tensor) -> Tensor:
            self.table.add_(1.0)
            return nn.functional.embedding(indices, self.table)

    module = exported(Counting())
    assert quantize_embeddings(module) == 0
    first = module(INDICES).clone()
    assert torch.equal(module(INDICES), first + 1.0)


def test_quantize_stores_embeddings_as_int8_if_asked() -> None:
    pytest.importorskip("torchao")
    model = Words(head=True)
    calibration = [torch.randint(0, 12, (16, 3))]
    float32, int8 = (
        q8ta_ops.quantize(model, INDICES, calibration, BATCH, embeddings=kind) for kind in ("float32", "int8")
    )
    tables = [
        value for value in float32.state_dict.values() if value.dtype == torch.float32 and value.dim() == 2
    ]
    assert [list(table.shape) for table in tables] == [[12, 8], [12, 8]]
    assert not any(
        value.dtype == torch.float32 and value.dim() == 2 and value.shape[1] > 1
        for value in int8.state_dict.values()
    ), "the output layer has int8 weights of its own"
    difference = int8.module()(INDICES) - float32.module()(INDICES)
    assert 0 < difference.abs().max() < 0.2


def test_another_kind_of_embedding_is_an_error() -> None:
    pytest.importorskip("torchao")
    with pytest.raises(ValueError, match="embeddings: expected 'float32' or 'int8', got 'int4'"):
        q8ta_ops.quantize(Words(), INDICES, [INDICES], embeddings="int4")
