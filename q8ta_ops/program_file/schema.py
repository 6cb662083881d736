"""Reads the JSON of a program file as the dataclasses of torch's schema, each value by its type.

torch's own reader takes any value for any field. Here every field has the type that torch's schema gives it,
and every text the rule that this file gives it; a text without a rule is not read.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
import types
import typing
from collections.abc import Callable
from typing import Any

from torch._export.serde import schema
from torch._export.serde.union import _Union

from . import containers, text
from .expressions import bounded_size, expression
from .operators import call_target

# By class and field; for a dict the rule is that of its keys, or of its keys and values if these are text.
_RULES: dict[str, Callable[[str], str]] = {
    "Argument.as_string": text.any_text,
    "Argument.as_strings": text.any_text,
    "BufferMutationSpec.buffer_name": text.qualified_name,
    "ConstantValue.as_string": text.plain_text,
    "Device.type": text.device_type,
    "ExportedProgram.guards_code": text.guard,
    "ExportedProgram.opset_version": text.any_text,
    "ExportedProgram.range_constraints": bounded_size,
    "ExportedProgram.torch_version": text.any_text,
    "ExportedProgram.verifiers": text.any_text,  # chosen from those that torch has
    "Graph.sym_bool_values": text.identifier,
    "Graph.sym_float_values": text.identifier,
    "Graph.sym_int_values": text.identifier,
    "Graph.tensor_values": text.identifier,
    "GraphArgument.name": text.identifier,
    "InputToBufferSpec.buffer_name": text.qualified_name,
    "InputToConstantInputSpec.name": text.argument_name,
    "InputToParameterSpec.parameter_name": text.qualified_name,
    "InputToTensorConstantSpec.tensor_constant_name": text.qualified_name,
    "ModuleCallEntry.fqn": text.qualified_name,
    "ModuleCallSignature.forward_arg_names": text.identifier,
    "ModuleCallSignature.in_spec": containers.inputs,
    "ModuleCallSignature.out_spec": containers.outputs,
    "NamedArgument.name": text.argument_name,
    "Node.name": text.identifier,
    "Node.target": call_target,
    "ParameterMutationSpec.parameter_name": text.qualified_name,
    "PayloadConfig.config": text.qualified_name,
    "PayloadMeta.path_name": text.payload_name,
    "SymBoolArgument.as_name": text.identifier,
    "SymExpr.expr_str": expression,
    "SymFloatArgument.as_name": text.identifier,
    "SymIntArgument.as_name": text.identifier,
    "TensorArgument.name": text.identifier,
    "UserInputMutationSpec.user_input_name": text.identifier,
}

# Kept out of the program: notes about where it came from, some of which torch resolves to functions.
_LEFT_OUT = {"GraphModule.metadata", "GraphModule.treespec_namedtuple_fields"}

_SPECIAL_NUMBERS = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}


def read_model(content: Any) -> schema.ExportedProgram:
    """The program in models/model.json.

    Raises:
        ValueError: it is not one, or holds what a program file may not; the message says where.
    """
    return _read(schema.ExportedProgram, content, "ExportedProgram")


def read_payloads(content: Any) -> dict[str, schema.PayloadMeta]:
    """The tensors in a file of weights or constants, by their names. Raises as `read_model`."""
    return _read(schema.PayloadConfig, content, "PayloadConfig").config


def _read(kind: Any, value: Any, where: str) -> Any:
    """`value` as a `kind`; `where` is the class and the field that it is in."""
    if (parts := _union_of_none(kind)) is not None:
        return None if value is None else _read(parts, value, where)
    origin = typing.get_origin(kind)
    if origin is list and isinstance(value, list):
        (part,) = typing.get_args(kind)
        return [_read(part, each, where) for each in value]
    if origin is dict and isinstance(value, dict):
        keys, values = typing.get_args(kind)
        return {_read(keys, name, where): _read(values, each, where) for name, each in value.items()}
    if isinstance(kind, type):
        if kind is str and type(value) is str:
            return _read_text(value, where)
        if kind is bool and type(value) is bool:
            return value
        if kind is int and type(value) is int and -(1 << 63) <= value < 1 << 63:
            return value
        if kind is float and type(value) in (int, float, str):
            return _read_float(value, where)
        if issubclass(kind, enum.IntEnum) and type(value) is int:
            return kind(value)
        if issubclass(kind, _Union) and isinstance(value, dict) and len(value) == 1:
            return _read_alternative(kind, *next(iter(value.items())))
        if dataclasses.is_dataclass(kind) and not issubclass(kind, _Union) and isinstance(value, dict):
            return _read_dataclass(kind, value)
    name = getattr(kind, "__name__", str(kind))
    raise ValueError(f"{where}: {_shown(value)} is not of the type {name}")


def _read_text(value: str, where: str) -> str:
    rule = _RULES.get(where)
    if rule is None:
        raise ValueError(f"{where}: {_shown(value)}: a program file may not hold that")
    try:
        return rule(value)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _read_float(value: int | float | str, where: str) -> float:
    if isinstance(value, str):
        if value not in _SPECIAL_NUMBERS:
            raise ValueError(f"{where}: {_shown(value)} is not a number")
        return _SPECIAL_NUMBERS[value]
    return float(value)


def _read_alternative(kind: type[_Union], name: str, value: Any) -> _Union:
    fields = _fields(kind)
    if name not in fields:
        raise ValueError(f"{kind.__name__}: {_shown(name)} is none of its alternatives")
    return kind.create(**{name: _read(fields[name], value, f"{kind.__name__}.{name}")})


def _read_dataclass(kind: type, value: dict[str, Any]) -> Any:
    fields = _fields(kind)
    contents = {}
    for name, each in value.items():
        where = f"{kind.__name__}.{name}"
        if where in _LEFT_OUT:
            contents[name] = {}
        elif name not in fields:
            raise ValueError(f"{where}: torch does not know it in this version")
        elif where == "Node.metadata":
            contents[name] = _node_metadata(each)
        else:
            contents[name] = _read(fields[name], each, where)
    missing = [
        field.name
        for field in dataclasses.fields(kind)
        if field.name not in contents
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"{kind.__name__}.{missing[0]} is missing")
    result = kind(**contents)
    if isinstance(result, schema.Graph):
        _check_inputs(result.inputs)
    elif isinstance(result, schema.UserInputSpec):
        _check_inputs([result.arg])
    return result


def _check_inputs(inputs: list[schema.Argument]) -> None:
    """torch compares an input that is a text with it, in code."""
    for each in inputs:
        if each.type == "as_string":
            text.plain_text(each.as_string)


def _node_metadata(value: Any) -> dict[str, str]:
    """Of a node's metadata only where in the module it was called, which `torch.export.unflatten` needs."""
    stack = value.get("nn_module_stack") if isinstance(value, dict) else None
    return {"nn_module_stack": stack} if isinstance(stack, str) and stack.isprintable() else {}


@functools.cache
def _fields(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, globalns=vars(schema))


def _union_of_none(kind: Any) -> Any:
    """X of X | None; None for any other type."""
    if typing.get_origin(kind) not in (typing.Union, types.UnionType):
        return None
    parts = [part for part in typing.get_args(kind) if part is not type(None)]
    return parts[0] if len(parts) == 1 else None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
