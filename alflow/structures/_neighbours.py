"""Neighbour lists under any periodicity, also for cells smaller than the cutoff."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alflow.errors import StructureError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alflow.structures._structure import Structure

MAX_EDGES_PER_ATOM = 20_000
"""A denser structure is not matter; it would only exhaust the memory."""
SAME_PLACE = 1e-3
"""Å: atoms nearer than this have no direction to each other that a number could hold."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Neighbours:
    """Edges from every atom to every atom or periodic image within the cutoff, sorted by centre, then neighbour.

    Parameters
    ----------
    centres, neighbours
        (E,) indices of atoms
    images
        (E, 3), cell translation of the neighbour
    vectors
        (E, 3), Å, from the centre to the neighbour: positions[neighbour] + images @ cell - positions[centre]
    distances
        (E,), Å
    """

    centres: NDArray[np.int64]
    neighbours: NDArray[np.int64]
    images: NDArray[np.int64]
    vectors: NDArray[np.float64]
    distances: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.centres)


def neighbour_list(structure: Structure, r_max: float) -> Neighbours:
    """Find all neighbours nearer than `r_max`; an atom's own images count, the atom itself does not.

    Parameters
    ----------
    structure
        periodic in any directions; atoms may lie outside the cell
    r_max
        Å

    Raises
    ------
    StructureError
        if `r_max` is not positive, or two atoms sit on the same place
    """
    return neighbours_of(structure.positions, structure.cell, structure.pbc, r_max)


def neighbours_of(
    positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.bool_], r_max: float
) -> Neighbours:
    """Return the same as :func:`neighbour_list` for bare arrays: positions (n, 3) and cell (3, 3) in Å, pbc (3,)."""
    # pymatgen's cell lists were the fastest at every size measured; imported late because its package is heavy.
    from pymatgen.optimization.neighbors import find_points_in_spheres

    if not r_max > 0:
        raise StructureError(f"the cutoff must be positive, not {r_max} Å")
    lattice = complete_cell(cell, pbc)
    _refuse_dense(len(positions), lattice, pbc, r_max)
    points = np.ascontiguousarray(positions, dtype=np.float64)
    centres, neighbours, images, distances = find_points_in_spheres(
        all_coords=points,
        center_coords=points,
        r=float(r_max),
        pbc=np.ascontiguousarray(pbc, dtype=np.int64),
        lattice=np.ascontiguousarray(lattice, dtype=np.float64),
        tol=1e-8,
    )
    shifts = np.rint(images).astype(np.int64)
    keep = ~((centres == neighbours) & (shifts == 0).all(axis=1)) & (distances < r_max)
    centres, neighbours, shifts = centres[keep].astype(np.int64), neighbours[keep].astype(np.int64), shifts[keep]
    vectors = points[neighbours] - points[centres] + shifts @ lattice
    order = np.lexsort((neighbours, centres))
    centres, neighbours, shifts, vectors = centres[order], neighbours[order], shifts[order], vectors[order]
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    if len(lengths) and lengths.min() < SAME_PLACE:
        worst = int(lengths.argmin())
        raise StructureError(f"atoms {centres[worst]} and {neighbours[worst]} sit on the same place")
    return Neighbours(centres=centres, neighbours=neighbours, images=shifts, vectors=vectors, distances=lengths)


def _refuse_dense(n_atoms: int, lattice: NDArray[np.float64], pbc: NDArray[np.bool_], r_max: float) -> None:
    """Raise StructureError where the neighbours within `r_max` would exhaust the memory."""
    # the directions that are not periodic have unit vectors normal to the others: length, area or volume of a period
    period, directions = abs(float(np.linalg.det(lattice))), int(pbc.sum())
    sphere = {0: 0.0, 1: 2 * r_max, 2: np.pi * r_max**2, 3: 4 / 3 * np.pi * r_max**3}[directions]
    # of a slab or wire only the images of one atom are sure to be near each other
    if sphere * (n_atoms if directions == 3 else 1) > MAX_EDGES_PER_ATOM * period:
        density = f"{n_atoms / period:.3g} atoms/Å{('', '', '²', '³')[directions]}"
        raise StructureError(
            f"{density} give more than {MAX_EDGES_PER_ATOM} neighbours within {r_max} Å: check the cell"
        )


def complete_cell(cell: NDArray[np.float64], pbc: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Replace vectors of non-periodic directions by unit vectors normal to the periodic ones, so that it inverts."""
    full = np.array(cell, dtype=np.float64)
    if pbc.all():
        return full
    rows = full[pbc]
    # The null space of the periodic vectors, orthonormal; the whole space when nothing is periodic.
    normal = np.linalg.svd(rows)[2][len(rows) :] if len(rows) else np.eye(3)
    full[~pbc] = normal
    return full
