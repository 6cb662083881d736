"""q8ta_ops.save and q8ta_ops.load: packed weights in the file, a checked manifest, clear errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import torch
from program_files import MANIFEST, Program, exported, read_entry, with_files, with_json
from samples import random_int8
from torch import Tensor, nn
from torch.export import ExportedProgram

import q8ta_ops
from q8ta_ops.manifest import SCHEMA_PATH, padded_row_bytes

pytestmark = pytest.mark.filterwarnings("ignore:The given buffer is not writable")


def manifest_of(path: Path) -> dict:
    return read_entry(path, MANIFEST)


def with_manifest(source: Path, target: Path, edit: Callable[[dict], object]) -> Path:
    return with_json(source, target, MANIFEST, edit)


@pytest.mark.parametrize(("K", "N"), [(21, 16), (16, 7), (32, 48), (1, 1)])
def test_save_and_load(tmp_path, K, N):
    program, path = exported(K, N), tmp_path / "program.pt2"
    q8ta_ops.save(program, path)
    loaded = q8ta_ops.load(path)
    for rows in (4, 1, 9):
        x = random_int8(torch.Generator().manual_seed(rows), rows, K)
        assert torch.equal(loaded.module()(x), program.module()(x))
    # Nothing about the program that was saved has changed, and nothing is left beside the file.
    assert program.state_dict["first.weights"].stride() == (K, 1)
    assert os.listdir(tmp_path) == ["program.pt2"]


def test_weights_are_loaded_as_the_kernels_read_them(tmp_path):
    program, path = exported(K=21, N=6), tmp_path / "program.pt2"
    q8ta_ops.save(program, path)
    loaded = q8ta_ops.load(path)
    weights = loaded.state_dict["first.weights"]
    assert weights.shape == (6, 21) and weights.stride() == (32, 1)
    assert torch.equal(weights, program.state_dict["first.weights"])
    rows = weights.as_strided((6, 32), (32, 1))
    assert not rows[:, 21:].any()


def packs(run: Callable[[], object]) -> list[str]:
    with q8ta_ops.profile() as profile:
        run()
    return [dispatch.kernel for dispatch in profile.dispatches if dispatch.op == "weights"]


def test_loading_packs_nothing(tmp_path):
    program, path = exported(K=21, N=6), tmp_path / "program.pt2"
    q8ta_ops.save(program, path)
    x = random_int8(torch.Generator().manual_seed(1), 5, 21)
    q8ta_ops.clear_weight_cache()
    assert packs(lambda: program.module()(x)) == ["pack/padded_rows", "pack/padded_rows"]
    # One row and many rows read the same weights: they are brought to the device once.
    loaded: list[ExportedProgram] = []
    assert packs(lambda: loaded.append(q8ta_ops.load(path))) == []
    module = loaded[0].module()
    assert packs(lambda: (module(x), module(x[:1]), module(x))) == ["copy", "copy"]


@pytest.mark.skipif(
    not Path("/proc/self/io").exists(), reason="the system does not count what a process reads"
)
def test_a_large_layer_is_read_once(tmp_path):
    small, large = tmp_path / "small.pt2", tmp_path / "large.pt2"
    q8ta_ops.save(exported(), small)
    q8ta_ops.save(exported(K=4096, N=11008), large)
    size = large.stat().st_size
    assert 4096 * 11008 < size < 1.01 * 4096 * 11008 + 11008 * (8 + 5) + 200_000

    def read_bytes() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    q8ta_ops.load(small)  # what is imported at the first load does not count
    before = read_bytes()
    q8ta_ops.load(large)
    assert size <= read_bytes() - before <= 1.05 * size


def test_manifest(tmp_path):
    path = tmp_path / "program.pt2"
    q8ta_ops.save(exported(K=21, N=16), path)
    manifest = manifest_of(path)
    jsonschema.validate(manifest, json.loads(SCHEMA_PATH.read_text()))
    assert manifest["schema_version"] == 1 and manifest["producer"].startswith("q8ta-ops ")
    first, between, last = manifest["operators"]
    assert first | {"node": ""} == {
        "node": "",
        "op": "linear",
        "input_layout": 5,
        "output_layout": 5,
        "weights": {"name": "first.weights", "layout": 5, "N": 16, "K": 21, "row_bytes": 32},
    }
    assert (between["op"], between["input_layout"], between["weights"]) == ("requantize", None, None)
    assert (last["op"], last["input_layout"], last["output_layout"]) == ("linear_dequant", 5, None)
    assert last["weights"]["row_bytes"] == padded_row_bytes(16) == 16


def test_one_row_program_is_4w(tmp_path):
    class OneRow(Program):
        def forward(self, x: Tensor) -> Tensor:
            a = self.first
            return torch.ops.q8ta.linear_gemv(x, 0.1, 3, a.weights, a.sums, a.scales, 0.9, -4)

    x = random_int8(torch.Generator().manual_seed(3), 1, 9)
    q8ta_ops.save(torch.export.export(OneRow(9, 4), (x,)), tmp_path / "row.pt2")
    (operator,) = manifest_of(tmp_path / "row.pt2")["operators"]
    assert (operator["op"], operator["input_layout"], operator["output_layout"]) == ("linear_gemv", 5, 5)
    assert q8ta_ops.load(tmp_path / "row.pt2").module()(x).shape == (1, 4)


def test_torch_loads_it_too(tmp_path):
    program, path = exported(), tmp_path / "program.pt2"
    q8ta_ops.save(program, path)
    x = random_int8(torch.Generator().manual_seed(1), 3, 21)
    assert torch.equal(torch.export.load(path).module()(x), program.module()(x))
    code = f"import torch; torch.export.load({str(path)!r})"
    alone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert alone.returncode != 0 and "q8ta" in alone.stderr


def test_save_again_what_was_loaded(tmp_path):
    program = exported()
    q8ta_ops.save(program, tmp_path / "a.pt2")
    q8ta_ops.save(q8ta_ops.load(tmp_path / "a.pt2"), tmp_path / "b.pt2")
    assert manifest_of(tmp_path / "a.pt2") == manifest_of(tmp_path / "b.pt2")
    x = random_int8(torch.Generator().manual_seed(1), 3, 21)
    assert torch.equal(q8ta_ops.load(tmp_path / "b.pt2").module()(x), program.module()(x))


class Plain(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1


def test_save_refuses_what_is_no_program_of_ours(tmp_path):
    path = tmp_path / "program.pt2"
    with pytest.raises(TypeError, match="program: expected a torch.export.ExportedProgram, got Plain"):
        q8ta_ops.save(Plain(), path)
    with pytest.raises(ValueError, match="program: expected one that holds q8ta operators"):
        q8ta_ops.save(torch.export.export(Plain(), (torch.ones(2),)), path)
    assert os.listdir(tmp_path) == []


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    program, path = exported(), tmp_path / "program.pt2"
    q8ta_ops.save(program, path)
    before = path.read_bytes()

    def fail(_: ExportedProgram, file, **__: object) -> None:
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.export, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        q8ta_ops.save(program, path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["program.pt2"]


def operator(manifest: dict, index: int = 0) -> dict:
    return manifest["operators"][index]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.update(schema_version=2), "schema_version: expected 1, .* got 2"),
        (lambda m: m.pop("schema_version"), "schema_version: expected 1, .* got None"),
        (lambda m: m.pop("operators"), "'operators' is a required property"),
        (lambda m: operator(m).update(op="conv2d"), r"operators\[0\].op: 'conv2d' is not one of"),
        (lambda m: operator(m).update(input_layout=9), r"operators\[0\].input_layout: 9 is not one of"),
        (lambda m: operator(m)["weights"].update(layout=4), r"operators\[0\].*layout: 5 was expected"),
        (lambda m: operator(m)["weights"].update(layout=77), r"operators\[0\].*layout: 5 was expected"),
        (lambda m: operator(m)["weights"].update(N=17), "not what its manifest says: .*'N': 17"),
        (lambda m: operator(m)["weights"].update(K=20), "not what its manifest says: .*'K': 20"),
        (
            lambda m: operator(m)["weights"].update(row_bytes=48),
            "not what its manifest says: .*'row_bytes': 48",
        ),
        (lambda m: operator(m).update(output_layout=4), "not what its manifest says"),
        (lambda m: operator(m).update(surprise=1), "'surprise' was unexpected"),
        (lambda m: m["operators"].pop(), "the program has 3 q8ta operators, its manifest 2"),
    ],
)
def test_manifest_that_does_not_fit(tmp_path, edit, message):
    path = tmp_path / "program.pt2"
    q8ta_ops.save(exported(), path)
    bad = with_manifest(path, tmp_path / "bad.pt2", edit)
    with pytest.raises(ValueError, match=message) as raised:
        q8ta_ops.load(bad)
    assert str(bad) in str(raised.value)
    assert q8ta_ops.load(path) is not None


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.999])
def test_truncated_file(tmp_path, kept):
    path, short = tmp_path / "program.pt2", tmp_path / "short.pt2"
    q8ta_ops.save(exported(), path)
    data = path.read_bytes()
    short.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ValueError, match="short.pt2 cannot be loaded"):
        q8ta_ops.load(short)


@pytest.mark.parametrize("size", [0, 16, 500])
def test_weights_of_another_size(tmp_path, size):
    path = tmp_path / "program.pt2"
    q8ta_ops.save(exported(K=21, N=16), path)

    def resized(name: str, data: bytes) -> bytes:
        return data[:size] if len(data) == 16 * 32 else data

    bad = with_files(path, tmp_path / "bad.pt2", resized)
    with pytest.raises(ValueError, match="bad.pt2 cannot be loaded"):
        q8ta_ops.load(bad)


def test_files_that_are_something_else(tmp_path):
    torch.export.save(exported(), tmp_path / "torch.pt2")
    with pytest.raises(ValueError, match="it was not written by q8ta_ops.save"):
        q8ta_ops.load(tmp_path / "torch.pt2")
    (tmp_path / "text.pt2").write_text("hello")
    with pytest.raises(ValueError, match="text.pt2 cannot be loaded"):
        q8ta_ops.load(tmp_path / "text.pt2")
    with pytest.raises(FileNotFoundError):
        q8ta_ops.load(tmp_path / "missing.pt2")


def run_alone(code: str) -> None:
    """Runs code in a process that has imported nothing else."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("loader", ["q8ta_ops.load", "torch.export.load"])
def test_new_process_gives_equal_results(tmp_path, loader):
    pytest.importorskip("torchao")
    model = nn.Sequential(nn.Linear(21, 16), nn.ReLU(), nn.Linear(16, 5)).eval()
    x = torch.randn(6, 21, generator=torch.Generator().manual_seed(1))
    program, path = q8ta_ops.quantize(model, (x,), [x]), tmp_path / "program.pt2"
    q8ta_ops.save(program, path)
    torch.save((x, program.module()(x).detach()), tmp_path / "expected.pt")
    run_alone(
        f"""
        import torch, q8ta_ops
        x, expected = torch.load({str(tmp_path / "expected.pt")!r})
        assert torch.equal({loader}({str(path)!r}).module()(x), expected)
        """
    )
