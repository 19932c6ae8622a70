"""Whose labels count for a theory: its own, and those of theories that a person declared to be equal to it."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
from sqlalchemy import Connection, bindparam, insert, select, update

from alflow.errors import LedgerError, NotFoundError, TheoryError
from alflow.ledger import _tables as t
from alflow.ledger._engine import Database, now, table_columns
from alflow.ledger._events import record
from alflow.ledger._rows import EquationRow, iso, maybe_iso
from alflow.ledger._states import LabelQuality
from alflow.ledger._theories import select_theory, theory_name
from alflow.ledger._types import AnyRow, plain
from alflow.structures import Properties

_COMPARED = 1000


# composed once: SQLAlchemy takes longer to compose it than the database to answer it
_COUNTING = select(t.TheoryEquation.theory_id).where(
    t.TheoryEquation.counts_as == bindparam("theory_id"), t.TheoryEquation.withdrawn.is_(None)
)


def counting_theories(connection: Connection, theory_id: int) -> list[int]:
    """The theory itself, then those whose labels are declared to count for it."""
    return [theory_id, *sorted(connection.scalars(_COUNTING, {"theory_id": theory_id}))]


def _equation_row(row: AnyRow) -> EquationRow:
    return EquationRow(
        id=row.id,
        theory_id=row.theory_id,
        counts_as=row.counts_as,
        reason=row.reason,
        evidence=row.evidence,
        actor=row.actor,
        created=iso(row.created),
        withdrawn=maybe_iso(row.withdrawn),
    )


class Equations:
    """Declarations that the labels of one theory may be used as labels of another.

    A declaration is directed and does not carry on to a third theory: each pair needs its own evidence. It changes no
    label: withdrawn, everything is as before.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def declare(self, theory_id: int, counts_as: int, reason: str, actor: str = "user") -> EquationRow:
        """Let labels of ``theory_id`` count as labels of ``counts_as``.

        The evidence that is stored beside the reason: over the structures with accepted labels of both, their number
        and the largest differences, ``energy`` in eV/atom, ``force`` in eV/Å (of one atom), ``stress`` in eV/Å³
        (Frobenius norm).

        Raises
        ------
        NotFoundError
            if one of them is not in the ledger
        TheoryError
            if they are one theory, the reason is empty, or it was declared already
        """
        reason = _told(reason, "say why the two theories give the same numbers")
        with self._database.write() as connection:
            one, other = select_theory(connection, theory_id), select_theory(connection, counts_as)
            names = theory_name(one), theory_name(other)
            if one.id == other.id:
                raise TheoryError(f"{names[0]} and {names[1]} are one theory: there is nothing to declare")
            standing = self._standing(connection, theory_id, counts_as)
            if standing is not None:
                raise TheoryError(
                    f"labels of {names[0]} count as labels of {names[1]} already, declared by {standing.actor} on "
                    f"{iso(standing.created)[:10]}: {standing.reason}"
                )
            new = {
                "theory_id": theory_id,
                "counts_as": counts_as,
                "reason": reason,
                "evidence": plain(_differences(connection, theory_id, counts_as)),
                "actor": actor[:200],
            }
            connection.execute(insert(t.TheoryEquation), new)
            message = f"{actor} declared that labels of {names[0]} count as labels of {names[1]}: {reason}"
            record(connection, "theories equated", message, actor=actor, payload=new)
            row = self._standing(connection, theory_id, counts_as)
            if row is None:
                raise LedgerError("the declaration was refused by the database")
            return _equation_row(row)

    def withdraw(self, theory_id: int, counts_as: int, reason: str, actor: str = "user") -> EquationRow:
        """Take a declaration back; its row stays and says when.

        Raises
        ------
        NotFoundError
            if there is none
        TheoryError
            if the reason is empty
        """
        reason = _told(reason, "say why the two theories do not give the same numbers after all")
        with self._database.write() as connection:
            names = [theory_name(select_theory(connection, i)) for i in (theory_id, counts_as)]
            row = self._standing(connection, theory_id, counts_as)
            if row is None:
                raise NotFoundError(f"labels of {names[0]} are not declared to count as labels of {names[1]}")
            withdrawn = now(connection)
            connection.execute(
                update(t.TheoryEquation).where(t.TheoryEquation.id == row.id).values(withdrawn=withdrawn)
            )
            message = f"{actor} withdrew that labels of {names[0]} count as labels of {names[1]}: {reason}"
            record(connection, "equation withdrawn", message, actor=actor)
            query = select(*table_columns(t.TheoryEquation)).where(t.TheoryEquation.id == row.id)
            return _equation_row(connection.execute(query).one())

    def list(self, *, withdrawn: bool = False) -> builtins.list[EquationRow]:
        """The declarations that hold, oldest first; with ``withdrawn`` the others too."""
        query = select(*table_columns(t.TheoryEquation)).order_by(t.TheoryEquation.id)
        if not withdrawn:
            query = query.where(t.TheoryEquation.withdrawn.is_(None))
        with self._database.read() as connection:
            return [_equation_row(row) for row in connection.execute(query)]

    def counting_for(self, theory_id: int) -> builtins.list[int]:
        """The theories whose labels count for a theory, itself first."""
        with self._database.read() as connection:
            return counting_theories(connection, theory_id)

    @staticmethod
    def _standing(connection: Connection, theory_id: int, counts_as: int) -> AnyRow | None:
        query = select(*table_columns(t.TheoryEquation)).where(
            t.TheoryEquation.theory_id == theory_id,
            t.TheoryEquation.counts_as == counts_as,
            t.TheoryEquation.withdrawn.is_(None),
        )
        return connection.execute(query).first()


def _told(reason: str, ask: str) -> str:
    reason = reason.strip()
    if not reason:
        raise TheoryError(f"{ask}: the reason is kept with the declaration")
    return reason


def _differences(connection: Connection, one: int, other: int) -> dict[str, Any]:
    """What the newest structures with labels of both theories say about their difference."""
    first, second = t.Label.__table__.alias(), t.Label.__table__.alias()
    query = (
        select(first.c.properties, second.c.properties, t.Structure.n_atoms)
        .join_from(first, second, first.c.structure_id == second.c.structure_id)
        .join(t.Structure, t.Structure.id == first.c.structure_id)
        .where(
            first.c.theory_id == one,
            second.c.theory_id == other,
            first.c.quality == LabelQuality.ACCEPTED,
            second.c.quality == LabelQuality.ACCEPTED,
        )
        .order_by(first.c.id.desc())
        .limit(_COMPARED)
    )
    worst: dict[str, float] = {}
    count = 0
    for left, right, n_atoms in connection.execute(query):
        count += 1
        a, b = Properties.from_bytes(left), Properties.from_bytes(right)
        found = {"energy": abs(a.energy - b.energy) / n_atoms}
        if a.forces is not None and b.forces is not None:
            found["force"] = float(np.linalg.norm(a.forces - b.forces, axis=1).max())
        if a.stress is not None and b.stress is not None:
            found["stress"] = float(np.linalg.norm(a.stress - b.stress))
        worst |= {key: max(value, worst.get(key, 0.0)) for key, value in found.items()}
    return {"structures": count, **worst}
