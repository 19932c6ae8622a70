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
    signs = np.array([1.0, -1.0])
    if linear:
        source = _frames(v[one][None], None, np.ones(1))[0]
        goals = _frames(np.repeat(w[first], 2, axis=0), None, np.tile(signs, len(first)))
        return np.asarray(source.T @ goals)
    second = np.flatnonzero(pairs[two] & (np.abs(radii - radius[two]) <= reach))
    between = np.linalg.norm(w[second][None] - w[first][:, None], axis=2)
    i, j = np.nonzero((np.abs(between - gap) <= reach) & (first[:, None] != second[None]))
    i, j = np.repeat(first[i], 2), np.repeat(second[j], 2)
    source = _frames(v[one][None], v[two][None], np.ones(1))[0]
    return np.asarray(source.T @ _frames(w[i], w[j], np.tile(signs, len(i) // 2)))


def _frames(
    first: NDArray[np.float64], second: NDArray[np.float64] | None, sign: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(m, 3, 3) orthonormal rows: along the first vectors, towards the second (any way without), and across."""
    e1 = first / np.linalg.norm(first, axis=1)[:, None]
    if second is None:
        second = np.eye(3)[np.argmin(np.abs(e1), axis=1)]
    e2 = second - np.einsum("mi,mi->m", second, e1)[:, None] * e1
    lengths = np.linalg.norm(e2, axis=1)
    for m in np.flatnonzero(lengths == 0.0):
        e2[m], lengths[m] = unit_normals(e1[m][None])[0], 1.0
    e2 = e2 / lengths[:, None]
    e3 = np.stack([e1[:, k - 2] * e2[:, k - 1] - e1[:, k - 1] * e2[:, k - 2] for k in range(3)], axis=1)
    return np.stack([e1, e2, sign[:, None] * e3], axis=1)
