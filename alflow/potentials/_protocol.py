"""The Committee protocol: what the rest of alflow may ask of any potential."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms
    from numpy.typing import NDArray

    from alflow.potentials._calibration import Calibration
    from alflow.potentials._prediction import Prediction
    from alflow.potentials._targets import Targets
    from alflow.structures import Structure


@runtime_checkable
class BatchEvaluator(Protocol):
    """Evaluates the same structures again and again while their atoms and cells move (relaxation, dynamics).

    It keeps neighbour lists between calls and rebuilds only those that a movement could have made incomplete.
    """

    def __call__(
        self,
        positions: Sequence[NDArray[np.float64]],
        cells: NDArray[np.float64],
        active: NDArray[np.int64] | None = None,
    ) -> Prediction:
        """Evaluate at new positions and cells.

        Parameters
        ----------
        positions
            one (n_atoms_i, 3) array per evaluated structure, Å
        cells
            (n, 3, 3), Å, one per evaluated structure
        active
            (n,) indices into the structures the evaluator was made for; None: all of them, in order
        """
        ...


@runtime_checkable
class Committee(Protocol):
    """Several potentials that answer together; their spread tells how well the answer is known."""

    @property
    def n_members(self) -> int:
        """Number of members K, at least 2 where uncertainty is asked for."""
        ...

    @property
    def elements(self) -> tuple[str, ...]:
        """Element symbols it can predict for, in order of atomic number."""
        ...

    @property
    def r_max(self) -> float:
        """Cutoff radius of one layer, Å."""
        ...

    @property
    def targets(self) -> Targets:
        """The user's targets that define ``u``."""
        ...

    @property
    def calibration(self) -> Calibration | None:
        """How spreads become errors; None: not calibrated yet."""
        ...

    def predict(
        self, structures: Sequence[Atoms | Structure], *, stress: bool = True, features: bool = False
    ) -> Prediction:
        """Energies, forces and stresses of every member, in batches of bounded memory."""
        ...

    def evaluator(self, structures: Sequence[Atoms | Structure], *, stress: bool = True) -> BatchEvaluator:
        """Return an evaluator for these structures in motion."""
        ...

    def calculator(self) -> Any:
        """Return an ASE calculator of the committee's mean."""
        ...

    def save(self, path: str | Path) -> None:
        """Write to one file that :func:`load_committee` reads."""
        ...

    def with_calibration(self, calibration: Calibration | None) -> Self:
        """Return the same committee with another calibration."""
        ...
