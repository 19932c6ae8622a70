"""The loops of the duplicate search in C++, compiled once on the machine; plain Python where it has no compiler.

The Python beside every call in :mod:`alflow.structures` defines what is computed. Nothing here is needed for a right
result: without a compiler a search takes several times as long.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from alflow.native import SWITCH, KernelsUnavailableError, kernels_wanted, load_library

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_SITES = 1500
"""Structures with more sites are left to trees, which loops over pairs cannot beat."""
_ROOM = 512
_TOO_MANY = -2
_CUBE_MAPS = 48
_MOST_STEPS = 1000

log = logging.getLogger("alflow.structures")

_POINTER = ctypes.c_void_p
_SIZE = ctypes.c_int64
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "reduced_lattice": (ctypes.c_int, (_POINTER, _POINTER, ctypes.c_int, ctypes.c_int)),
    "reduced_and_rows": (ctypes.c_int, (_SIZE, _POINTER, _POINTER, _SIZE, _POINTER, ctypes.c_int, _POINTER)),
    "fingerprint": (
        ctypes.c_int,
        (_SIZE, _POINTER, _POINTER, _SIZE, _POINTER, ctypes.c_int, _POINTER, _POINTER, _POINTER),
    ),
    "compatible_sites": (
        ctypes.c_int,
        (_SIZE, _SIZE, _SIZE, *[_POINTER] * 6, *[ctypes.c_double] * 4, _POINTER),
    ),
    "search": (_SIZE, (_SIZE, _SIZE, _SIZE, *[_POINTER] * 7)),
    "lattice_maps": (_SIZE, (_POINTER, _POINTER, ctypes.c_int, ctypes.c_double, _SIZE, _POINTER)),
    "next_placement": (
        _SIZE,
        (_POINTER, _POINTER, _POINTER, _SIZE, _SIZE, ctypes.c_double, _POINTER, _POINTER),
    ),
    "gate": (None, (_POINTER, _SIZE, _POINTER, _POINTER, _POINTER)),
    "place": (
        ctypes.c_int,
        (
            _POINTER,
            _POINTER,
            _POINTER,
            ctypes.c_double,
            _SIZE,
            _POINTER,
            _POINTER,
            _POINTER,
            _POINTER,
            _POINTER,
        ),
    ),
    "translations": (_SIZE, (_POINTER, _SIZE, ctypes.c_double, ctypes.c_double, _POINTER, _POINTER)),
    "nearest_same": (
        ctypes.c_double,
        (_SIZE, _POINTER, _POINTER, _SIZE, _POINTER, _POINTER, _POINTER, ctypes.c_int, _POINTER, _POINTER),
    ),
}


@cache
def compiled() -> Kernels | None:
    """The compiled loops, or None where plain Python has to do; a notice says why, once.

    Raises
    ------
    UserError
        if the variable ``ALFLOW_KERNELS`` has no meaning
    """
    if not kernels_wanted():
        return None
    try:
        kernels = Kernels(load_library((files(__package__) / "geometry.cpp").read_text(encoding="utf-8")))
    except KernelsUnavailableError as error:
        why = str(error)
    else:
        if _knows_the_cube(kernels):
            return kernels
        why = "what the compiler made of them gives wrong results for a cubic lattice"
    log.warning("duplicates are searched in plain Python, several times slower: %s (%s=off silences this)", why, SWITCH)
    return None


def _knows_the_cube(kernels: Kernels) -> bool:
    """Whether compiled loops give what everybody knows of the simple cubic lattice, told in a skewed cell."""
    skewed = np.array([[1.0, 0.0, 0.0], [7.0, 1.0, 0.0], [-3.0, 5.0, 1.0]])
    found = kernels.reduced_and_rows(np.zeros((1, 3)), np.array([84]), 1, 24, skewed)
    if found is None:
        return False
    lattice, rows = found
    shells = np.repeat(np.sqrt([1.0, 2.0, 3.0]), [6, 12, 6])
    maps = kernels.lattice_maps(lattice, np.eye(3), 1e-5)
    return (
        np.allclose(np.abs(lattice).sum(axis=1), 1.0, rtol=0.0, atol=1e-12)
        and np.allclose(rows[0, 0], shells, rtol=0.0, atol=1e-12)
        and maps is not None
        and len(maps) == _CUBE_MAPS
    )


class _Partner(ctypes.Structure):
    _fields_ = (
        ("n", _SIZE),
        ("c", _SIZE),
        ("d", ctypes.c_int),
        ("moment_kind", ctypes.c_int),
        ("deviation", ctypes.c_double),
        ("lattice", _POINTER),
        ("positions", _POINTER),
        ("rows", _POINTER),
        ("lengths", _POINTER),
        ("moments", _POINTER),
        ("numbers", _POINTER),
    )


class _Tolerances(ctypes.Structure):
    _fields_ = (
        ("displacement", ctypes.c_double),
        ("rms", ctypes.c_double),
        ("strain", ctypes.c_double),
        ("moment", ctypes.c_double),
        ("mirror", ctypes.c_int),
        ("every", ctypes.c_int),
    )


class Packed:
    """A prepared structure as the compiled loops take it: addresses, and the arrays that they point into."""

    def __init__(
        self,
        *,
        numbers: NDArray[np.int64],
        positions: NDArray[np.float64],
        rows: NDArray[np.float64],
        lattice: NDArray[np.float64],
        lengths: NDArray[np.float64],
        moments: NDArray[np.float64] | None,
        deviation: float,
    ) -> None:
        self.n_sites = len(numbers)
        arrays = [_f64(lattice), _f64(positions), _f64(rows), _f64(lengths)]
        axial = None if moments is None else _f64(moments)
        self._arrays = (*arrays, axial, _i64(numbers))
        self._partner = _Partner(
            len(numbers),
            rows.shape[1],
            len(lattice),
            0 if axial is None else axial.ndim,
            deviation,
            *(None if array is None else array.ctypes.data for array in self._arrays),
        )
        self.address = ctypes.addressof(self._partner)


@cache
def _tolerances(
    displacement: float, rms: float, strain: float, moment: float | None, mirror: bool, every: bool
) -> _Tolerances:
    return _Tolerances(displacement, rms, strain, -1.0 if moment is None else moment, mirror, every)


class _Trial(ctypes.Structure):
    _fields_ = (
        ("n_x", _SIZE),
        ("n_y", _SIZE),
        ("copies", _SIZE),
        ("d", ctypes.c_int),
        ("turned", ctypes.c_int),
        ("x", _POINTER),
        ("y", _POINTER),
        ("lattice", _POINTER),
        ("maps", _POINTER),
        ("order", _POINTER),
        ("partner_start", _POINTER),
        ("partners", _POINTER),
        ("pairs", _POINTER),
        ("gate", ctypes.c_double),
    )


def _f64(array: NDArray[Any]) -> NDArray[np.float64]:
    return np.ascontiguousarray(array, dtype=np.float64)


def _i64(array: NDArray[Any]) -> NDArray[np.int64]:
    return np.ascontiguousarray(array, dtype=np.int64)


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
        self._library = library
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments

    def reduced_lattice(self, lattice: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Minkowski-reduced (d, 3) rows and the (d, d) transform, see :func:`alflow.structures._lattice`."""
        d = len(lattice)
        rows = np.array(lattice, dtype=np.float64)
        transform = np.empty((d, d), dtype=np.int64)
        self._library.reduced_lattice(rows.ctypes.data, transform.ctypes.data, d, _MOST_STEPS)
        return rows, transform

    def reduced_and_rows(
        self, positions: NDArray[np.float64], numbers: NDArray[np.int64], s: int, k: int, lattice: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Reduced (d, 3) lattice, and (n, s, k), Å, distances to the k nearest neighbours of each of s species.

        None where neighbours are too far to be listed.
        """
        positions, numbers, lattice = _f64(positions), _i64(numbers), np.array(lattice, dtype=np.float64)
        rows = np.empty((len(positions), s, k))
        done = self._library.reduced_and_rows(
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
        positions, numbers, lattice = _f64(positions), _i64(numbers), _f64(lattice)
        leading, vector = np.empty(4), np.empty(2 * s * s * k + 2 * s, dtype=np.float32)
        moments = None if moments is None else _f64(moments)
        done = self._library.fingerprint(
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
        numbers_x, numbers_y = (_i64(z) for z in numbers)
        rows_x, rows_y = (_f64(r) for r in rows)
        moments_x, moments_y = (_f64(m) for m in moments)
        pairs = np.empty((len(rows_x), len(rows_y)), dtype=np.bool_)
        complete = self._library.compatible_sites(
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
        low, high = (_f64(bound) for bound in bounds)
        one, allowed = _f64(one), _f64(allowed)
        rows = np.empty(len(vectors), dtype=np.int64)
        found = self._library.search(
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
        source, target = _f64(source), _f64(target)
        d, room = len(source), _ROOM
        while True:
            out = np.empty((room, d, 3))
            found = self._library.lattice_maps(source.ctypes.data, target.ctypes.data, d, strain, room, out.ctypes.data)
            if found >= 0:
                return out[:found]
            if found == _TOO_MANY:
                return None
            room *= 8

    def gate(self, one: Packed, others: Sequence[Packed], *, displacement: float, strain: float) -> NDArray[np.bool_]:
        """(m,): which of m structures have, for every site of one, a site with the same surroundings, and conversely.

        A test that :meth:`place` makes too, a little less strict, for many at once; at their own volume.
        """
        tolerances = _tolerances(displacement, 0.0, strain, None, True, True)
        addresses = np.array([other.address for other in others], dtype=np.uintp)
        keep = np.empty(len(others), dtype=np.bool_)
        self._library.gate(
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
        tolerances = _tolerances(displacement, rms, strain, moment, mirror, every)
        given = None if maps is None else _f64(maps)
        linear, shift, told = np.empty((3, 3)), np.empty(3), np.empty(3)
        sites = np.empty(source.n_sites, dtype=np.int64)
        answer = self._library.place(
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

    def trial(
        self,
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
    ) -> CompiledTrial:
        """Prepare the placements of a pair, see :class:`alflow.structures._placement.Trial`."""
        return CompiledTrial(self._library, x, y, lattice, maps, pairs, copies, order, gate, turned=turned)

    def translations(
        self, whole: Packed, d: int, common: int, rarest: int, tolerance: float, moment: float
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(t, d) translations of a structure onto itself, in units of 1/common, and (t, n) where they carry it."""
        coordinates = np.empty((rarest, d), dtype=np.int64)
        onto = np.empty((rarest, whole.n_sites), dtype=np.int64)
        found = self._library.translations(
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
        points, numbers, sites, site_numbers = _f64(points), _i64(numbers), _f64(sites), _i64(site_numbers)
        lattice, matrix = _f64(lattice), _f64(matrix)
        nearest = np.zeros(len(points), dtype=np.int64)
        longest: float = self._library.nearest_same(
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
        library: ctypes.CDLL,
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
        self._library = library
        self.n_x = len(x)
        ordered = pairs[order]
        partners = np.nonzero(ordered)[1]
        ends = np.zeros(self.n_x + 1, dtype=np.int64)
        np.cumsum(ordered.sum(axis=1), out=ends[1:])
        # kept, for the library holds addresses only
        self._arrays = (
            _f64(x),
            _f64(y),
            _f64(lattice),
            _f64(maps),
            _i64(order),
            ends,
            _i64(partners),
            np.ascontiguousarray(pairs, dtype=np.bool_),
        )
        self._trial = _Trial(
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
