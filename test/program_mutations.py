"""Changes to a program file, chosen one by one: what the property tests and the fuzzer try out.

The choices come from a seed, from hypothesis or from a fuzzer, which can repeat and shrink them.
"""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
from typing import Any

from choosing import Chooser

Entries = list[tuple[str, bytes]]

SYMBOL = "Symbol('s77', positive=True, integer=True)"
ODD_VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        -1,
        0,
        1,
        2,
        3,
        5,
        7,
        16,
        31,
        4096,
        2**31 - 1,
        2**31,
        2**32,
        2**40,
        2**62,
        2**63 - 1,
    ),
    *(2**63, -(2**63), -(2**63) - 1, 10**30, 10**5000, 0.5, -0.0, 1e308, "Infinity", "NaN", float("nan")),
    *(
        "",
        "x",
        "first.weights",
        "weight_0",
        "weight_1",
        "../x",
        "/etc/passwd",
        "a\\b",
        "a\0b",
        "é",
        "x'",
        'x"',
    ),
    *(
        "\ud800",
        "__class__",
        "forward",
        "self",
        "import",
        "x\ny",
        "cpu",
        "cuda",
        "meta",
        "vk",
        "relu",
        "none",
    ),
    *([], {}, [[]], [None], {"as_int": 1}, {"as_none": True}, {"as_tensor": {"name": "x"}}),
    *({"as_tensor": {"name": "linear"}}, {"as_expr": {"expr_str": SYMBOL, "hint": {"as_int": 4}}}),
    *({"as_expr": {"expr_str": SYMBOL, "hint": None}}, {"as_expr": {"expr_str": "Integer(9)", "hint": None}}),
    *(SYMBOL, f"Mul(Integer(2), {SYMBOL})", f"Pow({SYMBOL}, Integer(-1))", "Mod(Integer(1), Integer(0))"),
    *("FloorDiv(Integer(1), Integer(0))", f"StrictLessThan({SYMBOL}, Integer(0))", "true", "Max()", "u0"),
    *("L['x'].size()[0] >= 3", "L['x'].size()[9] >= 3", "Mod(1, 0)", "((((", "s77", "u999999"),
    *("torch.ops.aten.relu.default", "torch.ops.aten.add.Tensor", "torch.ops.aten.as_strided.default"),
    *("torch.ops.aten.view.default", "torch.ops.aten.from_file.default", "torch.ops.q8ta.pack.default"),
    *("torch.ops.q8ta.linear.default", "torch.ops.q8ta.unpack.default", "torch.ops.higher_order.cond"),
    *("_operator.getitem", "_operator.floordiv", "torch.sym_max", "torch.os.system", "[1, null]"),
)
ODD_NAMES = (
    *("../x", "/x", "archive/../x", "archive/", "archive", "archive\\x", "other/models/model.json"),
    *("archive/data/weights/weight_0", "archive/data/weights/weight_99", "archive/models/model.json"),
    *("archive/models/other.json", "archive/data/constants/opaque_obj_0", "archive/data/weights/model.pt"),
    *(
        "archive/data/aotinductor/model/x.so",
        "archive/extra/q8ta_manifest.json",
        "archive/byteorder",
        "a" * 65000,
    ),
)
ODD_CONTENTS = (
    b"",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"\xff\xfe",
    b"1" * 10_000,
    b"null",
    b"[]",
    b'"',
    b"{}",
)
ODD_NUMBERS = (0, 1, 8, 99, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFE)


def entries_of(archive: bytes) -> Entries:
    with zipfile.ZipFile(io.BytesIO(archive)) as content:
        return [(info.filename, content.read(info)) for info in content.infolist()]


def archive_of(entries: Entries, compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", compression) as archive:
        warnings.filterwarnings("ignore", message="Duplicate name")
        for name, data in entries:
            archive.writestr(name, data)
    return file.getvalue()


def mutated(archive: bytes, chooser: Chooser) -> bytes:
    """The archive with one to four changes of one kind."""
    kind = _below(8, chooser)
    count = 1 + _below(4, chooser)
    if kind == 0:
        return _with_other_bytes(archive, chooser, count)
    if kind == 1:
        return _with_other_headers(archive, chooser, count)
    entries = entries_of(archive)
    for _ in range(count):
        if kind == 2:
            _change_entries(entries, chooser)
        elif kind == 3:
            _change_tensors(entries, chooser)
        else:
            _change_json(entries, chooser)
    return archive_of(
        entries, zipfile.ZIP_DEFLATED if kind == 2 and _below(8, chooser) == 7 else zipfile.ZIP_STORED
    )


def _below(count: int, chooser: Chooser) -> int:
    return chooser.integer(0, count - 1)


def _with_other_bytes(archive: bytes, chooser: Chooser, count: int) -> bytes:
    data = bytearray(archive)
    for _ in range(count):
        begin = _below(len(data) + 1, chooser)
        change = _below(4, chooser)
        if change == 0:
            data[begin:] = b""
        elif change == 1:
            data[begin : begin + 1] = bytes([_below(256, chooser)])
        elif change == 2:
            data[begin : begin + _below(64, chooser)] = b""
        else:
            data[begin:begin] = bytes(_below(256, chooser) for _ in range(_below(8, chooser)))
    return bytes(data)


def _with_other_headers(archive: bytes, chooser: Chooser, count: int) -> bytes:
    """Other sizes, offsets, flags and names in the zip's own records."""
    data = bytearray(archive)
    signature = chooser.one_of((b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"))
    found = [begin for begin in range(len(data)) if data.startswith(signature, begin)]
    for _ in range(count):
        begin = chooser.one_of(found) + 4 + _below(44, chooser)
        number = chooser.one_of(ODD_NUMBERS)
        packed = struct.pack("<I", number) if _below(2, chooser) else struct.pack("<H", number & 0xFFFF)
        if begin + len(packed) <= len(data):
            data[begin : begin + len(packed)] = packed
    return bytes(data)


def _change_entries(entries: Entries, chooser: Chooser) -> None:
    index = _below(len(entries), chooser)
    name, data = entries[index]
    change = _below(6, chooser)
    if change == 0 and len(entries) > 1:
        del entries[index]
    elif change == 1:
        entries.append((name, chooser.one_of(entries)[1]))
    elif change == 2:
        entries[index] = (chooser.one_of(ODD_NAMES), data)
    elif change == 3:
        entries.append((chooser.one_of(ODD_NAMES), data))
    elif change == 4:
        entries[index] = (name, chooser.one_of(entries)[1])
    else:
        entries[index] = (name, chooser.one_of(ODD_CONTENTS))


def _change_tensors(entries: Entries, chooser: Chooser) -> None:
    tensors = [index for index, (name, _) in enumerate(entries) if "/weight_" in name or "/tensor_" in name]
    if not tensors:
        return
    index = chooser.one_of(tensors)
    name, data = entries[index]
    change = _below(4, chooser)
    if change == 0:
        data = data[: _below(len(data) + 1, chooser)]
    elif change == 1:
        data += bytes(_below(64, chooser))
    elif change == 2 and data:
        at = _below(len(data), chooser)
        data = data[:at] + bytes([_below(256, chooser)]) + data[at + 1 :]
    else:
        data = chooser.one_of((b"", b"\xff" * len(data), bytes(len(data)), data[1:], data + data))
    entries[index] = (name, data)


def _change_json(entries: Entries, chooser: Chooser) -> None:
    indices = [index for index, (name, _) in enumerate(entries) if name.endswith(".json")]
    index = chooser.one_of(indices)
    name, data = entries[index]
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return
    for _ in range(1 + _below(3, chooser)):
        content = _with_other_value(content, chooser)
    entries[index] = (name, _dumped(content))


def _dumped(content: Any) -> bytes:
    try:
        return json.dumps(content).encode()
    except ValueError:  # 10**5000 has more digits than Python writes
        return b"9" * 5000


def _places(content: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    places, rest = [], [content]
    while rest:
        container = rest.pop()
        keys = list(container) if isinstance(container, dict) else range(len(container))
        for key in keys:
            places.append((container, key))
            if isinstance(container[key], dict | list):
                rest.append(container[key])
    return places


def _with_other_value(content: Any, chooser: Chooser) -> Any:
    places = _places(content) if isinstance(content, dict | list) else []
    if not places:
        return chooser.one_of(ODD_VALUES)
    container, key = chooser.one_of(places)
    change = _below(8, chooser)
    if change == 0:
        del container[key]
    elif change == 1:
        other, other_key = chooser.one_of(places)
        if isinstance(container, dict) and isinstance(other_key, str):
            container[other_key] = container.pop(key)
        else:
            container[key] = _copied(other[other_key])
    elif change <= 3:  # another value of this file, which is more often nearly right
        other, other_key = chooser.one_of(places)
        if (isinstance(other, list) and other_key < len(other)) or (
            isinstance(other, dict) and other_key in other
        ):
            container[key] = _copied(other[other_key])
    elif change == 4 and isinstance(container, list):
        container.insert(key, _copied(chooser.one_of(container)))
    elif change == 5 and type(container[key]) in (int, float):
        container[key] = container[key] + _below(5, chooser) - 2
    else:
        container[key] = _copied(chooser.one_of(ODD_VALUES))
    return content


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value
