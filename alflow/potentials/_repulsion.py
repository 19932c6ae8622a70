"""The repulsion of nuclei at short range, summed over structures: known without training, and subtracted before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alflow.potentials._geometry import VOIGT
from alflow.potentials._radial import repulsion

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
        distances = np.sqrt(np.einsum("ij,ij->i", edges.vectors, edges.vectors))
        numbers = edges.atoms.numbers
        values, slopes = repulsion(distances, numbers[edges.centres], numbers[edges.neighbours])
        close = np.flatnonzero(values) if active else np.zeros(0, dtype=np.int64)
        if edges.atoms.owned is not None:
            close = close[edges.atoms.owned[edges.centres[close]]]
        if len(close):
            where = edges.atoms.structure[edges.centres[close]]
            gradient = 0.5 * (slopes[close] / distances[close])[:, None] * edges.vectors[close]
            np.add.at(energy, where, 0.5 * values[close])
            np.add.at(forces, edges.centres[close], gradient)
            np.subtract.at(forces, edges.neighbours[close], gradient)
            for k, (a, b) in enumerate(VOIGT):
                np.add.at(virial[:, k], where, edges.vectors[close, a] * gradient[:, b])
        return cls(energy=energy, forces=forces, virial=virial)
