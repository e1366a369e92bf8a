"""Conditions on runs, such as `model.n_layer>=4 and val/bpb<2`. A small grammar; nothing is evaluated as Python.

    condition   comparisons with `and`, `or`, `not` and parentheses
    comparison  of values with < <= > >= == !=, or `in` a list or a text; several in a row, as in 2 <= n < 8
    value       a number, a text in quotes, true, false, null, or the name of a setting, a metric or a field

A run without a value has null there, and a comparison by order with null, or of a number with a text, is false.
"""

from __future__ import annotations

import ast
import operator
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from gptexp.util.errors import RunError

LONGEST = 1000  # characters; a longer text may nest deeper than Python's stack
# Texts and numbers are kept. Names contain dots, slashes and hyphens, so each becomes an identifier for the parser.
_WORD = re.compile(
    r"""(?P<kept>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\.?\d[\w.]*[eE][+-]\d+|\.?\d[\w.]*)"""
    r"|(?P<name>[^\W\d][\w-]*(?:[./][\w-]+)*)"
)
_WORDS = {name: name for name in ("and", "or", "not", "in", "True", "False", "None")}
_WORDS |= {"true": "True", "false": "False", "null": "None"}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}

Lookup = Callable[[str], Any]
Term = Callable[[Lookup], Any]


def parse(text: str, known: Iterable[str]) -> Term:
    """Return a condition: a function of one that gives the value of a name, None without one.

    known: the names of settings, metrics and fields.

    Raises:
        RunError: another form, or an unknown name; the message has an example, or a similar name.
    """
    names: dict[str, str] = {}  # by identifier

    def identifier(found: re.Match[str]) -> str:
        name = found["name"]
        if name is None or name in _WORDS:
            return _WORDS.get(found[0], found[0])
        names[f"_{len(names)}"] = name
        return f"_{len(names) - 1}"

    try:
        if len(text) > LONGEST:
            raise ValueError
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(_WORD.sub(identifier, text).strip(), mode="eval")
        term = _term(tree.body, names)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        example = 'only comparisons with and, or, not and parentheses are, such as "model.n_layer>=4 and val/bpb<2"'
        remedy = "write == to compare" if re.search(r"(?<![<>=!])=(?!=)", text) else example
        raise RunError(f"--where={text[:80]}: is not a condition; {remedy}") from None
    names |= {key: full_name(name, known, "--where") for key, name in names.items()}
    return term


def _term(node: ast.expr, names: Mapping[str, str]) -> Term:
    """Return a function that computes a part of a condition. ValueError: whatever is not listed here."""
    match node:
        case ast.BoolOp(op=op, values=values):
            parts, combine = [_term(value, names) for value in values], all if isinstance(op, ast.And) else any
            return lambda lookup: combine(part(lookup) for part in parts)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            negated = _term(operand, names)
            return lambda lookup: not negated(lookup)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return lambda lookup: -number
        case ast.Compare(left=left, ops=ops, comparators=others) if {type(op) for op in ops} <= _COMPARISONS.keys():
            terms = [_term(part, names) for part in (left, *others)]
            return lambda lookup: all(map(_holds, ops, values := [term(lookup) for term in terms], values[1:]))
        case ast.Name(id=name) if name in names:
            return lambda lookup: lookup(names[name])
        case ast.Constant(value=None | bool() | int() | float() | str() as constant):
            return lambda lookup: constant
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            listed = [_term(element, names) for element in elements]
            return lambda lookup: [element(lookup) for element in listed]
    raise ValueError


def _holds(op: ast.cmpop, a: Any, b: Any) -> bool:
    try:
        return bool(_COMPARISONS[type(op)](a, b))
    except TypeError:  # of different kinds, such as a number and null
        return isinstance(op, ast.NotIn)


def full_name(name: str, known: Iterable[str], option: str) -> str:
    """Return the name of a setting, metric or field, from that name or from its unique last part (`n_layer`).

    Raises:
        RunError: no such name, or several; the message has a similar one.
    """
    names = list(dict.fromkeys(known))
    if name in names:
        return name
    ends = [key for key in names if key.endswith((f".{name}", f"/{name}"))]
    if len(ends) == 1:
        return ends[0]
    near = get_close_matches(name, [*names, *(re.split("[./]", key)[-1] for key in names)], n=1)
    hint = f"did you mean {near[0]}?" if near else "`gptexp runs --json` shows the names; text needs quotes"
    hint = f"choose one of {', '.join(ends[:6])}" if ends else hint
    raise RunError(f"{option}: {name}: no setting, metric or field of these runs; {hint}")
