"""Structures in motion: the same answers as a fresh prediction, with few neighbour searches."""

from __future__ import annotations

import numpy as np
import pytest

from alflow.errors import PotentialError
from alflow.potentials import BatchEvaluator, NativeCommittee
from alflow.structures import Structure
from tests.potentials.conftest import cells, odd_ones


def test_follows_moving_atoms_and_cells(committee: NativeCommittee) -> None:
    structures = [Structure.from_atoms(a) for a in [*cells(4, 2), *odd_ones()]]
    evaluate = committee.evaluator(structures)
    assert isinstance(evaluate, BatchEvaluator)
    rng = np.random.default_rng(0)
    places, lattices = [s.positions for s in structures], [s.cell for s in structures]
    n_steps = 15
    for _ in range(n_steps):
        strains = [np.eye(3) + 0.004 * rng.normal(size=(3, 3)) for _ in structures]
        places = [(x + 0.02 * rng.normal(size=x.shape)) @ f for x, f in zip(places, strains, strict=True)]
        lattices = [h @ f for h, f in zip(lattices, strains, strict=True)]
        found = evaluate(places, np.stack(lattices))
        moved = [s.with_geometry(cell=h, positions=x) for s, h, x in zip(structures, lattices, places, strict=True)]
        fresh = committee.predict(moved)
        np.testing.assert_allclose(found.energy, fresh.energy, atol=1e-9)
        assert found.stress is not None
        assert fresh.stress is not None
        np.testing.assert_allclose(found.stress, fresh.stress, atol=1e-9)
        for one, other in zip(found.forces, fresh.forces, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-8 * max(1.0, np.abs(other).max()))
    assert len(structures) <= evaluate.n_searches < n_steps * len(structures) / 2


def test_a_jump_is_noticed(committee: NativeCommittee) -> None:
    structure = Structure.from_atoms(cells(4, 3)[3])
    evaluate = committee.evaluator([structure])
    evaluate([structure.positions], structure.cell[None])
    cell = structure.cell * 0.8
    moved = structure.with_geometry(cell=cell, positions=structure.positions * 0.8 + np.array([3.0, 0, 0]))
    found = evaluate([moved.positions], cell[None])
    np.testing.assert_allclose(found.energy, committee.predict([moved]).energy, atol=1e-9)


def test_some_of_the_structures(committee: NativeCommittee) -> None:
    structures = [Structure.from_atoms(a) for a in cells(5, 2)]
    evaluate = committee.evaluator(structures, stress=False)
    active = np.array([3, 1])
    found = evaluate([structures[i].positions for i in active], np.stack([structures[i].cell for i in active]), active)
    np.testing.assert_allclose(found.energy, committee.predict([structures[i] for i in active]).energy, atol=1e-9)
    assert found.stress is None
    with pytest.raises(PotentialError, match="differ"):
        evaluate([structures[0].positions], np.stack([s.cell for s in structures]))
