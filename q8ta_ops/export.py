"""Programs in files, with the weights as the kernels read them.

A saved program is a `.pt2` archive of torch.export with one file more, the manifest (see `manifest.py`).
`torch.export.load` reads it, too, wherever q8ta_ops has been imported.
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

import torch
from torch.export import ExportedProgram

from .manifest import (
    FILE_NAME,
    check_program,
    describe_program,
    is_packed,
    padded_row_bytes,
    parse_manifest,
    tensor_of,
    weight_placeholders,
)
from .program_file import MANIFEST, check_descriptions, open_archive, read_program, write_program
from .rewrite.exported_program import copy_graph


def save(program: ExportedProgram, path: str | os.PathLike[str]) -> None:
    """Saves a program that holds q8ta operators, its weights packed, so that loading packs nothing.

    The file appears under its name when it is complete and on the disk, and replaces one that was there.
    Of the example inputs only the sizes are kept, since torch would pickle them.

    Args:
        program: from `q8ta_ops.quantize` or `q8ta_ops.rewrite`. It is not changed.
        path: where to; `.pt2` is the usual ending.

    Raises:
        TypeError: `program` is not an ExportedProgram.
        ValueError: it holds no q8ta operator, or something that `load` would not read: an operator of another
            library, a pickled object. The message names it.
        OSError: the file cannot be written. What was there before is still there.
    """
    if not isinstance(program, ExportedProgram):
        raise TypeError(f"program: expected a torch.export.ExportedProgram, got {type(program).__name__}")
    packed = _with_packed_weights(program)
    manifest = describe_program(packed)
    if not manifest["operators"]:
        raise ValueError(
            "program: expected one that holds q8ta operators, got one without: q8ta_ops.quantize() and "
            "q8ta_ops.rewrite() put them there"
        )
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.pt2")
    try:
        write_program(packed, unfinished, {FILE_NAME: json.dumps(manifest, indent=1)})
        try:
            with open_archive(unfinished) as archive:
                check_descriptions(archive)
        except ValueError as error:
            raise ValueError(f"program: it cannot be saved: {error}") from error
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def load(path: str | os.PathLike[str]) -> ExportedProgram:
    """Loads what `save` wrote and checks it against its manifest.

    The file is data: nothing in it is unpickled, evaluated or loaded as a library, and its graph calls only
    operators that compute with tensors (see SECURITY.md). Its `example_inputs` are zeros of the right sizes.

    Raises:
        ValueError: the file is damaged, was not written by `save`, or holds an operator, a layout or a schema
            version that this version does not know, or weights whose size does not fit. It says which.
        OSError: the file cannot be read.
    """
    path = Path(path)
    try:
        with open_archive(path) as archive:
            manifest = parse_manifest(archive.read(MANIFEST))
            program = read_program(archive)
        check_program(program, manifest)
    except OSError:
        raise
    except Exception as error:  # whatever torch raises on a damaged program, of many types
        raise ValueError(f"{path} cannot be loaded as a q8ta-ops program: {error}") from error
    return program


def _with_packed_weights(program: ExportedProgram) -> ExportedProgram:
    """The same program over the same tensors, but for weights that were not packed."""
    changed = {
        node.name: (name, _packed(tensor_of(program, name)))
        for node, name in weight_placeholders(program).items()
        if not is_packed(tensor_of(program, name))
    }
    graph = copy_graph(program.graph)
    state_dict, constants = dict(program.state_dict), dict(program.constants)
    for node in graph.nodes:
        if node.name not in changed:
            continue
        name, weights = changed[node.name]
        (state_dict if name in state_dict else constants)[name] = weights
        if isinstance(node.meta.get("val"), torch.Tensor):
            val = node.meta["val"]
            node.meta["val"] = val.new_empty_strided(weights.shape, weights.stride())
    return ExportedProgram(
        root=program.graph_module,
        graph=graph,
        graph_signature=program.graph_signature,
        state_dict=state_dict,
        range_constraints=program.range_constraints,
        module_call_graph=program.module_call_graph,
        example_inputs=None,  # torch would pickle them
        constants=constants,
        verifiers=program.verifiers,
    )


def _packed(weights: torch.Tensor) -> torch.Tensor:
    N, K = weights.shape
    rows = weights.new_zeros(N, padded_row_bytes(K))
    rows[:, :K] = weights.detach()
    return rows[:, :K]
