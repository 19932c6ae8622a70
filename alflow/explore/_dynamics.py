"""Molecular dynamics of several walkers at once, at constant volume and temperature, on the committee's mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from ase.data import atomic_masses
from ase.units import fs, kB

from alflow.explore._settings import DynamicsSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alflow.explore._source import Progress
    from alflow.potentials import Committee, Prediction
    from alflow.structures import Structure

# An atom that moves further than this in one step, Å, has been thrown, not moved.
_LONGEST_MOVE = 0.4


class WalkStop(StrEnum):
    """Why a walker ended."""

    FINISHED = "finished"
    UNCERTAIN = "uncertain"
    EXPLODED = "exploded"


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One geometry of a trajectory.

    Parameters
    ----------
    structure
        positions as they are, not wrapped into the cell
    step
        number of steps taken
    u
        error over target
    energy
        predicted potential energy, eV per cell
    kinetic_temperature
        K, from the velocities relative to the centre of mass
    """

    structure: Structure
    step: int
    u: float
    energy: float
    kinetic_temperature: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Walk:
    """What one walker saw.

    Parameters
    ----------
    temperature
        of its thermostat, K
    frames
        every ``save_every`` steps; where the walker became uncertain, the frame at which it did comes last
    stop
        why it ended
    """

    temperature: float
    frames: tuple[Frame, ...]
    stop: WalkStop


def run_dynamics(
    committee: Committee,
    structures: Sequence[Structure],
    temperatures: Sequence[float],
    settings: DynamicsSettings | None = None,
    *,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> list[Walk]:
    """Run one Langevin trajectory per structure, all with one call of the committee per step.

    The integrator is BAOAB (Leimkuhler & Matthews, Appl. Math. Res. Express 2013, 34), whose averages over positions
    are right to higher order in the time step. The centre of mass rests. A walker's noise is its own, so that its
    trajectory does not depend on which others run beside it.

    Parameters
    ----------
    committee
        predicts energies, forces and ``u``
    structures
        one start per walker, at least two atoms each
    temperatures
        one per walker, K
    settings
        steps, time step, friction, limits; None: the defaults
    rng
        the only randomness
    progress
        called with ("dynamics", steps done, steps)

    Returns
    -------
    list of Walk
        one per walker, in order

    Raises
    ------
    ValueError
        if there are not as many temperatures as structures, or a walker has a single atom
    """
    if len(structures) != len(temperatures):
        raise ValueError(f"{len(structures)} walkers but {len(temperatures)} temperatures")
    if any(s.n_atoms < 2 for s in structures):
        raise ValueError("a walker needs at least two atoms: one atom has nothing to move against")
    if not structures:
        return []
    return _Walkers(committee, structures, temperatures, settings or DynamicsSettings(), rng).run(progress)


class _Walkers:
    """All walkers, their atoms one after the other in flat arrays."""

    def __init__(
        self,
        committee: Committee,
        structures: Sequence[Structure],
        temperatures: Sequence[float],
        settings: DynamicsSettings,
        rng: np.random.Generator,
    ) -> None:
        self.settings, self.structures = settings, structures
        self.temperatures = np.array(temperatures, dtype=float)
        self.evaluate = committee.evaluator(structures, stress=True)
        self.rngs = rng.spawn(len(structures))
        counts = [s.n_atoms for s in structures]
        ends = np.cumsum(counts)
        self.slices = [slice(end - n, end) for end, n in zip(ends, counts, strict=True)]
        self.walker = np.repeat(np.arange(len(structures)), counts)
        self.positions = np.concatenate([s.positions for s in structures])
        self.cells = np.array([s.cell for s in structures])
        self.masses = atomic_masses[np.concatenate([s.numbers for s in structures])][:, None]
        self.forces = np.zeros_like(self.positions)
        self.velocities = self._thermal()
        self.frames: list[list[Frame]] = [[] for _ in structures]
        self.stops: list[WalkStop] = [WalkStop.FINISHED] * len(structures)

    def run(self, progress: Progress | None) -> list[Walk]:
        live = self._look(np.arange(len(self.structures)), 0, moved=None)
        for step in range(1, self.settings.steps + 1):
            if not len(live):
                break
            moved = self._advance(live)
            live = self._look(live, step, moved=moved)
            if progress is not None:
                progress("dynamics", step, self.settings.steps)
        return [
            Walk(temperature=float(t), frames=tuple(frames), stop=stop)
            for t, frames, stop in zip(self.temperatures, self.frames, self.stops, strict=True)
        ]

    def _thermal(self) -> NDArray[np.float64]:
        """Velocities of all atoms drawn from the thermostats, centres of mass at rest."""
        noise = np.concatenate([g.normal(size=(s.n_atoms, 3)) for g, s in zip(self.rngs, self.structures, strict=True)])
        velocities = noise * np.sqrt(kB * self.temperatures[self.walker, None] / self.masses)
        momenta, weights = np.zeros((len(self.structures), 3)), np.zeros((len(self.structures), 1))
        np.add.at(momenta, self.walker, velocities * self.masses)
        np.add.at(weights, self.walker, self.masses)
        return np.asarray(velocities - (momenta / weights)[self.walker])

    def _advance(self, live: NDArray[np.int64]) -> NDArray[np.float64]:
        """Half a kick, half a drift, the thermostat, half a drift; longest move of each walker, (n_walkers,) Å.

        The second half kick follows when the new forces are known, in :meth:`_look`.
        """
        timestep = self.settings.timestep * fs
        kept = np.exp(-self.settings.friction / fs * timestep)
        atoms = np.isin(self.walker, live)[:, None]
        self.velocities += np.where(atoms, timestep / 2 * self.forces / self.masses, 0.0)
        before = self.positions.copy()
        self.positions += np.where(atoms, timestep / 2 * self.velocities, 0.0)
        thermal = self._thermal()
        self.velocities = np.where(atoms, kept * self.velocities + np.sqrt(1 - kept**2) * thermal, self.velocities)
        self.positions += np.where(atoms, timestep / 2 * self.velocities, 0.0)
        longest = np.zeros(len(self.structures))
        np.maximum.at(longest, self.walker, np.linalg.norm(self.positions - before, axis=1))
        return longest

    def _look(self, live: NDArray[np.int64], step: int, *, moved: NDArray[np.float64] | None) -> NDArray[np.int64]:
        """Evaluate the walkers, keep frames, and say which go on."""
        if moved is not None:
            thrown = ~(moved[live] <= _LONGEST_MOVE)  # so that nan counts as thrown
            for w in live[thrown]:
                self.stops[w] = WalkStop.EXPLODED
            live = live[~thrown]
        if not len(live):
            return live
        prediction = self.evaluate([self.positions[self.slices[w]] for w in live], self.cells[live], live)
        kick = self.settings.timestep * fs / 2 if step else 0.0
        save = step > 0 and step % self.settings.save_every == 0
        stays = []
        for i, w in enumerate(live):
            atoms = self.slices[w]
            forces = prediction.force_mean[i]
            if not (np.isfinite(forces).all() and np.isfinite(prediction.energy_mean[i])):
                self.stops[w] = WalkStop.EXPLODED
                continue
            self.forces[atoms] = forces
            self.velocities[atoms] += kick * forces / self.masses[atoms]
            uncertain = prediction.u[i] > self.settings.u_limit
            if uncertain or save:
                self.frames[w].append(self._frame(int(w), step, prediction, i))
            if uncertain:
                self.stops[w] = WalkStop.UNCERTAIN
            else:
                stays.append(w)
        return np.array(stays, dtype=int)

    def _frame(self, w: int, step: int, prediction: Prediction, i: int) -> Frame:
        atoms = self.slices[w]
        kinetic = 0.5 * float((self.masses[atoms] * self.velocities[atoms] ** 2).sum())
        start = self.structures[w]
        return Frame(
            structure=start.with_geometry(cell=start.cell, positions=self.positions[atoms]),
            step=step,
            u=float(prediction.u[i]),
            energy=float(prediction.energy_mean[i]),
            kinetic_temperature=2 * kinetic / (kB * 3 * (start.n_atoms - 1)),
        )
