"""Quantized models on vk: the same bits as on the CPU, and an int8 MLP that nothing leaves or unpacks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

pytest.importorskip("torchao")

from compiling import chain, compiled_with, needs_inductor, rewritten  # noqa: E402
from compiling import fresh_dynamo as _fresh_dynamo  # noqa: E402, F401 (a fixture)
from models import DYNAMIC_BATCH, same  # noqa: E402
from test_quantize import MODELS, attention_data, data  # noqa: E402

import q8ta_ops  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")

STAY_ON_THE_DEVICE = ("mlp", "two heads", "shared weight")  # whose operators all have kernels


def quantize(model: nn.Module, x: Tensor, **options: object) -> ExportedProgram:
    return q8ta_ops.quantize(model, (x,), [x, x * 1.5], DYNAMIC_BATCH, **options)


@pytest.mark.parametrize("name", MODELS)
def test_exported_and_moved(name: str) -> None:
    torch.manual_seed(7)
    x = attention_data() if name == "encoder layer" else data(6, 16)
    program = quantize(MODELS[name][0](), x)
    expected = {rows: program.module()(data(rows, *x.shape[1:], seed=rows)) for rows in (6, 1, 9)}
    run = move_to_device_pass(program, "vk").module()
    torch.vk.reset_fallbacks()
    for rows, want in expected.items():
        result = run(data(rows, *x.shape[1:], seed=rows).to("vk"))
        result = result.cpu() if isinstance(result, Tensor) else tuple(part.cpu() for part in result)
        assert same(result, want)
    if name in STAY_ON_THE_DEVICE:
        assert torch.vk.fallbacks() == {}


@pytest.mark.parametrize("inner", ["eager", "aot_eager", pytest.param("inductor", marks=needs_inductor)])
@pytest.mark.timeout(240)
def test_compiled_by_our_backend(inner: str) -> None:
    converted = chain()
    eager = rewritten(converted)
    expected = {rows: eager(data(rows, 16)) for rows in (4, 8, 1)}
    options = {"fallback_by_default": True} if inner == "inductor" else {}
    compiled = compiled_with(inner, converted.to("vk"), **options)
    for rows, want in expected.items():
        result = compiled(data(rows, 16).to("vk"))
        assert result.is_vk and torch.equal(result.cpu(), want)


@pytest.mark.parametrize("rows", [1, 9])
def test_an_int8_mlp_stays_packed(rows: int) -> None:
    """Eight layers: one quantize, eight linears and one dequantize at most; no fallback, no unpacking."""
    torch.manual_seed(3)
    layers = [layer for _ in range(8) for layer in (nn.Linear(32, 32), nn.ReLU())]
    x = data(rows, 32)
    program = q8ta_ops.quantize(nn.Sequential(*layers), (x,), [x])
    expected = program.module()(x)
    run = move_to_device_pass(program, "vk").module()
    on_device = x.to("vk")
    torch.vk.reset_fallbacks()
    with q8ta_ops.profile() as profile:
        result = run(on_device)
    kernels = [dispatch.kernel for dispatch in profile.dispatches]
    linears = [kernel for kernel in kernels if kernel.startswith("linear_")]
    assert len(linears) == 8 and not any("unpack" in kernel for kernel in kernels), kernels
    assert torch.vk.fallbacks() == {}
    assert torch.equal(result.cpu(), expected)
