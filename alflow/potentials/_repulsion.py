"""The repulsion of nuclei at short range, summed over structures: known without training, and subtracted before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alflow.potentials._geometry import VOIGT
from alflow.potentials._radial import repulsion, repulsion_reach

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alflow.potentials._geometry import EdgeList


@dataclass(frozen=True, kw_only=True, eq=False)
class Repulsion:
    """Screened nuclear repulsion of some structures: energy (n,), forces (N, 3) and virial (n, 6, Voigt), float64."""

    energy: NDArray[np.float64]
    forces: NDArray[np.float64]
    virial: NDArray[np.float64]

    @classmethod
    def of(cls, edges: EdgeList, *, active: bool = True) -> Repulsion:
        """Sum over edges of owned atoms, each pair counts half at each end; all zero where it is not `active`."""
        n, n_atoms = len(edges.atoms.counts), len(edges.atoms)
        energy, forces, virial = np.zeros(n), np.zeros((n_atoms, 3)), np.zeros((n, 6))
        close = _close(edges) if active else np.zeros(0, dtype=np.int64)
        if len(close):
            centres, neighbours, vectors = edges.centres[close], edges.neighbours[close], edges.vectors[close]
            distances = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
            values, slopes = repulsion(distances, edges.atoms.numbers[centres], edges.atoms.numbers[neighbours])
            where = edges.atoms.structure[centres]
            gradient = 0.5 * (slopes / distances)[:, None] * vectors
            np.add.at(energy, where, 0.5 * values)
            np.add.at(forces, centres, gradient)
            np.subtract.at(forces, neighbours, gradient)
            for k, (a, b) in enumerate(VOIGT):
                np.add.at(virial[:, k], where, vectors[:, a] * gradient[:, b])
        return cls(energy=energy, forces=forces, virial=virial)


def _close(edges: EdgeList) -> NDArray[np.int64]:
    """Edges of owned atoms that are short enough for the largest of the elements, a few of many in ordinary matter."""
    squares = np.einsum("ij,ij->i", edges.vectors, edges.vectors)
    reach = repulsion_reach(edges.atoms.numbers)
    close = np.flatnonzero(squares < reach**2)
    return close if edges.atoms.owned is None else close[edges.atoms.owned[edges.centres[close]]]
