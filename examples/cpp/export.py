"""Quantizes a small MLP and packages it for the C++ program beside this file (see README.md).

    python export.py FOLDER

writes FOLDER/mlp.pt2, the model compiled by AOTInductor for any batch, and FOLDER/samples.pt, inputs with the
results that Python has computed for them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

import q8ta_ops

BATCHES = (1, 5, 64)


def model() -> nn.Module:
    """float32 [batch, 48] -> float32 [batch, 10]."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    calibration = [torch.randn(32, 48) for _ in range(8)]
    program = q8ta_ops.quantize(
        model(),
        (calibration[0],),
        calibration,
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
    )
    ops = [str(node.target) for node in program.graph.nodes if "q8ta." in str(node.target)]
    print("operators:", ", ".join(ops))

    torch._inductor.aoti_compile_and_package(program, package_path=str(folder / "mlp.pt2"))
    module = program.module()
    inputs = [torch.randn(batch, 48) for batch in BATCHES]
    with torch.no_grad():
        outputs = [module(x) for x in inputs]
    torch.save({"inputs": inputs, "outputs": outputs}, folder / "samples.pt")
    print("written:", folder / "mlp.pt2", folder / "samples.pt")
    print("op library:", Path(q8ta_ops.__file__).with_name("_torch_ops.so"))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
