"""Embedding tables as int8: often half of a small language model, and no linear layer touches them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from .rewrite.commuting import add_call
from .rewrite.graph_module import AttributeStore
from .rewrite.nodes import arguments, target_name
from .rewrite.store import erase_unused


def quantize_embeddings(module: GraphModule) -> int:
    """Stores the float32 tables of embedding look-ups as int8 with one scale for each row, in place.

    A look-up then reads an int8 row and the row's scale and multiplies the two: float32 as before. No element
    of a table moves by more than half of its row's scale (the largest magnitude in the row / 127).

    Left alone: tables that are not float32 constants, and those that the graph writes to.

    Args:
        module: what `torch.export.export(...).module()` returns. Float tables that nothing else uses are
            removed from it; the model that it was exported from keeps them.

    Returns:
        The number of look-ups that were changed.
    """
    store = AttributeStore(module)
    made: dict[str, tuple[Node, Node]] = {}
    changed = 0
    for node in list(module.graph.nodes):
        if target_name(node) != "aten.embedding.default":
            continue
        call = arguments(node)
        table = store.constant(call["weight"])
        if table is None or table.dtype != torch.float32:
            continue
        key = store.key(call["weight"])
        if key not in made:
            int8, factors = quantize_rows(table.detach())
            # At the first look-up; all others come later.
            with module.graph.inserting_before(node):
                made[key] = (
                    store.add_buffer("q8ta_embedding", int8),
                    store.add_buffer("q8ta_embedding_scales", factors),
                )
        with module.graph.inserting_before(node):
            rows, scales = (
                add_call(module.graph, node.target, (stored, call["indices"]), {}, node)
                for stored in made[key]
            )
            # int8 times float32 is float32.
            product = add_call(module.graph, torch.ops.aten.mul.Tensor, (rows, scales), {}, node)
        node.replace_all_uses_with(product)
        module.graph.erase_node(node)
        erase_unused(store, call["weight"])
        changed += 1
    module.graph.lint()
    module.recompile()
    return changed


def quantize_rows(table: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [rows, columns] in -127..127 and float32 scales [rows, 1]: their product is about the table."""
    scales = table.abs().amax(dim=1, keepdim=True) / 127
    # A row of zeros, such as that of a padding token, has no largest magnitude.
    scales = torch.where(scales > 0, scales, 1.0)
    return (table / scales).round().clamp(-127, 127).to(torch.int8), scales
