"""A real transformer on vk: all-MiniLM-L6-v2, quantized and moved, gives the bits that it has on the CPU."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from test_sentence_embeddings import example, model, sentences  # noqa: F401  fixtures; skips without packages
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

import q8ta_ops

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")

# Every operator without a kernel on the device in one call. The first four are the transformer's own, once or
# twice a layer; the rest prepares the mask and the positions, and pools and normalizes at the end.
FALLBACKS = {
    "aten::native_layer_norm": 13,
    "aten::_scaled_dot_product_flash_attention_for_cpu": 6,
    "aten::gelu.out": 6,
    "aten::where.self": 6,
    "aten::index_select": 6,
}


@pytest.fixture(scope="module")
def program(
    example: ModuleType,  # noqa: F811
    model: tuple,  # noqa: F811
    sentences: list[str],  # noqa: F811
) -> ExportedProgram:
    encoder, tokenizer = model
    with q8ta_ops.use_device("host"):  # quicker than lavapipe
        return example.quantize_encoder(encoder, tokenizer, sentences[200:208])


def test_the_bits_of_the_cpu(
    example: ModuleType,  # noqa: F811
    model: tuple,  # noqa: F811
    program: ExportedProgram,
    sentences: list[str],  # noqa: F811
) -> None:
    _, tokenizer = model
    # A batch with padding and a lone sentence.
    batches = [next(example.batches(tokenizer, part)) for part in (sentences[:3], sentences[3:4])]
    with torch.no_grad(), q8ta_ops.use_device("host"):
        expected = [program.module()(*batch) for batch in batches]
    on_vk = move_to_device_pass(program, "vk").module()
    for batch, want in zip(batches, expected, strict=True):
        torch.vk.reset_fallbacks()
        with torch.no_grad(), torch.vk.profile() as profile:
            result = on_vk(*(each.to("vk") for each in batch))
        assert result.is_vk and torch.equal(result.cpu(), want)
        assert sum(dispatch.op == "linear_dequant" for dispatch in profile.dispatches) == 36
        counts = torch.vk.fallbacks()
        assert {name: counts.get(name) for name in FALLBACKS} == FALLBACKS
        assert sum(counts.values()) <= 55, counts
