"""examples/cpp: a quantized model, packaged by AOTInductor, in a C++ program without Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import q8ta_ops

EXAMPLE = Path(__file__).parents[1] / "examples" / "cpp"
OP_LIBRARY = Path(q8ta_ops.__file__).with_name("_torch_ops.so")

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        " " in torch.__path__[0],
        reason="Inductor (torch 2.13) does not quote torch's path for its C++ compiler",
    ),
    pytest.mark.skipif(
        torch.version.cuda is not None and shutil.which("nvcc") is None,
        reason="find_package(Torch) of a torch built for CUDA needs the CUDA toolkit",
    ),
    pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake"),
]


def run(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in an environment without Python's variables."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [str(word) for word in command],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )


def checked(*command: object, **environment: str) -> str:
    done = run(*command, **environment)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Example:
    folder: Path
    program: Path
    exported: str

    def run(self, folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        return run(self.program, folder or self.folder, OP_LIBRARY, **environment)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """The example's three commands, as its README gives them, up to the last."""
    folder, build = tmp_path_factory.mktemp("mlp"), tmp_path_factory.mktemp("build")
    exported = checked(sys.executable, EXAMPLE / "export.py", folder, Q8TA_DEVICE="host")
    prefix = f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}"
    checked("cmake", "-S", EXAMPLE, "-B", build, prefix)
    checked("cmake", "--build", build)
    return Example(folder, build / "mlp", exported)


def test_the_model_is_made_of_q8ta_operators(example):
    assert example.exported.count("q8ta.linear") == 3


@pytest.mark.parametrize("device", sorted({os.environ["Q8TA_DEVICE"], "host"}))
def test_results_equal_pythons_at_every_batch(example, device):
    done = example.run(Q8TA_DEVICE=device)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split(";")[0] for line in done.stdout.splitlines()]
    assert lines == [f"batch {batch}: equal to Python's result" for batch in (1, 5, 64)]


def test_the_device_is_the_one_that_the_environment_names(example):
    done = example.run(Q8TA_DEVICE="no such device")
    assert done.returncode == 1
    assert "no Vulkan device matches 'no such device'" in done.stdout + done.stderr


def test_a_different_result_is_an_error(example, tmp_path):
    shutil.copy(example.folder / "mlp.pt2", tmp_path)
    samples = torch.load(example.folder / "samples.pt")
    samples["outputs"][1][0, 0] += 1e-6
    torch.save(samples, tmp_path / "samples.pt")
    done = example.run(tmp_path, Q8TA_DEVICE="host")
    assert done.returncode == 1
    lines = [line.split(";")[0] for line in done.stdout.splitlines()]
    verdicts = ["equal to", "DIFFERENT from", "equal to"]
    assert lines == [
        f"batch {batch}: {verdict} Python's result"
        for batch, verdict in zip((1, 5, 64), verdicts, strict=True)
    ]


def test_the_op_library_is_what_makes_it_run(example, tmp_path):
    for library, message in ((tmp_path / "none.so", "cannot load"), ("libm.so.6", "schema for q8ta::linear")):
        done = run(example.program, example.folder, library, Q8TA_DEVICE="host")
        assert done.returncode == 1 and message in done.stderr, done.stderr


def test_no_python_is_needed(example):
    torch_libraries = str(Path(torch.__path__[0]) / "lib")
    for binary in (example.program, OP_LIBRARY, OP_LIBRARY.with_name("libq8ta_vulkan.so")):
        needed = checked("ldd", binary, LD_LIBRARY_PATH=torch_libraries)
        assert "libpython" not in needed and "torch_python" not in needed and "not found" not in needed
    bare = subprocess.run(
        [example.program, example.folder, OP_LIBRARY],
        env={"Q8TA_DEVICE": "host"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert bare.returncode == 0, bare.stdout + bare.stderr
