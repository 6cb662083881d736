"""Rewrite of an ExportedProgram: constants are placeholders, described by the graph signature."""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputSpec,
    TensorArgument,
)
from torch.fx import Graph, GraphModule, Node

from .nodes import only_read
from .replace import replace_linears, skipped_in_nested_graphs
from .result import RewriteResult
from .store import fake_constant

_CONSTANT_KINDS = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


def rewrite_exported_program(program: ExportedProgram) -> RewriteResult[ExportedProgram]:
    """Returns a rewritten copy of `program` that shares its tensors. The new program is validated."""
    module = GraphModule(program.graph_module, copy_graph(program.graph))
    module.meta.update(program.graph_module.meta)
    store = PlaceholderStore(program, module)
    replaced, skipped = replace_linears(store)
    if replaced:
        store.drop_unused_parameters()
    module.graph.lint()
    module.recompile()
    rewritten = ExportedProgram(
        root=module,
        graph=module.graph,
        graph_signature=store.signature(),
        state_dict=store.state_dict,
        range_constraints=copy.deepcopy(program.range_constraints),
        module_call_graph=copy.deepcopy(program.module_call_graph),
        example_inputs=program.example_inputs,
        constants=store.constants,
        verifiers=program.verifiers,
    )
    return RewriteResult(rewritten, replaced, skipped + skipped_in_nested_graphs(module))


def copy_graph(graph: Graph) -> Graph:
    """A copy of a graph's nodes (never of tensors) under the same names."""
    copied = copy.deepcopy(graph)
    for node, original in zip(copied.nodes, graph.nodes, strict=True):
        # A copy renames nodes that are called like a Python builtin ("input"), the signature does not.
        node.name = original.name
    return copied


class PlaceholderStore:
    """Constants of an ExportedProgram (see `store.Store`): graph of `module`, tensors of `program`."""

    def __init__(self, program: ExportedProgram, module: GraphModule) -> None:
        self.graph = module.graph
        self.state_dict = dict(program.state_dict)
        self.constants = dict(program.constants)
        self._output_specs = program.graph_signature.output_specs
        placeholders = [node for node in self.graph.nodes if node.op == "placeholder"]
        specs = program.graph_signature.input_specs
        self._specs: dict[Node, InputSpec] = dict(zip(placeholders, specs, strict=True))
        self._written = {spec.target for spec in self._output_specs if spec.target is not None}

    def constant(self, node: Node) -> torch.Tensor | None:
        spec = self._specs.get(node)
        if spec is None or spec.kind not in _CONSTANT_KINDS or spec.target in self._written:
            return None
        tensor = self.state_dict.get(spec.target, self.constants.get(spec.target))
        return tensor if isinstance(tensor, torch.Tensor) and only_read(node) else None

    def key(self, node: Node) -> str:
        return str(self._specs[node].target)

    def add_buffer(self, stem: str, tensor: torch.Tensor) -> Node:
        index = 0
        while f"{stem}_{index}" in self.state_dict or f"{stem}_{index}" in self.constants:
            index += 1
        target = f"{stem}_{index}"
        with self.graph.inserting_before(self._first_input()):
            node = self.graph.create_node("placeholder", f"b_{target}", name=f"b_{target}")
        node.target = node.name
        value = fake_constant(self.graph, tensor)
        if value is not None:
            node.meta["val"] = value
        self.state_dict[target] = tensor
        self._specs[node] = InputSpec(InputKind.BUFFER, TensorArgument(node.name), target, persistent=True)
        return node

    def discard(self, node: Node) -> bool:
        spec = self._specs.get(node)
        if spec is None or spec.kind not in _CONSTANT_KINDS or spec.target in self._written:
            return False
        self.graph.erase_node(node)
        del self._specs[node]
        if all(other.target != spec.target for other in self._specs.values()):
            self.state_dict.pop(spec.target, None)
            self.constants.pop(spec.target, None)
        return True

    def drop_unused_parameters(self) -> None:
        """Drops the float weights that convert_pt2e leaves behind: four times the size of the int8 ones."""
        for node, spec in list(self._specs.items()):
            if spec.kind == InputKind.PARAMETER and not node.users:
                self.discard(node)

    def signature(self) -> ExportGraphSignature:
        """The signature of the graph as it is now. Outputs keep their places, only names change."""
        placeholders = [node for node in self.graph.nodes if node.op == "placeholder"]
        outputs = self.graph.output_node().args[0]
        return ExportGraphSignature(
            input_specs=[self._specs[node] for node in placeholders],
            output_specs=[
                _renamed(spec, output) for spec, output in zip(self._output_specs, outputs, strict=True)
            ],
        )

    def _first_input(self) -> Node:
        """The node before which a new buffer goes: buffers come before what the user passes in."""
        for node in self.graph.nodes:
            if node.op != "placeholder" or self._specs[node].kind == InputKind.USER_INPUT:
                return node
        raise AssertionError("a graph ends with its output node")


def _renamed(spec: OutputSpec, output: object) -> OutputSpec:
    if not isinstance(output, Node) or not isinstance(spec.arg, TensorArgument):
        return spec
    return dataclasses.replace(spec, arg=TensorArgument(output.name))
