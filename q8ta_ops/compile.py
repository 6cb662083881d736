"""The torch.compile backend: `torch.compile(model, backend="q8ta")`.

Torch finds it by the entry point `torch_dynamo_backends`, so nothing needs to be imported before.
"""

from __future__ import annotations

import inspect
import logging
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch._dynamo.backends.registry import lookup_backend
from torch._inductor import list_options
from torch.fx import GraphModule

from .rewrite.dynamo_graph import DynamoStore, copy_of, rewrite_dynamo_graph

_log = logging.getLogger("q8ta_ops")

Compiled = Callable[..., Any]


def q8ta_backend(
    gm: GraphModule,
    example_inputs: Sequence[Any],
    *,
    mode: str | None = None,
    options: dict[str, Any] | None = None,
) -> Compiled:
    """Replaces the quantized linears of a graph from torch.compile and lets another backend compile it.

    The model is what `convert_pt2e` returned, the `module()` of an ExportedProgram, a rewritten one, or any
    module or function that calls such a one. What was replaced, and why the rest was not, is logged at INFO
    by the logger "q8ta_ops".

    Weights stay the module's own. What the rewrite derives from them (their sums) is computed once; every
    call checks that the tensors are the same objects with the same version, as the weight cache of the
    operators does, and computes it again where they are not: `load_state_dict`, an in-place operation or a
    new tensor in the module's attribute are noticed, a change through `.data` or of an inference tensor is
    not. Where such a change needs another graph (zero points that are not 0 any more), a warning is logged
    and the graph runs uncompiled until `torch.compiler.reset()`.

    Args:
        gm, example_inputs: from dynamo.
        mode: handed on, as torch.compile has it.
        options: "backend" names the backend for the rest, "inductor" if absent. All others are its own.

    Raises (torch.compile passes them on as BackendCompilerFailed):
        InvalidBackend: torch does not know a backend of this name.
        ValueError: neither this backend nor Inductor has an option of this name, or the other backend takes
            no options or no mode.
    """
    compile_rest = _other_backend(mode, dict(options or {}))
    original = copy_of(gm)
    result, store = rewrite_dynamo_graph(gm, example_inputs)
    _log.info("torch.compile, backend q8ta: %s", result)
    text = str(gm.graph)  # before the other backend, which may change the graph
    compiled = compile_rest(gm, example_inputs)
    if not result.replaced:
        return compiled
    return _WatchedCall(compiled, original, text, store.added, _watch(store, example_inputs))


def _other_backend(mode: str | None, options: dict[str, Any]) -> Callable[[GraphModule, Sequence[Any]], Any]:
    name = options.pop("backend", "inductor")
    if name == "inductor":
        known = {"backend", *list_options()}
        unknown = [key for key in options if key.replace("-", "_") not in known]
        if unknown:
            raise ValueError(
                f"options: unknown {unknown}; backend 'q8ta' knows 'backend' and what "
                "torch._inductor.list_options() lists"
            )
        # What torch.compile itself makes of backend="inductor": checks the types, applies mode and options.
        return torch._TorchCompileInductorWrapper(mode, options, None)
    backend = lookup_backend(name)
    keywords = {key: value for key, value in (("mode", mode), ("options", options)) if value}
    parameters = inspect.signature(backend).parameters
    if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values()):
        for keyword, value in keywords.items():
            if keyword not in parameters:
                raise ValueError(f"{keyword}: the backend {name!r} takes none, got {value!r}")
    return lambda gm, inputs: backend(gm, inputs, **keywords)


class _Watched(NamedTuple):
    """A constant that the rewrite has relied on, as it was then.

    `index` is its place among the arguments, -1 where the graph itself holds it. An inference tensor has no
    version.
    """

    index: int
    tensor: weakref.ref[torch.Tensor]
    version: int | None


def _watch(store: DynamoStore, arguments: Sequence[Any]) -> list[_Watched]:
    """What `store` has relied on; a tensor that came with the call is known by its place in `arguments`."""
    places = {id(argument): index for index, argument in enumerate(arguments)}
    return [
        _Watched(
            index=places.get(id(tensor), -1),
            tensor=weakref.ref(tensor),
            version=None if tensor.is_inference() else tensor._version,
        )
        for tensor in store.relied_on.values()
    ]


class _WatchedCall:
    """A compiled graph with what was derived from its constants kept up to date.

    Dynamo guards neither the identity nor the version of a module's tensors, so it would go on with old sums.
    """

    def __init__(
        self,
        compiled: Compiled,
        original: GraphModule,
        rewritten: str,
        derived: dict[str, torch.Tensor],
        watched: list[_Watched],
    ) -> None:
        self._compiled = compiled
        self._original = original
        self._rewritten = rewritten
        self._derived = derived
        self._watched = watched

    def __call__(self, *arguments: Any) -> Any:
        # In every call, for every constant: about 0.15 us each.
        for index, reference, version in self._watched:
            tensor = reference()
            if (
                tensor is None
                or (index >= 0 and arguments[index] is not tensor)
                or (version is not None and tensor._version != version)
            ):
                self._derive_again(arguments)
                break
        return self._compiled(*arguments)

    def _derive_again(self, arguments: Sequence[Any]) -> None:
        """Rewrites the original graph with the tensors of this call, and takes over the buffers it makes."""
        module = copy_of(self._original)
        _, store = rewrite_dynamo_graph(module, arguments)
        if str(module.graph) != self._rewritten:
            # Another graph: zero points that are not 0 any more, for instance.
            _log.warning(
                "torch.compile, backend q8ta: weights, scales or zero points have changed so that "
                "the compiled graph does not serve any more. It runs uncompiled from now on: call "
                "torch.compiler.reset() to have it compiled again."
            )
            self._compiled, self._rewritten, self._derived = module.forward, str(module.graph), store.added
        with torch.no_grad():
            for name, tensor in store.added.items():
                self._derived[name].copy_(tensor)
        self._watched = _watch(store, arguments)
