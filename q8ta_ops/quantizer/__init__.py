"""A PT2E quantizer that annotates linear layers so that `q8ta_ops.rewrite` accepts every one of them.

Needs torchao (`pip install q8ta-ops[quantize]`); the rest of the package works without it.
`q8ta_ops.quantize` does all of this in one call:

    exported = torch.export.export(model, (example,)).module()
    prepared = prepare_pt2e(exported, q8ta_ops.Q8taQuantizer())
    prepared(calibration_batch)
    converted = convert_pt2e(prepared)
    program = q8ta_ops.rewrite(converted).module
"""

from .annotate import ASKED_FOR_FLOAT, Q8taQuantizer
from .config import Q8taConfig

__all__ = ["ASKED_FOR_FLOAT", "Q8taConfig", "Q8taQuantizer"]
