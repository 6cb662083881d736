"""Symbolic sizes in a program file, which torch hands to sympy.sympify, and so to eval.

The grammar is that of sympy.srepr for what sizes are made of:

    expression = Symbol('s0', positive=True, ...) | Integer(2) | Rational(1, 2) | Float('0.5', precision=53)
               | true | false | Function(expression, ...)
"""

from __future__ import annotations

import re

_SYMBOL = r"(?:s|u|z|zf|zuf)\d{1,6}"

_SYMBOL_CALL = rf"Symbol\('{_SYMBOL}'(, \w+=(True|False))*\)"
_LEAF = re.compile(
    rf"{_SYMBOL_CALL}|Integer\(-?\d{{1,19}}\)|Rational\(-?\d{{1,19}}, \d{{1,19}}\)"
    r"|Float\('-?[\d.e+-]{1,40}', precision=\d{1,2}\)|true\b|false\b",
    re.ASCII,
)
# Pow can make numbers without end: of a symbol, and by one digit, is what sizes need.
_POWER = re.compile(rf"Pow\({_SYMBOL_CALL}, Integer\(-?\d\)\)", re.ASCII)
_FUNCTION = re.compile(r"(\w+)\(")
_FUNCTIONS = frozenset(
    "Add Mul Max Min Mod PythonMod FloorDiv CleanDiv CeilDiv ModularIndexing IntTrueDiv FloatTrueDiv ToFloat "
    "TruncToInt TruncToFloat FloorToInt CeilToInt RoundToInt Where Identity "
    "Equality Unequality LessThan StrictLessThan GreaterThan StrictGreaterThan And Or Not".split()
)
_LONGEST = 2000


def expression(text: str) -> str:
    """Returns the text if it is a symbolic expression.

    Raises:
        ValueError: it is something else, or too long.
    """
    if len(text) <= _LONGEST and _end(text, 0) == len(text):
        return text
    shown = text if len(text) <= 80 else text[:77] + "..."
    raise ValueError(f"{shown!r} is not a symbolic expression of sizes")


def bounded_size(text: str) -> str:
    """Returns the text if a range may be given for it: a symbol, or 2*s0, which torch only looks up.

    Raises:
        ValueError: it is something else. In the names of unbacked symbols, u0, torch reads the number.
    """
    if not re.fullmatch(rf"{_SYMBOL}|(?![uz])[\w+*/(), -]{{1,200}}", text, re.ASCII):
        raise ValueError(f"{text[:80]!r} is not a symbolic size")
    return text


def _end(text: str, begin: int) -> int | None:
    """Where the expression that begins there ends; None if none does."""
    if (whole := _LEAF.match(text, begin) or _POWER.match(text, begin)) is not None:
        return whole.end()
    function = _FUNCTION.match(text, begin)
    if function is None or function[1] not in _FUNCTIONS:
        return None
    begin = function.end()
    while (end := _end(text, begin)) is not None:
        if text.startswith(", ", end):
            begin = end + 2
        else:
            return end + 1 if text.startswith(")", end) else None
    return None
