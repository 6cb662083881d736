"""Views share memory with their base on vk as on the CPU: sizes, strides, offsets, writes through them."""

from __future__ import annotations

import pytest
import torch
from same import DTYPES, check, sample, to_vk

VIEWS = {
    "t": lambda x: x.t(),
    "T of two": lambda x: x.mT,
    "view": lambda x: x.view(2, 3, 6),
    "view with -1": lambda x: x.view(-1, 4),
    "view as another dtype": lambda x: x.view(torch.int32),
    "view as bytes": lambda x: x.view(torch.uint8),
    "view as wider": lambda x: x.view(torch.float64),
    "reshape": lambda x: x.reshape(9, 4),
    "reshape that copies": lambda x: x.t().reshape(-1),
    "flatten": lambda x: x.flatten(),
    "unflatten": lambda x: x.unflatten(0, (2, 3)),
    "transpose": lambda x: x.transpose(0, 1),
    "permute": lambda x: x.view(2, 3, 6).permute(2, 0, 1),
    "movedim": lambda x: x.view(2, 3, 6).movedim(0, 2),
    "squeeze": lambda x: x.view(1, 6, 1, 6).squeeze(),
    "unsqueeze": lambda x: x.unsqueeze(1),
    "expand": lambda x: x[:, :1].expand(6, 5),
    "expand_as": lambda x: x[:1].expand_as(x),
    "broadcast_to": lambda x: x[0].broadcast_to(3, 6),
    "select": lambda x: x.select(0, 3),
    "narrow": lambda x: x.narrow(1, 2, 3),
    "slice": lambda x: x[1:5],
    "slice with a step": lambda x: x[::2, 1::3],
    "slice of nothing": lambda x: x[3:3],
    "slice from the end": lambda x: x[-2:, :-1],
    "row": lambda x: x[2],
    "column": lambda x: x[:, 2],
    "element": lambda x: x[2, 3],
    "new axis": lambda x: x[None, :, None],
    "ellipsis": lambda x: x[..., 0],
    "diagonal": lambda x: x.diagonal(),
    "diagonal beside": lambda x: x.diagonal(1),
    "unfold": lambda x: x.unfold(1, 3, 2),
    "split": lambda x: x.split(4),
    "chunk": lambda x: x.chunk(3, dim=1),
    "unbind": lambda x: x.unbind(1),
    "tensor_split": lambda x: x.tensor_split(4),
    "hsplit": lambda x: x.hsplit(3),
    "as_strided": lambda x: x.as_strided((3, 3), (2, 5), 1),
    "as_strided that overlaps": lambda x: x.as_strided((4, 4), (1, 1), 2),
    "as_strided of a view": lambda x: x[2:].as_strided((2, 2), (1, 2)),
    "swapaxes": lambda x: x.swapaxes(0, 1),
    "view_as": lambda x: x.view_as(torch.empty(4, 9, device=x.device)),
    "ravel": lambda x: x.ravel(),
    "view of a view": lambda x: x.view(2, 3, 6)[1].t()[2:],
    "atleast_3d": lambda x: torch.atleast_3d(x),
    "positive": lambda x: +x,
    "detach": lambda x: x.detach()[1],
}


@pytest.mark.parametrize("how", VIEWS)
def test_view(how):
    check(VIEWS[how], sample(6, 6))


@pytest.mark.parametrize("how", [name for name in VIEWS if "copies" not in name and "overlaps" not in name])
def test_writing_through_a_view_changes_the_base(how):
    def write(x: torch.Tensor) -> torch.Tensor:
        views = VIEWS[how](x)
        for view in views if isinstance(views, (tuple, list)) else [views]:
            if 0 not in view.stride():
                view.copy_(torch.arange(view.numel(), device=x.device).view(view.shape))
        return x

    check(write, sample(6, 6))


def test_writing_to_the_base_shows_in_views():
    def write(x: torch.Tensor) -> list[torch.Tensor]:
        views = [x.t(), x[::2], x[1:4, 2], x.view(torch.int32)]
        x.mul_(2).add_(1)
        return views

    check(write, sample(6, 6))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_strided_copies_of_every_dtype(dtype, nothing_falls_back):
    x = sample(5, 7, dtype=dtype)
    for view in (x.t(), x[::2], x[:, ::3], x[1:4, 2:5], x[:1].expand(3, 7), x[:, 3], x.flip(0)[1:]):
        check(lambda v: v.contiguous(), view)
        check(lambda v: torch.zeros_like(v, memory_format=torch.contiguous_format).copy_(v), view)
    check(lambda a, b: a[1:4, ::2].copy_(b[::2, :4]), x, sample(5, 7, dtype=dtype, seed=1))
    check(lambda a, b: a.t()[2:, 1:].copy_(b[1:, 2:].t()), x, sample(5, 7, dtype=dtype, seed=2))
    check(lambda a: a[0].copy_(a[1]), x)
    check(lambda a: a.view(-1)[1:4].copy_(a.view(-1)[7:10]), x)  # byte offsets that are no multiple of a word
    check(lambda a: a.view(-1)[1:2].fill_(1), x)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cat_of_every_dtype(dtype, nothing_falls_back):
    x, y = sample(5, 7, dtype=dtype), sample(5, 3, dtype=dtype, seed=1)
    check(lambda a, b: torch.cat([a, b], 1), x, y)
    check(lambda a, b: torch.cat([a.t(), b.t(), a.t()[1:2]]), x, y)
    check(lambda a, b: torch.stack([a[::2, :3], b[1:4]]), x, y)
    check(lambda a: a.clone(), x)


@pytest.mark.parametrize("offset", [0, 1, 2, 3, 4, 5, 255, 256, 257])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 64])
def test_bytes_at_any_offset(offset, length):
    """Copies up, down and on the device of bytes that start and end anywhere."""
    values = sample(600, dtype=torch.int8)
    piece = sample(length, dtype=torch.int8, seed=1)
    on_vk = values.to("vk")
    assert torch.equal(on_vk[offset : offset + length].cpu(), values[offset : offset + length])
    on_vk[offset : offset + length] = piece.to("vk")
    values[offset : offset + length] = piece
    assert torch.equal(on_vk.cpu(), values)
    on_vk[offset : offset + length].copy_(piece.flip(0))
    values[offset : offset + length] = piece.flip(0)
    assert torch.equal(on_vk.cpu(), values)
    on_vk[300 : 300 + length].copy_(on_vk[offset : offset + length].clone())
    values[300 : 300 + length] = values[offset : offset + length].clone()
    assert torch.equal(on_vk.cpu(), values)


def test_copies_within_a_tensor():
    check(lambda x: x.copy_(x), sample(8))
    check(lambda x: x[:4].copy_(x[4:]), sample(8))
    check(lambda x: x[::2].copy_(x[1::2]), sample(8))
    check(lambda x: x[:, ::2].copy_(x[:, 1::2]), sample(3, 8, dtype=torch.int8))
    check(lambda x: x[:, 0].copy_(x[0]), sample(8, 8))


# On the device, but through the CPU, and counted like every other fallback.
COPIES_WITHOUT_A_KERNEL = {
    "to another dtype": lambda x: x.half(),
    "copy_ from another dtype": lambda x: torch.zeros(4, 6, dtype=torch.int32, device=x.device).copy_(x),
    "resolve_conj": lambda x: torch.complex(x, x).conj().resolve_conj(),
    "more dimensions than the kernel takes": lambda x: (
        x.view(1, 24).as_strided((2,) * 7, (1, 3, 2, 5, 1, 4, 6)).contiguous()
    ),
    "overlapping": lambda x: x[:, ::2].copy_(x[:, 1::2]),
}


@pytest.mark.parametrize("how", COPIES_WITHOUT_A_KERNEL)
def test_copies_that_go_through_the_cpu_are_counted(how):
    torch.vk.reset_fallbacks()
    check(COPIES_WITHOUT_A_KERNEL[how], sample(4, 6))
    assert torch.vk.fallbacks()["aten::_copy_from"] == 1


def test_copies_to_and_from_the_cpu_are_no_fallbacks(nothing_falls_back):
    x = sample(4, 6)
    on_vk = x.to("vk")
    on_vk.cpu(), on_vk.t()[1:].cpu(), on_vk.to("cpu", torch.half), on_vk.tolist()
    x.t().to("vk"), x.to("vk", torch.half), on_vk[:, ::2].copy_(x.half()[:, ::2]), x.copy_(on_vk)


def test_memory_formats():
    x = sample(2, 3, 4, 5)
    check(lambda v: v.to(memory_format=torch.channels_last), x)
    check(lambda v: v.contiguous(memory_format=torch.channels_last), x)
    check(lambda v: v.to(memory_format=torch.channels_last).is_contiguous(), x)
    check(
        lambda v: v.to(memory_format=torch.channels_last).contiguous(),
        x.to(memory_format=torch.channels_last),
    )


def test_conj_and_neg_views():
    x = sample(3, 4, dtype=torch.complex64)
    check(lambda v: v.conj()[1, 2].item(), x)
    check(lambda v: v.real.add_(1), x)
    check(lambda v: torch.view_as_real(v)[..., 1].zero_(), x)
    check(lambda a: a.conj().copy_(torch.ones(3, 4, dtype=torch.complex64) * 2j), x)
    check(lambda v: v.conj().resolve_conj(), x)
    check(lambda v: v.conj().clone(), x)
    check(lambda v: v.conj().t().contiguous(), x)
    check(lambda v: v.imag.contiguous(), x)
    check(lambda v: v.conj().imag.resolve_neg(), x)
    check(lambda v: torch.view_as_real(v), x)
    check(lambda v: torch.view_as_complex(v), sample(3, 2))
    check(lambda a, b: a.copy_(b.conj()), x, sample(3, 4, dtype=torch.complex64, seed=1))
    check(lambda a, b: a.conj().copy_(b), x, sample(3, 4, dtype=torch.complex64, seed=2))
    assert torch.equal(to_vk(x).conj().cpu(), x.conj())
    assert torch.equal(to_vk(x.real).conj().cpu(), x.real)


def test_views_keep_the_base_alive():
    x = torch.arange(1000, device="vk")
    view = x[500:503]
    del x
    others = [torch.full((1000,), value, device="vk") for value in range(20)]
    assert view.tolist() == [500, 501, 502] and len(others) == 20


SHAPE_ERRORS = {
    "view": lambda x: x.t().view(-1),
    "view of another size": lambda x: x.view(5, 5),
    "select": lambda x: x.select(0, 6),
    "narrow": lambda x: x.narrow(0, 4, 3),
    "expand": lambda x: x.expand(5, 6),
    "as_strided beyond the storage": lambda x: x.as_strided((6, 6), (6, 2)),
    "index": lambda x: x[7],
    "permute": lambda x: x.permute(0, 0),
    "view as wider": lambda x: x[:, :5].view(torch.float64),
    "copy over itself": lambda x: x[1:].copy_(x[:-1]),
    "copy to an expanded": lambda x: x[:1].expand(6, 6).copy_(x.clone()),
    "fill of an expanded": lambda x: x[:1].expand(6, 6).add_(1),
}


@pytest.mark.parametrize("how", SHAPE_ERRORS)
def test_wrong_use_gives_the_cpus_error(how):
    x = sample(6, 6)
    with pytest.raises((RuntimeError, IndexError)) as on_cpu:
        SHAPE_ERRORS[how](x.clone())
    on_vk = x.to("vk")
    with pytest.raises(on_cpu.type) as raised:
        SHAPE_ERRORS[how](on_vk)
    assert str(raised.value).split("\n")[0] == str(on_cpu.value).split("\n")[0]
    assert torch.equal(on_vk.cpu(), x)
