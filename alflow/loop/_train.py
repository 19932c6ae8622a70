"""Train the committee of a round on every label of the campaign, and calibrate its spreads."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from alflow.ledger import CommitteeLabel, LabelRow, RoundRow
from alflow.loop._committee import latest_committee
from alflow.loop._context import CampaignContext
from alflow.loop._hull import labelled_candidates
from alflow.potentials import (
    Calibration,
    Errors,
    Kind,
    Spreads,
    TrainingProgress,
    TrainingReport,
    actual_errors,
    fit_calibration,
    potential_kind,
)
from alflow.structures import LabelledStructure

RECENT_ROUNDS = 3
"""Rounds whose prospective errors calibrate the next committee: older committees erred differently."""


def train(ctx: CampaignContext, round_row: RoundRow) -> dict[str, Any]:
    """Train, calibrate and store the committee of a round.

    A training that was killed continues from its last checkpoint. What is still in the pool is not learned from, even
    where another campaign has its label: its candidate may yet be drawn to test this committee.
    """
    # in an order of their own: which worker was done first must not matter
    labels = sorted((label for _, label in labelled_candidates(ctx)), key=lambda label: label.structure.content_hash)
    scratch = ctx.ledger.directory / "training" / f"campaign-{ctx.campaign_id}-round-{round_row.index}"
    previous = latest_committee(ctx)
    spec = ctx.config.committee
    initial = previous if getattr(previous, "spec", None) == spec else None
    seed = ctx.seed(round_row.index, "train")
    _forget_earlier(scratch)
    scratch.mkdir(parents=True, exist_ok=True)
    committee = potential_kind(spec.kind).train(
        [LabelledStructure(structure=row.structure, properties=row.properties) for row in labels],
        spec,
        ctx.config.training,
        targets=ctx.config.targets,
        initial=initial,
        seed=seed,
        checkpoint_dir=scratch,
        progress=lambda p: _tell(ctx, p),
        directory=ctx.directory,
    )
    report = committee.report
    assert report is not None, "a committee fresh from training carries its report"
    learned = set() if initial is None else ctx.ledger.committees.learned(ctx.campaign_id)
    calibration = calibrate(ctx, round_row, report, labels, learned)
    metrics = _metrics(report, calibration)
    file = scratch / "committee.alflow"
    committee.with_calibration(calibration).save(file)
    _store(ctx, round_row, file, labels, report, calibration, metrics, seed)
    shutil.rmtree(scratch, ignore_errors=True)  # scratch only: the committee is an artifact now
    held = metrics.get("held_out") or {}
    error = f", held out: {1000 * held['energy_mae']:.1f} meV/atom" if held else ""
    ctx.report.step("train", f"{committee.n_members} members on {len(labels)} labels, {report.epochs} epochs{error}")
    return metrics


def _forget_earlier(scratch: Path) -> None:
    """Remove the scratch of earlier rounds: a run that was killed after it stored a committee leaves it behind."""
    campaign = scratch.name.rpartition("-")[0]
    for folder in scratch.parent.glob(f"{campaign}-*"):
        if folder != scratch:
            shutil.rmtree(folder, ignore_errors=True)


def calibrate(
    ctx: CampaignContext, round_row: RoundRow, report: TrainingReport, labels: list[LabelRow], learned: set[int]
) -> Calibration:
    """Fit the calibration on predictions that were made before the committee saw the labels.

    Two kinds of rows: the structures held out of this training, and those that the last rounds' committees judged
    before they were labelled. Held out does not count where a committee that this one started from has ``learned`` the
    label, when nothing was held out yet. The conformal factor comes from the random stream alone.
    """
    spreads: list[Spreads] = []
    errors: list[Errors] = []
    stream: list[bool] = []
    blocks: list[int] = []
    clean = [place for place, i in enumerate(report.held_out) if labels[i].id not in learned]
    if report.held_out_prediction is not None and clean:
        rows = [labels[report.held_out[place]] for place in clean]
        prediction = report.held_out_prediction[clean]
        spreads.append(prediction.spreads)
        errors.append(actual_errors(prediction.means, [row.properties for row in rows], prediction.spreads))
        stream += [False] * len(rows)
        blocks += [row.structure_id for row in rows]
    for row in prospective_rows(ctx, before=round_row.index, rounds=RECENT_ROUNDS):
        if row["error"] is None:
            continue
        spreads.append(Spreads.from_rows([row["spread"]]))
        errors.append(Errors.from_rows([row["error"]]))
        stream.append(row["stream"] == "random")
        blocks.append(row["structure_id"])
    previous = ctx.ledger.committees.latest(ctx.campaign_id)
    return fit_calibration(
        Spreads.join(spreads),
        Errors.join(errors),
        stream=np.array(stream, dtype=bool),
        blocks=blocks,
        previous=None
        if previous is None or previous.calibration is None
        else Calibration.from_dict(dict(previous.calibration)),
        kinds=labelled_kinds(labels),
    )


def labelled_kinds(labels: list[LabelRow]) -> frozenset[Kind]:
    """Return the kinds that the labels hold; the others take no part in u."""
    kinds = {Kind.ENERGY}
    if any(row.properties.forces is not None for row in labels):
        kinds.add(Kind.FORCE)
    if any(row.properties.stress is not None for row in labels):
        kinds.add(Kind.STRESS)
    return frozenset(kinds)


def prospective_rows(
    ctx: CampaignContext, *, before: int | None = None, rounds: int | None = None
) -> list[dict[str, Any]]:
    """Return what the assessments found: one row per candidate that was judged before it was labelled.

    Parameters
    ----------
    ctx
        the campaign
    before
        only rounds before this one
    rounds
        only so many of the latest of them
    """
    found = [row for row in ctx.ledger.rounds.list(ctx.campaign_id) if before is None or row.index < before]
    latest = found if rounds is None else found[-rounds:]
    return [assessed for row in latest for assessed in row.summary.get("assessed", ())]


def _metrics(report: TrainingReport, calibration: Calibration) -> dict[str, Any]:
    return {
        "n_labels": report.n_train,
        "n_held_out": len(report.held_out),
        "epochs": report.epochs,
        "cpu_seconds": round(report.cpu_seconds, 3),
        "train": asdict(report.train),
        "held_out": None if report.validation is None else asdict(report.validation),
        "warm_start": report.warm_start,
        "reference_energies": report.reference_energies,
        "calibration": calibration.to_dict(),
    }


def _store(
    ctx: CampaignContext,
    round_row: RoundRow,
    file: Path,
    labels: list[LabelRow],
    report: TrainingReport,
    calibration: Calibration,
    metrics: dict[str, Any],
    seed: int,
) -> None:
    held_out = set(report.held_out)
    with ctx.write():
        artifact = ctx.ledger.artifacts.put(file, kind="committee", name=f"{ctx.name}-round-{round_row.index}.alflow")
        ctx.ledger.committees.add(
            round_row.id,
            spec=ctx.config.committee.model_dump(mode="json"),
            training=ctx.config.training.model_dump(mode="json"),
            artifact_id=artifact.id,
            metrics=metrics,
            calibration=calibration.to_dict(),
            seed=seed,
            labels=[
                CommitteeLabel(
                    label_id=row.id,
                    held_out=i in held_out,
                    weights=tuple(float(w) for w in report.member_weights[:, i]),
                )
                for i, row in enumerate(labels)
            ],
        )
        ctx.finish(round_row, "train", metrics)


def _tell(ctx: CampaignContext, p: TrainingProgress) -> None:
    text = "" if p.held_out_loss is None else f"held-out loss {p.held_out_loss:.3g}"
    ctx.report.progress("train", p.epoch, p.max_epochs, text)
