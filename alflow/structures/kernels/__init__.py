"""The loops of the duplicate search in C++, compiled once on the machine; plain Python where it has no compiler.

The Python beside every call in :mod:`alflow.structures` defines what is computed. Nothing here is needed for a right
result: without a compiler a search takes several times as long.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib.resources import files

import numpy as np

from alflow.native import SWITCH, KernelsUnavailableError, kernels_wanted, load_library
from alflow.structures.kernels._abi import Packed
from alflow.structures.kernels._kernels import CompiledTrial, Found, Kernels

__all__ = ["MOST_SITES", "CompiledTrial", "Found", "Kernels", "Packed", "compiled"]

MOST_SITES = 1500
"""Structures with more sites are left to trees, which loops over pairs cannot beat."""
_CUBE_MAPS = 48

log = logging.getLogger("alflow.structures")


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
