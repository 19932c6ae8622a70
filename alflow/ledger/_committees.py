"""Committees: what was trained in which round, on which labels, and how it was calibrated."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, Select, insert, select, update

from alflow.errors import NotFoundError
from alflow.ledger import _tables as t
from alflow.ledger._engine import Database, among, table_columns
from alflow.ledger._events import record
from alflow.ledger._rows import CommitteeLabel, CommitteeRow, iso
from alflow.ledger._types import AnyRow, plain

_CHUNK = 5000


def _committees() -> Select[Any]:
    columns = [*table_columns(t.Committee), t.Round.campaign_id, t.Round.index.label("round_index")]
    return select(*columns).join(t.Round, t.Round.id == t.Committee.round_id)


def _row(row: AnyRow) -> CommitteeRow:
    return CommitteeRow(
        id=row.id,
        campaign_id=row.campaign_id,
        round_id=row.round_id,
        round_index=row.round_index,
        spec=row.spec,
        training=row.training,
        artifact_id=row.artifact_id,
        metrics=row.metrics,
        calibration=row.calibration,
        seed=row.seed,
        created=iso(row.created),
    )


def _select(connection: Connection, committee_id: int) -> AnyRow:
    row = connection.execute(_committees().where(t.Committee.id == committee_id)).first()
    if row is None:
        raise NotFoundError(f"no committee with id {committee_id} in the ledger")
    return row


class Committees:
    """The committees of a ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        round_id: int,
        *,
        spec: Mapping[str, Any],
        training: Mapping[str, Any],
        artifact_id: int | None,
        metrics: Mapping[str, Any],
        calibration: Mapping[str, Any] | None,
        seed: int,
        labels: Iterable[CommitteeLabel | tuple[int, bool, Iterable[float]]],
    ) -> CommitteeRow:
        """Store a committee with what it was trained on; the same checkpoint in the same round is stored once.

        Parameters
        ----------
        labels
            (label id, held out, one weight per member) each
        """
        with self._database.write() as connection:
            if artifact_id is not None:
                old = connection.execute(
                    _committees().where(t.Committee.round_id == round_id, t.Committee.artifact_id == artifact_id)
                ).first()
                if old is not None:
                    return _row(old)
            new = {
                "round_id": round_id,
                "spec": plain(spec),
                "training": plain(training),
                "artifact_id": artifact_id,
                "metrics": plain(metrics),
                "calibration": None if calibration is None else plain(calibration),
                "seed": seed,
            }
            committee_id = connection.execute(insert(t.Committee).returning(t.Committee.id), new).scalar_one()
            rows = [_label(committee_id, label) for label in labels]
            for start in range(0, len(rows), _CHUNK):
                connection.execute(insert(t.CommitteeLabel), rows[start : start + _CHUNK])
            row = _row(_select(connection, committee_id))
            record(
                connection,
                "committee",
                f"committee {committee_id} was trained on {len(rows)} labels",
                campaign_id=row.campaign_id,
                payload={"committee_id": committee_id, "metrics": row.metrics},
            )
            return row

    def get(self, committee_id: int) -> CommitteeRow:
        """One committee; raises NotFoundError."""
        with self._database.read() as connection:
            return _row(_select(connection, committee_id))

    def latest(self, campaign_id: int) -> CommitteeRow | None:
        """The newest committee of a campaign, None before the first."""
        query = _committees().where(t.Round.campaign_id == campaign_id).order_by(t.Committee.id.desc()).limit(1)
        with self._database.read() as connection:
            row = connection.execute(query).first()
            return None if row is None else _row(row)

    def list(self, campaign_id: int) -> builtins.list[CommitteeRow]:
        """All committees of a campaign, oldest first."""
        query = _committees().where(t.Round.campaign_id == campaign_id).order_by(t.Committee.id)
        with self._database.read() as connection:
            return [_row(row) for row in connection.execute(query)]

    def labels(self, committee_id: int) -> builtins.list[CommitteeLabel]:
        """What a committee was trained on."""
        query = select(t.CommitteeLabel.label_id, t.CommitteeLabel.held_out, t.CommitteeLabel.weights).where(
            t.CommitteeLabel.committee_id == committee_id
        )
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(t.CommitteeLabel.label_id))
            return [CommitteeLabel(label_id=i, held_out=held, weights=tuple(weights)) for i, held, weights in rows]

    def learned(self, campaign_id: int) -> set[int]:
        """Ids of the labels that any committee of a campaign trained on and did not hold out."""
        query = (
            select(t.CommitteeLabel.label_id)
            .join(t.Committee, t.Committee.id == t.CommitteeLabel.committee_id)
            .join(t.Round, t.Round.id == t.Committee.round_id)
            .where(t.Round.campaign_id == campaign_id, t.CommitteeLabel.held_out.is_(False))
            .distinct()
        )
        with self._database.read() as connection:
            return set(connection.scalars(query))

    def retire(self, campaign_id: int, keep: int) -> int:
        """Let go of the checkpoints of all but the ``keep`` newest committees of a campaign; return of how many.

        Their rows stay: metrics, calibration, what they were trained on. :meth:`Artifacts.prune` removes the files.
        """
        with self._database.write() as connection:
            query = _committees().where(t.Round.campaign_id == campaign_id).order_by(t.Committee.id.desc()).offset(keep)
            old = [row.id for row in connection.execute(query.limit(-1 if self._database.is_sqlite else None))]
            retired = connection.execute(
                update(t.Committee)
                .where(among(connection, t.Committee.id, old), t.Committee.artifact_id.is_not(None))
                .values(artifact_id=None)
            ).rowcount
            if retired:
                record(
                    connection,
                    "pruned",
                    f"the checkpoints of {retired} committees were let go, the {keep} newest stay",
                    campaign_id=campaign_id,
                )
            return int(retired)

    def set_calibration(self, committee_id: int, calibration: Mapping[str, Any]) -> CommitteeRow:
        """Store or replace the calibration of a committee."""
        with self._database.write() as connection:
            _select(connection, committee_id)
            connection.execute(
                update(t.Committee).where(t.Committee.id == committee_id).values(calibration=plain(calibration))
            )
            return _row(_select(connection, committee_id))


def _label(committee_id: int, label: CommitteeLabel | tuple[int, bool, Iterable[float]]) -> dict[str, Any]:
    if isinstance(label, CommitteeLabel):
        label_id, held_out, weights = label.label_id, label.held_out, label.weights
    else:
        label_id, held_out, weights = label[0], label[1], tuple(float(w) for w in label[2])
    return {
        "committee_id": committee_id,
        "label_id": int(label_id),
        "held_out": bool(held_out),
        "weights": [float(w) for w in weights],
    }
