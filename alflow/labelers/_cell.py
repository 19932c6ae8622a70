"""What codes that repeat every cell need to know of it: meshes of k-points by spacing, room for vacuum, a box."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from alflow.structures import Structure

if TYPE_CHECKING:
    from numpy.typing import NDArray


def k_mesh(structure: Structure, spacing: float) -> tuple[int, int, int]:
    """Numbers of k-points along the reciprocal vectors b_i (with the factor 2π): the least with |b_i| / n_i ≤ spacing.

    One point along directions that are not periodic.

    Parameters
    ----------
    structure
        its cell, whose three vectors must not vanish
    spacing
        1/Å
    """
    lengths = 2 * math.pi * np.linalg.norm(np.linalg.inv(structure.cell), axis=0)
    # A cell whose length meets a step exactly must not change its mesh by rounding.
    first, second, third = (
        max(1, math.ceil(length / spacing - 1e-6)) if periodic else 1
        for length, periodic in zip(lengths, structure.pbc, strict=True)
    )
    return first, second, third


def room_along(structure: Structure, axis: int) -> float:
    """Å between the atoms and their next image along a cell vector, measured at right angles to the other two.

    Along a direction that is not periodic atoms stand where they are: those that reach over the border of the cell
    would come upon others if the cell were repeated. 0 where there is no room, or the cell has no volume.
    """
    if abs(np.linalg.det(structure.cell)) < 1e-6:
        return 0.0
    inverse = np.linalg.inv(structure.cell)
    height = 1 / float(np.linalg.norm(inverse[:, axis]))
    return max(0.0, height * (1 - float(np.ptp((structure.positions @ inverse)[:, axis]))))


def box_with_vacuum(structure: Structure, vacuum: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give every direction that is not periodic a vector normal to all others, with the atoms in its middle.

    Parameters
    ----------
    structure
        with one to three directions that are not periodic
    vacuum
        Å on either side of the outermost atoms

    Returns
    -------
    cell
        (3, 3), Å; periodic rows are those of the structure
    shift
        (3,), Å: to be added to the positions
    """
    cell, shift = structure.cell.copy(), np.zeros(3)
    free = np.flatnonzero(~structure.pbc)
    normals = np.eye(3) if len(free) == 3 else _normals(structure.cell[structure.pbc])
    cell[free] = normals
    if np.linalg.det(cell) < 0:
        normals[-1] *= -1
    for axis, normal in zip(free, normals, strict=True):
        along = structure.positions @ normal
        cell[axis] = normal * (np.ptp(along) + 2 * vacuum)
        shift += normal * (vacuum - along.min())
    return cell, shift


def _normals(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3 - n, 3) orthonormal vectors normal to (n, 3) vectors, the same for the same vectors."""
    if len(rows) == 2:
        normal = np.cross(rows[0], rows[1])
        return np.asarray(normal / np.linalg.norm(normal))[None]
    along = rows[0] / np.linalg.norm(rows[0])
    first = np.cross(along, np.eye(3)[np.argmin(np.abs(along))])
    first /= np.linalg.norm(first)
    return np.asarray([first, np.cross(along, first)])
