"""What the tests of torch.compile(model, backend="q8ta") share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from models import Chain, q8ta_targets, quantized
from torch import Tensor, nn
from torch._dynamo import list_backends, register_backend
from torch._dynamo.utils import counters

import q8ta_ops
from q8ta_ops.compile import q8ta_backend

if "q8ta" not in list_backends():  # the sources are on the path, but not installed: torch sees no entry point
    register_backend(q8ta_backend, name="q8ta")

BATCHES = (4, 8, 1, 32)
GRAPHS = 3  # by torch's own rules: the first size, any size from 2 on, and one row

needs_inductor = pytest.mark.skipif(
    " " in torch.__path__[0], reason="Inductor (torch 2.13) does not quote torch's path for its C++ compiler"
)
inner_backends = pytest.mark.parametrize(
    "inner", ["aot_eager", pytest.param("inductor", marks=[needs_inductor, pytest.mark.timeout(240)])]
)


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    """Nothing compiled and nothing counted before, for every test of a file that imports this."""
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


class Recorder:
    """A backend that runs the graph as it is, and keeps the graphs that it was given."""

    def __init__(self) -> None:
        self.graphs: list[torch.fx.GraphModule] = []

    def __call__(self, gm: torch.fx.GraphModule, example_inputs: list[Any]) -> Callable[..., Any]:
        self.graphs.append(gm)
        return gm.forward

    @property
    def ops(self) -> list[list[str]]:
        """Names of the q8ta operators, for each graph."""
        return [q8ta_targets(gm) for gm in self.graphs]


def compiled_with(inner: Any, model: nn.Module, **options: Any) -> Callable[..., Any]:
    return torch.compile(model, backend="q8ta", fullgraph=True, options={"backend": inner, **options})


def data(rows: int, seed: int = 7) -> Tensor:
    return torch.randn(rows, 16, generator=torch.Generator().manual_seed(seed + rows))


def chain(quantizer: Any = None) -> torch.fx.GraphModule:
    torch.manual_seed(0)
    return quantized(Chain(), data(4), dynamic=True, quantizer=quantizer)


def exported_module(converted: torch.fx.GraphModule) -> nn.Module:
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    return torch.export.export(converted, (data(4),), dynamic_shapes=shapes).module()


def rewritten(converted: torch.fx.GraphModule) -> torch.fx.GraphModule:
    return q8ta_ops.rewrite(converted).module
