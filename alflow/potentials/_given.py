"""What callers give: structures, and positions and cells of structures in motion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from alflow.errors import PotentialError, StructureError
from alflow.structures import Structure

if TYPE_CHECKING:
    from numpy.typing import NDArray


def as_structures(given: Sequence[Atoms | Structure]) -> list[Structure]:
    """Structures of a list of structures or ASE atoms.

    Raises
    ------
    PotentialError
        if it is no such list
    StructureError
        if a structure is not finite or otherwise impossible
    """
    if isinstance(given, Atoms | Structure):
        raise PotentialError("give a list of structures, [atoms] for a single one")
    return [_as_structure(one, i) for i, one in enumerate(given)]


def as_positions(positions: Any, structure: Structure) -> NDArray[np.float64]:
    """Positions (n_atoms, 3) of a structure in motion; StructureError for another shape or what is not finite."""
    return _finite(positions, (structure.n_atoms, 3), "positions", structure)


def as_cell(cell: Any, structure: Structure) -> NDArray[np.float64]:
    """Cell (3, 3) of a structure in motion; StructureError for another shape or what is not finite."""
    return _finite(cell, (3, 3), "cell", structure)


def _finite(given: Any, shape: tuple[int, ...], name: str, structure: Structure) -> NDArray[np.float64]:
    array = np.asarray(given, dtype=np.float64)
    if array.shape != shape:
        raise StructureError(f"{structure.formula}: {name} of shape {array.shape}, not {shape}")
    if not np.isfinite(array).all():
        raise StructureError(
            f"{structure.formula}: {name} with numbers that are not finite; in dynamics a shorter timestep helps"
        )
    return array


def _as_structure(one: Any, i: int) -> Structure:
    if isinstance(one, Structure):
        return one
    if not isinstance(one, Atoms):
        raise PotentialError(f"structure {i} is of type {type(one).__name__}: give ase.Atoms or Structure")
    try:
        return Structure.from_atoms(one)
    except StructureError as error:
        raise StructureError(f"structure {i} ({one.get_chemical_formula() or 'no atoms'}): {error}") from error
