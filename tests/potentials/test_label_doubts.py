"""What is said of labels before anything is trained on them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms

from alflow.potentials import LabelSummary, summarise_labels
from alflow.structures import LabelledStructure
from tests.potentials.conftest import cells, label


def summary(change: Callable[[int, Atoms], object] | None = None) -> LabelSummary:
    examples = []
    for i, atoms in enumerate(label(a) for a in cells(30)):
        if change is not None:
            change(i, atoms)
        examples.append(LabelledStructure.from_atoms(atoms))
    return summarise_labels(examples)


def test_ordinary_labels_are_counted_and_not_doubted() -> None:
    found = summary()
    assert (found.n_energy, found.n_forces, found.n_stress) == (30, 30, 30)
    assert found.doubts == ()
    forces = np.concatenate([label(a).arrays["REF_forces"].ravel() for a in cells(30)])
    assert found.force_max == pytest.approx(np.abs(forces).max())
    assert found.force_rms == pytest.approx(np.sqrt(np.mean(forces**2)))
    assert found.energy[0] < found.energy[1]


def no_forces(_: int, atoms: Atoms) -> None:
    atoms.arrays.pop("REF_forces")


def no_stress(_: int, atoms: Atoms) -> None:
    atoms.info.pop("REF_stress")


def in_gpa(_: int, atoms: Atoms) -> None:
    atoms.info["REF_stress"] = atoms.info["REF_stress"] * 160.2 + 1.0


def two_theories(i: int, atoms: Atoms) -> None:
    atoms.info["REF_energy"] -= 3.0 * len(atoms) * (i % 2)


def in_bohr(_: int, atoms: Atoms) -> None:
    atoms.set_cell(atoms.cell / 0.5292, scale_atoms=True)


@pytest.mark.parametrize(
    ("change", "doubt"),
    [
        (no_forces, "no label has forces"),
        (no_stress, "no label has a stress"),
        (in_gpa, "are they in eV/Å³"),
        (two_theories, "are all of one theory"),
        (in_bohr, "are positions and cells in Å"),
    ],
)
def test_what_is_doubtful_is_said(change: Callable[[int, Atoms], object], doubt: str) -> None:
    (found,) = summary(change).doubts
    assert doubt in found


def test_molecules_need_no_stress() -> None:
    water = Atoms("OH2", positions=[[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], info={"REF_energy": -14.0})
    water.arrays["REF_forces"] = np.zeros((3, 3))
    assert summarise_labels([LabelledStructure.from_atoms(water)]).doubts == ()
