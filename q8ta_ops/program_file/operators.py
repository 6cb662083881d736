"""What the graph in a program file may call."""

from __future__ import annotations

import re

import torch

_OPERATOR = re.compile(r"torch\.ops\.(aten|q8ta|quantized_decomposed|torchao)\.([A-Za-z_]\w*)\.(\w+)")

_TORCHAO = frozenset(["quantize_affine", "dequantize_affine"])

# Arithmetic on sizes, and choosing an element of a result.
_FUNCTIONS = frozenset(
    [f"_operator.{name}" for name in "eq ne le ge lt gt neg pos mul add sub floordiv mod truediv".split()]
    + ["_operator.and_", "_operator.or_", "_operator.getitem", "math.trunc"]
    + [f"torch.sym_{name}" for name in "not int float ite max min sqrt".split()]
    # These take graphs, which are checked as the whole one is.
    + [
        f"torch.ops.higher_order.{name}"
        for name in ("cond", "wrap_with_set_grad_enabled", "wrap_with_autocast")
    ]
)

# aten is thousands of operators; these rules leave out those that touch files or other memory than that of
# their tensors, or that trust what they get: names with a leading underscore are internal, but for these.
_INTERNAL = frozenset(
    "_adaptive_avg_pool2d _adaptive_avg_pool3d _assert_async _assert_scalar _assert_tensor_metadata "
    "_cdist_forward _conj _fft_c2c _fft_c2r _fft_r2c _local_scalar_dense _log_softmax "
    "_native_batch_norm_legit _native_batch_norm_legit_functional _native_batch_norm_legit_no_training "
    "_scaled_dot_product_attention_math _scaled_dot_product_flash_attention_for_cpu _softmax _to_copy "
    "_trilinear _unsafe_view _upsample_bicubic2d_aa _upsample_bilinear2d_aa _weight_norm "
    "__and__ __or__ __xor__ __lshift__ __rshift__ __iand__ __ior__ __ixor__".split()
)
_LEFT_OUT = re.compile(
    r"from_file|set_?|set_data|resize\w*|unsafe_\w+|record_stream|retain_grad|\w*backward\w*"
    r"|\w*(sparse|csr|csc|bsr|bsc|coo|nested|mkldnn|cudnn|miopen|fbgemm|quantize|vulkan|mps)\w*"
)
_TYPES = re.compile(r"(Optional\[|List\[)*(Tensor|int|float|bool|number|str|complex|Device|Generator)\]*")


def call_target(text: str) -> str:
    """Returns the name of a function that a graph may call.

    Raises:
        ValueError: it may not, or torch does not know it in this process.
    """
    if text in _FUNCTIONS:
        return text
    parts = _OPERATOR.fullmatch(text)
    if parts is None or not _is_allowed(*parts.groups()):
        raise ValueError(
            f"the graph calls {text[:200]!r}, which the graph in a program file may not: it may call "
            "operators of q8ta, aten and quantized_decomposed that compute with tensors, "
            "and functions of sizes"
        )
    return text


def _is_allowed(namespace: str, name: str, overload: str) -> bool:
    packet = getattr(getattr(torch.ops, namespace), name, None)
    if not isinstance(packet, torch._ops.OpOverloadPacket) or overload not in packet.overloads():
        return False
    if namespace != "aten":
        return namespace != "torchao" or name in _TORCHAO
    if name not in _INTERNAL and (name.startswith("_") or _LEFT_OUT.fullmatch(name)):
        return False
    schema = getattr(packet, overload)._schema
    return all(_TYPES.fullmatch(str(value.type)) for value in (*schema.arguments, *schema.returns))
