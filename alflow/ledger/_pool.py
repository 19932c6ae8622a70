"""The pool: candidates of the campaigns, their states and their current scores."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, select, update

from alflow.errors import NotFoundError, TransitionError
from alflow.ledger import _tables as t
from alflow.ledger._bulk import allocate_ids, bulk_insert
from alflow.ledger._candidates import CANDIDATE, CANDIDATES, STRUCTURE, candidate_rows, rows_of
from alflow.ledger._compositions import among_texts, ensure_chemical_systems
from alflow.ledger._engine import CHUNK_SECONDS, Database, among, now
from alflow.ledger._events import as_ranges, record
from alflow.ledger._fingerprints import FingerprintKeeping
from alflow.ledger._rows import CandidateRow, NewCandidate
from alflow.ledger._scores import ScoreKeeping
from alflow.ledger._states import INITIAL_CANDIDATES, CandidateState, Stream
from alflow.ledger._structures import (
    PreparedStructure,
    ensure_structures,
    load_structure,
    load_structures,
    prepare,
)
from alflow.ledger._transitions import aligned, lock_states, move
from alflow.ledger._types import plain, to_json
from alflow.structures import Structure

_NEW_COLUMNS = (
    "id",
    "campaign_id",
    "structure_id",
    "round_id",
    "parent_id",
    "state",
    "reason",
    "source",
    "parameters",
    "stream",
    "duplicate_of",
    "relation",
    "pinned",
    "deliberate",
    "created",
    "updated",
    "chemical_system_id",
)
_FREE_TO_BEGIN = frozenset({CandidateState.PROPOSED, CandidateState.POOLED, CandidateState.LABELLED})
_FIRST_CHUNK = 500
_LARGEST_CHUNK = 20_000


class Pool(ScoreKeeping, FingerprintKeeping):
    """The candidates of all campaigns of a ledger."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)

    # -- in --------------------------------------------------------------------------------------------------------

    def add(
        self, campaign_id: int, round_id: int | None, items: Sequence[NewCandidate], *, actor: str = "loop"
    ) -> list[int]:
        """Propose structures to a campaign, in bulk; return their candidate ids in order.

        A structure the campaign holds already keeps its candidate unchanged, so repeating a step adds nothing.
        Outside a write block the work is cut into short transactions, so that other writers pass.

        Raises
        ------
        TransitionError
            if a candidate would begin in a state it cannot begin in, or without a reason
        """
        for item in items:
            _check_new(item)
        if self._database.in_write:
            return self._add_chunk(campaign_id, round_id, items, _prepare(items), actor)
        ids: list[int] = []
        size = _FIRST_CHUNK
        while len(ids) < len(items):
            chunk = items[len(ids) : len(ids) + size]
            prepared = _prepare(chunk)
            begun = time.perf_counter()
            ids += self._add_chunk(campaign_id, round_id, chunk, prepared, actor)
            seconds = max(time.perf_counter() - begun, 1e-4)
            size = max(50, min(_LARGEST_CHUNK, 2 * size, int(len(chunk) * CHUNK_SECONDS / seconds)))
        return ids

    def _add_chunk(
        self,
        campaign_id: int,
        round_id: int | None,
        items: Sequence[NewCandidate],
        prepared: Sequence[PreparedStructure],
        actor: str,
    ) -> list[int]:
        with self._database.write(durable=False) as connection:
            names = [p.composition.chemical_system for p in prepared]
            systems = ensure_chemical_systems(connection, set(names))
            structure_ids, old = ensure_structures(connection, prepared)
            keys = [structure_ids[p.content_hash] for p in prepared]
            known = self._of_structures(connection, campaign_id, old) if old else {}
            new: dict[int, tuple[NewCandidate, int]] = {}
            for structure_id, item, name in zip(keys, items, names, strict=True):
                if structure_id not in known:
                    new.setdefault(structure_id, (item, systems[name]))
            if new:
                when = now(connection)
                ids = allocate_ids(connection, t.Candidate, len(new))
                rows = [
                    _row(candidate_id, campaign_id, round_id, structure_id, item, when, system_id)
                    for candidate_id, (structure_id, (item, system_id)) in zip(ids, new.items(), strict=True)
                ]
                if bulk_insert(connection, t.Candidate, _NEW_COLUMNS, rows) == len(new):
                    known |= dict(zip(new, ids, strict=True))
                else:  # another writer was first
                    known = self._of_structures(connection, campaign_id, keys)
                self._tell(connection, campaign_id, [(known[s], item) for s, (item, _) in new.items()], actor)
            return [known[structure_id] for structure_id in keys]

    @staticmethod
    def _of_structures(connection: Connection, campaign_id: int, structure_ids: Iterable[int]) -> dict[int, int]:
        query = select(t.Candidate.structure_id, t.Candidate.id).where(
            t.Candidate.campaign_id == campaign_id, among(connection, t.Candidate.structure_id, structure_ids)
        )
        return {int(s): int(c) for s, c in connection.execute(query)}

    @staticmethod
    def _tell(connection: Connection, campaign_id: int, added: Sequence[tuple[int, NewCandidate]], actor: str) -> None:
        states = Counter(str(item.state) for _, item in added)
        sources = Counter(item.source for _, item in added)
        told = ", ".join(f"{n} {state}" for state, n in sorted(states.items()))
        record(
            connection,
            "proposed",
            f"{len(added)} new candidate{'s' if len(added) > 1 else ''} from {', '.join(sorted(sources))}: {told}",
            campaign_id=campaign_id,
            candidate_id=added[0][0] if len(added) == 1 else None,
            payload={"states": states, "sources": sources, "ids": as_ranges(i for i, _ in added)},
            actor=actor,
        )

    # -- out -------------------------------------------------------------------------------------------------------

    def get(self, candidate_id: int) -> CandidateRow:
        """One candidate; raises NotFoundError."""
        return self.rows([candidate_id])[0]

    def rows(self, ids: Sequence[int]) -> list[CandidateRow]:
        """Candidates in the order of ``ids``; raises NotFoundError."""
        with self._database.read() as connection:
            return rows_of(connection, ids)

    def ids(self, campaign_id: int, states: Collection[CandidateState] | CandidateState | None = None) -> list[int]:
        """Ids of a campaign's candidates, ascending; of the given states, or of all."""
        query = select(t.Candidate.id).where(t.Candidate.campaign_id == campaign_id).order_by(t.Candidate.id)
        if states is not None:
            wanted = [states] if isinstance(states, CandidateState) else sorted(states)
            query = query.where(t.Candidate.state.in_([str(s) for s in wanted]))
        with self._database.read() as connection:
            return list(connection.scalars(query))

    def structures(self, ids: Sequence[int]) -> list[Structure]:
        """The structures of candidates, in the order of ``ids``."""
        with self._database.read() as connection:
            query = select(t.Candidate.id, t.Structure.geometry).join(
                t.Structure, t.Structure.id == t.Candidate.structure_id
            )
            query = query.where(among(connection, t.Candidate.id, ids))
            blobs: dict[int, bytes] = dict(connection.execute(query).tuples().all())
        missing = [i for i in ids if i not in blobs]
        if missing:
            raise NotFoundError(f"no candidate with id {missing[0]} in the ledger; `alflow ls` lists them")
        return [Structure.from_bytes(blobs[i]) for i in ids]

    def structure(self, structure_id: int) -> Structure:
        """One structure by its own id; raises NotFoundError."""
        with self._database.read() as connection:
            return load_structure(connection, structure_id)

    def structures_by_id(self, structure_ids: Sequence[int]) -> list[Structure]:
        """Structures by their own ids, in that order."""
        with self._database.read() as connection:
            return load_structures(connection, structure_ids)

    def find(self, campaign_id: int, content_hash: str) -> CandidateRow | None:
        """The campaign's candidate of that structure, None if it has none."""
        query = CANDIDATES.where(CANDIDATE.campaign_id == campaign_id, STRUCTURE.content_hash == content_hash)
        with self._database.read() as connection:
            rows = candidate_rows(connection.execute(query))
            return rows[0] if rows else None

    def find_all(self, campaign_id: int, content_hashes: Iterable[str]) -> dict[str, int]:
        """The campaign's candidates of structures, by content hash; structures that it does not hold are left out."""
        with self._database.read() as connection:
            query = (
                select(t.Structure.content_hash, t.Candidate.id)
                .join(t.Candidate, t.Candidate.structure_id == t.Structure.id)
                .where(
                    # the sum keeps the index of campaigns out of it: all their candidates would be walked through
                    t.Candidate.campaign_id + 0 == campaign_id,
                    among_texts(connection, t.Structure.content_hash, content_hashes),
                )
            )
            return {content_hash: int(i) for content_hash, i in connection.execute(query)}

    def counts(self, campaign_id: int) -> dict[CandidateState, int]:
        """Number of candidates in every state, also where it is 0."""
        query = (
            select(t.Candidate.state, func.count())
            .where(t.Candidate.campaign_id == campaign_id)
            .group_by(t.Candidate.state)
        )
        with self._database.read() as connection:
            found: dict[str, int] = dict(connection.execute(query).tuples().all())
        return {state: found.get(str(state), 0) for state in CandidateState}

    def reasons(self, campaign_id: int, *, limit: int | None = None) -> list[tuple[CandidateState, str, int]]:
        """How many candidates are in which state for which reason, most frequent first."""
        count = func.count().label("n")
        query = (
            select(t.Candidate.state, t.Candidate.reason, count)
            .where(t.Candidate.campaign_id == campaign_id)
            .group_by(t.Candidate.state, t.Candidate.reason)
            .order_by(count.desc(), t.Candidate.state, t.Candidate.reason)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [(CandidateState(state), reason, n) for state, reason, n in connection.execute(query)]

    # -- states ----------------------------------------------------------------------------------------------------

    def transition(
        self,
        ids: Sequence[int],
        to: CandidateState,
        reason: str | Sequence[str],
        *,
        stream: Stream | Sequence[Stream] | None = None,
        inclusion_probability: float | Sequence[float | None] | None = None,
        rank: int | Sequence[int | None] | None = None,
        duplicate_of: int | Sequence[int] | None = None,
        relation: Mapping[str, Any] | Sequence[Mapping[str, Any] | None] | None = None,
        actor: str = "loop",
    ) -> list[int]:
        """Bring candidates into a state, each with its reason; return those that moved.

        Candidates that are in the state already are left as they are, so a repeated step changes nothing. Arguments
        but ``ids`` are one value for all or a sequence with one value each.

        Raises
        ------
        TransitionError
            if one may not go there (then none goes), has no reason, or is a duplicate of nothing
        NotFoundError
            for an unknown id
        """
        count = len(ids)
        further = {
            "stream": stream,
            "inclusion_probability": inclusion_probability,
            "rank": rank,
            "duplicate_of": duplicate_of,
            "relation": relation,
        }
        columns = {name: aligned(value, count, name) for name, value in further.items() if value is not None}
        if "relation" in columns:
            columns["relation"] = [plain(value) for value in columns["relation"]]
        if to == CandidateState.DUPLICATE and None in columns.get("duplicate_of", [None]):
            raise TransitionError("a duplicate needs duplicate_of: the candidate that it repeats")
        with self._database.write() as connection:
            reasons = aligned(reason, count, "reason")
            return move(connection, list(map(int, ids)), to, reasons, actor=actor, columns=columns)

    def pin(self, ids: Sequence[int], reason: str, actor: str = "user") -> None:
        """Make the next selection take these candidates, whatever their scores."""
        self._set_pinned(ids, pinned=True, reason=reason, actor=actor)

    def unpin(self, ids: Sequence[int], reason: str = "no longer wanted", actor: str = "user") -> None:
        """Take a pin back."""
        self._set_pinned(ids, pinned=False, reason=reason, actor=actor)

    def exclude(self, ids: Sequence[int], reason: str, actor: str = "user") -> list[int]:
        """Keep candidates from ever being labelled; they stay in the ledger as rejected, with the reason.

        Raises
        ------
        TransitionError
            if one is queued: its job would still be paid for
        """
        with self._database.write() as connection:
            queued = [i for i, (state, _) in lock_states(connection, ids).items() if state is CandidateState.QUEUED]
            if queued:
                raise TransitionError(
                    f"candidates {', '.join(map(str, queued))} are queued: cancel their jobs first "
                    "(`alflow queue ls` names them, `alflow queue cancel JOB` withdraws them); nothing was excluded"
                )
            self.unpin(ids, reason=f"excluded: {reason}", actor=actor)
            return self.transition(ids, CandidateState.REJECTED, f"excluded by {actor}: {reason}", actor=actor)

    def _set_pinned(self, ids: Sequence[int], *, pinned: bool, reason: str, actor: str) -> None:
        with self._database.write() as connection:
            states = lock_states(connection, ids)
            connection.execute(
                update(t.Candidate)
                .where(among(connection, t.Candidate.id, ids), t.Candidate.pinned.is_not(pinned))
                .values(pinned=pinned, updated=now(connection))
            )
            by_campaign: dict[int, list[int]] = {}
            for candidate_id in ids:
                by_campaign.setdefault(states[candidate_id][1], []).append(candidate_id)
            for campaign_id, members in by_campaign.items():
                record(
                    connection,
                    "pinned" if pinned else "unpinned",
                    f"{actor} {'pinned' if pinned else 'unpinned'} {len(members)} candidate(s): {reason}",
                    campaign_id=campaign_id,
                    candidate_id=members[0] if len(members) == 1 else None,
                    payload={"ids": as_ranges(members), "reason": reason},
                    actor=actor,
                )


def _check_new(item: NewCandidate) -> None:
    if item.state in _FREE_TO_BEGIN:
        return
    formula = item.structure.formula
    if item.state not in INITIAL_CANDIDATES:
        allowed = ", ".join(INITIAL_CANDIDATES)
        raise TransitionError(f"a new candidate ({formula}) cannot begin as {item.state}; it may begin as {allowed}")
    if item.state in {CandidateState.REJECTED, CandidateState.DUPLICATE} and not item.reason:
        raise TransitionError(f"a new candidate ({formula}) cannot be {item.state} without a reason a person can read")
    if item.state == CandidateState.DUPLICATE and item.duplicate_of is None:
        raise TransitionError(f"a new duplicate ({formula}) needs duplicate_of: the candidate that it repeats")


def _prepare(items: Sequence[NewCandidate]) -> list[PreparedStructure]:
    return [prepare(item.structure, item.fingerprint) for item in items]


def _row(
    candidate_id: int,
    campaign_id: int,
    round_id: int | None,
    structure_id: int,
    item: NewCandidate,
    when: float,
    system_id: int,
) -> tuple[Any, ...]:
    return (
        candidate_id,
        campaign_id,
        structure_id,
        round_id,
        item.parent_id,
        str(item.state),
        item.reason or f"proposed by {item.source}",
        item.source,
        to_json(item.parameters) if item.parameters else "{}",
        str(item.stream),
        item.duplicate_of,
        None if item.relation is None else to_json(item.relation),
        False,
        item.deliberate,
        when,
        when,
        system_id,
    )
