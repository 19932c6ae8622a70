"""Exactness of energies, forces, stresses and uncertainties (BARS section 1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from alflow.potentials import CommitteeSpec, NativeCommittee, Prediction, TrainingSpec, train_committee
from tests.potentials.conftest import cells, label, odd_ones

EXACT = 1e-10
DIFFERENCE = 1e-6


def within(found: NDArray[np.float64], expected: NDArray[np.float64], tolerance: float) -> None:
    bound = tolerance * max(1.0, float(np.nanmax(np.abs(expected), initial=0.0)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound)


def uncertainties(p: Prediction) -> NDArray[np.float64]:
    return np.stack([p.energy_spread, p.force_spread, p.stress_spread, p.energy_error, p.force_error, p.u])


def moved(atoms: Atoms, rotation: NDArray[np.float64], shift: NDArray[np.float64], order: NDArray[np.int64]) -> Atoms:
    other = atoms.copy()
    other.set_cell(atoms.cell.array @ rotation.T)
    other.positions = atoms.positions @ rotation.T + shift
    return other[order]


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1.0, -1.0]))
def test_exact_symmetry(full_committee: NativeCommittee, seed: int, sign: float) -> None:
    rng = np.random.default_rng(seed)
    rotation = sign * Rotation.random(random_state=seed).as_matrix()
    given_ = odd_ones(seed)
    orders = [rng.permutation(len(a)) for a in given_]
    plain = full_committee.predict(given_, features=True)
    turned = full_committee.predict(
        [moved(a, rotation, rng.normal(size=3) * 5, o) for a, o in zip(given_, orders, strict=True)], features=True
    )
    within(turned.energy, plain.energy, EXACT)
    within(uncertainties(turned), uncertainties(plain), EXACT)
    assert plain.features is not None
    assert turned.features is not None
    within(turned.features, plain.features, EXACT)
    for one, other, order in zip(turned.forces, plain.forces, orders, strict=True):
        within(one, (other @ rotation.T)[:, order], EXACT)
    assert turned.stress is not None
    assert plain.stress is not None
    within(turned.stress, rotation @ plain.stress @ rotation.T, EXACT)


@pytest.mark.parametrize("seed", range(2))
def test_supercells_and_other_cells_of_one_crystal(full_committee: NativeCommittee, seed: int) -> None:
    atoms = cells(4, seed + 10)[3]
    double = atoms * (2, 1, 2)
    sheared = atoms.copy()
    sheared.set_cell(np.array([[1, 1, 0], [0, 1, 0], [-1, 0, 1]]) @ atoms.cell.array)
    p = full_committee.predict([atoms, double, sheared])
    within(p.energy[:, 1], 4 * p.energy[:, 0], EXACT)
    within(p.energy[:, 2], p.energy[:, 0], EXACT)
    within(p.forces[1], np.tile(p.forces[0], (1, 4, 1)), EXACT)
    within(uncertainties(p)[:, 1], uncertainties(p)[:, 0], EXACT)
    within(uncertainties(p)[:, 2], uncertainties(p)[:, 0], EXACT)


def test_structures_do_not_see_each_other(full_committee: NativeCommittee) -> None:
    given_ = odd_ones()
    together = full_committee.predict(given_)
    for i, atoms in enumerate(given_):
        alone = full_committee.predict([atoms])
        within(alone.energy[:, 0], together.energy[:, i], EXACT)
        within(alone.forces[0], together.forces[i], EXACT)


def test_forces_are_the_gradient_of_the_energy(full_committee: NativeCommittee) -> None:
    step = 1e-4
    for atoms in odd_ones():
        ends = []
        for i, axis in np.ndindex(len(atoms), 3):
            # Four points: the close pair's repulsion is too steep for two.
            for factor in (-2, -1, 1, 2):
                end = atoms.copy()
                end.positions[i, axis] += factor * step
                ends.append(end)
        energy = full_committee.predict(ends).energy.reshape(full_committee.n_members, -1, 4)
        slope = (energy @ np.array([1, -8, 8, -1])) / (12 * step)
        forces = full_committee.predict([atoms]).forces[0]
        within(-slope.reshape(forces.shape), forces, DIFFERENCE)


def test_stress_is_the_derivative_by_strain(full_committee: NativeCommittee) -> None:
    step = 1e-4
    crystals = [a for a in odd_ones() if a.pbc.all()]
    assert len(crystals) >= 4
    for atoms in crystals:
        ends = []
        for a, b in np.ndindex(3, 3):
            for factor in (-2, -1, 1, 2):
                strain = np.eye(3)
                strain[a, b] += factor * step
                end = atoms.copy()
                end.set_cell(atoms.cell.array @ strain, scale_atoms=True)
                ends.append(end)
        energy = full_committee.predict(ends).energy.reshape(full_committee.n_members, 3, 3, 4)
        slope = (energy @ np.array([1, -8, 8, -1])) / (12 * step * atoms.get_volume())
        stress = full_committee.predict([atoms]).stress
        assert stress is not None
        within(slope, stress[:, 0], DIFFERENCE)
        within(stress[:, 0], np.swapaxes(stress[:, 0], 1, 2), EXACT)


def test_stress_of_what_is_no_crystal_is_not_a_number(full_committee: NativeCommittee) -> None:
    p = full_committee.predict(odd_ones())
    periodic = np.array([a.pbc.all() for a in odd_ones()])
    assert p.stress is not None
    assert np.isfinite(p.stress[:, periodic]).all()
    assert np.isnan(p.stress[:, ~periodic]).all()
    assert np.isfinite(p.u).all()
    assert full_committee.predict(odd_ones(), stress=False).stress is None


def test_single_precision_follows_double(labelled: list[Atoms]) -> None:
    single = train_committee(labelled, CommitteeSpec(channels=8), TrainingSpec(max_epochs=3))
    given_: Sequence[Atoms] = [a for a in odd_ones() if a.get_chemical_formula() != "Ni4"] + cells(5, 8)
    coarse, fine = single.predict(given_), single.predict(given_, dtype="float64")
    assert not np.array_equal(coarse.energy, fine.energy)
    for one, other in zip(coarse.forces, fine.forces, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    within(single.double().predict(given_).energy, fine.energy, 1e-14)


def test_energy_is_smooth_at_the_cutoff(full_committee: NativeCommittee) -> None:
    r_max, h = full_committee.r_max, 1e-3
    distances = r_max + h * np.array([-2, -1, 0, 1, 2])
    pairs = [Atoms("NiPt", positions=[[0, 0, 0], [0, 0, d]]) for d in distances]
    p = full_committee.predict(pairs)
    lone = full_committee.predict([Atoms("Ni"), Atoms("Pt")]).energy.sum(axis=1)
    within(p.energy[:, -1], lone, 1e-12)
    within(p.energy[:, 1], lone, 1e-8)
    within(p.forces[1], np.zeros((4, 2, 3)), 1e-6)


def test_a_lone_atom_has_its_reference_energy(full_committee: NativeCommittee) -> None:
    p = full_committee.predict([Atoms("Pt"), Atoms("Ni", cell=[20, 20, 20], pbc=True)])
    reference = full_committee.report.reference_energies if full_committee.report else {}
    np.testing.assert_allclose(p.energy, np.tile([reference["Pt"], reference["Ni"]], (4, 1)), rtol=1e-12)
    np.testing.assert_array_equal(p.forces[0], 0.0)


def test_a_labelled_lone_atom_sets_its_reference(labelled: list[Atoms]) -> None:
    lone = label(Atoms("Ni", cell=[15, 15, 15], pbc=True))
    trained = train_committee([*labelled[:6], lone], CommitteeSpec(channels=4, l_max=1), TrainingSpec(max_epochs=1))
    energy = trained.predict([Atoms("Ni")]).energy
    np.testing.assert_allclose(energy, lone.info["REF_energy"], atol=1e-10)
    assert np.abs(trained.predict([bulk("Ni")]).energy - lone.info["REF_energy"]).min() > 0.5


def test_pairs_repel_at_short_range(full_committee: NativeCommittee) -> None:
    distances = np.array([0.1, 0.2, 0.3, 0.5, 0.7])
    energy = full_committee.predict([Atoms("Ni2", positions=[[0, 0, 0], [d, 0, 0]]) for d in distances]).energy
    assert (np.diff(energy, axis=1) < 0).all()
    assert (energy[:, 0] > 1000).all()


@pytest.mark.parametrize(
    "spec",
    [
        CommitteeSpec(channels=4, l_max=1, l_product=0, n_layers=1, dtype="float64", n_members=1),
        CommitteeSpec(channels=4, l_max=4, l_product=3, n_layers=2, dtype="float64", n_members=2),
        CommitteeSpec(channels=4, l_max=1, l_product=4, repulsion=False, dtype="float64", n_members=2),
    ],
    ids=["smallest", "high degrees", "no repulsion"],
)
def test_other_shapes_are_exact_as_well(labelled: list[Atoms], spec: CommitteeSpec) -> None:
    trained = train_committee(labelled[:8], spec, TrainingSpec(max_epochs=1))
    atoms = cells(4, 6)[3]
    rotation = -Rotation.random(random_state=1).as_matrix()
    p = trained.predict([atoms, moved(atoms, rotation, np.ones(3), np.arange(len(atoms)))])
    within(p.energy[:, 0], p.energy[:, 1], EXACT)
    within(p.forces[1], p.forces[0] @ rotation.T, EXACT)


def test_many_elements_share_learned_channels() -> None:
    metals = ["Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au"]
    train = [label(bulk(m, cubic=True)) for m in metals]
    for atoms, other in zip(train, metals[1:], strict=False):
        atoms.symbols[0] = other
    spec = CommitteeSpec(channels=4, l_max=2, dtype="float64", n_members=2)
    trained = train_committee([label(a) for a in train], spec, TrainingSpec(max_epochs=2))
    assert trained.elements == tuple(metals)
    assert not trained.core.network.one_hot
    energies = trained.predict(train).energy_mean / 4
    assert len(set(np.round(energies, 6))) == len(metals)
