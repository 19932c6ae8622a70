"""How the compiled loops are called: signatures, and structures as they lie in memory; see ``geometry.cpp``."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_POINTER = ctypes.c_void_p
_SIZE = ctypes.c_int64
SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
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


def f64(array: NDArray[Any]) -> NDArray[np.float64]:
    """The same numbers, contiguous."""
    return np.ascontiguousarray(array, dtype=np.float64)


def i64(array: NDArray[Any]) -> NDArray[np.int64]:
    """The same numbers, contiguous."""
    return np.ascontiguousarray(array, dtype=np.int64)


class PartnerFields(ctypes.Structure):
    """``Partner``."""

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


class ToleranceFields(ctypes.Structure):
    """``Policy``."""

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
        arrays = [f64(lattice), f64(positions), f64(rows), f64(lengths)]
        axial = None if moments is None else f64(moments)
        self._arrays = (*arrays, axial, i64(numbers))
        self._partner = PartnerFields(
            len(numbers),
            rows.shape[1],
            len(lattice),
            0 if axial is None else axial.ndim,
            deviation,
            *(None if array is None else array.ctypes.data for array in self._arrays),
        )
        self.address = ctypes.addressof(self._partner)


@cache
def tolerances(
    displacement: float, rms: float, strain: float, moment: float | None, mirror: bool, every: bool
) -> ToleranceFields:
    """Tolerances as they lie in memory, made once."""
    return ToleranceFields(displacement, rms, strain, -1.0 if moment is None else moment, mirror, every)


class TrialFields(ctypes.Structure):
    """``Trial``."""

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
