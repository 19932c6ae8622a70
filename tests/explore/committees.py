"""Committees for the tests of this room: cheap, exact, and as uncertain as a test wants them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray

from alflow.potentials import Calibration, Prediction, Targets
from alflow.structures import Structure


class CalculatorCommittee:
    """A committee whose members are one ASE calculator, differing by a strained energy scale.

    Member k answers with (1 ± spread) times the calculator's energy, forces and stress, so that the mean is exact.
    ``uncertain_above`` makes u large wherever the calculator's largest force exceeds it.
    """

    def __init__(self, calculator: Calculator, *, spread: float = 1e-6, targets: Targets | None = None) -> None:
        self.ase_calculator = calculator
        self.spread = spread
        self.n_members = 2
        self.elements: tuple[str, ...] = ("Al", "Cu", "Ag", "Au", "Ni", "Pd", "Pt")
        self.r_max = 6.0
        self.targets = targets or Targets()
        self.calibration: Calibration | None = None
        self.calls = 0
        self.evaluated = 0

    def predict(
        self, structures: Sequence[Atoms | Structure], *, stress: bool = True, features: bool = False
    ) -> Prediction:
        self.calls += 1
        self.evaluated += len(structures)
        energies, forces, stresses = [], [], []
        for item in structures:
            atoms = item.to_atoms() if isinstance(item, Structure) else item.copy()
            atoms.calc = self.ase_calculator
            energies.append(atoms.get_potential_energy())
            forces.append(atoms.get_forces())
            stresses.append(atoms.get_stress(voigt=False) if atoms.pbc.all() else np.full((3, 3), np.nan))
        scale = np.array([1 - self.spread, 1 + self.spread])
        return Prediction(
            energy=scale[:, None] * np.array(energies),
            forces=tuple(scale[:, None, None] * f for f in forces),
            stress=scale[:, None, None, None] * np.array(stresses) if stress else None,
            n_atoms=np.array([len(f) for f in forces]),
            targets=self.targets,
        )

    def evaluator(self, structures: Sequence[Atoms | Structure], *, stress: bool = True) -> Any:
        known = [s if isinstance(s, Structure) else Structure.from_atoms(s) for s in structures]

        def evaluate(
            positions: Sequence[NDArray[np.float64]],
            cells: NDArray[np.float64],
            active: NDArray[np.int64] | None = None,
        ) -> Prediction:
            chosen = range(len(known)) if active is None else active
            moved = [
                known[k].with_geometry(cell=cell, positions=p)
                for k, p, cell in zip(chosen, positions, cells, strict=True)
            ]
            return self.predict(moved, stress=stress)

        return evaluate

    def calculator(self) -> Calculator:
        return self.ase_calculator

    def save(self, path: str | Path) -> None:
        raise NotImplementedError

    def with_calibration(self, calibration: Calibration | None) -> Self:
        self.calibration = calibration
        return self


class SpringCommittee:
    """Every atom on its own spring to where it started: what a thermostat does to it is known exactly.

    Members disagree by ``spread`` times the energy of the springs.

    Parameters
    ----------
    stiffness
        eV/Å²
    spread
        relative difference of the members
    """

    def __init__(self, stiffness: float = 2.0, *, spread: float = 0.0) -> None:
        self.stiffness, self.spread = stiffness, spread
        self.n_members, self.elements, self.r_max = 2, ("Cu",), 5.0
        self.targets, self.calibration = Targets(), None
        self.calls = 0

    def evaluator(self, structures: Sequence[Atoms | Structure], *, stress: bool = True) -> Any:
        anchors = [s.positions.copy() for s in structures]

        def evaluate(
            positions: Sequence[NDArray[np.float64]],
            cells: NDArray[np.float64],
            active: NDArray[np.int64] | None = None,
        ) -> Prediction:
            self.calls += 1
            chosen = range(len(anchors)) if active is None else active
            moves = [p - anchors[k] for p, k in zip(positions, chosen, strict=True)]
            scale = np.array([1 - self.spread, 1 + self.spread])
            return Prediction(
                energy=scale[:, None] * np.array([self.stiffness / 2 * (m**2).sum() for m in moves]),
                forces=tuple(-scale[:, None, None] * self.stiffness * m for m in moves),
                stress=np.zeros((2, len(moves), 3, 3)),
                n_atoms=np.array([len(m) for m in moves]),
                targets=self.targets,
            )

        return evaluate

    def predict(
        self, structures: Sequence[Atoms | Structure], *, stress: bool = True, features: bool = False
    ) -> Prediction:
        raise NotImplementedError

    def calculator(self) -> Calculator:
        raise NotImplementedError

    def save(self, path: str | Path) -> None:
        raise NotImplementedError

    def with_calibration(self, calibration: Calibration | None) -> Self:
        raise NotImplementedError
