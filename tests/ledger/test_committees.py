from __future__ import annotations

from collections.abc import Callable

import pytest

from alflow.errors import NotFoundError
from alflow.ledger import CampaignRow, CommitteeLabel, LabelKind, Ledger, TheoryRow
from alflow.structures import Properties


def test_committees(ledger: Ledger, campaign: CampaignRow, theory: TheoryRow, add: Callable[..., list[int]]) -> None:
    rows = ledger.pool.rows(add(2))
    labels = [
        ledger.labels.store(r.structure_id, theory.id, Properties(energy=1.0), kind=LabelKind.IMPORTED, evidence={})
        for r in rows
    ]
    assert ledger.committees.latest(campaign.id) is None
    checkpoint = ledger.artifacts.put(b"weights", kind="checkpoint", name="round 0")
    for _ in range(2):  # a repeated step
        committee = ledger.committees.add(
            ledger.rounds.open(campaign.id, 0).id,
            spec={"n_members": 2},
            training={"max_epochs": 3},
            artifact_id=checkpoint.id,
            metrics={"loss": float("inf")},
            calibration=None,
            seed=2**40,
            labels=[
                CommitteeLabel(label_id=labels[0].id, held_out=True, weights=(0.0, 0.0)),
                (labels[1].id, False, [1, 2]),
            ],
        )
    assert (committee.spec, committee.metrics, committee.seed) == ({"n_members": 2}, {"loss": None}, 2**40)
    assert ledger.committees.list(campaign.id) == [committee]
    assert [(c.label_id, c.held_out, c.weights) for c in ledger.committees.labels(committee.id)] == [
        (labels[0].id, True, (0.0, 0.0)),
        (labels[1].id, False, (1.0, 2.0)),
    ]
    assert ledger.committees.set_calibration(committee.id, {"energy": {"a": 1.2}}).calibration == {"energy": {"a": 1.2}}
    latest = ledger.committees.latest(campaign.id)
    assert latest is not None
    assert latest.calibration is not None
    with pytest.raises(NotFoundError):
        ledger.committees.get(99)


def test_hulls(ledger: Ledger, campaign: CampaignRow) -> None:
    assert ledger.hulls.latest(campaign.id) is None
    for index in (0, 1):
        round_id = ledger.rounds.open(campaign.id, index).id
        for energy in (0.1, 0.2):  # a repeated step replaces its snapshot
            hull = ledger.hulls.add(round_id, [{"e_hull": energy}], [{"formula": "NiPt"}], {"NiPt": 0.9})
    assert [h.round_index for h in ledger.hulls.list(campaign.id)] == [0, 1]
    assert ledger.hulls.latest(campaign.id) == hull
    assert hull.entries == ({"e_hull": 0.2},)
