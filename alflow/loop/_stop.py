"""Collect from the ledger what the stopping rules judge."""

from __future__ import annotations

import time
from datetime import datetime

from alflow.explore import make_source
from alflow.ledger import AttemptRow, AttemptState, CampaignState, CandidateState, JobState, StepState
from alflow.loop._context import CampaignContext
from alflow.loop._hull import needs_confirmation
from alflow.loop._train import prospective_rows
from alflow.select import StopDecision, StoppingInput, decide_stop, earliest_stop, stream_horizon


def round_stop(ctx: CampaignContext) -> StopDecision | None:
    """Decide at the end of a round whether the campaign has reached its goal, its budget or its wits' end."""
    return decide_stop(_evidence(ctx), ctx.config.stopping, ctx.config.budget)


def labelling_stop(ctx: CampaignContext) -> StopDecision | None:
    """Decide between two jobs whether labelling can still be trusted: the failure rate alone is judged."""
    recent = ctx.ledger.queue.attempts_of(ctx.campaign_id, limit=ctx.config.stopping.failure_window)
    found = StoppingInput(attempts_failed=_failed(ctx, recent))
    return decide_stop(found, ctx.config.stopping, ctx.config.budget.model_copy(update=_UNLIMITED))


_UNLIMITED = {"labels": None, "rounds": None, "wall_hours": None, "core_hours": None}


def _failed(ctx: CampaignContext, attempts: list[AttemptRow]) -> list[bool]:
    """Which attempts failed, of those since the campaign last went on after a stop: before it, somebody mended it."""
    changes = ctx.ledger.events.list(ctx.campaign_id, None, kind="campaign")
    reopened = max((e.time for e in changes if e.payload.get("from") == CampaignState.STOPPED), default="")
    return [a.state is not AttemptState.DONE for a in attempts if (a.finished or "") >= reopened]


def count_labels(ctx: CampaignContext) -> int:
    """Labels that were computed for this campaign: what the budget counts. Reused and imported ones are free."""
    return ctx.ledger.queue.counts(ctx.campaign_id).get(JobState.DONE, 0)


def _stream_failed(ctx: CampaignContext) -> list[bool]:
    rows = prospective_rows(ctx)
    return [bool(row["missed"]) for row in rows if row["stream"] == "random"]


def earliest(ctx: CampaignContext) -> str:
    """Say when convergence can be declared at the earliest."""
    return earliest_stop(
        ctx.config.stopping,
        ctx.config.selection,
        ctx.config.budget,
        stream_failed=_stream_failed(ctx),
        labels=count_labels(ctx),
    )


def _evidence(ctx: CampaignContext) -> StoppingInput:
    rounds = ctx.ledger.rounds.list(ctx.campaign_id)
    pooled = ctx.ledger.pool.rows(ctx.ledger.pool.ids(ctx.campaign_id, [CandidateState.POOLED]))
    u_max = ctx.config.targets.u_max
    quiet: list[float] = []
    labels: list[int] = []
    for row in sorted(rounds, key=lambda r: r.index):
        scored = ctx.ledger.rounds.step(row.id, "score")
        if scored.state is StepState.FINISHED:
            quiet.append(float(scored.summary["new_uncertain_share"]))
        if "new_labels" in row.summary:
            labels.append(int(row.summary["new_labels"]))
    attempts = ctx.ledger.queue.attempts_of(ctx.campaign_id)
    created = datetime.fromisoformat(ctx.campaign.created).timestamp()
    return StoppingInput(
        stream_failed=_stream_failed(ctx),
        quiet=quiet,
        attempts_failed=_failed(ctx, attempts),
        labels_per_round=labels,
        labels=count_labels(ctx),
        rounds=len(rounds),
        wall_hours=(time.time() - created) / 3600.0,
        core_hours=sum(float(a.timings.get("seconds", 0.0)) for a in attempts) / 3600.0,
        pool=len(pooled),
        pool_uncertain=sum(1 for r in pooled if r.u is None or 1.0 < r.u <= u_max),
        pool_set_aside=sum(1 for r in pooled if r.u is not None and r.u > u_max),
        waiting=sum(r.pinned for r in pooled)
        + len(needs_confirmation(ctx))
        + ctx.ledger.queue.open_jobs(ctx.campaign_id),
        pool_finite=all(make_source(settings).once for settings in ctx.config.sources),
        horizon=stream_horizon(ctx.config.budget, ctx.config.selection),
    )
