"""The phase diagram of a campaign: labels and current predictions against the hull of the labels alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alflow.discovery import DiscoverySettings, HullSnapshot, RelaxedLabel, build_hull, hull_energies, report_stable
from alflow.ledger import CandidateRow, CandidateState, HullRow, LabelRow
from alflow.report._data import Compound, Hull, HullPoint
from alflow.structures import space_group

_SYMMETRY = 0.05
"""Å: a relaxation stops at a residual force, so the sites of a symmetric crystal are a little off."""
_DRAWN = {
    CandidateState.POOLED,
    CandidateState.SELECTED,
    CandidateState.QUEUED,
    CandidateState.FAILED,
    CandidateState.QUARANTINED,
}


def references(labels: Sequence[LabelRow]) -> dict[str, float]:
    """Lowest labelled energy of each element, eV/atom; elements without one are missing."""
    lowest: dict[str, float] = {}
    for label in labels:
        if len(label.structure.elements) == 1:
            energy = label.properties.hull_energy / label.structure.n_atoms
            element = label.structure.elements[0]
            lowest[element] = min(energy, lowest.get(element, np.inf))
    return lowest


def baseline(labels: Sequence[LabelRow]) -> dict[str, float]:
    """Energy per element, eV/atom, to subtract before energies of several compositions are compared in one figure.

    The labelled elements where all of them are there; else the least-squares fit to all labels, which lies in the
    middle of them and serves the same purpose.
    """
    found = references(labels)
    elements = sorted({element for label in labels for element in label.structure.elements})
    if set(elements) <= set(found):
        return found
    counts = np.array([[label.structure.composition.get(e, 0) for e in elements] for label in labels], dtype=float)
    energies = np.array([label.properties.hull_energy for label in labels])
    fitted = np.linalg.lstsq(counts, energies, rcond=None)[0]
    return dict(zip(elements, map(float, fitted), strict=True))


def gather_hull(
    candidates: Sequence[CandidateRow],
    labels: Sequence[LabelRow],
    settings: Mapping[str, Any],
    snapshot: HullRow | None,
) -> Hull | None:
    """Build the hull of the labels, and place labels and predictions against it; None without labels or discovery.

    A label at any geometry is an upper bound on the energy of its phase, so the hull of the labels is trustworthy from
    above; a compound is *confirmed* only by a label at its relaxed geometry.
    """
    discovery = DiscoverySettings.model_validate(dict(settings))
    if not labels or not discovery.enabled:
        return None
    own = build_hull(
        ids=[label.id for label in labels],
        compositions=[label.structure.composition for label in labels],
        energies=[label.properties.hull_energy for label in labels],
        labelled=np.ones(len(labels), dtype=bool),
    )
    reference = references(labels)
    by_structure = {candidate.structure_id: candidate for candidate in candidates}
    missing = tuple(element for element in own.elements if element not in reference)
    points = _labelled_points(own, labels, by_structure)
    predicted = [
        c for c in candidates if c.state in _DRAWN and c.energy is not None and set(_parts(c)) <= set(own.elements)
    ]
    points += _predicted_points(own, labels, predicted, reference)
    compounds = _compounds(own, labels, by_structure, discovery, snapshot)
    promising = [
        p
        for p in points
        if not p.has_label and p.state is CandidateState.POOLED and p.e_hull < -discovery.stable_tolerance
    ]
    return Hull(
        elements=own.elements,
        points=tuple(points),
        compounds=tuple(compounds),
        promising=tuple(sorted(promising, key=lambda p: p.e_hull)),
        missing_references=missing,
    )


def _parts(candidate: CandidateRow) -> list[str]:
    return candidate.chemical_system.split("-")


def _labelled_points(
    own: HullSnapshot, labels: Sequence[LabelRow], by_structure: Mapping[int, CandidateRow]
) -> list[HullPoint]:
    points = []
    for row, label in enumerate(labels):
        candidate = by_structure.get(label.structure_id)
        points.append(
            HullPoint(
                candidate_id=-1 if candidate is None else candidate.id,
                formula=label.structure.reduced_formula,
                fractions=tuple(map(float, own.fractions[row])),
                formation=float(own.formation_energy[row]),
                e_hull=float(own.e_hull[row]),
                error=0.0,
                state=CandidateState.LABELLED,
                has_label=True,
            )
        )
    return points


def _predicted_points(
    own: HullSnapshot, labels: Sequence[LabelRow], predicted: Sequence[CandidateRow], reference: Mapping[str, float]
) -> list[HullPoint]:
    if not predicted:
        return []
    fractions = np.array([_fractions(c, own.elements) for c in predicted])
    energy = np.array([c.energy_per_atom for c in predicted], dtype=np.float64)
    # far above everything, the predictions take no part in the hull and are only told how high it is where they stand
    far = max(own.energy.max(), energy.max()) + 1e3
    everything = np.concatenate([own.energy, np.full(len(predicted), far)])
    hull = hull_energies(np.concatenate([own.fractions, fractions]), everything[None])[0][len(labels) :]
    base = fractions @ np.array([reference.get(element, np.nan) for element in own.elements])
    return [
        HullPoint(
            candidate_id=c.id,
            formula=c.reduced_formula,
            fractions=tuple(map(float, fractions[i])),
            formation=float(energy[i] - base[i]),
            e_hull=float(energy[i] - hull[i]),
            error=c.energy_error or 0.0,
            state=c.state,
            has_label=False,
        )
        for i, c in enumerate(predicted)
        if hull[i] < far - 500  # else: outside the compositions that have labels
    ]


def _fractions(candidate: CandidateRow, elements: Sequence[str]) -> list[float]:
    from ase.formula import Formula

    counts = Formula(candidate.reduced_formula).count()
    total = sum(counts.values())
    return [counts.get(element, 0) / total for element in elements]


def residuals(label: LabelRow) -> RelaxedLabel:
    """Largest force and Frobenius norm of the stress in a label; nan where it has none."""
    forces, stress = label.properties.forces, label.properties.stress
    return RelaxedLabel(
        force=float("nan") if forces is None else float(np.linalg.norm(forces, axis=1).max()),
        stress=float("nan") if stress is None else float(np.linalg.norm(stress)),
    )


def _compounds(
    own: HullSnapshot,
    labels: Sequence[LabelRow],
    by_structure: Mapping[int, CandidateRow],
    discovery: DiscoverySettings,
    snapshot: HullRow | None,
) -> list[Compound]:
    """Return the lowest label of each composition within the tolerance of the hull, in order of composition."""
    evidence = {label.id: residuals(label) for label in labels}
    confirmed, remarks = _verdicts(own, labels, by_structure, evidence, discovery, snapshot)
    row_of = {label.id: row for row, label in enumerate(labels)}
    best: dict[tuple[float, ...], int] = {}
    for label_id in [*confirmed, *remarks]:
        key = tuple(np.round(own.fractions[row_of[label_id]], 9))
        rank = (label_id not in confirmed, own.e_hull[row_of[label_id]], label_id)
        if key not in best or rank < (best[key] not in confirmed, own.e_hull[row_of[best[key]]], best[key]):
            best[key] = label_id
    spread = {int(entry["id"]): entry for entry in (snapshot.entries if snapshot is not None else ())}
    found = []
    for key in sorted(best, reverse=True):
        row = row_of[best[key]]
        label = labels[row]
        candidate = by_structure.get(label.structure_id)
        seen = {} if candidate is None else spread.get(candidate.id, {})
        number, symbol = space_group(label.structure, symprec=_SYMMETRY)
        found.append(
            Compound(
                candidate_id=None if candidate is None else candidate.id,
                label_id=label.id,
                formula=label.structure.reduced_formula,
                n_atoms=label.structure.n_atoms,
                fractions=tuple(map(float, own.fractions[row])),
                formation=float(own.formation_energy[row]),
                e_hull=float(own.e_hull[row]),
                e_hull_error=None if seen.get("spread") is None else float(seen["spread"]),
                p_stable=None if seen.get("p_stable") is None else float(seen["p_stable"]),
                space_group=f"{symbol} ({number})" if number else "–",
                residual_force=_finite(evidence[label.id].force),
                residual_stress=_finite(evidence[label.id].stress),
                confirmed=label.id in confirmed,
                remark=remarks.get(label.id, ""),
            )
        )
    return found


def _verdicts(
    own: HullSnapshot,
    labels: Sequence[LabelRow],
    by_structure: Mapping[int, CandidateRow],
    evidence: Mapping[int, RelaxedLabel],
    discovery: DiscoverySettings,
    snapshot: HullRow | None,
) -> tuple[set[int], dict[int, str]]:
    """Labels of confirmed compounds, and why others on the hull of the labels are not.

    The campaign's own verdict counts where it has given one: it also knows the predictions that may lie lower.
    """
    report = report_stable(own, evidence, discovery)
    confirmed, remarks = {compound.id for compound in report.stable}, dict(report.unconfirmed)
    if snapshot is None:
        return confirmed, remarks
    verdict = {int(entry["label_id"]) for entry in snapshot.stable if entry.get("label_id") is not None}
    verdict &= {label.id for label in labels}
    label_of = {
        candidate.id: label.id for label in labels if (candidate := by_structure.get(label.structure_id)) is not None
    }
    said = {label_of.get(int(entry["id"])): str(entry["reason"]) for entry in snapshot.spread.get("unconfirmed", ())}
    for label_id in confirmed - verdict:
        remarks[label_id] = said.get(label_id, "a prediction that is not labelled yet lies lower")
    return verdict, {label_id: why for label_id, why in remarks.items() if label_id not in verdict}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
