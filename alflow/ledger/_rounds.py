"""Rounds and their steps: what a killed run finds when it comes back."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert, select, update

from alflow.errors import NotFoundError, TransitionError
from alflow.ledger import _tables as t
from alflow.ledger._engine import Database, insert_or_ignore, now, table_columns
from alflow.ledger._events import record
from alflow.ledger._rows import RoundRow, StepRow, iso, maybe_iso
from alflow.ledger._states import RoundState, StepState
from alflow.ledger._types import AnyRow, plain


def _round(row: AnyRow) -> RoundRow:
    return RoundRow(
        id=row.id,
        campaign_id=row.campaign_id,
        index=row._mapping["index"],  # Row.index is the method of tuples
        state=RoundState(row.state),
        summary=row.summary,
        started=iso(row.started),
        finished=maybe_iso(row.finished),
    )


def _step(row: AnyRow) -> StepRow:
    return StepRow(
        id=row.id,
        round_id=row.round_id,
        name=row.name,
        state=StepState(row.state),
        summary=row.summary,
        started=iso(row.started),
        finished=maybe_iso(row.finished),
    )


def _select_round(connection: Connection, round_id: int, *, lock: bool = False) -> AnyRow:
    query = select(*_ROUND).where(t.Round.id == round_id)
    row = connection.execute(query.with_for_update() if lock else query).first()
    if row is None:
        raise NotFoundError(f"no round with id {round_id} in the ledger")
    return row


_ROUND = table_columns(t.Round)
_STEP = table_columns(t.Step)


class Rounds:
    """The rounds of the campaigns, and their steps."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, campaign_id: int, index: int) -> RoundRow:
        """Begin the round of that index, or return it if it was begun before."""
        with self._database.write() as connection:
            query = select(*_ROUND).where(t.Round.campaign_id == campaign_id, t.Round.index == index)
            row = connection.execute(query).first()
            if row is None:
                new = {"campaign_id": campaign_id, "index": index, "state": RoundState.OPEN, "summary": {}}
                connection.execute(insert_or_ignore(connection, t.Round), new)
                record(connection, "round", f"round {index} began", campaign_id=campaign_id)
                row = connection.execute(query).one()
            return _round(row)

    def get(self, round_id: int) -> RoundRow:
        """The round of that id; raises NotFoundError."""
        with self._database.read() as connection:
            return _round(_select_round(connection, round_id))

    def current(self, campaign_id: int) -> RoundRow | None:
        """The round of the highest index, None before the first."""
        query = select(*_ROUND).where(t.Round.campaign_id == campaign_id).order_by(t.Round.index.desc()).limit(1)
        with self._database.read() as connection:
            row = connection.execute(query).first()
            return None if row is None else _round(row)

    def list(self, campaign_id: int) -> builtins.list[RoundRow]:
        """All rounds of a campaign in order."""
        query = select(*_ROUND).where(t.Round.campaign_id == campaign_id).order_by(t.Round.index)
        with self._database.read() as connection:
            return [_round(row) for row in connection.execute(query)]

    def close(self, round_id: int, summary: Mapping[str, Any]) -> RoundRow:
        """End a round; a closed round stays as it is."""
        with self._database.write() as connection:
            row = _select_round(connection, round_id, lock=True)
            if row.state != RoundState.CLOSED:
                connection.execute(
                    update(t.Round)
                    .where(t.Round.id == round_id)
                    .values(
                        state=RoundState.CLOSED, summary={**row.summary, **plain(summary)}, finished=now(connection)
                    )
                )
                index = _round(row).index
                record(connection, "round", f"round {index} ended", campaign_id=row.campaign_id, payload=summary)
            return _round(_select_round(connection, round_id))

    def update_summary(self, round_id: int, summary: Mapping[str, Any]) -> RoundRow:
        """Merge entries into the summary of a round."""
        with self._database.write() as connection:
            row = _select_round(connection, round_id, lock=True)
            merged = {**row.summary, **plain(summary)}
            if merged != row.summary:
                connection.execute(update(t.Round).where(t.Round.id == round_id).values(summary=merged))
            return _round(_select_round(connection, round_id))

    # -- steps -----------------------------------------------------------------------------------------------------

    def step(self, round_id: int, name: str) -> StepRow:
        """The step of that name; pending, without an id, if it was never begun."""
        with self._database.read() as connection:
            row = self._find_step(connection, round_id, name)
            if row is None:
                _select_round(connection, round_id)
                return StepRow(
                    id=None,
                    round_id=round_id,
                    name=name,
                    state=StepState.PENDING,
                    summary={},
                    started=None,
                    finished=None,
                )
            return _step(row)

    def steps(self, round_id: int) -> builtins.list[StepRow]:
        """The steps that were begun, in order."""
        with self._database.read() as connection:
            rows = connection.execute(select(*_STEP).where(t.Step.round_id == round_id).order_by(t.Step.id))
            return [_step(row) for row in rows]

    def begin_step(self, round_id: int, name: str) -> StepRow:
        """Note that a step runs, again after a kill; a finished step stays finished and is returned as such."""
        with self._database.write() as connection:
            row = self._find_step(connection, round_id, name)
            if row is None:
                _select_round(connection, round_id)
                new = {"round_id": round_id, "name": name, "state": StepState.RUNNING, "summary": {}}
                connection.execute(insert(t.Step), new)
            elif row.state != StepState.FINISHED:
                connection.execute(
                    update(t.Step).where(t.Step.id == row.id).values(state=StepState.RUNNING, started=now(connection))
                )
            row = self._find_step(connection, round_id, name)
            assert row is not None
            return _step(row)

    def finish_step(self, round_id: int, name: str, summary: Mapping[str, Any]) -> StepRow:
        """Note that a step is done; repeating it changes nothing.

        Raises
        ------
        TransitionError
            if the step was never begun
        """
        with self._database.write() as connection:
            row = self._find_step(connection, round_id, name)
            if row is None:
                raise TransitionError(
                    f"step {name} of round {round_id} is pending and cannot become finished; begin it first"
                )
            if row.state != StepState.FINISHED:
                connection.execute(
                    update(t.Step)
                    .where(t.Step.id == row.id)
                    .values(state=StepState.FINISHED, summary=plain(summary), finished=now(connection))
                )
                parent = _select_round(connection, round_id)
                record(
                    connection,
                    "step",
                    f"step {name} of round {_round(parent).index} is done",
                    campaign_id=parent.campaign_id,
                    payload=summary,
                )
            row = self._find_step(connection, round_id, name)
            assert row is not None
            return _step(row)

    @staticmethod
    def _find_step(connection: Connection, round_id: int, name: str) -> AnyRow | None:
        return connection.execute(select(*_STEP).where(t.Step.round_id == round_id, t.Step.name == name)).first()
