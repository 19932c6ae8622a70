"""The append-only log: what changed, when, why, by whom."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, insert, select

from alflow.ledger import _tables as t
from alflow.ledger._engine import Database, table_columns
from alflow.ledger._rows import EventRow, iso
from alflow.ledger._types import AnyRow, plain

Ranges = list[list[int]]
#: of the column: SQLite takes longer texts, PostgreSQL refuses them
_ACTOR_LENGTH = 200


def as_ranges(ids: Iterable[int]) -> Ranges:
    """Write ids as inclusive ranges ``[[first, last], …]``: a batch of a million neighbours is one pair."""
    ranges: Ranges = []
    for i in sorted(set(ids)):
        if ranges and ranges[-1][1] == i - 1:
            ranges[-1][1] = i
        else:
            ranges.append([i, i])
    return ranges


def in_ranges(ranges: Sequence[Sequence[int]], i: int) -> bool:
    """Whether an id lies in ranges written by :func:`as_ranges`."""
    return any(first <= i <= last for first, last in ranges)


def record(
    connection: Connection,
    kind: str,
    message: str,
    *,
    campaign_id: int | None = None,
    candidate_id: int | None = None,
    job_id: int | None = None,
    payload: Mapping[str, Any] | None = None,
    actor: str = "loop",
) -> int:
    """Add one event in the transaction it tells about; return its id."""
    row = {
        "kind": kind,
        "message": message,
        "campaign_id": campaign_id,
        "candidate_id": candidate_id,
        "job_id": job_id,
        "payload": plain(payload or {}),
        "actor": actor[:_ACTOR_LENGTH],
    }
    return int(connection.execute(insert(t.Event).returning(t.Event.id), row).scalar_one())


def event_row(row: AnyRow) -> EventRow:
    """Make the public row."""
    return EventRow(
        id=row.id,
        time=iso(row.time),
        kind=row.kind,
        message=row.message,
        campaign_id=row.campaign_id,
        candidate_id=row.candidate_id,
        job_id=row.job_id,
        actor=row.actor,
        payload=row.payload,
    )


class Events:
    """The log of a ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        kind: str,
        message: str,
        *,
        campaign_id: int | None = None,
        candidate_id: int | None = None,
        payload: Mapping[str, Any] | None = None,
        actor: str = "loop",
    ) -> EventRow:
        """Write down that something happened.

        Parameters
        ----------
        kind
            one word, for filters
        message
            a sentence for people
        payload
            anything JSON holds
        """
        with self._database.write() as connection:
            new = record(
                connection,
                kind,
                message,
                campaign_id=campaign_id,
                candidate_id=candidate_id,
                payload=payload,
                actor=actor,
            )
            return event_row(connection.execute(select(*table_columns(t.Event)).where(t.Event.id == new)).one())

    def list(
        self, campaign_id: int | None = None, limit: int | None = 100, *, kind: str | None = None, after: int = 0
    ) -> builtins.list[EventRow]:
        """The newest events, oldest of them first.

        Parameters
        ----------
        campaign_id
            only of this campaign; None: of all
        limit
            at most so many; None: all
        kind
            only of this kind
        after
            only events with a larger id, for following a log
        """
        query = select(*table_columns(t.Event)).where(t.Event.id > after).order_by(t.Event.id.desc()).limit(limit)
        if campaign_id is not None:
            query = query.where(t.Event.campaign_id == campaign_id)
        if kind is not None:
            query = query.where(t.Event.kind == kind)
        with self._database.read() as connection:
            return [event_row(row) for row in reversed(connection.execute(query).all())]
