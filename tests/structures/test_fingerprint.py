from typing import Any

import msgpack
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from alflow.errors import StructureError
from alflow.structures import DuplicatePolicy, Fingerprint, Structure, fingerprint
from alflow.structures._fingerprint import _site_rows, possible_duplicates, site_rows
from alflow.structures._lattice import reduced_lattice
from tests.crystals import random_crystal, zoo
from tests.disguises import disguise, jiggled, random_orthogonal, strained


def accepts(one: Fingerprint, other: Fingerprint, policy: DuplicatePolicy) -> bool:
    return len(possible_duplicates(one, other.leading[:, None], other.vector[None], policy)) == 1


@pytest.mark.parametrize("name", zoo())
def test_disguises_leave_the_fingerprint_unchanged(name: str) -> None:
    rng = np.random.default_rng(7)
    atoms = zoo()[name]
    one = fingerprint(Structure.from_atoms(atoms))
    for _ in range(4):
        other = fingerprint(Structure.from_atoms(disguise(atoms, rng)))
        assert other.bucket == one.bucket
        np.testing.assert_allclose(other.vector, one.vector, atol=2e-6)
        np.testing.assert_allclose(other.leading, one.leading, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_rows_are_the_sorted_distances_of_an_independent_neighbour_list(seed: int) -> None:
    atoms = random_crystal(np.random.default_rng(seed), 6, ("Cu", "Au"))
    structure = Structure.from_atoms(atoms)
    rows = site_rows(structure)
    i, j, d = neighbor_list("ijd", atoms, float(rows.max()) + 0.1)
    species = np.unique(atoms.numbers)
    for site in range(len(atoms)):
        for s, z in enumerate(species):
            expected = np.sort(d[(i == site) & (atoms.numbers[j] == z)])[: rows.shape[2]]
            np.testing.assert_allclose(rows[site, s], expected, atol=1e-10)


def test_large_cells_give_the_same_rows_through_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    structure = Structure.from_atoms(random_crystal(np.random.default_rng(5), 12, ("Cu", "Au")))
    rows = site_rows(structure)
    lattice, _ = reduced_lattice(structure.cell)
    np.testing.assert_allclose(_site_rows(structure, lattice), rows, atol=1e-12)
    monkeypatch.setattr("alflow.structures._fingerprint._DENSE_LIMIT", 0)
    np.testing.assert_allclose(_site_rows(structure, lattice), rows, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), n_atoms=st.integers(1, 9), size=st.floats(1e-3, 0.5), pbc=st.integers(0, 3))
def test_a_displacement_of_d_moves_no_coordinate_by_more_than_2d(
    seed: int, n_atoms: int, size: float, pbc: int
) -> None:
    """Displacements on a sphere of radius d and along one line, which comes near the bound."""
    rng = np.random.default_rng(seed)
    atoms = random_crystal(rng, n_atoms, ("Cu", "Au"))
    atoms.pbc = np.arange(3) < pbc
    before = Structure.from_atoms(atoms)
    steps = rng.normal(size=(n_atoms, 3))
    for directions in (steps, np.sign(rng.normal(size=(n_atoms, 1))) * steps[:1]):
        moved = atoms.copy()
        moved.positions += size * directions / np.linalg.norm(directions, axis=1)[:, None]
        after = Structure.from_atoms(moved)
        assert np.abs(site_rows(after) - site_rows(before)).max() <= 2 * size + 1e-9
        one, other = fingerprint(before), fingerprint(after)
        assert np.abs(other.vector - one.vector).max() <= 2 * size + 1e-5
        assert np.abs(other.leading - one.leading).max() <= 2 * size + 1e-9


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n_atoms=st.integers(1, 9),
    size=st.floats(0.0, 0.18),
    strain=st.floats(0.0, 0.0099),
    wanted=st.sampled_from(["crystal", "slab", "molecule"]),
)
def test_whatever_lies_within_the_tolerances_is_never_sorted_out(
    seed: int, n_atoms: int, size: float, strain: float, wanted: str
) -> None:
    rng = np.random.default_rng(seed)
    atoms = random_crystal(rng, n_atoms, ("Cu", "Au", "O"))
    atoms.pbc = {"crystal": (1, 1, 1), "slab": (1, 1, 0), "molecule": (0, 0, 0)}[wanted]
    policy = DuplicatePolicy.same_phase().model_copy(
        update={"max_displacement": max(size, 1e-9), "max_strain": max(strain, 1e-9)}
    )
    near = jiggled(strained(atoms, rng, strain / 1.01) if wanted == "crystal" else atoms, rng, size)
    one, other = (fingerprint(Structure.from_atoms(x)) for x in (atoms, disguise(near, rng)))
    assert accepts(one, other, policy)
    assert accepts(other, one, policy)


@pytest.mark.parametrize("factor", [0.9, 1.15])
def test_any_volume_compares_scaled_crystals(factor: float) -> None:
    atoms = random_crystal(np.random.default_rng(2), 5, ("Cu", "Au"))
    scaled = atoms.copy()
    scaled.set_cell(atoms.cell.array * factor, scale_atoms=True)
    one, other = fingerprint(Structure.from_atoms(atoms)), fingerprint(Structure.from_atoms(scaled))
    assert not accepts(one, other, DuplicatePolicy.same_phase())
    assert accepts(one, other, DuplicatePolicy.same_phase(any_volume=True))


def test_different_crystals_are_told_apart() -> None:
    policy = DuplicatePolicy.redundant()
    fcc = fingerprint(Structure.from_atoms(bulk("Cu", "fcc", a=3.6)))
    ideal = bulk("Cu", "hcp", a=3.6 / np.sqrt(2), c=3.6 / np.sqrt(2) * np.sqrt(8 / 3))
    hcp = fingerprint(Structure.from_atoms(ideal))
    assert fcc.bucket == hcp.bucket
    assert not accepts(fcc, hcp, policy)


@pytest.mark.parametrize(
    ("atoms", "expected"),
    [
        (bulk("Cu"), "3:Cu:0"),
        (bulk("NaCl", "rocksalt", a=5.6, cubic=True), "3:ClNa:0"),
        (fcc111("Cu", (1, 1, 3), vacuum=5.0), "2:Cu:0"),
        (molecule("H2O"), "0:H2O:0"),
        (Atoms("H4", positions=np.eye(4, 3)), "0:H4:0"),
    ],
)
def test_bucket_names_periodicity_composition_and_charge(atoms: Atoms, expected: Any) -> None:
    assert fingerprint(Structure.from_atoms(atoms)).bucket == expected


def test_charge_counts_per_formula_unit_in_crystals() -> None:
    single = bulk("Cu", "sc", a=3.0)
    double = single * (2, 1, 1)
    single.info["charge"], double.info["charge"] = 0.5, 1.0
    one, two = Structure.from_atoms(single), Structure.from_atoms(double)
    assert fingerprint(one).bucket == fingerprint(two).bucket == "3:Cu:0.5"


def test_moments_are_part_of_the_vector_but_not_of_the_bucket() -> None:
    plain, magnetic = bulk("Fe"), bulk("Fe")
    magnetic.set_initial_magnetic_moments([2.2])
    one, other = fingerprint(Structure.from_atoms(plain)), fingerprint(Structure.from_atoms(magnetic))
    assert one.bucket == other.bucket
    assert not accepts(one, other, DuplicatePolicy.redundant())
    assert accepts(one, other, DuplicatePolicy.same_phase())


def test_bytes_round_trip_and_damage() -> None:
    one = fingerprint(Structure.from_atoms(bulk("Cu")))
    back = Fingerprint.from_bytes(one.to_bytes())
    assert (back.bucket, back.version) == (one.bucket, one.version)
    np.testing.assert_array_equal(back.vector, one.vector)
    np.testing.assert_array_equal(back.leading, one.leading)
    for blob in (b"", b"\xc1", one.to_bytes()[:-3], msgpack.packb({"v": 1})):
        with pytest.raises(StructureError, match="fingerprint"):
            Fingerprint.from_bytes(blob)


def test_a_lone_atom_has_a_fingerprint() -> None:
    one = fingerprint(Structure.from_atoms(Atoms("He")))
    assert np.isfinite(one.vector).all()
    assert one.leading.shape == (4,)


def test_skewed_cells_are_no_trouble() -> None:
    atoms = bulk("Cu", "fcc", a=3.6)
    skewed = atoms.copy()
    skewed.set_cell(np.array([[1, 0, 0], [7, 1, 0], [-5, 9, 1]]) @ atoms.cell.array)
    skewed.set_cell(skewed.cell.array @ random_orthogonal(np.random.default_rng(0), mirror=False).T, scale_atoms=True)
    one, other = fingerprint(Structure.from_atoms(atoms)), fingerprint(Structure.from_atoms(skewed))
    np.testing.assert_allclose(one.vector, other.vector, atol=1e-5)
