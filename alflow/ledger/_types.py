"""Column types and expressions that mean the same on SQLite and PostgreSQL."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any, TypeAlias

import numpy as np
from sqlalchemy import BigInteger, Dialect, Double, Integer, Row, String, Text, TypeDecorator
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NullType

#: a row of any columns
AnyRow: TypeAlias = Row[Any]
#: primary keys: 64 bits on both databases (SQLite only numbers rows by itself for INTEGER)
Key = BigInteger().with_variant(Integer(), "sqlite")


class Words(TypeDecorator[str]):
    """Text that both databases take: PostgreSQL refuses NUL, which the logs of crashed programs are full of."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: Dialect) -> str | None:
        """Mark what cannot be stored."""
        return value if value is None else value.replace("\x00", "\ufffd")


class clock(FunctionElement[float]):  # noqa: N801  reads as the SQL function it is
    """The database's own time: seconds since the epoch, UTC."""

    type = Double()
    inherit_cache = True


@compiles(clock, "sqlite")
def _sqlite_clock(_element: clock, _compiler: SQLCompiler, **_kw: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(clock, "postgresql")
def _postgresql_clock(_element: clock, _compiler: SQLCompiler, **_kw: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION)"


class likely(FunctionElement[bool]):  # noqa: N801  reads as the SQL function it is
    """A condition that most rows fulfil: SQLite keeps no statistics, and would begin with it where others tell more."""

    # were it Boolean, SQLAlchemy would write `likely(…) = 1`, and SQLite no longer see the condition
    type: Any = NullType()
    inherit_cache = True


@compiles(likely)
def _likely(element: likely, compiler: SQLCompiler, **kw: Any) -> str:
    return f"({compiler.process(element.clauses, **kw)})"


@compiles(likely, "sqlite")
def _sqlite_likely(element: likely, compiler: SQLCompiler, **kw: Any) -> str:
    return f"likely({compiler.process(element.clauses, **kw)})"


def state_column(states: type[Enum]) -> String:
    """Text wide enough for every state, with room for longer ones to come."""
    longest = max(len(str(state.value)) for state in states)
    return String(max(16, longest))


def one_of(column: str, states: Iterable[Enum]) -> str:
    """SQL condition that a column holds one of the given states."""
    return f"{column} IN ({', '.join(repr(str(state.value)) for state in states)})"


def plain(value: Any) -> Any:
    """Turn numpy numbers, tuples, paths and enums into what JSON holds; numbers that are not finite become None.

    Raises
    ------
    TypeError
        for anything else that JSON cannot hold
    """
    if value is None or (isinstance(value, bool | int) and not isinstance(value, Enum)):
        return value
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    raise TypeError(f"the ledger cannot store {type(value).__name__} as JSON: {value!r}")


def to_json(value: Any) -> str:
    """Canonical JSON: sorted keys, no blanks, finite numbers only."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
