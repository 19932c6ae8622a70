"""The chosen batch becomes jobs: reuse what is known, drop what became a duplicate meanwhile, queue the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alflow.ledger import CandidateState, RoundRow, Stream
from alflow.loop._context import CampaignContext
from alflow.loop._duplicates import CampaignDuplicates, renew_fingerprints, reuse_labels
from alflow.loop._hull import is_relaxed_geometry
from alflow.loop._reporter import counted
from alflow.structures import fingerprint

PRIORITY = {Stream.MANUAL: 3.0, Stream.CONFIRM: 2.0, Stream.RANDOM: 1.0}
"""Higher is labelled first; what is not named has 0."""


def queue(ctx: CampaignContext, round_row: RoundRow) -> dict[str, Any]:
    """Queue the selected candidates, each structure once whatever its clothes."""
    renew_fingerprints(ctx)
    with ctx.write(adding=True):
        selected = ctx.ledger.pool.ids(ctx.campaign_id, [CandidateState.SELECTED])
        summary = enqueue(ctx, selected)
        ctx.finish(round_row, "queue", summary)
    ctx.report.step(
        "queue",
        f"{counted(summary['queued'], 'job')}, {counted(summary['reused'], 'label')} reused, "
        f"{counted(summary['duplicates'], 'duplicate')} avoided",
    )
    return summary


def enqueue(ctx: CampaignContext, ids: Sequence[int]) -> dict[str, int]:
    """Queue selected candidates; called inside a transaction.

    The second duplicate check, after the one on entry: a candidate is compared with what was labelled or queued since.
    """
    reused = set(reuse_labels(ctx, ids))
    rows = [row for row in ctx.ledger.pool.rows(ids) if row.id not in reused]
    rows.sort(key=lambda row: (-PRIORITY.get(row.stream, 0.0), row.rank if row.rank is not None else 0, row.id))
    paid = CampaignDuplicates(ctx, states=(CandidateState.LABELLED, CandidateState.QUEUED))
    counts = {"queued": 0, "reused": len(reused), "duplicates": 0}
    for row in rows:
        [structure] = ctx.ledger.pool.structures([row.id])
        mark = fingerprint(structure)
        relaxed = is_relaxed_geometry(row.source, row.parameters)
        found = paid.find(structure, mark, deliberate=row.deliberate or row.pinned, relaxed=relaxed)
        if found is not None:
            ctx.ledger.pool.transition(
                [row.id],
                CandidateState.DUPLICATE,
                found.reason,
                duplicate_of=found.candidate_id,
                relation=found.relation,
            )
            counts["duplicates"] += 1
            continue
        ctx.ledger.queue.enqueue(row.structure_id, ctx.theory.id, row.id, priority=PRIORITY.get(row.stream, 0.0))
        counts["queued"] += 1
    return counts
