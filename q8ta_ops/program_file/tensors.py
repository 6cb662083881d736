"""The tensors of a program file: views of the bytes of its entries, which they never leave."""

from __future__ import annotations

from typing import Any

import torch
from torch._export.serde import schema
from torch._export.serde.serialize import deserialize_device, deserialize_scalar_type

from .archive import Archive


def read_tensors(
    archive: Archive, folder: str, payloads: dict[str, schema.PayloadMeta]
) -> dict[str, torch.Tensor]:
    """The tensors of a folder of the archive, by name. Those of one entry share its memory, as they did.

    Raises:
        ValueError: one is pickled, of no plain layout, or reaches outside its bytes.
    """
    entries: dict[tuple[str, torch.device], torch.Tensor] = {}
    tensors = {}
    for name, payload in payloads.items():
        check_payload(name, payload)
        meta = payload.tensor_meta
        key = payload.path_name, deserialize_device(meta.device)
        if key not in entries:
            entries[key] = archive.read_bytes(folder + payload.path_name).to(key[1])
        try:
            tensor = _view(entries[key], meta)
        except ValueError as error:
            raise ValueError(f"the tensor {name!r}: {error}") from None
        if payload.is_param:
            tensor = torch.nn.Parameter(tensor, requires_grad=meta.requires_grad)
        tensors[name] = tensor
    return tensors


def check_payload(name: str, payload: schema.PayloadMeta) -> None:
    """Raises ValueError if a tensor of the file is not plain bytes."""
    if payload.use_pickle or payload.tensor_meta is None:
        raise ValueError(
            f"the tensor {name!r} ({payload.path_name}) is a pickle: a program file holds plain tensors, no "
            "subclasses of torch.Tensor and no other objects"
        )
    if payload.tensor_meta.layout != schema.Layout.Strided:
        raise ValueError(f"the tensor {name!r} is {payload.tensor_meta.layout.name}, not strided")


def _view(content: torch.Tensor, meta: schema.TensorMeta) -> torch.Tensor:
    dtype = deserialize_scalar_type(meta.dtype)
    sizes, strides = _numbers(meta.sizes), _numbers(meta.strides)
    (offset,) = _numbers([meta.storage_offset])
    if len(sizes) != len(strides):
        raise ValueError(f"{len(sizes)} sizes and {len(strides)} strides")
    elements = 0  # up to the last one
    if 0 not in sizes:
        elements = offset + 1 + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if elements * dtype.itemsize > content.numel():
        raise ValueError(
            f"{dtype} of sizes {sizes}, strides {strides}, offset {offset} reaches outside its "
            f"{content.numel()} bytes"
        )
    return torch.empty(0, dtype=dtype, device=content.device).set_(
        content.untyped_storage(), offset, sizes, strides
    )


def _numbers(values: list[schema.SymInt]) -> list[int]:
    numbers: list[Any] = [value.as_int if value.type == "as_int" else None for value in values]
    if any(number is None or number < 0 for number in numbers):
        raise ValueError("its sizes, strides and offset are not numbers from 0")
    return numbers
