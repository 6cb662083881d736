"""What a rewrite returns, and how it says that a linear has to be left alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

Module = TypeVar("Module", GraphModule, ExportedProgram)


class NoMatch(Exception):
    """A linear has to be left alone. The message is the reason, in words."""


@dataclass(frozen=True)
class Replaced:
    """One linear that became a q8ta operator.

    Attributes:
        op: "linear", "linear_gemv" or "linear_dequant".
        node: the new node, in the graph of `RewriteResult.module`.
        linear: name that the linear's node had.
        layer: path of the module that it came from, such as "encoder.fc1"; empty where not known.
        in_features: K.
        out_features: N.
        activation: "none" or "relu".
        note: for `linear_dequant`, why the result is not int8; empty otherwise.
    """

    op: str
    node: Node
    linear: str
    layer: str
    in_features: int
    out_features: int
    activation: str
    note: str = ""

    def __str__(self) -> str:
        name = self.layer or self.linear
        relu = " + relu" if self.activation == "relu" else ""
        note = f" ({self.note})" if self.note else ""
        return f"{name}: q8ta.{self.op}{relu}, {self.in_features} -> {self.out_features}{note}"


class Skipped(NamedTuple):
    """A linear that was left alone: its node in the graph of `RewriteResult.module`, and why."""

    node: Node
    reason: str


@dataclass(frozen=True)
class RewriteResult(Generic[Module]):
    """A rewritten module of the kind that was passed in, and what was done to each of its linears."""

    module: Module
    replaced: list[Replaced] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{len(self.replaced)} replaced, {len(self.skipped)} left alone"]
        lines += [f"  {replaced}" for replaced in self.replaced]
        lines += [f"  {node.name}: left alone, {reason}" for node, reason in self.skipped]
        return "\n".join(lines)
