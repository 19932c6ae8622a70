"""Inputs of pw.x: species, rungs, and the file that ASE reads back."""

from __future__ import annotations

import io

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.io.espresso import read_espresso_in, read_fortran_namelist

from alflow.labelers._pw_input import RUNGS, assign_species, input_text, merged
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
