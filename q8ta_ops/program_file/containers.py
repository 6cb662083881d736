"""The containers that a program takes and returns (pytree specifications), in a program file.

torch would import any module that one names as the factory of a defaultdict or the class of an enum.
"""

from __future__ import annotations

import json
from typing import Any

from torch.utils import _pytree as pytree

from .text import identifier, plain_text


def inputs(text: str) -> str:
    """The containers of a call's arguments, (args, kwargs), as torch writes them, once checked.

    Raises:
        ValueError: a container may not be read from a file; the message names it.
    """
    protocol, tree = _protocol_and_tree(text)
    is_call = len(tree["children_spec"]) == 2 and tree["children_spec"][1]["type"] == "builtins.dict"
    for name in json.loads(tree["children_spec"][1]["context"]) if is_call else ():
        identifier(name)
    return json.dumps([protocol, tree])


def outputs(text: str) -> str:
    """The containers of a call's results. As `inputs`."""
    return json.dumps(_protocol_and_tree(text))


def _protocol_and_tree(text: str) -> list[Any]:
    content = json.loads(text)
    if not isinstance(content, list) or len(content) != 2 or content[0] != 1:
        raise ValueError("it is not the specification of a container")
    _check(content[1])
    return content


def _check(tree: Any) -> None:
    if not isinstance(tree, dict) or set(tree) != {"type", "context", "children_spec"}:
        raise ValueError("it is not the specification of a container")
    kind, context, children = tree["type"], tree["context"], tree["children_spec"]
    if not isinstance(children, list) or not isinstance(kind, str | None):
        raise ValueError("it is not the specification of a container")
    if kind is None:
        if context is not None or children:
            raise ValueError("a leaf of a container has contents")
        return
    known = pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE.get(kind)
    if known is None:
        raise ValueError(f"the container {kind[:80]!r} is not known to torch.utils._pytree in this process")
    if kind == "collections.namedtuple":
        if not isinstance(context, str):
            raise ValueError("a named tuple has no name")
    elif pytree.SUPPORTED_SERIALIZED_TYPES[known].from_dumpable_context is not None:
        raise ValueError(f"the container {kind!r} may not be read from a file")
    elif not isinstance(context, str):
        raise ValueError(f"the container {kind!r} has no context")
    else:
        _check_context(json.loads(context))
    for child in children:
        _check(child)


def _check_context(context: Any) -> None:
    """What a container knows beside its children: the keys of a dict, for example."""
    if isinstance(context, str):
        plain_text(context)
    elif isinstance(context, list):
        for each in context:
            _check_context(each)
    elif isinstance(context, dict):
        raise ValueError("the context of a container holds an object")
