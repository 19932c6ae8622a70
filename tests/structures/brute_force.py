"""How far two small structures are apart, by trying everything: a second implementation, slow and without shortcuts.

Every lattice map, every assignment of atoms and, where the lattice leaves a rotation open, the least-squares turn of
each. Nothing is shared with the search under test but the definition: displacements are what is left after the best
translation, rotation and homogeneous strain.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
from ase.geometry import minkowski_reduce
from scipy.linalg import eigh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from alflow.structures import DuplicatePolicy, Structure


def excess(a: Structure, b: Structure, policy: DuplicatePolicy) -> float:
    """Smallest displacement over all isometries in units of the policy's tolerances: a match if it is at most 1.

    The larger of (largest displacement / its tolerance) and (root mean square / its tolerance). Both structures have to
    hold the same atoms in cells that are mapped onto each other; moments are not looked at.

    Returns
    -------
    infinity where no map of the lattices keeps within the strain tolerance
    """
    if sorted(a.numbers) != sorted(b.numbers) or a.n_periodic != b.n_periodic:
        return math.inf
    fields = {3: _in_space, 2: _in_space, 1: _on_a_line, 0: _free}[a.n_periodic]
    best = math.inf
    for field in fields(a, b, assignments(a, b), policy):
        field = field - field.mean(axis=1, keepdims=True)
        square = (field**2).sum(axis=2)
        largest = np.sqrt(square.max(axis=1)) / policy.max_displacement
        rms = np.sqrt(square.mean(axis=1)) / policy.rms_displacement
        best = min(best, float(np.maximum(largest, rms).min()))
    return best


def assignments(a: Structure, b: Structure) -> NDArray[np.int64]:
    """(p, n): every way to give each atom of one an atom of the other of its own species."""
    species = sorted(set(a.numbers.tolist()))
    mine = [np.flatnonzero(a.numbers == z) for z in species]
    theirs = [list(itertools.permutations(np.flatnonzero(b.numbers == z))) for z in species]
    rows = []
    for choice in itertools.product(*theirs):
        row = np.empty(len(a.numbers), dtype=np.int64)
        for own, partners in zip(mine, choice, strict=True):
            row[own] = partners
        rows.append(row)
    return np.array(rows)


def lattice_rows(structure: Structure) -> NDArray[np.float64]:
    """(d, 3), Å: reduced rows of the periodic directions."""
    reduced, _ = minkowski_reduce(structure.cell, pbc=structure.pbc)
    return np.asarray(reduced)[structure.pbc]


def lattice_images(
    source: NDArray[np.float64], target: NDArray[np.float64], strain: float
) -> Iterator[NDArray[np.float64]]:
    """(d, 3): where the rows of one lattice may go so that they span the other, within a logarithmic strain."""
    d = len(source)
    integers = np.array(list(itertools.product(range(-2, 3), repeat=d)))
    lengths = np.linalg.norm(integers @ target, axis=1)
    rows = []
    for vector in source:
        length = np.linalg.norm(vector)
        near = (lengths > length * math.exp(-strain) - 1e-9) & (lengths < length * math.exp(strain) + 1e-9)
        rows.append(integers[near])
    metric = source @ source.T
    for choice in itertools.product(*rows):
        matrix = np.array(choice)
        if round(abs(np.linalg.det(matrix))) == 1:
            image = matrix @ target
            squares = eigh(image @ image.T, metric, eigvals_only=True)
            if np.abs(np.log(squares)).max() / 2.0 <= strain + 1e-9:
                yield image


def _in_space(
    a: Structure, b: Structure, partners: NDArray[np.int64], policy: DuplicatePolicy
) -> Iterator[NDArray[np.float64]]:
    """(p, n, 3) displacement fields of crystals and slabs for each map of the lattices."""
    source, target = lattice_rows(a), lattice_rows(b)
    for image in lattice_images(source, target, policy.max_strain):
        for normal in (1.0, -1.0) if len(source) == 2 else (0.0,):
            linear = np.linalg.inv(_with_normal(source, 1.0)) @ _with_normal(image, 1.0)
            if normal < 0.0:
                linear = linear @ _reflection(image)
            if policy.mirror or np.linalg.det(linear) > 0:
                carried = a.positions @ linear
                wanted = b.positions[partners]
                field = carried - carried[0] - (wanted - wanted[:, :1])
                yield field - np.rint(field @ np.linalg.pinv(target)) @ target


def _with_normal(rows: NDArray[np.float64], sign: float) -> NDArray[np.float64]:
    """(3, 3): rows of a lattice, completed by the unit normal of two."""
    if len(rows) == 3:
        return rows
    normal = np.cross(rows[0], rows[1])
    return np.array([*rows, sign * normal / np.linalg.norm(normal)])


def _reflection(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3): reflection in the plane of two rows."""
    normal = _with_normal(rows, 1.0)[2]
    return np.eye(3) - 2.0 * np.outer(normal, normal)


def _on_a_line(
    a: Structure, b: Structure, partners: NDArray[np.int64], policy: DuplicatePolicy
) -> Iterator[NDArray[np.float64]]:
    """(p, n, 3) displacement fields of wires: both directions, with and without a mirror, turned by least squares."""
    source, target = lattice_rows(a)[0], lattice_rows(b)[0]
    period = float(np.linalg.norm(target))
    stretch = period / float(np.linalg.norm(source))
    if abs(math.log(stretch)) > policy.max_strain + 1e-9:
        return
    (x, z), (y, w) = _cylindrical(a, source), _cylindrical(b, target)
    x = x - x.mean()
    goal = y[partners] - y.mean()
    for direction, mirrored in itertools.product((1.0, -1.0), (False, True)):
        # reversing the axis alone mirrors; with a mirrored plane it is a half turn
        if not policy.mirror and (direction < 0.0) != mirrored:
            continue
        along = direction * stretch * (z - z[0]) - (w[partners] - w[partners][:, :1])
        along -= period * np.rint(along / period)
        start = x.conj() if mirrored else x
        overlap = (goal * start.conj()).sum(axis=1)
        turn = np.exp(1j * np.angle(overlap))
        across = turn[:, None] * start - goal
        yield np.stack([across.real, across.imag, along], axis=2)


def _cylindrical(structure: Structure, axis: NDArray[np.float64]) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
    """Positions in the plane across an axis, as complex numbers, and along it; right-handed."""
    along = axis / np.linalg.norm(axis)
    first = np.cross(along, np.eye(3)[int(np.argmin(np.abs(along)))])
    first /= np.linalg.norm(first)
    second = np.cross(along, first)
    return structure.positions @ first + 1j * (structure.positions @ second), structure.positions @ along


def _free(
    a: Structure, b: Structure, partners: NDArray[np.int64], policy: DuplicatePolicy
) -> Iterator[NDArray[np.float64]]:
    """(p, n, 3) displacement fields of molecules, each assignment turned by least squares (Kabsch 1976)."""
    x = a.positions - a.positions.mean(axis=0)
    y = (b.positions - b.positions.mean(axis=0))[partners]
    u, _, vt = np.linalg.svd(np.einsum("ni,pnj->pij", x, y))
    hand = np.linalg.det(u @ vt)
    for sign in (1.0, -1.0) if policy.mirror else (1.0,):
        flip = np.ones((len(partners), 3))
        flip[:, 2] = hand * sign
        turn = (u * flip[:, None, :]) @ vt
        yield x @ turn - y
