"""Which chemical systems a selection is about: thousands of names to look through, instead of a million structures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from sqlalchemy import ColumnElement, Connection, literal, select, text

from alflow.ledger import _tables as t
from alflow.ledger._candidates import CANDIDATE
from alflow.ledger._columns import CandidateColumn
from alflow.ledger._engine import among
from alflow.ledger._selection import ColumnCondition, Condition, ElementCondition, Operator, Selection
from alflow.ledger._states import CandidateState
from alflow.structures import element_symbol


def fitting_systems(connection: Connection, selection: Selection) -> list[int] | None:
    """Ids of the chemical systems of everything that fits; None where any system may fit."""
    conditions = [found for condition in selection.conditions for found in _on_system(condition)]
    if not conditions:
        return None
    return list(connection.scalars(select(t.ChemicalSystem.__table__.c.id).where(*conditions)))


def _on_system(condition: Condition) -> Iterator[ColumnElement[bool]]:
    name = t.ChemicalSystem.__table__.c.name
    match condition:
        case ElementCondition():
            absent, present = condition.operator.holds(0, condition.count), any(_present(condition))
            if absent != present:
                held = (literal("-") + name + literal("-")).like(f"%-{element_symbol(condition.number)}-%")
                yield held if present else ~held
        case ColumnCondition(column=CandidateColumn.CHEMICAL_SYSTEM, operator=Operator.EQUAL, value=value):
            yield name == str(value)
        case ColumnCondition(column=CandidateColumn.REDUCED_FORMULA, operator=Operator.EQUAL, value=value):
            yield name == "-".join(sorted(re.findall("[A-Z][a-z]?", str(value))))


def _present(condition: ElementCondition) -> list[bool]:
    """Whether it holds with fewer atoms than it names, as many, and more, of those numbers that are at least one."""
    numbers = {max(1, n) for n in (1, condition.count - 1, condition.count, condition.count + 1)}
    return [condition.operator.holds(n, condition.count) for n in numbers]


def decided_by_system(condition: Condition) -> bool:
    """Whether a condition says nothing beyond :func:`fitting_systems`: not how many atoms, only of which elements."""
    match condition:
        case ElementCondition():
            absent, present = condition.operator.holds(0, condition.count), _present(condition)
            return not any(present) if absent else all(present)
        case ColumnCondition(column=column, operator=op):
            return column == CandidateColumn.CHEMICAL_SYSTEM and op == Operator.EQUAL
    return False


_BEST = """
SELECT c.u FROM candidate AS c
WHERE c.chemical_system_id = {system} AND c.campaign_id = :campaign AND c.state = {state} AND c.u IS NOT NULL{within}
ORDER BY c.u {order} LIMIT 1 OFFSET {place}
"""
_GROUPS = """
WITH groups AS (SELECT system.value AS system, state.value AS state, ({best}) AS best FROM {systems}, {states})
SELECT groups.system, groups.best, ({worst}) FROM groups
WHERE groups.best IS NOT NULL AND groups.best {reaches} coalesce(
    (SELECT g.best FROM groups AS g WHERE g.best IS NOT NULL ORDER BY g.best {order} LIMIT 1 OFFSET :last), groups.best)
ORDER BY groups.best {order}
"""
_LISTS = {
    "sqlite": {"systems": "json_each(:systems) AS system", "states": "json_each(:states) AS state"},
    "postgresql": {
        "systems": "unnest(CAST(:systems AS bigint[])) AS system(value)",
        "states": "unnest(CAST(:states AS text[])) AS state(value)",
    },
}


def hold_the_first(
    connection: Connection,
    systems: Sequence[int],
    campaign_id: int,
    states: Sequence[CandidateState],
    within: Sequence[ColumnCondition],
    *,
    descending: bool,
    count: int,
) -> list[ColumnElement[bool]]:
    """Conditions that hold for the first ``count`` candidates by ``u`` and for few others.

    By one seek in the index for the best ``u`` of each system in each state: only the ``count`` best of these groups
    can hold the first ``count`` candidates, and no worse ``u`` than the best of the last of them, or than the
    ``count``-th of any one group, can be among these candidates.

    Parameters
    ----------
    within
        conditions on ``u`` that the candidates fulfil
    """
    words = {
        "order": "DESC" if descending else "ASC",
        "reaches": ">=" if descending else "<=",
        "within": "".join(f" AND c.u {c.operator} :u{place}" for place, c in enumerate(within)),
    }
    best = _BEST.format(system="system.value", state="state.value", place="0", **words)
    worst = _BEST.format(system="groups.system", state="groups.state", place=":last", **words)
    name = connection.dialect.name
    values = list(map(int, systems)), list(map(str, states))
    ids, names = map(json.dumps, values) if name == "sqlite" else values
    rows = connection.execute(
        text(_GROUPS.format(best=best, worst=worst, **words, **_LISTS[name])),
        {"systems": ids, "states": names, "campaign": campaign_id, "last": count - 1}
        | {f"u{place}": c.value for place, c in enumerate(within)},
    ).all()
    bounds = [float(full) for _, _, full in rows if full is not None]
    if len(rows) >= count:
        bounds.append(float(rows[-1][1]))
    conditions = [among(connection, CANDIDATE.chemical_system_id, {key for key, _, _ in rows})]
    if bounds:
        conditions.append(CANDIDATE.u >= max(bounds) if descending else CANDIDATE.u <= min(bounds))
    return conditions
