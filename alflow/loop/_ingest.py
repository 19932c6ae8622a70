"""Candidates enter a campaign: filters, the three duplicate checks, and free labels, in one transaction.

Nothing that enters is forgotten: a rejected or duplicate candidate stays in the ledger with the reason.

Structures are compared before the transaction begins. Inside it nobody else adds; where somebody did so meanwhile, the
transaction is left as it began and only what is new is compared, so that of copies that several processes add at the
same time exactly one is kept, while the ledger is locked for no longer than the rows take to be written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alflow.explore import Proposal, check_filters
from alflow.ledger import KEPT_CANDIDATES, CandidateState, NewCandidate, Stream
from alflow.loop._context import CampaignContext
from alflow.loop._duplicates import (
    CampaignDuplicates,
    FoundDuplicate,
    find_labelled,
    key,
    renew_fingerprints,
    reuse_labels,
)
from alflow.loop._hull import is_relaxed_geometry
from alflow.structures import DuplicateIndex, DuplicatePolicy, Fingerprint, Match, Relation, fingerprint

PATIENCE = 10
"""How often what others added meanwhile is compared outside the transaction; then it is done inside."""


@dataclass(frozen=True, kw_only=True)
class IngestReport:
    """What became of a set of proposals.

    ``ids`` holds the candidate of every proposal in the given order; several proposals of one structure share one.
    """

    ids: tuple[int, ...] = ()
    known: int = 0
    pooled: int = 0
    rejected: int = 0
    duplicates: int = 0
    reused: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Return the counts for the step's summary."""
        return {
            "proposed": len(self.ids),
            "known": self.known,
            "pooled": self.pooled,
            "rejected": self.rejected,
            "duplicates": self.duplicates,
            "labels_reused": self.reused,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class _Entry:
    position: int
    proposal: Proposal
    fingerprint: Fingerprint | None
    rejected: str | None

    @property
    def content_hash(self) -> str:
        return self.proposal.structure.content_hash


@dataclass(frozen=True, kw_only=True)
class _Duplicate:
    """What an entry duplicates: a candidate of the ledger by its id, or an entry of the batch by its position."""

    policy: DuplicatePolicy
    match: Match
    in_batch: bool


def ingest(
    ctx: CampaignContext,
    proposals: Iterable[Proposal],
    *,
    round_id: int | None,
    stream: Stream,
    finish: Callable[[IngestReport], None] | None = None,
    actor: str = "loop",
) -> IngestReport:
    """Add proposals to the campaign as pooled, rejected or duplicate candidates.

    The order of the proposals does not matter: duplicates are decided in the canonical order of the fingerprints, kept
    candidates of the campaign first. Repeating the call changes nothing.

    Parameters
    ----------
    ctx
        the campaign
    proposals
        what a source or a person proposes
    round_id
        the round in which they were proposed
    stream
        what kind of candidates they are
    finish
        called inside the transaction, so that a step's end is stored together with its candidates
    actor
        who does it, for the event
    """
    renew_fingerprints(ctx)
    entries = [_prepare(ctx, i, p) for i, p in enumerate(proposals)]
    batch = _Batch(ctx, sorted(entries, key=_canonical))
    batch.look(ctx.ledger.pool.newest())
    for patience in reversed(range(PATIENCE)):
        with ctx.write(adding=True):
            newest = ctx.ledger.pool.newest() if batch.is_outdated() else None
            if newest is not None and not patience:
                batch.look(newest)
                newest = None
            if newest is None:
                report = _store(ctx, batch, round_id=round_id, stream=stream, actor=actor)
                if finish is not None:
                    finish(report)
                return report
        batch.look(newest)  # outside: nothing was written
    raise AssertionError("the last pass stores")


class _Batch:
    """Proposals in canonical order, compared with the ledger as far as it was seen, and with each other.

    Attributes
    ----------
    known
        candidate ids of structures, by content hash, that the campaign holds already
    duplicates
        what entries duplicate, by their position
    labels
        for entries that are to be pooled: the structure whose label they may share, see :func:`find_labelled`
    """

    def __init__(self, ctx: CampaignContext, entries: Sequence[_Entry]) -> None:
        self._ctx = ctx
        self._ledger = CampaignDuplicates(ctx)
        self._newest = 0
        self._buckets = {e.fingerprint.bucket for e in entries if e.fingerprint is not None}
        #: per position and relation: the match in the ledger, and up to which candidate it was looked for
        self._matches: dict[tuple[int, Relation], tuple[Match | None, int]] = {}
        self.entries = entries
        self.known: dict[str, int] = {}
        self.duplicates: dict[int, _Duplicate] = {}
        self.labels: dict[int, Match | None] = {}

    def is_outdated(self) -> bool:
        """Whether candidates came, or went, that may change what this has found."""
        pool = self._ctx.ledger.pool
        if self._find_known() != self.known:
            return True
        in_ledger = {key(d.match) for d in self.duplicates.values() if not d.in_batch}
        if not all(row.state in KEPT_CANDIDATES for row in pool.rows(sorted(in_ledger))):
            return True
        since = pool.fingerprints(pool.kept_since(self._ctx.campaign_id, self._newest))
        return any(mark.bucket in self._buckets for mark in since.values())

    def look(self, newest: int) -> None:
        """Compare every entry with the candidates up to ``newest`` that it was not compared with, and with the batch.

        An entry that duplicates a kept candidate, or an earlier entry that does not, is a duplicate.
        """
        self._forget_what_went()
        self._newest = newest
        self.known = self._find_known()
        self.duplicates = {}
        kept: dict[Relation, DuplicateIndex] = {}
        for entry in self._new_entries():
            if entry.fingerprint is None:
                continue
            found = self._find(entry, kept)
            if found is not None:
                self.duplicates[entry.position] = found
                continue
            for policy in self._ledger.policies(deliberate=False):
                index = kept.setdefault(policy.relation, DuplicateIndex(policy))
                index.add(entry.position, entry.proposal.structure, entry.fingerprint)
            if entry.position not in self.labels:
                self.labels[entry.position] = find_labelled(self._ctx, entry.proposal.structure, entry.fingerprint)

    def _find(self, entry: _Entry, kept: Mapping[Relation, DuplicateIndex]) -> _Duplicate | None:
        structure, mark = entry.proposal.structure, entry.fingerprint
        assert mark is not None
        for policy in self._ledger.policies(deliberate=entry.proposal.deliberate):
            match = self._in_ledger(entry, policy)
            if match is not None:
                return _Duplicate(policy=policy, match=match, in_batch=False)
            match = kept[policy.relation].find(structure, mark) if kept else None
            if match is not None:
                return _Duplicate(policy=policy, match=match, in_batch=True)
        return None

    def _in_ledger(self, entry: _Entry, policy: DuplicatePolicy) -> Match | None:
        match, seen = self._matches.get((entry.position, policy.relation), (None, 0))
        if match is None and seen < self._newest:
            assert entry.fingerprint is not None
            match = self._ledger.first(
                policy,
                entry.proposal.structure,
                entry.fingerprint,
                relaxed=is_relaxed_geometry(entry.proposal.source, entry.proposal.parameters),
                after=seen,
            )
            self._matches[entry.position, policy.relation] = (match, self._newest)
        return match

    def _forget_what_went(self) -> None:
        """Look afresh for what duplicated candidates that are not kept any more."""
        ids = sorted({key(match) for match, _ in self._matches.values() if match is not None})
        gone = {row.id for row in self._ctx.ledger.pool.rows(ids) if row.state not in KEPT_CANDIDATES}
        for place, (match, _) in list(self._matches.items()):
            if match is not None and key(match) in gone:
                del self._matches[place]

    def _find_known(self) -> dict[str, int]:
        return self._ctx.ledger.pool.find_all(self._ctx.campaign_id, {e.content_hash for e in self.entries})

    def _new_entries(self) -> list[_Entry]:
        """The first entry of every structure that the campaign does not hold."""
        first: dict[str, _Entry] = {}
        for entry in self.entries:
            if entry.content_hash not in self.known:
                first.setdefault(entry.content_hash, entry)
        return list(first.values())

    def sorted_out(self) -> tuple[list[_Entry], list[_Entry], list[_Entry]]:
        """New entries that are rejected, that are kept, and that are duplicates."""
        new = self._new_entries()
        rejected = [e for e in new if e.rejected is not None]
        kept = [e for e in new if e.rejected is None and e.position not in self.duplicates]
        return rejected, kept, [e for e in new if e.position in self.duplicates]

    def found(self, entries: Sequence[_Entry], ids: Mapping[int, int]) -> list[FoundDuplicate]:
        """Tell what entries duplicate, where ``ids`` has the candidates of the batch's own entries, by position."""
        duplicates = [self.duplicates[e.position] for e in entries]
        places = [ids[key(d.match)] if d.in_batch else key(d.match) for d in duplicates]
        rows = {row.id: row for row in self._ctx.ledger.pool.rows(sorted(set(places)))}
        return [
            self._ledger.found(d.policy, rows[place], d.match.isometry)
            for d, place in zip(duplicates, places, strict=True)
        ]


def _store(ctx: CampaignContext, batch: _Batch, *, round_id: int | None, stream: Stream, actor: str) -> IngestReport:
    """Write a batch that is up to date."""
    parents = ctx.ledger.pool.find_all(ctx.campaign_id, {e.proposal.parent for e in batch.entries if e.proposal.parent})
    rejected, kept, duplicates = batch.sorted_out()
    ids: dict[int, int] = {}

    def add(entries: Sequence[_Entry], state: CandidateState) -> None:
        found: Sequence[FoundDuplicate | None] = [None] * len(entries)
        if state is CandidateState.DUPLICATE:
            found = batch.found(entries, ids)
        items = []
        for entry, same in zip(entries, found, strict=True):
            proposal = entry.proposal
            items.append(
                NewCandidate(
                    structure=proposal.structure,
                    source=proposal.source,
                    parameters=dict(proposal.parameters),
                    parent_id=None if proposal.parent is None else parents.get(proposal.parent),
                    stream=Stream.DELIBERATE if proposal.deliberate and stream is Stream.ACTIVE else stream,
                    deliberate=proposal.deliberate,
                    state=state,
                    reason=same.reason if same is not None else entry.rejected or f"proposed by {proposal.source}",
                    duplicate_of=None if same is None else same.candidate_id,
                    relation=None if same is None else same.relation,
                    fingerprint=entry.fingerprint if state is CandidateState.POOLED else None,
                )
            )
        if items:
            added = ctx.ledger.pool.add(ctx.campaign_id, round_id, items, actor=actor)
            ids.update(zip([e.position for e in entries], added, strict=True))

    add(rejected, CandidateState.REJECTED)
    add(kept, CandidateState.POOLED)
    add(duplicates, CandidateState.DUPLICATE)
    labels = {ids[e.position]: batch.labels[e.position] for e in kept}
    reused = reuse_labels(ctx, list(labels), labels)
    by_hash = batch.known | {e.content_hash: ids[e.position] for e in (*rejected, *kept, *duplicates)}
    reasons = Counter(_kind_of(e.rejected) for e in rejected if e.rejected is not None)
    reasons += Counter({str(CandidateState.POOLED): len(kept), str(CandidateState.DUPLICATE): len(duplicates)})
    return IngestReport(
        ids=tuple(by_hash[e.content_hash] for e in sorted(batch.entries, key=lambda e: e.position)),
        known=len(batch.entries) - len(ids),
        pooled=len(kept),
        rejected=len(rejected),
        duplicates=len(duplicates),
        reused=len(reused),
        reasons=dict(reasons),
    )


def _prepare(ctx: CampaignContext, position: int, proposal: Proposal) -> _Entry:
    structure = proposal.structure
    rejected = proposal.rejected or check_filters(structure, ctx.config.filters)
    if rejected is None:
        rejected = ctx.labeler.refuses(structure)
    # a structure that is refused may be so broken that its neighbours cannot be listed
    mark = None if rejected else fingerprint(structure)
    return _Entry(position=position, proposal=proposal, fingerprint=mark, rejected=rejected)


def _canonical(entry: _Entry) -> tuple[Any, ...]:
    structure = entry.proposal.structure
    if entry.fingerprint is None:
        return ("", structure.n_atoms, (), structure.content_hash)
    leading = tuple(np.round(np.asarray(entry.fingerprint.leading, dtype=float), 6).tolist())
    return (entry.fingerprint.bucket, structure.n_atoms, leading, structure.content_hash)


def _kind_of(reason: str) -> str:
    return reason.split(":", 1)[0]
