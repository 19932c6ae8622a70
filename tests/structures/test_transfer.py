import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111
from ase.calculators.emt import EMT
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
