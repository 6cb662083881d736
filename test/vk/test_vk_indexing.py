"""Indexing, in-place and out= forms: results, strides and what they change equal the CPU's."""

from __future__ import annotations

import pytest
import torch
from same import DTYPES, check, sample

X = sample(5, 6)
ROWS = torch.tensor([3, 0, 3, -1])
MASK = sample(5, 6, seed=3) > 2

READS = {
    "one index tensor": lambda x, i, m: x[i],
    "second dimension": lambda x, i, m: x[:, i],
    "two index tensors": lambda x, i, m: x[i, i],
    "index and slice": lambda x, i, m: x[i, 1:3],
    "index and number": lambda x, i, m: x[i, 2],
    "broadcast indices": lambda x, i, m: x[i[:, None], i[None]],
    "list": lambda x, i, m: x[[0, 2]],
    "boolean mask": lambda x, i, m: x[m],
    "mask of a dimension": lambda x, i, m: x[m[:, 0]],
    "mask and slice": lambda x, i, m: x[m[:, 0], 2:],
    "0-d index": lambda x, i, m: x[i[0]],
    "CPU index": lambda x, i, m: x[i.cpu()],
    "index_select": lambda x, i, m: x.index_select(0, i % 5),
    "gather": lambda x, i, m: x.gather(0, (i % 5)[None, :].expand(2, 4)),
    "take": lambda x, i, m: x.take(i % 5),
    "take_along_dim": lambda x, i, m: x.take_along_dim(x.argsort(1), 1),
    "masked_select": lambda x, i, m: x.masked_select(m),
    "nonzero": lambda x, i, m: m.nonzero(),
    "nonzero as tuple": lambda x, i, m: m.nonzero(as_tuple=True),
    "where": lambda x, i, m: torch.where(m, x, -x),
    "where with a number": lambda x, i, m: torch.where(m, x, 0.0),
    "argwhere": lambda x, i, m: torch.argwhere(m),
    "sort": lambda x, i, m: x.sort(dim=1, stable=True),
    "topk": lambda x, i, m: x.view(-1)[:6].add(torch.arange(6, device=x.device) * 20).topk(2),
    "unique": lambda x, i, m: x.unique(return_counts=True),
    "searchsorted": lambda x, i, m: torch.searchsorted(x.view(-1).sort()[0], x),
    "flip": lambda x, i, m: x.flip(0, 1),
    "roll": lambda x, i, m: x.roll(2, 1),
    "rot90": lambda x, i, m: x.rot90(),
    "repeat": lambda x, i, m: x.repeat(2, 3),
    "repeat_interleave": lambda x, i, m: x.repeat_interleave(2, dim=0),
    "tile": lambda x, i, m: x.tile(2),
    "cat": lambda x, i, m: torch.cat([x, x[1:3], x[:0]]),
    "cat of columns": lambda x, i, m: torch.cat([x, x[:, ::2], x[:, 3:]], dim=1),
    "cat of dtypes": lambda x, i, m: torch.cat([x, m]),
    "stack": lambda x, i, m: torch.stack([x, x.flip(0)], 1),
    "pad": lambda x, i, m: torch.nn.functional.pad(x, (1, 2, 0, 1), value=7),
    "tril": lambda x, i, m: x.tril(),
    "diag": lambda x, i, m: x.diag(),
    "embedding": lambda x, i, m: torch.nn.functional.embedding(i % 5, x),
    "one_hot": lambda x, i, m: torch.nn.functional.one_hot(i % 5, 5),
}


@pytest.mark.parametrize("how", READS)
def test_read(how):
    check(READS[how], X, ROWS, MASK)


WRITES = {
    "element": lambda x, i, m: x.__setitem__((1, 2), 5),
    "row": lambda x, i, m: x.__setitem__(1, 5),
    "column": lambda x, i, m: x.__setitem__((slice(None), 2), 5.5),
    "slice": lambda x, i, m: x.__setitem__((slice(1, 3), slice(0, 6, 2)), 5),
    "slice from a tensor": lambda x, i, m: x.__setitem__(slice(1, 3), x[3:5].clone()),
    "slice from a broadcast tensor": lambda x, i, m: x.__setitem__(slice(1, 4), x[0].clone()),
    "slice from a CPU tensor": lambda x, i, m: x.__setitem__(slice(1, 4), torch.arange(6)),
    "index tensor": lambda x, i, m: x.__setitem__(i, 5),
    "index tensor from a tensor": lambda x, i, m: x.__setitem__(i[:2], x[3:5].clone()),
    "CPU index tensor": lambda x, i, m: x.__setitem__(i.cpu(), 5),
    "two index tensors": lambda x, i, m: x.__setitem__((i, i), 5),
    "mask": lambda x, i, m: x.__setitem__(m, 0),
    "mask from a 0-d CPU tensor": lambda x, i, m: x.__setitem__(m, torch.tensor(3.0)),
    "ellipsis": lambda x, i, m: x.__setitem__(..., 1),
    "index_copy_": lambda x, i, m: x.index_copy_(0, i[:2], x[1:3].clone()),
    "index_add_": lambda x, i, m: x.index_add_(0, i % 5, x[:4].clone()),
    "index_fill_": lambda x, i, m: x.index_fill_(1, i % 5, 8),
    "index_put_, added": lambda x, i, m: x.index_put_((i,), x[:4].clone(), accumulate=True),
    "scatter_": lambda x, i, m: x.scatter_(0, (i % 5)[None, :].expand(2, 4), 7),
    "scatter_add_": lambda x, i, m: x.scatter_add_(0, (i % 5)[None, :].expand(2, 4), x.clone()),
    "masked_fill_": lambda x, i, m: x.masked_fill_(m, -1),
    "masked_scatter_": lambda x, i, m: x.masked_scatter_(m, x.flip(0)),
    "put_": lambda x, i, m: x.put_(i[1:3], x[0, :2].clone()),
    "take and put": lambda x, i, m: x.put_(i % 5, x.take(i % 5)),
    "copy_": lambda x, i, m: x.copy_(x.flip(0)),
    "copy_ of another dtype": lambda x, i, m: x.copy_(m),
    "copy_ of a broadcast": lambda x, i, m: x.copy_(x[2].clone()),
    "copy_ of a number on the CPU": lambda x, i, m: x.copy_(torch.tensor(3)),
    "fill_": lambda x, i, m: x.fill_(3),
    "fill_ with a tensor": lambda x, i, m: x.fill_(torch.tensor(2.0)),
    "fill_ of a view": lambda x, i, m: x[::2, 1::2].fill_(3),
    "zero_": lambda x, i, m: x[1:].zero_(),
    "fill_diagonal_": lambda x, i, m: x.fill_diagonal_(4),
    "add_": lambda x, i, m: x.add_(x.flip(0), alpha=2),
    "add_ of a view": lambda x, i, m: x[:, 1].add_(1),
    "sub_": lambda x, i, m: x.sub_(1),
    "mul_": lambda x, i, m: x.t()[1:].mul_(3),
    "div_": lambda x, i, m: x.div_(4),
    "pow_": lambda x, i, m: x.pow_(2),
    "neg_": lambda x, i, m: x.neg_(),
    "relu_": lambda x, i, m: x.relu_(),
    "clamp_": lambda x, i, m: x.clamp_(-1, 1),
    "addmm_": lambda x, i, m: x.addmm_(x[:, :5].clone(), x.clone()),
    "logical_not_": lambda x, i, m: m.logical_not_(),
    "bitwise_and_": lambda x, i, m: i.bitwise_and_(1),
    "transpose_": lambda x, i, m: x.transpose_(0, 1),
    "squeeze_": lambda x, i, m: x.unsqueeze_(0).squeeze_(),
    "t_": lambda x, i, m: x.t_(),
    "swap": lambda x, i, m: x[[0, 1]].copy_(x[[1, 0]]),
    "resize_ smaller": lambda x, i, m: x.resize_(2, 3),
    "resize_as_": lambda x, i, m: x.resize_as_(i.float()),
    "set_ to another": lambda x, i, m: x.set_(x[1:].clone()),
    "set_ to nothing": lambda x, i, m: x.set_(),
    "set_ to a storage": lambda x, i, m: x.set_(x.untyped_storage(), 3, (2, 2), (4, 1)),
    "add out=": lambda x, i, m: torch.add(x, 1, out=torch.zeros(5, 6, device=x.device)),
    "add out= a view": lambda x, i, m: torch.add(x[1], 1, out=x[2]),
    "mm out=": lambda x, i, m: torch.mm(x, x.t(), out=torch.zeros(5, 5, device=x.device)),
    "sort out=": lambda x, i, m: torch.sort(
        x, 1, True, out=(torch.zeros_like(x), torch.zeros(5, 6, dtype=torch.int64, device=x.device))
    ),
    "cat out=": lambda x, i, m: torch.cat([x, x], out=torch.zeros(10, 6, device=x.device)),
    "_foreach_add_": lambda x, i, m: torch._foreach_add_([x, x[0]], 1.0),
    "_foreach_mul": lambda x, i, m: torch._foreach_mul([x, x[0]], 2.0),
}


@pytest.mark.parametrize("how", WRITES)
def test_write(how):
    write = WRITES[how]
    check(lambda x, i, m: (write(x, i, m), x, i, m)[1:], X, ROWS, MASK)
    check(lambda x, i, m: write(x, i, m), X, ROWS, MASK)


def test_write_of_a_strided_tensor():
    for how in ("slice", "mask", "index tensor", "add_", "copy_", "fill_", "zero_", "masked_fill_"):
        check(lambda x, i, m, how=how: WRITES[how](x, i, m), sample(6, 5).t(), ROWS, MASK)


def test_growing_by_resize_keeps_the_content():
    x = torch.arange(6.0, device="vk")
    x.resize_(4, 5)
    assert x.shape == (4, 5) and torch.equal(x.view(-1)[:6].cpu(), torch.arange(6.0))
    y = torch.arange(6.0, device="vk")[2:]
    y.resize_(10)
    assert torch.equal(y[:4].cpu(), torch.arange(2.0, 6.0))
    assert y.untyped_storage().nbytes() >= 48


def test_out_that_has_to_grow():
    out = torch.empty(0, device="vk")
    torch.add(torch.ones(3, device="vk"), 1, out=out)
    assert torch.equal(out.cpu(), torch.full((3,), 2.0))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cat_of_every_dtype(dtype):
    x, y = sample(3, 5, dtype=dtype), sample(2, 5, dtype=dtype, seed=1)
    check(lambda a, b: torch.cat([a, b]), x, y)
    check(lambda a, b: torch.cat([a[:, 1:], b[:1].expand(3, 5), a], dim=1), x, y)
    check(lambda a, b: torch.cat([a.t(), b.t()], dim=1), x, y)
    check(lambda a, b: torch.cat([a[:0], b, b[:, :5]]), x, y)
    check(lambda a, b: torch.stack([a[0], b[1]]), x, y)
    check(lambda a, b: torch.cat([a.view(-1)[1:4], b.view(-1)[3:4]]), x, y)


REDUCTIONS = {
    "sum": lambda x: x.sum(),
    "sum of a dimension": lambda x: x.sum(1),
    "mean": lambda x: x.mean(0, keepdim=True),
    "max": lambda x: x.max(),
    "max with indices": lambda x: x.max(1),
    "amax": lambda x: x.amax(0),
    "argmax": lambda x: x.argmax(1),
    "any": lambda x: x.any(),
    "all": lambda x: (x > -100).all(),
    "cumsum": lambda x: x.cumsum(1),
    "norm": lambda x: x.norm(),
    "var": lambda x: x.var(0),
    "prod": lambda x: x.prod(1),
    "median": lambda x: x.median(),
    "std_mean": lambda x: torch.std_mean(x),
    "count_nonzero": lambda x: x.count_nonzero(),
    "item": lambda x: x[2, 3].item(),
    "item of the sum": lambda x: x.sum().item(),
    "bool": lambda x: bool(x[0, 0] == x[0, 0]),
    "int": lambda x: int(x[0, 1]),
    "float": lambda x: float(x[0, 1]),
    "tolist": lambda x: x.tolist(),
    "len": lambda x: len(x),
    "iteration": lambda x: list(x),
    "contains": lambda x: 3.0 in x,
    "equal": lambda x: torch.equal(x, x.clone()),
    "unequal": lambda x: torch.equal(x, x + 1),
    "allclose": lambda x: torch.allclose(x, x + 1e-9),
    "index by an element": lambda x: [10, 20, 30][(x[0, 0] * 0).long() + 1],
    "matmul": lambda x: x @ x.t(),
    "bmm": lambda x: torch.bmm(x[None], x.t()[None]),
    "einsum": lambda x: torch.einsum("ij,kj->ik", x, x),
    "conv1d": lambda x: torch.conv1d(x[None], torch.ones(2, 5, 3, device=x.device)),
    "conv2d, groups": lambda x: torch.conv2d(
        x.view(1, 5, 6, 1).expand(2, 5, 6, 6).contiguous(), torch.ones(10, 1, 3, 3, device=x.device), groups=5
    ),
    "conv_transpose2d": lambda x: torch.conv_transpose2d(
        x.view(1, 5, 2, 3), torch.ones(5, 2, 3, 3, device=x.device), torch.ones(2, device=x.device), stride=2
    ),
    "batch_norm": lambda x: torch.nn.functional.batch_norm(x, None, None, training=True),
    "group_norm": lambda x: torch.nn.functional.group_norm(x, 2),
    "max_pool": lambda x: torch.nn.functional.max_pool1d(x[None], 2, return_indices=True),
    "interpolate": lambda x: torch.nn.functional.interpolate(x[None], 9),
    "softmax": lambda x: x.softmax(1),
    "layer_norm": lambda x: torch.layer_norm(x, (6,)),
    "gelu": lambda x: torch.nn.functional.gelu(x),
    "attention": lambda x: torch.nn.functional.scaled_dot_product_attention(x[None], x[None], x[None]),
    "linalg.solve": lambda x: torch.linalg.solve(x[:, :5] + 30 * torch.eye(5, device=x.device), x[:, 5]),
    "linalg.svd": lambda x: torch.linalg.svdvals(x),
    "fft": lambda x: torch.fft.rfft(x),
    "histc": lambda x: x.histc(5),
    "bincount": lambda x: torch.bincount((x + 10).long().view(-1)),
    "bucketize": lambda x: torch.bucketize(x, torch.arange(-5.0, 5.0, device=x.device)),
}


@pytest.mark.parametrize("how", REDUCTIONS)
def test_computed(how):
    check(REDUCTIONS[how], X)
