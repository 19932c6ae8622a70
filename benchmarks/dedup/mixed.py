"""Sets of any size with known truth, made quickly: orderings and rattles of common crystals, a third in disguise.

Which orderings are the same crystal is known from the space group of the crystal without species, see
``tests/structures/derivative.py``; rattled ones are all different, because no isometry undoes 0.15 Å of Gaussian noise
in each coordinate of eight atoms or more.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cache
from math import gcd
from pathlib import Path

import numpy as np
from ase.data import covalent_radii

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from alflow.structures import Structure, atomic_number
from tests.structures.derivative import Ordering, Parent, bcc, fcc, hcp, simple_cubic, superlattices

METALS = "Li Na K Mg Ca Sr Ba Al Ga In Si Ge Sn Ti Zr V Nb Cr Mo Mn Fe Co Ni Cu Zn Pd Ag Pt Au"
ANIONS = "O S F Cl N"
SMALLEST, LARGEST = 8, 20
RATTLE = 0.15


@dataclass(frozen=True, kw_only=True, eq=False)
class Kind:
    """A parent crystal, the bond length that its lattice constant was written for, and which sites hold anions."""

    parent: Parent
    bond: float
    anions: tuple[int, ...] = ()


def _kinds() -> dict[str, Kind]:
    cube, face = np.eye(3), 0.5 * (1.0 - np.eye(3))
    salt = Parent(lattice=5.6 * face, sites=np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), kinds=(0, 1))
    blende = Parent(lattice=5.4 * face, sites=np.array([[0, 0, 0], [0.25, 0.25, 0.25]]), kinds=(0, 1))
    fluorite = Parent(
        lattice=5.4 * face, sites=np.array([[0, 0, 0], [0.25, 0.25, 0.25], [0.75, 0.75, 0.75]]), kinds=(0, 1, 1)
    )
    chloride = Parent(lattice=4.1 * cube, sites=np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), kinds=(0, 1))
    perovskite = Parent(
        lattice=3.9 * cube,
        sites=np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]),
        kinds=(0, 1, 2, 2, 2),
    )
    u = 0.305
    rutile = Parent(
        lattice=4.6 * np.diag([0.64, 1.0, 1.0]),
        sites=np.array(
            [[0, 0, 0], [0.5, 0.5, 0.5], [0, u, u], [0, 1 - u, 1 - u], [0.5, 0.5 + u, 0.5 - u], [0.5, 0.5 - u, 0.5 + u]]
        ),
        kinds=(0, 0, 1, 1, 1, 1),
    )
    return {
        "fcc": Kind(parent=fcc(3.6), bond=2.55),
        "bcc": Kind(parent=bcc(2.9), bond=2.51),
        "hcp": Kind(parent=hcp(2.6), bond=2.6),
        "simple cubic": Kind(parent=simple_cubic(2.7), bond=2.7),
        "rocksalt": Kind(parent=salt, bond=2.8, anions=(1,)),
        "zincblende": Kind(parent=blende, bond=2.34, anions=(1,)),
        "fluorite": Kind(parent=fluorite, bond=2.34, anions=(1, 2)),
        "caesium chloride": Kind(parent=chloride, bond=3.55, anions=(1,)),
        "perovskite": Kind(parent=perovskite, bond=1.95, anions=(2, 3, 4)),
        "rutile": Kind(parent=rutile, bond=1.97, anions=(2, 3, 4, 5)),
    }


KINDS = _kinds()


@cache
def _cells(n: int) -> list[np.ndarray]:
    return superlattices(n)


@dataclass(frozen=True, kw_only=True, eq=False)
class MixedSet:
    """Structures in random order and (n,) class of each."""

    structures: list[Structure]
    truth: np.ndarray


@dataclass(kw_only=True)
class _Draft:
    """Classes while a set is being made; orderings that might coincide are compared at the end."""

    structures: list[Structure] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    doubtful: dict[tuple[object, ...], list[tuple[int, str, Ordering]]] = field(
        default_factory=lambda: defaultdict(list)
    )


def mixed_set(n: int, seed: int, *, composition: tuple[str, ...] | None = None) -> MixedSet:
    """Structures of 8 to 20 atoms, 2 to 5 species; two thirds made independently, one third disguised copies of those.

    Parameters
    ----------
    n
        how many
    seed
        everything follows from it
    composition
        elements of one formula in equal parts on metallic parents; any elements where absent
    """
    rng = np.random.default_rng(seed)
    draft = _Draft()
    while len(draft.structures) < n:
        if draft.structures and rng.random() < 1.0 / 3.0:
            # of the first of a class: copies of copies would grow ever more skewed cells
            first = draft.classes[int(rng.integers(len(draft.structures)))]
            draft.structures.append(fast_disguise(draft.structures[first], rng))
            draft.classes.append(first)
        else:
            _add(draft, rng, composition)
    classes = np.array(draft.classes)
    for group in draft.doubtful.values():
        if len(group) > 1:
            known: dict[tuple[bytes, bytes], int] = {}
            for label, kind, ordering in group:
                earlier = known.setdefault(KINDS[kind].parent.canonical(ordering), label)
                if earlier != label:
                    classes[classes == label] = earlier
    order = rng.permutation(n)
    return MixedSet(structures=[draft.structures[i] for i in order], truth=classes[order])


def _add(draft: _Draft, rng: np.random.Generator, composition: tuple[str, ...] | None) -> None:
    metallic = ("fcc", "bcc", "hcp", "simple cubic")
    kind = str(rng.choice(metallic if composition else list(KINDS)))
    parent, label = KINDS[kind].parent, len(draft.structures)
    d = len(parent.sites)
    n_cells = int(rng.integers(-(-SMALLEST // d), LARGEST // d + 1))
    if composition:
        while (n_cells * d) % len(composition):
            n_cells = int(rng.integers(-(-SMALLEST // d), LARGEST // d + 1))
    forms = _cells(n_cells)
    numbers = _species(rng, KINDS[kind], n_cells, composition)
    ordering = Ordering(superlattice=forms[int(rng.integers(len(forms)))], labels=numbers)
    made = parent.structure(ordering, range(120))
    radius = covalent_radii[numbers].mean()
    scale = 2.0 * radius / KINDS[kind].bond
    positions, cell = made.positions * scale, made.cell * scale
    if rng.random() < 0.5:
        positions = positions + rng.normal(size=positions.shape) * RATTLE
    else:
        counts = Counter(numbers.ravel().tolist())
        units = gcd(*counts.values())
        key = (kind, *sorted((z, count // units) for z, count in counts.items()))
        draft.doubtful[key].append((label, kind, ordering))
    plain = Structure(cell=cell, pbc=made.pbc, numbers=made.numbers, positions=positions)
    draft.structures.append(fast_disguise(plain, rng, supercell=False))
    draft.classes.append(label)


def _species(rng: np.random.Generator, kind: Kind, n_cells: int, composition: tuple[str, ...] | None) -> np.ndarray:
    """(n_cells, d) atomic numbers, every chosen element at least once."""
    d = len(kind.parent.sites)
    if composition:
        numbers = np.repeat([atomic_number(s) for s in composition], n_cells * d // len(composition))
        return np.asarray(rng.permutation(numbers).reshape(n_cells, d))
    numbers = np.zeros((n_cells, d), dtype=np.int64)
    free = [b for b in range(d) if b not in kind.anions]
    numbers[:, list(kind.anions)] = atomic_number(str(rng.choice(ANIONS.split())))
    count = int(rng.integers(1 if kind.anions else 2, 5 if kind.anions else 6))
    places = n_cells * len(free)
    chosen = [atomic_number(s) for s in rng.choice(METALS.split(), size=min(count, places), replace=False)]
    filled = np.concatenate([chosen, rng.choice(chosen, size=places - len(chosen))])
    numbers[:, free] = rng.permutation(filled).reshape(n_cells, len(free))
    return numbers


def fast_disguise(structure: Structure, rng: np.random.Generator, *, supercell: bool = True) -> Structure:
    """A crystal in another cell, orientation, hand, origin and order; sometimes doubled where it stays small."""
    cell, positions, numbers = structure.cell, structure.positions, structure.numbers
    if supercell and 2 * len(numbers) <= LARGEST and rng.random() < 0.5:
        axis = int(rng.integers(3))
        positions = np.concatenate([positions, positions + cell[axis]])
        numbers = np.concatenate([numbers, numbers])
        cell = cell.copy()
        cell[axis] *= 2.0
    matrix = np.eye(3, dtype=np.int64)
    for _ in range(3):
        i, j = rng.permutation(3)[:2]
        matrix[i] += int(rng.integers(-1, 2)) * matrix[j]
    cell = matrix @ cell
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    order = rng.permutation(len(numbers))
    wrapped = positions + rng.integers(-1, 2, size=positions.shape) @ cell + rng.uniform(-5.0, 5.0, size=3)
    return Structure(cell=cell @ turn, pbc=structure.pbc, numbers=numbers[order], positions=(wrapped @ turn)[order])
