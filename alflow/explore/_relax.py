"""Relaxation of many structures at once: one call of the committee per step for all that are not done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from alflow.explore._descent import Descent
from alflow.explore._settings import RelaxSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alflow.explore._source import Progress
    from alflow.potentials import Committee, Prediction
    from alflow.structures import Structure

_SQRT2 = np.sqrt(2.0)
# A strain moves every atom with it: in units of this length times √n_atoms its curvature (n_atoms · volume · elastic
# constant) is about that of a displacement (a force constant of some eV/Å²), which is all a quasi-Newton start needs.
_STRAIN_LENGTH = 2.0
_STIFFNESS = 10.0
# Predictions in single precision are not smooth below this, eV/atom; a smaller rise is no reason to step back.
_NOISE = 2e-5
_ROWS, _COLUMNS = [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]


class RelaxStop(StrEnum):
    """Why the relaxation of a structure ended."""

    CONVERGED = "converged"
    UNCERTAIN = "uncertain"
    MAX_STEPS = "max_steps"
    VOLUME = "volume"
    STALLED = "stalled"


@dataclass(frozen=True, kw_only=True, eq=False)
class Relaxed:
    """Where the relaxation of one structure ended.

    Parameters
    ----------
    structure
        the last accepted geometry
    energy
        predicted there, eV per cell
    u
        error over target there
    stop
        why it ended
    steps
        evaluations spent
    residual
        largest atomic force, eV/Å
    stress_residual
        Frobenius norm of the stress, eV/Å³; 0 where the cell is held
    """

    structure: Structure
    energy: float
    u: float
    stop: RelaxStop
    steps: int
    residual: float
    stress_residual: float

    @property
    def converged(self) -> bool:
        """True where force and stress came below their limits."""
        return self.stop is RelaxStop.CONVERGED


def relax_batch(
    committee: Committee,
    structures: Sequence[Structure],
    settings: RelaxSettings | None = None,
    *,
    progress: Progress | None = None,
) -> list[Relaxed]:
    """Relax positions and cells on the mean energy of a committee.

    Limited-memory BFGS in the coordinates (u, S) with positions (r₀ + u) S and cell A₀ S, S symmetric: the cell never
    turns, and symmetry that the start has is kept. The gradients are dE/du = -F S and dE/dS = V sym(σ S⁻¹). A step that
    raises the energy is taken back and shortened.

    Parameters
    ----------
    committee
        predicts energies, forces, stresses and ``u``
    structures
        starts; cells relax only where all three directions are periodic
    settings
        limits; None: the defaults
    progress
        called with ("relaxing", number done, number of structures)

    Returns
    -------
    list of Relaxed
        one per start, in their order
    """
    settings = settings or RelaxSettings()
    if not structures:
        return []
    return _Relaxation(committee, structures, settings, progress).run()


class _Relaxation:
    """The state of one batch: arrays over all structures, padded to the largest."""

    def __init__(
        self, committee: Committee, structures: Sequence[Structure], settings: RelaxSettings, progress: Progress | None
    ) -> None:
        self.structures, self.settings, self.progress = structures, settings, progress
        self.evaluate = committee.evaluator(structures, stress=True)
        n, largest = len(structures), max(s.n_atoms for s in structures)
        self.n_atoms = np.array([s.n_atoms for s in structures])
        self.positions = np.zeros((n, largest, 3))
        for row, s in zip(self.positions, structures, strict=True):
            row[: s.n_atoms] = s.positions
        self.cells = np.array([s.cell for s in structures])
        self.cell_free = np.array([settings.relax_cell and s.n_periodic == 3 for s in structures])
        self.lengths = _STRAIN_LENGTH * np.sqrt(self.n_atoms)
        self.descent = Descent(n, 3 * largest + 6, stiffness=_STIFFNESS, noise=_NOISE * self.n_atoms)
        self.steps = np.zeros(n, dtype=int)
        self.last = np.full((n, 4), np.nan)  # energy, u, force and stress at the last accepted geometry
        self.stops: list[RelaxStop | None] = [None] * n

    def run(self) -> list[Relaxed]:
        live = np.arange(len(self.structures))
        for _ in range(self.settings.max_steps):
            live = self._step(live)
            if self.progress is not None:
                self.progress("relaxing", len(self.structures) - len(live), len(self.structures))
            if not len(live):
                break
        return self._results()

    def _step(self, live: NDArray[np.int64]) -> NDArray[np.int64]:
        """Evaluate all structures that are not done, and say which are not done after it."""
        positions, cells, stretch = self._geometry(live, self.descent.x)
        prediction = self.evaluate([p[:n] for p, n in zip(positions, self.n_atoms[live], strict=True)], cells, live)
        self.steps[live] += 1
        gradient, force, stress = self._gradient(live, prediction, cells, stretch)
        accepted = self.descent.observe(live, prediction.energy_mean, gradient)
        now = np.stack([prediction.energy_mean, prediction.u, force, stress], axis=1)
        self.last[live[accepted]] = now[accepted]
        largest = 1 + self.settings.max_volume_change
        volume = np.linalg.det(stretch)
        done = np.zeros(len(live), dtype=bool)
        for stop, rows in (
            (RelaxStop.UNCERTAIN, accepted & (prediction.u > self.settings.u_limit)),
            (RelaxStop.CONVERGED, accepted & (force < self.settings.f_max) & (stress < self.settings.stress_max)),
            (RelaxStop.VOLUME, accepted & ((volume > largest) | (volume < 1 / largest))),
            (RelaxStop.STALLED, self.descent.stalled[live]),
        ):
            for k in live[rows & ~done]:
                self.stops[k] = stop
            done |= rows
        kept = live[~done]
        self.descent.move(kept, self._allowed)
        return kept

    def _results(self) -> list[Relaxed]:
        everything = np.arange(len(self.structures))
        positions, cells, _ = self._geometry(everything, self.descent.accepted_x)
        return [
            Relaxed(
                structure=start.with_geometry(cell=cells[k], positions=positions[k][: start.n_atoms]),
                energy=float(self.last[k, 0]),
                u=float(self.last[k, 1]),
                stop=self.stops[k] or RelaxStop.MAX_STEPS,
                steps=int(self.steps[k]),
                residual=float(self.last[k, 2]),
                stress_residual=float(self.last[k, 3]),
            )
            for k, start in enumerate(self.structures)
        ]

    def _geometry(self, live: NDArray[np.int64], coordinates: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Positions (n, largest, 3), cells (n, 3, 3) and stretches (n, 3, 3) at the coordinates."""
        x = coordinates[live]
        stretch = np.eye(3) + _from_mandel(x[:, -6:] / self.lengths[live, None])
        moved = (self.positions[live] + x[:, :-6].reshape(len(live), *self.positions.shape[1:])) @ stretch
        return moved, self.cells[live] @ stretch, stretch

    def _gradient(
        self, live: NDArray[np.int64], prediction: Prediction, cells: NDArray[np.float64], stretch: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], ...]:
        """Gradient (n, 3 largest + 6), largest force (n,) and Frobenius norm of the stress (n,)."""
        forces = np.zeros((len(live), self.positions.shape[1], 3))
        for row, mean in zip(forces, prediction.force_mean, strict=True):
            row[: len(mean)] = mean
        assert prediction.stress_mean is not None
        free = self.cell_free[live]
        stress = np.where(free[:, None, None], prediction.stress_mean, 0.0)
        virial = np.abs(np.linalg.det(cells))[:, None, None] * (stress @ np.linalg.inv(stretch))
        symmetric = (virial + virial.transpose(0, 2, 1)) / 2
        by_atom = -(forces @ stretch).reshape(len(live), forces[0].size)
        gradient = np.concatenate([by_atom, _to_mandel(symmetric) / self.lengths[live, None]], axis=1)
        return gradient, np.linalg.norm(forces, axis=2).max(axis=1), np.linalg.norm(stress, axis=(1, 2))

    def _allowed(self, chosen: NDArray[np.int64], step: NDArray[np.float64]) -> NDArray[np.float64]:
        """How much of a step (n, dimensions) is allowed: (n,), at most 1."""
        atoms = np.linalg.norm(step[:, :-6].reshape(len(step), *self.positions.shape[1:]), axis=2).max(axis=1)
        # A strain of a third of the longest move shifts a neighbour 3 Å away by that move.
        strain = 3.0 * np.linalg.norm(step[:, -6:], axis=1) / self.lengths[chosen]
        return np.asarray(np.minimum(1.0, self.settings.max_step / np.maximum(np.maximum(atoms, strain), 1e-12)))


def _from_mandel(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Symmetric matrices (n, 3, 3) from (n, 6); the norm of the vector is the Frobenius norm of the matrix."""
    scaled = vectors.copy()
    scaled[:, 3:] /= _SQRT2
    matrices = np.empty((len(vectors), 3, 3))
    matrices[:, _ROWS, _COLUMNS] = scaled
    matrices[:, _COLUMNS, _ROWS] = scaled
    return matrices


def _to_mandel(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    vectors = matrices[:, _ROWS, _COLUMNS].copy()
    vectors[:, 3:] *= _SQRT2
    return np.asarray(vectors)
