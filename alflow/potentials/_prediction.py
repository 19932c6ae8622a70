"""What a committee says about a list of structures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from alflow.potentials._uncertainty import Means, largest_ratio, spreads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alflow.potentials._calibration import Calibration
    from alflow.potentials._targets import Targets
    from alflow.potentials._uncertainty import Errors, Spreads


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """Predictions of K members for n structures, their means, spreads and calibrated errors.

    Every uncertainty is a rotation-invariant number per structure. Without a calibration errors are the raw spreads.

    Parameters
    ----------
    energy
        (K, n), eV per cell
    forces
        n arrays (K, n_atoms_i, 3), eV/Å
    stress
        (K, n, 3, 3), eV/Å³, or None where it was not asked for; nan for what is not periodic in three directions
    n_atoms
        (n,)
    features
        (n, d) invariant descriptors, mean over atoms and members side by side, or None
    distance
        (n,), dimensionless: how far the furthest atom is from the training atoms, or None where that is not known
    calibration
        turns spreads into errors, or None
    targets
        the errors the user wants; they define ``u``
    """

    energy: NDArray[np.float64]
    forces: tuple[NDArray[np.float64], ...]
    stress: NDArray[np.float64] | None
    n_atoms: NDArray[np.int64]
    targets: Targets
    features: NDArray[np.float64] | None = None
    distance: NDArray[np.float64] | None = None
    calibration: Calibration | None = None

    def __len__(self) -> int:
        return len(self.n_atoms)

    @property
    def n_members(self) -> int:
        """Number of members K."""
        return len(self.energy)

    @cached_property
    def energy_mean(self) -> NDArray[np.float64]:
        """(n,), eV per cell."""
        mean: NDArray[np.float64] = self.energy.mean(axis=0)
        return mean

    @cached_property
    def force_mean(self) -> tuple[NDArray[np.float64], ...]:
        """For every structure (n_atoms_i, 3), eV/Å."""
        return tuple(forces.mean(axis=0) for forces in self.forces)

    @cached_property
    def stress_mean(self) -> NDArray[np.float64] | None:
        """(n, 3, 3), eV/Å³."""
        return None if self.stress is None else self.stress.mean(axis=0)

    @cached_property
    def spreads(self) -> Spreads:
        """The reduced, invariant spreads over the members, and the distance from the data."""
        return spreads(self.energy, self.forces, self.stress, self.n_atoms, self.distance)

    @cached_property
    def errors(self) -> Errors | Spreads:
        """Calibrated 1σ errors; the raw spreads where there is no calibration."""
        return self.spreads if self.calibration is None else self.calibration.apply(self.spreads)

    @property
    def energy_spread(self) -> NDArray[np.float64]:
        """(n,), eV/atom."""
        return self.spreads.energy

    @property
    def force_spread(self) -> NDArray[np.float64]:
        """(n,), eV/Å, largest atom."""
        return self.spreads.force

    @property
    def stress_spread(self) -> NDArray[np.float64]:
        """(n,), eV/Å³, Frobenius norm; nan where stress was not predicted."""
        return self.spreads.stress

    @property
    def energy_error(self) -> NDArray[np.float64]:
        """(n,), eV/atom, 1σ."""
        return self.errors.energy

    @property
    def force_error(self) -> NDArray[np.float64]:
        """(n,), eV/Å, 1σ of the largest atom's force."""
        return self.errors.force

    @property
    def stress_error(self) -> NDArray[np.float64]:
        """(n,), eV/Å³, 1σ of the Frobenius norm; nan where stress was not predicted or has no labels."""
        return self.errors.stress

    @cached_property
    def u(self) -> NDArray[np.float64]:
        """(n,): the largest of error / target over the kinds that are known."""
        return largest_ratio(self.errors, self.targets)

    @property
    def means(self) -> Means:
        """The mean prediction in the form that :func:`actual_errors` compares with labels."""
        return Means(energy=self.energy_mean, forces=self.force_mean, stress=self.stress_mean, n_atoms=self.n_atoms)

    def with_calibration(self, calibration: Calibration | None) -> Prediction:
        """Return the same prediction judged by another calibration."""
        return replace(self, calibration=calibration)

    @classmethod
    def join(cls, parts: Sequence[Prediction]) -> Prediction:
        """Predictions of one committee for several lists of structures, one after the other.

        Raises
        ------
        ValueError
            if there is nothing to join
        """
        if not parts:
            raise ValueError("there is no prediction to join")
        first = parts[0]

        def joined(name: str, axis: int) -> NDArray[np.float64] | None:
            arrays = [getattr(p, name) for p in parts]
            return None if any(a is None for a in arrays) else np.concatenate(arrays, axis=axis)

        return replace(
            first,
            energy=np.concatenate([p.energy for p in parts], axis=1),
            forces=tuple(f for p in parts for f in p.forces),
            stress=joined("stress", 1),
            n_atoms=np.concatenate([p.n_atoms for p in parts]),
            features=joined("features", 0),
            distance=joined("distance", 0),
        )

    def __getitem__(self, index: int | slice | Sequence[int] | NDArray[np.int64]) -> Prediction:
        """Return the prediction for some of the structures."""
        rows = np.arange(len(self))[index]
        chosen = np.atleast_1d(rows)
        return replace(
            self,
            energy=self.energy[:, chosen],
            forces=tuple(self.forces[i] for i in chosen),
            stress=None if self.stress is None else self.stress[:, chosen],
            n_atoms=self.n_atoms[chosen],
            features=None if self.features is None else self.features[chosen],
            distance=None if self.distance is None else self.distance[chosen],
        )
