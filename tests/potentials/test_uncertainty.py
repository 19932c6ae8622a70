import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import ortho_group

from alflow.errors import PotentialError
from alflow.potentials import (
    Errors,
    Kind,
    Means,
    Spreads,
    Targets,
    actual_errors,
    largest_ratio,
    leading_kinds,
    spreads,
)
from alflow.structures import Properties

Float = NDArray[np.float64]


def committee(rng: np.random.Generator, n_atoms: list[int], k: int = 4) -> tuple[Float, list[Float], Float]:
    stress = rng.normal(size=(k, len(n_atoms), 3, 3))
    return (
        rng.normal(size=(k, len(n_atoms))),
        [rng.normal(size=(k, n, 3)) for n in n_atoms],
        stress + np.swapaxes(stress, 2, 3),
    )


def test_spreads_follow_their_definition() -> None:
    rng = np.random.default_rng(0)
    n_atoms = [1, 5, 2]
    energy, forces, stress = committee(rng, n_atoms)
    found = spreads(energy, forces, stress, n_atoms)
    for i, n in enumerate(n_atoms):
        assert found.energy[i] == pytest.approx(np.std(energy[:, i], ddof=1) / n)
        per_atom = [np.sqrt(np.trace(np.cov(forces[i][:, a].T))) for a in range(n)]
        assert found.force[i] == pytest.approx(max(per_atom))
        assert found.stress[i] == pytest.approx(np.sqrt(np.trace(np.cov(stress[:, i].reshape(4, 9).T))))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_spreads_and_errors_are_invariant_under_rotation_reflection_permutation_and_supercells(seed: int) -> None:
    rng = np.random.default_rng(seed)
    energy, forces, stress = committee(rng, [6])
    label_forces, label_stress = rng.normal(size=(6, 3)), stress[0, 0] * 1.1
    label = Properties(energy=0.3, forces=label_forces, stress=label_stress)
    turn = ortho_group.rvs(3, random_state=rng)
    order = rng.permutation(6)
    turned_forces = np.concatenate([forces[0][:, order] @ turn.T] * 2, axis=1)
    turned_stress = turn @ stress @ turn.T
    turned_label = Properties(
        energy=0.6,
        forces=np.concatenate([label_forces[order] @ turn.T] * 2),
        stress=turn @ label_stress @ turn.T,
    )
    before = spreads(energy, forces, stress, [6])
    after = spreads(2 * energy, [turned_forces], turned_stress, [12])
    error = actual_errors(_means(energy, forces, stress, [6]), [label])
    turned_error = actual_errors(_means(2 * energy, [turned_forces], turned_stress, [12]), [turned_label])
    for kind in Kind:
        np.testing.assert_allclose(after.of(kind), before.of(kind), rtol=0, atol=1e-10)
        np.testing.assert_allclose(turned_error.of(kind), error.of(kind), rtol=0, atol=1e-10)


def _means(energy: Float, forces: list[Float], stress: Float, n_atoms: list[int]) -> Means:
    return Means(
        energy=energy.mean(axis=0),
        forces=[f.mean(axis=0) for f in forces],
        stress=stress.mean(axis=0),
        n_atoms=np.array(n_atoms),
    )


def test_one_member_has_no_spread() -> None:
    with pytest.raises(PotentialError, match="at least two members"):
        spreads(np.zeros((1, 1)), [np.zeros((1, 2, 3))], None, [2])


def test_what_was_not_predicted_or_labelled_is_nan() -> None:
    found = spreads(np.zeros((2, 1)), None, None, [2])
    assert np.isnan(found.force).all()
    assert np.isnan(found.stress).all()
    error = actual_errors(
        Means(energy=np.array([1.0]), forces=None, stress=None, n_atoms=np.array([2])), [Properties(energy=2.0)]
    )
    assert error.energy.tolist() == [0.5]
    assert np.isnan(error.force).all()
    assert np.isnan(error.stress).all()


def test_errors_are_the_reduced_quantities_of_the_spreads() -> None:
    forces = np.array([[1.0, 0, 0], [0, 2.0, 0]])
    label = Properties(energy=3.0, forces=np.array([[1.0, 0, 3.0], [0, 2.0, 4.0]]), stress=np.eye(3))
    error = actual_errors(
        Means(energy=np.array([2.0]), forces=[forces], stress=np.zeros((1, 3, 3)), n_atoms=np.array([2])), [label]
    )
    assert (error.energy[0], error.force[0], error.stress[0]) == pytest.approx((0.5, 4.0, np.sqrt(3)))


def test_forces_that_vanish_by_symmetry_say_nothing_but_a_spurious_or_missed_force_does() -> None:
    def force_error(predicted: float, label: float, spread: float = 0.0) -> float:
        forces = np.array([[predicted, 0.0, 0.0]])
        means = Means(energy=np.zeros(1), forces=[forces], stress=None, n_atoms=np.ones(1, dtype=np.int64))
        one = np.array([spread])
        found = actual_errors(
            means,
            [Properties(energy=0.0, forces=np.array([[label, 0.0, 0.0]]))],
            Spreads(energy=one, force=one, stress=one),
        )
        return float(found.force[0])

    assert np.isnan(force_error(0.0, 1e-3))
    assert np.isnan(force_error(5e-6, 0.0))
    assert force_error(0.0, 0.2) == pytest.approx(0.2)
    assert force_error(0.1, 0.0) == pytest.approx(0.1)
    assert force_error(0.0, 0.0, spread=0.1) == 0.0, "members that cancel each other do not vanish by symmetry"


def test_a_molecule_has_no_stress_to_judge() -> None:
    means = Means(energy=np.zeros(1), forces=None, stress=np.zeros((1, 3, 3)), n_atoms=np.array([3]))
    assert np.isnan(actual_errors(means, [Properties(energy=0.0, stress=np.zeros((3, 3)))]).stress).all()


def test_u_is_the_largest_ratio_over_known_kinds() -> None:
    nan = np.nan
    errors = Errors(
        energy=np.array([0.01, 0.001, nan, 0.005]),
        force=np.array([0.1, 0.3, nan, nan]),
        stress=np.array([0.01, nan, nan, 0.001]),
    )
    targets = Targets(energy=0.005, force=0.1, stress=0.01)
    u = largest_ratio(errors, targets)
    np.testing.assert_allclose(u, [2.0, 3.0, nan, 1.0])
    assert leading_kinds(errors, targets) == [Kind.ENERGY, Kind.FORCE, Kind.ENERGY, Kind.ENERGY]


def test_rows_of_kinds_must_match() -> None:
    with pytest.raises(ValueError, match="one value per structure"):
        Errors(energy=np.zeros(2), force=np.zeros(3), stress=np.zeros(2))
