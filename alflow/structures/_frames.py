"""Candidate linear maps between two structures: from their lattices, or from atoms where those leave a turn open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from alflow.structures._lattice import inverse_of, lattice_maps, unit_normals

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alflow.structures._policy import DuplicatePolicy

_POINT = 1e-6
_LINE = 1e-3


def linear_maps(
    source: NDArray[np.float64],
    target: NDArray[np.float64],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    pairs: NDArray[np.bool_],
    copies: int,
    policy: DuplicatePolicy,
) -> NDArray[np.float64]:
    """(m, 3, 3): row maps ``y = x @ map`` among which an isometry must be, up to a small turn; proper ones first.

    Parameters
    ----------
    source, target
        (d, 3), Å, reduced lattices
    x, y
        (n, 3), Å, sites
    pairs
        (n_x, n_y), which sites may correspond
    copies
        cells of the target in a cell of the source
    policy
        strain, displacement, mirror
    """
    d = len(source)
    reach = 2.0 * policy.max_displacement * (1.0 + 2.0 * policy.max_strain) + 1e-9
    if d == 0:
        maps = _molecule_maps(x - x.mean(axis=0), y - y.mean(axis=0), pairs, reach)
    else:
        images = lattice_maps(source, target, copies, policy.max_strain)
        along = inverse_of(source) @ images
        maps = along if d == 3 else _completed(along, source, target, x, y, pairs, reach)
    proper = np.linalg.det(maps) > 0 if len(maps) else np.zeros(0, dtype=bool)
    return np.concatenate([maps[proper], maps[~proper]]) if policy.mirror else maps[proper]


def _completed(
    along: NDArray[np.float64],
    source: NDArray[np.float64],
    target: NDArray[np.float64],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    pairs: NDArray[np.bool_],
    reach: float,
) -> NDArray[np.float64]:
    """Maps of slabs (the normal may turn over) and wires (turns about the axis that carry an atom onto another)."""
    normals_a, normals_b = unit_normals(source), unit_normals(target)
    if len(source) == 2:
        across = [sign * np.outer(normals_a[0], normals_b[0]) for sign in (1.0, -1.0)]
    else:
        p = (x - x.mean(axis=0)) @ normals_a.T
        q = (y - y.mean(axis=0)) @ normals_b.T
        across = [normals_a.T @ turn @ normals_b for turn in _plane_turns(p, q, pairs, reach)]
    if not len(along) or not across:
        return np.zeros((0, 3, 3))
    return (along[:, None] + np.array(across)[None]).reshape(-1, 3, 3)


def _plane_turns(
    p: NDArray[np.float64], q: NDArray[np.float64], pairs: NDArray[np.bool_], reach: float
) -> list[NDArray[np.float64]]:
    """(2, 2) turns and mirrored turns that carry one well-chosen point onto each of its possible partners."""
    radius = np.linalg.norm(p, axis=1)
    if radius.max() < _POINT:
        return [np.eye(2)]
    lead = _lead(radius, pairs)
    angle = np.arctan2(p[lead, 1], p[lead, 0])
    turns = []
    for j in np.flatnonzero(pairs[lead] & (np.abs(np.linalg.norm(q, axis=1) - radius[lead]) <= reach)):
        goal = np.arctan2(q[j, 1], q[j, 0])
        for mirrored in (1.0, -1.0):
            step = goal - mirrored * angle
            cosine, sine = np.cos(step), np.sin(step)
            turns.append(np.diag([1.0, mirrored]) @ np.array([[cosine, sine], [-sine, cosine]]))
    return turns


def _lead(size: NDArray[np.float64], pairs: NDArray[np.bool_]) -> int:
    """Among the points far out (they fix an angle well) the one with the fewest possible partners."""
    far = np.flatnonzero(size >= 0.5 * size.max())
    return int(far[np.argmin(pairs[far].sum(axis=1))])


def _molecule_maps(
    v: NDArray[np.float64], w: NDArray[np.float64], pairs: NDArray[np.bool_], reach: float
) -> NDArray[np.float64]:
    """Orthogonal maps that carry two well-chosen atoms, seen from the centre, onto possible partners."""
    radius = np.linalg.norm(v, axis=1)
    if radius.max() < _POINT:
        return np.eye(3)[None]
    one = _lead(radius, pairs)
    area = np.linalg.norm(np.cross(v[one], v), axis=1)
    linear = area.max() < _LINE * radius.max()
    two = one if linear else _lead(area, pairs)
    radii = np.linalg.norm(w, axis=1)
    gap = float(np.linalg.norm(v[one] - v[two]))
    first = np.flatnonzero(pairs[one] & (np.abs(radii - radius[one]) <= reach))
    second = np.flatnonzero(pairs[two] & (np.abs(radii - radius[two]) <= reach))
    maps: list[NDArray[np.float64]] = []
    for i in first:
        if linear:
            maps.extend(_frame(v[one], None, 1.0).T @ _frame(w[i], None, sign) for sign in (1.0, -1.0))
            continue
        near = second[np.abs(np.linalg.norm(w[second] - w[i], axis=1) - gap) <= reach]
        for j in near[near != i]:
            maps.extend(_frame(v[one], v[two], 1.0).T @ _frame(w[i], w[j], sign) for sign in (1.0, -1.0))
    return np.array(maps) if maps else np.zeros((0, 3, 3))


def _frame(first: NDArray[np.float64], second: NDArray[np.float64] | None, sign: float) -> NDArray[np.float64]:
    """(3, 3) orthonormal rows: along the first vector, towards the second (any way without one), and across."""
    e1 = first / np.linalg.norm(first)
    if second is None:
        second = np.eye(3)[int(np.argmin(np.abs(e1)))]
    e2 = second - (second @ e1) * e1
    length = float(np.linalg.norm(e2))
    e2 = e2 / length if length > 0.0 else unit_normals(e1[None])[0]
    return np.array([e1, e2, sign * np.cross(e1, e2)])
