"""Foreign potentials that lead the exploration before a campaign's own committee is worth following."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from alflow.errors import PotentialError

if TYPE_CHECKING:
    from ase import Atoms

    from alflow.potentials._calibration import Calibration
    from alflow.potentials._prediction import Prediction
    from alflow.potentials._protocol import BatchEvaluator, Committee
    from alflow.potentials._targets import Targets
    from alflow.structures import Structure


@dataclass(frozen=True, kw_only=True, eq=False)
class ExploringCommittee:
    """Foreign potentials as a committee to explore with: nothing is known of their errors.

    Energies of different models have different zeros, so all members state the mean energy and only forces and stresses
    are compared. A single model has no spread: it stands twice, u is 0, and walkers and relaxations end at their other
    limits.

    Parameters
    ----------
    committee
        the foreign potentials
    targets
        the campaign's targets
    calibration
        None: errors are the raw spreads
    """

    committee: Committee
    targets: Targets
    calibration: Calibration | None = None

    @property
    def n_members(self) -> int:
        """Number of members, at least two."""
        return max(self.committee.n_members, 2)

    @property
    def elements(self) -> tuple[str, ...]:
        """Element symbols in order of atomic number."""
        return self.committee.elements

    @property
    def r_max(self) -> float:
        """Cutoff radius of one layer, Å."""
        return self.committee.r_max

    def predict(
        self, structures: Sequence[Atoms | Structure], *, stress: bool = True, features: bool = False
    ) -> Prediction:
        """Mean energies, and every member's forces and stresses."""
        p = self.committee.predict(structures, stress=stress, features=features)
        rows = np.arange(self.n_members) % p.n_members
        return replace(
            p,
            energy=np.tile(p.energy_mean, (self.n_members, 1)),
            forces=tuple(f[rows] for f in p.forces),
            stress=None if p.stress is None else p.stress[rows],
            targets=self.targets,
            calibration=None,
        )

    def evaluator(self, structures: Sequence[Atoms | Structure], *, stress: bool = True) -> BatchEvaluator:
        """Return an evaluator that predicts anew at every call."""
        from alflow.potentials._adapter import PredictingEvaluator

        return PredictingEvaluator(self, structures, stress=stress)

    def calculator(self) -> Any:
        """Return an ASE calculator of the mean."""
        from alflow.potentials._calculator import CommitteeCalculator

        return CommitteeCalculator(self)

    def save(self, path: str | Path) -> None:
        """Refuse: it is made from the campaign's settings whenever it is needed."""
        raise PotentialError(f"an exploring committee is not written to {path}: it is made from the settings")

    def with_calibration(self, calibration: Calibration | None) -> Self:
        """Refuse a calibration: nothing is known of its errors."""
        if calibration is not None:
            raise PotentialError("an exploring committee cannot be calibrated")
        return self
