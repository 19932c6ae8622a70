"""Convex hulls: one snapshot per round."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Select, insert, select, update

from alflow.ledger import _tables as t
from alflow.ledger._engine import Database, now, table_columns
from alflow.ledger._rows import HullRow, iso
from alflow.ledger._types import AnyRow, plain


def _hulls() -> Select[Any]:
    columns = [*table_columns(t.Hull), t.Round.campaign_id, t.Round.index.label("round_index")]
    return select(*columns).join(t.Round, t.Round.id == t.Hull.round_id)


def _row(row: AnyRow) -> HullRow:
    return HullRow(
        id=row.id,
        campaign_id=row.campaign_id,
        round_id=row.round_id,
        round_index=row.round_index,
        entries=tuple(row.entries),
        stable=tuple(row.stable),
        spread=row.spread,
        created=iso(row.created),
    )


class Hulls:
    """The hulls of a ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        round_id: int,
        entries: Sequence[Mapping[str, Any]],
        stable: Sequence[Mapping[str, Any]],
        spread: Mapping[str, Any],
    ) -> HullRow:
        """Store the hull of a round; a repeated step replaces its own snapshot."""
        values = {"entries": plain(list(entries)), "stable": plain(list(stable)), "spread": plain(spread)}
        with self._database.write() as connection:
            when = now(connection)
            found = connection.scalar(select(t.Hull.id).where(t.Hull.round_id == round_id))
            if found is None:
                connection.execute(insert(t.Hull), {"round_id": round_id, "created": when, **values})
            else:
                connection.execute(update(t.Hull).where(t.Hull.id == found).values(created=when, **values))
            return _row(connection.execute(_hulls().where(t.Hull.round_id == round_id)).one())

    def latest(self, campaign_id: int) -> HullRow | None:
        """The hull of the highest round, None before the first."""
        query = _hulls().where(t.Round.campaign_id == campaign_id).order_by(t.Round.index.desc()).limit(1)
        with self._database.read() as connection:
            row = connection.execute(query).first()
            return None if row is None else _row(row)

    def list(self, campaign_id: int) -> builtins.list[HullRow]:
        """All hulls of a campaign in order of their rounds."""
        query = _hulls().where(t.Round.campaign_id == campaign_id).order_by(t.Round.index)
        with self._database.read() as connection:
            return [_row(row) for row in connection.execute(query)]
