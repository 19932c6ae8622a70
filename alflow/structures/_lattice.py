"""Lattices of one, two or three periodic directions: reduction, images, sublattices and maps between lattices."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from alflow.structures.kernels import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROUNDING = 1e-9
_MAX_REDUCTION_STEPS = 1000
_SPACE = 3


def reduced_lattice(lattice: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Short, nearly orthogonal basis of the same lattice, by greedy (Minkowski) reduction.

    Each vector in turn is shortened by the closest lattice vector of the others (Semaev 2001; Nguyen and Stehlé 2009).

    Parameters
    ----------
    lattice
        (d, 3), Å, row vectors, d from 0 to 3

    Returns
    -------
    (d, 3) reduced rows from short to long, and the unimodular (d, d) matrix H with reduced = H @ lattice
    """
    d = len(lattice)
    if d == 0:
        return np.zeros((0, 3)), np.eye(0, dtype=np.int64)
    kernels = compiled()
    return _reduced(lattice) if kernels is None else kernels.reduced_lattice(lattice)


def _reduced(lattice: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    d = len(lattice)
    transform = np.eye(d, dtype=np.int64)
    rows = np.array(lattice, dtype=np.float64)
    for _ in range(_MAX_REDUCTION_STEPS):
        order = np.argsort(np.einsum("ij,ij->i", rows, rows), kind="stable")
        transform, rows = transform[order], rows[order]
        changed = False
        for k in range(1, d):
            near = _closest_combination(rows[:k], rows[k])
            shortened = rows[k] - near @ rows[:k]
            if shortened @ shortened < (rows[k] @ rows[k]) * (1.0 - 1e-10):
                transform[k] -= near @ transform[:k]
                rows = transform @ lattice
                changed = True
                break
        if not changed:
            break
    return transform @ lattice, transform


def _closest_combination(rows: NDArray[np.float64], vector: NDArray[np.float64]) -> NDArray[np.int64]:
    """Integers n minimising |vector - n @ rows| for one or two reduced rows."""
    gram = rows @ rows.T
    base = np.linalg.solve(gram, rows @ vector)
    if len(rows) == 1:
        return np.asarray(np.rint(base), dtype=np.int64)
    floor = np.floor(base)
    corners = floor + np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    rest = vector - corners @ rows
    best = int(np.argmin(np.einsum("ij,ij->i", rest, rest)))
    return np.asarray(corners[best], dtype=np.int64)


def heights(lattice: NDArray[np.float64]) -> NDArray[np.float64]:
    """(d,), Å: spacing of the lattice planes along each row of a (d, 3) lattice."""
    return np.asarray(1.0 / np.linalg.norm(inverse_of(lattice), axis=0)) if len(lattice) else np.zeros(0)


def inverse_of(lattice: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, d), 1/Å: ``x @ inverse`` are the coordinates of x along the rows of a (d, 3) lattice."""
    return np.asarray(np.linalg.inv(lattice) if len(lattice) == _SPACE else np.linalg.pinv(lattice))


def measure(lattice: NDArray[np.float64]) -> float:
    """Length, area or volume of the cell of a (d, 3) lattice; 0 for d = 0."""
    if len(lattice) == _SPACE:
        (ax, ay, az), (bx, by, bz), (cx, cy, cz) = lattice.tolist()
        return float(abs(ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)))
    return math.sqrt(abs(float(np.linalg.det(lattice @ lattice.T)))) if len(lattice) else 0.0


def integer_grid(limits: NDArray[np.int64]) -> NDArray[np.int64]:
    """(m, d) all integer vectors with |n_i| ≤ limits_i."""
    axes = [np.arange(-int(n), int(n) + 1) for n in limits]
    if not axes:
        return np.zeros((1, 0), dtype=np.int64)
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


def lattice_points(lattice: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """(m, 3), Å: every lattice vector up to a length; ``lattice`` must be reduced or the list grows long."""
    if not len(lattice):
        return np.zeros((1, 3))
    limits = np.floor(radius / heights(lattice) + _ROUNDING).astype(np.int64)
    points = integer_grid(limits) @ lattice
    return np.asarray(points[np.einsum("ij,ij->i", points, points) <= radius * radius * (1.0 + _ROUNDING)])


def wrap_small(difference: NDArray[np.float64], lattice: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bring differences (..., 3) near the origin by lattice vectors.

    Exact (the shortest image) wherever the shortest image is shorter than half the smallest height of the cell, which
    is all that a comparison of nearly coinciding points needs.
    """
    if not len(lattice):
        return difference
    return np.asarray(difference - np.rint(difference @ inverse_of(lattice)) @ lattice)


def hermite_basis(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """(d, d) upper triangular basis of the integer lattice that (m, d) rows of full rank span."""
    work = [[int(x) for x in row] for row in rows]
    d = len(work[0])
    basis: list[list[int]] = []
    for column in range(d):
        live = [row for row in work if row[column]]
        rest = [row for row in work if not row[column]]
        while len(live) > 1:
            live.sort(key=lambda row: abs(row[column]))
            pivot = live[0]
            kept = [pivot]
            for row in live[1:]:
                quotient = row[column] // pivot[column]
                smaller = [x - quotient * y for x, y in zip(row, pivot, strict=True)]
                (kept if smaller[column] else rest).append(smaller)
            live = kept
        basis.append(live[0])
        work = [row for row in rest if any(row)]
    return np.array(basis, dtype=np.int64)


def lattice_maps(
    source: NDArray[np.float64], target: NDArray[np.float64], copies: int, strain: float
) -> NDArray[np.float64]:
    """Every linear map that carries one lattice onto a sublattice of index ``copies`` of the other, up to strain.

    Parameters
    ----------
    source, target
        (d, 3), Å, reduced row vectors, d from 1 to 3
    copies
        index of the sublattice, at least 1
    strain
        largest absolute principal logarithmic strain

    Returns
    -------
    (m, d, 3), Å: the images of the rows of ``source`` for each of the m maps
    """
    d = len(source)
    slack = math.exp(strain) * (1.0 + _ROUNDING)
    volume_ratio = measure(source) / (copies * measure(target))
    if abs(math.log(volume_ratio)) > d * strain + _ROUNDING:
        return np.zeros((0, d, 3))
    kernels = compiled()
    found = None if kernels is None else kernels.lattice_maps(source, target, strain)
    if found is not None:
        return found
    chains = _lattice_images(source, target, slack)
    if not len(chains):
        return np.zeros((0, d, 3))
    stretch = principal_stretches(source, chains)
    good = np.abs(np.log(np.maximum(stretch, 1e-300))).max(axis=1) <= strain + _ROUNDING
    return np.asarray(chains[good])


def _lattice_images(source: NDArray[np.float64], target: NDArray[np.float64], slack: float) -> NDArray[np.float64]:
    """(m, d, 3), Å: images of the rows of ``source`` that fit in lengths, sums and differences."""
    d = len(source)
    lengths = np.linalg.norm(source, axis=1)
    points = lattice_points(target, float(lengths.max()) * slack)
    norms = np.linalg.norm(points, axis=1)
    shells = [points[(norms >= length / slack) & (norms <= length * slack)] for length in lengths]
    chains = shells[0][:, None, :]
    for k in range(1, d):
        keep = np.ones((len(chains), len(shells[k])), dtype=bool)
        for j in range(k):
            for sign in (1.0, -1.0):
                wanted = float(np.linalg.norm(source[k] + sign * source[j]))
                found = np.linalg.norm(shells[k][None] + sign * chains[:, j, None], axis=2)
                keep &= (found >= wanted / slack) & (found <= wanted * slack)
        first, second = np.nonzero(keep)
        chains = np.concatenate([chains[first], shells[k][second][:, None, :]], axis=1)
    return np.asarray(chains)


def principal_stretches(source: NDArray[np.float64], images: NDArray[np.float64]) -> NDArray[np.float64]:
    """(m, d): principal stretches of the maps that carry (d, 3) rows onto (m, d, 3) rows, within their spans."""
    triangular = np.linalg.qr(source.T, mode="r")
    in_plane = np.linalg.inv(triangular).T @ images
    return np.asarray(np.linalg.svd(in_plane, compute_uv=False))


def unit_normals(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3 - d, 3): orthonormal directions perpendicular to (d, 3) rows."""
    if not len(rows):
        return np.eye(3)
    return np.asarray(np.linalg.svd(rows)[2][len(rows) :])
