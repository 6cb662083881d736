"""`python -m q8ta_ops demo`: it works, says what ran, and fails when something disagrees."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("torchao")
pytest.importorskip("sklearn")

import q8ta_ops  # noqa: E402
from q8ta_ops import demo  # noqa: E402
from q8ta_ops.__main__ import main as command_line  # noqa: E402


@pytest.fixture(scope="module")
def output() -> str:
    """What the command prints without Q8TA_DEVICE: on a GPU if there is one, else on a software device."""
    if demo.choose_device() is None:
        pytest.skip("no Vulkan device here")
    environment = {key: value for key, value in os.environ.items() if key != "Q8TA_DEVICE"}
    command = [sys.executable, "-m", "q8ta_ops", "demo"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_everything_agrees(output: str) -> None:
    lines = output.splitlines()
    assert "bit-exact with the host kernel: yes" in lines
    assert "every layer ran on Vulkan: yes" in lines
    assert "batches and single rows give the same: yes" in lines
    assert len(lines) <= 35 and max(map(len, lines)) <= 120


def test_it_says_where_it_ran(output: str) -> None:
    device_line = output.splitlines()[0]
    device = next(device for device in q8ta_ops.devices() if device.name in device_line)
    assert device.driver in output
    assert ("a software device, chosen by the demo" in output) == (device.type == "cpu")


@pytest.mark.parametrize(("op", "kernel"), [("linear", "linear_gemm/"), ("linear_gemv", "linear_gemv/")])
def test_it_names_the_kernel_of_each_layer(output: str, op: str, kernel: str) -> None:
    rows = [line.split() for line in output.splitlines() if line.startswith("  fc")]
    layers = [row for row in rows if row[1] == op]
    assert [row[0] for row in layers] == ["fc1", "fc2", "fc3"]
    assert [(row[2], row[4]) for row in layers] == [("64", "128"), ("128", "64"), ("64", "10")]
    assert all(row[-1].startswith(kernel) for row in layers)
    assert [row[5] == "relu" for row in layers] == [True, True, False]


def test_the_model_has_learned(output: str) -> None:
    shares = [float(line.split()[-1].rstrip("%")) for line in output.splitlines() if line.endswith("%")]
    fp32, converted, *vulkan = shares
    assert len(vulkan) == 2 and fp32 > 90
    assert all(abs(share - converted) <= 1 for share in vulkan)


@pytest.mark.parametrize("rows", [demo.BATCH, 1])
def test_a_wrong_bit_fails_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, rows: int
) -> None:
    """One bit in one result of one layer, on Vulkan only, in the batches and in the single rows."""
    if demo.choose_device() is None:
        pytest.skip("no Vulkan device here")
    runs, original = [], demo.run

    def faulty_run(module: torch.fx.GraphModule, batches: list[torch.Tensor]) -> demo.Run:
        result = original(module, batches)
        runs.append(result)
        # Vulkan's pass comes first, the host's second.
        if len(batches[0]) == rows and len(runs) % 2 == 1:
            result.layers[1][0].view(-1)[5] ^= 1
        return result

    monkeypatch.setattr(demo, "run", faulty_run)
    assert demo.main() == 1
    assert len(runs) == 4
    assert "bit-exact with the host kernel: no" in capsys.readouterr().out


def test_a_layer_on_the_host_fails_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    if demo.choose_device() is None:
        pytest.skip("no Vulkan device here")
    original = q8ta_ops.use_device
    monkeypatch.setattr(q8ta_ops, "use_device", lambda name: original("host"))
    assert demo.main() == 1
    assert "every layer ran on Vulkan: no" in capsys.readouterr().out


def test_no_vulkan_device_is_said_plainly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(q8ta_ops, "devices", lambda: [])
    with q8ta_ops.use_device("host"):
        assert demo.main() == 1
    assert capsys.readouterr().out.startswith("No Vulkan device")


def test_a_device_that_does_not_exist_is_said_plainly() -> None:
    command = [sys.executable, "-m", "q8ta_ops", "demo"]
    environment = os.environ | {"Q8TA_DEVICE": "no-such-device"}
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert run.returncode == 1
    assert "no-such-device" in run.stdout and "Traceback" not in run.stderr


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), ([], 2), (["nonsense"], 2)])
def test_command_line(capsys: pytest.CaptureFixture, arguments: list[str], code: int) -> None:
    with pytest.raises(SystemExit) as stopped:
        command_line(arguments)
    printed = capsys.readouterr()
    assert stopped.value.code == code
    assert "demo" in printed.out + printed.err and "info" in printed.out + printed.err
