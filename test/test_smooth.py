"""Smoothing: exact for the float model, even channels afterwards, and worth it once quantized."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

pytest.importorskip("torchao")

from models import q8ta_targets  # noqa: E402

import q8ta_ops  # noqa: E402
from q8ta_ops.smooth import smooth_inputs, smoothing_divisors  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")

BATCH = ({0: torch.export.Dim("batch")},)


class Block(nn.Module):
    """Two linears behind one normalization with outlier channels, a gelu, another linear, a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(24)
        self.left, self.right, self.down = nn.Linear(24, 40), nn.Linear(24, 40), nn.Linear(40, 24)
        with torch.no_grad():
            self.norm.weight[5] *= 90.0
            self.norm.weight[17] *= 0.02
            for linear in (self.left, self.right):  # all channels matter alike, as in a trained model
                linear.weight[:, 5] /= 90.0

    def forward(self, x: Tensor) -> Tensor:
        normal = self.norm(x)
        return normal + self.down(nn.functional.gelu(self.left(normal)) * self.right(normal))


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(24, 24), nn.Linear(24, 24)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu().reshape(-1, 24))


class Tied(Chain):
    def __init__(self) -> None:
        super().__init__()
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).tanh())


class Overwritten(Chain):
    """The second linear reads the same tensor, but after it has changed."""

    def forward(self, x: Tensor) -> Tensor:
        shared = x * 1.0
        first = self.first(shared)
        shared.add_(1.0)
        return first + self.second(shared)


@pytest.fixture(autouse=True)
def fixed_weights() -> None:
    torch.manual_seed(5)


def data(rows: int = 32, seed: int = 0) -> Tensor:
    return torch.randn(rows, 24, generator=torch.Generator().manual_seed(seed))


def smoothed(
    model: nn.Module, strength: float = 0.8, without: tuple[str, ...] = (), count: int | None = None
) -> GraphModule:
    """The exported model after smoothing, which inserted `count` multiplications."""
    module = torch.export.export(model.eval(), (data(),), dynamic_shapes=BATCH).module()
    inserted = smooth_inputs(
        module,
        strength,
        lambda: [module(data(rows, seed)) for seed, rows in enumerate((32, 0, 8))],
        lambda linear: linear.args[1].target.partition(".")[0] not in without,
    )
    buffers = [name for name, _ in module.named_buffers() if name.startswith("q8ta_smoothing")]
    assert inserted == len(buffers) and (count is None or inserted == count)
    return module


@pytest.mark.parametrize("strength", [0.0, 0.5, 0.8, 1.0])
def test_no_bit_of_the_float_model_changes(strength: float) -> None:
    model = Block()
    module = smoothed(model, strength, count=2)
    for rows in (1, 5, 32):
        assert torch.equal(module(data(rows, seed=9)), model(data(rows, seed=9)))


def test_the_model_keeps_its_weights_and_the_result_only_its_own() -> None:
    model = Block()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    module = smoothed(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    left = [
        name for name, tensor in [*module.named_parameters(), *module.named_buffers()] if tensor.dim() == 2
    ]
    assert len(left) == 3 and all(name.startswith("q8ta_smoothed_weight") for name in left)
    assert not any("ranges" in name for name, _ in module.named_modules())


def test_divisors_are_powers_of_two_of_the_geometric_mean() -> None:
    largest = torch.tensor([8.0, 1.0, 0.25, 0.0, 3.0, float("nan"), 2.0])
    weights = [
        torch.tensor([[1.0, -1.0, 1.0, 1.0, 0.0, 1.0, 0.5], [0.125] * 4 + [0.0, 0.125, 0.125]]),
        torch.full((2, 7), 0.25) * (largest != 3.0),
    ]
    # 8 ** 0.5 = 2 ** 1.5: rounds to even; a channel or a column of zeros, or NaN, is left alone.
    assert smoothing_divisors(largest, weights, 0.5).tolist() == [4.0, 1.0, 0.5, 1.0, 1.0, 1.0, 2.0]
    assert smoothing_divisors(largest, weights, 1.0).tolist() == [8.0, 1.0, 0.25, 1.0, 1.0, 1.0, 2.0]
    assert smoothing_divisors(largest, weights, 0.0).tolist() == [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0]


def test_full_strength_makes_channels_equally_large() -> None:
    model = Block()
    module = smoothed(model, 1.0)
    x = torch.cat([data(32, 0), data(8, 2)])
    largest = (model.norm(x) * module.q8ta_smoothing_0).abs().amax(dim=0)
    assert largest.min() >= 2**-0.5 and largest.max() <= 2**0.5
    assert model.norm(x).abs().amax(dim=0).max() > 50


def test_linears_that_read_one_tensor_share_its_multiplication() -> None:
    module = smoothed(Block())
    linears = [node for node in module.graph.nodes if "linear" in str(node.target)]
    assert linears[0].args[0] is linears[1].args[0] is not linears[2].args[0]


def test_inside_a_chain_of_linears_nothing_is_inserted() -> None:
    module = smoothed(Chain(), count=1)
    left = {name for name, tensor in module.named_parameters() if tensor.dim() == 2}
    assert left == {"second.weight"}


def test_a_weight_that_several_inputs_meet_is_left_alone() -> None:
    smoothed(Tied(), count=0)


def test_an_input_that_the_graph_writes_to_is_left_alone() -> None:
    model = Overwritten()
    module = smoothed(model, count=0)
    assert torch.equal(module(data()), model(data()))


def test_only_wanted_linears_change() -> None:
    module = smoothed(Block(), without=("left", "down"), count=1)
    left = {name for name, tensor in module.named_parameters() if tensor.dim() == 2}
    assert left == {"left.weight", "down.weight"}


def quantized(model: nn.Module, **options: Any) -> torch.export.ExportedProgram:
    calibration = (data(16, seed) for seed in range(8))  # can be read only once
    return q8ta_ops.quantize(model, data(), calibration, BATCH, **options)


def test_quantizing_loses_less() -> None:
    model = Block()
    expected = model(data(seed=9))
    plain, smooth = (
        (quantized(model, smooth=strength).module()(data(seed=9)) - expected).square().mean()
        for strength in (None, 0.8)
    )
    assert smooth < plain / 4


def test_quantize_smooths_what_it_quantizes() -> None:
    model = Block()
    program = quantized(model, smooth=0.8, float_modules=["left", "right"])
    assert q8ta_targets(program) == ["linear_dequant"]
    factors = [name for name in program.state_dict if name.startswith("q8ta_smoothing")]
    assert len(factors) == 1 and program.state_dict[factors[0]].shape == (40,)
    floats = {
        name for name, value in program.state_dict.items() if value.dim() == 2 and value.is_floating_point()
    }
    assert floats == {"left.weight", "right.weight"}


def test_int8_still_goes_from_linear_to_linear() -> None:
    assert q8ta_targets(quantized(Chain(), smooth=0.8)) == ["linear", "linear_dequant"]


def test_a_buffer_that_calibration_writes_to_is_restored() -> None:
    class Counting(Block):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(x) + self.calls

    model = Counting()
    program = quantized(model, smooth=0.8)
    assert model.calls == 0 and program.state_dict["calls"] == 0


@pytest.mark.parametrize("strength", [-0.1, 1.5, float("nan")])
def test_a_strength_outside_of_0_to_1_is_an_error(strength: float) -> None:
    with pytest.raises(ValueError, match="smooth: expected None or a number from 0 to 1, got"):
        quantized(Chain(), smooth=strength)


def test_what_is_wrong_with_a_batch_is_said_all_the_same() -> None:
    with pytest.raises(ValueError, match="calibration: batch 1 does not run"):
        q8ta_ops.quantize(Block(), data(), [data(), data()[:, :3]], BATCH, smooth=0.8)
    with pytest.raises(ValueError, match="calibration: expected at least one batch"):
        q8ta_ops.quantize(Block(), data(), [], BATCH, smooth=0.8)
