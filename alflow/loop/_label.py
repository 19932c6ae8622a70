"""Wait for the labels of a round, computing them here or leaving that to label workers."""

from __future__ import annotations

import time
from typing import Any

from alflow.ledger import CampaignState, CandidateState, RoundRow
from alflow.loop._context import CampaignContext
from alflow.loop._stop import labelling_stop
from alflow.loop._worker import LabelWorker, WorkUntil


def label(ctx: CampaignContext, round_row: RoundRow) -> dict[str, Any]:
    """Return when every job of the campaign became a label or a failure, when too many fail, or at the run's limits.

    Failed jobs are quarantined with their cause and do not hold the campaign up; when most of them fail, the campaign
    stops by the failure-rate rule and the rest of the queue stays as it is. At the run's limits the step stays open.
    """
    total = ctx.ledger.queue.open_jobs(ctx.campaign_id)
    worker = LabelWorker(ctx.ledger, ctx.worker, report=ctx.report, labelers={ctx.theory.id: ctx.labeler})

    def room() -> int | None:
        ctx.report.progress("label", total - ctx.ledger.queue.open_jobs(ctx.campaign_id), total)
        if labelling_stop(ctx) is not None:
            return 0
        return _room(ctx)

    while ctx.ledger.queue.open_jobs(ctx.campaign_id):
        decision = labelling_stop(ctx)
        if decision is not None:
            with ctx.write():
                ctx.ledger.campaigns.set_state(ctx.campaign_id, CampaignState.STOPPED, decision.sentence)
                ctx.ledger.rounds.update_summary(round_row.id, {"stop": {"rule": decision.rule.value}})
            return {"stopped": decision.sentence}
        if _room(ctx) == 0:
            return {"left": ctx.ledger.queue.open_jobs(ctx.campaign_id)}
        if ctx.work_here:
            worker.run(WorkUntil.EMPTY, room=room)
        if ctx.ledger.queue.open_jobs(ctx.campaign_id) and _room(ctx) != 0:
            time.sleep(min(ctx.worker.poll_seconds, 0.2) if ctx.work_here else ctx.worker.poll_seconds)
            room()
    counts = ctx.ledger.pool.counts(ctx.campaign_id)
    summary = {
        "jobs": total,
        "labelled": counts.get(CandidateState.LABELLED, 0),
        "failed": counts.get(CandidateState.FAILED, 0) + counts.get(CandidateState.QUARANTINED, 0),
    }
    with ctx.write():
        ctx.finish(round_row, "label", summary)
    ctx.report.step("label", f"{summary['labelled']} labelled in all, {summary['failed']} failed or quarantined")
    return summary


def _room(ctx: CampaignContext) -> int | None:
    """Labels that this run may still compute, 0 also where its time is over; None without a limit."""
    if ctx.allowance is None:
        return None
    return 0 if ctx.allowance.no_label() is not None else ctx.allowance.labels_left()
