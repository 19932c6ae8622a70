"""Small geometric moves: symmetric strain, change of volume, random displacements, repetition of a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from alflow.structures import Structure

if TYPE_CHECKING:
    from numpy.typing import NDArray


def random_strain(rng: np.random.Generator, size: float, *, traceless: bool = False) -> NDArray[np.float64]:
    """Random symmetric strain (3, 3) whose distribution prefers no direction.

    Diagonal elements have the standard deviation ``size``, off-diagonal ones ``size``/√2, so that the Frobenius norm
    (and with it the distribution) is invariant under rotation.
    """
    matrix = rng.normal(size=(3, 3))
    strain = size * (matrix + matrix.T) / 2
    np.fill_diagonal(strain, size * np.diag(matrix))
    if traceless:
        strain -= np.eye(3) * np.trace(strain) / 3
    return np.asarray(strain)


def deform(structure: Structure, strain: NDArray[np.float64]) -> Structure:
    """Apply exp(strain) to cell and positions: a traceless strain keeps the volume, a symmetric one does not rotate."""
    values, vectors = np.linalg.eigh(strain)
    stretch = (vectors * np.exp(values)) @ vectors.T
    return structure.with_geometry(cell=structure.cell @ stretch, positions=structure.positions @ stretch)


def with_volume_factor(structure: Structure, factor: float) -> Structure:
    """Scale the volume of a crystal, everything in proportion."""
    length = factor ** (1 / 3)
    return structure.with_geometry(cell=structure.cell * length, positions=structure.positions * length)


def rattle(structure: Structure, rng: np.random.Generator, size: float) -> Structure:
    """Displace every atom by normal numbers of standard deviation ``size``, Å per coordinate, the mean staying put."""
    if structure.n_atoms == 1 and structure.n_periodic == 3:
        return structure  # moving the only atom of a crystal changes nothing
    moves = rng.normal(scale=size, size=(structure.n_atoms, 3)) if size > 0 else np.zeros((structure.n_atoms, 3))
    return structure.with_geometry(cell=structure.cell, positions=structure.positions + moves - moves.mean(axis=0))


def repeat_to(structure: Structure, min_atoms: int) -> Structure:
    """Repeat the shortest periodic cell vector again and again until there are at least ``min_atoms`` atoms."""
    repeats = np.ones(3, dtype=int)
    lengths = np.linalg.norm(structure.cell, axis=1)
    while structure.n_periodic and structure.n_atoms * repeats.prod() < min_atoms:
        repeats[int(np.where(structure.pbc, lengths * repeats, np.inf).argmin())] += 1
    if repeats.prod() == 1:
        return structure
    grid = np.stack(np.meshgrid(*[np.arange(r) for r in repeats], indexing="ij"), axis=-1).reshape(-1, 3)
    moments = structure.moments
    return Structure(
        cell=structure.cell * repeats[:, None],
        pbc=structure.pbc,
        numbers=np.tile(structure.numbers, len(grid)),
        positions=(structure.positions[None] + (grid @ structure.cell)[:, None]).reshape(-1, 3),
        charge=structure.charge * len(grid),
        moments=None if moments is None else np.tile(moments, (len(grid),) + (1,) * (moments.ndim - 1)),
    )
