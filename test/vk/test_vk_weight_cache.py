"""Packed weights of vk tensors are kept: the tests of test_weight_cache.py on vk, and the device's own.

Where K is a multiple of 16 and nothing else is in the way, kernels read the weights where they are, so most
of these samples have another K.
"""

from __future__ import annotations

import gc

import pytest
import torch
from samples import LinearSample, make_sample, random_int8
from test_weight_cache import (  # noqa: F401  collected here, on vk
    ROWS,
    test_clear_weight_cache_frees_and_keeps_working,
    test_dead_weights_leave_the_cache,
    test_inference_tensors,
    test_no_grad_and_parameters,
    test_one_weight_for_every_kernel_family,
    test_one_weight_for_one_row_and_for_many,
    test_other_scalars_with_the_same_weight,
    test_other_vectors_with_the_same_weight,
    test_other_weights_at_the_same_address,
    test_other_weights_at_the_same_address_in_threads,
    test_storage_emptied_and_filled_again,
    test_storage_replaced_under_the_same_tensor,
    test_views_of_one_storage,
    test_weights_edited_in_place,
)

import q8ta_ops


def packings(sample: LinearSample, calls: int = 1) -> int:
    """How often `calls` calls of linear pack the weights; their results are right."""
    with q8ta_ops.profile() as profile:
        results = [sample.call("linear") for _ in range(calls)]
    assert all(torch.equal(result.cpu(), sample.expected("linear")) for result in results)
    return sum(dispatch.op == "weights" for dispatch in profile.dispatches)


@ROWS
def test_packed_once(place, rows):
    sample = make_sample((rows,), 35, 19, seed=1).mapped(place)
    assert packings(sample, 5) == 1
    assert packings(sample.replaced(x=sample.x.clone()), 5) == 0
    assert packings(sample.replaced(weights=sample.weights.detach()), 2) == 0, (
        "the same memory, the same edits"
    )
    sample.weights[3].fill_(4)
    assert packings(sample.with_weights(sample.weights), 3) == 1
    q8ta_ops.clear_weight_cache()
    assert packings(sample.with_weights(sample.weights), 3) == 1
    assert packings(sample.with_weights(sample.weights.clone()), 3) == 1


@ROWS
def test_transposed_weights_are_packed_once(place, rows):
    sample = make_sample((rows,), 32, 32, seed=2).mapped(place)
    assert packings(sample, 2) == 0
    assert packings(sample.with_weights(sample.weights.t()), 4) == 1


def test_memory_of_packed_weights(place):
    """They take memory of the device while the weights live, and until the next packing at most."""
    q8ta_ops.clear_weight_cache()
    gc.collect()
    start = torch.vk.memory_allocated()
    sample = make_sample((2,), 1001, 64, seed=3).mapped(place)
    packings(sample)
    assert q8ta_ops.weight_cache_size() == 64 * 1008
    for seed in range(20):
        packings(make_sample((2,), 1001, 64, seed=seed).mapped(place))
    assert q8ta_ops.weight_cache_size() == 64 * 1008, "the dead ones are gone"
    del sample
    assert q8ta_ops.weight_cache_size() == 0
    assert torch.vk.memory_allocated() == start


def test_edited_while_calls_are_queued(place):
    """Each call sees the weights as they were when it was made, though none has been waited for."""
    sample = make_sample((3,), 37, 21, seed=4).mapped(place)
    generator = torch.Generator().manual_seed(5)
    results, expected = [], []
    for _ in range(30):
        weights = random_int8(generator, 21, 37)
        sample.weights.copy_(weights)
        changed = sample.with_weights(sample.weights)
        results.append(changed.call("linear"))
        expected.append(changed.replaced(weights=weights).expected("linear"))
    assert all(torch.equal(got.cpu(), want) for got, want in zip(results, expected, strict=True))


def test_slabs_of_one_weight(place):
    """Rows of one storage are weights of their own; an edit of all reaches each."""
    whole = place(random_int8(torch.Generator().manual_seed(6), 40, 37))
    sample = make_sample((2,), 37, 10, seed=7).mapped(place)
    for _ in range(2):
        for first in range(0, 40, 10):
            assert packings(sample.with_weights(whole[first : first + 10]), 2) == 1
        whole.neg_()


def test_a_model_moved_away_and_back():
    linear = torch.nn.Module()
    sample = make_sample((2,), 37, 12, seed=8)
    linear.register_buffer("weights", sample.weights)
    for _ in range(3):
        linear.to("vk")
        on_device = sample.mapped(lambda tensor: tensor.to("vk")).replaced(weights=linear.weights)
        assert packings(on_device, 2) == 1
        linear.to("cpu")


def captured(sample: LinearSample) -> tuple[torch.vk.Graph, torch.Tensor]:
    graph = torch.vk.Graph()
    with torch.vk.graph(graph):
        result = sample.call("linear")
    return graph, result


@ROWS
def test_a_graph_keeps_the_packed_weights_that_it_reads(place, rows):
    sample = make_sample((rows,), 37, 21, seed=9).mapped(place)
    packings(sample)
    graph, result = captured(sample)
    q8ta_ops.clear_weight_cache()
    others = [make_sample((rows,), 37, 21, seed=seed).mapped(place) for seed in range(5)]
    assert sum(packings(other) for other in others) == 5, "these take memory that is free"
    graph.replay()
    assert torch.equal(result.cpu(), sample.expected("linear"))


@ROWS
def test_what_a_graph_packs_is_its_own(place, rows):
    """It is packed when the graph runs: no call outside may take it for packed weights before."""
    sample = make_sample((rows,), 37, 21, seed=10).mapped(place)
    graph, result = captured(sample)
    assert packings(sample, 2) == 1
    graph.replay()
    assert torch.equal(result.cpu(), sample.expected("linear"))
    sample.weights.neg_()
    graph.replay()
    edited = sample.replaced(weights=sample.weights)  # the sums are in the graph, as they were
    assert torch.equal(result.cpu(), edited.expected("linear"))
    assert packings(edited, 2) == 1


@ROWS
@pytest.mark.parametrize("packed_before", [False, True])
def test_a_replay_reads_the_weights_as_they_are(place, rows, packed_before):
    """Whether they were edited in place, in place of one another, or where torch does not count."""
    sample = make_sample((rows,), 37, 21, seed=11).mapped(place)
    if packed_before:
        assert packings(sample) == 1
    graph, result = captured(sample)
    edits = (sample.weights.neg_, lambda: sample.weights[3:7].fill_(5), lambda: sample.weights.data.add_(1))
    for edit in edits:
        edit()
        graph.replay()
        # the sums are in the graph, as they were
        assert torch.equal(result.cpu(), sample.expected("linear"))


def test_a_graph_edits_weights(place):
    """Those that it has read before, and those that calls outside have packed."""
    sample, other = (make_sample((4,), 37, 21, seed=seed).mapped(place) for seed in (12, 13))
    graph = torch.vk.Graph()
    with torch.vk.graph(graph):
        before = sample.call("linear")
        sample.weights.copy_(other.weights)
        after = sample.call("linear")
    first = sample.expected("linear")
    assert packings(sample) == 1, "nothing has been edited yet"
    graph.replay()
    second = sample.expected("linear")
    assert not torch.equal(first, second)
    assert torch.equal(before.cpu(), first) and torch.equal(after.cpu(), second)
    assert packings(sample) == 1 and packings(sample) == 0
    graph.replay()
    assert torch.equal(before.cpu(), second) and torch.equal(after.cpu(), second)


def test_dead_packed_weights_are_freed_before_memory_runs_out(place):
    q8ta_ops.clear_weight_cache()
    gc.collect()
    torch.vk.empty_cache()
    start = torch.vk.memory_allocated()
    packings(make_sample((2,), 1001, 64, seed=14).mapped(place))
    gc.collect()
    assert torch.vk.memory_allocated() - start >= 64 * 1008, "the packed ones are still there"
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(1 << 50, dtype=torch.uint8, device="vk")
    assert torch.vk.memory_allocated() == torch.vk.memory_reserved() == start
