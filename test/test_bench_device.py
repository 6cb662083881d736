"""What the benchmark measures on a device computes the right thing, and nothing wrong is timed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import linear_dequant_ref, linear_ref

import q8ta_ops
from q8ta_ops.__main__ import main as command_line
from q8ta_ops.bench import command_line as bench_command
from q8ta_ops.bench import cuda, roofs, vulkan
from q8ta_ops.bench import run as bench_run
from q8ta_ops.bench.samples import Sample, WrongResult
from q8ta_ops.bench.settings import quick_settings
from q8ta_ops.bench.shapes import LINEAR, PULL_REQUEST, QUICK_SHAPES, SECTIONS, Shape
from q8ta_ops.bench.spread import Absent, Contestant, take_turns

SETTINGS = quick_settings()
# One and several workgroups, the edges of 4x4 blocks, of 8 columns, of 64 threads along K, of 32 rows.
SHAPES = [
    Shape(*sizes)
    for sizes in (
        (1, 1, 1),
        (1, 3, 9),
        (1, 256, 8),
        (1, 260, 12),
        (1, 300, 70),
        (2, 5, 7),
        (4, 64, 64),
        (5, 30, 65),
        (33, 17, 130),
        (64, 128, 8),
    )
]

needs_device = pytest.mark.skipif(os.environ["Q8TA_DEVICE"] == "host", reason="the session has no device")


def expected_by_reference(sample: Sample, float_output: bool = False) -> torch.Tensor:
    if float_output:
        return linear_dequant_ref(*sample.arguments("linear_dequant"))
    return linear_ref(*sample.arguments())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_expected_results_are_those_of_the_reference(shape: Shape) -> None:
    sample = Sample(shape)
    assert torch.equal(sample.expected, expected_by_reference(sample))
    assert torch.equal(sample.expected_float, expected_by_reference(sample, float_output=True))


def test_samples_use_the_range_of_int8() -> None:
    values = Sample(Shape(16, 512, 256)).expected.unique()
    assert len(values) > 100 and values.max() > 100


@needs_device
@pytest.mark.parametrize("disable", [(), ("int_dot",)], ids=["all", "plain"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pull_request_kernels(shape: Shape, disable: tuple[str, ...]) -> None:
    sample = Sample(shape)
    sample.expected = expected_by_reference(sample)
    with q8ta_ops.use_device(os.environ["Q8TA_DEVICE"], disable=disable):
        contestant = vulkan.pull_request(PULL_REQUEST, sample, SETTINGS)
    assert contestant.details["checked"] == "equal"
    (command,) = contestant.details["commands"]
    assert command["kernel"] == ("pull_request/gemv" if shape.M == 1 else "pull_request/gemm")


@needs_device
@pytest.mark.parametrize("float_output", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ours(shape: Shape, float_output: bool) -> None:
    sample = Sample(shape)
    sample.expected = expected_by_reference(sample)
    sample.expected_float = expected_by_reference(sample, float_output=True)
    assert vulkan.linear(LINEAR, sample, SETTINGS, float_output).details["checked"] == "equal"
    assert vulkan.exact_results(sample, 2, float_output)[0] == 2


@needs_device
@pytest.mark.parametrize("make", [vulkan.linear, vulkan.pull_request])
def test_a_wrong_result_is_caught(make: Any) -> None:
    sample = Sample(Shape(3, 20, 30))
    sample.expected = sample.expected.clone()
    sample.expected[1, 7] += 1
    with pytest.raises(WrongResult, match=r"1 of 90 values differ, the first at \(1, 7\)"):
        make("name", sample, SETTINGS)


@needs_device
def test_a_wrong_result_is_never_timed(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Whatever disagrees with the host kernel: reported, without times, and the command fails."""

    class Wrong(Sample):
        @property
        def expected(self) -> torch.Tensor:
            return super().expected ^ 1

    timed: list[str] = []

    def record(contestants: list[Contestant], samples: int, warm_up: int = 1) -> None:
        timed.extend(each.name for each in contestants)
        take_turns(contestants, samples, warm_up)

    monkeypatch.setattr(bench_run, "Sample", Wrong)
    monkeypatch.setattr(bench_run, "take_turns", record)
    assert bench_command.main(["--quick", "--only", "gemv", "--shapes", "1x40x20"]) == 1
    assert LINEAR not in timed and PULL_REQUEST not in timed and "q8ta linear_dequant" in timed
    output = capsys.readouterr().out
    assert f"WRONG RESULT, not timed: {LINEAR}: 20 of 20 values differ" in output


@needs_device
def test_wrong_repeats_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([3, 2])
    monkeypatch.setattr(vulkan, "exact_results", lambda *_, **__: (next(answers), ["kernel"]))
    settings = replace(SETTINGS, sections=("exact",), shapes={"exact": (Shape(1, 8, 8),)})
    document = bench_run.Run(settings, lambda _: None).measure()
    assert [row["equal"] for row in document["results"][0]["contestants"]] == [3, 2]
    assert document["wrong"] == ["q8ta linear_dequant 1x8x8: 1 of 3 results were wrong"]


@needs_device
def test_kernels_alone_take_the_packing_out() -> None:
    contestant = vulkan.linear(LINEAR, Sample(Shape(40, 64, 96)), SETTINGS)
    moves = [row for row in contestant.details["commands"] if "pack" in row["kernel"]]
    take_turns([contestant], samples=1, warm_up=0)
    assert ("kernels" in contestant.spreads) == (len(contestant.details["commands"]) > 1)
    assert len(moves) < len(contestant.details["commands"])


@needs_device
def test_weights_take_turns_through_enough_copies() -> None:
    settings = replace(SETTINGS, rotate_bytes=10_000, most_copies=100)
    assert vulkan.copies_for(1000, settings) == 10
    assert vulkan.copies_for(1_000_000, settings) == 2  # never one alone
    assert vulkan.copies_for(10, settings) == 100
    contestant = vulkan.linear(LINEAR, Sample(Shape(1, 50, 20)), settings)
    assert contestant.details["weight_copies"] == 10


@needs_device
@pytest.mark.parametrize("access", roofs.READ_ACCESSES)
@pytest.mark.parametrize("size", [16, 4096, 100_000])
def test_the_reading_roof_reads_everything(access: tuple[int, int], size: int) -> None:
    made = roofs._read("read", 3 * size, size, access, SETTINGS)
    assert made.details["checked"] == "equal" and made.details["windows"] >= 1


@needs_device
def test_roofs_are_all_there() -> None:
    measured = roofs.measure_roofs(SETTINGS, Absent("cuda", "planted"))
    names = {each["name"] for each in measured.contestants}
    assert {"empty dispatch", "read", "dot4", "vkCmdCopyBuffer", "copy by a shader"} <= names
    assert all(each["checked"] == "equal" for each in measured.contestants)
    assert min(measured.copy_gb_s, measured.read_gb_s, measured.tops, measured.empty_us) > 0
    assert Absent("cuda", "planted") in measured.absent
    # 1000 bytes or 500 multiply-adds, whichever takes longer.
    measured.copy_gb_s, measured.tops = 1.0, 1.0
    assert measured.time_us(1000, 500) == pytest.approx(1.0)
    assert measured.time_us(10, 5_000_000) == pytest.approx(10.0)


def test_cuda_opponents_without_cuda_are_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    present, absent = cuda.opponents(Sample(Shape(1, 8, 8)), SETTINGS, "any")
    assert present == [] and [each.name for each in absent] == list(cuda.OPPONENTS)
    assert isinstance(cuda.copy_roof(SETTINGS, "any"), Absent)


@pytest.fixture
def cuda_calls_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's opponents as plain calls on CPU tensors: what they compute is the same."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(
        cuda,
        "_contestant",
        lambda name, call, weights, checked, _: Contestant(name, [], {"checked": checked}),
    )


@pytest.mark.parametrize("shape", [Shape(1, 64, 32), Shape(24, 64, 32)], ids=str)
def test_cuda_opponents_compute_the_same(cuda_calls_on_cpu: None, shape: Shape) -> None:
    layer = cuda.TorchLayer(Sample(shape), replace(SETTINGS, autotune=(shape,)), "cpu")
    made = [layer.make(name) for name in cuda.OPPONENTS]
    present = [each for each in made if isinstance(each, Contestant)]
    assert len(present) == (4 if shape.M == 1 else 5)
    exact = [
        each.details["checked"] for each in present if "int8 GEMV" in each.name or "_int_mm" in each.name
    ]
    assert exact and set(exact) == {"equal"}
    assert all("relative error" in each.details["checked"] for each in present if "fp16" in each.name)


def test_a_wrong_cuda_opponent_is_caught(cuda_calls_on_cpu: None) -> None:
    layer = cuda.TorchLayer(Sample(Shape(24, 64, 32)), SETTINGS, "cpu")
    layer.offset = layer.offset + 1000
    with pytest.raises(WrongResult, match="differs by up to"):
        layer.make("_int_mm + compiled requantize")
    layer.copies[-1] = layer.copies[-1] ^ 1
    with pytest.raises(WrongResult, match="differ"):
        layer.make("_int_mm")


@needs_device
@pytest.mark.parametrize("closed_before", [False, True])
def test_contestants_that_are_alive_at_the_end_do_no_harm(closed_before: bool) -> None:
    program = """
from q8ta_ops import _C
from q8ta_ops.bench import vulkan
from q8ta_ops.bench.samples import Sample
from q8ta_ops.bench.settings import quick_settings
from q8ta_ops.bench.shapes import Shape
contestant = vulkan.pull_request("alive", Sample(Shape(1, 8, 8)), quick_settings())
"""
    program += "_C.close()" if closed_before else ""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert finished.returncode == 0, finished.stderr


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """In a process of its own: it enables the vk device."""
    path = tmp_path_factory.mktemp("bench") / "bench.json"
    command = [sys.executable, "-m", "q8ta_ops", "bench", "--quick", "--json", str(path)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=140)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout, json.loads(path.read_text())


def test_quick_run_measures_everything(quick_run: tuple[str, dict[str, Any]]) -> None:
    output, document = quick_run
    assert document["format"] == 1 and document["wrong"] == []
    assert {"environment", "settings", "roofs", "results", "verdicts", "seconds"} <= set(document)
    measured = [(each["section"], tuple(each["shape"])) for each in document["results"]]
    wanted = [(section, tuple(shape)) for section in SECTIONS for shape in QUICK_SHAPES.get(section, ())]
    assert measured == wanted
    for result in document["results"]:
        names = {row["name"] for row in result["contestants"]} | {each["name"] for each in result["absent"]}
        if result["section"] in ("gemv", "few_rows", "gemm"):
            assert {LINEAR, PULL_REQUEST, *cuda.OPPONENTS} <= names
        for row in result["contestants"]:
            for figures in row.get("us", {}).values():
                assert 0 < figures["min"] <= figures["q25"] <= figures["median"] <= figures["q75"]
                assert figures["q75"] <= figures["max"] and figures["count"] == SETTINGS.samples
        for each in result["absent"]:
            assert each["because"]
    assert all(each["value"] is None for each in document["verdicts"])  # no small shape has a bar
    assert "bars:" in output


@needs_device
def test_quick_run_times_ours_on_the_device(quick_run: tuple[str, dict[str, Any]]) -> None:
    _, document = quick_run
    assert document["environment"]["vulkan"]["name"]
    assert document["roofs"]["copy_gb_s"] > 0
    ours = [row for each in document["results"] for row in each["contestants"] if row["name"] == LINEAR]
    on_device = [row for row in ours if "gpu" in row.get("us", {})]
    assert len(on_device) == sum(len(QUICK_SHAPES[each]) for each in ("gemv", "few_rows", "gemm"))
    for row in on_device:
        assert row["checked"] == "equal" and row["tops"] > 0 and row["gb_s"] > 0 and row["roof_share"] > 0
        assert {"gpu", "gpu_warm", "wall_in_batch"} <= set(row["us"])


def test_plots_without_matplotlib_say_so(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "matplotlib" else found(name, *rest)
    )
    assert command_line(["bench", "--quick", "--plots", str(tmp_path / "plots")]) == 2
    assert "matplotlib" in capsys.readouterr().out
    assert not (tmp_path / "plots").exists()


def test_plots(quick_run: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from q8ta_ops.bench import plots

    for path in plots.draw(quick_run[1], tmp_path):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_other_commands_take_no_arguments(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        command_line(["info", "--quick"])
    assert "unrecognized arguments: --quick" in capsys.readouterr().err
