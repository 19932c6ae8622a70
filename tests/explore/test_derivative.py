from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core.structure import Structure as PymatgenStructure

from alflow.errors import StructureError
from alflow.explore import Lattice, Parent, enumerate_orderings, prototype
from alflow.explore._derivative import (
    count_labelings,
    distinct_superlattices,
    hermite_normal_forms,
    short_cell,
    smith_normal_form,
)


def parent(name: str, n_labels: int = 2) -> Parent:
    lattice = prototype(name)
    return Parent.create(lattice, [range(n_labels)] * lattice.n_sites)


def count(crystal: Parent, size: int, *, exchange: bool = False) -> int:
    return sum(len(o.labels) for o in enumerate_orderings(crystal, size, exchange=exchange))


# Hart & Forcade 2008, table IV: superlattices and binary superstructures of fcc and bcc by size.
@pytest.mark.parametrize("name", ["fcc", "bcc"])
def test_counts_agree_with_hart_and_forcade(name: str) -> None:
    crystal = parent(name)
    assert [len(distinct_superlattices(n, crystal.rotations)) for n in range(2, 9)] == [2, 3, 7, 5, 10, 7, 20]
    assert [count(crystal, n, exchange=True) for n in range(2, 9)] == [2, 3, 12, 14, 50, 52, 229]
    assert [count(crystal, n) for n in range(1, 9)] == [2, 2, 6, 19, 28, 80, 104, 390]


def test_counts_agree_with_hart_and_forcade_for_hcp() -> None:
    assert [count(parent("hcp"), n, exchange=True) for n in (2, 3)] == [7, 30]


@pytest.mark.slow
def test_more_counts_of_hart_and_forcade() -> None:
    assert [count(parent("fcc"), n, exchange=True) for n in (9, 10)] == [252, 685]
    assert count(parent("hcp"), 4, exchange=True) == 163


@pytest.mark.parametrize(("name", "sizes", "labels"), [("fcc", 3, 2), ("hcp", 2, 2), ("fcc", 2, 3), ("diamond", 2, 2)])
def test_every_labeling_of_every_superlattice_is_one_of_them_and_no_two_agree(
    name: str, sizes: int, labels: int
) -> None:
    crystal = parent(name, labels)
    matcher: Any = StructureMatcher(ltol=1e-3, stol=1e-3, angle_tol=0.1, primitive_cell=True, scale=False)
    found = [s for size in range(1, sizes + 1) for s in structures(crystal, size)]
    everything = [s for size in range(1, sizes + 1) for s in all_labelings(crystal, size, labels)]
    assert len(matcher.group_structures(found)) == len(found)
    assert len(matcher.group_structures(found + everything)) == len(found)


def structures(crystal: Parent, size: int) -> Iterator[PymatgenStructure]:
    species = np.array(["Cu", "Au", "Ag"])
    for orderings in enumerate_orderings(crystal, size):
        for labels in orderings.labels:
            yield PymatgenStructure(3 * orderings.cell, list(species[labels]), orderings.fractional)


def all_labelings(crystal: Parent, size: int, n_labels: int) -> Iterator[PymatgenStructure]:
    """Without any of the code under test but the list of lattices."""
    species = np.array(["Cu", "Au", "Ag"])
    lattice = crystal.lattice
    for form in hermite_normal_forms(size):
        cell = form @ lattice.cell
        grid = np.array(list(itertools.product(range(size + 1), repeat=3)))
        inside = (grid @ np.linalg.inv(form) + 1e-9) % 1.0
        _, first = np.unique(np.round(inside, 6), axis=0, return_index=True)
        sites = (lattice.fractional[:, None] + grid[first]).reshape(-1, 3) @ np.linalg.inv(form)
        for labels in itertools.product(range(n_labels), repeat=len(sites)):
            yield PymatgenStructure(3 * cell, list(species[list(labels)]), sites)


def test_sites_with_one_label_are_spectators() -> None:
    rock_salt = Lattice(cell=prototype("fcc").cell, fractional=np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]]))
    mixed = Parent.create(rock_salt, [(0, 1), (2,)])
    fcc = parent("fcc")
    # The spectators sit in the holes of the fcc lattice and break none of its symmetry.
    assert [count(mixed, n) for n in range(1, 6)] == [count(fcc, n) for n in range(1, 6)]
    for orderings in enumerate_orderings(mixed, 3):
        assert ((orderings.labels == 2).sum(axis=1) == 3).all()


def test_a_conventional_cell_is_reduced_first() -> None:
    cubic = Lattice(cell=np.eye(3), fractional=np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]))
    crystal = Parent.create(cubic, [(0, 1)] * 4)
    assert crystal.n_sites == 1
    assert count(crystal, 4) == 19


def test_the_cell_has_the_right_volume_and_sites_inside() -> None:
    crystal = parent("hcp")
    for orderings in enumerate_orderings(crystal, 3):
        assert abs(np.linalg.det(orderings.cell)) == pytest.approx(6.0)
        assert (orderings.fractional > -1e-6).all()
        assert (orderings.fractional < 1).all()
        assert orderings.labels.shape[1] == len(orderings.fractional) == 6


def test_the_number_of_hermite_forms_is_that_of_the_sublattices() -> None:
    # Number of sublattices of index n of Z³: sum over divisors a b c = n of b c².
    for n in range(1, 17):
        expected = sum(b * (n // (a * b)) ** 2 for a in range(1, n + 1) for b in range(1, n + 1) if n % (a * b) == 0)
        forms = hermite_normal_forms(n)
        assert len(forms) == expected
        assert np.allclose(np.linalg.det(forms), n)


@given(st.lists(st.integers(-6, 6), min_size=9, max_size=9))
def test_the_smith_form_divides_the_lattice(entries: list[int]) -> None:
    matrix = np.array(entries).reshape(3, 3)
    if abs(round(np.linalg.det(matrix))) == 0:
        return
    diagonal, right = smith_normal_form(matrix)
    assert abs(round(np.linalg.det(right))) == 1
    assert np.prod(diagonal) == abs(round(np.linalg.det(matrix)))
    # Every vector of the lattice is zero in the quotient group.
    assert (np.mod(matrix @ right, diagonal) == 0).all()


@given(st.lists(st.integers(-4, 4), min_size=9, max_size=9))
def test_a_short_cell_is_the_same_lattice(entries: list[int]) -> None:
    unimodular = np.array(entries).reshape(3, 3)
    if abs(round(np.linalg.det(unimodular))) != 1:
        return
    cell = unimodular @ prototype("fcc").cell
    short = short_cell(cell)
    assert np.linalg.det(short) == pytest.approx(abs(np.linalg.det(cell)))
    change = short @ np.linalg.inv(cell)
    assert np.allclose(change, np.rint(change), atol=1e-6)
    assert np.linalg.norm(short, axis=1).max() == pytest.approx(np.linalg.norm(prototype("fcc").cell, axis=1).max())


def test_too_much_is_refused_and_exchange_needs_equal_sites() -> None:
    assert count_labelings(parent("fcc"), 4) == 7 * 16
    with pytest.raises(StructureError, match="too many"):
        list(enumerate_orderings(parent("fcc", 20), 16))
    lattice = Lattice(cell=prototype("fcc").cell, fractional=np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]]))
    with pytest.raises(ValueError, match="same labels"):
        list(enumerate_orderings(Parent.create(lattice, [(0, 1), (2,)]), 2, exchange=True))
    with pytest.raises(StructureError, match="symmetry"):
        Parent.create(Lattice(cell=np.eye(3), fractional=np.zeros((2, 3))), [(0, 1)] * 2)
