"""scaled_dot_product_attention on vk: the implementation, the bits and the strides of the CPU."""

from __future__ import annotations

import pytest
import torch
from same import check, to_vk
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as attention

FUSED = "aten::_scaled_dot_product_flash_attention_for_cpu"


def qkv(*sizes: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(sizes, generator=generator) for _ in range(3)]


def heads(*sizes: int) -> list[torch.Tensor]:
    """As models make them: [batch, length, heads, width] seen as [batch, heads, length, width]."""
    return [x.transpose(1, 2) for x in qkv(*sizes)]


def causal(q, k, v):
    return attention(q, k, v, is_causal=True)


def masked(q, k, v):
    mask = torch.zeros(q.shape[-2], k.shape[-2], dtype=torch.bool).tril() == 0
    mask[:, -1] = False
    return attention(q, k, v, attn_mask=mask.to(q.device))


def biased(q, k, v):
    bias = torch.linspace(-3, 0, q.shape[-2] * k.shape[-2]).view(q.shape[-2], k.shape[-2])
    return attention(q, k, v, attn_mask=bias.to(q.device), scale=0.7)


def plain(q, k, v):
    return attention(q, k, v)


@pytest.mark.parametrize("how", [plain, causal, masked, biased])
@pytest.mark.parametrize("make", [qkv, heads])
def test_fused_as_on_the_cpu(how, make):
    torch.vk.reset_fallbacks()
    check(how, *make(2, 5, 7, 16))
    assert torch.vk.fallbacks()[FUSED] == 1


def test_what_is_fused():
    torch.vk.reset_fallbacks()
    check(plain, *(x.double().unsqueeze(0) for x in qkv(3, 5, 8)))
    check(lambda q, k, v: attention(q, k[:, :2], v[:, :2], enable_gqa=True), *qkv(1, 4, 6, 8))
    assert torch.vk.fallbacks()[FUSED] == 2
    check(plain, *(x[:, :, 0] for x in qkv(3, 5, 2, 8)))  # no heads: fused by some versions
    torch.vk.reset_fallbacks()
    with sdpa_kernel(SDPBackend.MATH):
        check(plain, *qkv(1, 2, 6, 8))
    assert FUSED not in torch.vk.fallbacks()


def test_backward():
    inputs = [x.requires_grad_() for x in heads(2, 6, 3, 8)]
    on_vk = [to_vk(x.detach()).requires_grad_() for x in inputs]
    for each in (inputs, on_vk):
        causal(*each).square().sum().backward()
    assert all(torch.equal(a.grad, b.grad.cpu()) for a, b in zip(inputs, on_vk, strict=True))


def test_modules():
    torch.manual_seed(0)
    x = torch.randn(2, 6, 16)
    for module in (
        nn.MultiheadAttention(16, 4, batch_first=True),
        nn.TransformerEncoderLayer(16, 4, 32, batch_first=True),
    ):
        module.eval()

        def run(x: torch.Tensor, module: nn.Module = module) -> torch.Tensor:
            y = module(x, x, x, need_weights=False)[0] if hasattr(module, "head_dim") else module(x)
            return y.detach()

        expected = run(x)
        assert torch.equal(run_on_vk(module, run, x), expected)


def run_on_vk(module: nn.Module, run, x: torch.Tensor) -> torch.Tensor:
    module.to("vk")
    try:
        return run(x.to("vk")).cpu()
    finally:
        module.to("cpu")
