"""The forced kernel paths: ways to compute whose kernels a test names and proves by the profile."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from samples import LinearSample

import q8ta_ops

# Devices known to have subgroup arithmetic and the integer dot product, and all but the first cooperative
# matrices: a path missing there is a defect.
COMPLETE_DEVICES = ("llvmpipe", "NVIDIA")

# Cooperative matrices are off in the paths of the plainer kernels.
DISABLED = {
    "coopmat": (),
    "subgroup-dot": ("coopmat",),
    "subgroup-plain": ("coopmat", "int_dot"),
    "shared-dot": ("coopmat", "subgroup"),
    "shared-plain": ("coopmat", "int_dot", "subgroup"),
    "host": (),
}


def on_the_cpu(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


@dataclass(frozen=True)
class ForcedPath:
    """One way to compute: a device and the kernel families that are switched off on it.

    ``place`` puts the samples' tensors where the ops are to find them, which may be the vk device.
    """

    id: str
    device: str
    disable: tuple[str, ...]
    place: Callable[[torch.Tensor], torch.Tensor] = on_the_cpu

    def kernel(self, op: str, M: int, K: int, N: int) -> str:
        """Name of the kernel that must run for ``op`` with these sizes."""
        if self.id == "host":
            return "host/gemm"
        few = (4 < M <= 8 or 2 < M <= 4 and N > 8192) and has_rows_kernel(K)
        if self.id == "coopmat" and has_rows_coopmat_kernel(M, K, N):
            name = "linear_rows/coopmat"
        elif few and not self.id.startswith("shared"):
            name = "linear_rows/plain" if self.id == "subgroup-plain" else "linear_rows/int_dot"
        elif self.id == "coopmat":
            name = "linear_gemv/subgroup/int_dot" if M <= 4 else "linear_gemm/coopmat"
        else:
            reduction, product = self.id.split("-")
            product = {"dot": "int_dot", "plain": "plain"}[product]
            gemv = M <= (8 if reduction == "subgroup" else 1)
            name = f"linear_gemv/{reduction}/{product}" if gemv else f"linear_gemm/{product}"
        return name + "/float32" if op == "linear_dequant" else name

    def run(self, op: str, sample: LinearSample) -> torch.Tensor:
        """Calls the op and asserts that this path's kernel, and no other, computed it."""
        placed = sample.mapped(self.place)
        with q8ta_ops.profile() as profile:
            result = placed.call(op)
        assert result.device == placed.x.device
        ran = [d.kernel for d in profile.dispatches if d.kernel.startswith(("linear_", "host/"))]
        N, K = sample.weights.shape
        wanted = set() if sample.rows == 0 else {self.kernel(op, sample.rows, K, N)}
        assert set(ran) == wanted, f"{op} with M={sample.rows} on {self.id}: ran {ran}, wanted {wanted}"
        return result

    def check(self, sample: LinearSample, *ops: str, expected: torch.Tensor | None = None) -> None:
        """Runs ``ops`` (all that take the sample by default) and compares every bit with the reference."""
        for op in ops or sample.ops():
            want = sample.expected(op) if expected is None else expected
            got = self.run(op, sample)
            assert got.dtype == want.dtype and got.shape == want.shape and got.is_contiguous()
            brought = got.cpu()
            assert torch.equal(brought, want), describe_difference(op, sample, brought, want)


def has_rows_kernel(K: int) -> bool:
    """Whether the session's device computes a few rows with shaders/linear_rows.comp."""
    info = q8ta_ops.default_device().device
    fits = K <= 32 * 16 * info.features["subgroup_size"]
    return fits and info.type != "cpu" and info.features["subgroup_shuffle"]


def has_rows_coopmat_kernel(M: int, K: int, N: int) -> bool:
    """Whether shaders/linear_rows_coopmat.comp is the fastest kernel: it takes 4 to 8 slices of K."""
    slices = {-(-K // 16) * 16 / size for size in (256, 512)}
    large = N > 8192 or N >= 4096 and K > 2048
    return (8 < M <= 32 and N > 111 * 16 or 4 < M <= 8 and large) and any(3 < n <= 8 for n in slices)


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
    if path_id == "coopmat":
        gemm = default.device.kernels["linear"]
        return (
            None
            if "coopmat" in gemm
            else f"{default.name} has no cooperative matrices (its linear is {gemm})"
        )
    family = default.device.kernels["linear_gemv"]
    for part, word, feature in (
        ("subgroup", "subgroup", "subgroup arithmetic"),
        ("dot", "int_dot", "int8 dot"),
    ):
        if part in path_id and word not in family:
            return f"{default.name} has no {feature} (its linear_gemv is {family})"
    return None


@contextmanager
def forced_path(
    path_id: str, place: Callable[[torch.Tensor], torch.Tensor] = on_the_cpu
) -> Iterator[ForcedPath]:
    """The path, active inside the block; skips the test, with why, where the device lacks it."""
    device = "host" if path_id == "host" else os.environ["Q8TA_DEVICE"]
    if path_id != "host" and (reason := missing_kernel(path_id)) is not None:
        complete = COMPLETE_DEVICES[path_id == "coopmat" :]
        if any(name in q8ta_ops.default_device().name for name in complete):
            pytest.fail(f"this device has every kernel family, yet {reason}", pytrace=False)
        pytest.skip(reason)
    with q8ta_ops.use_device(device, disable=DISABLED[path_id]):
        yield ForcedPath(path_id, device, DISABLED[path_id], place)
