"""What is open: the same as in the report, and only once for each composition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alflow.ledger import CandidateState, Ledger, NewCandidate, open_ledger
from alflow.report import open_phases
from alflow.report._gather import gather
from alflow.report._open import _open
from tests.report.conftest import DEPTHS, energy_of, ordering, play


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Ledger]:
    with open_ledger(f"sqlite:///{tmp_path / 'own.db'}") as opened:
        play(opened)
        yield opened


def predict_below(ledger: Ledger, campaign_id: int, *depths: float) -> list[int]:
    """Pooled candidates of the composition NiPt, so many eV/atom below the label, on the hull of their round."""
    row = ledger.rounds.open(campaign_id, 4)
    species = sorted(DEPTHS)[1]
    structures = [ordering(species, 0.01, 0.2, seed=k) for k in range(len(depths))]
    items = [
        NewCandidate(structure=s, source="relax", state=CandidateState.POOLED, reason="new and plausible")
        for s in structures
    ]
    ids = ledger.pool.add(campaign_id, row.id, items)
    committee = ledger.committees.add(
        row.id, spec={}, training={}, artifact_id=None, metrics={}, calibration=None, seed=0, labels=[]
    )
    small = np.full(len(ids), 1e-3)
    energies = np.array([energy_of(s) - s.n_atoms * d for s, d in zip(structures, depths, strict=True)])
    zero = np.zeros(len(ids))
    ledger.pool.set_scores(committee.id, ids, small, energies, small, small, small, e_hull=zero, e_hull_error=small)
    return ids


def test_nothing_is_open_where_all_is_confirmed(ledger: Ledger) -> None:
    assert open_phases(ledger, "ni-pt") == ()
    assert open_phases(ledger, "empty") == ()


def test_the_lowest_point_of_the_hull_is_named_though_it_is_not_confirmed(own: Ledger) -> None:
    campaign = own.campaigns.get("ni-pt")
    shallow, deep = predict_below(own, campaign.id, 0.004, 0.009)
    snapshot = own.hulls.latest(campaign.id)
    data = gather(own, "ni-pt")
    assert snapshot is not None
    assert data.hull is not None
    nipt = next(c for c in data.hull.compounds if c.formula == "NiPt")
    stable = [entry for entry in snapshot.stable if entry["label_id"] != nipt.label_id]
    last = own.rounds.list(campaign.id)[-1]
    own.hulls.add(last.id, list(snapshot.entries), stable, {"unconfirmed": []})

    labelled, predicted = open_phases(own, "ni-pt")
    assert (labelled.formula, labelled.candidate_id, labelled.label_id) == ("NiPt", nipt.candidate_id, nipt.label_id)
    assert labelled.formation_energy == pytest.approx(-0.139)
    assert labelled.remark == "a prediction that is not labelled yet lies lower"
    assert (predicted.formula, predicted.candidate_id, predicted.label_id) == ("NiPt", deep, None)
    assert predicted.e_hull == pytest.approx(-0.009)
    hull = gather(own, "ni-pt").hull
    assert hull is not None
    assert [c.candidate_id for c in hull.unconfirmed] == [labelled.candidate_id]
    assert [p.candidate_id for p in hull.promising] == [deep, shallow]


def test_elements_are_named_as_well(ledger: Ledger) -> None:
    hull = gather(ledger, "ni-pt").hull
    assert hull is not None
    compounds = tuple(replace(c, confirmed=False, remark="not relaxed") for c in hull.compounds)
    assert [p.formula for p in _open(replace(hull, compounds=compounds))] == ["Ni", "Ni3Pt", "NiPt", "NiPt3", "Pt"]
