"""What is read from the ledger is what was played into it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from alflow.errors import NotFoundError
from alflow.ledger import CandidateState, Ledger, Stream
from alflow.potentials import Kind
from alflow.report._data import Fate, ReportData
from alflow.report._gather import gather, group_reason
from alflow.report._hull import baseline, gather_hull


@pytest.fixture(scope="module")
def data(ledger: Ledger) -> ReportData:
    return gather(ledger, "ni-pt")


def test_head(data: ReportData) -> None:
    assert data.name == "ni-pt"
    assert data.state == "stopped"
    assert "label budget" in data.reason
    assert data.elements == ("Ni", "Pt")
    assert data.theory["name"] == "toy"
    assert data.targets[Kind.FORCE] == 0.1


def test_counts(data: ReportData) -> None:
    assert data.n_candidates == 6 + 3 * (12 + 4 + 5) + 1
    assert data.n_computed == 6 + 3 * 7 - 1  # one failed
    assert (data.n_reused, data.n_imported, data.n_known_again) == (1, 0, 2)
    totals = {fate: sum(flow.fates.get(fate, 0) for flow in data.flows) for fate in Fate}
    assert totals == {
        Fate.LABELLED: data.n_computed,
        Fate.REUSED: 1,
        Fate.DUPLICATE: 15,
        Fate.REJECTED: 12,
        Fate.POOLED: 15,
        Fate.QUEUED: 0,
        Fate.FAILED: 1,
    }


def test_reasons_are_grouped(data: ReportData) -> None:
    counts = {(r.fate, r.reason): r.count for r in data.reasons}
    assert counts[Fate.REJECTED, "minimum distance"] == 12
    assert counts[Fate.DUPLICATE, "redundant with candidate …"] == 15


@pytest.mark.parametrize(
    ("reason", "grouped"),
    [
        ("minimum distance: Ni-Pt 1.83 Å apart", "minimum distance"),
        ("redundant with candidate 17 (Ni3Pt, pooled): 0.002 Å", "redundant with candidate …"),
        ("u = 12.5 is above 1e+01", "u = … is above …"),
        ("part of the designed first round", "part of the designed first round"),
        ("", ""),
    ],
)
def test_group_reason(reason: str, grouped: str) -> None:
    assert group_reason(reason) == grouped


def test_judged_rows_carry_what_the_round_s_committee_stated(data: ReportData) -> None:
    assert len(data.judged) == 21
    assert sum(row.failed for row in data.judged) == 1
    row = next(r for r in data.judged if r.round_index == 1)
    assert row.n_labels == 6
    assert row.sigma[Kind.ENERGY] == pytest.approx(np.hypot(1.5 * 0.004, 0.001))
    assert row.interval[Kind.ENERGY] == pytest.approx(1.7 * row.sigma[Kind.ENERGY])
    assert Kind.STRESS not in row.error
    assert sum(r.stream is Stream.RANDOM for r in data.judged) == 6


def test_labels_before_each_round(data: ReportData) -> None:
    assert [r.n_labels_before for r in data.rounds] == [0, 6, 13, 19]
    assert data.rounds[1].labels == {Stream.CONFIRM: 1, Stream.RANDOM: 2, Stream.ACTIVE: 4}


def test_parity_is_in_formation_energies(data: ReportData) -> None:
    assert len(data.parity) == 20
    best = min(data.parity, key=lambda p: p.labelled)
    assert best.formula == "Ni2Pt2"
    assert best.labelled == pytest.approx(-0.139)
    assert best.predicted == pytest.approx(best.labelled, abs=0.01)


def test_hull(data: ReportData) -> None:
    assert data.hull is not None
    assert data.hull.elements == ("Ni", "Pt")
    assert [c.formula for c in data.hull.compounds] == ["Ni", "Ni3Pt", "NiPt", "NiPt3", "Pt"]
    assert all(c.confirmed for c in data.hull.compounds)
    formation = {c.formula: c.formation for c in data.hull.compounds}
    assert formation == pytest.approx(
        {"Ni": 0.0, "Ni3Pt": -0.118, "NiPt": -0.139, "NiPt3": -0.086, "Pt": 0.0}, abs=1e-9
    )
    groups = {c.formula: c.space_group for c in data.hull.compounds}
    assert groups["Ni3Pt"] == "Pm-3m (221)"
    assert groups["NiPt"].startswith("P4/mmm")
    ni3pt = data.hull.compounds[1]
    assert (ni3pt.e_hull_error, ni3pt.p_stable, ni3pt.residual_force) == (0.0012, 0.75, 0.0)


def test_predictions_are_measured_against_the_hull_of_the_labels(data: ReportData) -> None:
    assert data.hull is not None
    predicted = [p for p in data.hull.points if p.state is CandidateState.POOLED]
    assert len(predicted) == 15
    for point in predicted:
        assert point.e_hull == pytest.approx(point.formation - np.interp(point.fractions[1], *line(data)), abs=1e-9)


def line(data: ReportData) -> tuple[list[float], list[float]]:
    assert data.hull is not None
    vertices = sorted((c.fractions[1], c.formation) for c in data.hull.compounds)
    return [x for x, _ in vertices], [e for _, e in vertices]


def test_without_discovery_there_is_no_phase_diagram(ledger: Ledger) -> None:
    row = ledger.campaigns.get("ni-pt")
    candidates = ledger.pool.rows(ledger.pool.ids(row.id))
    labels = ledger.labels.accepted(ledger.theories.get("toy").id, row.id)
    assert gather_hull(candidates, labels, {}, None) is not None
    assert gather_hull(candidates, labels, {"enabled": False}, None) is None
    assert gather_hull(candidates, [], {}, None) is None


def test_without_a_snapshot_the_labels_alone_decide(ledger: Ledger) -> None:
    row = ledger.campaigns.get("ni-pt")
    labels = ledger.labels.accepted(ledger.theories.get("toy").id, row.id)
    hull = gather_hull(ledger.pool.rows(ledger.pool.ids(row.id)), labels, {"max_force": 1e-9}, None)
    assert hull is not None
    assert all(c.confirmed for c in hull.compounds)
    assert all(c.p_stable is None for c in hull.compounds)


def test_a_verdict_of_the_campaign_counts(ledger: Ledger) -> None:
    row = ledger.campaigns.get("ni-pt")
    labels = ledger.labels.accepted(ledger.theories.get("toy").id, row.id)
    candidates = ledger.pool.rows(ledger.pool.ids(row.id))
    snapshot = ledger.hulls.latest(row.id)
    assert snapshot is not None
    doubted = next(c for c in candidates if c.id == snapshot.stable[-1]["id"])
    less = replace(
        snapshot,
        stable=snapshot.stable[:-1],
        spread={"unconfirmed": [{"id": doubted.id, "reason": "a rival lies lower"}]},
    )
    hull = gather_hull(candidates, labels, {}, less)
    assert hull is not None
    open_ = [(c.candidate_id, c.remark) for c in hull.compounds if not c.confirmed]
    assert open_ == [(doubted.id, "a rival lies lower")]


def test_baseline_is_fitted_where_an_element_has_no_label(ledger: Ledger) -> None:
    row = ledger.campaigns.get("ni-pt")
    labels = ledger.labels.accepted(ledger.theories.get("toy").id, row.id)
    assert baseline(labels) == pytest.approx({"Ni": -5.0, "Pt": -6.0})
    mixed = [label for label in labels if len(label.structure.elements) == 2]
    fitted = baseline(mixed)
    left = [
        label.properties.energy - sum(fitted[e] * n for e, n in label.structure.composition.items()) for label in mixed
    ]
    assert np.abs(left).max() < 1.0
    assert np.mean(left) == pytest.approx(0, abs=0.05)


def test_no_password_among_the_settings(data: ReportData) -> None:
    assert data.settings["sources[1].temperature"] == "600"
    assert not any("secret" in value for value in data.settings.values())


def test_a_campaign_that_has_not_begun(ledger: Ledger) -> None:
    data = gather(ledger, "empty")
    assert data.hull is None
    assert data.rounds == ()
    assert data.elements == ("Cu",)


def test_unknown_campaign(ledger: Ledger) -> None:
    with pytest.raises(NotFoundError, match="nickel"):
        gather(ledger, "nickel")
