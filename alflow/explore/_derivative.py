"""Derivative superstructures: every symmetry-distinct ordering of species on a parent lattice, exactly once.

After Hart & Forcade, Phys. Rev. B 77, 224115 (2008), and 80, 014120 (2009) for parents with several sites.
Superlattices are Hermite normal forms, reduced by the point group of the parent; labelings of one superlattice are
compared through the quotient group of its Smith normal form, with duplicates by translation, by symmetry and (where
asked) by exchange of the species removed, and with those dropped that repeat a smaller cell.

Row convention throughout: a superlattice is H A for the rows of A, H integer, and H, U H are the same lattice for every
unimodular U.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alflow.errors import StructureError
from alflow.explore._prototypes import Lattice

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHUNK = 1 << 17
_SYMPREC = 1e-4


@dataclass(frozen=True, kw_only=True, eq=False)
class Parent:
    """A parent lattice with what may sit on its sites.

    Parameters
    ----------
    lattice
        primitive cell (of the lattice together with ``allowed``)
    allowed
        for each site, the labels that may sit on it, ascending
    rotations
        (n_operations, 3, 3) integer, acting on fractional columns
    translations
        (n_operations, 3), fractional
    """

    lattice: Lattice
    allowed: tuple[tuple[int, ...], ...]
    rotations: NDArray[np.int64]
    translations: NDArray[np.float64]

    @classmethod
    def create(cls, lattice: Lattice, allowed: Sequence[Sequence[int]]) -> Parent:
        """Reduce a lattice to its primitive cell and find its symmetry.

        Raises
        ------
        StructureError
            if no symmetry is found (sites that coincide)
        """
        import spglib

        # Older versions answer None instead of raising.
        spglib_error: type[Exception] = getattr(spglib, "SpglibError", ValueError)
        sets = [tuple(sorted(set(labels))) for labels in allowed]
        kinds = sorted(set(sets))
        types = [kinds.index(labels) for labels in sets]
        cell: Any = (lattice.cell, lattice.fractional, types)
        try:
            primitive = spglib.standardize_cell(cell, to_primitive=True, no_idealize=True, symprec=_SYMPREC)
            symmetry = None if primitive is None else spglib.get_symmetry(primitive, symprec=_SYMPREC)
        except spglib_error as error:
            raise StructureError(f"the parent lattice has no symmetry that spglib finds: {error}") from error
        if primitive is None or symmetry is None:
            raise StructureError("the parent lattice has no symmetry that spglib finds; do two of its sites coincide?")
        return cls(
            lattice=Lattice(cell=np.array(primitive[0]), fractional=np.array(primitive[1])),
            allowed=tuple(kinds[t] for t in primitive[2]),
            rotations=np.array(symmetry["rotations"], dtype=np.int64),
            translations=np.array(symmetry["translations"], dtype=np.float64),
        )

    @property
    def n_sites(self) -> int:
        """Number of sites in the primitive cell."""
        return self.lattice.n_sites


@dataclass(frozen=True, kw_only=True, eq=False)
class Orderings:
    """All distinct labelings of one superlattice.

    Parameters
    ----------
    hermite
        (3, 3) Hermite normal form of the superlattice
    cell
        (3, 3), Å, row vectors, reduced to short ones
    fractional
        (n_atoms, 3), in units of ``cell``
    labels
        (n_orderings, n_atoms), which label sits on which site
    """

    hermite: NDArray[np.int64]
    cell: NDArray[np.float64]
    fractional: NDArray[np.float64]
    labels: NDArray[np.int64]


def hermite_normal_forms(n: int) -> NDArray[np.int64]:
    """All superlattices of index ``n``: (n_lattices, 3, 3), upper triangular, 0 ≤ H_ij < H_jj above the diagonal."""
    forms = [
        [[a, i, j], [0, b, k], [0, 0, n // (a * b)]]
        for a in range(1, n + 1)
        if n % a == 0
        for b in range(1, n // a + 1)
        if (n // a) % b == 0
        for i in range(b)
        for j in range(n // (a * b))
        for k in range(n // (a * b))
    ]
    return np.array(forms, dtype=np.int64)


def distinct_superlattices(n: int, rotations: NDArray[np.int64]) -> NDArray[np.int64]:
    """Hermite normal forms of index ``n`` of which none is a rotated copy of another: (n_distinct, 3, 3).

    H and H' are copies where H W = U H' with an integer U, for some rotation W of the parent.
    """
    forms = hermite_normal_forms(n)
    inverses = np.linalg.inv(forms)
    operations = np.unique(rotations.transpose(0, 2, 1), axis=0)
    distinct: list[NDArray[np.int64]] = []
    left = np.arange(len(forms))
    while len(left):
        form = forms[left[0]]
        distinct.append(form)
        units = (form @ operations)[:, None] @ inverses[left][None]
        copies = (np.abs(units - np.rint(units)) < 1e-6).all(axis=(2, 3)).any(axis=0)
        left = left[~copies]
    return np.array(distinct)


def smith_normal_form(matrix: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Diagonal (3,) and right transformation (3, 3) of L M R = D, with L and R unimodular.

    The diagonal is not ordered by division, which nothing here needs.
    z and z' differ by a vector of the lattice M exactly where z R = z' R modulo D.
    """
    size = len(matrix)
    work = [[int(x) for x in row] for row in matrix]
    right = [[int(i == j) for j in range(size)] for i in range(size)]
    for t in range(size):
        while True:
            pivots = [(abs(work[i][j]), i, j) for i in range(t, size) for j in range(t, size) if work[i][j]]
            _, i, j = min(pivots)
            work[t], work[i] = work[i], work[t]
            for row in (*work, *right):
                row[t], row[j] = row[j], row[t]
            for i in range(t + 1, size):
                factor = work[i][t] // work[t][t]
                work[i] = [x - factor * y for x, y in zip(work[i], work[t], strict=True)]
            for j in range(t + 1, size):
                factor = work[t][j] // work[t][t]
                for row in (*work, *right):
                    row[j] -= factor * row[t]
            if not any(work[i][t] for i in range(t + 1, size)) and not any(work[t][t + 1 :]):
                break
    return np.array([abs(work[t][t]) for t in range(size)]), np.array(right)


def enumerate_orderings(parent: Parent, size: int, *, exchange: bool = False) -> Iterator[Orderings]:
    """Every distinct ordering in cells of ``size`` primitive cells that is not also an ordering of a smaller cell.

    Parameters
    ----------
    parent
        lattice and allowed labels
    size
        number of primitive cells
    exchange
        count orderings that differ by exchanging the labels as one; needs the same labels on every site

    Yields
    ------
    Orderings
        one per superlattice that has any, in an order that depends on the arguments alone

    Raises
    ------
    ValueError
        if ``exchange`` is asked for with different labels on different sites
    """
    if exchange and len(set(parent.allowed)) > 1:
        raise ValueError("exchange of the labels needs the same labels on every site")
    for form in distinct_superlattices(size, parent.rotations):
        quotient = _Quotient(parent, form)
        labels = _distinct_labelings(parent, quotient, exchange=exchange)
        if len(labels):
            cell, fractional = quotient.geometry()
            yield Orderings(hermite=form, cell=cell, fractional=fractional, labels=labels)


def count_labelings(parent: Parent, size: int) -> int:
    """Number of labelings that :func:`enumerate_orderings` looks at, before any reduction."""
    per_cell = 1
    for labels in parent.allowed:
        per_cell *= len(labels)
    return int(per_cell**size) * len(distinct_superlattices(size, parent.rotations))


class _Quotient:
    """The sites of a supercell as (site of the parent) × (element of the quotient group), and what permutes them."""

    def __init__(self, parent: Parent, form: NDArray[np.int64]) -> None:
        self.parent = parent
        self.form = form
        self.diagonal, self.right = smith_normal_form(form)
        self.elements = np.stack(np.meshgrid(*[np.arange(d) for d in self.diagonal], indexing="ij"), axis=-1).reshape(
            -1, 3
        )
        self.strides = np.array([self.diagonal[1] * self.diagonal[2], self.diagonal[2], 1])
        # Any integer vector z with z R = g stands for the group element g; R is unimodular, so its inverse is integer.
        self.vectors = np.rint(self.elements @ np.linalg.inv(self.right)).astype(np.int64)

    @property
    def order(self) -> int:
        """Number of primitive cells in the supercell."""
        return len(self.elements)

    def index(self, vectors: NDArray[np.int64]) -> NDArray[np.int64]:
        """Group element of integer vectors (…, 3) in units of the primitive cell."""
        return np.asarray(np.mod(vectors @ self.right, self.diagonal) @ self.strides)

    def translations(self) -> NDArray[np.int64]:
        """Permutations of the sites by the translations other than zero: (order - 1, n_atoms)."""
        shifted = self.index(self.vectors[None] + self.vectors[:, None])[1:]
        offsets = np.arange(self.parent.n_sites)[:, None] * self.order
        return np.asarray((shifted[:, None, :] + offsets).reshape(self.order - 1, self.order * self.parent.n_sites))

    def symmetries(self) -> NDArray[np.int64]:
        """Permutations of the sites by the operations that keep the superlattice: (n, n_atoms), without duplicates."""
        fractional = self.parent.lattice.fractional
        inverse = np.linalg.inv(self.form)
        permutations = []
        for rotation, translation in zip(self.parent.rotations, self.parent.translations, strict=True):
            unit = self.form @ rotation.T @ inverse
            if np.abs(unit - np.rint(unit)).max() > 1e-6:
                continue
            moved = fractional @ rotation.T + translation
            difference = moved[:, None] - fractional[None]
            shift = np.rint(difference)
            target = np.abs(difference - shift).max(axis=2).argmin(axis=1)
            shift = shift[np.arange(len(target)), target].astype(np.int64)
            group = self.index(self.vectors[None] @ rotation.T + shift[:, None])
            permutations.append((target[:, None] * self.order + group).reshape(-1))
        return np.unique(np.array(permutations), axis=0)

    def geometry(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Short cell vectors, Å, and fractional positions of the sites."""
        sites = (self.parent.lattice.fractional[:, None] + self.vectors[None]).reshape(-1, 3)
        cell = short_cell(self.form @ self.parent.lattice.cell)
        fractional = sites @ self.parent.lattice.cell @ np.linalg.inv(cell)
        fractional -= np.floor(fractional + 1e-9)
        return cell, fractional


def short_cell(cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """Short, nearly orthogonal, right-handed vectors of the same lattice.

    Each vector is shortened by integer multiples of the two others until nothing gets shorter, which in three
    dimensions ends at (or, after the last look at the corners, is) a Minkowski-reduced cell.
    """
    cell = np.array(cell, dtype=float)
    steps = np.array([s for s in itertools.product((-1, 0, 1), repeat=2) if any(s)])
    while True:
        order = np.argsort(np.linalg.norm(cell, axis=1), kind="stable")
        cell = cell[order]
        for k in (1, 2, 0):
            others = cell[[i for i in range(3) if i != k]]
            coefficients = np.rint(np.linalg.lstsq(others.T, cell[k], rcond=None)[0])
            candidates = cell[k] - np.vstack([coefficients, coefficients + steps, np.zeros(2)]) @ others
            lengths = np.linalg.norm(candidates, axis=1)
            if lengths.min() < np.linalg.norm(cell[k]) * (1 - 1e-9):
                cell[k] = candidates[int(lengths.argmin())]
                break
        else:
            return cell if np.linalg.det(cell) > 0 else -cell


def _distinct_labelings(parent: Parent, quotient: _Quotient, *, exchange: bool) -> NDArray[np.int64]:
    """The labelings of one superlattice that are the smallest of their orbit: (n, n_atoms)."""
    allowed = [labels for labels in parent.allowed for _ in range(quotient.order)]
    n_atoms, n_labels = len(allowed), 1 + max(max(labels) for labels in allowed)
    # As a number in base n_labels a labeling is compared with its images; 62 bits are enough for 39 binary sites.
    if n_atoms * np.log2(max(n_labels, 2)) > 62:
        raise StructureError(f"{n_atoms} sites with {n_labels} species are too many to enumerate; lower max_atoms")
    weights = n_labels ** np.arange(n_atoms - 1, -1, -1, dtype=np.int64)
    translations, symmetries = quotient.translations(), quotient.symmetries()
    group = np.concatenate([symmetries, *(symmetries[:, t] for t in translations)])
    group = np.unique(group, axis=0)
    relabelings = list(itertools.permutations(range(n_labels))) if exchange else [tuple(range(n_labels))]
    kept = []
    for labels in _all_labelings(allowed):
        own = labels @ weights
        for permutation in translations:  # equal to its own translation: a smaller cell already has it
            stays = labels[:, permutation] @ weights != own
            labels, own = labels[stays], own[stays]
        for relabeling in relabelings:
            names = np.array(relabeling)
            for permutation in group:
                stays = names[labels[:, permutation]] @ weights >= own
                labels, own = labels[stays], own[stays]
        kept.append(labels)
    return np.concatenate(kept)


def _all_labelings(allowed: Sequence[tuple[int, ...]]) -> Iterator[NDArray[np.int64]]:
    """Every choice of a label per site, in chunks of (n, n_atoms)."""
    counts = np.array([len(labels) for labels in allowed], dtype=np.int64)
    total = int(np.prod(counts.astype(object)))
    table = np.zeros((len(allowed), counts.max()), dtype=np.int64)
    for site, labels in enumerate(allowed):
        table[site, : len(labels)] = labels
    for start in range(0, total, _CHUNK):
        codes = np.arange(start, min(start + _CHUNK, total), dtype=np.int64)
        digits = np.empty((len(codes), len(allowed)), dtype=np.int64)
        for site in range(len(allowed) - 1, -1, -1):
            codes, digits[:, site] = np.divmod(codes, counts[site])
        yield table[np.arange(len(allowed)), digits]
