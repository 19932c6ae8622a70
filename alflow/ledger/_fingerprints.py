"""Fingerprints: what the incremental duplicate check compares a new structure with."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import select

from alflow.ledger import _tables as t
from alflow.ledger._engine import Database, among
from alflow.ledger._states import KEPT_CANDIDATES, CandidateState, LabelQuality
from alflow.ledger._structures import fingerprint_row, insert_fingerprints
from alflow.structures import Fingerprint


class FingerprintKeeping:
    """The part of the pool that holds fingerprints."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def fingerprints(self, structure_ids: Sequence[int]) -> dict[int, Fingerprint]:
        """The stored fingerprints of structures, newest version each; structures without one are left out."""
        query = select(t.Fingerprint.structure_id, t.Fingerprint.vector).order_by(t.Fingerprint.version)
        with self._database.read() as connection:
            rows = connection.execute(query.where(among(connection, t.Fingerprint.structure_id, structure_ids)))
            return {int(i): Fingerprint.from_bytes(blob) for i, blob in rows}

    def add_fingerprints(self, fingerprints: Mapping[int, Fingerprint]) -> None:
        """Store fingerprints of structures that have none of that version yet."""
        rows = [{**fingerprint_row(f), "structure_id": i} for i, f in fingerprints.items()]
        if rows:
            with self._database.write(durable=False) as connection:
                insert_fingerprints(connection, rows)

    def kept(
        self,
        campaign_id: int,
        bucket: str,
        *,
        version: int | None = None,
        within: tuple[Sequence[float], Sequence[float]] | None = None,
        states: Collection[CandidateState] = KEPT_CANDIDATES,
    ) -> list[tuple[int, int, Fingerprint]]:
        """Candidate id, structure id and fingerprint of what a new structure must be compared with, in order of id.

        Kept are the candidates that are, were or will be paid for: pooled, selected, queued, labelled, failed,
        quarantined.

        Parameters
        ----------
        bucket
            of the new structure's fingerprint
        version
            only fingerprints of this version
        within
            (4,) lowest and (4,) highest leading coordinates, see :func:`alflow.structures.leading_bounds`
        states
            only candidates in these states
        """
        query = (
            select(t.Candidate.id, t.Candidate.structure_id, t.Fingerprint.vector)
            .join(t.Fingerprint, t.Fingerprint.structure_id == t.Candidate.structure_id)
            .where(
                t.Candidate.campaign_id == campaign_id,
                t.Candidate.state.in_([str(s) for s in states]),
                *_in_bucket(bucket, version, within),
            )
            .order_by(t.Candidate.id)
        )
        with self._database.read() as connection:
            return [(int(c), int(s), Fingerprint.from_bytes(blob)) for c, s, blob in connection.execute(query)]

    def labelled(
        self,
        theory_id: int,
        bucket: str,
        *,
        version: int | None = None,
        within: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> list[tuple[int, Fingerprint]]:
        """Structure id and fingerprint of all labels of a theory, in any campaign; arguments as in :meth:`kept`."""
        query = (
            select(t.Label.structure_id, t.Fingerprint.vector)
            .join(t.Fingerprint, t.Fingerprint.structure_id == t.Label.structure_id)
            .where(
                t.Label.theory_id == theory_id,
                t.Label.quality == LabelQuality.ACCEPTED,
                *_in_bucket(bucket, version, within),
            )
            .order_by(t.Label.id)
        )
        with self._database.read() as connection:
            return [(int(s), Fingerprint.from_bytes(blob)) for s, blob in connection.execute(query)]


def _in_bucket(bucket: str, version: int | None, within: tuple[Sequence[float], Sequence[float]] | None) -> list[Any]:
    table = t.Fingerprint
    conditions: list[Any] = [table.bucket == bucket]
    if version is not None:
        conditions.append(table.version == version)
    if within is not None:
        columns = (table.leading_0, table.leading_1, table.leading_2, table.leading_3)
        for column, low, high in zip(columns, *within, strict=True):
            conditions += [column >= float(low), column <= float(high)]
    return conditions
