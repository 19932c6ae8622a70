"""Candidate sources as steps of a round, one step for each source."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from alflow.explore import ExploreContext, Source, make_source
from alflow.ledger import CandidateRow, CandidateState, RoundRow, StepState, Stream
from alflow.loop._committee import knows, round_committee
from alflow.loop._context import CampaignContext
from alflow.loop._explorer import explorer_leads, exploring_committee
from alflow.loop._ingest import IngestReport, ingest

StepFunction = Callable[[CampaignContext, RoundRow], dict[str, Any]]

KEPT = (
    CandidateState.POOLED,
    CandidateState.SELECTED,
    CandidateState.QUEUED,
    CandidateState.LABELLED,
)


def explore_steps(ctx: CampaignContext, index: int) -> list[tuple[str, StepFunction]]:
    """Return one named step for each source that has something to do in this round.

    Round 0 asks only the sources that need neither a committee nor structures to start from, and those that need a
    committee where foreign potentials lead. A source whose proposals
    depend on its settings alone is asked once; its step's name carries a digest of the settings, so that changed
    settings are a new source.
    """
    steps: list[tuple[str, StepFunction]] = []
    for settings in ctx.config.sources:
        source = make_source(settings)
        ready = source.once and not source.needs_committee
        if index == 0 and not (ready or (source.needs_committee and explorer_leads(ctx, index))):
            continue
        digest = hashlib.sha256(settings.model_dump_json().encode()).hexdigest()[:8]
        name = f"explore-{settings.kind}-{digest}"
        if source.once and _done_before(ctx, name, index):
            continue
        steps.append((name, _step(source, name)))
    return steps


def _step(source: Source, name: str) -> StepFunction:
    def explore(ctx: CampaignContext, round_row: RoundRow) -> dict[str, Any]:
        return explore_source(ctx, round_row, source, name)

    return explore


def explore_source(ctx: CampaignContext, round_row: RoundRow, source: Source, name: str) -> dict[str, Any]:
    """Ask one source for candidates and add them to the campaign."""
    kind = source.settings.kind
    rng = ctx.rng(round_row.index, name)
    starts = [] if source.once else _starts(ctx, kind, rng, getattr(source.settings, "max_starts", None))
    committee = None
    if source.needs_committee:
        leads = explorer_leads(ctx, round_row.index)
        committee = exploring_committee(ctx) if leads else round_committee(ctx, round_row)
    if committee is not None:
        starts = [row for row in starts if knows(committee, row)]
    context = ExploreContext(
        rng=rng,
        elements=ctx.config.elements,
        committee=committee,
        starts=ctx.ledger.pool.structures([row.id for row in starts]),
        round_index=round_row.index,
        directory=ctx.directory,
        progress=ctx.report.progress,
    )
    proposals = list(source.propose(context))
    summary: dict[str, Any] = {}

    def finish(report: IngestReport) -> None:
        summary.update(report.summary() | {"reasons": report.reasons})
        ctx.finish(round_row, name, summary)

    ingest(ctx, proposals, round_id=round_row.id, stream=Stream.ACTIVE, finish=finish)
    ctx.report.step(
        f"explore: {kind}",
        f"{summary['pooled']} new of {summary['proposed']} proposed, "
        f"{summary['duplicates'] + summary['known']} duplicates, {summary['rejected']} rejected",
    )
    return summary


def _done_before(ctx: CampaignContext, name: str, index: int) -> bool:
    return any(
        ctx.ledger.rounds.step(row.id, name).state is StepState.FINISHED
        for row in ctx.ledger.rounds.list(ctx.campaign_id)
        if row.index < index
    )


def _starts(ctx: CampaignContext, kind: str, rng: np.random.Generator, limit: int | None) -> list[CandidateRow]:
    """Return what relaxation, dynamics and perturbation start from.

    Relaxation starts from what was enumerated or given, most promising first: its own products would only be found
    again. Dynamics and perturbation start from labelled and low-lying structures, drawn at random.
    """
    rows = [
        row
        for row in ctx.ledger.pool.rows(ctx.ledger.pool.ids(ctx.campaign_id, [*KEPT, CandidateState.DUPLICATE]))
        if not row.deliberate
    ]
    if kind == "relax":
        given = [r for r in rows if r.parent_id is None and r.source != "round0"]
        given = given or [r for r in rows if r.parent_id is None]
        given.sort(key=lambda r: (np.inf if r.e_hull is None else r.e_hull, r.id))
        return given[:limit]
    kept = [r for r in rows if r.state is not CandidateState.DUPLICATE]
    low = [r for r in kept if r.state is CandidateState.LABELLED or (r.e_hull is not None and r.e_hull < LOW_LYING)]
    kept = low or kept
    order = rng.permutation(len(kept))
    return [kept[int(i)] for i in order][:limit]


LOW_LYING = 0.3
"""eV/atom above the hull up to which dynamics and perturbation look for new surroundings."""
