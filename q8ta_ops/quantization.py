"""From a float model to a program of q8ta operators in one call: `q8ta_ops.quantize`. Needs torchao."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_map_only
from torchao.quantization.pt2e import ObserverBase
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from .embedding import quantize_embeddings
from .quantizer import ASKED_FOR_FLOAT, Q8taQuantizer
from .rewrite import RewriteResult, rewrite
from .rewrite.nodes import layer_name, target_name
from .smooth import smooth_inputs

_log = logging.getLogger("q8ta_ops")

_Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments."""


def quantize(
    model: nn.Module,
    example_inputs: tuple[Any, ...] | Tensor | Mapping[str, Any],
    calibration: Iterable[tuple[Any, ...] | Tensor | Mapping[str, Any]],
    dynamic_shapes: dict[str, Any] | tuple[Any, ...] | list[Any] | None = None,
    *,
    observer: str = "histogram",
    outputs: str = "auto",
    per_channel: bool = True,
    float_modules: Iterable[str | type[nn.Module]] = (),
    smooth: float | None = None,
    embeddings: str = "float32",
    progress: bool | None = None,
) -> ExportedProgram:
    """Quantizes the linear layers of a float32 model to int8, statically, and puts q8ta operators there.

    Exports the model, runs the calibration batches through it to find the range of every activation,
    converts, exports again and rewrites. The model stays as it is; what is not quantized (biases, embeddings)
    is shared with the result, as `torch.export` does it. Dropout and the like are exported as in eval mode.

    Every linear that stays in float is logged with the reason (`logging.getLogger("q8ta_ops")`): as a
    warning, those of `float_modules` as an info. `q8ta_ops.rewrite(program).skipped` lists them, too.

    Args:
        model: a float32 model that `torch.export` can export.
        example_inputs: the arguments of one call: a tuple, a lone tensor, or a dict of keyword arguments.
            Only their shapes and types count.
        calibration: typical inputs in batches, each in the form of `example_inputs`. A few hundred rows will
            usually do. Read once; with `smooth`, all batches are kept and run twice.
        dynamic_shapes: as for `torch.export.export`, for instance `({0: torch.export.Dim("batch")},)`.
            Without it every batch must have the shapes of `example_inputs`.
        observer: how the range of an activation is found: "histogram", or "minmax"; see `Q8taConfig`.
        outputs: which results become int8: "auto", "always" or "never"; see `Q8taQuantizer`.
        per_channel: one weight scale for each output feature (True) or one for each weight.
        float_modules: names ("encoder.head") and classes of modules whose linears stay in float.
        smooth: None, or a strength from 0 to 1 (try 0.85): powers of two even the channels of activations out
            before ranges are found, and the weights make up for them. Transformers get clearly more accurate
            for one multiplication of each tensor that linears read in float; see `smooth.smooth_inputs`.
        embeddings: "float32", or "int8": embedding tables get one scale for each row and a quarter of the
            size.
        progress: whether to show a progress bar. None: on a terminal, if calibration takes more than 3 s.

    Returns:
        The quantized program: `program.module()` runs it, `q8ta_ops.save` or `torch.export.save` saves it.

    Raises:
        ValueError: an argument is not one of the above, `calibration` is empty, a batch does not run or makes
            an activation NaN or infinite, or the model has no module of `float_modules`.
    """
    if smooth is not None and not 0 <= smooth <= 1:
        raise ValueError(f"smooth: expected None or a number from 0 to 1, got {smooth!r}")
    if embeddings not in ("float32", "int8"):
        raise ValueError(f"embeddings: expected 'float32' or 'int8', got {embeddings!r}")
    quantizer = Q8taQuantizer(outputs=outputs, observer=observer, per_channel=per_channel)
    _leave_in_float(quantizer, model, float_modules)
    args, kwargs = _distinct(_arguments("example_inputs", example_inputs))
    if isinstance(calibration, (Tensor, Mapping)):
        kind = type(calibration).__name__
        raise ValueError(f"calibration: expected an iterable of batches, got one {kind}; pass [batch]")

    with _evaluating(model), torch.no_grad():
        exported = torch.export.export(model, args, kwargs, dynamic_shapes=dynamic_shapes)
        module = exported.module()
        with _buffers_restored(module, exported):
            if smooth is not None:
                calibration = list(calibration)
                smooth_inputs(
                    module,
                    smooth,
                    lambda: _run(module, calibration, progress),
                    lambda linear: quantizer.config_of(linear) is not None,
                )
        if embeddings == "int8":
            quantize_embeddings(module)
        prepared = prepare_pt2e(module, quantizer)
        with _buffers_restored(prepared, exported):
            _run(prepared, calibration, progress)
            _check_ranges(prepared)
            converted = convert_pt2e(prepared)  # runs what depends on constants only, writes included
        program = torch.export.export(converted, args, kwargs, dynamic_shapes=dynamic_shapes)
    result = rewrite(program)
    _log_linears_in_float(quantizer, result)
    return result.module


def _leave_in_float(
    quantizer: Q8taQuantizer, model: nn.Module, float_modules: Iterable[str | type[nn.Module]]
) -> None:
    modules = dict(model.named_modules(remove_duplicate=False))
    if isinstance(float_modules, (str, type)):
        float_modules = (float_modules,)
    for wanted in float_modules:
        if isinstance(wanted, type):
            if all(type(module) is not wanted for module in modules.values()):
                raise ValueError(f"float_modules: the model has no module of type {wanted.__qualname__}")
            quantizer.set_module_type(wanted, None)
            continue
        if wanted not in modules:
            near = get_close_matches(str(wanted), modules, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"float_modules: the model has no module {wanted!r}{hint}")
        # A module that the model holds under several names is exported under one of them.
        for name, module in modules.items():
            if module is modules[wanted]:
                quantizer.set_module_name(name, None)


def _arguments(what: str, inputs: object) -> _Call:
    """The call that one example or one batch stands for."""
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if isinstance(inputs, (tuple, list)):
        return tuple(inputs), {}
    raise ValueError(
        f"{what}: expected a tuple of arguments, a tensor or a dict of keyword arguments, "
        f"got {type(inputs).__name__}"
    )


def _distinct(call: _Call) -> _Call:
    """The same with copies of tensors that are there twice: torch.export would take them for one input."""
    seen: set[int] = set()

    def distinct(tensor: Tensor) -> Tensor:
        if id(tensor) in seen:
            return tensor.clone()
        seen.add(id(tensor))
        return tensor

    return tree_map_only(Tensor, distinct, call)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """eval() for a while; afterwards every module is in the mode that it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _buffers_restored(module: GraphModule, exported: ExportedProgram) -> Iterator[None]:
    """Afterwards the model's own buffers hold what they held, whatever the graph writes into them."""
    written = [name for name, _ in exported.named_buffers()]
    buffers = [(buffer, buffer.clone()) for name, buffer in module.named_buffers() if name in written]
    try:
        yield
    finally:
        for buffer, values in buffers:
            buffer.copy_(values)


def _run(module: GraphModule, calibration: Iterable[Any], progress: bool | None) -> None:
    count = 0
    for count, batch in enumerate(_with_progress(calibration, progress), start=1):
        args, kwargs = _arguments(f"calibration: batch {count - 1}", batch)
        try:
            module(*args, **kwargs)
        except Exception as error:
            # Most often a size that dynamic_shapes does not leave open.
            raise ValueError(f"calibration: batch {count - 1} does not run: {error}") from error
    if count == 0:
        raise ValueError("calibration: expected at least one batch, got an empty iterable")


def _check_ranges(prepared: GraphModule) -> None:
    for node in prepared.graph.nodes:
        observer = prepared.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(observer, ObserverBase) and not _has_range(observer):
            raise ValueError(
                f"calibration: NaN, infinities or nothing at all for the range of {node.args[0]}"
            )


def _has_range(observer: ObserverBase) -> bool:
    return bool(torch.isfinite(observer.min_val).all() and torch.isfinite(observer.max_val).all())


def _with_progress(batches: Iterable[Any], progress: bool | None) -> Iterable[Any]:
    if progress is False:
        return batches
    try:
        from tqdm import tqdm
    except ImportError as error:
        if progress is None:
            return batches
        raise ImportError("progress=True needs tqdm: pip install q8ta-ops[quantize]") from error
    # disable=None: only where standard error is a terminal.
    return tqdm(
        batches,
        desc="calibrating",
        unit="batch",
        delay=0 if progress else 3,
        disable=None if progress is None else False,
    )


def _log_linears_in_float(quantizer: Q8taQuantizer, result: RewriteResult) -> None:
    for node, reason in quantizer.skipped:
        level = logging.INFO if reason == ASKED_FOR_FLOAT else logging.WARNING
        _log.log(level, "linear %s stays in float: %s", layer_name(node) or node.name, reason)
    for node, reason in result.skipped:
        # The others are the quantizer's. It does not see nested graphs.
        if _is_quantized(node) or node.graph is not result.module.graph:
            _log.warning("linear %s stays in float: %s", layer_name(node) or node.name, reason)


def _is_quantized(linear: Node) -> bool:
    return any("dequantize" in target_name(operand) for operand in linear.all_input_nodes)
