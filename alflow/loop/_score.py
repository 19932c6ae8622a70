"""Judge every pooled candidate by the committee of the round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from alflow.explore import check_filters
from alflow.ledger import CandidateState, RoundRow
from alflow.loop._committee import committee_row, knows, round_committee
from alflow.loop._context import CampaignContext
from alflow.loop._hull import mixed_hull, unlabelled_to_confirm
from alflow.potentials import Prediction

CHUNK = 512
"""Candidates judged between two looks at the clock and the reporter."""


def score(ctx: CampaignContext, round_row: RoundRow) -> dict[str, Any]:
    """Store u, calibrated errors, energy and distance to the hull of every pooled candidate.

    Candidates whose predicted force breaks the filter are rejected; implausible ones (u > u_max) stay, since the next
    committee may know them.
    """
    committee = round_committee(ctx, round_row)
    stored = committee_row(ctx, round_row)
    assert stored is not None, "a round that scores has trained a committee"
    pooled = ctx.ledger.pool.rows(ctx.ledger.pool.ids(ctx.campaign_id, [CandidateState.POOLED]))
    rows = [row for row in pooled if knows(committee, row)]
    if len(rows) < len(pooled):
        ctx.report.note(
            f"{len(pooled) - len(rows)} candidates hold elements that no label has yet: they wait for the random "
            "stream; `alflow pin` has one labelled now"
        )
    parts: list[Prediction] = []
    compositions: list[Mapping[str, int]] = []
    rejected: dict[int, str] = {}
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        ctx.report.progress("score", start, len(rows))
        structures = ctx.ledger.pool.structures([row.id for row in chunk])
        prediction = committee.predict(structures)
        parts.append(prediction)
        compositions.extend(structure.composition for structure in structures)
        for i, (row, structure) in enumerate(zip(chunk, structures, strict=True)):
            reason = check_filters(structure, ctx.config.filters, prediction[i])
            if reason is not None and not row.pinned:
                rejected[row.id] = reason
    keep = [i for i, row in enumerate(rows) if row.id not in rejected]
    kept = [rows[i] for i in keep]
    judgement = Prediction.join(parts)[keep] if keep else None
    ids = [row.id for row in kept]
    hull = mixed_hull(ctx, ids, [compositions[i] for i in keep], judgement)
    place = {} if hull is None else {entry: i for i, entry in enumerate(hull.ids)}
    distance = [float(hull.e_hull[place[i]]) if hull is not None and i in place else np.nan for i in ids]
    spread = [float(hull.spread[place[i]]) if hull is not None and i in place else np.nan for i in ids]
    fresh = [row.round_index == round_row.index for row in kept]
    summary: dict[str, Any] = {
        "scored": len(kept),
        "rejected": len(rejected),
        "new": int(sum(fresh)),
        "confirm": [] if hull is None else unlabelled_to_confirm(ctx, hull),
        "new_uncertain_share": 0.0,
    }
    with ctx.write():
        if rejected:
            ctx.ledger.pool.transition(list(rejected), CandidateState.REJECTED, [rejected[i] for i in rejected])
        if judgement is not None:
            u = judgement.u
            judged = np.array(fresh) if any(fresh) else np.ones(len(kept), dtype=bool)
            summary["new_uncertain_share"] = float(np.mean(u[judged] > 1.0))
            summary["uncertain"] = int(np.sum((u > 1.0) & (u <= ctx.config.targets.u_max)))
            ctx.ledger.pool.set_scores(
                stored.id,
                ids,
                u,
                judgement.energy_mean,
                judgement.energy_error,
                judgement.force_error,
                judgement.stress_error,
                judgement.spreads.distances,
                e_hull=distance,
                e_hull_error=spread,
            )
        ctx.finish(round_row, "score", summary)
    ctx.report.step(
        "score",
        f"{len(kept)} candidates, {summary.get('uncertain', 0)} with u > 1, "
        f"{len(summary['confirm'])} to confirm near the hull",
    )
    return summary
