"""Any ASE calculators as a committee: foreign potentials take part without a line of their own code."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alflow.errors import PotentialError
from alflow.potentials._prediction import Prediction
from alflow.potentials._targets import Targets
from alflow.structures import Structure, atomic_number

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray

    from alflow.potentials._calculator import CommitteeCalculator
    from alflow.potentials._calibration import Calibration
    from alflow.potentials._protocol import Committee


class CalculatorCommittee:
    """A committee whose members are ASE calculators.

    Slower than a native committee, since every member sees every structure alone. Where a member computes no stress,
    its stress is nan. The members should be of one theory: energies that differ in their zero are no spread.

    Parameters
    ----------
    calculators
        the members
    elements
        what they can predict for
    r_max
        Å, cutoff of the members (information only)
    targets
        the user's targets
    calibration
        how spreads become errors
    describe
        gives an invariant descriptor (d,) of a structure; needed where `features` are asked for

    Raises
    ------
    PotentialError
        if there is no calculator, one is none, or no elements are given
    StructureError
        for an unknown element
    """

    def __init__(
        self,
        calculators: Sequence[Any],
        elements: Sequence[str],
        *,
        r_max: float = 5.0,
        targets: Targets | None = None,
        calibration: Calibration | None = None,
        describe: Callable[[Structure], NDArray[np.float64]] | None = None,
    ) -> None:
        if not calculators:
            raise PotentialError("a committee needs at least one calculator")
        for k, calculator in enumerate(calculators):
            if isinstance(calculator, type) or not hasattr(calculator, "get_potential_energy"):
                raise PotentialError(f"member {k} is {calculator!r}: give ASE calculators, such as EMT()")
        if not elements:
            raise PotentialError("say for which elements these calculators are made")
        self.calculators = list(calculators)
        self.elements = tuple(sorted(dict.fromkeys(elements), key=atomic_number))
        self.r_max = r_max
        self.targets = targets or Targets()
        self.calibration = calibration
        self.describe = describe

    @property
    def n_members(self) -> int:
        """Number of members K."""
        return len(self.calculators)

    def predict(
        self, structures: Sequence[Atoms | Structure], *, stress: bool = True, features: bool = False
    ) -> Prediction:
        """Energies, forces and stresses of every member, one structure after the other.

        Raises
        ------
        PotentialError
            for an unknown element, where features are asked for and no descriptor was given, or where a calculator
            fails, computes no forces, or gives numbers that are not finite
        """
        given = [s if isinstance(s, Structure) else Structure.from_atoms(s) for s in structures]
        if features and self.describe is None:
            raise PotentialError("these calculators give no features: pass `describe` to CalculatorCommittee")
        k, n = self.n_members, len(given)
        energy, tensors = np.zeros((k, n)), np.full((k, n, 3, 3), np.nan)
        forces = tuple(np.zeros((k, s.n_atoms, 3)) for s in given)
        for i, structure in enumerate(given):
            unknown = set(structure.elements) - set(self.elements)
            if unknown:
                raise PotentialError(
                    f"this committee knows {', '.join(self.elements)} and nothing of {sorted(unknown)}"
                )
            for member, calculator in enumerate(self.calculators):
                who = f"member {member} ({type(calculator).__name__}), structure {i} ({structure.formula})"
                answer = _ask(calculator, structure, who, stress=stress and bool(structure.pbc.all()))
                energy[member, i], forces[i][member], tensors[member, i] = answer
        return Prediction(
            energy=energy,
            forces=forces,
            stress=tensors if stress else None,
            n_atoms=np.array([s.n_atoms for s in given], dtype=np.int64),
            features=np.stack([self.describe(s) for s in given]) if features and self.describe else None,
            calibration=self.calibration,
            targets=self.targets,
        )

    def evaluator(self, structures: Sequence[Atoms | Structure], *, stress: bool = True) -> PredictingEvaluator:
        """Return an evaluator that predicts anew at every call."""
        return PredictingEvaluator(self, structures, stress=stress)

    def calculator(self) -> CommitteeCalculator:
        """Return an ASE calculator of the committee's mean."""
        from alflow.potentials._calculator import CommitteeCalculator

        return CommitteeCalculator(self)

    def save(self, path: str | Path) -> None:
        """Refuse: foreign calculators are code, and alflow stores no code."""
        raise PotentialError(f"calculators cannot be written to {path}: make them again from their own files")

    def with_calibration(self, calibration: Calibration | None) -> CalculatorCommittee:
        """Return the same committee with another calibration."""
        other = copy.copy(self)
        other.calibration = calibration
        return other


class PredictingEvaluator:
    """The plain implementation of a batch evaluator: new structures, a new prediction."""

    def __init__(self, committee: Committee, structures: Sequence[Atoms | Structure], *, stress: bool) -> None:
        self.committee, self.stress = committee, stress
        self.structures = [s if isinstance(s, Structure) else Structure.from_atoms(s) for s in structures]

    def __call__(
        self,
        positions: Sequence[NDArray[np.float64]],
        cells: NDArray[np.float64],
        active: NDArray[np.int64] | None = None,
    ) -> Prediction:
        """Evaluate at new positions and cells; see :class:`BatchEvaluator`."""
        chosen = range(len(self.structures)) if active is None else [int(i) for i in active]
        moved = [
            self.structures[i].with_geometry(cell=cell, positions=place)
            for i, place, cell in zip(chosen, positions, cells, strict=True)
        ]
        return self.committee.predict(moved, stress=self.stress)


def _ask(
    calculator: Any, structure: Structure, who: str, *, stress: bool
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Energy, forces and stress of one calculator; the stress is nan where it has none."""
    from ase.calculators.calculator import PropertyNotImplementedError

    atoms = structure.to_atoms()
    atoms.calc = calculator
    tensor: NDArray[np.float64] | None = None
    try:
        energy = float(atoms.get_potential_energy(force_consistent=_is_force_consistent(calculator)))
        forces = np.asarray(atoms.get_forces(), dtype=np.float64)
        if stress:
            with suppress(PropertyNotImplementedError):
                tensor = np.asarray(atoms.get_stress(voigt=False), dtype=np.float64)
    except PropertyNotImplementedError as error:
        raise PotentialError(f"{who}: it computes no energy or no forces, which a committee needs") from error
    except Exception as error:
        raise PotentialError(f"{who}: it failed: {error or type(error).__name__}") from error
    if forces.shape != structure.positions.shape:
        raise PotentialError(f"{who}: its forces have shape {forces.shape}, not {structure.positions.shape}")
    if not np.isfinite(energy) or not np.isfinite(forces).all():
        raise PotentialError(f"{who}: energy or forces are not finite: look at the structure and the calculator")
    if tensor is not None and not np.isfinite(tensor).all():
        raise PotentialError(f"{who}: its stress is not finite: look at the structure and the calculator")
    return energy, forces, np.full((3, 3), np.nan) if tensor is None else tensor


def _is_force_consistent(calculator: Any) -> bool:
    """Free energies belong to forces; calculators without smearing know one energy only."""
    return "free_energy" in getattr(calculator, "implemented_properties", ())
