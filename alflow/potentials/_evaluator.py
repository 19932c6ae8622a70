"""Repeated evaluation of structures in motion: neighbour lists with a skin, kept while they are provably complete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alflow.errors import PotentialError, StructureError
from alflow.potentials._allocator import keep_freed_memory
from alflow.potentials._geometry import AtomTable, EdgeList
from alflow.potentials._given import as_cell, as_positions, as_structures
from alflow.structures import SAME_PLACE, Structure, complete_cell, neighbours_of

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray

    from alflow.potentials._committee import NativeCommittee
    from alflow.potentials._prediction import Prediction

SKIN = 0.7
"""Å beyond the cutoff: lists survive some ten steps of a relaxation at a third more edges."""


@dataclass(kw_only=True, eq=False)
class _Candidates:
    """All pairs within cutoff + skin at the time of the last search, with the cell and fractions of that time."""

    centres: NDArray[np.int64]
    neighbours: NDArray[np.int64]
    images: NDArray[np.float64]
    inverse_cell: NDArray[np.float64]
    fractions: NDArray[np.float64]


class NativeEvaluator:
    """Evaluates the structures it was made for at new positions and cells; see :class:`BatchEvaluator`.

    Parameters
    ----------
    committee
        what predicts
    structures
        their species and periodicity stay
    stress
        whether stresses are wanted
    skin
        Å
    """

    def __init__(
        self,
        committee: NativeCommittee,
        structures: Sequence[Atoms | Structure],
        *,
        stress: bool = True,
        skin: float = SKIN,
    ) -> None:
        keep_freed_memory()
        self.committee, self.stress, self.skin = committee, stress, skin
        self.structures = as_structures(structures)
        numbers = committee.core.numbers
        self._atoms = [AtomTable.of(s.numbers, numbers) for s in self.structures]
        self._lists: list[_Candidates | None] = [None] * len(self.structures)
        self.n_searches = 0

    def __call__(
        self,
        positions: Sequence[NDArray[np.float64]],
        cells: NDArray[np.float64],
        active: NDArray[np.int64] | None = None,
    ) -> Prediction:
        """Evaluate at new positions and cells; see :class:`BatchEvaluator`."""
        chosen = np.arange(len(self.structures)) if active is None else np.asarray(active, dtype=np.int64)
        if not len(chosen) == len(positions) == len(cells):
            raise PotentialError(f"{len(chosen)} structures, {len(positions)} positions and {len(cells)} cells differ")
        edges, volumes = [], np.zeros(len(chosen))
        for k, i in enumerate(chosen):
            structure = self.structures[i]
            cell = complete_cell(as_cell(cells[k], structure), structure.pbc)
            volume = abs(float(np.linalg.det(cell)))
            if not volume > 0:
                raise StructureError(f"{structure.formula}: the periodic cell vectors are linearly dependent")
            edges.append(self._edges(int(i), as_positions(positions[k], structure), cell))
            volumes[k] = volume if structure.pbc.all() else 0.0
        raw = self.committee.core.predict(edges)
        counts = np.array([self.structures[i].n_atoms for i in chosen], dtype=np.int64)
        return self.committee.as_prediction(raw, counts, volumes, stress=self.stress)

    def _edges(self, i: int, positions: NDArray[np.float64], cell: NDArray[np.float64]) -> EdgeList:
        found = self._lists[i]
        if found is None or not self._complete(found, positions, cell):
            found = self._search(i, positions, cell)
        vectors = positions[found.neighbours] - positions[found.centres] + found.images @ cell
        squares = np.einsum("ij,ij->i", vectors, vectors)
        if len(squares) and squares.min() < SAME_PLACE**2:
            worst = int(squares.argmin())
            raise StructureError(f"atoms {found.centres[worst]} and {found.neighbours[worst]} sit on the same place")
        near = squares < self.committee.r_max**2
        return EdgeList(
            atoms=self._atoms[i],
            centres=found.centres[near],
            neighbours=found.neighbours[near],
            vectors=vectors[near],
        )

    def _complete(self, found: _Candidates, positions: NDArray[np.float64], cell: NDArray[np.float64]) -> bool:
        """Whether no pair left out by the last search can have come within the cutoff.

        With v the vector then and F the deformation of the cell since, the vector now is v F plus the difference of two
        displacements: at least |v| σ_min(F) - 2 d long.
        """
        deformation = found.inverse_cell @ cell
        shrink = float(np.linalg.svd(deformation, compute_uv=False)[-1])
        moved = positions - found.fractions @ cell
        largest = float(np.sqrt(np.einsum("ij,ij->i", moved, moved).max()))
        return (self.committee.r_max + self.skin) * shrink - 2 * largest >= self.committee.r_max

    def _search(self, i: int, positions: NDArray[np.float64], cell: NDArray[np.float64]) -> _Candidates:
        self.n_searches += 1
        near = neighbours_of(positions, cell, self.structures[i].pbc, self.committee.r_max + self.skin)
        inverse: NDArray[np.float64] = np.asarray(np.linalg.inv(cell), dtype=np.float64)
        found = _Candidates(
            centres=near.centres,
            neighbours=near.neighbours,
            images=near.images.astype(np.float64),
            inverse_cell=inverse,
            fractions=positions @ inverse,
        )
        self._lists[i] = found
        return found
