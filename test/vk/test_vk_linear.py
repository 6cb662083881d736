"""The q8ta operators on vk tensors equal the reference in every bit, on every forced path of the kernels."""

from __future__ import annotations

import pytest
import torch
from same import to_vk
from samples import (
    OPS,
    PULL_REQUEST_SHAPES,
    LinearSample,
    make_sample,
    orthogonal_grid,
    random_int8,
    round_up_to_4,
)
from test_linear_inputs import non_contiguous_forms, tie_sample

import q8ta_ops

PATHS = ["subgroup-dot", "subgroup-plain", "shared-dot", "shared-plain"]
on_each_path = pytest.mark.parametrize("path", PATHS, indirect=True)
TENSORS = ("x", "weights", "weight_sums", "weight_scales", "bias")


def call(op: str, sample: LinearSample) -> torch.Tensor:
    return getattr(torch.ops.q8ta, op)(
        *(to_vk(value) if isinstance(value, torch.Tensor) else value for value in sample.arguments(op))
    )


def check(sample: LinearSample, *ops: str) -> None:
    for op in ops or sample.ops():
        expected = sample.expected(op)
        result = call(op, sample)
        assert result.is_vk and result.is_contiguous()
        assert (result.dtype, result.shape) == (expected.dtype, expected.shape)
        brought = result.cpu()
        assert torch.equal(brought, expected), f"{op}: {(brought != expected).sum()} elements differ"


@on_each_path
@pytest.mark.parametrize("shape", [s for s in PULL_REQUEST_SHAPES if s[0] * s[1] * s[2] < 1 << 24], ids=str)
def test_pull_request_shapes(path, shape):
    rows, depth, columns = shape
    for seed, (bias, activation) in enumerate([(True, "relu"), (False, "none")]):
        check(make_sample((rows,), depth, columns, seed=seed, bias=bias, activation=activation))


@on_each_path
@pytest.mark.parametrize("part", range(4))
def test_size_grid(path, part):
    for seed, (rows, depth, columns) in enumerate(orthogonal_grid()):
        if seed % 4 == part:
            check(
                make_sample(
                    (rows,),
                    depth,
                    columns,
                    seed,
                    bias=seed % 3 == 0,
                    activation="relu" if seed % 2 else "none",
                )
            )


@on_each_path
@pytest.mark.parametrize(
    "leading", [(), (1,), (3, 4), (3, 1), (2, 3, 5), (1, 1, 1), (0,), (3, 0), (0, 2)], ids=str
)
def test_leading_sizes(path, leading):
    check(make_sample(leading, 37, 19, seed=len(leading)))


@on_each_path
@pytest.mark.parametrize("rows", [1, 6])
def test_strides_of_x_and_weights(path, rows):
    sample = make_sample((rows,), 45, 21, seed=rows)
    for x in non_contiguous_forms(sample.x).values():
        check(sample.replaced(x=x))
    for weights in non_contiguous_forms(sample.weights).values():
        check(sample.replaced(weights=weights))


@on_each_path
def test_any_storage_offset(path):
    sample = make_sample((3,), 20, 12, seed=3)
    for offset in (1, 2, 3, 4, 5, 7, 16, 17, 64):

        def shifted(tensor: torch.Tensor, offset: int = offset) -> torch.Tensor:
            room = torch.full((tensor.numel() + offset,), 99).to(tensor.dtype)
            room[offset:] = tensor.reshape(-1)
            return room[offset:].view(tensor.shape)

        changed = sample.replaced(**{name: shifted(getattr(sample, name)) for name in TENSORS})
        check(changed)
        check(changed.replaced(x=shifted(sample.x[:1])))


@on_each_path
def test_views_of_results_are_inputs(path):
    """Chains whose tensors are views of others, as a model's are."""
    first = make_sample((6,), 24, 32, seed=1)
    y = call("linear", first)
    for x, expected in (
        (y[1:4], first.expected("linear")[1:4]),
        (y[:, 3:19], first.expected("linear")[:, 3:19]),
    ):
        second = make_sample((x.shape[0],), x.shape[1], 10, seed=2).replaced(x=expected.contiguous())
        arguments = [a.to("vk") if isinstance(a, torch.Tensor) else a for a in second.arguments("linear")]
        assert torch.equal(torch.ops.q8ta.linear(x, *arguments[1:]).cpu(), second.expected("linear"))


@on_each_path
def test_strides_of_sums_scales_and_bias(path):
    sample = make_sample((3,), 20, 11, seed=9)
    names = ("weight_sums", "weight_scales", "bias")
    strided = {name: torch.stack([getattr(sample, name)] * 3, dim=1)[:, 1] for name in names}
    check(sample.replaced(**strided))
    check(sample.replaced(x=sample.x[0, :1].expand(4, 20)))
    check(sample.with_weights(sample.weights[:1].expand(11, 20)))


@on_each_path
@pytest.mark.parametrize("columns", [1, 2, 3, 5, 33])
def test_padding_of_sums_scales_and_bias_is_never_used(path, columns):
    sample = make_sample((3,), 20, columns, seed=columns)
    extra = round_up_to_4(columns) - columns
    tails = {
        "weight_sums": torch.full((extra,), -(2**31), dtype=torch.int32),
        "weight_scales": torch.full((extra,), float("nan")),
        "bias": torch.full((extra,), float("inf")),
    }
    padded = {name: torch.cat([getattr(sample, name), tail]) for name, tail in tails.items()}
    for changes in (padded, *({name: tensor} for name, tensor in padded.items())):
        check(sample.replaced(**changes))
        check(sample.replaced(**changes, x=sample.x[:1]))


@on_each_path
@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("points", [(-128, -128), (127, 127), (0, 0), (-128, 127)], ids=str)
def test_zero_points_and_extremes(path, rows, points):
    sample = make_sample((rows,), 67, 35, seed=5, zero_points=points)
    check(sample)
    lowest = sample.with_weights(torch.full_like(sample.weights, -128))
    check(lowest.replaced(x=torch.full_like(sample.x, -128)))


@on_each_path
@pytest.mark.parametrize("rows", [1, 256])
def test_ties_round_to_even(path, rows):
    for zero_point in (0, 5, -6):
        check(tie_sample(rows, 1.0, zero_point))


@on_each_path
@pytest.mark.parametrize("rows", [1, 2])
def test_longest_rows(path, rows):
    sample = make_sample((rows,), 65793, 5, seed=6, zero_points=(-128, 3))
    check(sample)
    check(
        sample.with_weights(torch.full_like(sample.weights, 127)).replaced(x=torch.full_like(sample.x, 127))
    )


@on_each_path
def test_edited_weights_are_seen(path):
    """Nothing about a tensor's content is remembered."""
    sample = make_sample((2,), 30, 9, seed=8)
    arguments = [to_vk(a) if isinstance(a, torch.Tensor) else a for a in sample.arguments("linear")]
    assert torch.equal(torch.ops.q8ta.linear(*arguments).cpu(), sample.expected("linear"))
    changed = sample.with_weights(random_int8(torch.Generator().manual_seed(4), 9, 30))
    arguments[3].copy_(changed.weights)
    arguments[4].copy_(changed.weight_sums)
    assert torch.equal(torch.ops.q8ta.linear(*arguments).cpu(), changed.expected("linear"))


def test_inputs_are_not_modified():
    sample = make_sample((3,), 30, 14, seed=14)
    for op in sample.ops():
        arguments = [to_vk(a) if isinstance(a, torch.Tensor) else a for a in sample.arguments(op)]
        getattr(torch.ops.q8ta, op)(*arguments).fill_(1)
        for argument, before in zip(arguments, sample.arguments(op), strict=True):
            if isinstance(argument, torch.Tensor):
                assert torch.equal(argument.cpu(), before) and argument._version == 0


def test_many_queued_before_anyone_waits():
    """More work than a batch holds, results kept: the last one is right, and so is the first."""
    samples = [make_sample((2,), 33, 17, seed=seed) for seed in range(8)]
    results = [(sample, call("linear", sample)) for _ in range(40) for sample in samples]
    assert all(torch.equal(result.cpu(), sample.expected("linear")) for sample, result in reversed(results))


def test_a_chain_stays_on_the_device():
    layers = [
        make_sample((4,), 32, 32, seed=seed, zero_points=(0, 0), activation="relu") for seed in range(20)
    ]
    x = layers[0].x
    y = x.to("vk")
    moved = [[to_vk(a) if isinstance(a, torch.Tensor) else a for a in s.arguments("linear")] for s in layers]
    torch.vk.reset_fallbacks()
    for layer, arguments in zip(layers, moved, strict=True):
        x = layer.replaced(x=x).expected("linear")
        y = torch.ops.q8ta.linear(y, *arguments[1:])
    assert torch.vk.fallbacks() == {} and torch.equal(y.cpu(), x)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("name", TENSORS)
def test_mixed_devices_name_the_argument(op, name):
    sample = make_sample((1,), 12, 6, seed=1)
    names = ("x", None, None, "weights", "weight_sums", "weight_scales")
    names += ("bias",) if op == "linear_dequant" else (None, None, "bias")
    arguments = list(sample.arguments(op))
    for index, argument in enumerate(names):
        if argument is not None and argument != name:
            arguments[index] = arguments[index].to("vk")
    # One on vk among CPU tensors, too: whichever is not where x is.
    wanted = r"\b(weights|weight_sums|weight_scales|bias)\b" if name == "x" else rf"\b{name}\b"
    with pytest.raises(RuntimeError, match=wanted) as raised:
        getattr(torch.ops.q8ta, op)(*arguments)
    assert "vk:0" in str(raised.value) and "cpu" in str(raised.value)
    alone = list(sample.arguments(op))
    alone[names.index(name)] = alone[names.index(name)].to("vk")
    with pytest.raises(RuntimeError, match=wanted):
        getattr(torch.ops.q8ta, op)(*alone)
    assert torch.equal(call(op, sample).cpu(), sample.expected(op))


MISTAKES = {
    "x": lambda s: {"x": s.x.to(torch.int32)},
    "weights": lambda s: {"weights": s.weights.float()},
    "weight_sums": lambda s: {"weight_sums": s.weight_sums.long()},
    "weight_scales": lambda s: {"weight_scales": s.weight_scales[:3]},
    "bias": lambda s: {"bias": s.bias[None]},
    "input_scale": lambda s: {"input_scale": float("nan")},
    "input_zero_point": lambda s: {"input_zero_point": 128},
    "activation": lambda s: {"activation": "gelu"},
}


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("name", MISTAKES)
def test_wrong_arguments_are_named(op, name):
    sample = make_sample((1,), 12, 6, seed=1)
    with pytest.raises((RuntimeError, ValueError, TypeError), match=rf"\b{name}\b"):
        call(op, sample.replaced(**MISTAKES[name](sample)))
    assert torch.equal(call(op, sample).cpu(), sample.expected(op))


def test_gemv_with_more_rows_is_an_error():
    for leading in ((2,), (0,), (2, 1)):
        with pytest.raises(RuntimeError, match=r"\bx\b"):
            call("linear_gemv", make_sample(leading, 12, 6))


def test_the_namespace_never_falls_back_silently():
    """An operator without a kernel refuses vk tensors instead of computing somewhere else."""
    library = torch.library.Library("q8ta", "FRAGMENT")
    library.define("only_in_this_test(Tensor x) -> Tensor")
    library.impl("only_in_this_test", lambda x: x + 1, "CPU")
    assert torch.ops.q8ta.only_in_this_test(torch.ones(1)) == 2
    with pytest.raises(NotImplementedError, match="only_in_this_test has no kernel for the vk device"):
        torch.ops.q8ta.only_in_this_test(torch.ones(1, device="vk"))


@pytest.mark.parametrize(
    ("op", "rows", "columns"), [("linear_dequant", 180, 200_000), ("linear", 260, 600_001)]
)
def test_a_result_that_no_binding_holds(op, rows, columns):
    """y has more than 128 MiB, the smallest maxStorageBufferRange that Vulkan allows."""
    sample = make_sample((rows,), 4, columns, seed=8)
    arguments = sample.arguments(op)
    function = getattr(torch.ops.q8ta, op).default
    with q8ta_ops.use_device("host"):
        expected = function(*arguments)
    result = function(*[each.to("vk") if isinstance(each, torch.Tensor) else each for each in arguments])
    assert expected.nbytes > 128 << 20
    assert torch.equal(result.cpu(), expected)
    torch.vk.empty_cache()
