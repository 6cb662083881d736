"""Session set-up: which device the tests run on, the validation guard, and the forced kernel paths."""

from __future__ import annotations

import os

# Before the package is imported. A GPU machine sets Q8TA_DEVICE=NVIDIA, without layers Q8TA_VALIDATION=0.
os.environ.setdefault("Q8TA_DEVICE", "llvmpipe")
os.environ.setdefault("Q8TA_VALIDATION", "1")

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from samples import LinearSample

import q8ta_ops
from q8ta_ops import _C

# Devices known to have subgroup arithmetic and the integer dot product: a path missing there is a defect.
COMPLETE_DEVICES = ("llvmpipe", "NVIDIA")

# Cooperative matrices are off in every forced path, so that the plainer kernels named here run.
DISABLED = {
    "subgroup-dot": ("coopmat",),
    "subgroup-plain": ("coopmat", "int_dot"),
    "shared-dot": ("coopmat", "subgroup"),
    "shared-plain": ("coopmat", "int_dot", "subgroup"),
    "host": (),
}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "kernels: also run under GPU-assisted validation (Q8TA_VALIDATION=gpu)"
    )
    config.addinivalue_line(
        "markers", "expects_validation_message: provokes the validation layers on purpose"
    )


_leaked_in_workers: list[str] = []


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Destroys every Vulkan object after the last test: the layer reports what has leaked."""
    before = len(_C.validation_messages())
    _C.close()
    leaked = _C.validation_messages()[before:]
    if hasattr(
        session.config, "workeroutput"
    ):  # a worker of pytest-xdist: its own exit status counts for nothing
        session.config.workeroutput["leaked"] = leaked
        return
    leaked += _leaked_in_workers
    if leaked:
        print("\nvalidation messages at the end:\n" + "\n".join(leaked))
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """In the process that started the workers: takes what a worker found at its end."""
    _leaked_in_workers.extend(getattr(node, "workeroutput", {}).get("leaked", []))


@pytest.fixture(autouse=True)
def no_validation_message(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test during which a validation layer complained, whoever swallowed the exception."""
    before = len(_C.validation_messages())
    yield
    new = _C.validation_messages()[before:]
    if new and request.node.get_closest_marker("expects_validation_message") is None:
        pytest.fail("validation messages:\n" + "\n".join(new), pytrace=False)


@dataclass(frozen=True)
class ForcedPath:
    """One way to compute: a device and the kernel families that are switched off on it."""

    id: str
    device: str
    disable: tuple[str, ...]

    def kernel(self, op: str, rows: int) -> str:
        """Name of the kernel that must run for ``op`` with this many rows."""
        if self.id == "host":
            return "host/int_mm"
        reduction, product = self.id.split("-")
        product = {"dot": "int_dot", "plain": "plain"}[product]
        name = f"linear_gemv/{reduction}/{product}" if rows == 1 else f"linear_gemm/{product}"
        return name + "/float32" if op == "linear_dequant" else name

    def run(self, op: str, sample: LinearSample) -> torch.Tensor:
        """Calls the op and asserts that this path's kernel, and no other, computed it."""
        with q8ta_ops.profile() as profile:
            result = sample.call(op)
        ran = [d.kernel for d in profile.dispatches if d.op != "weights" and "pack/" not in d.kernel]
        wanted = set() if sample.rows == 0 else {self.kernel(op, sample.rows)}
        assert set(ran) == wanted, f"{op} with M={sample.rows} on {self.id}: ran {ran}, wanted {wanted}"
        return result

    def check(self, sample: LinearSample, *ops: str, expected: torch.Tensor | None = None) -> None:
        """Runs ``ops`` (all that take the sample by default) and compares every bit with the reference."""
        for op in ops or sample.ops():
            want = sample.expected(op) if expected is None else expected
            got = self.run(op, sample)
            assert got.dtype == want.dtype and got.shape == want.shape and got.is_contiguous()
            assert torch.equal(got, want), describe_difference(op, sample, got, want)


def describe_difference(op: str, sample: LinearSample, got: torch.Tensor, want: torch.Tensor) -> str:
    """The call's sizes and the first elements that differ."""
    wrong = (got != want).nonzero()
    where = [tuple(index.tolist()) for index in wrong[:5]]
    pairs = [(index, got[index].item(), want[index].item()) for index in where]
    return (
        f"{op}: x {tuple(sample.x.shape)}, weights {tuple(sample.weights.shape)}, activation "
        f"{sample.activation}, bias {sample.bias is not None}: {len(wrong)} of {want.numel()} differ; "
        f"(index, got, want): {pairs}"
    )


def missing_kernel(path_id: str) -> str | None:
    """Why the session's device cannot run this path, or None when it can."""
    default = q8ta_ops.default_device()
    if default.device is None:
        return f"the session computes on the host: {default.reason}"
    family = default.device.kernels["linear_gemv"]
    for part, word, feature in (
        ("subgroup", "subgroup", "subgroup arithmetic"),
        ("dot", "int_dot", "int8 dot"),
    ):
        if part in path_id and word not in family:
            return f"{default.name} has no {feature} (its linear_gemv is {family})"
    return None


@pytest.fixture(params=list(DISABLED))
def path(request: pytest.FixtureRequest) -> Iterator[ForcedPath]:
    """Each forced path in turn, active during the test; one that the device lacks is skipped, with why."""
    path_id = request.param
    device = "host" if path_id == "host" else os.environ["Q8TA_DEVICE"]
    if path_id != "host" and (reason := missing_kernel(path_id)) is not None:
        if any(name in q8ta_ops.default_device().name for name in COMPLETE_DEVICES):
            pytest.fail(f"this device has every kernel family, yet {reason}", pytrace=False)
        pytest.skip(reason)
    with q8ta_ops.use_device(device, disable=DISABLED[path_id]):
        yield ForcedPath(path_id, device, DISABLED[path_id])


@pytest.fixture(params=["device", "host"])
def target(request: pytest.FixtureRequest) -> Iterator[str]:
    """The session's device with its own choice of kernels, then the host kernel."""
    name = "host" if request.param == "host" else os.environ["Q8TA_DEVICE"]
    if request.param == "device" and (reason := missing_kernel("")) is not None:
        pytest.skip(reason)
    with q8ta_ops.use_device(name):
        yield name
