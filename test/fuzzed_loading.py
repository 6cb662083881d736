"""Loads and runs a program file that may be anything, and says how that ended."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import torch
from program_files import exported
from torch import Tensor, nn

import q8ta_ops


class WithOtherOperators(nn.Module):
    """A q8ta linear among operators of aten, with symbolic sizes, a dict of results and a shared buffer."""

    def __init__(self) -> None:
        super().__init__()
        weights = torch.randint(
            -128, 128, (6, 8), dtype=torch.int8, generator=torch.Generator().manual_seed(1)
        )
        self.register_buffer("weights", weights)
        self.register_buffer("sums", weights.sum(1, dtype=torch.int32))
        self.register_buffer("scales", torch.full((6,), 0.01))
        self.bias = nn.Parameter(torch.linspace(-1, 1, 6))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        rows = x.reshape(-1, 4, 8)
        y = torch.ops.q8ta.linear_dequant(rows, 0.1, 3, self.weights, self.sums, self.scales, self.bias)
        return {"y": y.relu_().transpose(0, 1).sum(0), "rows": torch.arange(x.shape[0] // 2)}


def saved_programs() -> list[tuple[bytes, Tensor]]:
    """Program files, each with an input that its program takes."""
    x = torch.arange(4 * 21).reshape(4, 21).to(torch.int8)
    batches = torch.arange(8 * 8).reshape(8, 8).to(torch.int8)
    rows = torch.export.Dim("rows", min=1)
    other = torch.export.export(WithOtherOperators(), (batches,), dynamic_shapes=({0: 4 * rows},))
    return [(_saved(exported()), x), (_saved(other), batches)]


def _saved(program: torch.export.ExportedProgram) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "program.pt2"
        q8ta_ops.save(program, path)
        return path.read_bytes()


def load_and_run(content: bytes, x: Tensor, path: Path) -> str:
    """Writes a file, loads it, and runs its program.

    Returns "refused", "does not run" or "runs". Whatever `q8ta_ops.load` raises but ValueError goes on.
    """
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = q8ta_ops.load(path)
        except ValueError as error:
            if not str(error).startswith(f"{path} cannot be loaded"):
                raise
            return "refused"
        try:
            program.module()(x)
        except Exception:  # the program's own errors: a shape that does not fit, a guard that fails
            return "does not run"
    return "runs"
