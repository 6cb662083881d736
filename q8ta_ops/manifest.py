"""The manifest of a saved program: in which memory layouts its q8ta operators read, write and keep weights.

The format is published as `manifest.schema.json` beside this file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from .layouts import Layout
from .rewrite.nodes import arguments, target_name
from .version import __version__

SCHEMA_VERSION = 1
FILE_NAME = "q8ta_manifest.json"
SCHEMA_PATH = Path(__file__).with_name("manifest.schema.json")

# What an operator's kernel reads and writes on a device; None where that is not packed int8.
_LAYOUTS: dict[str, tuple[Layout | None, Layout | None]] = {
    "linear": (Layout.PACKED_INT8_4W, Layout.PACKED_INT8_4W),
    "linear_gemv": (Layout.PACKED_INT8_4W, Layout.PACKED_INT8_4W),
    "linear_dequant": (Layout.PACKED_INT8_4W, None),
    "requantize": (None, None),
}


def padded_row_bytes(K: int) -> int:
    """Bytes from one row of packed weights to the next: K rounded up to what kernels load at a time."""
    return (K + 15) // 16 * 16


def is_packed(weights: torch.Tensor) -> bool:
    """Whether int8 [N, K] weights lie in memory as kernels read them; whether padding is 0 is not checked."""
    N, K = weights.shape
    row_bytes = padded_row_bytes(K)
    available = weights.untyped_storage().nbytes() - weights.storage_offset()
    return weights.stride() == (row_bytes, 1) and available >= N * row_bytes


def weight_placeholders(program: ExportedProgram) -> dict[Node, str]:
    """The placeholders that are weights of q8ta linears, and the names of their tensors in the program."""
    signature = program.graph_signature
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    used = {arguments(node).get("weights") for node in _operator_nodes(program)}
    return {node: names[node.name] for node in program.graph.nodes if node in used and node.name in names}


def tensor_of(program: ExportedProgram, name: str) -> torch.Tensor:
    """A parameter, buffer or constant of the program."""
    return program.state_dict[name] if name in program.state_dict else program.constants[name]


def describe_program(program: ExportedProgram) -> dict[str, Any]:
    """The manifest of a program whose weights are packed."""
    placeholders = weight_placeholders(program)
    operators = []
    for node in _operator_nodes(program):
        call = arguments(node)
        op = _operator_name(node)
        reads, writes = _LAYOUTS.get(op, (None, None))
        if op == "pack":
            writes = call["layout"]
        elif op == "unpack":
            reads = call["layout"]
        weights = placeholders.get(call.get("weights"))
        operators.append(
            {
                "node": node.name,
                "op": op,
                "input_layout": reads,
                "output_layout": writes,
                "weights": None if weights is None else _describe_weights(program, weights),
            }
        )
    producer = f"q8ta-ops {__version__}"
    return {"schema_version": SCHEMA_VERSION, "producer": producer, "operators": operators}


def parse_manifest(text: str | bytes) -> dict[str, Any]:
    """Reads a manifest.

    Raises:
        ValueError: it is not JSON, has another schema version, or does not follow the schema: it may hold
            an operator or a layout that this version does not know.
    """
    import jsonschema  # not at the top: only loading needs it, and importing it takes its time

    manifest = json.loads(text)
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"schema_version: expected {SCHEMA_VERSION}, which this q8ta-ops reads, got {version!r}"
        )
    schema = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    problem = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(manifest))
    if problem is not None:
        raise ValueError(f"{problem.json_path.removeprefix('$.')}: {problem.message}")
    return manifest


def check_program(program: ExportedProgram, manifest: dict[str, Any]) -> None:
    """Checks that a program is the one that its manifest describes, and that its weights are packed.

    Raises:
        ValueError: it is another one; the message names the operator.
    """
    for name in weight_placeholders(program).values():
        weights = tensor_of(program, name)
        if weights.dtype != torch.int8 or weights.dim() != 2 or not is_packed(weights):
            raise ValueError(
                f"the weights {name!r} are {weights.dtype} of shape {list(weights.shape)}, with strides "
                f"{list(weights.stride())} in {weights.untyped_storage().nbytes()} bytes, which is not "
                "the layout PACKED_INT8_4W with rows of a multiple of 16 bytes"
            )
        if _padding(weights).any():  # kernels multiply it
            raise ValueError(f"the weights {name!r} have other bytes than 0 behind their rows")
    described, operators = describe_program(program)["operators"], manifest["operators"]
    for found, expected in zip(described, operators, strict=False):
        if found != expected:
            raise ValueError(f"the program's operator {found} is not what its manifest says: {expected}")
    if len(described) != len(operators):
        raise ValueError(f"the program has {len(described)} q8ta operators, its manifest {len(operators)}")


def _padding(weights: torch.Tensor) -> torch.Tensor:
    """What lies behind the rows of packed [N, K] weights: int8 [N, padded_row_bytes(K) - K]."""
    N, K = weights.shape
    row_bytes = padded_row_bytes(K)
    return weights.detach().as_strided((N, row_bytes - K), (row_bytes, 1), weights.storage_offset() + K)


def _operator_nodes(program: ExportedProgram) -> list[Node]:
    return [node for node in program.graph.nodes if target_name(node).startswith("q8ta.")]


def _operator_name(node: Node) -> str:
    return target_name(node).split(".")[1]


def _describe_weights(program: ExportedProgram, name: str) -> dict[str, Any]:
    N, K = tensor_of(program, name).shape
    layout = Layout.PACKED_INT8_4W
    return {"name": name, "layout": layout, "N": N, "K": K, "row_bytes": padded_row_bytes(K)}
