"""Invariant fingerprints: sorted distances from every site to its neighbours of each species.

**Bound.** Let a map carry one structure onto another one to one, so that no atom is displaced by more than δ after a
homogeneous strain with principal logarithmic strains up to ε. Then every distance of the fingerprint moves by at most
2δ + (exp(ε) - 1) x, up to terms of the order δε, where x is the coordinate, or for a spread the root mean square of
the distances. Without strain that is 2δ.

**Proof.** The strain changes a distance d by a factor between exp(-ε) and exp(ε), and the displacements of its two
ends change it by at most δ each (triangle inequality). The neighbours of one species around a site and around its
image correspond one to one, so at least k of the new distances are no longer than exp(ε) d_k + 2δ, where d_k is the
k-th of the old ones: this bounds the new k-th distance from above, and with the roles exchanged from below. A mean
over sites moves by no more than the mean of the changes. A standard deviation is the distance, divided by √n, of n
values from the line on which all are equal; a distance from a line moves by no more than the point does, so it moves
by at most the root mean square of the changes. ∎

The comparison uses these bounds and therefore never loses a duplicate: fingerprints only sort out, the isometry
decides. Two structures that are not isometric may well have the same fingerprint (homometric ones do).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import msgpack
import numpy as np
from scipy.spatial import cKDTree

from alflow.errors import StructureError
from alflow.structures._lattice import heights, inverse_of, lattice_points, measure, reduced_lattice
from alflow.structures.kernels import MOST_SITES, compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alflow.structures._policy import DuplicatePolicy
    from alflow.structures._structure import Structure

FINGERPRINT_VERSION = 1
_N_NEIGHBOURS = 24
_MIN_NEIGHBOURS = 3
_DENSE_LIMIT = 2_000_000
_FLOAT32_SLACK = 1e-5
_MAX_GROWTH = 60
_SPACE = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Fingerprint:
    """What a duplicate search stores about one structure.

    Parameters
    ----------
    bucket
        composition, periodicity and charge: structures of different buckets are never duplicates
    leading
        (4,): length per atom (V/n)^(1/d), mean neighbour distance, mean nearest distance, spread of the sites; Å
    vector
        (2 s k + 2 s,) float32 for s ordered species pairs: mean and spread over the sites of the k-th neighbour
        distances, Å, then mean and spread per species of the absolute moments, µB
    version
        of the definition; fingerprints of different versions cannot be compared
    """

    bucket: str
    leading: NDArray[np.float64]
    vector: NDArray[np.float32]
    version: int = FINGERPRINT_VERSION

    def to_bytes(self) -> bytes:
        """Compact, exact serialisation."""
        content = {
            "v": self.version,
            "b": self.bucket,
            "l": self.leading.astype("<f8").tobytes(),
            "x": self.vector.astype("<f4").tobytes(),
        }
        packed: bytes = msgpack.packb(content)
        return packed

    @classmethod
    def from_bytes(cls, blob: bytes) -> Fingerprint:
        """Inverse of :meth:`to_bytes`; raises StructureError for a damaged blob."""
        try:
            content = msgpack.unpackb(blob)
            return cls(
                bucket=content["b"],
                leading=np.frombuffer(content["l"], dtype="<f8").astype(np.float64),
                vector=np.frombuffer(content["x"], dtype="<f4").astype(np.float32),
                version=content["v"],
            )
        except (KeyError, TypeError, ValueError, msgpack.UnpackException) as error:
            raise StructureError(f"damaged fingerprint blob: {error!r}") from error

    @property
    def n_periodic(self) -> int:
        """Number of periodic directions."""
        return int(self.bucket[0])


def bucket(structure: Structure) -> str:
    """Composition, periodicity and charge as a key, e.g. ``3:NiPt:0``; per formula unit where anything is periodic."""
    if structure.n_periodic:
        charge = round(structure.charge / structure.n_formula_units, 6)
        return f"{structure.n_periodic}:{structure.reduced_formula}:{charge + 0.0:g}"
    return f"0:{structure.formula}:{round(structure.charge, 6) + 0.0:g}"


def fingerprint(structure: Structure) -> Fingerprint:
    """Fingerprint of a structure: the same for every cell, orientation, origin, order of atoms and mirror image."""
    kernels = compiled()
    if kernels is not None and structure.n_atoms <= MOST_SITES:
        s = len(structure.composition)
        lattice = structure.cell[structure.pbc]
        moments = None if structure.moments is None else absolute_moments(structure)
        found = kernels.fingerprint(
            structure.positions, structure.numbers, s, neighbours_per_species(s), lattice, moments
        )
        if found is not None:
            return Fingerprint(bucket=bucket(structure), leading=found[0], vector=found[1])
    return _fingerprint(structure)


def _fingerprint(structure: Structure) -> Fingerprint:
    _, rows = reduced_and_rows(structure)
    numbers = structure.numbers
    flat = rows.reshape(len(rows), -1)
    moments = absolute_moments(structure)
    means, spreads, moment_means, moment_spreads = [], [], [], []
    for z in np.unique(numbers):
        own = numbers == z
        means.append(flat[own].mean(axis=0))
        spreads.append(flat[own].std(axis=0))
        moment_means.append(moments[own].mean())
        moment_spreads.append(moments[own].std())
    vector = np.concatenate([*means, *spreads, moment_means, moment_spreads]).astype(np.float32)
    per_site = flat.mean(axis=1) if flat.shape[1] else np.zeros(len(flat))
    nearest = flat.min(axis=1) if flat.shape[1] else np.zeros(len(flat))
    leading = np.array([length_per_atom(structure), per_site.mean(), nearest.mean(), per_site.std()])
    return Fingerprint(bucket=bucket(structure), leading=leading, vector=vector)


def length_per_atom(structure: Structure) -> float:
    """(V/n)^(1/3), (A/n)^(1/2) or L/n for three, two, one periodic directions, Å; 0 for a molecule."""
    d = structure.n_periodic
    return (measure(structure.cell[structure.pbc]) / structure.n_atoms) ** (1.0 / d) if d else 0.0


def absolute_moments(structure: Structure) -> NDArray[np.float64]:
    """(n_atoms,), µB: lengths of the initial moments, zero without any."""
    if structure.moments is None:
        return np.zeros(structure.n_atoms)
    if structure.moments.ndim == 2:
        return np.asarray(np.linalg.norm(structure.moments, axis=1))
    return np.abs(structure.moments)


def neighbours_per_species(n_species: int) -> int:
    """How many neighbours of each species a row holds."""
    return max(_MIN_NEIGHBOURS, _N_NEIGHBOURS // n_species)


def site_rows(structure: Structure) -> NDArray[np.float64]:
    """(n_atoms, n_species, k), Å: distances from each site to its k nearest neighbours of each species, ascending.

    Species ascend in atomic number. A molecule with fewer than k such neighbours is padded with zeros; which entries
    those are follows from the composition alone.
    """
    return reduced_and_rows(structure)[1]


def reduced_and_rows(structure: Structure) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The (d, 3) reduced lattice, and :func:`site_rows`."""
    kernels = compiled()
    if kernels is not None and structure.n_atoms <= MOST_SITES:
        s = len(structure.composition)
        found = kernels.reduced_and_rows(
            structure.positions, structure.numbers, s, neighbours_per_species(s), structure.cell[structure.pbc]
        )
        if found is not None:
            return found
    lattice, _ = reduced_lattice(structure.cell[structure.pbc])
    return lattice, _site_rows(structure, lattice)


def _site_rows(structure: Structure, lattice: NDArray[np.float64]) -> NDArray[np.float64]:
    numbers = structure.numbers
    species, counts = np.unique(numbers, return_counts=True)
    k = neighbours_per_species(len(species))
    positions = structure.positions
    if not len(lattice):
        return _rows_within(positions, positions, numbers, numbers, species, k)
    inverse = inverse_of(lattice)
    positions = positions - np.floor(positions @ inverse + 1e-9) @ lattice
    d, rarest = len(lattice), int(counts.min())
    per_atom = measure(lattice) / rarest
    radius = {
        3: 1.1 * (3.0 * (k + 1) * per_atom / (4.0 * math.pi)) ** (1.0 / 3.0),
        2: 1.1 * math.sqrt((k + 1) * per_atom / math.pi),
        1: 0.6 * (k + 1) * per_atom,
    }[d]
    radius = max(radius, float(heights(lattice).min()))
    for _ in range(_MAX_GROWTH):
        rows = _rows_within_radius(positions, lattice, numbers, species, k, radius)
        if rows is not None:
            return rows
        radius *= 1.25
    raise StructureError(f"{structure.formula}: neighbours reach beyond {radius:.0f} Å; is the cell plausible?")


def _rows_within_radius(
    positions: NDArray[np.float64],
    lattice: NDArray[np.float64],
    numbers: NDArray[np.int64],
    species: NDArray[np.int64],
    k: int,
    radius: float,
) -> NDArray[np.float64] | None:
    """Rows of a periodic structure, or None where a k-th neighbour may lie beyond the radius."""
    span = positions.max(axis=0) - positions.min(axis=0)
    shifts = lattice_points(lattice, radius + float(np.linalg.norm(span)))
    n_atoms = len(positions)
    images = (positions[None] + shifts[:, None]).reshape(-1, 3)
    kinds = np.tile(numbers, len(shifts))
    inside = ((images >= positions.min(axis=0) - radius) & (images <= positions.max(axis=0) + radius)).all(axis=1)
    images, kinds = images[inside], kinds[inside]
    if min(int((kinds == z).sum()) for z in species) <= k or n_atoms == 0:
        return None
    rows = _rows_within(positions, images, numbers, kinds, species, k)
    return rows if rows.max() <= radius else None


def _rows_within(
    centres: NDArray[np.float64],
    points: NDArray[np.float64],
    numbers: NDArray[np.int64],
    kinds: NDArray[np.int64],
    species: NDArray[np.int64],
    k: int,
) -> NDArray[np.float64]:
    """Sorted distances from centres to the nearest points of each species; a centre is left out of its own list."""
    rows = np.zeros((len(centres), len(species), k))
    dense = len(centres) * len(points) <= _DENSE_LIMIT
    for s, z in enumerate(species):
        chosen = points[kinds == z]
        m = min(k + 1, len(chosen))
        if dense:
            square = _square_distances(centres, chosen)
            if m < square.shape[1]:
                square = np.partition(square, m - 1, axis=1)[:, :m]
            square.sort(axis=1)
            found = np.sqrt(square)
        else:
            found = cKDTree(chosen).query(centres, k=np.arange(1, m + 1))[0]
        own = numbers == z
        rows[own, s, : m - 1] = found[own, 1:m]
        rows[~own, s, : min(m, k)] = found[~own, : min(m, k)]
    return rows


def _square_distances(centres: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, m), Å²; by differences, because |a|² - 2ab + |b|² loses half the digits where it matters."""
    square: NDArray[np.float64] = (centres[:, 0, None] - points[None, :, 0]) ** 2
    for axis in (1, 2):
        square += (centres[:, axis, None] - points[None, :, axis]) ** 2
    return square


# -- comparison ------------------------------------------------------------------------------------------------


def possible_duplicates(
    one: Fingerprint, leading: NDArray[np.float64], vectors: NDArray[np.float32], policy: DuplicatePolicy
) -> NDArray[np.int64]:
    """Ascending rows of stored fingerprints that may be those of duplicates, by the bounds in this module's docstring.

    Parameters
    ----------
    one
        the fingerprint they are compared with
    leading, vectors
        (4, m) and (m, c), of the same bucket and version
    policy
        how far duplicates may be from each other
    """
    n_moments = 2 * _n_species(len(one.vector))
    mine = one.vector.astype(np.float64)
    half = (len(mine) - n_moments) // 2
    size = np.sqrt(mine[:half] ** 2 + mine[half : 2 * half] ** 2)
    strain = policy.max_strain * math.exp(2 * policy.max_strain) * np.concatenate([size, size])
    slack = _FLOAT32_SLACK + 2.0 * policy.max_displacement * 2.0 * policy.max_strain
    allowed = np.full(len(mine), np.inf if policy.moments is None else policy.moments + _FLOAT32_SLACK)
    allowed[: 2 * half] = 2.0 * policy.max_displacement + strain + slack
    if not (policy.any_volume and one.n_periodic == _SPACE):
        bounds = leading_bounds(one, policy)
        kernels = compiled()
        if kernels is not None:
            return kernels.search(leading, vectors, bounds, mine, allowed)
        low, high = bounds
        rows = np.flatnonzero(((leading >= low[:, None]) & (leading <= high[:, None])).all(axis=0))
        return rows[(np.abs(vectors[rows].astype(np.float64) - mine) <= allowed).all(axis=1)]
    # both at their geometric mean volume, which is where the isometry measures displacements
    ratio = np.sqrt(leading[0] / one.leading[0])[:, None]
    theirs, many = vectors.astype(np.float64), np.broadcast_to(allowed, vectors.shape).copy()
    many[:, : 2 * half] = 2.0 * policy.max_displacement + strain * ratio + slack
    theirs[:, : 2 * half] /= ratio
    wanted = np.broadcast_to(mine, theirs.shape).copy()
    wanted[:, : 2 * half] *= ratio
    return np.flatnonzero((np.abs(theirs - wanted) <= many).all(axis=1))


@cache
def _n_species(length: int) -> int:
    """Number of species from the length of a vector: 2 s² k + 2 s with k fixed by s."""
    for s in range(1, 120):
        if 2 * s * s * neighbours_per_species(s) + 2 * s == length:
            return s
    raise StructureError(f"a fingerprint vector of length {length} fits no number of species")


def leading_bounds(one: Fingerprint, policy: DuplicatePolicy) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(4,), (4,): the range in which ``leading`` of every duplicate lies, for indexed range queries.

    Where the policy allows any volume the range is unbounded.
    """
    if policy.any_volume and one.n_periodic == 3:
        return np.full(4, -np.inf), np.full(4, np.inf)
    strain = policy.max_strain * math.exp(2 * policy.max_strain)
    length, mean, nearest, spread = one.leading.tolist()
    shift = 2.0 * policy.max_displacement * (1.0 + 2.0 * policy.max_strain) + _FLOAT32_SLACK
    width = np.array(
        [
            strain * length + _FLOAT32_SLACK,
            strain * mean + shift,
            strain * nearest + shift,
            strain * math.hypot(mean, spread) + shift,
        ]
    )
    return one.leading - width, one.leading + width
