"""Autograd through views, copies, moves and fallbacks; training, autocast and functorch on vk."""

from __future__ import annotations

import pytest
import torch
from same import assert_same, check, sample
from torch import nn


def grad_of(function, *inputs):
    for tensor in inputs:
        tensor.requires_grad_()
    result = function(*inputs)
    result.sum().backward()
    return [result.detach(), *(tensor.grad for tensor in inputs)]


DIFFERENTIABLE = {
    "mul": lambda x, w: x * w,
    "mm": lambda x, w: x @ w.t(),
    "view": lambda x, w: x.view(-1)[3:] * 2,
    "transpose": lambda x, w: (x.t().contiguous() * w.t())[1:],
    "index": lambda x, w: x[[0, 2, 0]] * w[:3],
    "slice": lambda x, w: x[1:, ::2] * 3,
    "expand": lambda x, w: x[:1].expand(5, 4) * 2,
    "as_strided": lambda x, w: x.as_strided((3, 3), (1, 2)) * 2,
    "unfold": lambda x, w: x.unfold(1, 2, 1) * 2,
    "cat": lambda x, w: torch.cat([x, w]) * 2,
    "stack": lambda x, w: torch.stack([x, w]) ** 2,
    "where": lambda x, w: torch.where(x > 0, x, w),
    "in place on a view": lambda x, w: _in_place(x, w),
    "copy_": lambda x, w: torch.zeros_like(x).copy_(x) * w,
    "clone": lambda x, w: x.clone() * w,
    "to another dtype": lambda x, w: x.double() * w,
    "to the CPU": lambda x, w: (x.cpu() * w.cpu()).to(x.device),
    "relu": lambda x, w: torch.relu(x) * w,
    "clamp": lambda x, w: x.clamp(-3, 3) * w,
    "sum of a dimension": lambda x, w: x.sum(0) * w,
    "softmax": lambda x, w: x.div(16).softmax(1) * w,
    "conv1d": lambda x, w: torch.conv1d(x[None], w[:, :, None].repeat(1, 1, 2)[:, :3].expand(3, 3, 2)),
    "conv1d with a bias": lambda x, w: torch.conv1d(x[None], w[:, :3, None].contiguous(), w[:, 3]),
    "conv_transpose": lambda x, w: torch.conv_transpose1d(x[None], w[:, :2, None].contiguous(), w[:2, 3]),
    "embedding": lambda x, w: nn.functional.embedding(torch.tensor([0, 2], device=x.device), x) * w[:2],
    "max": lambda x, w: (x + 0.1 * w).max(1)[0],
    "cumsum": lambda x, w: x.cumsum(1) * w,
    "linear": lambda x, w: nn.functional.linear(x, w, w[:, 0]),
    "mse": lambda x, w: nn.functional.mse_loss(x, w),
    "cross_entropy": lambda x, w: nn.functional.cross_entropy(x, torch.tensor([1, 0, 2], device=x.device)),
    "custom Function": lambda x, w: _Doubled.apply(x) * w,
    "checkpoint": lambda x, w: torch.utils.checkpoint.checkpoint(lambda a: a * w, x, use_reentrant=False),
}


def _in_place(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[1:].mul_(w[1:])
    y[:, 0] = 1
    return y


class _Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * 2 * torch.ones_like(x)


@pytest.mark.parametrize("how", DIFFERENTIABLE)
def test_gradients(how):
    check(lambda x, w: grad_of(DIFFERENTIABLE[how], x, w), sample(3, 4), sample(3, 4, seed=1), layout=False)


def test_gradient_crosses_devices():
    x = sample(3).requires_grad_()
    y = x.to("vk") * 2
    assert y.requires_grad and y.is_vk
    y.sum().backward()
    assert x.grad.device.type == "cpu" and torch.equal(x.grad, torch.full((3,), 2.0))


def test_gradients_accumulate_and_clear():
    x = sample(3).to("vk").requires_grad_()
    (x * 2).sum().backward()
    (x * 3).sum().backward()
    assert torch.equal(x.grad.cpu(), torch.full((3,), 5.0)) and x.grad.is_vk
    x.grad = None
    assert torch.autograd.grad((x * x).sum(), x)[0].is_vk


def test_second_derivative_and_hooks():
    x = sample(3).to("vk").requires_grad_()
    seen = []
    x.register_hook(lambda gradient: seen.append(gradient.device.type))
    (first,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
    first.sum().backward()
    assert torch.equal(x.grad.cpu(), 6 * sample(3)) and seen[0] == "vk"


def test_gradcheck():
    x = sample(2, 3, dtype=torch.float64).to("vk").requires_grad_()
    w = sample(2, 3, dtype=torch.float64, seed=1).to("vk").requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: (a @ b.t()).tanh() + a[:, :2] * 2, (x / 9, w / 9))


def test_backward_in_another_thread_finds_the_device():
    x = sample(100).to("vk").requires_grad_()
    y = (x * 2).view(10, 10).t().contiguous()
    y.backward(torch.ones(10, 10, device="vk"))
    assert torch.equal(x.grad.cpu(), torch.full((100,), 2.0))


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_training(optimizer):
    def train(device: str) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).to(device)
        steps = getattr(torch.optim, optimizer)(model.parameters(), lr=0.01)
        for step in range(3):
            steps.zero_grad()
            loss = nn.functional.mse_loss(model(sample(5, 4, seed=step).to(device)), sample(5, 2).to(device))
            loss.backward()
            steps.step()
        return [parameter.detach().cpu() for parameter in model.parameters()]

    for got, want in zip(train("vk"), train("cpu"), strict=True):
        torch.testing.assert_close(got, want)


def test_no_grad_and_inference_mode():
    x = sample(3).to("vk").requires_grad_()
    with torch.no_grad():
        assert not (x * 2).requires_grad
    with torch.inference_mode():
        y = x * 2
        assert y.is_inference() and y[1:].t().is_vk
    assert torch.equal(y.cpu(), sample(3) * 2)


def test_version_counter():
    x = sample(3).to("vk").requires_grad_()
    y = x * 1
    z = y * y
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


def test_autocast_falls_through():
    x, w = sample(3, 4), sample(3, 4, seed=1)
    with torch.autocast("vk", dtype=torch.float16):
        assert torch.is_autocast_enabled("vk")
        result = x.to("vk") @ w.to("vk").t()
    assert_same(result, x @ w.t())
    linear = nn.Linear(4, 2)
    expected = linear(x).detach()
    with torch.autocast("vk"), torch.no_grad():
        torch.testing.assert_close(linear.to("vk")(x.to("vk")).cpu(), expected)


def test_vmap_jvp_and_functional_grad():
    x = sample(3, 4)
    check(lambda v: torch.func.vmap(lambda row: row * 2 + row.sum())(v), x)
    check(lambda v: torch.func.grad(lambda a: (a**2).sum())(v), x)
    check(lambda v: torch.func.jvp(lambda a: a**2, (v,), (torch.ones_like(v),)), x)
    check(lambda v: torch.func.jacrev(lambda a: a * 2)(v[0]), x)


def test_modules():
    torch.manual_seed(0)
    modules = {
        "conv": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), sample(2, 3, 6, 6)),
        "attention": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), sample(2, 5, 8)),
        "lstm": (nn.LSTM(4, 6, batch_first=True), sample(2, 5, 4)),
        "gru": (nn.GRU(4, 6), sample(5, 2, 4)),
        "norms": (nn.Sequential(nn.LayerNorm(8), nn.GELU(), nn.Dropout(0.5)), sample(2, 8)),
    }
    for name, (module, x) in modules.items():
        for training in (False, True):
            module.train(training)
            for part in module.modules():
                if isinstance(part, nn.Dropout):
                    part.p = 0.0
                if isinstance(part, nn.MultiheadAttention):
                    part.dropout = 0.0
            expected = module.to("cpu")(x)
            got = module.to("vk")(x.to("vk"))
            for on_vk, on_cpu in zip(_leaves(got), _leaves(expected), strict=True):
                assert on_vk.is_vk, name
                torch.testing.assert_close(on_vk.detach().cpu(), on_cpu.detach(), msg=name)


def test_packed_sequences():
    x = sample(3, 5, 4)
    packed = nn.utils.rnn.pack_padded_sequence(x.to("vk"), torch.tensor([5, 3, 2]), batch_first=True)
    assert packed.data.is_vk
    padded, lengths = nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)
    assert padded.is_vk and lengths.tolist() == [5, 3, 2] and torch.equal(padded[0].cpu(), x[0])
    on_cpu = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([5, 3, 2]), batch_first=True)
    lstm = nn.LSTM(4, 6, batch_first=True)
    expected = lstm(on_cpu)[0].data.detach()
    torch.testing.assert_close(lstm.to("vk")(on_cpu.vk())[0].data.detach().cpu(), expected)


def _leaves(values):
    return torch.utils._pytree.tree_leaves(values)
