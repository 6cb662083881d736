"""How a linear is quantized: the choices, and what they mean in torchao's words."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torchao.quantization.pt2e import MinMaxObserver, PerChannelMinMaxObserver
from torchao.quantization.pt2e.quantizer import QuantizationSpec

from ..rewrite.clamps import Limits
from .observers import ClampedHistogramObserver, ClampedMinMaxObserver

OBSERVERS = {"histogram": ClampedHistogramObserver, "minmax": ClampedMinMaxObserver}
_NONE = Limits()
OUTPUTS = ("auto", "always", "never")


@dataclass(frozen=True)
class Q8taConfig:
    """How linear layers are quantized; for `Q8taQuantizer.set_global`, `set_module_type`, `set_module_name`.

    Attributes:
        observer: how the range of an activation is found. "histogram" cuts outliers off where that makes the
            squared error smaller, "minmax" takes everything that the calibration showed.
        per_channel: one weight scale for each output feature (True) or one for the whole weight.
        outputs: whose results become int8; see `Q8taQuantizer`.

    Raises:
        ValueError: a field has another value than these.
    """

    observer: str = "histogram"
    per_channel: bool = True
    outputs: str = "auto"

    def __post_init__(self) -> None:
        _check_choice("observer", self.observer, tuple(OBSERVERS))
        _check_choice("outputs", self.outputs, OUTPUTS)
        if not isinstance(self.per_channel, bool):
            raise ValueError(f"per_channel: expected True or False, got {self.per_channel!r}")

    def activation_spec(self, limits: Limits = _NONE) -> QuantizationSpec:
        """int8 per tensor, affine, the whole range; for values that are known to lie within `limits`."""
        return QuantizationSpec(
            dtype=torch.int8,
            quant_min=-128,
            quant_max=127,
            qscheme=torch.per_tensor_affine,
            observer_or_fake_quant_ctr=OBSERVERS[self.observer].with_args(
                lower=limits.low, upper=limits.high
            ),
        )

    def weight_spec(self) -> QuantizationSpec:
        """int8 [N, K], symmetric -127..127 with zero point 0, per output feature or per tensor."""
        return QuantizationSpec(
            dtype=torch.int8,
            quant_min=-127,
            quant_max=127,
            qscheme=torch.per_channel_symmetric if self.per_channel else torch.per_tensor_symmetric,
            ch_axis=0 if self.per_channel else None,
            observer_or_fake_quant_ctr=PerChannelMinMaxObserver if self.per_channel else MinMaxObserver,
        )


def _check_choice(argument: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        expected = ", ".join(map(repr, choices))
        raise ValueError(f"{argument}: expected one of {expected}, got {value!r}")
