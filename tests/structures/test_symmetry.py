from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from alflow.structures import Structure, space_group
from tests.crystals import perovskite, zoo
from tests.disguises import disguise


@pytest.mark.parametrize(
    ("atoms", "expected"),
    [
        (bulk("Cu"), (225, "Fm-3m")),
        (bulk("Fe", cubic=True), (229, "Im-3m")),
        (bulk("Mg"), (194, "P6_3/mmc")),
        (perovskite(), (221, "Pm-3m")),
        (molecule("H2O"), (0, "")),
        (zoo()["slab"], (0, "")),
    ],
)
def test_known_crystals(atoms: Atoms, expected: Any) -> None:
    structure = Structure.from_atoms(atoms)
    assert space_group(structure) == expected
    assert space_group(Structure.from_atoms(disguise(atoms, np.random.default_rng(0)))) == expected


def test_noise_beyond_the_tolerance_breaks_the_symmetry() -> None:
    atoms = bulk("Fe", cubic=True)
    atoms.positions[0] += [0.05, 0.02, 0.01]
    assert space_group(Structure.from_atoms(atoms))[0] < 229
    assert space_group(Structure.from_atoms(atoms), symprec=0.3)[0] == 229


def test_coinciding_atoms_have_no_space_group() -> None:
    atoms = Atoms("Cu2", positions=np.zeros((2, 3)), cell=np.eye(3) * 3, pbc=True)
    assert space_group(Structure.from_atoms(atoms)) == (0, "")
