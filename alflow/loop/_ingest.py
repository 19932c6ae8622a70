"""Candidates enter a campaign: filters, the three duplicate checks, and free labels, in one transaction.

Nothing that enters is forgotten: a rejected or duplicate candidate stays in the ledger with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alflow.explore import Proposal, check_filters
from alflow.ledger import CandidateState, NewCandidate, Stream
from alflow.loop._context import CampaignContext
from alflow.loop._duplicates import CampaignDuplicates, FoundDuplicate, reuse_labels
from alflow.loop._hull import is_relaxed_geometry
from alflow.structures import Fingerprint, fingerprint


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


@dataclass(frozen=True, kw_only=True)
class _Entry:
    position: int
    proposal: Proposal
    fingerprint: Fingerprint | None
    rejected: str | None


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
    entries = [_prepare(ctx, i, p) for i, p in enumerate(proposals)]
    order = sorted(entries, key=_canonical)
    ids: dict[int, int] = {}
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    with ctx.write():
        known = CampaignDuplicates(ctx, {e.fingerprint.bucket for e in order if e.fingerprint is not None})
        fresh: list[int] = []
        for entry in order:
            structure = entry.proposal.structure
            existing = ctx.ledger.pool.find(ctx.campaign_id, structure.content_hash)
            if existing is not None:
                ids[entry.position] = existing.id
                counts["known"] += 1
                continue
            state, reason, found = _decide(entry, known)
            counts[state.value] += 1
            reasons[_kind_of(reason) if state is CandidateState.REJECTED else state.value] += 1
            candidate = ctx.ledger.pool.add(
                ctx.campaign_id,
                round_id,
                [
                    NewCandidate(
                        structure=structure,
                        source=entry.proposal.source,
                        parameters=dict(entry.proposal.parameters),
                        parent_id=_parent(ctx, entry.proposal),
                        stream=Stream.DELIBERATE if entry.proposal.deliberate and stream is Stream.ACTIVE else stream,
                        deliberate=entry.proposal.deliberate,
                        state=state,
                        reason=reason,
                        duplicate_of=None if found is None else found.candidate_id,
                        relation=None if found is None else found.relation,
                        fingerprint=entry.fingerprint,
                    )
                ],
                actor=actor,
            )[0]
            ids[entry.position] = candidate
            if state is CandidateState.POOLED:
                assert entry.fingerprint is not None
                known.keep(candidate, structure, entry.fingerprint)
                fresh.append(candidate)
        reused = reuse_labels(ctx, fresh)
        report = IngestReport(
            ids=tuple(ids[i] for i in range(len(entries))),
            known=counts["known"],
            pooled=counts["pooled"],
            rejected=counts["rejected"],
            duplicates=counts["duplicate"],
            reused=len(reused),
            reasons=dict(reasons),
        )
        if finish is not None:
            finish(report)
    return report


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


def _decide(entry: _Entry, known: CampaignDuplicates) -> tuple[CandidateState, str, FoundDuplicate | None]:
    proposal = entry.proposal
    if entry.rejected is not None:
        return CandidateState.REJECTED, entry.rejected, None
    assert entry.fingerprint is not None
    relaxed = is_relaxed_geometry(proposal.source, proposal.parameters)
    found = known.find(proposal.structure, entry.fingerprint, deliberate=proposal.deliberate, relaxed=relaxed)
    if found is not None:
        return CandidateState.DUPLICATE, found.reason, found
    return CandidateState.POOLED, f"proposed by {proposal.source}", None


def _parent(ctx: CampaignContext, proposal: Proposal) -> int | None:
    if proposal.parent is None:
        return None
    row = ctx.ledger.pool.find(ctx.campaign_id, proposal.parent)
    return None if row is None else row.id


def _kind_of(reason: str) -> str:
    return reason.split(":", 1)[0]
