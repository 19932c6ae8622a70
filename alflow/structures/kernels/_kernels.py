"""The compiled loops as functions of arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from alflow.structures.kernels._abi import SIGNATURES, Packed, TrialFields, f64, i64
from alflow.structures.kernels._abi import tolerances as tolerances_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROOM = 512
_TOO_MANY = -2
_MOST_STEPS = 1000


class Found(NamedTuple):
    """A placement ``y = x @ linear + shift``, with the sites under those of the source; lengths in Å."""

    linear: NDArray[np.float64]
    shift: NDArray[np.float64]
    sites: NDArray[np.int64]
    largest: float
    rms: float
    moment_sign: int


class Kernels:
    """Loops of the duplicate search; arguments and results as in the plain Python of the same name."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        for name, (result, arguments) in SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments

    def reduced_lattice(self, lattice: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Minkowski-reduced (d, 3) rows and the (d, d) transform, see :func:`alflow.structures._lattice`."""
        d = len(lattice)
        rows = np.array(lattice, dtype=np.float64)
        transform = np.empty((d, d), dtype=np.int64)
        self.library.reduced_lattice(rows.ctypes.data, transform.ctypes.data, d, _MOST_STEPS)
        return rows, transform

    def reduced_and_rows(
        self, positions: NDArray[np.float64], numbers: NDArray[np.int64], s: int, k: int, lattice: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Reduced (d, 3) lattice, and (n, s, k), Å, distances to the k nearest neighbours of each of s species.

        None where neighbours are too far to be listed.
        """
        positions, numbers, lattice = f64(positions), i64(numbers), np.array(lattice, dtype=np.float64)
        rows = np.empty((len(positions), s, k))
        done = self.library.reduced_and_rows(
            len(positions),
            positions.ctypes.data,
            numbers.ctypes.data,
            k,
            lattice.ctypes.data,
            len(lattice),
            rows.ctypes.data,
        )
        return (lattice, rows) if done else None

    def fingerprint(
        self,
        positions: NDArray[np.float64],
        numbers: NDArray[np.int64],
        s: int,
        k: int,
        lattice: NDArray[np.float64],
        moments: NDArray[np.float64] | None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]] | None:
        """Leading coordinates (4,) and vector (2 s s k + 2 s,); None where neighbours are too far to be listed."""
        positions, numbers, lattice = f64(positions), i64(numbers), f64(lattice)
        leading, vector = np.empty(4), np.empty(2 * s * s * k + 2 * s, dtype=np.float32)
        moments = None if moments is None else f64(moments)
        done = self.library.fingerprint(
            len(positions),
            positions.ctypes.data,
            numbers.ctypes.data,
            k,
            lattice.ctypes.data,
            len(lattice),
            None if moments is None else moments.ctypes.data,
            leading.ctypes.data,
            vector.ctypes.data,
        )
        return (leading, vector) if done else None

    def compatible_sites(
        self,
        numbers: tuple[NDArray[np.int64], NDArray[np.int64]],
        rows: tuple[NDArray[np.float64], NDArray[np.float64]],
        moments: tuple[NDArray[np.float64], NDArray[np.float64]],
        *,
        unit: float,
        shift: float,
        strain: float,
        moment: float | None,
    ) -> tuple[NDArray[np.bool_], bool]:
        """(n_x, n_y) pairs of sites that may correspond, and whether every site has a partner."""
        numbers_x, numbers_y = (i64(z) for z in numbers)
        rows_x, rows_y = (f64(r) for r in rows)
        moments_x, moments_y = (f64(m) for m in moments)
        pairs = np.empty((len(rows_x), len(rows_y)), dtype=np.bool_)
        complete = self.library.compatible_sites(
            len(rows_x),
            len(rows_y),
            rows_x.shape[1],
            numbers_x.ctypes.data,
            numbers_y.ctypes.data,
            rows_x.ctypes.data,
            rows_y.ctypes.data,
            moments_x.ctypes.data,
            moments_y.ctypes.data,
            unit,
            shift,
            strain,
            -1.0 if moment is None else moment,
            pairs.ctypes.data,
        )
        return pairs, bool(complete)

    def search(
        self,
        leading: NDArray[np.float64],
        vectors: NDArray[np.float32],
        bounds: tuple[NDArray[np.float64], NDArray[np.float64]],
        one: NDArray[np.float64],
        allowed: NDArray[np.float64],
    ) -> NDArray[np.int64]:
        """Ascending rows of stored fingerprints within the bounds of leading coordinates and ``allowed`` of a vector.

        ``leading`` (4, m) float64 and ``vectors`` (m, c) float32 have contiguous rows.
        """
        low, high = (f64(bound) for bound in bounds)
        one, allowed = f64(one), f64(allowed)
        rows = np.empty(len(vectors), dtype=np.int64)
        found = self.library.search(
            len(vectors),
            leading.strides[0] // leading.itemsize,
            vectors.shape[1],
            leading.ctypes.data,
            vectors.ctypes.data,
            low.ctypes.data,
            high.ctypes.data,
            one.ctypes.data,
            allowed.ctypes.data,
            rows.ctypes.data,
        )
        return rows[:found]

    def lattice_maps(
        self, source: NDArray[np.float64], target: NDArray[np.float64], strain: float
    ) -> NDArray[np.float64] | None:
        """(m, d, 3), Å: images of the rows of ``source`` under every map within a strain, or None where too many."""
        source, target = f64(source), f64(target)
        d, room = len(source), _ROOM
        while True:
            out = np.empty((room, d, 3))
            found = self.library.lattice_maps(source.ctypes.data, target.ctypes.data, d, strain, room, out.ctypes.data)
            if found >= 0:
                return out[:found]
            if found == _TOO_MANY:
                return None
            room *= 8

    def gate(self, one: Packed, others: Sequence[Packed], *, displacement: float, strain: float) -> NDArray[np.bool_]:
        """(m,): which of m structures have, for every site of one, a site with the same surroundings, and conversely.

        A test that :meth:`place` makes too, a little less strict, for many at once; at their own volume.
        """
        tolerances = tolerances_of(displacement, 0.0, strain, None, True, True)
        addresses = np.array([other.address for other in others], dtype=np.uintp)
        keep = np.empty(len(others), dtype=np.bool_)
        self.library.gate(
            one.address, len(others), addresses.ctypes.data, ctypes.addressof(tolerances), keep.ctypes.data
        )
        return keep

    def place(
        self,
        source: Packed,
        target: Packed,
        *,
        displacement: float,
        rms: float,
        strain: float,
        moment: float | None,
        mirror: bool,
        every: bool,
        unit: float,
        maps: NDArray[np.float64] | None,
    ) -> Found | bool | None:
        """Best placement of a source on a target with two or three periodic directions.

        Parameters
        ----------
        source, target
            the first holds a whole number of cells of the second
        displacement, rms, strain, moment, mirror
            as in :class:`alflow.structures.DuplicatePolicy`
        every
            all placements are looked at for the best, not only the first that fit
        unit
            scale of the source; the target is scaled by its inverse
        maps
            (m, 3, 3) row maps to try; None: those between the lattices

        Returns
        -------
        the placement; False where none is within the tolerances; None where there is no map to begin with
        """
        tolerances = tolerances_of(displacement, rms, strain, moment, mirror, every)
        given = None if maps is None else f64(maps)
        linear, shift, told = np.empty((3, 3)), np.empty(3), np.empty(3)
        sites = np.empty(source.n_sites, dtype=np.int64)
        answer = self.library.place(
            source.address,
            target.address,
            ctypes.addressof(tolerances),
            unit,
            0 if given is None else len(given),
            None if given is None else given.ctypes.data,
            linear.ctypes.data,
            shift.ctypes.data,
            sites.ctypes.data,
            told.ctypes.data,
        )
        if answer == _TOO_MANY:
            raise OverflowError("the lattices have too many vectors to be listed")
        if answer <= 0:
            return None if answer else False
        largest, found_rms, sign = told.tolist()
        return Found(linear, shift, sites, largest, found_rms, int(sign))

    def translations(
        self, whole: Packed, d: int, common: int, rarest: int, tolerance: float, moment: float
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(t, d) translations of a structure onto itself, in units of 1/common, and (t, n) where they carry it."""
        coordinates = np.empty((rarest, d), dtype=np.int64)
        onto = np.empty((rarest, whole.n_sites), dtype=np.int64)
        found = self.library.translations(
            whole.address, common, tolerance, moment, coordinates.ctypes.data, onto.ctypes.data
        )
        return coordinates[:found], onto[:found]

    def nearest_same(
        self,
        points: NDArray[np.float64],
        numbers: NDArray[np.int64],
        sites: NDArray[np.float64],
        site_numbers: NDArray[np.int64],
        lattice: NDArray[np.float64],
        matrix: NDArray[np.float64],
    ) -> tuple[NDArray[np.int64], float]:
        """(m,) site of the same number nearest to each point; Å, the longest way to one, times a (3, 3) matrix."""
        points, numbers, sites, site_numbers = f64(points), i64(numbers), f64(sites), i64(site_numbers)
        lattice, matrix = f64(lattice), f64(matrix)
        nearest = np.zeros(len(points), dtype=np.int64)
        longest: float = self.library.nearest_same(
            len(points),
            points.ctypes.data,
            numbers.ctypes.data,
            len(sites),
            sites.ctypes.data,
            site_numbers.ctypes.data,
            lattice.ctypes.data,
            len(lattice),
            matrix.ctypes.data,
            nearest.ctypes.data,
        )
        return nearest, longest


class CompiledTrial:
    """Placements of one pair, found one after the other."""

    def __init__(
        self,
        kernels: Kernels,
        x: NDArray[np.float64],
        y: NDArray[np.float64],
        lattice: NDArray[np.float64],
        maps: NDArray[np.float64],
        pairs: NDArray[np.bool_],
        copies: int,
        order: NDArray[np.int64],
        gate: float,
        *,
        turned: bool,
    ) -> None:
        self._library = kernels.library
        self.n_x = len(x)
        ordered = pairs[order]
        partners = np.nonzero(ordered)[1]
        ends = np.zeros(self.n_x + 1, dtype=np.int64)
        np.cumsum(ordered.sum(axis=1), out=ends[1:])
        # kept, for the library holds addresses only
        self._arrays = (
            f64(x),
            f64(y),
            f64(lattice),
            f64(maps),
            i64(order),
            ends,
            i64(partners),
            np.ascontiguousarray(pairs, dtype=np.bool_),
        )
        self._trial = TrialFields(
            len(x), len(y), copies, len(lattice), turned, *(array.ctypes.data for array in self._arrays), gate
        )

    def next_placement(
        self, linears: NDArray[np.int64], shifts: NDArray[np.float64], first: int, last: int, scatter: float
    ) -> tuple[int, NDArray[np.int64], NDArray[np.float64]] | None:
        """The first start within [first, last) that is a one-to-one placement: its index, sites and residue.

        Parameters
        ----------
        linears, shifts
            (c,) int64 indices of maps and (c, 3) float64 shifts, both contiguous
        scatter
            Å², largest sum over sites of the squared displacements about their mean
        """
        sites, residue = np.empty(self.n_x, dtype=np.int64), np.empty((self.n_x, 3))
        found: int = self._library.next_placement(
            ctypes.addressof(self._trial),
            linears.ctypes.data,
            shifts.ctypes.data,
            first,
            last,
            scatter,
            sites.ctypes.data,
            residue.ctypes.data,
        )
        return None if found == last else (found, sites, residue)
