"""Hulls over the labelled and predicted energies of a campaign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alflow.discovery import HullSnapshot, RelaxedLabel, build_hull, confirmation_order, report_stable
from alflow.errors import StructureError
from alflow.explore import RelaxStop
from alflow.ledger import CandidateRow, CandidateState, LabelRow, StepState
from alflow.loop._committee import latest_committee
from alflow.loop._context import CampaignContext
from alflow.potentials import Prediction
from alflow.structures import DuplicateIndex, DuplicatePolicy, Properties, space_group

PHASE = DuplicatePolicy.same_phase().model_copy(update={"max_strain": 0.03})
"""One phase near its minimum: along soft directions, such as c/a of a layered alloy, relaxed labels differ by 1-2 %."""
if TYPE_CHECKING:
    from numpy.typing import NDArray

NEAR = 0.1
"""eV/atom above the hull up to which predicted entries are kept in the snapshot of a round."""


def labelled_candidates(ctx: CampaignContext) -> list[tuple[CandidateRow, LabelRow]]:
    """Return the labelled candidates of the campaign, each with its accepted label."""
    by_structure = {label.structure_id: label for label in ctx.ledger.labels.accepted(ctx.theory.id, ctx.campaign_id)}
    rows = ctx.ledger.pool.rows(ctx.ledger.pool.ids(ctx.campaign_id, [CandidateState.LABELLED]))
    return [(row, by_structure[row.structure_id]) for row in rows if row.structure_id in by_structure]


def mixed_hull(
    ctx: CampaignContext, ids: Sequence[int], compositions: Sequence[Mapping[str, int]], prediction: Prediction | None
) -> HullSnapshot | None:
    """Hull of the campaign's labels and a committee's predictions; None while there is no entry at all.

    Parameters
    ----------
    ctx
        the campaign
    ids, compositions
        candidates without label and their atoms per element, in the order of the prediction
    prediction
        what the committee says about them; implausible ones (u > u_max) take no part
    """
    labelled = labelled_candidates(ctx)
    plausible = [i for i in range(len(ids)) if prediction is not None and prediction.u[i] <= ctx.config.targets.u_max]
    if not labelled and not plausible:
        return None
    n_members = 1 if prediction is None else prediction.n_members
    known = np.array([label.properties.hull_energy for _, label in labelled]).reshape(1, -1)
    energies = np.repeat(known, n_members, axis=0)
    errors = np.zeros(len(labelled))
    if prediction is not None:
        predicted = prediction.energy + _extrapolation([label for _, label in labelled], compositions)
        energies = np.concatenate([energies, predicted[:, plausible]], axis=1)
        errors = np.concatenate([errors, prediction.energy_error[plausible]])
    return build_hull(
        ids=[row.id for row, _ in labelled] + [ids[i] for i in plausible],
        compositions=[label.structure.composition for _, label in labelled] + [compositions[i] for i in plausible],
        energies=energies,
        labelled=[True] * len(labelled) + [False] * len(plausible),
        energy_error=errors,
        tolerance=ctx.config.discovery.stable_tolerance,
    )


def _extrapolation(labels: Sequence[LabelRow], compositions: Sequence[Mapping[str, int]]) -> NDArray[np.float64]:
    """(n,) eV: from the force-consistent energies that a committee learns to the extrapolated ones of a hull.

    What separates the two is half the electronic entropy term; a share for each element is fitted to the labels.
    """
    elements = sorted({element for label in labels for element in label.structure.composition})
    apart = np.array([label.properties.hull_energy - label.properties.energy for label in labels])
    if not apart.any():
        return np.zeros(len(compositions))
    known = [[label.structure.composition.get(e, 0) for e in elements] for label in labels]
    shares = np.linalg.lstsq(np.array(known, dtype=np.float64), apart, rcond=None)[0]
    shift: NDArray[np.float64] = np.array([[c.get(e, 0) for e in elements] for c in compositions], float) @ shares
    return shift


def unlabelled_to_confirm(ctx: CampaignContext, hull: HullSnapshot) -> list[int]:
    """Return candidates that look stable at their relaxed geometry and have no label there, most promising first.

    One for each phase, in the geometry of the newest committee, and none of a phase that has a label at its relaxed
    geometry: every committee relaxes a phase to a slightly different geometry, and one proof is enough.
    """
    if not ctx.config.discovery.enabled:
        return []
    order = confirmation_order(hull, relaxed_ids(ctx), ctx.config.discovery)
    proven = DuplicateIndex(PHASE)
    for row, label in labelled_candidates(ctx):
        if is_relaxed(ctx, label.properties):
            proven.add(row.id, label.structure)
    newest: dict[int, int] = {}
    for candidate, structure in zip(order, ctx.ledger.pool.structures(order), strict=True):
        match = proven.find(structure)
        if match is None:
            proven.add(candidate, structure)
            newest[candidate] = candidate
        elif match.key in newest:
            newest[match.key] = max(newest[match.key], candidate)
    return list(newest.values())


def relaxed_ids(ctx: CampaignContext) -> set[int]:
    """Return the candidates that a committee relaxed to the end, or that such a geometry was a duplicate of."""
    states = [CandidateState.POOLED, CandidateState.SELECTED, CandidateState.LABELLED, CandidateState.DUPLICATE]
    found: set[int] = set()
    for row in ctx.ledger.pool.rows(ctx.ledger.pool.ids(ctx.campaign_id, states)):
        if is_relaxed_geometry(row.source, row.parameters):
            found.add(row.id if row.duplicate_of is None else row.duplicate_of)
    return found


def is_relaxed_geometry(source: str, parameters: Mapping[str, Any]) -> bool:
    """True for a geometry that a committee relaxed to the end."""
    return source == "relax" and parameters.get("stop") == RelaxStop.CONVERGED


def needs_confirmation(ctx: CampaignContext) -> list[int]:
    """Return what the newest scoring found to need a label at its relaxed geometry, as far as it is still pooled."""
    for row in sorted(ctx.ledger.rounds.list(ctx.campaign_id), key=lambda r: -r.index):
        step = ctx.ledger.rounds.step(row.id, "score")
        if step.state is StepState.FINISHED:
            wanted = [int(i) for i in step.summary.get("confirm", ())]
            pooled = set(ctx.ledger.pool.ids(ctx.campaign_id, [CandidateState.POOLED]))
            return [i for i in wanted if i in pooled]
    return []


@dataclass(frozen=True, kw_only=True)
class RoundHull:
    """The hull at the end of a round, as the ledger keeps it."""

    entries: list[dict[str, Any]]
    stable: list[dict[str, Any]]
    spread: dict[str, Any]


def round_hull(ctx: CampaignContext) -> RoundHull | None:
    """Build the hull at the end of a round with the compounds that may be called stable; None where there is none."""
    if not ctx.config.discovery.enabled:
        return None
    committee = latest_committee(ctx)
    low = [
        row
        for row in ctx.ledger.pool.rows(ctx.ledger.pool.ids(ctx.campaign_id, [CandidateState.POOLED]))
        if row.e_hull is not None and row.e_hull < NEAR
    ]
    structures = ctx.ledger.pool.structures([row.id for row in low])
    prediction = committee.predict(structures) if committee is not None and low else None
    hull = mixed_hull(ctx, [row.id for row in low], [s.composition for s in structures], prediction)
    if hull is None:
        return None
    labelled = labelled_candidates(ctx)
    labels = {row.id: label for row, label in labelled}
    report = report_stable(hull, {row.id: residual(label.properties) for row, label in labelled}, ctx.config.discovery)
    entries = {entry["id"]: entry for entry in hull.entries()}
    stable: list[dict[str, Any]] = []
    listed = DuplicateIndex(PHASE)
    for compound in sorted(report.stable, key=lambda found: (found.e_hull, found.id)):
        label = labels[compound.id]
        if listed.find(label.structure) is not None:
            continue  # the same phase, labelled at a slightly different geometry
        listed.add(compound.id, label.structure)
        number, symbol = _space_group(label)
        stable.append(
            asdict(compound)
            | {
                "composition": dict(compound.composition),
                "formula": label.structure.reduced_formula,
                "n_atoms": label.structure.n_atoms,
                "energy": entries[compound.id]["energy"],
                "label_id": label.id,
                "space_group": symbol,
                "space_group_number": number,
            }
        )
    stable.sort(key=lambda found: (sorted(found["composition"].items()), found["e_hull"]))
    unconfirmed = [{"id": i, "reason": why} for i, why in report.unconfirmed]
    return RoundHull(
        entries=[e for e in entries.values() if e["labelled"] or e["e_hull"] < NEAR],
        stable=stable,
        spread=hull.summary() | {"unconfirmed": unconfirmed},
    )


def residual(properties: Properties) -> RelaxedLabel:
    """Return the residual force and stress of a label."""
    forces, stress = properties.forces, properties.stress
    return RelaxedLabel(
        force=float("nan") if forces is None else float(np.linalg.norm(forces, axis=1).max()),
        stress=float("nan") if stress is None else float(np.linalg.norm(stress)),
    )


def is_relaxed(ctx: CampaignContext, properties: Properties) -> bool:
    """True where a label shows residual force and stress within the campaign's limits."""
    found = residual(properties)
    return found.force <= ctx.config.discovery.max_force and found.stress <= ctx.config.discovery.max_stress


def _space_group(label: LabelRow) -> tuple[int, str]:
    try:
        return space_group(label.structure)
    except StructureError:
        return 0, ""
