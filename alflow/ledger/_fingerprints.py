"""Fingerprints: what the incremental duplicate check compares a new structure with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, delete, func, literal_column, select

from alflow.errors import LedgerError
from alflow.ledger import _tables as t
from alflow.ledger._engine import Database, among
from alflow.ledger._equations import counting_theories
from alflow.ledger._states import KEPT_CANDIDATES, CandidateState, LabelQuality
from alflow.ledger._structures import fingerprint_row, insert_fingerprints, load_structures
from alflow.structures import DuplicatePolicy, Fingerprint, fingerprint, leading_bounds, probe_bounds

_ADDING = 0x616C6F6164  # "aload": one at a time adds what it compared with the ledger, on PostgreSQL
_RENEWED_AT_ONCE = 500
_READ_AT_ONCE = 1000


# statements are composed once: SQLAlchemy takes longer to compose one than the database to answer it
_COMPARED = (
    t.Fingerprint.leading_0,
    t.Fingerprint.leading_2,
    t.Fingerprint.probe_0,
    t.Fingerprint.probe_1,
    t.Fingerprint.probe_2,
    t.Fingerprint.probe_3,
)
_IN_RANGE = (
    t.Fingerprint.version == bindparam("version"),
    t.Fingerprint.bucket == bindparam("bucket"),
    *(c.between(bindparam(f"low_{c.key}"), bindparam(f"high_{c.key}")) for c in _COMPARED),
)
MARKS = select(t.Fingerprint.structure_id, t.Fingerprint.vector).where(
    t.Fingerprint.version == bindparam("version"), t.Fingerprint.structure_id.in_(bindparam("ids", expanding=True))
)
#: candidates near a structure: the index of fingerprints leads, and holds all that is compared. The sums keep other
#: indexes out of it: before its statistics are known, PostgreSQL would walk through the whole campaign for every row
NEAR = (
    select(t.Candidate.id, t.Candidate.structure_id)
    .join_from(t.Fingerprint, t.Candidate, t.Candidate.structure_id == t.Fingerprint.structure_id)
    .where(
        *_IN_RANGE,
        t.Candidate.campaign_id + 0 == bindparam("campaign_id"),
        t.Candidate.state.in_(bindparam("states", expanding=True)),
        t.Candidate.id > bindparam("after"),
    )
)
#: labels near a structure
LABELLED_NEAR = (
    select(t.Label.id, t.Label.structure_id)
    .join_from(t.Fingerprint, t.Label, t.Label.structure_id == t.Fingerprint.structure_id)
    .where(
        *_IN_RANGE,
        (t.Label.theory_id + 0).in_(bindparam("theory_ids", expanding=True)),
        # not a parameter, or a prepared statement could not use the index, which holds accepted labels only
        t.Label.quality == literal_column(f"'{LabelQuality.ACCEPTED}'"),
    )
)


class FingerprintKeeping:
    """The part of the pool that holds fingerprints, and the order among those who add what they compared."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def fingerprints(self, structure_ids: Sequence[int]) -> dict[int, Fingerprint]:
        """The fingerprints of structures, as this alflow makes them; structures without one are left out."""
        found: dict[int, Fingerprint] = {}
        with self._database.read() as connection:
            for start in range(0, len(structure_ids), _READ_AT_ONCE):
                some = [int(i) for i in structure_ids[start : start + _READ_AT_ONCE]]
                rows = connection.execute(MARKS, {"version": Fingerprint.version, "ids": some})
                found |= {int(i): Fingerprint.from_bytes(blob) for i, blob in rows}
        return found

    def add_fingerprints(self, fingerprints: Mapping[int, Fingerprint]) -> None:
        """Store fingerprints of structures that have none of that version yet."""
        rows = [{**fingerprint_row(f), "structure_id": i} for i, f in fingerprints.items()]
        if rows:
            with self._database.write(durable=False) as connection:
                insert_fingerprints(connection, rows)

    def renew_fingerprints(self, tell: Callable[[str], None] = lambda _: None) -> int:
        """Replace fingerprints of older versions, which cannot be compared, by new ones; return how many.

        They are made from the structures, some hundred in a transaction. Where nothing is old, this is one look into
        an index.

        Parameters
        ----------
        tell
            told once, before the work begins, how much there is
        """
        old = t.Fingerprint.version < Fingerprint.version
        query = select(t.Fingerprint.structure_id).where(old).limit(_RENEWED_AT_ONCE)
        done = 0
        while True:
            with self._database.read() as connection:
                ids = sorted({int(i) for i in connection.scalars(query)})
                if not ids:
                    return done
                if not done:
                    count = connection.scalar(select(func.count()).select_from(t.Fingerprint).where(old))
                    tell(f"{count} fingerprints are of an older version and are made anew")
                structures = load_structures(connection, ids)
            new = [{**fingerprint_row(fingerprint(s)), "structure_id": i} for i, s in zip(ids, structures, strict=True)]
            with self._database.write(durable=False) as connection:
                insert_fingerprints(connection, new)
                connection.execute(delete(t.Fingerprint).where(old, among(connection, t.Fingerprint.structure_id, ids)))
            done += len(ids)

    # -- what a new structure is compared with ---------------------------------------------------------------------

    def near(
        self,
        campaign_id: int,
        mark: Fingerprint,
        policy: DuplicatePolicy,
        *,
        states: Collection[CandidateState] = KEPT_CANDIDATES,
        after: int = 0,
    ) -> list[tuple[int, int]]:
        """Candidate and structure ids of all that may duplicate a structure, and a few more, in order of candidates.

        They are found by one range of an index, see :func:`alflow.structures.leading_bounds` and
        :func:`alflow.structures.probe_bounds`; their fingerprints, and then their structures, decide.

        Parameters
        ----------
        mark
            the new structure's fingerprint
        policy
            how close they must be
        states
            only candidates in these states; by default those that are, were or will be paid for: pooled, selected,
            queued, labelled, failed, quarantined
        after
            only candidates with larger ids
        """
        values = _ranges(mark, policy) | {
            "campaign_id": campaign_id,
            "states": [str(s) for s in states],
            "after": after,
        }
        with self._database.read() as connection:
            return sorted((int(c), int(s)) for c, s in connection.execute(NEAR, values))

    def labelled_near(self, theory_id: int, mark: Fingerprint, policy: DuplicatePolicy) -> list[int]:
        """As :meth:`near`: structures with a label that counts for a theory, from any campaign, in order of labels."""
        values = _ranges(mark, policy)
        with self._database.read() as connection:
            values["theory_ids"] = counting_theories(connection, theory_id)
            return [int(s) for _, s in sorted(connection.execute(LABELLED_NEAR, values).tuples())]

    # -- one adds at a time ----------------------------------------------------------------------------------------

    def add_alone(self) -> None:
        """Let nobody else who calls this add candidates until the write block that this is called in has ended.

        So what was compared with the ledger is still true when it is added. SQLite has one writer anyway; PostgreSQL
        takes an advisory lock. It comes first in the block, before any row is locked.
        """
        if not self._database.in_write:
            raise LedgerError("add_alone holds until a write block ends: call it inside `with ledger.write()`")
        if not self._database.is_sqlite:
            with self._database.write() as connection:
                connection.execute(select(func.pg_advisory_xact_lock(_ADDING)))

    def newest(self) -> int:
        """The largest candidate id, with which everything smaller is stored: later candidates have larger ids."""
        query = select(func.coalesce(func.max(t.Candidate.id), 0))
        if self._database.is_sqlite or self._database.in_write:
            with self._database.read() as connection:
                return int(connection.scalars(query).one())
        with self._database.write(durable=False) as connection:  # ids are given before they are seen: wait for those
            self.add_alone()
            return int(connection.scalars(query).one())

    def kept_since(
        self, campaign_id: int, newest: int, *, states: Collection[CandidateState] = KEPT_CANDIDATES
    ) -> list[int]:
        """Structure ids of the campaign's candidates that came after a :meth:`newest` and are kept."""
        query = select(t.Candidate.structure_id, t.Candidate.campaign_id, t.Candidate.state).where(
            t.Candidate.id > newest  # nothing else, so that it is a range of the primary key
        )
        wanted = {str(s) for s in states}
        with self._database.read() as connection:
            return [int(s) for s, c, state in connection.execute(query) if c == campaign_id and state in wanted]


def _ranges(mark: Fingerprint, policy: DuplicatePolicy) -> dict[str, Any]:
    """The values of what :data:`NEAR` compares."""
    low, high = leading_bounds(mark, policy)
    probe_low, probe_high = probe_bounds(mark, policy)
    lows, highs = ([a[0], a[2], *b] for a, b in ((low, probe_low), (high, probe_high)))
    values: dict[str, Any] = {"version": mark.version, "bucket": mark.bucket}
    for column, least, most in zip(_COMPARED, lows, highs, strict=True):
        values |= {f"low_{column.key}": float(least), f"high_{column.key}": float(most)}
    return values
