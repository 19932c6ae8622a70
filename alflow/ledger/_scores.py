"""Scores: the current ones on the candidates, and the history of what the selection saw."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import bindparam, select, update

from alflow.ledger import _tables as t
from alflow.ledger._engine import CHUNK_SECONDS, Database, insert_or_ignore, now, table_columns
from alflow.ledger._rows import NewScore, ScoreRow, iso
from alflow.ledger._types import AnyRow, plain

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_NUMBERS = (
    "u",
    "energy",
    "energy_spread",
    "force_spread",
    "stress_spread",
    "energy_error",
    "force_error",
    "stress_error",
    "distance",
    "e_hull",
    "e_hull_error",
)
_CURRENT = ("u", "energy", "energy_error", "force_error", "stress_error", "distance", "e_hull", "e_hull_error")
_FIRST_CHUNK = 1000


def number(value: float | None) -> float | None:
    """A plain float for the database; not-a-number means unknown."""
    return None if value is None or math.isnan(value) else float(value)


def score_row(row: AnyRow, round_index: int) -> ScoreRow:
    """Make the public row."""
    return ScoreRow(
        id=row.id,
        round_id=row.round_id,
        round_index=round_index,
        committee_id=row.committee_id,
        candidate_id=row.candidate_id,
        purpose=row.purpose,
        details=row.details,
        created=iso(row.created),
        **{name: getattr(row, name) for name in _NUMBERS},
    )


class ScoreKeeping:
    """The part of the pool that knows what committees said about candidates."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def set_scores(
        self,
        committee_id: int,
        ids: Sequence[int],
        u: ArrayLike,
        energy: ArrayLike,
        energy_error: ArrayLike,
        force_error: ArrayLike,
        stress_error: ArrayLike,
        distance: ArrayLike | None = None,
        e_hull: ArrayLike | None = None,
        e_hull_error: ArrayLike | None = None,
    ) -> None:
        """Replace the current scores of candidates; not-a-number is stored as unknown.

        Parameters
        ----------
        ids
            (n,) candidates
        u, energy, energy_error, force_error, stress_error
            (n,) each: dimensionless; eV per cell; eV/atom; eV/Å of the largest atom; eV/Å³
        distance
            (n,) from the training atoms, dimensionless; None keeps what is stored
        e_hull, e_hull_error
            (n,) eV/atom; None keeps what is stored

        Raises
        ------
        ValueError
            if an array has another length than ``ids``
        """
        given = (u, energy, energy_error, force_error, stress_error, distance, e_hull, e_hull_error)
        arrays = {
            n: np.asarray(a, dtype=float).reshape(-1) for n, a in zip(_CURRENT, given, strict=True) if a is not None
        }
        for name, array in arrays.items():
            if len(array) != len(ids):
                raise ValueError(f"{len(array)} values of {name} for {len(ids)} candidates")
        lists = {f"new_{name}": [number(x) for x in array.tolist()] for name, array in arrays.items()}
        rows = [
            {"key": int(i), **{name: values[place] for name, values in lists.items()}} for place, i in enumerate(ids)
        ]
        statement = (
            update(t.Candidate)
            .where(t.Candidate.id == bindparam("key"))
            .values(committee_id=committee_id, **{name: bindparam(f"new_{name}") for name in arrays})
        )
        size, done = _FIRST_CHUNK, 0
        while done < len(rows):
            chunk = rows[done : done + size]
            begun = time.perf_counter()
            with self._database.write(durable=False) as connection:
                connection.execute(statement, chunk)
            seconds = max(time.perf_counter() - begun, 1e-4)
            done += len(chunk)
            size = max(100, min(2 * size, int(len(chunk) * CHUNK_SECONDS / seconds)))

    def record_scores(
        self, round_id: int, committee_id: int, ids: Sequence[int], purpose: str, rows: Sequence[NewScore]
    ) -> None:
        """Keep what a committee said when a decision was made; repeating it changes nothing.

        Parameters
        ----------
        purpose
            the decision, e.g. ``selection``, ``random stream``, ``confirmation``
        rows
            one score per candidate of ``ids``
        """
        if not ids:
            return
        with self._database.write() as connection:
            when = now(connection)
            new = [
                {
                    "round_id": round_id,
                    "committee_id": committee_id,
                    "candidate_id": int(candidate_id),
                    "purpose": purpose,
                    "details": None if score.details is None else plain(score.details),
                    "created": when,
                    **{name: number(getattr(score, name)) for name in _NUMBERS},
                }
                for candidate_id, score in zip(ids, rows, strict=True)
            ]
            connection.execute(insert_or_ignore(connection, t.Score), new)

    def scores(
        self, campaign_id: int, *, purpose: str | None = None, candidate_id: int | None = None
    ) -> list[ScoreRow]:
        """The history of scores of a campaign, oldest first."""
        query = (
            select(*table_columns(t.Score), t.Round.index.label("round_index"))
            .join(t.Round, t.Round.id == t.Score.round_id)
            .where(t.Round.campaign_id == campaign_id)
            .order_by(t.Score.id)
        )
        if purpose is not None:
            query = query.where(t.Score.purpose == purpose)
        if candidate_id is not None:
            query = query.where(t.Score.candidate_id == candidate_id)
        with self._database.read() as connection:
            return [score_row(row, row.round_index) for row in connection.execute(query)]
