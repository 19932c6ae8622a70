"""The lower convex hull of energies over compositions, evaluated for thousands of entries at once.

pymatgen's ``PhaseDiagram`` is the reference (the tests compare with it); it takes a second for a thousand entries, and
a committee needs one hull per member and round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import ConvexHull

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_SAME_COMPOSITION = 1e-9
_RANK = 1e-8
_CHUNK = 2_000_000


def lower_envelope(x: ArrayLike, energy: ArrayLike) -> NDArray[np.int64]:
    """Vertices of the lower convex envelope of a binary, from the smallest x to the largest.

    Andrew's monotone chain (Information Processing Letters 9, 216, 1979); points on a tie line are no vertices.

    Parameters
    ----------
    x
        (n,) fraction of the second element
    energy
        (n,) eV/atom

    Returns
    -------
    vertices
        row numbers; ``numpy.interp(x_new, x[vertices], energy[vertices])`` is the envelope
    """
    xs, es = np.asarray(x, dtype=np.float64), np.asarray(energy, dtype=np.float64)
    vertices: list[int] = []
    for row in np.lexsort((es, xs)):
        if vertices and xs[row] - xs[vertices[-1]] <= _SAME_COMPOSITION:
            continue
        while len(vertices) > 1:
            a, b = vertices[-2], vertices[-1]
            if (xs[b] - xs[a]) * (es[row] - es[a]) - (es[b] - es[a]) * (xs[row] - xs[a]) > 0:
                break
            vertices.pop()
        vertices.append(int(row))
    return np.array(vertices, dtype=np.int64)


def hull_energies(fractions: ArrayLike, energies: ArrayLike) -> NDArray[np.float64]:
    """Energy of the lower convex hull at the composition of every entry, for every member.

    The hull at x is the least energy of a mixture, ``min Σ λ_i e_i`` with ``Σ λ_i x_i = x``, ``λ ≥ 0``. It is the
    maximum over its lower facets of their planes, so that one matrix product evaluates all entries.
    Elements without an entry of their own are no problem: the hull then spans the compositions that are there.

    Parameters
    ----------
    fractions
        (n, n_elements) atomic fractions, rows sum to one
    energies
        (K, n) eV/atom

    Returns
    -------
    hull
        (K, n) eV/atom, nowhere above the entry's own energy
    """
    x, e = np.asarray(fractions, dtype=np.float64), np.atleast_2d(np.asarray(energies, dtype=np.float64))
    if e.shape[1] == 0:
        return e.copy()
    grid = np.rint(x / _SAME_COMPOSITION)
    _, first, inverse = np.unique(grid, axis=0, return_index=True, return_inverse=True)
    inverse = inverse.reshape(-1)
    points = _affine_coordinates(x[first])
    result = np.empty_like(e)
    for member, own in enumerate(e):
        lowest = np.full(len(first), np.inf)
        np.minimum.at(lowest, inverse, own)
        result[member] = np.minimum(_hull_over_points(points, lowest)[inverse], own)
    return result


def _affine_coordinates(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coordinates within the affine span of the compositions, so that missing elements leave no flat direction."""
    centred = points - points.mean(axis=0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    coordinates: NDArray[np.float64] = centred @ axes[sizes > _RANK].T
    return coordinates


def _hull_over_points(points: NDArray[np.float64], energy: NDArray[np.float64]) -> NDArray[np.float64]:
    n, dimension = points.shape
    if dimension == 0:
        return energy
    if dimension == 1:
        vertices = lower_envelope(points[:, 0], energy)
        return np.interp(points[:, 0], points[vertices, 0], energy[vertices])
    # subtracting a plane changes no distance to the hull, and brings energies of -10³ eV/atom to the scale of x
    plane = np.linalg.lstsq(np.column_stack([points, np.ones(n)]), energy, rcond=None)[0]
    rest = energy - points @ plane[:-1] - plane[-1]
    scale = float(np.ptp(rest))
    if scale < 1e-12:
        return energy
    rest = rest / scale
    # one point far above the middle closes the body from above, also where all entries lie in one plane
    lifted = np.vstack([np.column_stack([points, rest]), np.append(points.mean(axis=0), rest.max() + 10.0)])
    equations = np.unique(ConvexHull(lifted).equations, axis=0)
    lower = equations[equations[:, -2] < -_RANK]
    gradients, offsets = -lower[:, :-2] / lower[:, -2:-1], -lower[:, -1] / lower[:, -2]
    hull = np.full(n, -np.inf)
    step = max(1, _CHUNK // len(lower))
    for start in range(0, n, step):
        block = points[start : start + step]
        hull[start : start + step] = (block @ gradients.T + offsets).max(axis=1)
    result: NDArray[np.float64] = np.minimum(hull, rest) * scale + points @ plane[:-1] + plane[-1]
    return result
