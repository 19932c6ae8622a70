"""Labelled Ni-Pt cells and a few small committees, made once."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT

from alflow.potentials import CommitteeSpec, NativeCommittee, TrainingSpec, train_committee


def label(atoms: Atoms) -> Atoms:
    """EMT labels as REF_* entries."""
    atoms = atoms.copy()
    atoms.calc = EMT()
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    if atoms.pbc.all():
        atoms.info["REF_stress"] = atoms.get_stress(voigt=False)
    atoms.calc = None
    atoms.info["REF_energy"] = energy
    atoms.arrays["REF_forces"] = forces
    return atoms


def cells(n: int, seed: int = 0) -> list[Atoms]:
    """Unlabelled Ni-Pt cells of 1 to 6 atoms, somewhat strained and rattled."""
    rng = np.random.default_rng(seed)
    lattice = {"Ni": 3.52, "Pt": 3.92}
    repeats = [(1, 1, 1), (2, 1, 1), (3, 1, 1), (2, 2, 1), (1, 2, 3)]
    found = []
    for k in range(n):
        atoms = bulk("Ni", a=3.52) * repeats[k % len(repeats)]
        symbols = np.where(rng.random(len(atoms)) < rng.random(), "Ni", "Pt")
        atoms.set_chemical_symbols(list(symbols))
        scale = np.mean([lattice[s] for s in symbols]) / 3.52 * (1 + rng.uniform(-0.03, 0.03))
        strain = rng.normal(size=(3, 3)) * 0.015
        atoms.set_cell(atoms.cell.array @ (scale * np.eye(3) + strain + strain.T), scale_atoms=True)
        atoms.positions += rng.normal(size=atoms.positions.shape) * 0.08 * rng.random()
        found.append(atoms)
    return found


def odd_ones(seed: int = 3) -> list[Atoms]:
    """One structure of every kind that is easily forgotten: mixed periodicity, molecule, lone atom, close pair."""
    rng = np.random.default_rng(seed)
    slab = fcc111("Pt", (1, 2, 2), vacuum=6)
    wire = bulk("Ni", a=3.5) * (1, 1, 2)
    wire.pbc = [False, False, True]
    molecule = Atoms("NiPtNi", positions=[[0, 0, 0], [2.3, 0.2, 0], [0.4, 2.2, 0.3]])
    close = bulk("Ni", cubic=True, a=3.6)
    close.positions[0] = close.positions[1] + [1.1, 0.2, 0.1]
    crystal = bulk("Pt", cubic=True, a=3.9)
    crystal.numbers[0] = 28
    for atoms in (slab, wire, crystal):
        atoms.positions += rng.normal(size=atoms.positions.shape) * 0.1
    return [slab, wire, molecule, Atoms("Pt", positions=[[1.0, 2.0, 3.0]]), close, crystal, *cells(3, seed)]


SMALL = CommitteeSpec(channels=8, l_max=2, l_product=1, n_radial=6, hidden=8, dtype="float64", n_members=3)


@pytest.fixture(scope="session")
def labelled() -> list[Atoms]:
    return [label(atoms) for atoms in cells(24)]


@pytest.fixture(scope="session")
def committee(labelled: list[Atoms]) -> NativeCommittee:
    """A small float64 committee that has seen a little."""
    return train_committee(labelled, SMALL, TrainingSpec(max_epochs=4), seed=1)


@pytest.fixture(scope="session")
def full_committee(labelled: list[Atoms]) -> NativeCommittee:
    """The default network, as good as untrained."""
    return train_committee(labelled, CommitteeSpec(dtype="float64"), TrainingSpec(max_epochs=1), seed=2)
