"""FakeTensor, opcheck, torch.compile, torch.export and modules of quantized linears on vk."""

from __future__ import annotations

import io

import pytest
import torch
from same import sample, to_vk
from samples import make_sample
from test_torch_integration import (  # noqa: F401  the tests are collected here, on vk
    Chain,
    batch,
    needs_inductor,
    quantized_batch,
    test_compile_gemv_and_pack,
    test_defaults_and_keywords,
    test_export_of_a_single_row,
    test_opcheck_linear_ops,
    test_opcheck_pack_and_unpack,
    test_opcheck_padded_vectors,
    test_opcheck_strided_inputs,
)
from torch._inductor.utils import run_and_get_code
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export.passes import move_to_device_pass


def on_vk(arguments: tuple) -> tuple:
    return tuple(to_vk(a) if isinstance(a, torch.Tensor) else a for a in arguments)


def test_fake_tensors_of_the_device():
    with FakeTensorMode():
        x = torch.empty(3, 4, device="vk")
        assert x.device == torch.device("vk:0") and (x + 1).device == torch.device("vk:0")
        assert (x @ x.t()).shape == (3, 3) and x[1:].t().contiguous().device.type == "vk"
        assert x.cpu().device.type == "cpu" and x.cpu().to("vk").device.type == "vk"
        with pytest.raises(RuntimeError, match="(?i)device"):
            x + torch.empty(3, 4)


def test_a_module_moves_with_its_quantized_linears():
    module = Chain().to("vk")
    assert all(buffer.is_vk for buffer in module.buffers())
    for rows in (1, 5):
        assert torch.equal(module(batch(rows).to("vk")).cpu(), Chain(reference=True)(batch(rows)))
    back = module.to("cpu")
    assert torch.equal(back(batch(3)), Chain(reference=True)(batch(3)))


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "aot_eager_decomp_partition"])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_compile(backend, dynamic):
    torch._dynamo.reset()
    compiled = torch.compile(Chain().to("vk"), fullgraph=True, backend=backend, dynamic=dynamic)
    for rows in (4, 7, 1):
        result = compiled(quantized_batch(rows).to("vk"))
        assert result.is_vk and torch.equal(result.cpu(), Chain(reference=True)(quantized_batch(rows)))


def test_compile_with_gradients():
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    x = sample(3, 4)
    model(x).sum().backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    model.to("vk")
    torch.compile(model, fullgraph=True, backend="aot_eager")(x.to("vk")).sum().backward()
    for parameter, want in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad.cpu(), want)


def test_compile_moves_between_devices():
    torch._dynamo.reset()

    def run(x: torch.Tensor) -> torch.Tensor:
        return (x.to("vk") * 2 + torch.arange(4, device="vk")).cpu() - 1

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(sample(3, 4)), sample(3, 4) * 2 + torch.arange(4) - 1)


def export_on_cpu(dynamic: bool) -> torch.export.ExportedProgram:
    shapes = {"x": {0: torch.export.Dim("batch", min=1, max=4096)}} if dynamic else None
    return torch.export.export(Chain(), (batch(4),), dynamic_shapes=shapes)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_export_moved_to_the_device(dynamic):
    program = move_to_device_pass(export_on_cpu(dynamic), "vk")
    assert all(value.is_vk for value in program.state_dict.values())
    run = program.module()
    for rows in (4, 1, 9) if dynamic else (4,):
        result = run(batch(rows).to("vk"))
        assert result.is_vk and torch.equal(result.cpu(), Chain(reference=True)(batch(rows)))


def test_export_on_the_device_saved_and_loaded():
    shapes = {"x": {0: torch.export.Dim("batch", min=1, max=4096)}}
    program = torch.export.export(Chain().to("vk"), (batch(4).to("vk"),), dynamic_shapes=shapes)
    stored = io.BytesIO()
    torch.export.save(program, stored)
    stored.seek(0)
    run = torch.export.load(stored).module()
    for rows in (2, 8):
        assert torch.equal(run(batch(rows).to("vk")).cpu(), Chain(reference=True)(batch(rows)))


@needs_inductor
@pytest.mark.timeout(240)
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_inductor_calls_our_operators(dynamic):
    torch._dynamo.reset()
    linear = make_sample((3,), 16, 8)
    arguments = on_vk(linear.arguments("linear"))
    compiled = torch.compile(
        lambda x: torch.ops.q8ta.linear(x, *arguments[1:])[1:], fullgraph=True, dynamic=dynamic
    )
    torch.vk.reset_fallbacks()
    for rows in (3, 7):
        other = make_sample((rows,), 16, 8, seed=rows).x
        expected = linear.replaced(x=other).expected("linear")[1:]
        assert torch.equal(compiled(to_vk(other)).cpu(), expected)
    assert torch.vk.fallbacks() == {}


@needs_inductor
@pytest.mark.timeout(240)
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_inductor_calls_every_operator_when_told_to(dynamic):
    torch._dynamo.reset()
    calls = {"fallback_by_default": True}
    compiled = torch.compile(Chain().to("vk"), fullgraph=True, dynamic=dynamic, options=calls)
    for rows in (4, 7):
        result = compiled(quantized_batch(rows).to("vk"))
        assert result.is_vk and torch.equal(result.cpu(), Chain(reference=True)(quantized_batch(rows)))


@needs_inductor
@pytest.mark.timeout(240)
@pytest.mark.parametrize("beside", [None, "cpu"])
def test_what_inductor_checks_in_each_call(beside):
    """The operators check what they are given; kernels that Inductor generates for the CPU do not."""
    torch._dynamo.reset()
    linear = make_sample((3,), 16, 8)
    arguments = on_vk(linear.arguments("linear"))
    doubled = [] if beside is None else [sample(3)]
    compiled = torch.compile(
        lambda others: [torch.ops.q8ta.linear(*arguments), *(2 * other for other in others)], fullgraph=True
    )
    (result, *others), codes = run_and_get_code(compiled, doubled)
    assert torch.equal(result.cpu(), linear.expected("linear"))
    assert all(torch.equal(other, 2 * before) for other, before in zip(others, doubled, strict=True))
    (code,) = codes
    assert ("assert_size_stride(arg" in code) == (beside is not None)
    assert code.count("torch.ops.q8ta.linear.default._op") == 1


@needs_inductor
@pytest.mark.timeout(240)
def test_inductor_says_that_it_generates_nothing():
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: x.sin() * 2, fullgraph=True)
    with pytest.raises(Exception, match="no code for the vk device.*fallback_by_default"):
        compiled(sample(3).to("vk"))
    torch._dynamo.reset()
    assert torch.equal(torch.compile(lambda x: x * 2 + 1)(sample(3)), sample(3) * 2 + 1), (
        "the CPU's still works"
    )


def test_profiler_runs():
    with torch.profiler.profile() as profile:
        (sample(8, 8).to("vk") + 1).cpu()
    assert any("aten::add" in event.key for event in profile.key_averages())


def test_functionalization_and_make_fx():
    from torch.fx.experimental.proxy_tensor import make_fx

    def run(x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y[1:].add_(1)
        return y.t()

    x = sample(3, 4)
    graph = make_fx(torch.func.functionalize(run))(x.to("vk"))
    assert torch.equal(graph(x.to("vk")).cpu(), run(x))
    assert torch.equal(torch.func.functionalize(run)(x.to("vk")).cpu(), run(x))
