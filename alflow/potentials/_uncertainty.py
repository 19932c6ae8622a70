"""Rotation-invariant spreads of a committee, the errors they are compared with, and ``u``.

No Cartesian component is ever looked at alone: a spread built from components changes when the structure is turned.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from alflow.errors import PotentialError
from alflow.potentials._targets import Kind, Targets

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from alflow.structures import Properties

FORCE_ZERO = 1e-4
"""eV/Å: below it forces of all members vanish by symmetry (single-precision noise stays under it)."""
FORCE_LABEL_ZERO = 5e-3
"""eV/Å: a calculated force that should vanish by symmetry, with the noise of grids and k-points."""
WITHIN = 0.95
"""Share of the training structures whose distance from the training atoms is below 1."""
STRESS_ZERO = 1e-6
"""eV/Å³: below it stresses of all members vanish (molecules, empty directions)."""
STRESS_LABEL_ZERO = 1e-5
"""eV/Å³: the same for a calculated stress."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PerKind:
    """One number per structure and kind.

    Parameters
    ----------
    energy
        (n,), eV/atom
    force
        (n,), eV/Å, reduced over the atoms by the maximum
    stress
        (n,), eV/Å³, Frobenius norm
    """

    energy: NDArray[np.float64]
    force: NDArray[np.float64]
    stress: NDArray[np.float64]

    def __post_init__(self) -> None:
        for name in self.names():
            given = getattr(self, name)
            object.__setattr__(self, name, np.asarray(given, dtype=np.float64).reshape(-1))
        if len({len(getattr(self, name)) for name in self.names()}) > 1:
            found = ", ".join(f"{len(getattr(self, name))} of {name}" for name in self.names())
            raise ValueError(f"everything needs one value per structure, found {found}")

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the arrays."""
        return tuple(kind.value for kind in Kind)

    def of(self, kind: Kind) -> NDArray[np.float64]:
        """(n,) values of one kind, in :attr:`Kind.unit`."""
        values: NDArray[np.float64] = getattr(self, kind.value)
        return values

    def __len__(self) -> int:
        return len(self.energy)

    def __getitem__(self, chosen: ArrayLike | slice) -> Self:
        """Return those of some structures: indices, a slice or a mask."""
        index = chosen if isinstance(chosen, slice) else np.atleast_1d(np.asarray(chosen))
        return type(self)(**{name: getattr(self, name)[index] for name in self.names()})

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """One after the other; of nothing: none."""
        empty = [np.zeros(0)]
        return cls(**{name: np.concatenate([getattr(p, name) for p in parts] or empty) for name in cls.names()})

    def rows(self) -> list[dict[str, float | None]]:
        """One JSON-ready row per structure; None for what is not finite."""
        columns = {name: getattr(self, name).tolist() for name in self.names()}
        return [
            {name: column[i] if math.isfinite(column[i]) else None for name, column in columns.items()}
            for i in range(len(self))
        ]

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[str, float | None]]) -> Self:
        """Inverse of :meth:`rows`; what a row lacks is nan."""
        columns = {name: [row.get(name) for row in rows] for name in cls.names()}
        return cls(**{n: np.array([np.nan if x is None else x for x in column]) for n, column in columns.items()})


@dataclass(frozen=True, kw_only=True, eq=False)
class Spreads(PerKind):
    """How much the members disagree, nan where a kind was not predicted; and how far the structure is from the data.

    Parameters
    ----------
    distance
        (n,), dimensionless: distance of the furthest atom from the training atoms, 1 where 95 % of the training
        structures are nearer (:mod:`alflow.potentials._distance`); nan (or not given) where it is not known
    """

    distance: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.distance is None:
            object.__setattr__(self, "distance", np.full(np.size(self.energy), np.nan))
        super().__post_init__()

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the arrays."""
        return (*super().names(), "distance")

    @property
    def distances(self) -> NDArray[np.float64]:
        """(n,) `distance`; never None."""
        assert self.distance is not None
        return self.distance


class Errors(PerKind):
    """Errors of the committee's mean, expected (calibrated 1σ) or actual; nan where a kind cannot be judged."""


def spreads(
    energy: ArrayLike,
    forces: Sequence[ArrayLike] | None,
    stress: ArrayLike | None,
    n_atoms: ArrayLike,
    distance: ArrayLike | None = None,
) -> Spreads:
    r"""Reduce the members' predictions to one invariant spread per structure and kind.

    With the covariance over the K members (denominator K - 1):

    - energy: :math:`\sqrt{\mathrm{var}\,E} / n_\mathrm{atoms}`
    - force: :math:`\max_i \sqrt{\mathrm{tr}\,\mathrm{cov}\,F_i}`, so that one bad atom among many is seen and the
      number does not shrink with the size of the cell
    - stress: :math:`\sqrt{\mathrm{tr}\,\mathrm{cov}\,\sigma}`, the Frobenius norm

    The trace of a covariance does not change under rotations, reflections, translations and permutations.

    Parameters
    ----------
    energy
        (K, n), eV per structure
    forces
        n arrays (K, n_atoms_i, 3), eV/Å; None where not predicted
    stress
        (K, n, 3, 3), eV/Å³; None where not predicted
    n_atoms
        (n,)
    distance
        (n,), see :class:`Spreads`; None where it is not known

    Raises
    ------
    PotentialError
        if there are fewer than two members: one member has no spread
    """
    energies = np.asarray(energy, dtype=np.float64)
    counts = np.asarray(n_atoms, dtype=np.int64).reshape(-1)
    n_members, n = energies.shape
    if n_members < 2:
        raise PotentialError(
            "the spread of a committee needs at least two members; set n_members to 2 or more (4 is usual)"
        )
    if len(counts) != n:
        raise ValueError(f"{n} energies but {len(counts)} atom counts")
    unknown = np.full(n, np.nan)
    return Spreads(
        energy=energies.std(axis=0, ddof=1) / counts,
        force=unknown if forces is None else _force_spread(forces, counts),
        stress=unknown
        if stress is None
        else np.sqrt(np.asarray(stress, dtype=np.float64).var(axis=0, ddof=1).sum(axis=(1, 2))),
        distance=None if distance is None else np.asarray(distance, dtype=np.float64),
    )


def _force_spread(forces: Sequence[ArrayLike], n_atoms: NDArray[np.int64]) -> NDArray[np.float64]:
    if len(n_atoms) == 0:
        return np.zeros(0)
    joined = np.concatenate([np.asarray(f, dtype=np.float64) for f in forces], axis=1)
    per_atom = np.sqrt(joined.var(axis=0, ddof=1).sum(axis=-1))
    return _largest_per_structure(per_atom, n_atoms)


def _largest_per_structure(per_atom: NDArray[np.float64], n_atoms: NDArray[np.int64]) -> NDArray[np.float64]:
    starts = np.concatenate([[0], np.cumsum(n_atoms)[:-1]])
    if int(n_atoms.sum()) != len(per_atom):
        raise ValueError(f"{len(per_atom)} atoms in the forces but {int(n_atoms.sum())} in n_atoms")
    largest: NDArray[np.float64] = np.maximum.reduceat(per_atom, starts)
    return largest


@dataclass(frozen=True, kw_only=True, eq=False)
class Means:
    """The committee's mean prediction, as far as errors need it.

    Parameters
    ----------
    energy
        (n,), eV per structure
    forces
        n arrays (n_atoms_i, 3), eV/Å, or None
    stress
        (n, 3, 3), eV/Å³, or None
    n_atoms
        (n,)
    """

    energy: NDArray[np.float64]
    forces: Sequence[NDArray[np.float64]] | None
    stress: NDArray[np.float64] | None
    n_atoms: NDArray[np.int64]


def actual_errors(means: Means, properties: Sequence[Properties], spread: Spreads | None = None) -> Errors:
    """Compare the mean prediction with labels, in the quantities that match :func:`spreads`.

    energy: ``|ΔE| / n_atoms``; force: ``max_i |ΔF_i|``; stress: ``‖Δσ‖`` (Frobenius).

    A value is nan where there is no label, and where the quantity vanishes by symmetry (every member and the label
    are zero): such a row says nothing about errors and would pull the calibration down. With `spread` given, "every
    member" is taken at its word; without it only the mean is looked at.

    Parameters
    ----------
    means
        n mean predictions
    properties
        n labels
    spread
        the members' spreads for the same structures
    """
    n = len(means.energy)
    if len(properties) != n:
        raise ValueError(f"{n} predictions but {len(properties)} labels")
    energy = np.array([abs(means.energy[i] - p.energy) / means.n_atoms[i] for i, p in enumerate(properties)])
    force, stress = np.full(n, np.nan), np.full(n, np.nan)
    for i, label in enumerate(properties):
        if means.forces is not None and label.forces is not None:
            predicted = np.asarray(means.forces[i], dtype=np.float64)
            quiet = _largest_norm(predicted) < FORCE_ZERO and (spread is None or spread.force[i] < FORCE_ZERO)
            if not (quiet and _largest_norm(label.forces) < FORCE_LABEL_ZERO):
                force[i] = _largest_norm(predicted - label.forces)
        if means.stress is not None and label.stress is not None:
            tensor = np.asarray(means.stress[i], dtype=np.float64)
            quiet = np.linalg.norm(tensor) < STRESS_ZERO and (spread is None or spread.stress[i] < STRESS_ZERO)
            if not (quiet and np.linalg.norm(label.stress) < STRESS_LABEL_ZERO):
                stress[i] = np.linalg.norm(tensor - label.stress)
    return Errors(energy=energy, force=force, stress=stress)


def _largest_norm(vectors: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(vectors, axis=1).max())


def largest_ratio(errors: PerKind, targets: Targets) -> NDArray[np.float64]:
    """``u`` (n,): the largest of error / target over the kinds that are not nan; nan where no kind is known."""
    ratios = _ratios(errors, targets)
    u = np.where(np.isnan(ratios), -np.inf, ratios).max(axis=0)
    return np.where(np.isneginf(u), np.nan, u)


def leading_kinds(errors: PerKind, targets: Targets) -> list[Kind]:
    """Name the kind that sets ``u`` for each structure: what a person reads in the reason of a choice."""
    ratios = _ratios(errors, targets)
    order = list(Kind)
    return [order[i] for i in np.where(np.isnan(ratios), -np.inf, ratios).argmax(axis=0)]


def _ratios(errors: PerKind, targets: Targets) -> NDArray[np.float64]:
    return np.stack([errors.of(kind) / targets.of(kind) for kind in Kind])
