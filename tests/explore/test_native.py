"""Relaxation and dynamics with the potential that campaigns use."""

from __future__ import annotations

import numpy as np
import pytest
from ase.calculators.emt import EMT

from alflow.explore import (
    DynamicsSettings,
    DynamicsSource,
    EnumerateSettings,
    EnumerateSource,
    ExploreContext,
    RelaxSettings,
    Round0Settings,
    relax_batch,
    round0,
)
from alflow.potentials import Committee, CommitteeSpec, TrainingSpec, train_committee
from alflow.structures import Structure

ELEMENTS = ("Ni", "Pt")


@pytest.fixture(scope="module")
def committee() -> Committee:
    """Small and hardly trained: enough to have forces and opinions."""
    train = []
    for proposal in round0(Round0Settings(n_spread=8), ELEMENTS, np.random.default_rng(0)):
        atoms = proposal.structure.to_atoms()
        atoms.calc = EMT()
        atoms.get_stress()
        train.append(atoms)
    return train_committee(train, CommitteeSpec(n_members=2, channels=4), TrainingSpec(max_epochs=5), seed=0)


def orderings() -> list[Structure]:
    context = ExploreContext(rng=np.random.default_rng(0), elements=ELEMENTS)
    return [p.structure for p in EnumerateSource(EnumerateSettings(max_atoms=3)).propose(context)]


def test_a_relaxed_geometry_has_the_energy_that_is_predicted_for_it(committee: Committee) -> None:
    results = relax_batch(committee, orderings(), RelaxSettings(u_limit=1e9, max_steps=40))
    before = committee.predict(orderings())
    after = committee.predict([r.structure for r in results])
    assert np.allclose([r.energy for r in results], after.energy_mean, atol=1e-4)
    assert np.allclose([r.u for r in results], after.u, rtol=1e-2)
    assert (after.energy_mean <= before.energy_mean + 1e-3).all()
    assert any(r.converged for r in results)


def test_frames_have_the_uncertainty_that_is_predicted_for_them(committee: Committee) -> None:
    settings = DynamicsSettings(walkers=2, steps=6, save_every=3, u_limit=1e9, temperatures=(300.0,))
    context = ExploreContext(rng=np.random.default_rng(1), elements=ELEMENTS, starts=orderings(), committee=committee)
    proposals = list(DynamicsSource(settings).propose(context))
    assert [p.parameters["step"] for p in proposals] == [3, 6, 3, 6]
    predicted = committee.predict([p.structure for p in proposals]).u
    assert np.allclose([p.parameters["u"] for p in proposals], predicted, rtol=1e-2)
