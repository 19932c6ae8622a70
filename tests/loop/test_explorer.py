"""Foreign potentials lead the first rounds; afterwards the campaign's own committee does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from alflow.config import load_campaign
from alflow.errors import ConfigError, PotentialError
from alflow.loop import RunLimits, open_campaign, run
from alflow.potentials import CalculatorCommittee, Calibration, Committee, ExploringCommittee, Targets, check_committee
from tests.loop.conftest import MakeCampaign, write_campaign

WORKER = "labelers: {near: {calculator: ase.calculators.emt.EMT}}\n"
SOURCES = [
    {"kind": "enumerate", "max_atoms": 2},
    {"kind": "relax", "max_starts": 3, "f_max": 0.02, "stress_max": 0.002},
]


def test_relaxations_of_round_0_follow_the_calculators(make_campaign: MakeCampaign) -> None:
    path = make_campaign(
        sources=SOURCES,
        explorer={"rounds": 1, "calculators": ["near"]},
        round0={"prototypes": ["fcc"], "n_spread": 4, "max_atoms": 4, "parents": ["fcc"], "n_pool": 2},
    )
    (path.parent / "alflow-worker.yaml").write_text(WORKER)
    ctx = open_campaign(path)
    run(ctx, limits=RunLimits(rounds=1))
    relaxed = [r for r in ctx.ledger.pool.rows(ctx.ledger.pool.ids(ctx.campaign_id)) if r.source == "relax"]
    assert relaxed
    assert {r.round_index for r in relaxed} == {0}
    for structure in ctx.ledger.pool.structures([r.id for r in relaxed]):
        atoms = structure.to_atoms()
        atoms.calc = EMT()
        assert np.abs(atoms.get_stress()).max() < 0.004  # at the minimum of what led, which no label had shown yet
    assert ctx.ledger.committees.latest(ctx.campaign_id) is None


def test_later_rounds_follow_the_committee(make_campaign: MakeCampaign, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_campaign(sources=SOURCES, explorer={"rounds": 1, "calculators": ["near"]})
    (path.parent / "alflow-worker.yaml").write_text(WORKER)
    ctx = open_campaign(path)
    run(ctx, limits=RunLimits(rounds=1))

    def never(_: object) -> None:
        raise AssertionError("round 1 has a committee of its own")

    monkeypatch.setattr("alflow.loop._explore.exploring_committee", never)
    run(ctx, limits=RunLimits(rounds=1))
    assert ctx.ledger.committees.latest(ctx.campaign_id) is not None


def test_an_unknown_calculator_is_named(make_campaign: MakeCampaign) -> None:
    path = make_campaign(sources=SOURCES, explorer={"rounds": 1, "calculators": ["neer"]})
    (path.parent / "alflow-worker.yaml").write_text(WORKER)
    with pytest.raises(ConfigError, match=r"neer.*near"):
        run(open_campaign(path), limits=RunLimits(rounds=1))


def test_nothing_to_explore_with_is_said_with_its_place(tmp_path: Path) -> None:
    path = write_campaign(tmp_path / "campaign", explorer={"rounds": 2})
    with pytest.raises(ConfigError, match=r"explorer\.rounds: there is nothing to explore with"):
        load_campaign(path)


def test_only_forces_and_stresses_of_an_explorer_are_compared() -> None:
    targets = Targets(force=0.2)
    atoms = bulk("Ni", cubic=True, a=3.5)
    atoms.rattle(0.05, seed=1)
    one = ExploringCommittee(committee=CalculatorCommittee([EMT()], ["Ni"]), targets=targets)
    assert isinstance(one, Committee)
    p = one.predict([atoms])
    assert p.n_members == one.n_members == 2
    assert p.u[0] == 0
    check_committee(one, [atoms], tolerance=1e-3)
    two = ExploringCommittee(committee=CalculatorCommittee([EMT(), EMT(asap_cutoff=True)], ["Ni"]), targets=targets)
    q = two.predict([atoms])
    assert q.energy_spread[0] == 0
    assert q.force_spread[0] > 0
    assert q.u[0] == pytest.approx(max(q.force_spread[0] / 0.2, q.stress_spread[0] / targets.stress))
    with pytest.raises(PotentialError, match="calibrated"):
        one.with_calibration(Calibration())
    with pytest.raises(PotentialError, match="settings"):
        one.save("x")
