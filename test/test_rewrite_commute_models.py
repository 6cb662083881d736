"""Consecutive linears exchange int8 with shape operators, pools and concatenations between them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("torchao")

from joining import is_quantize, save_and_load  # noqa: E402
from matrix import QUANTIZERS, skip_where_nothing_is_quantized  # noqa: E402
from models import DYNAMIC_BATCH, exact, q8ta_targets, quantized, same  # noqa: E402

import q8ta_ops  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")


class Flattened(nn.Module):
    """A view, a flatten and a dropout between linears."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(16, 24), nn.Linear(6, 12), nn.Linear(48, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.fc1(x)).view(-1, 4, 6)
        y = torch.relu(self.fc2(y)).flatten(1)
        return self.fc3(nn.functional.dropout(y, 0.1, self.training))


class Mixing(nn.Module):
    """Linears over channels and over positions in turn, with transposes between them."""

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.positions, self.last = nn.Linear(8, 24), nn.Linear(2, 10), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.channels(x.view(-1, 2, 8)).transpose(1, 2)
        return self.last(torch.relu(self.positions(y)).permute(0, 2, 1))


class TwoHeads(nn.Module):
    """Two layers, concatenated for a third."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.fc = nn.Linear(16, 8), nn.Linear(16, 12), nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.cat([torch.relu(self.left(x)), self.right(x)], dim=-1))


class Pooled(nn.Module):
    """Maxima over features, then over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(16, 24), nn.Linear(4, 10), nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.max_pool1d(torch.relu(self.fc1(x)), 2)
        return self.fc3(self.fc2(y.view(-1, 3, 4)).amax(1))


class Sliced(nn.Module):
    """Three parts of one result, each for a layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.common = nn.Linear(16, 36)
        self.q, self.k, self.v = nn.Linear(12, 5), nn.Linear(12, 6), nn.Linear(12, 7)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        q, k, v = self.common(x).chunk(3, dim=-1)
        return self.q(q), self.k(k), self.v(v)


# Layers; how many of them feed another one; how many requantize XNNPACK needs, which observes on both sides.
MODELS: dict[type[nn.Module], tuple[int, int, int]] = {
    Flattened: (3, 2, 0),
    Mixing: (3, 2, 0),
    TwoHeads: (3, 2, 1),
    Pooled: (3, 2, 1),
    Sliced: (4, 1, 3),
}


def expected(model: type[nn.Module], quantizer: str) -> dict[str, int]:
    """How many of each operator, if every layer that feeds another one gives it int8."""
    layers, inner, requantizes = MODELS[model]
    if quantizer == "XNNPACK":
        return {"linear": layers, "requantize": requantizes}
    if model is Sliced and quantizer in ("ARM", "X86"):
        # These quantize each part with numbers of its own: there are none for the whole.
        return {"linear_dequant": layers}
    return {"linear": inner, "linear_dequant": layers - inner}


def check(module: Any, model: type[nn.Module], quantizer: str) -> Any:
    result = q8ta_ops.rewrite(module)
    counts = Counter(q8ta_targets(result.module))
    assert result.skipped == [] and counts == Counter(expected(model, quantizer))
    quantizes = sum(is_quantize(node) for node in result.module.graph.nodes)
    # Of the input and nowhere else.
    assert quantizes == (1 if counts["linear"] else 4)
    again = q8ta_ops.rewrite(result.module)
    assert again.replaced == [] and str(again.module.graph) == str(result.module.graph)
    return result.module


@pytest.mark.parametrize("quantizer", ["Q8ta", "XNNPACK", "ARM", "X86"])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_consecutive_linears_exchange_int8(model: type[nn.Module], quantizer: str) -> None:
    torch.manual_seed(7)
    x = torch.randn(6, 16)
    skip_where_nothing_is_quantized(quantizer)
    converted = quantized(model(), x, dynamic=True, quantizer=QUANTIZERS[quantizer]())
    module = check(converted, model, quantizer)

    program = torch.export.export(converted, (x,), dynamic_shapes=DYNAMIC_BATCH)
    rewritten = check(program, model, quantizer)
    rewritten.validate()
    decomposed = check(program.run_decompositions(), model, quantizer)
    decomposed.validate()
    loaded = check(save_and_load(program), model, quantizer)

    programs = (rewritten, save_and_load(rewritten), decomposed, loaded)
    runnable = [module, *(each.module() for each in programs)]
    for rows in (6, 2, 5):
        x = torch.randn(rows, 16, generator=torch.Generator().manual_seed(rows)) * 2
        expected_result = exact(converted, x)
        for each in runnable:
            assert same(each(x), expected_result)
