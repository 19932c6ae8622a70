"""Choose the next batch from the scored pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alflow.ledger import CandidateRow, CandidateState, NewScore, RoundRow, Stream
from alflow.loop._committee import committee_row, knows, latest_committee, round_committee
from alflow.loop._context import CampaignContext
from alflow.loop._hull import needs_confirmation
from alflow.loop._stop import count_labels
from alflow.potentials import Committee, Errors, Prediction, leading_kinds
from alflow.select import Selection, select_batch
from alflow.structures import Structure


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch with the rows it was chosen from.

    ``prediction`` holds the chosen candidates in the order of rank, as far as the committee knows their elements:
    ``judged`` are their ids.
    """

    selection: Selection
    rows: dict[int, CandidateRow]
    judged: tuple[int, ...]
    prediction: Prediction | None


def choose(ctx: CampaignContext, round_row: RoundRow) -> dict[str, Any]:
    """Select the batch of a round and store what the selection saw of every chosen candidate."""
    committee = round_committee(ctx, round_row)
    stored = committee_row(ctx, round_row)
    assert stored is not None, "a round that selects has trained a committee"
    batch = choose_batch(ctx, round_row.index, committee)
    items = batch.selection.items
    with ctx.write():
        for choice in items:
            ctx.ledger.pool.transition(
                [choice.id],
                CandidateState.SELECTED,
                choice.reason,
                stream=Stream(choice.stream.value),
                inclusion_probability=choice.inclusion_probability,
                rank=choice.rank,
            )
        if batch.prediction is not None:
            ctx.ledger.pool.record_scores(
                round_row.id,
                stored.id,
                batch.judged,
                "selection",
                new_scores(batch.prediction, [batch.rows[i] for i in batch.judged]),
            )
        counts = {s.value: sum(1 for c in items if c.stream.value == s.value) for s in Stream}
        summary = {
            "batch": [{"id": c.id, "stream": c.stream.value} for c in items],
            "streams": {k: n for k, n in counts.items() if n},
            "uncertain": batch.selection.n_uncertain,
            "set_aside": len(batch.selection.set_aside),
            "pool": len(batch.rows),
        }
        ctx.finish(round_row, "select", summary)
    _tell(ctx, batch)
    return summary


def choose_batch(ctx: CampaignContext, round_index: int, committee: Committee) -> Batch:
    """Choose a batch without writing anything: what the step does, and what ``alflow plan`` shows."""
    pooled = ctx.ledger.pool.rows(ctx.ledger.pool.ids(ctx.campaign_id, [CandidateState.POOLED]))
    rows = {row.id: row for row in pooled}
    limit = labels_left(ctx)
    u = np.array([np.nan if row.u is None else row.u for row in pooled])
    accepted = ctx.ledger.labels.accepted(ctx.theory.id, ctx.campaign_id)
    labelled = sorted((label.structure for label in accepted), key=lambda structure: structure.content_hash)
    selection = select_batch(
        ids=[row.id for row in pooled],
        u=u,
        features=lambda ids: _features_of(ctx, committee, [rows[i] for i in ids]),
        centres=_features(committee, labelled) if labelled else None,
        u_max=ctx.config.targets.u_max,
        settings=ctx.config.selection,
        rng=ctx.rng(round_index, "select"),
        pinned=[row.id for row in pooled if row.pinned],
        confirm=[i for i in needs_confirmation(ctx) if i in rows],
        limit=limit,
        leading=_leading(ctx, pooled),
    )
    judged = tuple(choice.id for choice in selection.items if knows(committee, rows[choice.id]))
    prediction = committee.predict(ctx.ledger.pool.structures(judged)) if judged else None
    return Batch(selection=selection, rows=rows, judged=judged, prediction=prediction)


def labels_left(ctx: CampaignContext) -> int | None:
    """Labels that the budget still allows, or None without a limit."""
    budget = ctx.config.budget.labels
    if budget is None:
        return None
    return max(0, budget - count_labels(ctx))


def new_scores(prediction: Prediction, rows: list[CandidateRow]) -> list[NewScore]:
    """What a committee says about candidates, as rows for the score history."""
    return [
        NewScore(
            u=float(prediction.u[i]),
            energy=float(prediction.energy_mean[i]),
            energy_spread=_finite(prediction.energy_spread[i]),
            force_spread=_finite(prediction.force_spread[i]),
            stress_spread=_finite(prediction.stress_spread[i]),
            energy_error=_finite(prediction.energy_error[i]),
            force_error=_finite(prediction.force_error[i]),
            stress_error=_finite(prediction.stress_error[i]),
            distance=_finite(prediction.spreads.distances[i]),
            e_hull=row.e_hull,
            e_hull_error=row.e_hull_error,
        )
        for i, row in enumerate(rows)
    ]


def _features_of(
    ctx: CampaignContext, committee: Committee, rows: list[CandidateRow]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(n, d) features; nan where a pinned or randomly drawn candidate holds an element without a label."""
    known = [i for i, row in enumerate(rows) if knows(committee, row)]
    found = _features(committee, ctx.ledger.pool.structures([rows[i].id for i in known]))
    features = np.full((len(rows), found.shape[1]), np.nan)
    features[known] = found
    return features


def _features(committee: Committee, structures: Sequence[Structure]) -> np.ndarray[Any, np.dtype[np.float64]]:
    found = committee.predict(structures, stress=False, features=True).features
    assert found is not None, "features were asked for"
    return found


def _leading(ctx: CampaignContext, rows: list[CandidateRow]) -> list[str]:
    def column(name: str) -> list[float]:
        return [np.nan if (value := getattr(row, name)) is None else float(value) for row in rows]

    errors = Errors(
        energy=np.array(column("energy_error")),
        force=np.array(column("force_error")),
        stress=np.array(column("stress_error")),
    )
    return [kind.value for kind in leading_kinds(errors, ctx.config.targets)] if rows else []


def latest_batch(ctx: CampaignContext, round_index: int) -> Batch | None:
    """Choose a batch with the newest committee, or None before the first training."""
    committee = latest_committee(ctx)
    return None if committee is None else choose_batch(ctx, round_index, committee)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _tell(ctx: CampaignContext, batch: Batch) -> None:
    items = batch.selection.items
    ctx.report.step(
        "select",
        f"{len(items)} of {len(batch.rows)} candidates, {batch.selection.n_uncertain} uncertain, "
        f"{len(batch.selection.set_aside)} set aside as implausible",
    )
    if items:
        ctx.report.table(
            "batch",
            ("candidate", "formula", "stream", "u", "why"),
            [(c.id, batch.rows[c.id].formula, c.stream.value, _short(batch.rows[c.id].u), c.reason) for c in items],
        )


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
