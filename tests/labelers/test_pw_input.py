"""Inputs of pw.x: species, meshes, vacuum, and the file that ASE reads back."""

from __future__ import annotations

import io

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, make_supercell, molecule
from ase.io.espresso import read_espresso_in, read_fortran_namelist

from alflow.labelers._pw_input import RUNGS, assign_species, input_text, k_mesh, merged, vacuum_along
from alflow.structures import Structure


def structure(atoms: Atoms) -> Structure:
    return Structure.from_atoms(atoms)


def test_each_moment_of_an_element_is_a_species() -> None:
    found = assign_species(structure(Atoms("FeNiFeFeFe", cell=[9, 9, 9], pbc=True)), [2.0, 0.6, -2.0, 2.04, -0.01])
    assert [(s.label, s.element, s.moment) for s in found.species] == [
        ("Fe", "Fe", 2.0),
        ("Ni", "Ni", 0.6),
        ("Fe1", "Fe", -2.0),
        ("Fe2", "Fe", 0.0),
    ]
    assert found.of_atom == (0, 1, 2, 0, 3)
    assert found.magnetic
    assert not assign_species(structure(bulk("Si")), [-0.01, 0.0]).magnetic


@pytest.mark.parametrize("spacing", [0.15, 0.2, 0.37, 1.0])
def test_the_distance_of_k_points_is_at_most_the_spacing(spacing: float) -> None:
    crystal = structure(bulk("Ti", a=2.95, c=4.68))
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


def test_vacuum_is_measured_across_the_border_of_the_cell() -> None:
    slab = fcc111("Al", (1, 1, 3), a=4.05, vacuum=6.0)
    height = float(np.ptp(slab.positions[:, 2]))
    for shift in (0.0, 4.0, 7.5):
        moved = slab.copy()
        moved.positions[:, 2] += shift
        moved.wrap(pbc=True)
        assert vacuum_along(structure(moved), 2) == pytest.approx(slab.cell.lengths()[2] - height)
    tilted = slab.copy()
    tilted.cell[2, 0] += 3.0  # the distance of the layers stays, though the vector is longer
    assert vacuum_along(structure(tilted), 2) == pytest.approx(12.0)
    assert vacuum_along(structure(molecule("H2O")), 0) == 0.0


def test_the_file_is_what_another_reader_reads() -> None:
    atoms = bulk("NiO", "rocksalt", a=4.17)
    atoms.rattle(0.1, seed=1)
    crystal = structure(atoms)
    assignment = assign_species(crystal, [1.5, 0.0])
    physics = {"system": {"ibrav": 0, "nat": 2, "ntyp": 2, "ecutwfc": 30.5}, "electrons": {"conv_thr": 1e-9}}
    text = input_text(merged(physics, RUNGS[2]), crystal, assignment, {"Ni": "a.UPF", "O": "b.UPF"}, (3, 4, 5))
    read = read_espresso_in(io.StringIO(text))
    assert np.abs(read.cell - atoms.cell).max() < 1e-11
    assert np.abs(read.positions - atoms.positions).max() < 1e-11
    assert read.get_chemical_symbols() == ["Ni", "O"]
    namelists, cards = read_fortran_namelist(io.StringIO(text))
    assert namelists["system"]["ecutwfc"] == 30.5
    assert namelists["system"]["nosym"] is True
    assert namelists["electrons"]["conv_thr"] == 1e-9
    assert namelists["electrons"]["diagonalization"] == "cg"
    assert "O 15.9990 b.UPF" in cards
    assert cards[cards.index("K_POINTS automatic") + 1] == "3 4 5 0 0 0"


def test_a_single_k_point_is_gamma() -> None:
    crystal = structure(bulk("Si"))
    text = input_text(merged(), crystal, assign_species(crystal, [0, 0]), {"Si": "Si.UPF"}, (1, 1, 1))
    assert "K_POINTS gamma\nCELL_PARAMETERS" in text


def test_rungs_change_numerics_only() -> None:
    allowed = {
        "system": {"nosym"},
        "electrons": {"mixing_beta", "mixing_mode", "mixing_ndim", "diagonalization", "electron_maxstep"},
    }
    for rung in RUNGS:
        assert all(set(variables) <= allowed[name] for name, variables in rung.items())
    betas = [rung["electrons"]["mixing_beta"] for rung in RUNGS]
    assert betas == sorted(betas, key=float, reverse=True)
