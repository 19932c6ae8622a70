"""Labels: what a theory says about a structure. The first accepted one wins and is never overwritten."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, exists, func, select

from alflow.errors import LedgerError, NotFoundError
from alflow.ledger import _tables as t
from alflow.ledger._engine import Database, among, insert_or_ignore, table_columns
from alflow.ledger._equations import counting_theories
from alflow.ledger._rows import LabelRow, iso
from alflow.ledger._states import CandidateState, LabelKind, LabelQuality
from alflow.ledger._types import AnyRow, plain
from alflow.structures import Properties, Structure

_COLUMNS: list[Any] = [*table_columns(t.Label), t.Structure.geometry]


def _labels() -> Select[Any]:
    return select(*_COLUMNS).join(t.Structure, t.Structure.id == t.Label.structure_id)


def label_row(row: AnyRow) -> LabelRow:
    """Make the public row."""
    return LabelRow(
        id=row.id,
        structure_id=row.structure_id,
        theory_id=row.theory_id,
        structure=Structure.from_bytes(row.geometry),
        properties=Properties.from_bytes(row.properties),
        kind=LabelKind(row.kind),
        quality=LabelQuality(row.quality),
        evidence=row.evidence,
        derived_from=row.derived_from,
        isometry=row.isometry,
        supersedes=row.supersedes,
        attempt_id=row.attempt_id,
        created=iso(row.created),
    )


def _preference(row: AnyRow, theory_id: int) -> tuple[bool, int]:
    """Of several labels that count for a theory the first is used: its own, else the oldest."""
    return row.theory_id != theory_id, row.id


def find_accepted(connection: Connection, structure_id: int, theory_id: int) -> AnyRow | None:
    """The accepted label of a structure of exactly a theory, joined with its geometry."""
    query = _labels().where(
        t.Label.structure_id == structure_id, t.Label.theory_id == theory_id, t.Label.quality == LabelQuality.ACCEPTED
    )
    return connection.execute(query).first()


def insert_label(
    connection: Connection,
    structure_id: int,
    theory_id: int,
    properties: Properties,
    *,
    kind: LabelKind,
    evidence: Mapping[str, Any],
    derived_from: int | None = None,
    isometry: Mapping[str, Any] | None = None,
    attempt_id: int | None = None,
) -> tuple[LabelRow, bool]:
    """Accept a label unless there is one; return the accepted one and whether it is this.

    Raises
    ------
    LedgerError
        for an energy that is not finite: the labeler must refuse it before
    """
    if not math.isfinite(properties.energy):
        raise LedgerError(f"the energy of structure {structure_id} is {properties.energy}: not a label")
    new = {
        "structure_id": structure_id,
        "theory_id": theory_id,
        "kind": str(kind),
        "quality": str(LabelQuality.ACCEPTED),
        "energy": properties.energy,
        "properties": properties.to_bytes(),
        "evidence": plain(evidence),
        "derived_from": derived_from,
        "isometry": None if isometry is None else plain(isometry),
        "attempt_id": attempt_id,
    }
    added = connection.execute(insert_or_ignore(connection, t.Label).returning(t.Label.id), new).first() is not None
    row = find_accepted(connection, structure_id, theory_id)
    if row is None:
        raise LedgerError(f"the label of structure {structure_id} at theory {theory_id} was refused by the database")
    return label_row(row), added


class Labels:
    """The labels of a ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, structure_id: int, theory_id: int) -> LabelRow | None:
        """The accepted label of a structure that counts for a theory, None if there is none.

        The theory's own label goes before those of theories that were declared to count for it, see
        :class:`~alflow.ledger._equations.Equations`; ``theory_id`` of the row says whose it is.
        """
        with self._database.read() as connection:
            query = _labels().where(
                t.Label.structure_id == structure_id,
                t.Label.theory_id.in_(counting_theories(connection, theory_id)),
                t.Label.quality == LabelQuality.ACCEPTED,
            )
            rows = connection.execute(query).all()
            return label_row(min(rows, key=lambda row: _preference(row, theory_id))) if rows else None

    def by_id(self, label_id: int) -> LabelRow:
        """The label of that id, whatever its quality; raises NotFoundError."""
        with self._database.read() as connection:
            row = connection.execute(_labels().where(t.Label.id == label_id)).first()
        if row is None:
            raise NotFoundError(f"no label with id {label_id} in the ledger")
        return label_row(row)

    def accepted(self, theory_id: int, campaign_id: int | None = None) -> list[LabelRow]:
        """All accepted labels that count for a theory, one per structure as :meth:`get` has it, in order of acceptance.

        Of one campaign's structures, or of all.
        """
        query = _labels().where(t.Label.quality == LabelQuality.ACCEPTED).order_by(t.Label.id)
        if campaign_id is not None:
            query = query.where(
                exists().where(t.Candidate.structure_id == t.Label.structure_id, t.Candidate.campaign_id == campaign_id)
            )
        with self._database.read() as connection:
            theories = counting_theories(connection, theory_id)
            rows = connection.execute(query.where(t.Label.theory_id.in_(theories))).all()
        if len(theories) > 1:
            best: dict[int, AnyRow] = {}
            for row in sorted(rows, key=lambda row: _preference(row, theory_id)):
                best.setdefault(row.structure_id, row)
            rows = sorted(best.values(), key=lambda row: int(row.id))
        return [label_row(row) for row in rows]

    def energies(self, theory_id: int, structure_ids: Sequence[int]) -> dict[int, float]:
        """Energies in eV of the labels that :meth:`get` finds, by structure; structures without one are missing."""
        with self._database.read() as connection:
            query = select(t.Label.id, t.Label.structure_id, t.Label.theory_id, t.Label.energy).where(
                t.Label.theory_id.in_(counting_theories(connection, theory_id)),
                t.Label.quality == LabelQuality.ACCEPTED,
                among(connection, t.Label.structure_id, structure_ids),
            )
            found: dict[int, float] = {}
            for row in sorted(connection.execute(query), key=lambda row: _preference(row, theory_id)):
                found.setdefault(row.structure_id, row.energy)
        return found

    def of_other_theories(self, campaign_id: int, theory_id: int) -> dict[int, int]:
        """Labelled candidates of a campaign without a label that counts for a theory: their number by the label's."""
        with self._database.read() as connection:
            counting = (
                select(t.Label.structure_id)
                .where(
                    t.Label.theory_id.in_(counting_theories(connection, theory_id)),
                    t.Label.quality == LabelQuality.ACCEPTED,
                    t.Label.structure_id == t.Candidate.structure_id,
                )
                .correlate(t.Candidate)
            )
            query = (
                select(t.Label.theory_id, func.count())
                .join(t.Candidate, t.Candidate.structure_id == t.Label.structure_id)
                .where(
                    t.Candidate.campaign_id == campaign_id,
                    t.Candidate.state == CandidateState.LABELLED,
                    t.Label.quality == LabelQuality.ACCEPTED,
                    ~counting.exists(),
                )
                .group_by(t.Label.theory_id)
            )
            return dict(connection.execute(query).tuples().all())

    def store(
        self,
        structure_id: int,
        theory_id: int,
        properties: Properties,
        *,
        kind: LabelKind,
        evidence: Mapping[str, Any],
        derived_from: int | None = None,
        isometry: Mapping[str, Any] | None = None,
        attempt_id: int | None = None,
    ) -> LabelRow:
        """Accept a label, unless the structure has an accepted one at this theory: that one stays and is returned.

        Parameters
        ----------
        kind
            computed by a job, reused from an identical structure, imported from a file
        evidence
            of convergence, or where the label came from
        derived_from, isometry
            for a reused label: the label it was taken from, and the map onto this structure
        """
        with self._database.write() as connection:
            return insert_label(
                connection,
                structure_id,
                theory_id,
                properties,
                kind=kind,
                evidence=evidence,
                derived_from=derived_from,
                isometry=isometry,
                attempt_id=attempt_id,
            )[0]

    def candidates_of(self, structure_id: int) -> list[int]:
        """The candidates of a structure in all campaigns."""
        with self._database.read() as connection:
            query = select(t.Candidate.id).where(t.Candidate.structure_id == structure_id).order_by(t.Candidate.id)
            return list(connection.scalars(query))

    def labelled_ids(self, theory_id: int, structure_ids: Sequence[int]) -> set[int]:
        """Those of the structures that have an accepted label that counts for a theory."""
        with self._database.read() as connection:
            query = select(t.Label.structure_id).where(
                t.Label.theory_id.in_(counting_theories(connection, theory_id)),
                t.Label.quality == LabelQuality.ACCEPTED,
                among(connection, t.Label.structure_id, structure_ids),
            )
            return set(connection.scalars(query))
