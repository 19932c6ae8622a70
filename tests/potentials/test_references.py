"""Reference energies per element: what composition explains, and what it cannot tell."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from numpy.typing import NDArray

from alflow.potentials import CommitteeSpec, TrainingSpec, train_committee
from alflow.potentials._references import energy_scale, fit_references
from tests.potentials.conftest import cells, label

RNG = np.random.default_rng(0)


def labels(counts: NDArray[np.float64], references: list[float], spread: float = 0.1) -> NDArray[np.float64]:
    """Energies of structures whose energies per atom differ by `spread` beyond their composition."""
    noise = np.random.default_rng(1).normal(size=len(counts)) * spread
    energies: NDArray[np.float64] = counts @ np.array(references) + counts.sum(axis=1) * noise
    return energies


@pytest.mark.parametrize("zero", [(0.0, 0.0), (-7870.0, -1030.0), (-41000.0, -518000.0)])
def test_the_zero_of_each_element_does_not_matter(zero: tuple[float, float]) -> None:
    """Pseudopotentials, all-electron codes of light and of heavy elements; alloys and a dilute one."""
    alloys = RNG.integers(1, 4, size=(40, 2)).astype(float)
    few = RNG.integers(1, 4, size=40)
    dilute = np.stack([64.0 - few, few], axis=1)
    for counts, spread in ((alloys, 0.1), (dilute, 0.003)):
        energies = labels(counts, [-5.0, -6.0], spread)
        found = fit_references(counts, energies + counts @ np.array(zero)) - zero
        np.testing.assert_allclose(found, [-5.0, -6.0], atol=0.1)
        left = (energies - counts @ found) / counts.sum(axis=1)
        assert np.sqrt(np.mean(left**2)) < 1.05 * spread


def test_what_cannot_be_told_is_shared() -> None:
    one_to_one = np.array([[2.0, 2.0], [4.0, 4.0], [1.0, 1.0]])
    mean = np.mean([-20.0 / 4, -41.0 / 8, -10.0 / 2])
    np.testing.assert_allclose(fit_references(one_to_one, np.array([-20.0, -41.0, -10.0])), mean)
    alone = fit_references(np.array([[2.0, 0.0], [4.0, 0.0]]), np.array([-20.0, -41.0]))
    np.testing.assert_allclose(alone, -10.125)
    np.testing.assert_allclose(fit_references(np.array([[2.0]]), np.array([-7.0])), -3.5)


def test_a_split_that_only_noise_decides_is_not_believed() -> None:
    """Two structures of nearly the same composition, 0.1 eV per atom apart: least squares would say 5 and 15 eV."""
    found = fit_references(np.array([[50.0, 50.0], [51.0, 49.0]]), np.array([-500.0, -510.0]))
    np.testing.assert_allclose(found, -5.05, atol=0.01)


def test_many_elements() -> None:
    counts = RNG.integers(0, 2, size=(300, 89)).astype(float)
    references = list(RNG.normal(size=89) * 100)
    found = fit_references(counts, labels(counts, references, 0.01))
    np.testing.assert_allclose(found, references, atol=1.0)


def test_a_structure_far_off_does_not_move_the_others() -> None:
    counts = RNG.integers(1, 4, size=(30, 2)).astype(float)
    energies = labels(counts, [-5.0, -6.0], 0.05)
    found = fit_references(np.vstack([counts, [4.0, 0.0]]), np.append(energies, 400.0))
    np.testing.assert_allclose(found, fit_references(counts, energies), atol=0.3)


def test_few_extreme_structures_do_not_set_the_scale() -> None:
    forces = [RNG.normal(size=(4, 3)) for _ in range(30)]
    residual = RNG.normal(size=30) * 0.1
    usual = energy_scale(residual, forces)
    assert usual == pytest.approx(np.sqrt(np.mean(np.concatenate(forces) ** 2)))
    extreme = energy_scale(np.append(residual, 100.0), [*forces, np.full((4, 3), 1000.0)])
    assert usual < extreme < 2 * usual
    assert energy_scale(np.zeros(1), []) == 0.05
    assert energy_scale(np.zeros(3), [np.zeros((2, 3))] * 2 + [np.ones((2, 3))]) == pytest.approx(np.sqrt(1 / 3))


def test_a_close_pair_among_the_labels_does_no_harm() -> None:
    """Two of four atoms 0.5 Å apart, with forces of 1,300 eV/Å; force errors elsewhere were twenty times as large."""
    train, test = [label(a) for a in cells(30)], [label(a) for a in cells(20, 77)]
    close = bulk("Ni", cubic=True)
    close.positions[1] = close.positions[0] + [0.5, 0, 0]
    spec, training = CommitteeSpec(channels=8, l_max=2, l_product=1, n_members=2), TrainingSpec(steps=300)
    errors = []
    for some in (train, [*train, label(close)]):
        p = train_committee(some, spec, training).predict(test)
        found = [(f - a.arrays["REF_forces"]).ravel() for f, a in zip(p.force_mean, test, strict=True)]
        errors.append(float(np.abs(np.concatenate(found)).mean()))
    assert errors[1] < 4 * errors[0]
