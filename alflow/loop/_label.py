"""Wait for the labels of a round, computing them here or leaving that to label workers."""

from __future__ import annotations

import time
from typing import Any

from alflow.ledger import CampaignState, CandidateState, RoundRow
from alflow.loop._context import CampaignContext
from alflow.loop._stop import labelling_stop
from alflow.loop._worker import LabelWorker, WorkUntil


def label(ctx: CampaignContext, round_row: RoundRow) -> dict[str, Any]:
    """Return when every job of the campaign became a label or a failure, or when too many fail.

    Failed jobs are quarantined with their cause and do not hold the campaign up; when most of them fail, the campaign
    stops by the failure-rate rule and the rest of the queue stays as it is.
    """
    total = ctx.ledger.queue.open_jobs(ctx.campaign_id)
    worker = LabelWorker(ctx.ledger, ctx.worker, report=ctx.report, labelers={ctx.theory.id: ctx.labeler})

    def keep_going() -> bool:
        ctx.report.progress("label", total - ctx.ledger.queue.open_jobs(ctx.campaign_id), total)
        return labelling_stop(ctx) is None

    while ctx.ledger.queue.open_jobs(ctx.campaign_id):
        decision = labelling_stop(ctx)
        if decision is not None:
            with ctx.write():
                ctx.ledger.campaigns.set_state(ctx.campaign_id, CampaignState.STOPPED, decision.sentence)
                ctx.ledger.rounds.update_summary(round_row.id, {"stop": {"rule": decision.rule.value}})
            return {"stopped": decision.sentence}
        if ctx.work_here:
            worker.run(WorkUntil.EMPTY, keep_going=keep_going)
        if ctx.ledger.queue.open_jobs(ctx.campaign_id):
            time.sleep(min(ctx.worker.poll_seconds, 0.2) if ctx.work_here else ctx.worker.poll_seconds)
            keep_going()
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
