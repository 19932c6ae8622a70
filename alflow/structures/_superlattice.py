"""Common supercells of two crystals of which neither contains the other, such as a 2 × 1 and a 3 × 1 cell."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from alflow.structures._lattice import hermite_basis, integer_grid, inverse_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alflow.structures._motif import Motif

_MAX_SITES = 1500


@dataclass(frozen=True, kw_only=True, eq=False)
class CommonCell:
    """Both partners repeated to the same cell, and the (3, 3) row map that carries one cell onto the other."""

    source: Motif
    target: Motif
    linear: NDArray[np.float64]


def common_cell(
    source: Motif, target: Motif, linear: NDArray[np.float64], base: NDArray[np.float64], unit: float
) -> CommonCell | None:
    """Repeat two motifs to their smallest common cell under a given map.

    Parameters
    ----------
    source, target
        motifs whose lattices, after ``linear``, are sublattices of one lattice
    linear
        (3, 3), row map from the source to the target
    base
        (d, 3), Å, that finest lattice, in the frame of the target
    unit
        scale of the source; the target is scaled by its inverse

    Returns
    -------
    None where the common cell would hold too many sites or would not be a cell of both
    """
    fine = inverse_of(base)
    first = np.rint(source.lattice * unit @ linear @ fine).astype(np.int64)
    second = np.rint(target.lattice / unit @ fine).astype(np.int64)
    index_a, index_b = _index(first), _index(second)
    if not index_a or not index_b:
        return None
    common = intersection(first, second)
    if source.n_sites * (_index(common) // index_a) > _MAX_SITES:
        return None
    one = repeated(source, np.rint(common @ np.linalg.inv(first)).astype(np.int64))
    two = repeated(target, np.rint(common @ np.linalg.inv(second)).astype(np.int64))
    if one.n_sites != two.n_sites:
        return None
    # the lattice of the common cell fixes the map better than the averaged cells did
    rows = one.lattice * unit
    inside = inverse_of(rows)
    exact = inside @ (two.lattice / unit) + (np.eye(3) - inside @ rows) @ linear
    return CommonCell(source=one, target=two, linear=exact)


def _index(rows: NDArray[np.int64]) -> int:
    return abs(round(float(np.linalg.det(rows))))


def intersection(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """(d, d) basis of the integer vectors that lie in both sublattices: the dual of the sum of the duals."""
    scale = _index(first) * _index(second)
    duals = [np.rint(scale * np.linalg.inv(rows).T).astype(np.int64) for rows in (first, second)]
    return np.asarray(np.rint(scale * np.linalg.inv(hermite_basis(np.concatenate(duals))).T), dtype=np.int64)


def repeated(motif: Motif, matrix: NDArray[np.int64]) -> Motif:
    """The motif of the supercell ``matrix @ lattice``."""
    sizes = np.abs(np.diag(hermite_basis(matrix)))
    grid = integer_grid(sizes - 1)
    cells = grid[(grid >= 0).all(axis=1)]
    shifts = cells @ motif.lattice
    n = len(shifts)
    return replace(
        motif,
        lattice=matrix @ motif.lattice,
        numbers=np.tile(motif.numbers, n),
        positions=(motif.positions[None] + shifts[:, None]).reshape(-1, 3),
        moments=None if motif.moments is None else np.tile(motif.moments, (n, *([1] * (motif.moments.ndim - 1)))),
        rows=np.tile(motif.rows, (n, 1)),
        lengths=np.tile(motif.lengths, n),
    )
