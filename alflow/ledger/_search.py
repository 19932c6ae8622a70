"""Selections as SQL, driven from the rarest element where one is rare, else from the index on u."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, not_, select

from alflow.errors import SelectionError
from alflow.ledger import _tables as t
from alflow.ledger._candidates import CANDIDATE_COLUMNS, candidate_row, from_candidates
from alflow.ledger._columns import CandidateColumn, ColumnKind
from alflow.ledger._engine import now
from alflow.ledger._rows import CandidateRow
from alflow.ledger._selection import (
    AgeCondition,
    ColumnCondition,
    Condition,
    ElementCondition,
    KeyCondition,
    Operator,
    Selection,
    find_column,
    parse_selection,
)

#: an element in more structures than this is never started from
_RARE = 20_000


def _expression(column: CandidateColumn) -> Any:
    special = {
        CandidateColumn.CAMPAIGN: t.Campaign.name,
        CandidateColumn.ROUND: t.Round.index,
        CandidateColumn.PARENT: t.Candidate.parent_id,
        CandidateColumn.STRUCTURE: t.Candidate.structure_id,
        CandidateColumn.ENERGY_PER_ATOM: t.Candidate.energy / t.Structure.n_atoms,
    }
    if column in special:
        return special[column]
    table = t.Candidate if hasattr(t.Candidate, column) else t.Structure
    return getattr(table, column)


_COMPARE: dict[Operator, Callable[[Any, Any], ColumnElement[bool]]] = {
    Operator.NOT_EQUAL: lambda left, right: left != right,
    Operator.AT_MOST: lambda left, right: left <= right,
    Operator.AT_LEAST: lambda left, right: left >= right,
    Operator.LESS: lambda left, right: left < right,
    Operator.MORE: lambda left, right: left > right,
    Operator.EQUAL: lambda left, right: left == right,
}


def _element(condition: ElementCondition) -> ColumnElement[bool]:
    table = t.StructureElement
    row = and_(table.structure_id == t.Candidate.structure_id, table.element == condition.number)
    fits = exists().where(row, _COMPARE[condition.operator](table.count, condition.count))
    if condition.operator.holds(0, condition.count):  # an absent element counts as 0 atoms
        return not_(exists().where(row, not_(_COMPARE[condition.operator](table.count, condition.count))))
    return fits


def _clause(connection: Connection, condition: Condition) -> ColumnElement[bool]:
    match condition:
        case ElementCondition():
            return _element(condition)
        case ColumnCondition(column=column, operator=op, value=value):
            return _COMPARE[op](_expression(column), value)
        case AgeCondition(operator=op, seconds=seconds):
            return _COMPARE[op](now(connection) - t.Candidate.created, seconds)
        case KeyCondition(column=column, negated=negated):
            expression = _expression(column)
            has: ColumnElement[bool] = (
                expression.is_(True) if column.kind == ColumnKind.FLAG else expression.is_not(None)
            )
            return not_(has) if negated else has


def _rarest(connection: Connection, selection: Selection, *, sort: str, limit: int | None) -> int | None:
    """The required element held by the fewest structures, if starting from these is cheaper.

    n holders of N structures cost n look-ups; going down the index on u until ``limit`` of them have passed costs
    about limit · N / n. The first is less while n < sqrt(limit · N). The count stops where it is too many.
    """
    most = _RARE
    if limit is not None and sort.removeprefix("-") == CandidateColumn.U:
        total = connection.scalar(select(func.max(t.Structure.id))) or 0
        most = min(most, math.isqrt(limit * total))
    best: tuple[int, int] | None = None
    for condition in selection.elements:
        if condition.operator.holds(0, condition.count):
            continue
        some = select(t.StructureElement.structure_id).where(t.StructureElement.element == condition.number)
        count = connection.scalar(select(func.count()).select_from(some.limit(most + 1).subquery())) or 0
        if count <= most and (best is None or count < best[0]):
            best = (count, condition.number)
    return None if best is None else best[1]


def search(
    connection: Connection,
    text: str,
    *,
    campaign_id: int | None = None,
    sort: str | CandidateColumn | None = None,
    limit: int | None = None,
    offset: int = 0,
) -> list[CandidateRow]:
    """Candidates that match a selection, see :meth:`alflow.ledger.Ledger.candidates`."""
    if (limit is not None and limit < 0) or offset < 0:
        raise SelectionError("limit and offset cannot be negative")
    selection = parse_selection(text)
    query = from_candidates(select(*CANDIDATE_COLUMNS))
    query = query.where(*(_clause(connection, condition) for condition in selection.conditions))
    if campaign_id is not None:
        query = query.where(t.Candidate.campaign_id == campaign_id)
    rare = _rarest(connection, selection, sort=str(sort or ""), limit=limit)
    if rare is not None:
        holders = select(t.StructureElement.structure_id).where(t.StructureElement.element == rare)
        query = query.where(t.Candidate.structure_id.in_(holders))
        query = query.with_hint(t.Candidate, "INDEXED BY ix_candidate_structure_id", "sqlite")
    return [candidate_row(row) for row in _ordered(connection, query, sort, limit, offset)]


def _ordered(
    connection: Connection, query: Select[Any], sort: str | CandidateColumn | None, limit: int | None, offset: int
) -> list[Any]:
    if sort is None:
        return list(connection.execute(query.order_by(t.Candidate.id).limit(limit).offset(offset)))
    descending = str(sort).startswith("-")
    column = find_column(str(sort).removeprefix("-"))
    key = _expression(column)
    order = (key.desc(), t.Candidate.id.desc()) if descending else (key.asc(), t.Candidate.id.asc())
    # unknown values come last, in a query of their own: NULLS LAST would keep the database from using its index
    known = query.where(key.is_not(None)).order_by(*order)
    rows = list(connection.execute(known.limit(limit).offset(offset)))
    if limit is not None and len(rows) == limit:
        return rows
    if rows or offset == 0:
        skip = 0
    else:
        n_known = connection.scalar(select(func.count()).select_from(query.where(key.is_not(None)).subquery())) or 0
        skip = offset - n_known
    unknown = query.where(key.is_(None)).order_by(t.Candidate.id)
    rest = None if limit is None else limit - len(rows)
    return rows + list(connection.execute(unknown.limit(rest).offset(skip)))
