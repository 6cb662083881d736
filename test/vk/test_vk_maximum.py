"""Maxima over dimensions of float32 and int8 tensors on the device, and where they are: the CPU's results."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from same import check, sample, to_vk
from samples import random_int8

pytestmark = pytest.mark.kernels

SIZES = [
    (),
    (1,),
    (3,),
    (4, 1),
    (5, 7),
    (2, 3, 5),
    (63,),
    (64,),
    (65,),
    (3, 130),
    (130, 3),
    (4099,),
    (2, 9000),
]


def floats(*sizes: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed)) * 50


def bytes_(*sizes: int, seed: int = 0) -> torch.Tensor:
    return random_int8(torch.Generator().manual_seed(seed), *sizes)


MAKE = {"float32": floats, "int8": bytes_}


@pytest.fixture(autouse=True)
def on_the_device():
    torch.vk.reset_fallbacks()
    yield
    assert torch.vk.fallbacks() == {}


@pytest.mark.parametrize("dtype", MAKE)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_over_all_and_some_dimensions(dtype, sizes):
    x = MAKE[dtype](*sizes)
    check(torch.max, x)
    check(torch.amax, x)
    for count in range(1, len(sizes) + 1):
        for dims in itertools.combinations(range(len(sizes)), count):
            check(lambda x, dims=dims: x.amax(dims), x)
            check(lambda x, dims=dims: x.amax([d - len(sizes) for d in dims], keepdim=True), x)


@pytest.mark.parametrize("dtype", MAKE)
def test_strides_and_offsets(dtype):
    x = MAKE[dtype](6, 7, 8, 9)
    for view in (
        x.permute(2, 0, 3, 1),
        x[1:4, ::2, 3:, 1:8:3],
        x[:, 2:3].expand(6, 5, 8, 9),
        x[3, 5, 6, 1:],
        x.flatten()[5:],
        x.movedim(0, -1)[..., 1:],
    ):
        check(torch.max, view)
        for dim in range(view.dim()):
            check(lambda x, dim=dim: x.amax(dim), view)
        if view.dim() == 4:
            check(lambda x: x.amax((0, 2)), view)
            check(lambda x: x.amax((1, 3), keepdim=True), view)


@pytest.mark.parametrize("count", [1, 64, 1000, 20_000])
def test_what_floats_there_are(count):
    """NaN wins wherever it is; infinities, subnormals and zeros count as what they are."""
    smallest = -torch.arange(1, count + 1).float()
    for value in (math.nan, -math.nan, math.inf, 1e-45, 0.0, -1e-45, -0.5):
        for place in {0, count // 3, count - 1}:
            x = smallest.clone()
            x[place] = value
            check(torch.max, x)
            check(lambda x: x.amax(0), x)
    negative = torch.full((count,), -math.inf)
    check(torch.max, negative)
    negative[count // 2] = -3e38
    check(torch.max, negative)
    assert to_vk(torch.full((count,), -0.0)).max().item() == 0


@pytest.mark.parametrize("sizes", [(1 << 20,), (3, 1 << 18), (1 << 18, 3), (700, 1500), (1500, 700)])
@pytest.mark.parametrize("dtype", MAKE)
def test_many_elements(dtype, sizes):
    x = MAKE[dtype](*sizes)
    for seed in range(3):
        index = torch.randint(x.numel(), (), generator=torch.Generator().manual_seed(seed))
        x.view(-1)[index] = 127
        check(torch.max, x)
    for dim in range(len(sizes)):
        check(lambda x, dim=dim: x.amax(dim), x)


def test_extreme_bytes():
    check(torch.max, torch.full((100,), -128, dtype=torch.int8))
    x = torch.full((5, 100), -128, dtype=torch.int8)
    x[3, 77] = -127
    check(lambda x: x.amax(1), x)
    check(torch.max, x)


def test_backward():
    def gradients(x: torch.Tensor) -> list[torch.Tensor]:
        leaf = x.detach().requires_grad_()
        (leaf.max() * 2 + leaf.amax(0).sum()).backward()
        return [leaf.grad]

    x = floats(7, 5)
    x[2] = x.max()  # several largest ones share the gradient
    want, got = gradients(x), gradients(x.to("vk"))
    assert all(torch.equal(a, b.cpu()) for a, b in zip(want, got, strict=True))
    torch.vk.reset_fallbacks()


def test_in_a_graph():
    x = sample(40, 300).to("vk")
    graph = torch.vk.Graph()
    with torch.vk.graph(graph):
        largest, rows = x.max(), x.amax(1)
    for seed in range(3):
        x.copy_(floats(40, 300, seed=seed))
        graph.replay()
        assert torch.equal(largest.cpu(), x.cpu().max()) and torch.equal(rows.cpu(), x.cpu().amax(1))


def test_what_the_kernel_does_not_reach():
    """Falls back, and says what the CPU says."""
    for call in (
        lambda x: x.amax((0, 0)),
        lambda x: x.amax(2),
        lambda x: x[:0].max(),
        lambda x: x[:0].amax(0),
    ):
        with pytest.raises((RuntimeError, IndexError)) as on_cpu:
            call(sample(3, 4))
        with pytest.raises(on_cpu.type) as on_vk:
            call(sample(3, 4).to("vk"))
        assert str(on_vk.value).split("\n")[0] == str(on_cpu.value).split("\n")[0]
    check(lambda x: x.amax(0), sample(3, 0))
    for dtype in (torch.int32, torch.float16, torch.bool, torch.uint8):
        check(torch.max, sample(3, 4, dtype=dtype))
    seven = sample(2, 2, 2, 2, 2, 2, 2, 2)[..., :1, :, :1, :, :1, :, :, :]
    check(torch.max, seven.as_strided((2,) * 7, (1, 3, 2, 5, 7, 4, 9)))
    torch.vk.reset_fallbacks()


def check_positions(x: torch.Tensor) -> None:
    """Of the maxima over each dimension, and over all of them."""
    check(torch.argmax, x)
    for dim in range(-x.dim(), x.dim()) if x.dim() else (-1, 0):
        for keepdim in (False, True):
            check(lambda x, dim=dim, keepdim=keepdim: x.max(dim, keepdim).values, x)
            check(lambda x, dim=dim, keepdim=keepdim: x.max(dim, keepdim).indices, x)
            check(lambda x, dim=dim, keepdim=keepdim: x.argmax(dim, keepdim), x)


@pytest.mark.parametrize("dtype", MAKE)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_positions(dtype, sizes):
    check_positions(MAKE[dtype](*sizes))
    check_positions(MAKE[dtype](*sizes).clamp(-1, 1).round())  # the first of many equal ones


@pytest.mark.parametrize("dtype", MAKE)
def test_positions_in_views(dtype):
    x = MAKE[dtype](6, 7, 8, 9)
    for view in (
        x.permute(2, 0, 3, 1),
        x[1:4, ::2, 3:, 1:8:3],
        x[:, 2:3].expand(6, 5, 8, 9),
        x.flatten()[5:],
    ):
        check_positions(view)


@pytest.mark.parametrize("count", [3, 64, 1000])
def test_positions_of_what_floats_there_are(count):
    """The first of several NaNs, whatever their signs, and of 0 and -0, which are equal."""
    smallest = -torch.arange(1, count + 1).float()
    values = (math.nan, -math.nan, math.inf, 1e-45, 0.0, -0.0, -1e-45)
    for first, second in itertools.product(values, values):
        x = smallest.clone()
        x[count // 3], x[count - 1] = first, second
        want, got = x.max(0), to_vk(x).max(0)
        assert torch.equal(got.indices.cpu(), want.indices), (first, second)
        assert torch.equal(got.values.cpu().view(torch.int32), want.values.view(torch.int32)), (first, second)
        check(torch.argmax, x)
    check_positions(torch.full((count,), -math.inf))


def test_positions_refused():
    x = to_vk(floats(2, 3))
    for call in (lambda x: x.max(2), lambda x: x.argmax(-3)):
        with pytest.raises(IndexError, match="out of range"):
            call(x)
    for call in (lambda x: x[:, :0].max(1), lambda x: x[:0].argmax()):
        with pytest.raises((IndexError, RuntimeError), match="(?i)non-zero|specified"):
            call(x)
    torch.vk.reset_fallbacks()


def test_more_positions_than_a_binding_holds():
    """Where the device binds less, as lavapipe does (128 MiB), the CPU finds them."""
    x = bytes_(3, 2).repeat((1 << 23) // 4 * 3, 1)
    limit = torch.vk.get_device_properties().features["max_binding_bytes"]
    found = x.to("vk").max(1)
    assert torch.equal(found.indices.cpu(), x.max(1).indices)
    assert torch.equal(found.values.cpu(), x.max(1).values)
    assert torch.vk.fallbacks() == ({"aten::max.dim": 1} if 8 * len(x) > limit else {})
    torch.vk.reset_fallbacks()


def test_positions_backward_and_in_a_graph():
    def gradient(x: torch.Tensor) -> torch.Tensor:
        leaf = x.detach().requires_grad_()
        leaf.max(1).values.sum().backward()
        return leaf.grad

    x = floats(7, 5)
    assert torch.equal(gradient(x.to("vk")).cpu(), gradient(x))
    torch.vk.reset_fallbacks()
    static = x.to("vk")
    graph = torch.vk.Graph()
    with torch.vk.graph(graph):
        values, indices = static.max(0)
        where = static.argmax()
    for seed in range(3):
        x = floats(7, 5, seed=seed)
        static.copy_(x)
        graph.replay()
        assert torch.equal(values.cpu(), x.max(0).values) and torch.equal(indices.cpu(), x.max(0).indices)
        assert where.item() == x.argmax()
