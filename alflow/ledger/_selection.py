"""The selection language: ASE's syntax for databases, over the columns of candidates."""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from ase.data import atomic_numbers
from ase.formula import Formula

from alflow.errors import SelectionError
from alflow.ledger._columns import CandidateColumn, ColumnKind
from alflow.ledger._states import CandidateState, Stream

Value = int | float | bool | str


class Operator(StrEnum):
    """A comparison; the order is the one in which they are looked for in a condition."""

    NOT_EQUAL = "!="
    AT_MOST = "<="
    AT_LEAST = ">="
    LESS = "<"
    MORE = ">"
    EQUAL = "="

    def holds(self, left: Any, right: Any) -> bool:
        """Whether the comparison holds."""
        return bool(_MEANING[self](left, right))


_MEANING: Mapping[Operator, Callable[[Any, Any], Any]] = MappingProxyType(
    {
        Operator.NOT_EQUAL: operator.ne,
        Operator.AT_MOST: operator.le,
        Operator.AT_LEAST: operator.ge,
        Operator.LESS: operator.lt,
        Operator.MORE: operator.gt,
        Operator.EQUAL: operator.eq,
    }
)
#: names that ASE's databases use for our columns
SYNONYMS = MappingProxyType({"natoms": CandidateColumn.N_ATOMS, "unique_id": CandidateColumn.CONTENT_HASH})
AGE = "age"
_UNITS = MappingProxyType({"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "M": 2629800, "y": 31557600})
_DURATION = re.compile(r"(\d+)(s|m|h|d|w|M|y)s?")
_ENUMS: Mapping[CandidateColumn, type[StrEnum]] = MappingProxyType(
    {CandidateColumn.STATE: CandidateState, CandidateColumn.STREAM: Stream}
)


@dataclass(frozen=True, kw_only=True)
class ElementCondition:
    """The number of atoms of an element compared with a number; 0 where the element is absent."""

    number: int
    operator: Operator
    count: int


@dataclass(frozen=True, kw_only=True)
class ColumnCondition:
    """A column compared with a value; false where the column is unknown."""

    column: CandidateColumn
    operator: Operator
    value: Value


@dataclass(frozen=True, kw_only=True)
class AgeCondition:
    """Seconds since the candidate was proposed, by the database's clock, compared with a number."""

    operator: Operator
    seconds: float


@dataclass(frozen=True, kw_only=True)
class KeyCondition:
    """A column has a value (a flag: is set), or with ``negated`` has none."""

    column: CandidateColumn
    negated: bool = False


Condition = ElementCondition | ColumnCondition | AgeCondition | KeyCondition


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Conditions that must all hold."""

    conditions: tuple[Condition, ...]

    @property
    def elements(self) -> tuple[ElementCondition, ...]:
        """The conditions on elements."""
        return tuple(c for c in self.conditions if isinstance(c, ElementCondition))


@dataclass(frozen=True, kw_only=True)
class _Token:
    """One condition as written, with its place in the selection."""

    text: str
    position: int

    def error(self, message: str) -> SelectionError:
        return SelectionError(f"selection, position {self.position + 1}, {self.text!r}: {message}")


def parse_selection(selection: str) -> Selection:
    """Read a selection such as ``Ni,Pt,u>1,state=pooled,0<e_hull<0.05``.

    Raises
    ------
    SelectionError
        naming the condition, its position and, for an unknown name, the nearest column
    """
    if selection.strip().isdecimal():  # a number alone is an id, as in `ase db`
        number = int(selection)
        return Selection(
            conditions=(ColumnCondition(column=CandidateColumn.ID, operator=Operator.EQUAL, value=number),)
        )
    conditions: list[Condition] = []
    position = 0
    for part in selection.split(","):
        text = part.strip()
        if text:
            start = position + len(part) - len(part.lstrip())
            conditions += _parse(_Token(text=text, position=start))
        position += len(part) + 1
    return Selection(conditions=tuple(conditions))


def _parse(token: _Token) -> list[Condition]:
    text = token.text
    conditions: list[Condition] = []
    if text.count("<") == 2:  # 0.5<u<=2 is 0.5<u and u<=2
        value, rest = text.split("<", 1)
        turned = Operator.MORE
        if rest.startswith("="):
            turned, rest = Operator.AT_LEAST, rest[1:]
        conditions += _compare(token, rest.split("<", 1)[0], turned, value)
        text = rest
    found = next((op for op in Operator if op in text), None)
    if found is None:
        return _parse_word(token, text)
    parts = text.split(found)
    if len(parts) != 2:
        raise token.error(f"one {found} is enough; write for example u>1")
    return conditions + _compare(token, parts[0], found, parts[1])


def _parse_word(token: _Token, word: str) -> list[Condition]:
    if word in atomic_numbers:
        if atomic_numbers[word] == 0:
            raise token.error("X is no element")
        return [ElementCondition(number=atomic_numbers[word], operator=Operator.MORE, count=0)]
    column = _find_column(word.removeprefix("-"))
    if column is not None:
        return [KeyCondition(column=column, negated=word.startswith("-"))]
    count = _count(word)
    if count is None:
        raise token.error(_unknown(word.removeprefix("-")))
    return [ElementCondition(number=atomic_numbers[e], operator=Operator.MORE, count=n - 1) for e, n in count.items()]


def _compare(token: _Token, name: str, op: Operator, text: str) -> list[Condition]:
    name, text = name.strip(), text.strip()
    if not name or not text:
        raise token.error("a comparison needs a column and a value; write for example u>1")
    if name == CandidateColumn.FORMULA:
        return _compare_formula(token, op, text)
    if atomic_numbers.get(name):
        try:
            return [ElementCondition(number=atomic_numbers[name], operator=op, count=int(text))]
        except ValueError:
            raise token.error(f"the number of {name} atoms must be a whole number, not {text!r}") from None
    if name == AGE:
        return [AgeCondition(operator=op, seconds=_duration(token, text))]
    column = _find_column(name)
    if column is None:
        raise token.error(_unknown(name))
    return [ColumnCondition(column=column, operator=op, value=_value(token, column, op, text))]


def _compare_formula(token: _Token, op: Operator, text: str) -> list[Condition]:
    count = _count(text)
    if op != Operator.EQUAL or not count:
        raise token.error("write formula=Ni3Pt, or reduced_formula=NiPt for any cell of a compound")
    conditions: list[Condition] = [
        ElementCondition(number=atomic_numbers[e], operator=Operator.EQUAL, count=n) for e, n in count.items()
    ]
    total = sum(count.values())
    return [*conditions, ColumnCondition(column=CandidateColumn.N_ATOMS, operator=Operator.EQUAL, value=total)]


def _value(token: _Token, column: CandidateColumn, op: Operator, text: str) -> Value:
    if column.kind == ColumnKind.TEXT:
        if op not in {Operator.EQUAL, Operator.NOT_EQUAL}:
            raise token.error(f"{column} is text: compare it with = or !=")
        known = _ENUMS.get(column)
        if known is not None and text not in list(known):
            raise token.error(f"{column} is one of {', '.join(known)}{_nearest(text, list(known))}")
        return text
    if column.kind == ColumnKind.FLAG:
        flags = {"True": True, "true": True, "1": True, "False": False, "false": False, "0": False}
        if text not in flags or op not in {Operator.EQUAL, Operator.NOT_EQUAL}:
            raise token.error(f"{column} is True or False; write {column}=True, or {column} alone")
        return flags[text]
    if column.kind == ColumnKind.TIME:
        raise token.error("ask for age instead, for example age<2d")
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        unit = f" in {column.unit}" if column.unit else ""
        raise token.error(f"{column} is a number{unit}; {text!r} is none")
    return number


def _duration(token: _Token, text: str) -> float:
    matches = [_DURATION.fullmatch(part) for part in text.replace(" ", "").split("+")]
    if not all(matches):
        raise token.error("an age is a whole number with s, m, h, d, w, M or y; for example 2d or 1h+30m")
    return float(sum(int(match[1]) * _UNITS[match[2]] for match in matches if match))


def _count(text: str) -> dict[str, int] | None:
    """Atoms per element of a formula; None where the text is none."""
    try:
        counts = dict(Formula(text).count())
    except ValueError:
        return None
    return None if "X" in counts or not all(element in atomic_numbers for element in counts) else counts


def find_column(name: str) -> CandidateColumn:
    """The column of that name, ASE's names included; raises SelectionError with the nearest one."""
    column = _find_column(name)
    if column is None:
        raise SelectionError(f"{name!r}: {_unknown(name)}")
    return column


def _find_column(name: str) -> CandidateColumn | None:
    if name in SYNONYMS:
        return SYNONYMS[name]
    return CandidateColumn(name) if name in list(CandidateColumn) else None


def _unknown(name: str) -> str:
    names = [*CandidateColumn, AGE, *SYNONYMS]
    return f"no column, element or formula{_nearest(name, names) or '; columns are ' + ', '.join(CandidateColumn)}"


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, [str(n) for n in names], n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""
