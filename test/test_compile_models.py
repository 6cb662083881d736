"""torch.compile(model, backend="q8ta"): every kind of model, and a transformer at every batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from compiling import (
    BATCHES,
    GRAPHS,
    Recorder,
    compiled_with,
    needs_inductor,
    rewritten,
)
from compiling import fresh_dynamo as _fresh_dynamo  # noqa: F401 (a fixture)
from matrix import CASES, convert, expected, skip_where_nothing_is_quantized
from models import q8ta_targets, same
from torch import Tensor, nn
from torch._dynamo.utils import counters

import q8ta_ops


@pytest.mark.parametrize(("model", "quantizer"), CASES)
def test_matrix(model, quantizer):
    """The same operators as `rewrite` puts into the converted graph, with the same result."""
    skip_where_nothing_is_quantized(quantizer)
    converted, x = convert(model, quantizer)
    recorder, module = Recorder(), rewritten(converted)
    with q8ta_ops.use_device("host"):
        assert same(compiled_with(recorder, converted)(x), module(x))
    (ops,) = recorder.ops
    linears = [op for op in ops if op.startswith("linear")]
    int8 = sum(op != "linear_dequant" for op in linears)
    assert (len(linears), int8) == expected(model, quantizer)
    assert ops == q8ta_targets(module)


def bert() -> tuple[torch.fx.GraphModule, Callable[[int], tuple[Tensor, Tensor]]]:
    """A small BERT encoder, quantized, and its inputs for a batch."""
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "max_position_embeddings": 16}
    config = transformers.BertConfig(num_hidden_layers=2, num_attention_heads=2, **sizes)
    torch.manual_seed(0)

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = transformers.BertModel(config, add_pooling_layer=False)

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            return self.bert(input_ids=ids, attention_mask=mask).last_hidden_state

    def inputs(rows: int) -> tuple[Tensor, Tensor]:
        ids = torch.randint(0, 50, (rows, 8), generator=torch.Generator().manual_seed(rows))
        mask = torch.ones_like(ids)
        mask[0, 5:] = 0
        return ids, mask

    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    batch = torch.export.Dim("batch")
    exported = torch.export.export(Encoder().eval(), inputs(4), dynamic_shapes=({0: batch}, {0: batch}))
    prepared = prepare_pt2e(exported.module(), q8ta_ops.Q8taQuantizer())
    prepared(*inputs(16))
    return convert_pt2e(prepared), inputs


def test_bert_at_every_batch(target):
    converted, inputs = bert()
    eager = rewritten(converted)
    assert len(q8ta_targets(eager)) == 12
    compiled = compiled_with("aot_eager", converted)
    for rows in BATCHES:
        assert torch.equal(compiled(*inputs(rows)), eager(*inputs(rows)))
    assert counters["stats"]["unique_graphs"] == GRAPHS
    assert not counters["graph_break"]


@needs_inductor
@pytest.mark.timeout(300)
def test_bert_with_inductor():
    """Inductor rounds softmax and gelu its own way: what it makes of the rewritten module is the measure."""
    converted, inputs = bert()
    results = []
    for model, backend in ((converted, "q8ta"), (rewritten(converted), "inductor")):
        torch.compiler.reset()
        compiled = torch.compile(model, backend=backend, fullgraph=True, dynamic=True)
        with torch.no_grad():
            results.append([compiled(*inputs(rows)) for rows in (4, 8, 32)])
    assert counters["stats"]["unique_graphs"] == 2
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*results, strict=True))
