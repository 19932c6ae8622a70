"""Selections as SQL, driven from the chemical systems that fit, else from the index on u."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, exists, func, not_, select

from alflow.errors import SelectionError
from alflow.ledger import _tables as t
from alflow.ledger._candidates import (
    CAMPAIGN,
    CANDIDATE,
    CANDIDATES,
    ROUND,
    STRUCTURE,
    candidate_rows,
    from_candidates,
    rows_of,
)
from alflow.ledger._columns import CandidateColumn, ColumnKind
from alflow.ledger._engine import among, now
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
from alflow.ledger._states import CandidateState
from alflow.ledger._systems import decided_by_system, fitting_systems, hold_the_first
from alflow.ledger._types import likely

#: So many candidates of the chemical systems that fit are all read. Of more, the first are looked for in the order that
#: is asked for: where n of N candidates fit, limit · N / n are seen until enough have passed. At this number the two
#: cost the same for the first 100 of a million.
_FEW = 10_000


_SPECIAL: dict[CandidateColumn, Any] = {
    CandidateColumn.CAMPAIGN: CAMPAIGN.name,
    CandidateColumn.ROUND: ROUND.index,
    CandidateColumn.PARENT: CANDIDATE.parent_id,
    CandidateColumn.STRUCTURE: CANDIDATE.structure_id,
    CandidateColumn.ENERGY_PER_ATOM: CANDIDATE.energy / STRUCTURE.n_atoms,
}


def _expression(column: CandidateColumn) -> Any:
    if column in _SPECIAL:
        return _SPECIAL[column]
    return CANDIDATE[column] if column in CANDIDATE else STRUCTURE[column]


_COMPARE: dict[Operator, Callable[[Any, Any], ColumnElement[bool]]] = {
    Operator.NOT_EQUAL: lambda left, right: left != right,
    Operator.AT_MOST: lambda left, right: left <= right,
    Operator.AT_LEAST: lambda left, right: left >= right,
    Operator.LESS: lambda left, right: left < right,
    Operator.MORE: lambda left, right: left > right,
    Operator.EQUAL: lambda left, right: left == right,
}


def _element(condition: ElementCondition) -> ColumnElement[bool]:
    table = t.Composition.__table__.c
    row = and_(table.formula == STRUCTURE.formula, table.element == condition.number)
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
            return _COMPARE[op](now(connection) - CANDIDATE.created, seconds)
        case KeyCondition(column=column, negated=negated):
            expression = _expression(column)
            has: ColumnElement[bool] = (
                expression.is_(True) if column.kind == ColumnKind.FLAG else expression.is_not(None)
            )
            return not_(has) if negated else has


def _is_own(column: CandidateColumn) -> bool:
    """Whether a column stands in the candidate's own table, so that nothing needs to be joined for it."""
    return getattr(_expression(column), "table", None) is t.Candidate.__table__


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
    column = CandidateColumn.ID if sort is None else find_column(str(sort).removeprefix("-"))
    query = _Search(connection, selection, campaign_id, column, descending=str(sort).startswith("-"))
    if limit == 0 or query.is_empty:
        return []
    if column == CandidateColumn.ID:
        return query.known(limit, offset)
    rows = query.known(limit, offset)
    if limit is not None and len(rows) == limit:
        return rows
    skip = 0 if rows or offset == 0 else offset - query.count_known()
    return rows + query.unknown(None if limit is None else limit - len(rows), skip)


class _Search:
    """What is asked for, and from where its rows are reached soonest.

    Unknown values come last, in a query of their own: NULLS LAST would keep the database from using its index.
    """

    def __init__(
        self,
        connection: Connection,
        selection: Selection,
        campaign_id: int | None,
        column: CandidateColumn,
        *,
        descending: bool,
    ) -> None:
        self._connection = connection
        self._selection = selection
        self._campaign_id = campaign_id
        self._column = column
        self._descending = descending
        self._key = _expression(column)
        self._systems = fitting_systems(connection, selection)
        #: conditions on the candidate's own columns, and those for which other tables are joined
        self._own: list[Any] = [] if campaign_id is None else [CANDIDATE.campaign_id == campaign_id]
        self._others: list[Any] = []
        for condition in selection.conditions:
            if not decided_by_system(condition):
                own = isinstance(condition, AgeCondition) or (
                    not isinstance(condition, ElementCondition) and _is_own(condition.column)
                )
                (self._own if own else self._others).append(_clause(connection, condition))

    @property
    def is_empty(self) -> bool:
        """Whether no chemical system fits, so that nothing does."""
        return self._systems == []

    def known(self, limit: int | None, offset: int) -> list[CandidateRow]:
        """Rows whose sorting column has a value, in its order."""
        known = self._key.is_not(None)
        bounds = None if limit is None else self._bounds(offset + limit)
        if bounds is not None:
            return self._from(bounds, known, self._key, limit, offset, descending=self._descending)
        return self._rows(known, self._key, limit, offset, descending=self._descending)

    def unknown(self, limit: int | None, offset: int) -> list[CandidateRow]:
        """Rows whose sorting column has none, by id."""
        return self._rows(self._key.is_(None), CANDIDATE.id, limit, offset, descending=False)

    def count_known(self) -> int:
        """How many rows have a value in the sorting column."""
        where = (*self._own, *self._others, *self._fitting(), self._key.is_not(None))
        return self._connection.scalar(from_candidates(select(func.count())).where(*where)) or 0

    def _rows(self, further: Any, key: Any, limit: int | None, offset: int, *, descending: bool) -> list[CandidateRow]:
        if self._are_few:
            return self._from(self._fitting(), further, key, limit, offset, descending=descending)
        query = CANDIDATES.where(*self._own, *self._others, *self._fitting(), further)
        query = query.order_by(*_order(key, CANDIDATE.id, descending=descending)).limit(limit).offset(offset)
        return candidate_rows(self._connection.execute(query))

    def _from(
        self,
        start: list[ColumnElement[bool]],
        further: Any,
        key: Any,
        limit: int | None,
        offset: int,
        *,
        descending: bool,
    ) -> list[CandidateRow]:
        """Begin with the index on chemical systems, by ``start``; sort ids alone, and read the rows that are wanted."""
        own = _is_own(self._column)
        narrow = [*map(likely, self._own), *start, *([further] if own else [])]
        query = select(CANDIDATE.id.label("id"), key.label("key"))
        if self._others or not own:
            first = select(CANDIDATE.id).where(*narrow).correlate(None)
            query = from_candidates(query).where(CANDIDATE.id.in_(first), *self._others, further)
        else:
            query = query.where(*narrow)
        # apart from the sorting, so that PostgreSQL does not go through all candidates in the order that is asked for
        found = query.cte("found").prefix_with("MATERIALIZED", dialect="postgresql")
        order = _order(found.c.key, found.c.id, descending=descending)
        ids = self._connection.scalars(select(found.c.id).order_by(*order).limit(limit).offset(offset)).all()
        return rows_of(self._connection, ids)

    def _fitting(self) -> list[ColumnElement[bool]]:
        if self._systems is None:
            return []
        return [among(self._connection, CANDIDATE.chemical_system_id, self._systems)]

    @cached_property
    def _are_few(self) -> bool:
        """Whether to start from the chemical systems, not to go down an index until enough rows have passed."""
        if self._systems is None:
            return False
        some = select(CANDIDATE.id).where(*self._fitting())
        if self._campaign_id is not None:
            some = some.where(likely(CANDIDATE.campaign_id == self._campaign_id))
        count = self._connection.scalar(select(func.count()).select_from(some.limit(_FEW + 1).subquery())) or 0
        return count <= _FEW

    def _bounds(self, wanted: int) -> list[ColumnElement[bool]] | None:
        """What the first rows by ``u`` must fulfil, where elements, state and ``u`` itself are all that is asked."""
        if self._systems is None or self._campaign_id is None or self._column != CandidateColumn.U:
            return None
        states, within = list(CandidateState), list[ColumnCondition]()
        for condition in self._selection.conditions:
            match condition:
                case ColumnCondition(column=CandidateColumn.STATE, operator=op, value=value):
                    states = [state for state in states if op.holds(str(state), value)]
                case ColumnCondition(column=CandidateColumn.U):
                    within.append(condition)
                case _ if not decided_by_system(condition):
                    return None
        if not states:
            return None
        chosen = (self._systems, self._campaign_id, states, within)
        return hold_the_first(self._connection, *chosen, descending=self._descending, count=wanted)


def _order(key: Any, number: Any, *, descending: bool) -> tuple[Any, Any]:
    return (key.desc(), number.desc()) if descending else (key.asc(), number.asc())
