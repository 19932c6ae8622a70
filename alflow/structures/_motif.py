"""The contents of a primitive cell, found by the translations that carry a structure onto itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from alflow.structures._fingerprint import absolute_moments, reduced_and_rows
from alflow.structures._lattice import hermite_basis, inverse_of, reduced_lattice, wrap_small
from alflow.structures.kernels import Packed, compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alflow.structures._policy import DuplicatePolicy
    from alflow.structures._structure import Structure

_DENSE_LIMIT = 400_000
TIGHT = 0.1
LOOSE = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Motif:
    """Sites of a primitive cell, prepared for comparison.

    Parameters
    ----------
    structure
        what it was made of
    box
        (d, 3), Å, reduced rows of the structure as it was given
    lattice
        (d, 3), Å, reduced rows of the primitive cell
    numbers
        (n,), atomic numbers
    positions
        (n, 3), Å, each the average over the copies that translations carry onto each other
    moments
        (n,) or (n, 3), µB, None where they are absent or not compared
    rows
        (n, c), Å: see :func:`alflow.structures._fingerprint.site_rows`
    lengths
        (n,), µB: absolute moments
    deviation
        Å, largest distance of a copy from its average; 0 where nothing was averaged
    policy
        for which it was prepared
    """

    structure: Structure
    policy: DuplicatePolicy
    box: NDArray[np.float64]
    lattice: NDArray[np.float64]
    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    moments: NDArray[np.float64] | None
    rows: NDArray[np.float64]
    lengths: NDArray[np.float64]
    deviation: float

    @property
    def n_sites(self) -> int:
        """Number of sites in the primitive cell."""
        return len(self.numbers)

    @cached_property
    def order_key(self) -> tuple[int, int, str]:
        """Sorts the two partners of a comparison, so that it gives the same answer whichever comes first."""
        return self.n_sites, self.structure.n_atoms, self.structure.content_hash

    @cached_property
    def loose(self) -> Motif:
        """The same reduced further, with copies that agree less well, to see how two cells may lie on each other."""
        return replace(motif(self.structure, self.policy, tightness=LOOSE), deviation=0.0)

    @cached_property
    def packed(self) -> Packed:
        """The same for compiled loops."""
        return Packed(
            numbers=self.numbers,
            positions=self.positions,
            rows=self.rows,
            lattice=self.lattice,
            lengths=self.lengths,
            moments=self.moments,
            deviation=self.deviation,
        )


def motif(structure: Structure, policy: DuplicatePolicy, *, tightness: float = TIGHT) -> Motif:
    """Reduce a structure to a primitive cell.

    A translation counts when it carries every atom onto one of its kind within ``tightness`` times the policy's
    displacement. What the averaging moved is kept as ``deviation`` and charged to the comparison, so that a reduction
    can never turn two different structures into the same one.
    """
    tolerance = tightness * policy.max_displacement
    moments = structure.moments if policy.moments is not None else None
    lengths = absolute_moments(structure)
    lattice, rows = reduced_and_rows(structure)
    rows = rows.reshape(structure.n_atoms, -1)
    whole = Motif(
        structure=structure,
        policy=policy,
        box=lattice,
        lattice=lattice,
        numbers=structure.numbers,
        positions=structure.positions,
        moments=moments,
        rows=rows,
        lengths=lengths,
        deviation=0.0,
    )
    moment_tolerance = 0.0 if policy.moments is None else tightness * policy.moments
    found = _translations(whole, tolerance, moment_tolerance)
    if found is None:
        return whole
    primitive, permutations = found
    # one site per orbit, named by its lowest member
    first = permutations.min(axis=0)
    members = permutations[:, np.unique(first)]
    anchors = structure.positions[members[0]]
    offsets = wrap_small(structure.positions[members] - anchors[None], primitive)
    mean = offsets.mean(axis=0)
    deviation = float(np.linalg.norm(offsets - mean[None], axis=2).max())
    if deviation > tolerance:
        return whole
    return Motif(
        structure=structure,
        policy=policy,
        box=lattice,
        lattice=primitive,
        numbers=structure.numbers[members[0]],
        positions=anchors + mean,
        moments=None if moments is None else moments[members[0]],
        rows=rows[members[0]],
        lengths=lengths[members[0]],
        deviation=deviation,
    )


def _translations(
    whole: Motif, tolerance: float, moment_tolerance: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
    """Primitive reduced lattice and the (m, n) permutations of all m translations; None without such translations."""
    lattice, common = whole.lattice, whole.structure.n_formula_units
    if not len(lattice) or common == 1:
        return None
    kernels = compiled()
    if kernels is None:
        integers, permutations = _carried(whole, common, tolerance, moment_tolerance)
    else:
        rarest = min(whole.structure.composition.values())
        integers, permutations = kernels.translations(
            whole.packed, len(lattice), common, rarest, tolerance, moment_tolerance
        )
    if len(integers) == 1:
        return None
    d = len(lattice)
    basis = hermite_basis(np.concatenate([integers, common * np.eye(d, dtype=np.int64)]))
    index = round(common**d / abs(float(np.prod(np.diag(basis).astype(float)))))
    closed = len(np.unique(integers, axis=0)) == len(permutations) == index
    if index == 1 or not closed or not (np.sort(permutations, axis=1) == np.arange(whole.n_sites)).all():
        return None
    return reduced_lattice(basis / common @ lattice)[0], permutations


def _carried(
    whole: Motif, common: int, tolerance: float, moment_tolerance: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(m, d) translations that carry every site onto one of its kind, in units of 1/common, and (m, n) onto which."""
    numbers, positions, lattice = whole.numbers, whole.positions, whole.lattice
    species, counts = np.unique(numbers, return_counts=True)
    kin = np.flatnonzero(numbers == species[int(np.argmin(counts))])
    limit = 2.0 * tolerance + 1e-9
    kin = kin[(np.abs(whole.rows[kin] - whole.rows[kin[0]]) <= 2.0 * limit).all(axis=1)]
    steps = positions[kin] - positions[kin[0]]
    # the order of a translation divides every species' count, so its coordinates are multiples of 1/common
    integers = np.rint(steps @ inverse_of(lattice) * common).astype(np.int64)
    snapped = integers / common @ lattice
    good = np.linalg.norm(wrap_small(steps - snapped, lattice), axis=1) <= limit
    integers, snapped = np.mod(integers[good], common), snapped[good]
    permutations, distances = _carry(positions, lattice, snapped)
    fits = (distances <= limit) & (numbers[permutations] == numbers[None])
    if whole.moments is not None:
        change = np.abs(whole.moments[permutations] - whole.moments[None])
        fits &= change.reshape(*permutations.shape, -1).max(axis=2) <= moment_tolerance
    keep = fits.all(axis=1)
    return integers[keep], permutations[keep]


def _carry(
    positions: NDArray[np.float64], lattice: NDArray[np.float64], steps: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(m, n) index of and (m, n) distance to the site that each of m translations carries each of n sites onto."""
    m, n = len(steps), len(positions)
    carried = (positions[None] + steps[:, None]).reshape(-1, 3)
    if m * n * n <= _DENSE_LIMIT:
        gap = wrap_small(carried[:, None] - positions[None], lattice)
        square = np.einsum("ijk,ijk->ij", gap, gap)
        nearest = square.argmin(axis=1)
        distance = np.sqrt(square[np.arange(len(nearest)), nearest])
    else:
        nearest = _periodic_nearest(positions, lattice, carried)
        distance = np.linalg.norm(wrap_small(carried - positions[nearest], lattice), axis=1)
    return nearest.reshape(m, n), distance.reshape(m, n)


def _periodic_nearest(
    positions: NDArray[np.float64], lattice: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.int64]:
    """(m,) index of the site nearest to each point, by a tree on a torus.

    The metric is that of the skewed box, not of space: right wherever point and site almost coincide.
    """
    d = len(lattice)
    box = np.linalg.norm(lattice, axis=1)
    inverse = inverse_of(lattice)
    normals = np.linalg.svd(lattice)[2][d:] if d < 3 else np.zeros((0, 3))
    sizes = np.concatenate([box, np.zeros(3 - d)])

    def coordinates(x: NDArray[np.float64]) -> NDArray[np.float64]:
        along = np.mod(x @ inverse, 1.0) * box
        along[along >= box] = 0.0
        return np.concatenate([along, x @ normals.T], axis=1)

    return np.asarray(cKDTree(coordinates(positions), boxsize=sizes).query(coordinates(points))[1], dtype=np.int64)
