"""The native committee: weights, references, targets and calibration behind the Committee protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from alflow.potentials._allocator import keep_freed_memory
from alflow.potentials._core import CommitteeCore, RawPrediction, stress_from_virial
from alflow.potentials._engine import DTYPES
from alflow.potentials._geometry import EdgeList
from alflow.potentials._given import as_structures
from alflow.potentials._prediction import Prediction
from alflow.structures import Structure

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray

    from alflow.potentials._calculator import CommitteeCalculator
    from alflow.potentials._calibration import Calibration
    from alflow.potentials._evaluator import NativeEvaluator
    from alflow.potentials._report import TrainingReport
    from alflow.potentials._spec import CommitteeSpec
    from alflow.potentials._targets import Targets


@dataclass(frozen=True, kw_only=True, eq=False)
class NativeCommittee:
    """A trained committee; made by :func:`train_committee` and :func:`load_committee`.

    Parameters
    ----------
    core
        network, weights and references
    targets
        the user's targets
    calibration
        how spreads become errors, None: not calibrated
    report
        the record of its training, None after loading
    seed
        of its training
    """

    core: CommitteeCore
    targets: Targets
    calibration: Calibration | None = None
    report: TrainingReport | None = None
    seed: int = 0

    @property
    def spec(self) -> CommitteeSpec:
        """Sizes of the network."""
        return self.core.spec

    @property
    def n_members(self) -> int:
        """Number of members K."""
        return self.core.spec.n_members

    @property
    def elements(self) -> tuple[str, ...]:
        """Element symbols in order of atomic number."""
        return self.core.elements

    @property
    def r_max(self) -> float:
        """Cutoff radius of one layer, Å."""
        return self.core.spec.r_max

    def predict(
        self,
        structures: Sequence[Atoms | Structure],
        *,
        stress: bool = True,
        features: bool = False,
        dtype: Literal["float32", "float64"] | None = None,
    ) -> Prediction:
        """Energies, forces and stresses of every member, in chunks of bounded memory.

        Parameters
        ----------
        structures
            of any size, periodicity and mixture; their elements must be known
        stress
            whether stresses are wanted; they are nan for structures that are not periodic in three directions
        features
            whether invariant descriptors are wanted
        dtype
            precision of the evaluation; None: that of the weights

        Raises
        ------
        PotentialError
            for an element that the committee was not trained on
        StructureError
            for positions or cells that are not finite, or atoms on the same place
        """
        keep_freed_memory()
        core = self.core if dtype is None else self.core.to(DTYPES[dtype])
        given = as_structures(structures)
        edges = [EdgeList.of(s, core.numbers, self.r_max) for s in given]
        raw = core.predict(edges, features=features)
        counts = np.array([s.n_atoms for s in given], dtype=np.int64)
        volumes = np.array([s.volume for s in given], dtype=np.float64)
        return self.as_prediction(raw, counts, volumes, stress=stress)

    def as_prediction(
        self, raw: RawPrediction, counts: NDArray[np.int64], volumes: NDArray[np.float64], *, stress: bool
    ) -> Prediction:
        """Dress flat arrays as a prediction."""
        last = np.cumsum(counts)
        return Prediction(
            energy=raw.energy,
            forces=tuple(raw.forces[:, end - n : end] for end, n in zip(last, counts, strict=True)),
            stress=stress_from_virial(raw.virial, volumes) if stress else None,
            n_atoms=counts,
            features=raw.features,
            distance=raw.distance,
            calibration=self.calibration,
            targets=self.targets,
        )

    def evaluator(self, structures: Sequence[Atoms | Structure], *, stress: bool = True) -> NativeEvaluator:
        """Return an evaluator for these structures in motion; it keeps their neighbour lists."""
        from alflow.potentials._evaluator import NativeEvaluator

        return NativeEvaluator(self, structures, stress=stress)

    def calculator(self, **kwargs: Any) -> CommitteeCalculator:
        """Return an ASE calculator of the committee's mean."""
        from alflow.potentials._calculator import CommitteeCalculator

        return CommitteeCalculator(self, **kwargs)

    def save(self, path: str | Path) -> None:
        """Write to one file; see :func:`load_committee`."""
        from alflow.potentials._checkpoint import save_committee

        save_committee(self, path)

    def with_calibration(self, calibration: Calibration | None) -> NativeCommittee:
        """Return the same committee with another calibration."""
        return replace(self, calibration=calibration)

    def with_targets(self, targets: Targets) -> NativeCommittee:
        """Return the same committee judged by other targets."""
        return replace(self, targets=targets)

    def double(self) -> NativeCommittee:
        """Return the same committee evaluated in float64."""
        return replace(self, core=self.core.to(DTYPES["float64"]))
