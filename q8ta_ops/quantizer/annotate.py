"""The quantizer: which linears are quantized, how, and which results are int8."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter

import torch
from torch import nn
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpecBase,
    Quantizer,
    SharedQuantizationSpec,
)
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

from ..ops import MAX_K
from ..rewrite.clamps import Limits
from ..rewrite.nodes import arguments, describe, fake_value, target_name
from ..rewrite.result import Skipped
from .config import Q8taConfig
from .flow import Region, activated, region_of
from .memory import changed_between

ASKED_FOR_FLOAT = "its configuration asks for it"
"""Reason in `Q8taQuantizer.skipped` of the linears that the user wants in float."""


@dataclass(frozen=True)
class _Linear:
    """A linear that gets quantized. `result` is its value behind its activations, which lies in `limits`."""

    node: Node
    x: Node
    weights: Node
    config: Q8taConfig
    result: Node
    limits: Limits

    @property
    def input_spec(self) -> QuantizationSpecBase:
        return self.config.activation_spec()

    @property
    def output_spec(self) -> QuantizationSpecBase:
        return self.config.activation_spec(self.limits)


class Q8taQuantizer(Quantizer):
    """Annotates every float32 `aten.linear` for the q8ta operators.

    Inputs become int8 per tensor (affine, -128..127), weights int8 per output feature (symmetric, -127..127),
    the bias stays float32. relu, relu6, hardtanh and clamp that are alone behind a linear belong to it: then
    their result is quantized, with a range that lets the rewrite drop them.

    Args (of everything that `set_global`, `set_module_type` and `set_module_name` do not set):
        outputs: which results become int8.
            "auto": where every consumer, through clamps, shape operators and cat, is a quantized linear. They
            all use the same scale, so int8 goes from linear to linear. Anything else, such as a residual
            addition, a normalization or softmax, gets float32.
            "always": every one. A chain of linears loses little by it, a transformer much.
            "never": none. Every linear quantizes its own input with its own scale. The rewrite still computes
            that quantization inside the linear before it, where nothing else uses the result: same bits.
        observer: "histogram" or "minmax", see `Q8taConfig`.
        per_channel: one weight scale for each output feature (True) or one for the whole weight.

    Attributes:
        skipped: the linears that `annotate` left in float, and why: they are configured so, the weight is
            computed in the graph or not float32, more than 65,793 input features, the input is written to
            after it was computed. Those that another quantizer (of a `ComposableQuantizer`) annotated before
            are not listed.

    Raises:
        ValueError: an argument has none of the values above.
    """

    def __init__(
        self, *, outputs: str = "auto", observer: str = "histogram", per_channel: bool = True
    ) -> None:
        super().__init__()
        self._global: Q8taConfig | None = Q8taConfig(observer, per_channel, outputs)
        self._of_type: dict[str, Q8taConfig | None] = {}
        self._of_name: dict[str, Q8taConfig | None] = {}
        self.skipped: list[Skipped] = []

    def set_global(self, config: Q8taConfig | None) -> Q8taQuantizer:
        """Sets the configuration of all linears that have none of their own. None leaves them in float."""
        self._global = _checked(config)
        return self

    def set_module_type(self, module_type: type[nn.Module], config: Q8taConfig | None) -> Q8taQuantizer:
        """Sets the configuration of the linears in modules of exactly this type. None leaves them in float.

        Of several types around a linear the innermost counts. It beats the global configuration.
        """
        if not isinstance(module_type, type):
            raise ValueError(f"module_type: expected a class, got {module_type!r}")
        self._of_type[_type_name(module_type)] = _checked(config)
        return self

    def set_module_name(self, module_name: str, config: Q8taConfig | None) -> Q8taQuantizer:
        """Sets the configuration of the linears in the submodule "a.b.c". None leaves them in float.

        Of several modules around a linear the innermost counts. It beats module types and the global
        configuration.
        """
        if not isinstance(module_name, str):
            raise ValueError(f"module_name: expected a string such as 'encoder.fc1', got {module_name!r}")
        self._of_name[module_name] = _checked(config)
        return self

    def annotate(self, model: GraphModule) -> GraphModule:
        """Writes the annotations into the node metadata of `model` and returns it."""
        taken = {node for node in model.graph.nodes if _is_annotated(node)}
        linears = [
            each for node in model.graph.nodes if (each := self._linear(model, node, taken)) is not None
        ]
        for linear in linears:
            _annotate(linear.node).input_qspec_map = {
                linear.x: linear.input_spec,
                linear.weights: linear.config.weight_spec(),
            }
            # Nobody else is to annotate the activation.
            _annotate(linear.result)
        self._annotate_outputs(linears)
        return model

    def validate(self, model: GraphModule) -> None:
        """Nothing to check: what the annotations ask for is what the operators accept."""

    def _linear(self, model: GraphModule, node: Node, taken: set[Node]) -> _Linear | None:
        """The linear of a node; None for other nodes and for linears that are left alone."""
        if target_name(node) != "aten.linear.default" or node in taken:
            return None
        config = self.config_of(node)
        reason = ASKED_FOR_FLOAT if config is None else _reason_against(model, node)
        if config is None or reason:
            self.skipped.append(Skipped(node, reason))
            return None
        call = arguments(node)
        return _Linear(node, call["input"], call["weight"], config, *activated(node, stop_at=taken))

    def config_of(self, node: Node) -> Q8taConfig | None:
        """How a linear of an exported graph is configured; None: it stays in float."""
        around = list((node.meta.get("nn_module_stack") or {}).values())[::-1]
        for path, _ in around:
            # The first is how strict export writes it, the second marks a further call of the same module.
            name = path.removeprefix("L['self'].").partition("@")[0]
            if name in self._of_name:
                return self._of_name[name]
        for _, module_type in around:
            if _type_name(module_type) in self._of_type:
                return self._of_type[_type_name(module_type)]
        return self._global

    def _annotate_outputs(self, linears: list[_Linear]) -> None:
        sources = {linear.result: linear for linear in linears if linear.config.outputs != "never"}
        inputs = {linear.node: linear.x for linear in linears}
        position = {source: index for index, source in enumerate(sources)}
        done: set[Node] = set()
        for source in sources:
            if source in done:
                continue
            region = region_of(source, sources, inputs)
            region.sources.sort(key=position.__getitem__)
            done.update(region.sources)
            members = [sources[node] for node in region.sources]
            always = [linear for linear in members if linear.config.outputs == "always"]
            everywhere = len(always) == len(members) or (region.edges and not region.other_consumers)
            if everywhere and not region.other_sources:
                _share(region, members)
            else:
                for linear in always:
                    _annotate(linear.result).output_qspec = linear.output_spec


def _share(region: Region, members: list[_Linear]) -> None:
    """One observer, and so one scale, for all tensors of a region."""
    limits = Limits(
        max(linear.limits.low for linear in members), min(linear.limits.high for linear in members)
    )
    first = members[0]
    _annotate(first.result).output_qspec = first.config.activation_spec(limits)
    shared = SharedQuantizationSpec(first.result)
    for linear in members[1:]:
        _annotate(linear.result).output_qspec = shared
    for x, linear in region.edges:
        _annotate(linear).input_qspec_map[x] = shared


def _annotate(node: Node) -> QuantizationAnnotation:
    annotation = node.meta.setdefault(Q_ANNOTATION_KEY, QuantizationAnnotation())
    annotation._annotated = True
    return annotation


def _is_annotated(node: Node) -> bool:
    annotation = node.meta.get(Q_ANNOTATION_KEY)
    return annotation is not None and annotation._annotated


def _reason_against(model: GraphModule, linear: Node) -> str:
    """Why the operators cannot compute a linear, in words; empty if they can."""
    call = arguments(linear)
    if not isinstance(call["input"], Node):
        return "its input is not a tensor of the graph"
    if changed_between(call["input"], linear):
        return f"its input {call['input']} is changed in place after it was computed"
    weight = _constant(model, call["weight"])
    if weight is None:
        return f"its weight is not a parameter or buffer: it comes from {describe(call['weight'])}"
    if weight.dtype != torch.float32:
        return f"its weight is {weight.dtype}, expected torch.float32"
    if weight.dim() != 2 or weight.numel() == 0:
        return f"its weight has the shape {list(weight.shape)}, expected [N, K] with N and K above 0"
    if weight.shape[1] > MAX_K:
        return f"it has {weight.shape[1]} input features, the bound of exact int32 sums is {MAX_K}"
    bias = call["bias"]
    if isinstance(bias, Node):
        value = _constant(model, bias)
        value = fake_value(bias) if value is None else value
        if value is None or value.dtype != torch.float32 or value.shape != weight.shape[:1]:
            return f"its bias is not float32 [{weight.shape[0]}]"
    return ""


def _constant(model: GraphModule, node: object) -> torch.Tensor | None:
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    value = attrgetter(node.target)(model)
    return value if isinstance(value, torch.Tensor) else None


def _checked(config: object) -> Q8taConfig | None:
    if config is not None and not isinstance(config, Q8taConfig):
        raise ValueError(f"config: expected a Q8taConfig or None, got {config!r}")
    return config


def _type_name(module_type: object) -> str:
    """The class's full name; export writes it as a string or leaves the class itself."""
    if isinstance(module_type, type):
        return f"{module_type.__module__}.{module_type.__qualname__}"
    return str(module_type)
