"""Packed weights are cached: whatever changes about a weight, the next call must notice."""

from __future__ import annotations

import os

import pytest
import torch
from samples import make_sample, random_int8, run_in_eight_threads

import q8ta_ops

ROWS = pytest.mark.parametrize("rows", [1, 5])


@ROWS
def test_weights_edited_in_place(path, place, rows):
    sample = make_sample((rows,), 40, 24, seed=1).mapped(place)
    path.check(sample)
    generator = torch.Generator().manual_seed(2)
    edits = (
        lambda w: w.copy_(random_int8(generator, *w.shape)),
        lambda w: w[3].fill_(7),
        lambda w: w.view(-1)[5:6].add_(1),
        lambda w: w.neg_(),
        lambda w: w.t()[0].zero_(),
    )
    for edit in edits:
        before = sample.weights.clone()
        edit(sample.weights)
        assert not torch.equal(before, sample.weights)
        # The sums are those of the edited weights, in a tensor of their own.
        path.check(sample.with_weights(sample.weights))


@ROWS
def test_other_weights_at_the_same_address(path, place, rows):
    addresses = []
    for seed in range(40):
        sample = make_sample((rows,), 60, 64, seed=seed).mapped(place)
        addresses.append(sample.weights.data_ptr())
        path.check(sample, "linear")
        del sample
    assert len(set(addresses)) < len(addresses), "the allocator never reused an address: nothing was tested"


def test_other_weights_at_the_same_address_in_threads(target, place):
    """Threads free and allocate weights of one size at once: an address changes hands at any moment."""
    samples = [make_sample((2,), 60, 64, seed=seed).mapped(place) for seed in range(16)]
    expected = [sample.expected("linear") for sample in samples]
    failures: list[str] = []

    def work(thread: int) -> None:
        try:
            for turn in range(60):
                index = (7 * thread + turn) % len(samples)
                fresh = samples[index].replaced(weights=samples[index].weights.clone())
                if not torch.equal(fresh.call("linear").cpu(), expected[index]):
                    failures.append(f"thread {thread}, turn {turn}")
        except Exception as error:  # a thread's exception would vanish otherwise
            failures.append(f"thread {thread}: {error!r}")

    run_in_eight_threads(work)
    assert failures == []


@ROWS
def test_storage_emptied_and_filled_again(path, place, rows):
    """As FSDP does: the storage object lives on while its memory goes and other weights take the address."""
    emptied = []
    addresses = []
    for seed in range(300):  # until the allocator hands out an address again, which depends on its history
        sample = make_sample((rows,), 60, 64, seed=seed).mapped(place)
        addresses.append(sample.weights.data_ptr())
        path.check(sample, "linear")
        if seed % 2:
            weights = sample.weights
            weights.untyped_storage().resize_(0)
            emptied.append(weights)
        if seed >= 12 and len(set(addresses)) < len(addresses):
            break
    assert len(set(addresses)) < len(addresses), "the allocator never reused an address: nothing was tested"


@ROWS
def test_storage_replaced_under_the_same_tensor(path, place, rows):
    sample = make_sample((rows,), 32, 16, seed=3).mapped(place)
    path.check(sample)
    other = place(random_int8(torch.Generator().manual_seed(4), 16, 32))
    sample.weights.set_(other)
    path.check(sample.with_weights(sample.weights))


def test_one_weight_for_one_row_and_for_many(path, place):
    sample = make_sample((7,), 36, 20, seed=5).mapped(place)
    for rows in (1, 7, 1, 3, 1):
        path.check(sample.replaced(x=sample.x[:rows]))


@ROWS
def test_views_of_one_storage(path, place, rows):
    generator = torch.Generator().manual_seed(6)
    size = 24
    storage = place(random_int8(generator, 3 * size * size))
    square = storage[: size * size].view(size, size)
    views = {
        "whole": square,
        "transposed": square.t(),
        "next rows": storage[size : size + size * size].view(size, size),
        "odd offset": storage[1 : 1 + size * size].view(size, size),
        "every second row": storage[: 2 * size * size].view(2 * size, size)[::2],
        "fewer rows": square[:10],
        "other shape": storage[: size * size].view(size * 2, size // 2),
    }
    sample = make_sample((rows,), size, size, seed=7).mapped(place)
    for _ in range(2):
        for weights in views.values():
            columns, depth = weights.shape
            changed = make_sample((rows,), depth, columns, seed=8).mapped(place).with_weights(weights)
            path.check(changed)
    path.check(sample)


@ROWS
@pytest.mark.parametrize("name", ["weight_sums", "weight_scales", "bias"])
def test_other_vectors_with_the_same_weight(path, place, rows, name):
    sample = make_sample((rows,), 28, 18, seed=9, zero_points=(11, -4)).mapped(place)
    path.check(sample)
    changed = sample.replaced(**{name: getattr(sample, name).clone() * 2})
    assert not torch.equal(changed.expected("linear_dequant"), sample.expected("linear_dequant"))
    path.check(changed)
    path.check(sample)
    getattr(sample, name).mul_(3)
    path.check(sample)
    path.check(sample.replaced(bias=None))


@ROWS
def test_other_scalars_with_the_same_weight(path, place, rows):
    sample = make_sample((rows,), 28, 18, seed=10).mapped(place)
    for zero_point in (-128, -1, 0, 127):
        for scale in (0.5, 1.25):
            path.check(sample.replaced(input_zero_point=zero_point, input_scale=sample.input_scale * scale))
            path.check(
                sample.replaced(output_zero_point=zero_point, output_scale=sample.output_scale * scale)
            )


def test_one_weight_on_several_devices(target):
    sample = make_sample((3,), 32, 16, seed=11)
    for device in (target, "host", target):
        with q8ta_ops.use_device(device):
            for op in sample.ops():
                assert torch.equal(sample.call(op), sample.expected(op))


@ROWS
def test_inference_tensors(path, place, rows):
    with torch.inference_mode():
        sample = make_sample((rows,), 44, 22, seed=12).mapped(place)
        path.check(sample)
        # Inference tensors have no version: the documented way after an edit is an empty cache.
        sample.weights.neg_()
        q8ta_ops.clear_weight_cache()
        path.check(sample.with_weights(sample.weights))
    path.check(sample.with_weights(sample.weights))


def test_no_grad_and_parameters(path, place):
    sample = make_sample((2,), 16, 8, seed=13).mapped(place)
    weights = torch.nn.Parameter(sample.weights, requires_grad=False)
    with torch.no_grad():
        path.check(sample.replaced(weights=weights))
        weights.neg_()
        path.check(sample.with_weights(weights))


def test_clear_weight_cache_frees_and_keeps_working(path, place):
    q8ta_ops.clear_weight_cache()
    assert q8ta_ops.weight_cache_size() == 0
    sample = make_sample((4,), 70, 32, seed=14).mapped(place)
    path.check(sample)
    if path.id != "host":
        assert q8ta_ops.weight_cache_size() >= 70 * 32
    q8ta_ops.clear_weight_cache()
    assert q8ta_ops.weight_cache_size() == 0
    path.check(sample)


def test_dead_weights_leave_the_cache(path, place):
    q8ta_ops.clear_weight_cache()
    for seed in range(60):
        path.check(make_sample((2,), 90, 64, seed=seed, bias=False).mapped(place), "linear")
    one_weight = 96 * 64 + 4 * (64 + 64)
    assert q8ta_ops.weight_cache_size() <= 8 * one_weight


def test_one_weight_for_every_kernel_family(place):
    """Kernel families may order a packed weight differently: one's packing must not reach the other."""
    device = os.environ["Q8TA_DEVICE"]
    sample = make_sample((6,), 70, 45, seed=15).mapped(place)
    families = (("coopmat",), ("int_dot", "coopmat"), ("subgroup", "coopmat"), ("int_dot", "subgroup"), ())
    for disable in families * 2:
        with q8ta_ops.use_device(device, disable=disable if device != "host" else ()):
            for rows in (1, 6):
                changed = sample.replaced(x=sample.x[:rows])
                for op in changed.ops():
                    assert torch.equal(changed.call(op).cpu(), changed.expected(op)), (disable, rows, op)


def padded_rows(weights: torch.Tensor, padding: int) -> torch.Tensor:
    """The same int8 [N, K] weights in rows of a multiple of 16 bytes, with `padding` behind K."""
    N, K = weights.shape
    rows = torch.full((N, (K + 15) // 16 * 16), padding, dtype=torch.int8)
    rows[:, :K] = weights
    return rows[:, :K]


def without_room(weights: torch.Tensor) -> torch.Tensor:
    """Zero padding everywhere but behind the last row, where the storage ends."""
    N, K = weights.shape
    row_bytes = (K + 15) // 16 * 16
    storage = padded_rows(weights, 0).as_strided((N * row_bytes,), (1,))[: (N - 1) * row_bytes + K].clone()
    return storage.as_strided((N, K), (row_bytes, 1))


@ROWS
@pytest.mark.parametrize(
    ("K", "lay_out", "kernel"),
    [
        (21, lambda w: w, "pack/padded_rows"),
        (32, lambda w: w, "copy"),
        (32, lambda w: w.t().contiguous().t(), "pack/padded_rows"),
        (21, lambda w: padded_rows(w, 0), "copy"),
        (21, lambda w: padded_rows(w, 1), "pack/padded_rows"),
        (21, without_room, "pack/padded_rows"),
        (1, lambda w: padded_rows(w, 0), "copy"),
        (1, lambda w: padded_rows(w, -5), "pack/padded_rows"),
    ],
    ids=["unpadded", "K=32", "transposed", "zeros", "not zeros", "no room", "K=1 zeros", "K=1 not zeros"],
)
def test_rows_that_lie_as_kernels_read_them_are_copied(path, rows, K, lay_out, kernel):
    sample = make_sample((rows,), K, 24, seed=3)
    sample = sample.with_weights(lay_out(sample.weights))
    q8ta_ops.clear_weight_cache()
    with q8ta_ops.use_device(path.device, path.disable), q8ta_ops.profile() as profile:
        result = sample.call("linear")
    assert torch.equal(result, sample.expected("linear"))
    kernels = [dispatch.kernel for dispatch in profile.dispatches if dispatch.op == "weights"]
    assert kernels == ([] if path.id == "host" else [kernel])
    path.check(sample)
