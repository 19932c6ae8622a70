"""Space groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from alflow.structures._structure import Structure


def space_group(structure: Structure, symprec: float = 0.01) -> tuple[int, str]:
    """Number and international symbol of the space group of a crystal.

    Parameters
    ----------
    structure
        moments are not looked at
    symprec
        Å, tolerance of the search

    Returns
    -------
    e.g. ``(225, "Fm-3m")``; ``(0, "")`` for slabs, wires and molecules, and where spglib finds no answer (for instance
    because atoms coincide)
    """
    if structure.n_periodic != 3:
        return 0, ""
    import spglib

    fractional = structure.positions @ np.linalg.inv(structure.cell)
    cell = (structure.cell.tolist(), fractional.tolist(), structure.numbers.tolist())
    dataset = spglib.get_symmetry_dataset(cell, symprec=symprec)
    if dataset is None:
        return 0, ""
    return int(dataset.number), str(dataset.international)
