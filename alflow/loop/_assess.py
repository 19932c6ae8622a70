"""The end of a round: what the predictions were worth, the hull, and whether to stop."""

from __future__ import annotations

from typing import Any

import numpy as np

from alflow.errors import NotFoundError
from alflow.ledger import CampaignState, CandidateRow, CandidateState, RoundRow
from alflow.loop._committee import knows, round_committee
from alflow.loop._context import CampaignContext
from alflow.loop._hull import round_hull
from alflow.loop._reporter import counted
from alflow.loop._stop import round_stop
from alflow.potentials import Calibration, Errors, Kind, Spreads, actual_errors, coverage, drift_warning
from alflow.select import stream_failures

KINDS = tuple(kind.value for kind in Kind)


def assess(ctx: CampaignContext, round_row: RoundRow) -> dict[str, Any]:
    """Compare what the committee said before labelling with the labels, close the round, apply the stopping rules."""
    batch = ctx.ledger.rounds.step(round_row.id, "select").summary.get("batch", [])
    rows = ctx.ledger.pool.rows([item["id"] for item in batch])
    assessed, judged, warning = _judge(ctx, round_row, rows)
    labels = len(ctx.ledger.labels.accepted(ctx.theory.id, ctx.campaign_id))
    before = sum(int(r.summary.get("new_labels", 0)) for r in ctx.ledger.rounds.list(ctx.campaign_id))
    hull = round_hull(ctx)
    stable = [] if hull is None else hull.stable
    with ctx.write():
        if hull is not None:
            ctx.ledger.hulls.add(round_row.id, entries=hull.entries, stable=hull.stable, spread=hull.spread)
        summary: dict[str, Any] = {
            "assessed": assessed,
            "coverage": judged,
            "errors": _mean_errors(assessed),
            "labels": labels,
            "new_labels": labels - before,
            "drift": warning,
            "n_stable": len(stable),
        }
        ctx.ledger.rounds.update_summary(round_row.id, summary)
        decision = round_stop(ctx)
        if decision is not None:
            ctx.ledger.campaigns.set_state(ctx.campaign_id, CampaignState.STOPPED, decision.sentence)
            summary["stop"] = {"rule": decision.rule.value, "sentence": decision.sentence}
        ctx.finish(round_row, "assess", {"new_labels": summary["new_labels"], "n_stable": len(stable)})
        ctx.ledger.rounds.close(round_row.id, summary)
    if warning:
        ctx.report.note(f"calibration: {warning}")
    ctx.report.step("assess", _sentence(summary, hull is not None))
    return summary


def _judge(
    ctx: CampaignContext, round_row: RoundRow, rows: list[CandidateRow]
) -> tuple[list[dict[str, Any]], dict[str, Any], str | None]:
    """One row per candidate of the batch, coverage per kind, and a warning where intervals no longer cover.

    The committee of the round never saw these labels. A calculation that failed counts as missed, and so does a
    structure with an element that the committee had not met.
    """
    labelled = [row for row in rows if row.state is CandidateState.LABELLED]
    lost = [row for row in rows if row.state in {CandidateState.FAILED, CandidateState.QUARANTINED}]
    assessed: list[dict[str, Any]] = [
        {"id": r.id, "structure_id": r.structure_id, "stream": r.stream.value, "error": None, "missed": True}
        for r in lost
    ]
    if not labelled:
        return assessed, {}, None
    committee = round_committee(ctx, round_row)
    done = [row for row in labelled if knows(committee, row)]
    unsaid = dict.fromkeys(Spreads.names())
    assessed += [
        {"id": r.id, "structure_id": r.structure_id, "stream": r.stream.value, "missed": True}
        | {"spread": unsaid, "expected": unsaid, "error": unsaid}
        for r in labelled
        if r not in done
    ]
    if not done:
        return assessed, {}, None
    prediction = committee.predict(ctx.ledger.pool.structures([row.id for row in done]))
    properties = []
    for row in done:
        label = ctx.ledger.labels.get(row.structure_id, ctx.theory.id)
        if label is None:
            raise NotFoundError(
                f"candidate {row.id} is labelled but has no accepted label; `alflow check` examines the ledger"
            )
        properties.append(label.properties)
    spread = prediction.spreads
    error = actual_errors(prediction.means, properties, spread)
    expected = prediction.errors
    missed = stream_failures(error, ctx.config.targets)
    stated = zip(done, spread.rows(), expected.rows(), error.rows(), strict=True)
    for i, (row, members, judgement, actual) in enumerate(stated):
        assessed.append(
            {
                "id": row.id,
                "structure_id": row.structure_id,
                "stream": row.stream.value,
                "n_atoms": row.n_atoms,
                "predicted_energy": float(prediction.energy_mean[i]),
                "energy": properties[i].energy,
                "spread": members,
                "expected": judgement,
                "error": actual,
                "missed": bool(missed[i]),
            }
        )
    assessed.sort(key=lambda row: int(row["id"]))
    calibration = committee.calibration
    if calibration is None:
        return assessed, {}, None
    judged = {"batch": _coverage(calibration, spread, error)}
    random = np.array([row.stream.value == "random" for row in done])
    warning = None
    if random.any():
        judged["random"] = _coverage(calibration, spread[random], error[random])
        warning = drift_warning(coverage(calibration, spread[random], error[random]))
    return assessed, judged, warning


def _coverage(calibration: Calibration, spread: Spreads, error: Errors) -> dict[str, Any]:
    return {kind.value: found.to_dict() for kind, found in coverage(calibration, spread, error).items()}


def _mean_errors(assessed: list[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Mean absolute error per stream and kind over the batch: the learning curve."""
    streams = {"all": assessed, "random": [r for r in assessed if r["stream"] == "random"]}
    result: dict[str, dict[str, float | None]] = {}
    for name, rows in streams.items():
        result[name] = {}
        for kind in KINDS:
            values = [r["error"][kind] for r in rows if r["error"] is not None and r["error"][kind] is not None]
            result[name][kind] = float(np.mean(values)) if values else None
    return result


def _sentence(summary: dict[str, Any], discovery: bool) -> str:
    parts = [f"{summary['labels']} labels"]
    energy = summary["errors"]["all"]["energy"]
    if energy is not None:
        parts.append(f"{1000 * energy:.1f} meV/atom mean error on this batch before learning from it")
    if discovery:
        parts.append(f"{counted(summary['n_stable'], 'stable phase')} confirmed")
    return ", ".join(parts)
