"""An ASE calculator of a committee's mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from alflow.structures import Structure

if TYPE_CHECKING:
    from ase import Atoms

    from alflow.potentials._protocol import BatchEvaluator, Committee


class CommitteeCalculator(Calculator):  # type: ignore[misc]  # ASE carries no types
    """Energy, forces and stress of the committee's mean; what it does not know among the extra results.

    Extra results: ``energies_committee`` (K,), ``energy_spread`` (eV/atom), ``force_spread`` (eV/Å), ``stress_spread``
    (eV/Å³), ``energy_error``, ``force_error``, ``stress_error`` (calibrated 1σ, or the bare
    spread of a committee without calibration) and ``u``; absent for a single member. Neighbour lists are kept while
    atoms and cell move; see :class:`BatchEvaluator`.

    Parameters
    ----------
    committee
        any committee
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, committee: Committee, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.committee = committee
        self._moving: tuple[bytes, bytes, BatchEvaluator] | None = None

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Fill ``results``; raises PotentialError for an element that the committee does not know."""
        super().calculate(atoms, properties or ["energy"], system_changes)
        prediction = self._evaluator()([self.atoms.positions], self.atoms.cell.array[None])
        energy = float(prediction.energy_mean[0])
        self.results = {"energy": energy, "free_energy": energy, "forces": prediction.force_mean[0]}
        stress = prediction.stress_mean
        if stress is not None and self.atoms.pbc.all() and np.isfinite(stress[0]).all():  # not every member has one
            s = stress[0]
            self.results["stress"] = np.array([s[0, 0], s[1, 1], s[2, 2], s[1, 2], s[0, 2], s[0, 1]])
        if prediction.n_members > 1:
            self.results["energies_committee"] = prediction.energy[:, 0].copy()
            for name in ("energy", "force", "stress"):
                self.results[f"{name}_spread"] = float(getattr(prediction, f"{name}_spread")[0])
                self.results[f"{name}_error"] = float(getattr(prediction, f"{name}_error")[0])
            self.results["u"] = float(prediction.u[0])

    def _evaluator(self) -> BatchEvaluator:
        """The evaluator of these atoms; a new one when the elements, their order or the periodicity are others."""
        kind = self.atoms.numbers.tobytes(), self.atoms.pbc.tobytes()
        if self._moving is None or self._moving[:2] != kind:
            self._moving = (*kind, self.committee.evaluator([Structure.from_atoms(self.atoms)]))
        return self._moving[2]
