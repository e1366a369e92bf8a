"""Conditions on runs, such as `model.n_layer>=4 and val/bpb<2`. A small grammar; nothing is evaluated as Python.

    condition   comparisons with `and`, `or`, `not` and parentheses
    comparison  of values with < <= > >= == !=, or `in` a list or a text; several in a row, as in 2 <= n < 8
    value       a number, a text in quotes, true, false, null, or the name of a setting, a metric or a field

A run without a value has null there, and a comparison by order with null, or of a number with a text, is false.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from gptexp.util.errors import RunError

EXAMPLE = '"model.n_layer>=4 and val/bpb<2"'
LONGEST = 1000  # characters; a longer text may nest deeper than Python's stack
# Texts and numbers are kept. Names contain dots, slashes and hyphens, so each becomes an identifier for the parser.
_WORD = re.compile(
    r"""(?P<kept>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\.?\d[\w.]*[eE][+-]\d+|\.?\d[\w.]*)"""
    r"|(?P<name>[^\W\d][\w-]*(?:[./][\w-]+)*)"
)
_WORDS = ("and", "or", "not", "in")
_CONSTANTS = {"true": "True", "false": "False", "null": "None", "True": "True", "False": "False", "None": "None"}

Lookup = Callable[[str], Any]
Term = Callable[[Lookup], Any]


@dataclass(frozen=True)
class Condition:
    """A parsed condition. names: those in it, as they are written."""

    text: str
    names: tuple[str, ...]
    term: Term

    def holds(self, lookup: Lookup) -> bool:
        """Return whether it holds for a run. lookup: gives the value of a name, None without one."""
        return bool(self.term(lookup))


def parse(text: str) -> Condition:
    """Return a condition.

    Raises:
        RunError: another form; the message has an example.
    """
    names: list[str] = []

    def identifier(found: re.Match[str]) -> str:
        name = found["name"]
        if name is None or name in _WORDS:
            return found[0]
        if name in _CONSTANTS:
            return _CONSTANTS[name]
        names.append(name)
        return f"_{len(names) - 1}"

    try:
        if len(text) > LONGEST:
            raise ValueError(f"has more than {LONGEST} characters")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(_WORD.sub(identifier, text).strip(), mode="eval")
        term = _term(tree.body, names)
    except _Unsupported as error:
        raise RunError(f"--where={text}: {error}") from None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = "write == to compare" if re.search(r"(?<![<>=!])=(?!=)", text) else f"write for example {EXAMPLE}"
        what = str(error) if type(error) is ValueError and len(text) > LONGEST else "is not a condition"
        raise RunError(f"--where={text[:80]}: {what}; {reason}") from None
    return Condition(text, tuple(dict.fromkeys(names)), term)


class _Unsupported(ValueError):
    """A part of Python that conditions do not have."""


def _term(node: ast.expr, names: list[str]) -> Term:
    """Return a function that computes a part of a condition; whatever is not listed here is refused."""
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
            compare = [_COMPARISONS[type(op)] for op in ops]
            terms = [_term(part, names) for part in (left, *others)]
            return lambda lookup: _holds(compare, [term(lookup) for term in terms])
        case ast.Name(id=name) if re.fullmatch("_[0-9]+", name):
            wanted = names[int(name[1:])]
            return lambda lookup: lookup(wanted)
        case ast.Constant(value=None | bool() | int() | float() | str() as constant):
            return lambda lookup: constant
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            listed = [_term(element, names) for element in elements]
            return lambda lookup: [element(lookup) for element in listed]
    raise _Unsupported(f"only comparisons with and, or, not and parentheses are supported; write for example {EXAMPLE}")


def _holds(compare: list[Callable[[Any, Any], bool]], values: list[Any]) -> bool:
    return all(one(a, b) for one, a, b in zip(compare, values, values[1:], strict=False))


def _same(a: Any, b: Any) -> bool:
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def _among(a: Any, b: Any) -> bool:
    if isinstance(b, list):
        return any(_same(a, element) for element in b)
    return isinstance(a, str) and isinstance(b, str) and a in b


def _ordered(a: Any, b: Any) -> bool:
    """Return whether two values have an order: two numbers, or two texts."""
    number = [isinstance(value, (int, float)) and not isinstance(value, bool) for value in (a, b)]
    return all(number) or (isinstance(a, str) and isinstance(b, str))


_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: _same,
    ast.NotEq: lambda a, b: not _same(a, b),
    ast.In: _among,
    ast.NotIn: lambda a, b: not _among(a, b),
    ast.Lt: lambda a, b: _ordered(a, b) and a < b,
    ast.LtE: lambda a, b: _ordered(a, b) and a <= b,
    ast.Gt: lambda a, b: _ordered(a, b) and a > b,
    ast.GtE: lambda a, b: _ordered(a, b) and a >= b,
}


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
