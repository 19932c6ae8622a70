"""Orderings of species on a parent crystal, listed by group theory and counted a second time by Burnside's lemma.

A derivative superstructure of index n is a superlattice (one matrix in Hermite normal form for each) with a labelling
of its sites that has no shorter period. Two are the same crystal when an operation of the parent's space group carries
one onto the other (Hart and Forcade, Phys. Rev. B 77, 224115 (2008); Phys. Rev. B 80, 014120 (2009)). Nothing here
looks at a distance between atoms: the counts are an independent reference for a search that does nothing else.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from alflow.structures import Structure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Operation:
    """Carries site b of cell n onto site ``sites[b]`` of cell ``n @ rotation + shifts[b]``."""

    rotation: NDArray[np.int64]
    sites: NDArray[np.int64]
    shifts: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Ordering:
    """Labels (n, d) of the d sites in each of the n cells of a superlattice (3, 3)."""

    superlattice: NDArray[np.int64]
    labels: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Parent:
    """A crystal before species are chosen.

    Parameters
    ----------
    lattice
        (3, 3), Å, reduced primitive rows
    sites
        (d, 3), fractional
    kinds
        (d,), sites of different kinds are never exchanged by an operation
    mirror
        False: only proper rotations count as operations, so that mirror images are two crystals
    """

    lattice: NDArray[np.float64]
    sites: NDArray[np.float64]
    kinds: tuple[int, ...]
    mirror: bool = True

    @cached_property
    def operations(self) -> list[Operation]:
        """The space group modulo lattice translations."""
        gram = self.lattice @ self.lattice.T
        entries = np.array(list(itertools.product((-1, 0, 1), repeat=9))).reshape(-1, 3, 3)
        turned = entries @ gram @ entries.transpose(0, 2, 1)
        rotations = entries[np.abs(turned - gram).max(axis=(1, 2)) < 1e-8 * gram.max()]
        if not self.mirror:
            rotations = rotations[np.linalg.det(rotations) > 0]
        found = []
        for rotation in rotations:
            for target in self.sites:
                moved = self.sites @ rotation + (target - self.sites[0] @ rotation)
                gaps = moved[:, None] - self.sites[None]
                shifts = np.rint(gaps).astype(np.int64)
                hits = (np.abs(gaps - shifts).max(axis=2) < 1e-6) & (
                    np.array(self.kinds)[:, None] == np.array(self.kinds)[None]
                )
                if hits.any(axis=1).all():
                    sites = hits.argmax(axis=1)
                    found.append(Operation(rotation=rotation, sites=sites, shifts=shifts[np.arange(len(sites)), sites]))
        return found

    def structure(self, ordering: Ordering, species: Sequence[int]) -> Structure:
        """The crystal with atomic number ``species[label]`` on every site."""
        cells = cell_vectors(ordering.superlattice)
        positions = (cells[:, None] + self.sites[None]).reshape(-1, 3) @ self.lattice
        return Structure(
            cell=ordering.superlattice @ self.lattice,
            pbc=np.ones(3, dtype=bool),
            numbers=np.asarray(species)[ordering.labels.ravel()],
            positions=positions,
        )

    def permutations(self, operation: Operation, superlattice: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n, n d): where every site goes under an operation followed by each translation of the cells.

        Sites count as ``cell * d + b``; the images are counted in the image of the superlattice.
        """
        image = hermite(superlattice @ operation.rotation)
        cells = cell_vectors(superlattice)
        moved = (cells @ operation.rotation)[:, None] + operation.shifts[None]
        steps = cell_vectors(image)
        index = cell_index(moved[None] + steps[:, None, None], image)
        return (index * len(self.sites) + operation.sites).reshape(len(steps), -1)

    def canonical(self, ordering: Ordering) -> tuple[bytes, bytes]:
        """The same key for every ordering that is the same crystal."""
        ordering = self.primitive(ordering)
        images = [hermite(ordering.superlattice @ operation.rotation) for operation in self.operations]
        least = min(image.tobytes() for image in images)
        best = None
        for operation, image in zip(self.operations, images, strict=True):
            if image.tobytes() == least:
                permutations = self.permutations(operation, ordering.superlattice)
                labels = np.empty_like(permutations)
                np.put_along_axis(labels, permutations, ordering.labels.ravel()[None], axis=1)
                own = min(row.astype(np.uint8).tobytes() for row in labels)
                best = own if best is None else min(best, own)
        assert best is not None
        return least, best

    def primitive(self, ordering: Ordering) -> Ordering:
        """The same crystal with the shortest periods."""
        cells = cell_vectors(ordering.superlattice)
        shifted = cell_index(cells[None] + cells[:, None], ordering.superlattice)
        periods = cells[(ordering.labels[shifted] == ordering.labels[None]).all(axis=(1, 2))]
        if len(periods) == 1:
            return Ordering(superlattice=hermite(ordering.superlattice), labels=ordering.labels)
        fine = hermite(np.concatenate([ordering.superlattice, periods]))
        chosen = cell_index(cell_vectors(fine), ordering.superlattice)
        return Ordering(superlattice=fine, labels=ordering.labels[chosen])


def fcc(a: float = 3.6) -> Parent:
    """Face-centred cubic, one site."""
    return _bravais(0.5 * a * (1.0 - np.eye(3)))


def bcc(a: float = 2.9) -> Parent:
    """Body-centred cubic, one site."""
    return _bravais(0.5 * a * (1.0 - 2.0 * np.eye(3)))


def simple_cubic(a: float = 3.0) -> Parent:
    """Primitive cubic, one site."""
    return _bravais(a * np.eye(3))


def hcp(a: float = 2.6, ratio: float = 1.6) -> Parent:
    """Hexagonal close-packed, two sites."""
    lattice = a * np.array([[1, 0, 0], [0.5, 0.75**0.5, 0], [0, 0, ratio]])
    return Parent(lattice=lattice, sites=np.array([[0, 0, 0], [1 / 3, 1 / 3, 0.5]]), kinds=(0, 0))


def _bravais(lattice: NDArray[np.float64]) -> Parent:
    return Parent(lattice=lattice, sites=np.zeros((1, 3)), kinds=(0,))


# -- superlattices ---------------------------------------------------------------------------------------------------


def superlattices(n: int) -> list[NDArray[np.int64]]:
    """All sublattices of index n, as upper triangular rows in Hermite normal form."""
    found = []
    for a, c, f in itertools.product(range(1, n + 1), repeat=3):
        if a * c * f == n:
            found += [
                np.array([[a, b, d], [0, c, e], [0, 0, f]])
                for b, d, e in itertools.product(range(c), range(f), range(f))
            ]
    return found


def hermite(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """(3, 3) Hermite normal form of the lattice that (m, 3) integer rows span: the same for every basis of it."""
    work = [[int(x) for x in row] for row in rows]
    basis: list[list[int]] = []
    for column in range(3):
        while True:
            live = [row for row in work if row[column]]
            pivot = min(live, key=lambda row: abs(row[column]))
            if len(live) == 1:
                break
            for row in live:
                if row is not pivot:
                    times = row[column] // pivot[column]
                    row[:] = [x - times * y for x, y in zip(row, pivot, strict=True)]
        work.remove(pivot)
        basis.append([x if pivot[column] > 0 else -x for x in pivot])
    for upper, lower in ((1, 2), (0, 1), (0, 2)):
        times = basis[upper][lower] // basis[lower][lower]
        basis[upper] = [x - times * y for x, y in zip(basis[upper], basis[lower], strict=True)]
    return np.array(basis, dtype=np.int64)


def cell_vectors(superlattice: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n, 3) one lattice vector for every cell of the superlattice."""
    sizes = [range(int(size)) for size in np.diag(superlattice)]
    return np.array(list(itertools.product(*sizes)), dtype=np.int64)


def cell_index(vectors: NDArray[np.int64], superlattice: NDArray[np.int64]) -> NDArray[np.int64]:
    """(...) which of :func:`cell_vectors` each lattice vector (..., 3) is equivalent to."""
    rest = np.array(vectors, dtype=np.int64)
    for axis in range(3):
        rest -= (rest[..., axis] // superlattice[axis, axis])[..., None] * superlattice[axis]
    sizes = np.diag(superlattice)
    return np.asarray((rest[..., 0] * sizes[1] + rest[..., 1]) * sizes[2] + rest[..., 2])


# -- listing and counting --------------------------------------------------------------------------------------------


def every_ordering(parent: Parent, n: int) -> list[Ordering]:
    """Every labelling of every superlattice of index n, equivalent ones and those with shorter periods included."""
    size = n * len(parent.sites)
    labels = ((np.arange(2**size)[:, None] >> np.arange(size)) & 1).reshape(-1, n, len(parent.sites))
    return [Ordering(superlattice=s, labels=row) for s in superlattices(n) for row in labels]


def orderings(parent: Parent, n: int, *, exchange: bool = False) -> list[Ordering]:
    """One ordering of two species for every crystal of n cells; up to exchange of the two where asked."""
    d = len(parent.sites)
    seen: set[bytes] = set()
    found = []
    weights = 2 ** np.arange(n * d)
    labels = (np.arange(2 ** (n * d))[:, None] >> np.arange(n * d)) & 1
    for superlattice in superlattices(n):
        if superlattice.tobytes() in seen:
            continue
        codes = np.arange(len(labels))
        least, single = codes.copy(), np.ones(len(codes), dtype=bool)
        for operation in parent.operations:
            image = hermite(superlattice @ operation.rotation)
            seen.add(image.tobytes())
            if not np.array_equal(image, superlattice):
                continue
            trivial = np.array_equal(operation.rotation, np.eye(3)) and not operation.shifts.any()
            for permutation in parent.permutations(operation, superlattice):
                moved = labels @ weights[permutation]
                least = np.minimum(least, moved)
                if exchange:
                    least = np.minimum(least, len(labels) - 1 - moved)
                if trivial and not np.array_equal(permutation, np.arange(n * d)):
                    single &= moved != codes
        single &= (codes > 0) & (codes < len(codes) - 1)
        found += [
            Ordering(superlattice=superlattice, labels=labels[k].reshape(n, d))
            for k in np.flatnonzero((least == codes) & single)
        ]
    return found


def burnside(parent: Parent, n: int, *, exchange: bool = False) -> int:
    """The number of :func:`orderings`, as the mean number of labellings that an operation leaves as they are.

    Labellings with a shorter period are taken out by inclusion and exclusion over all coarser lattices.
    """
    lattices = {m: superlattices(m) for m in range(1, n + 1) if n % m == 0}
    total = 0
    for operation in parent.operations:
        stable = {m: [s for s in lattices[m] if np.array_equal(hermite(s @ operation.rotation), s)] for m in lattices}
        memory: dict[tuple[bytes, int, bool], int] = {}
        lengths = {
            lattice.tobytes(): [cycles(p) for p in parent.permutations(operation, lattice)]
            for some in stable.values()
            for lattice in some
        }

        def fixed(
            superlattice: NDArray[np.int64],
            step: NDArray[np.int64],
            swap: bool,
            stable: dict[int, list[NDArray[np.int64]]] = stable,
            memory: dict[tuple[bytes, int, bool], int] = memory,
            lengths: dict[bytes, list[list[int]]] = lengths,
        ) -> int:
            """Labellings without a shorter period that operation, step and swap together leave as they are."""
            row = int(cell_index(step, superlattice))
            key = (superlattice.tobytes(), row, swap)
            if key not in memory:
                index = int(np.prod(np.diag(superlattice)))
                own = lengths[superlattice.tobytes()][row]
                count = 0 if swap and any(length % 2 for length in own) else 2 ** len(own)
                for m, coarser in stable.items():
                    if m < index and index % m == 0:
                        for other in coarser:
                            if not cell_index(superlattice, other).any():
                                count -= fixed(other, step, swap)
                memory[key] = count
            return memory[key]

        for superlattice in stable[n]:
            for step in cell_vectors(superlattice):
                total += sum(fixed(superlattice, step, swap) for swap in ((False, True) if exchange else (False,)))
    size = len(parent.operations) * n * (2 if exchange else 1)
    assert total % size == 0
    # one species everywhere has no period shorter than one cell, and is no ordering
    everywhere = (1 if exchange else 2) if n == 1 else 0
    return total // size - everywhere


def cycles(permutation: NDArray[np.int64]) -> list[int]:
    """Lengths of the cycles of a permutation."""
    left = set(range(len(permutation)))
    lengths = []
    while left:
        start = k = left.pop()
        length = 1
        while (k := int(permutation[k])) != start:
            left.remove(k)
            length += 1
        lengths.append(length)
    return lengths
