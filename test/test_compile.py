"""torch.compile(model, backend="q8ta"): how it is found, its graphs and results, its errors."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

import pytest
import torch
from compiling import (
    BATCHES,
    GRAPHS,
    Recorder,
    chain,
    compiled_with,
    data,
    exported_module,
    inner_backends,
    needs_inductor,
    rewritten,
)
from compiling import fresh_dynamo as _fresh_dynamo  # noqa: F401 (a fixture)
from matrix import QUANTIZERS
from models import OneLinear, Residual, SharedWeight, int8_tensor, q8ta_targets, quantized, same
from torch import Tensor, nn
from torch._dynamo.utils import counters

import q8ta_ops

# How torch finds it


def python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "Q8TA_DEVICE": "host", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_torch_finds_the_backend_without_an_import():
    try:
        distribution("q8ta-ops")
    except PackageNotFoundError:
        pytest.skip("q8ta-ops is not installed: its sources are on the path")
    done = python(
        "import sys, torch\n"
        "assert 'q8ta' in torch._dynamo.list_backends(), 'not installed, or before this entry point'\n"
        "assert 'q8ta_ops' not in sys.modules\n"
        "model, x = torch.nn.Linear(4, 3), torch.randn(2, 4)\n"
        "compiled = torch.compile(model, backend='q8ta', options={'backend': 'eager'})\n"
        "assert torch.equal(compiled(x), model(x))\n"
        "assert 'q8ta_ops.compile' in sys.modules\n"
    )
    assert done.returncode == 0, done.stderr


# Results and graphs


@inner_backends
@pytest.mark.parametrize("quantizer", ["Q8ta", "XNNPACK"])
def test_equals_the_rewritten_module_at_every_batch(target, inner, quantizer):
    converted = chain(QUANTIZERS[quantizer]())
    eager = rewritten(converted)
    compiled = compiled_with(inner, converted)
    for rows in BATCHES:
        assert torch.equal(compiled(data(rows)), eager(data(rows)))
    assert counters["stats"]["unique_graphs"] == GRAPHS
    assert not counters["graph_break"]


@needs_inductor
@pytest.mark.timeout(240)
def test_inductor_is_the_default_and_takes_its_options_and_mode(caplog):
    caplog.set_level(logging.INFO, logger="q8ta_ops")
    converted = chain()
    for arguments in (
        {},
        {"options": {"max_autotune": False, "epilogue-fusion": False}},
        {"mode": "default"},
    ):
        torch.compiler.reset()
        compiled = torch.compile(converted, backend="q8ta", fullgraph=True, **arguments)
        assert torch.equal(compiled(data(4)), rewritten(converted)(data(4)))
    assert counters["inductor"]["fxgraph_cache_miss"] + counters["inductor"]["fxgraph_cache_hit"] == 3
    assert caplog.text.count("3 replaced, 0 left alone") == 3


@pytest.mark.parametrize(
    "kind", [lambda m: m, exported_module, rewritten], ids=["converted", "exported", "rewritten"]
)
def test_every_kind_of_model(kind):
    converted, recorder = chain(), Recorder()
    compiled = compiled_with(recorder, kind(converted))
    eager = rewritten(converted)
    for rows in BATCHES:
        assert torch.equal(compiled(data(rows)), eager(data(rows)))
    assert len(recorder.ops) == GRAPHS and all(len(ops) == 3 for ops in recorder.ops)
    assert not counters["graph_break"]
    # With export's "val" there, Inductor's cpp_wrapper would take it for a graph without symbolic sizes.
    assert not any("val" in node.meta for gm in recorder.graphs for node in gm.graph.nodes)


def test_the_graph_for_one_row_has_the_gemv():
    recorder = Recorder()
    compiled = compiled_with(recorder, chain())
    for rows in BATCHES:
        compiled(data(rows))
    first_two = [ops[:2] for ops in recorder.ops]
    assert first_two == [["linear"] * 2, ["linear"] * 2, ["linear_gemv"] * 2]


def test_one_graph_for_all_batches_if_the_user_asks():
    recorder, converted = Recorder(), chain()
    compiled = compiled_with(recorder, converted)
    first = data(5)
    torch._dynamo.mark_dynamic(first, 0)
    compiled(first)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for rows in (2, 17, 64):
            assert torch.equal(compiled(data(rows)), rewritten(converted)(data(rows)))
    assert len(recorder.graphs) == 1


@pytest.mark.parametrize("model", [Residual, SharedWeight])
def test_nothing_float_is_left_of_a_linear(model):
    recorder = Recorder()
    converted = quantized(model(), data(4))
    compiled = compiled_with(recorder, converted)
    assert same(compiled(data(4)), rewritten(converted)(data(4)))
    names = [str(node.target) for node in recorder.graphs[0].graph.nodes]
    assert not any("linear" in name and "q8ta" not in name for name in names), names


class Functional(nn.Module):
    """The pattern in the functions that people write: no operator overloads, relu in one of its forms."""

    def __init__(self, relu: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.relu = relu
        self.register_buffer("weights", int8_tensor(8, 16))
        self.bias = nn.Parameter(torch.linspace(-1, 1, 8))

    def forward(self, x: Tensor) -> Tensor:
        library = torch.ops.quantized_decomposed
        x = library.dequantize_per_tensor(x, 0.05, 3, -128, 127, torch.int8)
        w = library.dequantize_per_tensor(self.weights, 0.01, 0, -127, 127, torch.int8)
        y = self.relu(nn.functional.linear(input=x, weight=w, bias=self.bias))
        return library.quantize_per_tensor(y, 0.1, -7, -128, 127, torch.int8)


RELUS = {
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "functional": nn.functional.relu,
    "functional keyword": lambda y: nn.functional.relu(input=y),
    "functional in place": lambda y: nn.functional.relu(y, True),
    "functional in place keyword": lambda y: nn.functional.relu(y, inplace=True),
    "functional relu_": nn.functional.relu_,
    "method": lambda y: y.relu(),
    "method in place": lambda y: y.relu_(),
    "module": nn.ReLU(),
}


@pytest.mark.parametrize("relu", RELUS.values(), ids=RELUS)
def test_a_module_that_was_not_exported(relu):
    model, recorder = Functional(relu), Recorder()
    x = int8_tensor(4, 16, seed=2)
    with torch.no_grad():
        result = compiled_with(recorder, model)(x)
    assert recorder.ops == [["linear"]]
    assert not any("relu" in node.name for node in recorder.graphs[0].graph.nodes)
    sums, scales = model.weights.sum(1, dtype=torch.int32), torch.full((8,), 0.01)
    arguments = (x, 0.05, 3, model.weights, sums, scales, 0.1, -7, model.bias.detach(), "relu")
    assert torch.equal(result, torch.ops.q8ta.linear(*arguments))


class TensorNumbers(nn.Module):
    """Scale and zero point of the input are tensors: another overload under the same name."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weights", int8_tensor(8, 16))
        self.register_buffer("scale", torch.tensor(0.05))
        self.register_buffer("zero_point", torch.tensor(3))

    def forward(self, x: Tensor, factor: Tensor | None = None) -> Tensor:
        library = torch.ops.quantized_decomposed
        scale = self.scale if factor is None else self.scale * factor
        x = library.dequantize_per_tensor(x, scale, self.zero_point, -128, 127, torch.int8)
        w = library.dequantize_per_tensor(self.weights, 0.01, 0, -127, 127, torch.int8)
        y = nn.functional.linear(x, w)
        return library.quantize_per_tensor(y, 0.1, -7, -128, 127, torch.int8)


def test_numbers_that_are_buffers():
    model, x, recorder = TensorNumbers(), int8_tensor(4, 16, seed=3), Recorder()
    compiled = compiled_with(recorder, model)
    sums, scales = model.weights.sum(1, dtype=torch.int32), torch.full((8,), 0.01)
    for scale in (0.05, 0.08):  # the second value is baked into no compiled graph
        model.scale.fill_(scale)
        arguments = (x, model.scale.item(), 3, model.weights, sums, scales, 0.1, -7)
        assert torch.equal(compiled(x), torch.ops.q8ta.linear(*arguments))
    assert recorder.ops == [["linear"]]


def test_numbers_computed_in_the_graph_are_left_alone(caplog):
    caplog.set_level(logging.INFO, logger="q8ta_ops")
    model, arguments, recorder = TensorNumbers(), (int8_tensor(4, 16, seed=3), torch.tensor(2.0)), Recorder()
    assert torch.equal(compiled_with(recorder, model)(*arguments), model(*arguments))
    assert recorder.ops == [[]] and "0 replaced, 1 left alone" in caplog.text


def test_a_weight_that_is_passed_in_is_no_constant(caplog):
    caplog.set_level(logging.INFO, logger="q8ta_ops")

    def run(x: Tensor, weights: Tensor) -> Tensor:
        library = torch.ops.quantized_decomposed
        x = library.dequantize_per_tensor(x, 0.05, 3, -128, 127, torch.int8)
        return nn.functional.linear(x, library.dequantize_per_tensor(weights, 0.01, 0, -127, 127, torch.int8))

    compiled = compiled_with("eager", run)
    for seed in (1, 2):
        arguments = int8_tensor(4, 16), int8_tensor(8, 16, seed=seed)
        assert torch.equal(compiled(*arguments), run(*arguments))
    assert "0 replaced, 1 left alone" in caplog.text and "constant" in caplog.text


def test_nothing_to_replace_is_just_compiled(caplog):
    caplog.set_level(logging.INFO, logger="q8ta_ops")
    model = nn.Sequential(nn.Linear(16, 8), nn.ReLU())
    x = data(4).requires_grad_()
    compiled = compiled_with("aot_eager", model)
    compiled(x).sum().backward()
    gradient, x.grad = x.grad, None
    model(x).sum().backward()
    assert torch.equal(gradient, x.grad)
    assert "0 replaced, 1 left alone" in caplog.text and "left alone, its input" in caplog.text


@inner_backends
def test_a_bias_that_wants_a_gradient_is_no_obstacle(inner):
    """linear_dequant's result is float32: without care AOTAutograd would look for its backward."""
    quantizer = q8ta_ops.Q8taQuantizer(outputs="never")
    converted = quantized(OneLinear(16, 8), data(4), quantizer=quantizer)
    assert torch.is_grad_enabled() and converted.fc.bias.requires_grad
    eager = rewritten(converted)
    assert "linear_dequant" in q8ta_targets(eager) and eager(data(4)).requires_grad
    result = compiled_with(inner, converted)(data(4))
    assert torch.equal(result, eager(data(4))) and not result.requires_grad


@inner_backends
def test_inference_mode(inner):
    converted = chain()
    compiled = compiled_with(inner, converted)
    eager = rewritten(converted)
    with torch.inference_mode():
        assert torch.equal(compiled(data(4)), eager(data(4)))
    converted._frozen_param0.neg_()
    assert torch.equal(compiled(data(4)), rewritten(converted)(data(4)))
    with torch.inference_mode():
        assert torch.equal(compiled(data(4)), rewritten(converted)(data(4)))


# Errors


def test_an_unknown_inner_backend_is_torchs_own_error():
    with pytest.raises(Exception, match="Invalid backend: 'no-such-backend'"):
        compiled_with("no-such-backend", chain())(data(4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bakend": "eager"}, r"options: unknown \['bakend'\].*knows 'backend'"),
        ({"max_autotune": "yes"}, "Unexpected type of attr max_autotune"),
        ({"backend": "no_options", "unroll": 4}, "options: .*takes none, got {'unroll': 4}"),
    ],
)
def test_wrong_options(options, message):
    if options.get("backend") == "no_options":
        options = {**options, "backend": Recorder()}
    compiled = torch.compile(chain(), backend="q8ta", options=options)
    with pytest.raises(Exception, match=message):
        compiled(data(4))


def test_the_inner_backend_gets_its_options_and_mode():
    got = []

    def inner(gm: torch.fx.GraphModule, example_inputs: list[Any], *, options: dict[str, Any]) -> Any:
        got.append(options)
        return gm.forward

    compiled_with(inner, chain(), unroll=4)(data(4))
    assert got == [{"unroll": 4}]
