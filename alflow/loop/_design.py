"""Round 0 is designed: what is labelled before there is a committee."""

from __future__ import annotations

from typing import Any

from alflow.explore import round0
from alflow.ledger import CandidateState, RoundRow, Stream
from alflow.loop._context import CampaignContext
from alflow.loop._ingest import IngestReport, ingest


def design(ctx: CampaignContext, round_row: RoundRow) -> dict[str, Any]:
    """Propose and select the designed structures, and a random part of what the campaign was given.

    Candidates that a file or a person brought are drawn at random, ``round0.n_pool`` of them: a retrospective campaign
    knows its structures from the start and has nothing to design.
    """
    rng = ctx.rng(round_row.index, "design")
    given = ctx.ledger.pool.ids(ctx.campaign_id, [CandidateState.POOLED])
    proposals = list(round0(ctx.config.round0, ctx.config.elements, rng))
    summary: dict[str, Any] = {}

    def finish(report: IngestReport) -> None:
        proposed = ctx.ledger.pool.rows(sorted(set(report.ids)))
        # a reference that is in the pool already is labelled all the same: the kept one, not its copy
        kept = {row.id if row.duplicate_of is None else row.duplicate_of for row in proposed}
        designed = [row for row in ctx.ledger.pool.rows(sorted(kept)) if row.state is CandidateState.POOLED]
        room = ctx.config.budget.labels
        chosen = [row.id for row in designed][:room]
        pool = sorted(set(given) - set(chosen))
        n_drawn = min(ctx.config.round0.n_pool, len(pool), room - len(chosen) if room is not None else len(pool))
        drawn = sorted(int(i) for i in rng.choice(pool, size=n_drawn, replace=False)) if n_drawn > 0 else []
        if chosen:
            ctx.ledger.pool.transition(
                chosen, CandidateState.SELECTED, "part of the designed first round", stream=Stream.DESIGN
            )
        if drawn:
            ctx.ledger.pool.transition(
                drawn,
                CandidateState.SELECTED,
                f"drawn at random from {len(pool)} given candidates for the first round",
                stream=Stream.DESIGN,
                inclusion_probability=len(drawn) / len(pool),
            )
        summary.update(report.summary() | {"selected": len(chosen) + len(drawn)})
        ctx.finish(round_row, "design", summary)

    ingest(ctx, proposals, round_id=round_row.id, stream=Stream.DESIGN, finish=finish)
    ctx.report.step(
        "design", f"{summary['selected']} structures to begin with, {summary['duplicates']} duplicates avoided"
    )
    return summary
