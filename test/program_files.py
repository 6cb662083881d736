"""Programs to save, and program files changed as an attacker or an accident would change them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from samples import random_int8
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
MANIFEST = "extra/q8ta_manifest.json"


class Int8Layer(nn.Module):
    """int8 [N, K] weights of a linear with all that its operator needs."""

    def __init__(self, K: int, N: int, seed: int) -> None:
        super().__init__()
        self.register_buffer("weights", random_int8(torch.Generator().manual_seed(seed), N, K))
        self.register_buffer("sums", self.weights.sum(1, dtype=torch.int32))
        self.register_buffer("scales", torch.linspace(0.01, 0.02, N))


class Program(nn.Module):
    """Two int8 layers with a requantize between them; the last result is float32."""

    def __init__(self, K: int, N: int) -> None:
        super().__init__()
        self.first, self.last = Int8Layer(K, N, 1), Int8Layer(N, 5, 2)

    def forward(self, x: Tensor) -> Tensor:
        ops, a, b = torch.ops.q8ta, self.first, self.last
        y = ops.linear(x, 0.1, 3, a.weights, a.sums, a.scales, 0.9, -4, None, "relu")
        y = ops.requantize(y, 0.9, -4, 0.7, 2)
        return ops.linear_dequant(y, 0.7, 2, b.weights, b.sums, b.scales)


def exported(K: int = 21, N: int = 16, rows: int = 4, dynamic: bool = True) -> ExportedProgram:
    x = random_int8(torch.Generator().manual_seed(3), rows, K)
    shapes = ({0: Dim("batch")},) if dynamic else None
    return torch.export.export(Program(K, N), (x,), dynamic_shapes=shapes)


def read_entry(path: Path, name: str) -> Any:
    """A JSON file of an archive; `name` is its path without the top folder."""
    with zipfile.ZipFile(path) as archive:
        (entry,) = [each for each in archive.namelist() if each.split("/", 1)[-1] == name]
        return json.loads(archive.read(entry))


def with_files(
    source: Path,
    target: Path,
    change: Callable[[str, bytes], bytes | None] = lambda _, data: data,
    added: dict[str, bytes] | None = None,
) -> Path:
    """A copy of an archive whose files went through `change(name, data)`; None leaves a file out.

    `added` files have their whole names, with the top folder.
    """
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            data = change(info.filename, old.read(info))
            if data is not None:
                new.writestr(info, data)
        for name, data in (added or {}).items():
            new.writestr(name, data)
    return target


def with_json(source: Path, target: Path, name: str, edit: Callable[[Any], object]) -> Path:
    """A copy of an archive in which `edit` has changed the JSON file `name`."""

    def change(entry: str, data: bytes) -> bytes:
        if entry.split("/", 1)[-1] != name:
            return data
        content = json.loads(data)
        edit(content)
        return json.dumps(content).encode()

    return with_files(source, target, change)
