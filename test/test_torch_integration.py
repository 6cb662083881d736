"""The ops under torch.library.opcheck, torch.compile and torch.export."""

from __future__ import annotations

import io

import pytest
import torch
from reference import linear_dequant_ref, linear_ref, pack_ref
from samples import OPS, LinearSample, make_sample, random_int8, row_sums

LEADING = [(1,), (4,), (), (2, 3), (3, 1), (0,)]


def opcheck(op: str, arguments: tuple) -> None:
    report = torch.library.opcheck(getattr(torch.ops.q8ta, op).default, arguments)
    assert set(report.values()) == {"SUCCESS"} and len(report) >= 4


@pytest.mark.parametrize("leading", LEADING, ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_opcheck_linear_ops(place, leading, bias):
    sample = make_sample(leading, 21, 13, seed=1, bias=bias, activation="relu" if bias else "none")
    sample = sample.mapped(place)
    for op in sample.ops():
        opcheck(op, sample.arguments(op))


def test_opcheck_strided_inputs(target, place):
    sample = make_sample((5,), 16, 16, seed=2).mapped(place)
    strided = sample.replaced(x=sample.x.t().contiguous().t()).with_weights(sample.weights.t())
    opcheck("linear", strided.arguments("linear"))
    opcheck("linear_dequant", strided.arguments("linear_dequant"))


def test_opcheck_padded_vectors(place):
    sample = make_sample((1,), 8, 6, seed=3).mapped(place)
    pad = torch.nn.functional.pad
    padded = sample.replaced(
        weight_sums=pad(sample.weight_sums, (0, 2)),
        weight_scales=pad(sample.weight_scales, (0, 2)),
        bias=pad(sample.bias, (0, 2)),
    )
    for op in padded.ops():
        opcheck(op, padded.arguments(op))


@pytest.mark.parametrize("op", OPS)
def test_opcheck_autograd_registration(place, op):
    sample = make_sample((1,), 8, 6, seed=5).mapped(place)
    arguments = sample.replaced(bias=sample.bias.clone().requires_grad_()).arguments(op)
    function = getattr(torch.ops.q8ta, op).default
    report = torch.library.opcheck(function, arguments, test_utils="test_autograd_registration")
    assert report == {"test_autograd_registration": "SUCCESS"}


@pytest.mark.parametrize("layout", [4, 5])
@pytest.mark.parametrize("sizes", [(5, 7), (2, 3, 8), (0, 4)], ids=str)
def test_opcheck_pack_and_unpack(place, layout, sizes):
    x = random_int8(torch.Generator().manual_seed(4), *sizes)
    opcheck("pack", (place(x), layout))
    opcheck("unpack", (place(pack_ref(x, layout)), layout, list(sizes)))


class Chain(torch.nn.Module):
    """float [B, 24] -> quantize -> linear + relu -> linear_dequant -> float [B, 10]."""

    SCALES = (0.02, 0.3)
    ZERO_POINTS = (-3, 11)

    def __init__(self, reference: bool = False) -> None:
        super().__init__()
        self.reference = reference
        for name, depth, columns in (("first", 24, 18), ("second", 18, 10)):
            made: LinearSample = make_sample((1,), depth, columns, seed=columns)
            self.register_buffer(f"{name}_weights", made.weights)
            self.register_buffer(f"{name}_sums", row_sums(made.weights))
            self.register_buffer(f"{name}_scales", made.weight_scales)
            self.register_buffer(f"{name}_bias", made.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        linear = linear_ref if self.reference else torch.ops.q8ta.linear
        linear_dequant = linear_dequant_ref if self.reference else torch.ops.q8ta.linear_dequant
        (in_scale, mid_scale), (in_zero, mid_zero) = self.SCALES, self.ZERO_POINTS
        quantized = torch.clamp(torch.round(x / in_scale) + in_zero, -128, 127).to(torch.int8)
        first = (self.first_weights, self.first_sums, self.first_scales)
        second = (self.second_weights, self.second_sums, self.second_scales)
        hidden = linear(quantized, in_scale, in_zero, *first, mid_scale, mid_zero, self.first_bias, "relu")
        return linear_dequant(hidden, mid_scale, mid_zero, *second, self.second_bias, "none") * 0.5

    def targets(self) -> set[object]:
        return {torch.ops.q8ta.linear.default, torch.ops.q8ta.linear_dequant.default}


def batch(rows: int) -> torch.Tensor:
    return torch.randn(rows, 24, generator=torch.Generator().manual_seed(rows))


def quantized_batch(rows: int) -> torch.Tensor:
    """Inputs on the quantization grid, so that Inductor's own rounding of x / scale cannot matter."""
    steps = torch.randint(-100, 100, (rows, 24), generator=torch.Generator().manual_seed(rows))
    return steps * Chain.SCALES[0]


needs_inductor = pytest.mark.skipif(
    " " in torch.__path__[0], reason="Inductor (torch 2.13) does not quote torch's path for its C++ compiler"
)


@needs_inductor
@pytest.mark.timeout(240)
@pytest.mark.parametrize("rows", [1, 6])
def test_compile_static(target, rows):
    torch._dynamo.reset()
    compiled = torch.compile(Chain(), fullgraph=True, backend="inductor", dynamic=False)
    x = quantized_batch(rows)
    assert torch.equal(compiled(x), Chain(reference=True)(x))


@needs_inductor
@pytest.mark.timeout(240)
def test_compile_dynamic_batch(target):
    torch._dynamo.reset()
    compiled = torch.compile(Chain(), fullgraph=True, backend="inductor", dynamic=True)
    first = quantized_batch(5)
    torch._dynamo.mark_dynamic(first, 0)
    assert torch.equal(compiled(first), Chain(reference=True)(first))
    with torch._dynamo.config.patch(error_on_recompile=True):
        for rows in (2, 17, 64):
            x = quantized_batch(rows)
            assert torch.equal(compiled(x), Chain(reference=True)(x))


@needs_inductor
@pytest.mark.timeout(240)
def test_compile_gemv_and_pack(target, place):
    torch._dynamo.reset()
    sample = make_sample((1,), 16, 8, seed=7).mapped(place)

    def run(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        arguments = sample.replaced(x=x).arguments("linear_gemv")
        words = torch.ops.q8ta.pack(x, 4)
        return torch.ops.q8ta.linear_gemv(*arguments), torch.ops.q8ta.unpack(words, 4, [1, 16])

    result, unpacked = torch.compile(run, fullgraph=True, backend="inductor")(sample.x)
    assert torch.equal(result.cpu(), sample.expected("linear_gemv"))
    assert torch.equal(unpacked.cpu(), sample.x.cpu())


def graph_targets(program: torch.export.ExportedProgram) -> list[object]:
    return [node.target for node in program.graph.nodes if node.op == "call_function"]


def test_export_with_a_dynamic_batch_saved_and_loaded(target):
    module = Chain()
    shapes = {"x": {0: torch.export.Dim("batch", min=1, max=4096)}}
    program = torch.export.export(module, (batch(4),), dynamic_shapes=shapes)
    stored = io.BytesIO()
    torch.export.save(program, stored)
    stored.seek(0)
    loaded = torch.export.load(stored)
    for held in (program, loaded, program.run_decompositions({})):
        assert module.targets() <= set(graph_targets(held))
        assert not {torch.ops.aten.linear.default, torch.ops.aten.mm.default} & set(graph_targets(held))
        run = held.module()
        for rows in (1, 2, 7, 33):
            assert torch.equal(run(batch(rows)), Chain(reference=True)(batch(rows)))


def test_export_of_a_single_row(place):
    sample = make_sample((1,), 16, 8, seed=8).mapped(place)

    class Gemv(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.q8ta.linear_gemv(*sample.replaced(x=x).arguments("linear_gemv"))

    program = torch.export.export(Gemv(), (sample.x,))
    assert torch.ops.q8ta.linear_gemv.default in graph_targets(program)
    assert torch.equal(program.module()(sample.x).cpu(), sample.expected("linear_gemv"))


@pytest.mark.parametrize(
    ("op", "tail"),
    [
        ("linear", 'float output_scale, int output_zero_point, Tensor? bias=None, str activation="none"'),
        (
            "linear_gemv",
            'float output_scale, int output_zero_point, Tensor? bias=None, str activation="none"',
        ),
        ("linear_dequant", 'Tensor? bias=None, str activation="none"'),
    ],
)
def test_schema_is_the_published_one(op, tail):
    expected = (
        f"q8ta::{op}(Tensor x, float input_scale, int input_zero_point, Tensor weights, Tensor weight_sums, "
        f"Tensor weight_scales, {tail}) -> Tensor"
    )
    assert str(getattr(torch.ops.q8ta, op).default._schema) == expected


def test_defaults_and_keywords(target, place):
    sample = make_sample((2,), 9, 5, seed=9, bias=False).mapped(place)
    positional = sample.arguments("linear")[:8]
    assert torch.equal(torch.ops.q8ta.linear(*positional).cpu(), sample.expected("linear"))
    bias = place(torch.arange(5.0))
    changed = sample.replaced(bias=bias, activation="relu")
    by_name = torch.ops.q8ta.linear(*positional, activation="relu", bias=bias)
    assert torch.equal(by_name.cpu(), changed.expected("linear"))
