"""From a program file to its program, torch seeing nothing but what was checked."""

from __future__ import annotations

from typing import Any

import torch
from torch._export.serde import schema
from torch._export.serde.serialize import ExportedProgramDeserializer
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from .archive import CONSTANTS, MODEL, WEIGHTS, Archive
from .schema import read_model, read_payloads
from .tensors import check_payload, read_tensors

_LARGEST_EXAMPLE_BYTES = 1 << 28


def read_program(archive: Archive) -> ExportedProgram:
    """The program of a file.

    Raises:
        ValueError: the file holds what a program file may not, or is damaged. torch raises other types, too.
    """
    model, weights, constants = _read_descriptions(archive)
    tensors = read_tensors(archive, WEIGHTS, weights), read_tensors(archive, CONSTANTS, constants)
    program = ExportedProgramDeserializer().deserialize(model, *tensors, None)
    program.example_inputs = _example_inputs(program)
    return program


def check_descriptions(archive: Archive) -> None:
    """Raises ValueError if the file holds what `read_program` would not read; tensors are not looked at."""
    _, weights, constants = _read_descriptions(archive)
    for name, payload in (*weights.items(), *constants.items()):
        check_payload(name, payload)


def _read_descriptions(
    archive: Archive,
) -> tuple[schema.ExportedProgram, dict[str, schema.PayloadMeta], dict[str, schema.PayloadMeta]]:
    weights = read_payloads(archive.read_json(WEIGHTS + "model_weights_config.json"))
    constants = read_payloads(archive.read_json(CONSTANTS + "model_constants_config.json"))
    return read_model(archive.read_json(MODEL)), weights, constants


def _example_inputs(program: ExportedProgram) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Zeros of the sizes that the program was exported with; None where the file does not give them.

    The inputs themselves are not in the file, since torch pickles them. AOTInductor needs their sizes only.
    """
    values: list[Any] = []
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    for spec in program.graph_signature.input_specs:
        if spec.kind is not torch.export.graph_signature.InputKind.USER_INPUT:
            continue
        if isinstance(spec.arg, torch.export.graph_signature.ConstantArgument):
            values.append(spec.arg.value)
            continue
        value = placeholders[spec.arg.name].meta.get("val")
        if isinstance(value, torch.SymInt | torch.SymFloat):
            value = value.node.hint
        elif isinstance(value, torch.Tensor):
            value = _zeros_like(value)
        if value is None:
            return None
        values.append(value)
    in_spec = program.call_spec.in_spec
    if in_spec is None or in_spec.num_leaves != len(values):
        return None
    args, kwargs = pytree.tree_unflatten(values, in_spec)
    return args, kwargs


def _zeros_like(value: torch.Tensor) -> torch.Tensor | None:
    sizes = [size if isinstance(size, int) else size.node.hint for size in value.shape]
    if any(size is None or size < 0 for size in sizes):
        return None
    bytes_of_it = value.dtype.itemsize
    for size in sizes:
        bytes_of_it *= size
    if bytes_of_it > _LARGEST_EXAMPLE_BYTES:
        return None
    return torch.zeros(sizes, dtype=value.dtype, device=value.device)
