"""Sets of structures with known truth, one for each way in which two structures can be the same or almost."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, bcc110, bulk, fcc100, fcc111, hcp0001, molecule, mx2, nanotube
from ase.collections import g2
from ase.spacegroup import crystal

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from alflow.structures import DuplicatePolicy, Structure
from tests.crystals import perovskite, random_crystal
from tests.disguises import Disguise, disguise, jiggled, one_moved, one_swapped
from tests.structures.derivative import Ordering, Parent, bcc, cell_vectors, fcc, hcp, hermite, orderings
from tests.structures.families import ALIKE_FROM_EVERY_ATOM, homometric_sets, on_ring, stacked, stackings

IDENTICAL = DuplicatePolicy.identical()
REDUNDANT = DuplicatePolicy.redundant()
PHASE = DuplicatePolicy.same_phase()
ALL = (IDENTICAL, REDUNDANT, PHASE)
STRICT = (IDENTICAL, REDUNDANT)


@dataclass(frozen=True, kw_only=True, eq=False)
class Stratum:
    """Structures, the (n,) class of each, and the relations for which those classes are the truth.

    ``overlapping`` marks sets in which being alike is no equivalence (a path, noise at the tolerance): the class of a
    structure is then only what it was made from.
    """

    name: str
    structures: list[Structure]
    truth: np.ndarray
    policies: tuple[DuplicatePolicy, ...] = ALL
    overlapping: bool = False


def _stratum(
    name: str,
    bases: list[Atoms],
    rng: np.random.Generator,
    *,
    copies: int = 2,
    supercell: int = 3,
    mirror: bool = True,
    truth: list[int] | None = None,
    policies: tuple[DuplicatePolicy, ...] = ALL,
) -> Stratum:
    """Every base as it is and ``copies`` times in disguise."""
    what = Disguise(supercell=supercell, mirror=mirror)
    classes = list(range(len(bases))) if truth is None else truth
    pool = [(atoms, k) for atoms, k in zip(bases, classes, strict=True)]
    pool += [(disguise(atoms, rng, what), k) for atoms, k in zip(bases, classes, strict=True) for _ in range(copies)]
    order = rng.permutation(len(pool))
    return Stratum(
        name=name,
        structures=[Structure.from_atoms(pool[i][0]) for i in order],
        truth=np.array([pool[i][1] for i in order]),
        policies=policies,
    )


def binary_orderings(rng: np.random.Generator) -> Iterator[Stratum]:
    """All binary orderings of fcc and bcc up to 8 sites, of hcp up to 8 sites; distances as in one alloy."""
    parents: dict[str, tuple[Parent, int]] = {"fcc": (fcc(), 8), "bcc": (bcc(), 8), "hcp": (hcp(), 4)}
    for name, (parent, most) in parents.items():
        crystals = [parent.structure(o, (29, 79)).to_atoms() for n in range(1, most + 1) for o in orderings(parent, n)]
        yield _stratum(f"orderings {name}", crystals, rng, supercell=2)


def polytypes(rng: np.random.Generator) -> Iterator[Stratum]:
    """All close-packed stackings of up to 10 layers."""
    crystals = [stacked(steps) for n in range(2, 11) for steps in stackings(n)]
    yield _stratum("polytypes", crystals, rng, supercell=2)


def swaps(rng: np.random.Generator) -> Iterator[Stratum]:
    """One pair exchanged in ordered and disordered cells of 32 to 64 sites; classes by group theory."""
    face, body = fcc(), bcc(4.1)
    half = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    cube = np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]])
    cells = {
        "L1_2, 32 sites": (face, hermite(2 * cube), "ordered"),
        "fcc alloy, 32 sites": (face, hermite(2 * cube), "random"),
        "caesium chloride, 54 sites": (body, hermite(3 * half), "ordered"),
        "bcc alloy, 64 sites": (body, np.diag([4, 4, 4]), "random"),
    }
    for name, (parent, superlattice, kind) in cells.items():
        n = int(np.prod(np.diag(superlattice)))
        labels = rng.permutation(np.arange(n) % 2)
        if kind == "ordered":
            corners = np.rint(cell_vectors(superlattice) @ parent.lattice / parent.lattice.max()).astype(int)
            labels = corners[:, 0] % 2 if parent is body else (corners % 2 == 0).all(axis=1).astype(int)
        chosen = [Ordering(superlattice=superlattice, labels=labels[:, None])]
        pairs = list(itertools.product(np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)))
        for k in rng.permutation(len(pairs))[:40]:
            swapped = labels.copy()
            swapped[list(pairs[k])] = swapped[list(pairs[k][::-1])]
            chosen.append(Ordering(superlattice=superlattice, labels=swapped[:, None]))
        keys = [parent.canonical(ordering) for ordering in chosen]
        known = sorted(set(keys))
        atoms = [parent.structure(ordering, (55, 17)).to_atoms() for ordering in chosen]
        yield _stratum(f"swaps {name}", atoms, rng, copies=1, supercell=1, truth=[known.index(key) for key in keys])


def close_packed(rng: np.random.Generator) -> Iterator[Stratum]:
    """What has many isometries to try: defects in supercells of fcc and hcp, noisy supercells of the polytypes."""
    half = np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]])
    cells = {"fcc, 108 sites": (fcc(), hermite(3 * half)), "hcp, 96 sites": (hcp(), np.diag([4, 4, 3]))}
    for name, (parent, superlattice) in cells.items():
        n = int(np.prod(np.diag(superlattice)))
        d = len(parent.sites)
        chosen = []
        for count in (0, 1, 1, *[2] * 30):
            labels = np.zeros(n * d, dtype=np.int64)
            labels[rng.permutation(n * d)[:count]] = 1
            chosen.append(Ordering(superlattice=superlattice, labels=labels.reshape(n, d)))
        keys = [parent.canonical(ordering) for ordering in chosen]
        known = sorted(set(keys))
        atoms = [parent.structure(ordering, (29, 79)).to_atoms() for ordering in chosen]
        yield _stratum(f"defects {name}", atoms, rng, copies=1, supercell=1, truth=[known.index(key) for key in keys])
    noisy, classes = [], []
    for k, steps in enumerate(steps for n in range(2, 9) for steps in stackings(n)):
        for _ in range(3):
            large = stacked(steps) * (2, 2, 1)
            large.positions += rng.normal(size=large.positions.shape) * 0.01
            noisy.append(large)
            classes.append(k)
    yield _stratum("polytypes, noisy 2 × 2", noisy, rng, copies=1, supercell=1, truth=classes, policies=(PHASE,))


def homometric(rng: np.random.Generator) -> Iterator[Stratum]:
    """Crystals with the same distances, and molecules with the same distances from every atom."""
    for others in (None, "Au"):
        crystals = [
            on_ring(marks, n, others=others) for n in (8, 10, 12, 13) for g in homometric_sets(n) for marks in g
        ]
        yield _stratum(f"homometric, {'filled' if others else 'empty'} places", crystals, rng)
    molecules = [
        Atoms(f"C{len(points)}", positions=1.5 * np.array(points)) for pair in ALIKE_FROM_EVERY_ATOM for points in pair
    ]
    yield _stratum("homometric molecules", molecules, rng, copies=4)


def dynamics(rng: np.random.Generator) -> Iterator[Stratum]:
    """Frames with thermal displacements of one supercell: all different."""
    cells = {"copper, 32 atoms": bulk("Cu", cubic=True) * 2, "perovskite, 40 atoms": perovskite() * 2}
    for name, perfect in cells.items():
        frames = []
        for size in (0.05, 0.1, 0.15, 0.2):
            for _ in range(40):
                frame = perfect.copy()
                frame.positions += rng.normal(size=frame.positions.shape) * size
                frames.append(frame)
        yield _stratum(f"dynamics {name}", frames, rng, copies=0)
        yield _stratum(f"dynamics {name}, disguised", frames[::4], rng, copies=2, supercell=1)


def slabs(rng: np.random.Generator) -> Iterator[Stratum]:
    """Surfaces, adsorbates on different sites, films; other vacuum, origin, orientation, upside down."""
    made = []
    for builder, symbol, sites in (
        (fcc111, "Cu", ("ontop", "bridge", "fcc", "hcp")),
        (fcc100, "Cu", ("ontop", "bridge", "hollow")),
        (bcc110, "Fe", ("ontop", "longbridge", "shortbridge", "hollow")),
        (hcp0001, "Mg", ("ontop", "bridge", "fcc", "hcp")),
    ):
        made += [builder(symbol, (1, 1, layers), vacuum=6.0) for layers in (2, 3, 4)]
        for site in sites:
            slab = builder(symbol, (2, 2, 3), vacuum=6.0)
            add_adsorbate(slab, "O", 1.4, site)
            made.append(slab)
            high = builder(symbol, (2, 2, 3), vacuum=6.0)
            add_adsorbate(high, "O", 1.8, site)
            made.append(high)
        for _ in range(4):
            alloy = builder(symbol, (2, 2, 3), vacuum=6.0)
            alloy.numbers[rng.permutation(12)[:5]] = 79
            made.append(jiggled(alloy, rng, 0.1))
    made += [mx2("MoS2", vacuum=5.0), mx2("MoS2", kind="1T", vacuum=5.0), mx2("WS2", vacuum=5.0)]
    for atoms in made:
        atoms.pbc = (True, True, False)
    yield _stratum("slabs", made, rng, copies=4)


def wires(rng: np.random.Generator) -> Iterator[Stratum]:
    """Zigzags, helices of both pitches, nanotubes."""
    made = []
    for n, pitch in itertools.product((2, 3, 4, 5, 6), (1.1, 1.3)):
        angles = 2.0 * np.pi * np.arange(n) / n
        points = np.stack([1.6 * np.cos(angles), 1.6 * np.sin(angles), pitch * np.arange(n)], axis=1)
        made.append(Atoms(f"Cu{n}", positions=points, cell=[12, 12, n * pitch], pbc=(False, False, True)))
        mixed = made[-1].copy()
        mixed.numbers[0] = 79
        made.append(mixed)
    for n, m in ((3, 0), (4, 0), (5, 0), (3, 3), (4, 2)):
        tube = nanotube(n, m, length=1, vacuum=4.0)
        tube.pbc = (False, False, True)
        made.append(tube)
    for _ in range(10):
        wire = random_crystal(rng, 6, ("Cu", "Au"))
        wire.pbc = (False, False, True)
        made.append(wire)
    yield _stratum("wires", made, rng, copies=4)


def molecules(rng: np.random.Generator) -> Iterator[Stratum]:
    """The G2 set, symmetric cages and clusters, puckered rings."""
    pool = [g2[name] for name in g2.names]
    yield _stratum("molecules G2", [Atoms(a.numbers, positions=a.positions) for a in pool], rng, copies=3)
    symmetric = [molecule("C60"), molecule("C6H6"), molecule("CH4"), molecule("C2H6"), _octahedral()]
    symmetric += [_icosahedron(1), _icosahedron(2), _cuboctahedron(), _ring(12, "C"), _ring(20, "C")]
    yield _stratum("molecules, symmetric", symmetric, rng, copies=6)
    yield _stratum("molecules, ring conformers", _conformers(), rng, copies=6)


def _octahedral() -> Atoms:
    axes = np.concatenate([np.eye(3), -np.eye(3)])
    return Atoms("SF6", positions=np.concatenate([np.zeros((1, 3)), 1.56 * axes]))


def _icosahedron(shells: int) -> Atoms:
    golden = (1.0 + 5.0**0.5) / 2.0
    corners = [(0.0, s, t * golden) for s, t in itertools.product((1, -1), repeat=2)]
    corners = np.array([np.roll(corner, k) for corner in corners for k in range(3)])
    corners *= 2.5 / np.linalg.norm(corners[0])
    points = np.concatenate([np.zeros((1, 3)), *(k * corners for k in range(1, shells + 1))])
    return Atoms(f"Cu{len(points)}", positions=points)


def _cuboctahedron() -> Atoms:
    corners = [p for p in itertools.product((-1, 0, 1), repeat=3) if sum(map(abs, p)) == 2]
    return Atoms("Cu13", positions=np.concatenate([np.zeros((1, 3)), 2.5 / 2**0.5 * np.array(corners)]))


def _ring(n: int, symbol: str) -> Atoms:
    angles = 2.0 * np.pi * np.arange(n) / n
    radius = 0.7 / np.sin(np.pi / n)
    return Atoms(f"{symbol}{n}", positions=radius * np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1))


def _conformers() -> list[Atoms]:
    """Six-membered rings: chair, envelope, half-chair, boat, twist and one between (Cremer and Pople 1975).

    Two angles on a sphere describe them; at 20° or more from one another they are further apart than any tolerance.
    """
    rings = []
    for theta, phi in ((0, 0), (45, 0), (45, 30), (68, 15), (90, 0), (90, 30)):
        t, p, k = np.deg2rad(theta), np.deg2rad(phi), np.arange(6)
        height = 0.63 * (np.sin(t) * np.cos(p + 2.0 * np.pi * k / 3.0) / 3.0**0.5 + np.cos(t) * (-1.0) ** k / 6.0**0.5)
        flat = _ring(6, "C")
        flat.positions[:, 2] = height
        rings.append(flat)
        marked = flat.copy()
        marked.numbers[0] = 7
        rings.append(marked)
    return rings


def hands(rng: np.random.Generator) -> Iterator[Stratum]:
    """Chiral structures and their mirror images: one class each, or two where the policy says so."""
    methane = molecule("CH4")
    methane.symbols[1:] = ["F", "Cl", "Br", "H"]
    quartz = crystal(
        ["Si", "O"],
        [(0.47, 0, 0), (0.4135, 0.2669, 0.1191)],
        spacegroup=152,
        cellpar=[4.916, 4.916, 5.405, 90, 90, 120],
    )
    helix = Atoms("CuAuOCu", [[0, 0, 0], [1.8, 0, 2], [1.5, 1.9, 4], [-0.4, 1.6, 6]], cell=[9, 9, 8.5], pbc=(0, 0, 1))
    chiral = [methane, quartz, helix, *(random_crystal(rng, n, ("Cu", "Au")) for n in range(4, 14))]
    for periodic in ((1, 1, 0), (0, 0, 1), (0, 0, 0)):
        for _ in range(5):
            atoms = random_crystal(rng, 6, ("Cu", "Au", "O"))
            atoms.pbc = periodic
            chiral.append(atoms)
    images = []
    for atoms in chiral:
        image = atoms.copy()
        image.positions[:, 0] *= -1.0
        image.set_cell(image.cell.array * [-1.0, 1.0, 1.0])
        images.append(image)
    both = [*chiral, *images]
    count = len(chiral)
    yield _stratum("hands, mirror images the same", both, rng, truth=2 * list(range(count)))
    handed = tuple(policy.model_copy(update={"mirror": False}) for policy in ALL)
    yield _stratum("hands, mirror images apart", both, rng, mirror=False, policies=handed)


def paths(rng: np.random.Generator) -> Iterator[Stratum]:
    """Sixty frames in steps of 0.01 Å: no group may span more than twice the tolerance."""
    starts = {
        "6 atoms": random_crystal(rng, 6, ("Cu", "Au")),
        "64 atoms": jiggled(bulk("Al", cubic=True) * (4, 2, 2), rng, 0.2),
    }
    for name, start in starts.items():
        one, all_of_them = rng.normal(size=3), rng.normal(size=(len(start), 3))
        one /= np.linalg.norm(one)
        all_of_them -= all_of_them.mean(axis=0)
        all_of_them /= np.linalg.norm(all_of_them, axis=1).max()
        for way, step in (("one atom moves", one * (np.arange(len(start)) == 0)[:, None]), ("all move", all_of_them)):
            frames = []
            for k in range(60):
                frame = start.copy()
                frame.positions += 0.01 * k * step
                frames.append(Structure.from_atoms(disguise(frame, rng, Disguise(supercell=1))))
            yield Stratum(name=f"path, {name}, {way}", structures=frames, truth=np.arange(60), overlapping=True)


def near_misses(rng: np.random.Generator) -> Iterator[Stratum]:
    """Pairs that are neither identical nor redundant: a swap, 0.1 Å on one atom, 0.5 % strain, another spin state."""
    diamond, aluminium = bulk("Si", cubic=True) * 2, bulk("Al", cubic=True) * (4, 2, 2)
    ordered = bulk("CsCl", "cesiumchloride", a=4.1) * (4, 4, 2)
    pool: list[Atoms] = []
    alloys = []
    for _ in range(10):
        alloy = aluminium.copy()
        alloy.numbers[rng.permutation(64)[:24]] = 28
        alloys.append(alloy)
    pool += [diamond, aluminium, ordered, *alloys, one_swapped(ordered, rng)]
    pool += [one_swapped(alloy, rng) for alloy in alloys]
    pool += [one_moved(atoms, rng, 0.1) for atoms in (diamond, aluminium, ordered, *alloys)]
    yield _stratum("near misses, 64 atoms", pool, rng, supercell=1, policies=STRICT)
    strained_pool = []
    for atoms in (
        bulk("Cu"),
        bulk("Mg"),
        perovskite(),
        bulk("NaCl", "rocksalt", a=5.6),
        random_crystal(rng, 8, ("Cu", "Au")),
    ):
        strained_pool.append(atoms)
        for axis, size in itertools.product(range(3), (0.005, -0.005, 0.01)):
            stretch = np.eye(3)
            stretch[axis, axis] += size
            other = atoms.copy()
            other.set_cell(atoms.cell.array @ stretch, scale_atoms=True)
            strained_pool.append(other)
    # along x, y and z alike where the crystal is cubic, along x and y where it is hexagonal
    same = [0, 1, 2, 3, 1, 2, 3, 1, 2, 3]
    hexagonal = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    truth = []
    for k, pattern in enumerate((same, hexagonal, same, same, list(range(10)))):
        truth += [10 * k + p for p in pattern]
    yield _stratum("near misses, 0.5 % strain", strained_pool, rng, truth=truth, policies=STRICT)
    magnets = []
    iron = bulk("Fe", cubic=True) * 2
    for moments in (
        [2.2] * 16,
        [2.2, -2.2] * 8,
        [2.3] + [2.2] * 15,
        [2.2, 2.2, -2.2, -2.2] * 4,
        [0.0] * 16,
        [2.2, 0.0] * 8,
    ):
        atoms = iron.copy()
        atoms.set_initial_magnetic_moments(moments)
        magnets.append(atoms)
    for charge in (1.0, -1.0, 2.0):
        atoms = iron.copy()
        atoms.info["charge"] = charge
        magnets.append(atoms)
    yield _stratum("near misses, spin and charge", magnets, rng, copies=4, supercell=2, policies=STRICT)
    deliberate = []
    for perfect in (diamond, bulk("NaCl", "rocksalt", a=5.6, cubic=True), bulk("Mg") * (2, 2, 2), alloys[0]):
        for size in (0.0, 0.01, 0.011, 0.02):
            moved = perfect.copy()
            moved.positions[0, 0] += size
            deliberate.append(moved)
    yield _stratum("near misses, 0.01 Å on purpose", deliberate, rng, supercell=1, policies=(IDENTICAL,))


STRATA: dict[str, Callable[[np.random.Generator], Iterator[Stratum]]] = {
    "orderings": binary_orderings,
    "polytypes": polytypes,
    "swaps": swaps,
    "close-packed": close_packed,
    "homometric": homometric,
    "dynamics": dynamics,
    "slabs": slabs,
    "wires": wires,
    "molecules": molecules,
    "hands": hands,
    "paths": paths,
    "near-misses": near_misses,
}
