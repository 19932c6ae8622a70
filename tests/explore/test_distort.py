from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from alflow.explore._distort import deform, random_strain, rattle, repeat_to, with_volume_factor
from alflow.structures import Structure

COPPER = Structure.from_atoms(bulk("Cu", cubic=True))


def test_a_traceless_strain_keeps_the_volume() -> None:
    rng = np.random.default_rng(1)
    strain = random_strain(rng, 0.1, traceless=True)
    assert np.allclose(strain, strain.T)
    assert deform(COPPER, strain).volume == pytest.approx(COPPER.volume)
    assert deform(COPPER, strain).content_hash != COPPER.content_hash
    assert with_volume_factor(COPPER, 1.1).volume == pytest.approx(1.1 * COPPER.volume)


def test_strains_prefer_no_direction() -> None:
    rng = np.random.default_rng(2)
    strains = np.array([random_strain(rng, 0.1) for _ in range(20_000)])
    direction = np.array([1.0, 2.0, -2.0]) / 3
    along = np.einsum("nij,i,j->n", strains, direction, direction)
    assert along.std() == pytest.approx(strains[:, 0, 0].std(), rel=0.02)
    assert along.std() == pytest.approx(0.1, rel=0.02)


def test_rattling_leaves_the_mean_and_single_atoms_alone() -> None:
    rng = np.random.default_rng(3)
    moved = rattle(COPPER, rng, 0.1)
    assert np.allclose(moved.positions.mean(axis=0), COPPER.positions.mean(axis=0))
    assert np.abs(moved.positions - COPPER.positions).max() > 0.01
    assert rattle(COPPER, rng, 0.0) == COPPER
    primitive = Structure.from_atoms(bulk("Cu"))
    assert rattle(primitive, rng, 0.1) == primitive


def test_repetition_keeps_density_species_and_electronic_state() -> None:
    atoms = bulk("NiPt", "cesiumchloride", a=3.0)
    atoms.set_initial_magnetic_moments([0.6, 0.0])
    atoms.info["charge"] = 0.5
    large = repeat_to(Structure.from_atoms(atoms), 8)
    assert large.n_atoms == 8
    assert large.volume / 8 == pytest.approx(27.0 / 2)
    assert np.allclose(np.sort(np.linalg.norm(large.cell, axis=1)), [3, 6, 6])
    assert large.charge == pytest.approx(2.0)
    assert large.moments is not None
    assert (large.moments == np.where(large.numbers == 28, 0.6, 0.0)).all()
    distances = large.to_atoms().get_all_distances(mic=True)
    assert distances[distances > 0].min() == pytest.approx(3.0 * 3**0.5 / 2)


def test_molecules_are_not_repeated() -> None:
    molecule = Structure.from_atoms(Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.2]]))
    assert repeat_to(molecule, 100) == molecule
