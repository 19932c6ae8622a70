"""Neighbour lists against ASE's, an independent implementation."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from alflow.errors import StructureError
from alflow.structures import Structure, complete_cell, neighbour_list


def as_set(centres: np.ndarray, neighbours: np.ndarray, images: np.ndarray) -> set[tuple[int, ...]]:
    return {(int(i), int(j), *map(int, s)) for i, j, s in zip(centres, neighbours, images, strict=True)}


def assert_agrees_with_ase(atoms: Atoms, r_max: float) -> None:
    found = neighbour_list(Structure.from_atoms(atoms), r_max)
    i, j, s = neighbor_list("ijS", atoms, r_max)
    assert as_set(found.centres, found.neighbours, found.images) == as_set(i, j, s)
    assert len(found) == len(i)
    expected = atoms.positions[found.neighbours] - atoms.positions[found.centres] + found.images @ atoms.cell.array
    np.testing.assert_allclose(found.vectors, expected, atol=1e-10)
    np.testing.assert_allclose(found.distances, np.linalg.norm(expected, axis=1), atol=1e-10)
    order = np.lexsort((found.neighbours, found.centres))
    np.testing.assert_array_equal(order, np.arange(len(order)))


def wire() -> Atoms:
    atoms = fcc111("Pt", (1, 1, 2), vacuum=5)
    atoms.pbc = [False, True, False]
    return atoms


@pytest.mark.parametrize(
    "atoms",
    [
        bulk("Ni"),
        bulk("Si"),
        bulk("Ni", cubic=True) * (3, 2, 1),
        molecule("H2O"),
        fcc111("Pt", (1, 2, 3), vacuum=5),
        wire(),
    ],
    ids=["primitive", "silicon", "supercell", "molecule", "slab", "wire"],
)
def test_agrees_with_ase(atoms: Atoms) -> None:
    assert_agrees_with_ase(atoms, 5.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.tuples(st.booleans(), st.booleans(), st.booleans()), st.floats(1.5, 6.0))
def test_agrees_with_ase_for_skew_cells_and_atoms_outside(
    seed: int, pbc: tuple[bool, bool, bool], r_max: float
) -> None:
    rng = np.random.default_rng(seed)
    cell = 3.5 * (np.eye(3) + 0.3 * rng.normal(size=(3, 3)))
    if abs(np.linalg.det(cell)) < 10:
        return
    assert_agrees_with_ase(Atoms("Ni3", positions=rng.normal(size=(3, 3)) * 8, cell=cell, pbc=pbc), r_max)


def test_an_isolated_atom_has_none() -> None:
    found = neighbour_list(Structure.from_atoms(Atoms("Ni")), 5.0)
    assert len(found) == 0
    assert found.vectors.shape == (0, 3)


def test_two_atoms_on_one_place_are_refused() -> None:
    with pytest.raises(StructureError, match="same place"):
        neighbour_list(Structure.from_atoms(Atoms("Ni2", positions=[[0, 0, 0], [0, 0, 1e-9]])), 5.0)


def test_impossible_density_and_cutoff_are_refused() -> None:
    with pytest.raises(StructureError, match="atoms/Å"):
        neighbour_list(Structure.from_atoms(bulk("Ni", a=0.1)), 5.0)
    with pytest.raises(StructureError, match="atoms/Å²"):
        neighbour_list(Structure.from_atoms(Atoms("Ni", cell=[0.05, 0.05, 9], pbc=[True, True, False])), 5.0)
    thick = Atoms("Ni500", positions=np.random.default_rng(0).random((500, 3)) * 100, cell=[3.0, 0, 0], pbc=[1, 0, 0])
    assert len(neighbour_list(Structure.from_atoms(thick), 5.0)) > 0
    with pytest.raises(StructureError, match="positive"):
        neighbour_list(Structure.from_atoms(bulk("Ni")), 0.0)


def test_completed_cells_keep_periodic_vectors_and_invert() -> None:
    cell = np.array([[2.0, 0.1, 0.0], [0.0, 0.0, 0.0], [0.3, 0.0, 4.0]])
    full = complete_cell(cell, np.array([True, False, True]))
    np.testing.assert_array_equal(full[[0, 2]], cell[[0, 2]])
    np.testing.assert_allclose(full[1] @ cell[[0, 2]].T, 0.0, atol=1e-12)
    assert abs(np.linalg.det(full)) > 1.0
