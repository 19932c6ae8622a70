import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111
from ase.calculators.emt import EMT
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from alflow.errors import StructureError
from alflow.structures import DuplicatePolicy, Properties, Structure, find_isometry, transfer_properties
from tests.crystals import random_crystal
from tests.disguises import Disguise, disguise, jiggled, repeated

IDENTICAL = DuplicatePolicy.identical()


def emt(atoms: Atoms) -> Properties:
    atoms = atoms.copy()
    atoms.calc = EMT()
    stress = atoms.get_stress(voigt=False) if abs(np.linalg.det(atoms.cell.array)) > 0 else None
    return Properties(energy=atoms.get_potential_energy(), forces=atoms.get_forces(), stress=stress)


def present(values: NDArray[np.float64] | None) -> NDArray[np.float64]:
    assert values is not None
    return values


def carried(properties: Properties, a: Atoms, b: Atoms) -> Properties:
    one, other = Structure.from_atoms(a), Structure.from_atoms(b)
    found = find_isometry(one, other, IDENTICAL)
    assert found is not None
    return transfer_properties(properties, found, one, other)


def slab() -> Atoms:
    atoms = fcc111("Cu", (2, 2, 2), vacuum=6.0)
    add_adsorbate(atoms, "Au", 2.1, "fcc")
    atoms.pbc = (True, True, False)
    return jiggled(atoms, np.random.default_rng(3), 0.05)


def wire() -> Atoms:
    positions = [[0, 0, 0], [0.8, 1.9, 2.2], [1.7, -0.9, 3.6]]
    return Atoms("CuAuCu", positions, cell=[9.0, 9.0, 5.6], pbc=(False, False, True))


def cluster() -> Atoms:
    rng = np.random.default_rng(8)
    atoms = random_crystal(rng, 6, ("Cu", "Au", "Ni"), closest=2.1)
    atoms.pbc = False
    atoms.cell[:] = 0.0
    return atoms


def library() -> dict[str, Atoms]:
    rng = np.random.default_rng(17)
    return {
        "primitive": bulk("Cu", "fcc", a=3.7),
        "strained": bulk("Ni", "fcc", a=3.4, cubic=True),
        "alloy": random_crystal(rng, 5, ("Cu", "Au"), closest=2.1),
        "jiggled": jiggled(bulk("Pd", cubic=True), rng, 0.1),
        "slab": slab(),
        "wire": wire(),
        "cluster": cluster(),
    }


@pytest.mark.parametrize("name", library())
def test_labels_of_200_disguises_equal_fresh_calculations(name: str) -> None:
    rng = np.random.default_rng(len(name))
    atoms = library()[name]
    labels = emt(atoms)
    for k in range(29):
        other = disguise(atoms, rng, Disguise(supercell=3 if k % 2 else 1))
        there, fresh = carried(labels, atoms, other), emt(other)
        assert there.energy == pytest.approx(fresh.energy, abs=1e-8)
        np.testing.assert_allclose(present(there.forces), present(fresh.forces), atol=1e-8)
        if labels.stress is not None:
            np.testing.assert_allclose(present(there.stress), present(fresh.stress), atol=1e-9)
        # and back, where the copies are averaged
        back = carried(fresh, other, atoms)
        assert back.energy == pytest.approx(labels.energy, abs=1e-8)
        np.testing.assert_allclose(present(back.forces), present(labels.forces), atol=1e-8)
        if labels.stress is not None:
            np.testing.assert_allclose(present(back.stress), present(labels.stress), atol=1e-9)


def test_a_change_of_vacuum_keeps_the_virial_not_the_stress() -> None:
    atoms = slab()
    thicker = atoms.copy()
    thicker.set_cell(atoms.cell.array * np.array([[1.0], [1.0], [2.0]]), scale_atoms=False)
    labels = emt(atoms)
    there = carried(labels, atoms, thicker)
    assert present(there.stress) is not None
    np.testing.assert_allclose(present(there.stress), present(labels.stress) / 2.0, atol=1e-10)


def test_without_a_volume_there_is_no_stress() -> None:
    atoms = slab()
    flat = atoms.copy()
    cell = atoms.cell.array.copy()
    cell[2] = 0.0
    flat.set_cell(cell, scale_atoms=False)
    assert carried(emt(atoms), atoms, flat).stress is None


def magnetic(size: int = 1) -> Atoms:
    atoms = bulk("Fe", cubic=True)
    atoms.set_initial_magnetic_moments([2.0, -1.0])
    return repeated(atoms, np.diag([size, 1, 1]))


def test_energies_and_total_moment_grow_with_the_cell_and_flip_with_it() -> None:
    one, two = magnetic(), magnetic(2)
    two.set_initial_magnetic_moments(-two.get_initial_magnetic_moments())
    labels = Properties(
        energy=-16.0,
        energy_extrapolated=-16.1,
        moments=np.array([2.2, -1.2]),
        total_moment=1.0,
        forces=np.zeros((2, 3)),
    )
    there = carried(labels, one, two)
    assert (there.energy, there.energy_extrapolated, there.total_moment) == (-32.0, -32.2, -2.0)
    expected = two.get_initial_magnetic_moments() * np.array([1.1, 1.2, 1.1, 1.2])
    np.testing.assert_allclose(present(there.moments), expected)
    back = carried(there, two, one)
    assert (back.energy, back.total_moment) == (-16.0, 1.0)
    np.testing.assert_allclose(present(back.moments), present(labels.moments))


def test_vector_moments_and_dipole_turn() -> None:
    rng = np.random.default_rng(5)
    atoms = cluster()
    atoms.set_initial_magnetic_moments(rng.normal(size=(6, 3)))
    moments, dipole = atoms.arrays["initial_magmoms"] * 1.1, rng.normal(size=3)
    for _ in range(6):
        other = disguise(atoms, rng)
        there = carried(Properties(energy=0.0, moments=moments, dipole=dipole), atoms, other)
        np.testing.assert_allclose(present(there.moments), other.arrays["initial_magmoms"] * 1.1, atol=1e-9)
        found = find_isometry(Structure.from_atoms(atoms), Structure.from_atoms(other), IDENTICAL)
        assert found is not None
        np.testing.assert_allclose(present(there.dipole), found.rotation @ dipole, atol=1e-12)


def surroundings(atoms: Atoms) -> NDArray[np.float64]:
    """(n,): a number that the neighbours of each atom decide, whatever the clothes."""
    i, d, j = neighbor_list("idj", atoms, 4.5)
    return np.asarray(1.0 + np.bincount(i, atoms.numbers[j] * np.exp(-d), minlength=len(atoms)))


def whirls(atoms: Atoms) -> NDArray[np.float64]:
    """(n, 3): an axial vector that the neighbours of each atom decide."""
    i, j, d, vectors = neighbor_list("ijdD", atoms, 4.5)
    found = np.zeros((len(atoms), 3))
    for atom in range(len(atoms)):
        own = i == atom
        near, weight = vectors[own], np.exp(-d[own])[:, None]
        one = (near * weight).sum(axis=0)
        other = (near * weight**2 * atoms.numbers[j[own]][:, None]).sum(axis=0)
        found[atom] = np.cross(one, other)
    return found


@pytest.mark.parametrize("name", library())
def test_made_up_collinear_labels_of_disguises_equal_those_made_up_afresh(name: str) -> None:
    def made_up(atoms: Atoms) -> Properties:
        moments = atoms.get_initial_magnetic_moments() * 1.1
        return Properties(
            energy=float(surroundings(atoms).sum()),
            energy_extrapolated=float((surroundings(atoms) ** 2).sum()),
            moments=moments,
            total_moment=float(moments.sum()),
        )

    rng = np.random.default_rng(len(name))
    atoms = library()[name]
    atoms.set_initial_magnetic_moments(surroundings(atoms))
    for k in range(8):
        other = disguise(atoms, rng, Disguise(supercell=3))
        other.set_initial_magnetic_moments((-1.0) ** k * other.get_initial_magnetic_moments())
        for one, two in ((atoms, other), (other, atoms)):
            there, fresh = carried(made_up(one), one, two), made_up(two)
            assert there.energy == pytest.approx(fresh.energy, abs=1e-8)
            assert there.energy_extrapolated == pytest.approx(fresh.energy_extrapolated, abs=1e-8)
            assert there.total_moment == pytest.approx(fresh.total_moment, abs=1e-8)
            np.testing.assert_allclose(present(there.moments), present(fresh.moments), atol=1e-8)


@pytest.mark.parametrize("name", ["alloy", "jiggled", "slab", "cluster"])
def test_made_up_vector_moments_of_disguises_equal_those_made_up_afresh(name: str) -> None:
    rng = np.random.default_rng(len(name))
    atoms = library()[name]
    assert np.linalg.norm(whirls(atoms), axis=1).max() > 0.01
    atoms.set_initial_magnetic_moments(whirls(atoms))
    for _ in range(6):
        other = disguise(atoms, rng, Disguise(supercell=3))
        other.set_initial_magnetic_moments(whirls(other))
        for one, two in ((atoms, other), (other, atoms)):
            there = carried(Properties(energy=0.0, moments=2.0 * whirls(one)), one, two)
            np.testing.assert_allclose(present(there.moments), 2.0 * whirls(two), atol=1e-8)


@pytest.mark.parametrize("name", ["slab", "wire", "cluster"])
def test_made_up_dipoles_of_disguises_equal_those_made_up_afresh(name: str) -> None:
    """Of charges that add up to nothing, along the directions that are not periodic."""

    def dipole(atoms: Atoms) -> NDArray[np.float64]:
        charges = atoms.numbers - atoms.numbers.mean()
        lattice = atoms.cell.array[atoms.pbc]
        across = np.eye(3) - np.linalg.pinv(lattice) @ lattice if len(lattice) else np.eye(3)
        return np.asarray(across @ (charges @ atoms.positions))

    rng = np.random.default_rng(len(name))
    atoms = library()[name]
    assert np.linalg.norm(dipole(atoms)) > 1.0
    for _ in range(8):
        other = disguise(atoms, rng, Disguise(supercell=3))
        there = carried(Properties(energy=0.0, dipole=dipole(atoms)), atoms, other)
        np.testing.assert_allclose(present(there.dipole), dipole(other), atol=1e-8)


def test_a_dipole_from_point_charges_is_carried_exactly() -> None:
    rng = np.random.default_rng(6)
    charges = {29: 0.7, 79: -0.4, 28: 0.25}

    def dipole(atoms: Atoms) -> np.ndarray:
        return np.asarray(np.array([charges[int(z)] for z in atoms.numbers]) @ atoms.positions, dtype=np.float64)

    atoms = cluster()
    atoms.info["charge"] = float(sum(charges[int(z)] for z in atoms.numbers))
    for _ in range(5):
        other = disguise(atoms, rng)
        there = carried(Properties(energy=0.0, dipole=dipole(atoms)), atoms, other)
        np.testing.assert_allclose(present(there.dipole), dipole(other), atol=1e-8)


def test_a_dipole_is_kept_only_across_the_surface() -> None:
    atoms = slab()
    labels = Properties(energy=0.0, dipole=np.array([0.3, 0.2, 0.5]))
    there = carried(labels, atoms, repeated(atoms, np.diag([2, 1, 1])))
    np.testing.assert_allclose(present(there.dipole), [0.0, 0.0, 1.0], atol=1e-9)
    crystal = bulk("Cu")
    assert carried(labels, crystal, crystal).dipole is None


def test_copies_that_disagree_are_refused() -> None:
    large, small = bulk("Cu", cubic=True), bulk("Cu")
    forces = np.zeros((4, 3))
    forces[0, 0] = 0.1
    with pytest.raises(StructureError, match="symmetry"):
        carried(Properties(energy=0.0, forces=forces), large, small)


def test_a_foreign_isometry_is_refused() -> None:
    large, small = Structure.from_atoms(bulk("Cu", cubic=True)), Structure.from_atoms(bulk("Cu"))
    found = find_isometry(large, small, IDENTICAL)
    assert found is not None
    with pytest.raises(StructureError, match="atoms"):
        transfer_properties(Properties(energy=0.0), found, small, large)
