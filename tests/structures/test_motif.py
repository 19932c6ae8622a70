import numpy as np
import pytest
import spglib
from ase.build import bulk

from alflow.structures import DuplicatePolicy, Structure
from alflow.structures._lattice import measure
from alflow.structures._motif import LOOSE, _periodic_nearest, motif
from tests.crystals import zoo
from tests.disguises import Disguise, disguise, jiggled

IDENTICAL = DuplicatePolicy.identical()


@pytest.mark.parametrize("name", [n for n, a in zoo().items() if a.pbc.all()])
def test_supercells_are_reduced_to_what_spglib_calls_primitive(name: str) -> None:
    rng = np.random.default_rng(3)
    atoms = zoo()[name]
    found = spglib.find_primitive((atoms.cell.tolist(), atoms.get_scaled_positions().tolist(), atoms.numbers.tolist()))
    assert found is not None
    primitive = len(found[2])
    for _ in range(3):
        structure = Structure.from_atoms(disguise(atoms, rng, Disguise(supercell=6)))
        prepared = motif(structure, IDENTICAL)
        assert prepared.n_sites == primitive
        assert measure(prepared.lattice) / primitive == pytest.approx(structure.volume / structure.n_atoms, rel=1e-9)
        assert prepared.deviation < 1e-9


def test_slabs_are_reduced_in_their_plane_only() -> None:
    atoms = zoo()["slab"]
    structure = Structure.from_atoms(disguise(atoms * (2, 3, 1), np.random.default_rng(0)))
    prepared = motif(structure, IDENTICAL)
    assert prepared.n_sites == 3
    assert prepared.lattice.shape == (2, 3)


def test_a_jiggled_supercell_is_not_reduced_unless_loosely() -> None:
    atoms = jiggled(bulk("Cu", cubic=True), np.random.default_rng(0), 0.01)
    structure = Structure.from_atoms(atoms)
    assert motif(structure, IDENTICAL).n_sites == 4
    assert motif(structure, DuplicatePolicy.same_phase(), tightness=LOOSE).n_sites == 1
    assert 0.0 < motif(structure, DuplicatePolicy.same_phase(), tightness=LOOSE).deviation <= 0.09


def test_antiferromagnetic_order_doubles_the_cell_where_moments_count() -> None:
    atoms = bulk("Fe", cubic=True)
    atoms.set_initial_magnetic_moments([2.0, -2.0])
    structure = Structure.from_atoms(atoms)
    assert motif(structure, IDENTICAL).n_sites == 2
    assert motif(structure, DuplicatePolicy.same_phase()).n_sites == 1
    atoms.set_initial_magnetic_moments([2.0, 2.0])
    assert motif(Structure.from_atoms(atoms), IDENTICAL).n_sites == 1


def test_the_torus_tree_agrees_with_brute_force() -> None:
    rng = np.random.default_rng(4)
    for d in (1, 2, 3):
        lattice = (np.diag([4.0, 5.0, 6.0]) + rng.normal(size=(3, 3)) * 0.3)[:d]
        sites = rng.random((30, 3)) * 8
        chosen = rng.integers(0, 30, size=40)
        points = sites[chosen] + rng.integers(-2, 3, size=(40, d)) @ lattice + rng.normal(size=(40, 3)) * 1e-6
        np.testing.assert_array_equal(_periodic_nearest(sites, lattice, points), chosen)


def test_large_supercells_use_the_tree() -> None:
    structure = Structure.from_atoms(
        disguise(bulk("Cu", cubic=True) * 4, np.random.default_rng(1), Disguise(supercell=1))
    )
    assert structure.n_atoms == 256
    assert motif(structure, IDENTICAL).n_sites == 1
