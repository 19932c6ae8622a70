"""Meshes of k-points, the room that a cell leaves, and boxes: what codes that repeat every cell have in common."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, make_supercell, molecule
from ase.geometry import cellpar_to_cell

from alflow.labelers._cell import box_with_vacuum, k_mesh, room_along
from alflow.structures import Structure


def structure(atoms: Atoms) -> Structure:
    return Structure.from_atoms(atoms)


@pytest.mark.parametrize("spacing", [0.1, 0.15, 0.2, 0.25, 0.37, 0.7, 1.0])
@pytest.mark.parametrize("atoms", [bulk("Ti", a=2.95, c=4.68), bulk("Al")], ids=["hcp", "fcc"])
def test_the_mesh_is_the_coarsest_with_the_spacing(atoms: Atoms, spacing: float) -> None:
    crystal = structure(atoms)
    mesh = np.array(k_mesh(crystal, spacing))
    lengths = np.linalg.norm(2 * np.pi * np.linalg.inv(crystal.cell).T, axis=1)
    assert (lengths / mesh <= spacing * (1 + 1e-5)).all()
    assert ((mesh == 1) | (lengths / np.maximum(mesh - 1, 1) > spacing)).all()


def test_a_mesh_does_not_depend_on_orientation_or_rounding() -> None:
    cubic = bulk("Cu", cubic=True, a=2 * np.pi)  # |b| = 1: the spacing divides it exactly
    turned = cubic.copy()
    turned.rotate(33, (1, 2, 3), rotate_cell=True)
    assert k_mesh(structure(cubic), 0.2) == k_mesh(structure(turned), 0.2) == (5, 5, 5)
    assert k_mesh(structure(make_supercell(cubic, np.diag([1, 2, 5]))), 0.2) == (5, 3, 1)


def test_there_is_one_k_point_along_vacuum() -> None:
    slab = structure(fcc111("Al", (1, 1, 3), a=4.05, vacuum=6.0))
    assert k_mesh(slab, 0.3)[2] == 1
    assert k_mesh(slab, 0.3)[0] > 1


def test_room_is_measured_along_the_normal_wherever_the_atoms_stand() -> None:
    slab = fcc111("Al", (1, 1, 3), a=4.05, vacuum=6.0)
    for shift in (0.0, 7.5, -30.0):
        moved = slab.copy()
        moved.positions[:, 2] += shift
        assert room_along(structure(moved), 2) == pytest.approx(12.0)
    tilted = slab.copy()
    tilted.cell[2, 0] += 3.0  # the distance of the layers stays, though the vector is longer
    assert room_along(structure(tilted), 2) == pytest.approx(12.0)


def test_a_gap_between_the_atoms_is_no_room() -> None:
    """Without periodicity two distant halves are just that; repeated they would meet across the border of the cell."""
    halves = Atoms("Al2", positions=[[0, 0, 1], [0, 0, 17]], cell=[4, 4, 20], pbc=[True, True, False])
    assert room_along(structure(halves), 2) == pytest.approx(4.0)
    halves.positions[1, 2] = 24
    assert room_along(structure(halves), 2) == 0.0
    assert room_along(structure(molecule("H2O")), 0) == 0.0


def test_the_mesh_is_that_of_kspacing() -> None:
    """VASP's manual: N_i = max(1, ceiling(|b_i| 2π / KSPACING)) with b_i without 2π."""
    cell = Structure.from_atoms(bulk("Cu", cubic=True, a=3.6))
    assert k_mesh(cell, 0.22) == (8, 8, 8)
    exact = 2 * np.pi / 3.6
    assert k_mesh(cell, exact / 7) == (7, 7, 7)
    assert k_mesh(cell, exact / 7 * 0.999) == (8, 8, 8)
    assert k_mesh(cell, 50.0) == (1, 1, 1)
    slab = Atoms("Cu", cell=[2.5, 5.0, 20.0], pbc=[True, True, False])
    assert k_mesh(Structure.from_atoms(slab), 0.25) == (11, 6, 1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("pbc", [(1, 1, 0), (1, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 0)])
def test_the_box_keeps_what_is_periodic_and_leaves_the_vacuum(pbc: tuple[int, int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    atoms = Atoms("Al5", positions=rng.normal(scale=3, size=(5, 3)), pbc=pbc)
    atoms.set_cell(cellpar_to_cell([4, 5, 6, 80, 95, 110]) @ np.linalg.qr(rng.normal(size=(3, 3)))[0])
    structure = Structure.from_atoms(atoms)
    cell, shift = box_with_vacuum(structure, 3.5)
    periodic = structure.pbc
    assert np.array_equal(cell[periodic], structure.cell[periodic])
    assert np.linalg.det(cell) > 0
    assert np.allclose(cell[periodic] @ shift, 0)
    positions = structure.positions + shift
    for axis in np.flatnonzero(~periodic):
        assert np.allclose(np.delete(cell, axis, axis=0) @ cell[axis], 0)
        along = positions @ cell[axis] / np.linalg.norm(cell[axis])
        assert along.min() == pytest.approx(3.5)
        assert np.linalg.norm(cell[axis]) - along.max() == pytest.approx(3.5)
