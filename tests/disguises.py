"""Disguised copies of a structure, which are the same, and near misses, which are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase.build import make_supercell
from scipy.spatial.transform import Rotation

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Disguise:
    """What a disguise may change."""

    rotate: bool = True
    mirror: bool = True
    translate: bool = True
    permute: bool = True
    supercell: int = 4
    unimodular: bool = True
    vacuum: bool = True
    wrap: bool = True


def random_orthogonal(rng: np.random.Generator, *, mirror: bool) -> NDArray[np.float64]:
    """Uniform rotation, times the inversion half of the time if mirrors are allowed."""
    rotation: NDArray[np.float64] = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
    return -rotation if mirror and rng.random() < 0.5 else rotation


def random_unimodular(rng: np.random.Generator, pbc: NDArray[np.bool_], steps: int = 4) -> NDArray[np.int64]:
    """Integer matrix of determinant ±1 that mixes periodic rows only."""
    matrix = np.eye(3, dtype=np.int64)
    axes = np.flatnonzero(pbc)
    for _ in range(steps if len(axes) > 1 else 0):
        i, j = rng.choice(axes, size=2, replace=False)
        matrix[i] += int(rng.integers(-1, 2)) * matrix[j]
    return matrix


def random_superlattice(rng: np.random.Generator, pbc: NDArray[np.bool_], largest: int) -> NDArray[np.int64]:
    """Integer matrix of determinant up to ``largest``, in Hermite normal form on the periodic axes."""
    matrix = np.eye(3, dtype=np.int64)
    axes = np.flatnonzero(pbc)
    size = int(rng.integers(1, largest + 1))
    for axis in rng.permutation(axes):
        divisors = [d for d in range(1, size + 1) if size % d == 0]
        matrix[axis, axis] = rng.choice(divisors)
        size //= int(matrix[axis, axis])
    for i in axes:
        for j in axes:
            if j > i:
                matrix[i, j] = rng.integers(0, matrix[j, j] + 1)
    return matrix


def disguise(atoms: Atoms, rng: np.random.Generator, what: Disguise | None = None) -> Atoms:
    """Return the same structure in other clothes; initial moments turn along, as axial vectors."""
    what = what or Disguise()
    copy = atoms.copy()
    pbc = np.array(copy.pbc)
    if pbc.any():
        matrix = np.eye(3, dtype=np.int64)
        if what.supercell > 1:
            matrix = random_superlattice(rng, pbc, what.supercell)
        if what.unimodular:
            matrix = random_unimodular(rng, pbc) @ matrix
        if not (matrix == np.eye(3)).all():
            copy = repeated(copy, matrix)
    if what.vacuum and not pbc.all() and pbc.any():
        cell = copy.cell.array.copy()
        cell[~pbc] *= rng.uniform(1.0, 2.0)
        copy.set_cell(cell, scale_atoms=False)
    orthogonal = random_orthogonal(rng, mirror=what.mirror) if what.rotate else np.eye(3)
    if what.mirror and not what.rotate and rng.random() < 0.5:
        orthogonal = -orthogonal
    copy.set_cell(copy.cell.array @ orthogonal.T, scale_atoms=False)
    copy.positions = copy.positions @ orthogonal.T
    if copy.has("initial_magmoms") and copy.arrays["initial_magmoms"].ndim == 2:
        turned = copy.arrays["initial_magmoms"] @ orthogonal.T * np.linalg.det(orthogonal)
        copy.set_initial_magnetic_moments(turned)
    if what.translate:
        copy.positions = copy.positions + rng.uniform(-5.0, 5.0, size=3)
    if what.wrap and pbc.any():
        shifts = rng.integers(-1, 2, size=(len(copy), 3)) * pbc
        copy.positions = copy.positions + shifts @ copy.cell.array
    if what.permute:
        copy = copy[rng.permutation(len(copy))]
    return copy


def repeated(atoms: Atoms, matrix: NDArray[np.int64]) -> Atoms:
    """Supercell ``matrix @ cell`` with every site exactly repeated; charge grows along."""
    larger = make_supercell(atoms, matrix, wrap=False)
    copies = len(larger) // len(atoms)
    if "charge" in atoms.info:
        larger.info["charge"] = atoms.info["charge"] * copies
    return larger


def jiggled(atoms: Atoms, rng: np.random.Generator, size: float) -> Atoms:
    """Every atom moved by exactly ``size`` Å in a random direction."""
    copy = atoms.copy()
    steps = rng.normal(size=(len(copy), 3))
    copy.positions = copy.positions + size * steps / np.linalg.norm(steps, axis=1)[:, None]
    return copy


def one_moved(atoms: Atoms, rng: np.random.Generator, size: float) -> Atoms:
    """One atom moved by ``size`` Å in a random direction."""
    copy = atoms.copy()
    step = rng.normal(size=3)
    copy.positions[rng.integers(len(copy))] += size * step / np.linalg.norm(step)
    return copy


def one_swapped(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """One pair of unlike atoms exchanged; the structure has to hold two species."""
    copy = atoms.copy()
    numbers = copy.numbers.copy()
    i = int(rng.integers(len(copy)))
    j = int(rng.choice(np.flatnonzero(numbers != numbers[i])))
    numbers[i], numbers[j] = numbers[j], numbers[i]
    copy.numbers = numbers
    return copy


def strained(atoms: Atoms, rng: np.random.Generator, size: float) -> Atoms:
    """Homogeneously strained so that the largest principal strain is ``size``."""
    copy = atoms.copy()
    axes = random_orthogonal(rng, mirror=False)
    stretch = axes @ np.diag([1.0 + size, 1.0 - size * rng.random(), 1.0]) @ axes.T
    copy.set_cell(copy.cell.array @ stretch, scale_atoms=True)
    return copy
