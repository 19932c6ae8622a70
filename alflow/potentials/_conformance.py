"""A check that any potential may run against itself before alflow relies on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from alflow.errors import PotentialError
from alflow.structures import Structure

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray

    from alflow.potentials._prediction import Prediction
    from alflow.potentials._protocol import Committee

STEP = 1e-3
"""Å (and strain): long enough that rounding of single precision stays small, short enough for a central difference."""


def check_committee(committee: Committee, structures: Sequence[Atoms | Structure], *, tolerance: float = 2e-2) -> None:
    """Check that a committee keeps the promises of the protocol.

    Shapes; invariance of energies and equivariance of forces and stresses under a rotation with a reflection, a
    translation and a permutation; forces as the negative gradient of the energy along a random direction; stress as its
    derivative by strain; the same answers from :meth:`predict` and :meth:`evaluator`. A committee may have no features
    (then it refuses to give them) and no stress (then it is nan).

    Parameters
    ----------
    committee
        to be checked
    structures
        made of its elements, not all in their equilibrium
    tolerance
        allowed difference, relative to the largest value of its kind (at least 1 eV, 1 eV/Å, 0.1 eV/Å³)

    Raises
    ------
    PotentialError
        names the first promise that is broken
    """
    given = [s if isinstance(s, Structure) else Structure.from_atoms(s) for s in structures]
    if not given:
        raise PotentialError("give at least one structure to check a committee on")
    try:
        plain = committee.predict(given, features=True)
    except PotentialError:
        plain = committee.predict(given)
    _check_shapes(committee, plain, given)
    rng = np.random.default_rng(0)
    _check_symmetry(committee, plain, given, rng, tolerance)
    for i, structure in enumerate(given):
        _check_forces(committee, structure, plain[i], rng, tolerance)
        if _has_stress(plain, i, structure):
            _check_stress(committee, structure, plain[i], tolerance)
    moved = committee.evaluator(given)([s.positions for s in given], np.stack([s.cell for s in given]))
    _compare("energies of evaluator() and predict()", moved.energy, plain.energy, 1.0, tolerance)
    for one, other in zip(moved.forces, plain.forces, strict=True):
        _compare("forces of evaluator() and predict()", one, other, 1.0, tolerance)


def _compare(
    what: str, found: NDArray[np.float64], expected: NDArray[np.float64], floor: float, tolerance: float
) -> None:
    allowed = tolerance * max(floor, float(np.abs(expected).max(initial=0.0)))
    worst = float(np.abs(found - expected).max(initial=0.0))
    if not worst <= allowed:
        raise PotentialError(f"the committee breaks its promise: {what} differ by {worst:.3g}, allowed {allowed:.3g}")


def _check_shapes(committee: Committee, p: Prediction, given: Sequence[Structure]) -> None:
    k, n = committee.n_members, len(given)
    expected = {"energy": (p.energy.shape, (k, n)), "n_atoms": (p.n_atoms.tolist(), [s.n_atoms for s in given])}
    if p.stress is not None:
        expected["stress"] = (p.stress.shape, (k, n, 3, 3))
    if p.features is not None:
        expected["features"] = (p.features.shape[:1], (n,))
    for i, structure in enumerate(given):
        expected[f"forces[{i}]"] = (p.forces[i].shape, (k, structure.n_atoms, 3))
    for name, (found, wanted) in expected.items():
        if found != wanted:
            raise PotentialError(f"the committee breaks its promise: {name} is {found}, not {wanted}")
    unknown = {e for s in given for e in s.elements} - set(committee.elements)
    if unknown:
        raise PotentialError(f"the committee predicts for {sorted(unknown)} but does not name them in `elements`")


def _has_stress(p: Prediction, i: int, structure: Structure) -> bool:
    return p.stress is not None and bool(structure.pbc.all()) and not np.isnan(p.stress[:, i]).all()


def _check_symmetry(
    committee: Committee, plain: Prediction, given: Sequence[Structure], rng: np.random.Generator, tolerance: float
) -> None:
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotation *= -np.linalg.det(rotation)  # improper
    orders = [rng.permutation(s.n_atoms) for s in given]
    moved = [
        Structure(
            cell=s.cell @ rotation.T,
            pbc=s.pbc,
            numbers=s.numbers[order],
            positions=(s.positions @ rotation.T + rng.normal(size=3))[order],
        )
        for s, order in zip(given, orders, strict=True)
    ]
    turned = committee.predict(moved)
    _compare("energies of a rotated, permuted structure", turned.energy, plain.energy, 1.0, tolerance)
    for i, order in enumerate(orders):
        expected = (plain.forces[i] @ rotation.T)[:, order]
        _compare("forces of a rotated, permuted structure", turned.forces[i], expected, 1.0, tolerance)
    if plain.stress is not None and turned.stress is not None:
        crystals = [i for i, s in enumerate(given) if _has_stress(plain, i, s)]
        expected = rotation @ plain.stress[:, crystals] @ rotation.T
        _compare("stresses of a rotated structure", turned.stress[:, crystals], expected, 0.1, tolerance)


def _check_forces(
    committee: Committee, structure: Structure, plain: Prediction, rng: np.random.Generator, tolerance: float
) -> None:
    direction = rng.normal(size=structure.positions.shape)
    direction /= np.linalg.norm(direction)
    ends = [
        structure.with_geometry(cell=structure.cell, positions=structure.positions + sign * STEP * direction)
        for sign in (1, -1)
    ]
    energy = committee.predict(ends, stress=False).energy
    slope = (energy[:, 0] - energy[:, 1]) / (2 * STEP)
    expected = -np.einsum("kia,ia->k", plain.forces[0], direction)
    _compare("forces and the gradient of the energy", slope, expected, 1.0, tolerance)


def _check_stress(committee: Committee, structure: Structure, plain: Prediction, tolerance: float) -> None:
    assert plain.stress is not None
    strain = np.array([[1.0, 0.4, -0.3], [0.4, -0.6, 0.2], [-0.3, 0.2, 0.8]])
    ends = []
    for sign in (1, -1):
        deformation = np.eye(3) + sign * STEP * strain
        ends.append(
            structure.with_geometry(cell=structure.cell @ deformation, positions=structure.positions @ deformation)
        )
    energy = committee.predict(ends, stress=False).energy
    slope = (energy[:, 0] - energy[:, 1]) / (2 * STEP * structure.volume)
    expected = np.einsum("kab,ab->k", plain.stress[:, 0], strain)
    _compare("stress and the derivative of the energy by strain", slope, expected, 0.1, tolerance)
