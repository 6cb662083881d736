"""What a text in a program file may be, by what torch does with it.

torch writes names into the Python code of a module, so that a name which is more than a name would be code.
Each rule returns the text, or raises ValueError.
"""

from __future__ import annotations

import keyword
import re

_QUALIFIED_PART = re.compile(r"[\w-]+(@\d+)?")  # torch numbers the calls of a module: layer@1
_PAYLOAD = re.compile(r"(weight|tensor)_\d{1,9}")
# Powers only of an input's size, and by one digit: others can be numbers without end.
_GUARD_TOKEN = re.compile(
    r"L\['\w+'\](\[\d+\]|\['\w+'\])*(\.(size|stride)\(\)\[\d+\]|\.storage_offset\(\))?(\*\*\d\b)?"
    r"|\b(and|or|not|Min|Max|Mod|PythonMod|FloorDiv|Eq|Ne|True|False|min|max|abs|int|float|round)\b"
    r"|\bmath\.(floor|ceil|trunc|inf)\b|\btorch\.(sym_(max|min|float|int|ite|not)|_sym_sqrt)\b"
    r"|\b\d{1,19}(\.\d{1,19})?\b"
    r"|//?|[<>=!]=|[<>](?![<>])|[-+%(),]|\*(?!\*)|[ ]",
    re.ASCII,
)


def identifier(text: str) -> str:
    """A name in Python code."""
    if not (text.isascii() and text.isidentifier()) or keyword.iskeyword(text) or _is_special(text):
        raise ValueError(f"{_shown(text)} is not an identifier")
    return text


def argument_name(text: str) -> str:
    """The name of an operator's argument. Some have none; `self` and keywords (`from`) are possible."""
    if text and not (text.isascii() and text.isidentifier()):
        raise ValueError(f"{_shown(text)} is not an identifier")
    return text


def qualified_name(text: str) -> str:
    """The name of a module or tensor: encoder.layer.0.weight; empty for the whole program."""
    for part in text.split(".") if text else ():
        if not _QUALIFIED_PART.fullmatch(part) or _is_special(part):
            raise ValueError(f"{_shown(text)} is not a name of a module, parameter or buffer")
    return text


def payload_name(text: str) -> str:
    """The name of a tensor's entry in the archive."""
    if not _PAYLOAD.fullmatch(text):
        raise ValueError(f"{_shown(text)} is not a tensor in the archive; a pickled object is not read")
    return text


def device_type(text: str) -> str:
    if text == "meta" or not re.fullmatch("[a-z]+", text):
        raise ValueError(f"{_shown(text)} is not a device that holds data")
    return text


def plain_text(text: str) -> str:
    """One line without what could end a string in Python code."""
    if not text.isprintable() or any(letter in text for letter in "'\"\\"):
        raise ValueError(f"{_shown(text)} has quotes, backslashes or control characters")
    return text


def any_text(text: str) -> str:
    """A text that is only ever shown or handed to an operator."""
    return text


def guard(text: str) -> str:
    """A comparison of input sizes, which torch executes as Python code: "L['x'].size()[0] <= 8"."""
    end = 0
    while end < len(text) and (token := _GUARD_TOKEN.match(text, end)) is not None:
        end = token.end()
    if end != len(text) or len(text) > 1000:
        raise ValueError(f"{_shown(text)} is not a comparison of sizes")
    return text


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
