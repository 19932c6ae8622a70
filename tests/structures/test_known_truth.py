"""Families of structures whose number is known from elsewhere: group theory, combinatorics, or how they were made."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.neighborlist import neighbor_list
from ase.spacegroup import crystal

from alflow.structures import DuplicateIndex, DuplicatePolicy, Structure, find_duplicates, find_isometry, fingerprint
from tests.crystals import random_crystal, zoo
from tests.disguises import Disguise, disguise, jiggled, one_moved, one_swapped, strained
from tests.structures.brute_force import excess
from tests.structures.derivative import (
    Ordering,
    Parent,
    bcc,
    burnside,
    cell_vectors,
    every_ordering,
    fcc,
    hcp,
    hermite,
    orderings,
    simple_cubic,
)
from tests.structures.families import (
    ALIKE_FROM_EVERY_ATOM,
    POLYTYPES,
    closed_steps,
    count_layer_words,
    homometric_sets,
    on_ring,
    stacked,
    stackings,
)

IDENTICAL = DuplicatePolicy.identical()
REDUNDANT = DuplicatePolicy.redundant()
PHASE = DuplicatePolicy.same_phase()
POLICIES = [IDENTICAL, REDUNDANT, PHASE]
RELATIONS = pytest.mark.parametrize("policy", POLICIES, ids=lambda p: str(p.relation))
COPPER_GOLD = (29, 79)


def same_partition(labels: np.ndarray, others: np.ndarray | list[int]) -> bool:
    """True where two labellings make the same groups."""
    others = np.asarray(others)
    return bool(((labels[:, None] == labels[None]) == (others[:, None] == others[None])).all())


def disguised(structures: list[Structure], rng: np.random.Generator, supercell: int = 2) -> list[Structure]:
    """One disguised copy of each."""
    return [Structure.from_atoms(disguise(s.to_atoms(), rng, Disguise(supercell=supercell))) for s in structures]


# -- orderings -------------------------------------------------------------------------------------------------------

#: binary orderings of n = 1, 2, ... cells: of two species, and up to exchange of the two. The second lines of fcc and
#: hcp are those of Hart and Forcade (2008, 2009); the first lines and bcc follow by Burnside's lemma.
COUNTS = {
    "fcc": ([0, 2, 6, 19, 28, 80, 104, 390], [0, 2, 3, 12, 14, 50, 52, 229]),
    "bcc": ([0, 2, 6, 19, 28, 80, 104, 390], [0, 2, 3, 12, 14, 50, 52, 229]),
    "simple cubic": ([0, 3, 6, 24, 28, 104, 104, 491], [0, 3, 3, 15, 14, 65, 52, 291]),
    "hcp": ([1, 10, 50, 270], [1, 7, 30, 163]),
}
PARENTS: dict[str, Callable[[], Parent]] = {"fcc": fcc, "bcc": bcc, "simple cubic": simple_cubic, "hcp": hcp}
LIMITS = {"fcc": 4, "bcc": 4, "simple cubic": 3, "hcp": 2}
FEW = [(name, n) for name, limit in LIMITS.items() for n in range(1, limit + 1)]
MANY = [(name, n) for name, limit in LIMITS.items() for n in range(limit + 1, len(COUNTS[name][0]) + 1)]
TIERS = [*FEW, *(pytest.param(*case, marks=pytest.mark.slow) for case in MANY)]


@pytest.mark.parametrize(("name", "n"), TIERS)
def test_orderings_are_listed_as_published_and_as_burnside_counts_them(name: str, n: int) -> None:
    parent = PARENTS[name]()
    for exchange in (False, True):
        expected = COUNTS[name][exchange][n - 1]
        assert len(orderings(parent, n, exchange=exchange)) == expected
        assert burnside(parent, n, exchange=exchange) == expected


@pytest.mark.parametrize(("name", "n"), TIERS)
def test_the_search_finds_as_many_orderings_as_there_are(name: str, n: int) -> None:
    # every labelling of every superlattice, so that each crystal comes in all its cells, orientations and origins
    parent = PARENTS[name]()
    structures = [parent.structure(ordering, COPPER_GOLD) for ordering in every_ordering(parent, n)]
    plain = sum(COUNTS[name][0][m - 1] for m in range(1, n + 1) if n % m == 0)
    exchanged = sum(COUNTS[name][1][m - 1] for m in range(1, n + 1) if n % m == 0)
    for policy in POLICIES if n < 4 else [PHASE]:
        labels = find_duplicates(structures, policy)
        # copper everywhere and gold everywhere are two crystals, and one up to exchange
        assert len(set(labels)) == plain + 2
        swapped = [
            Structure(cell=s.cell, pbc=s.pbc, numbers=np.where(s.numbers == 29, 79, 29), positions=s.positions)
            for s in structures
        ]
        leaders = np.unique(labels, return_index=True)[1]
        both = find_duplicates([pool[i] for pool in (structures, swapped) for i in leaders], policy)
        pairs = {frozenset(pair) for pair in zip(both[: len(leaders)], both[len(leaders) :], strict=True)}
        assert len(pairs) == exchanged + 1


@RELATIONS
def test_orderings_are_one_group_each_in_any_disguise(policy: DuplicatePolicy) -> None:
    rng = np.random.default_rng(0)
    parents = (fcc(), bcc(3.6 / 2 ** (1 / 3)), hcp(3.6 / 2**0.5))
    structures = [p.structure(o, COPPER_GOLD) for p in parents for n in (1, 2, 3) for o in orderings(p, n)]
    assert len(structures) == 2 * (2 + 6) + 1 + 10 + 50
    labels = find_duplicates([*structures, *disguised(structures, rng)], policy)
    assert same_partition(labels, 2 * list(range(len(structures))))


@pytest.mark.parametrize(
    ("name", "n", "pairs"),
    [
        ("fcc", 4, 0),
        ("hcp", 2, 0),
        ("hcp", 3, 5),
        pytest.param("fcc", 6, 1, marks=pytest.mark.slow),
        pytest.param("bcc", 6, 1, marks=pytest.mark.slow),
        pytest.param("fcc", 7, 2, marks=pytest.mark.slow),
    ],
)
def test_chiral_orderings_are_counted_twice_where_mirror_images_differ(name: str, n: int, pairs: int) -> None:
    parent = PARENTS[name]()
    handed = replace(parent, mirror=False)
    counts = {m: len(orderings(handed, m)) for m in range(1, n + 1) if n % m == 0}
    assert counts[n] == burnside(handed, n) == COUNTS[name][0][n - 1] + pairs
    structures = [handed.structure(o, COPPER_GOLD) for o in every_ordering(handed, n)]
    labels = find_duplicates(structures, DuplicatePolicy.identical(mirror=False))
    assert len(set(labels)) == sum(counts.values()) + 2


def test_the_fingerprint_alone_could_not_tell_all_orderings_apart() -> None:
    # pairs that the fingerprint takes for one: what tells them apart is the comparison itself
    parent = hcp()
    listed = [o for n in (1, 2, 3, 4) for o in orderings(parent, n)]
    structures = [parent.structure(o, COPPER_GOLD) for o in listed]
    prints = [fingerprint(s) for s in structures]
    twins = [
        (i, j)
        for i, j in itertools.combinations(range(len(prints)), 2)
        if prints[i].bucket == prints[j].bucket and np.abs(prints[i].vector - prints[j].vector).max() < 1e-5
    ]
    assert len(twins) >= 10
    for i, j in twins:
        assert parent.canonical(listed[i]) != parent.canonical(listed[j])
        for policy in POLICIES:
            assert find_isometry(structures[i], structures[j], policy) is None


@RELATIONS
def test_single_swaps_are_as_many_groups_as_there_are_classes(policy: DuplicatePolicy) -> None:
    # caesium chloride, 54 atoms: one caesium changes places with each of the chlorines, near to far in four distances
    rng = np.random.default_rng(1)
    parent = bcc(4.1)
    superlattice = hermite(3 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]))
    corner = np.rint(cell_vectors(superlattice) @ parent.lattice / 2.05).astype(int)[:, 0] % 2
    one = int(np.flatnonzero(corner == 0)[0])
    swapped = []
    for other in np.flatnonzero(corner == 1).tolist():
        labels = corner.copy()
        labels[[one, other]] = labels[[other, one]]
        swapped.append(Ordering(superlattice=superlattice, labels=labels[:, None]))
    keys = [parent.canonical(ordering) for ordering in swapped]
    assert (len(keys), len(set(keys))) == (27, 4)
    perfect = Ordering(superlattice=superlattice, labels=corner[:, None])
    assert len(parent.primitive(perfect).labels) == 2
    structures = disguised([parent.structure(o, (55, 17)) for o in (perfect, *swapped)], rng, supercell=1)
    assert same_partition(find_duplicates(structures, policy), [-1, *(sorted(set(keys)).index(key) for key in keys)])


# -- stackings, homometric sets --------------------------------------------------------------------------------------


def test_polytypes_are_counted_alike_as_steps_and_as_layers() -> None:
    for n, count in POLYTYPES.items():
        if n <= 10:
            assert len(stackings(n)) == count
        if n <= 9:
            assert count_layer_words(n) == count


@RELATIONS
def test_every_polytype_is_one_group(policy: DuplicatePolicy) -> None:
    rng = np.random.default_rng(2)
    structures = [Structure.from_atoms(stacked(steps)) for n in range(2, 10) for steps in stackings(n)]
    assert len(structures) == sum(POLYTYPES[n] for n in range(2, 10)) == 22
    labels = find_duplicates([*structures, *disguised(structures, rng)], policy)
    assert same_partition(labels, 2 * list(range(22)))


@pytest.mark.parametrize(("n", "count"), [(6, 1 + 1 + 2), (8, 1 + 1 + 6)])
def test_all_stackings_of_n_layers_are_the_polytypes_whose_period_divides_n(n: int, count: int) -> None:
    # upside down, turned, from another first layer, and as a supercell where the period is shorter
    structures = [stacked(steps) for steps in closed_steps(n)]
    for policy in POLICIES:
        assert len(set(find_duplicates(structures, policy))) == count


@pytest.mark.parametrize("others", [None, "Au"])
def test_homometric_crystals_have_the_same_distances_and_are_told_apart(others: str | None) -> None:
    rng = np.random.default_rng(3)
    groups = [group for n in (8, 10, 13) for group in homometric_sets(n)]
    assert len(groups) == 1 + 3 + 3
    rings = [8] + 3 * [10] + 3 * [13]
    crystals = [[on_ring(marks, n, others=others) for marks in group] for n, group in zip(rings, groups, strict=True)]
    for one, other in crystals:
        for pair in {("Cu", "Cu"), ("Cu", others or "Cu"), (others or "Cu", others or "Cu")}:
            first, second = (
                np.sort(neighbor_list("d", atoms, {pair: 9.0}, self_interaction=False)) for atoms in (one, other)
            )
            np.testing.assert_allclose(first, second, atol=1e-9)
    structures = [Structure.from_atoms(atoms) for pair in crystals for atoms in pair]
    for policy in POLICIES:
        labels = find_duplicates([*structures, *disguised(structures, rng)], policy)
        assert same_partition(labels, 2 * list(range(2 * len(groups))))


def test_homometric_crystals_with_the_same_fingerprint_are_told_apart() -> None:
    crystals = [on_ring(marks, 12, others="Au") for group in homometric_sets(12) for marks in group]
    prints = [fingerprint(Structure.from_atoms(atoms)) for atoms in crystals]
    twins = [k for k in range(0, len(prints), 2) if np.abs(prints[k].vector - prints[k + 1].vector).max() < 1e-5]
    assert twins
    for k in twins:
        for policy in POLICIES:
            assert len(set(find_duplicates(crystals[k : k + 2], policy))) == 2


def test_molecules_with_the_same_distances_from_every_atom_are_told_apart() -> None:
    rng = np.random.default_rng(13)
    for pair in ALIKE_FROM_EVERY_ATOM:
        atoms = [Atoms(f"C{len(points)}", positions=1.5 * np.array(points)) for points in pair]
        one, other = (Structure.from_atoms(a) for a in atoms)
        rows = [sorted(tuple(np.sort(row).round(9)) for row in a.get_all_distances()) for a in atoms]
        assert rows[0] == rows[1]
        np.testing.assert_allclose(fingerprint(one).vector, fingerprint(other).vector, atol=1e-6)
        # nothing was matched wrongly: no turn brings them closer than a third of an angstrom
        assert excess(one, other, PHASE) * PHASE.max_displacement > 1.0 / 3.0
        for policy in POLICIES:
            pool = [disguise(a, rng) for a in atoms for _ in range(3)]
            assert same_partition(find_duplicates(pool, policy), [0, 0, 0, 1, 1, 1])


# -- hands -----------------------------------------------------------------------------------------------------------


def chiral_pairs() -> dict[str, tuple[Atoms, Atoms]]:
    """Structures with their mirror images, which are different by hand only."""
    rng = np.random.default_rng(4)
    methane = molecule("CH4")
    methane.symbols[1:] = ["F", "Cl", "Br", "H"]
    quartz = crystal(
        ["Si", "O"],
        [(0.47, 0, 0), (0.4135, 0.2669, 0.1191)],
        spacegroup=152,
        cellpar=[4.916, 4.916, 5.405, 90, 90, 120],
    )
    helix = Atoms("CuAuOCu", [[0, 0, 0], [1.8, 0, 2], [1.5, 1.9, 4], [-0.4, 1.6, 6]], cell=[9, 9, 8.5], pbc=(0, 0, 1))
    slab = random_crystal(rng, 5, ("Cu", "Au", "O"))
    slab.pbc = (True, True, False)
    hands = {"molecule": methane, "quartz": quartz, "wire": helix, "slab": slab}
    hands["crystal"] = random_crystal(rng, 6, ("Cu", "Au"))
    pairs = {}
    for name, atoms in hands.items():
        image = atoms.copy()
        image.positions[:, 0] *= -1.0
        image.set_cell(image.cell.array * [-1.0, 1.0, 1.0])
        pairs[name] = atoms, image
    return pairs


@pytest.mark.parametrize("name", chiral_pairs())
def test_mirror_images_are_two_groups_by_policy(name: str) -> None:
    rng = np.random.default_rng(5)
    pair = chiral_pairs()[name]
    pool = [disguise(atoms, rng, Disguise(mirror=False)) for atoms in pair for _ in range(3)]
    for policy in POLICIES:
        assert len(set(find_duplicates(pool, policy))) == 1
        handed = policy.model_copy(update={"mirror": False})
        assert same_partition(find_duplicates(pool, handed), [0, 0, 0, 1, 1, 1])


def test_what_is_its_own_mirror_image_stays_one_group() -> None:
    rng = np.random.default_rng(6)
    for policy in POLICIES:
        handed = policy.model_copy(update={"mirror": False})
        for atoms in (bulk("Si"), molecule("C6H6"), stacked((1, 1, -1, 1, -1, -1))):
            assert len(set(find_duplicates([atoms, *(disguise(atoms, rng) for _ in range(5))], handed))) == 1


# -- paths and near misses -------------------------------------------------------------------------------------------


def path(n_frames: int = 60, n_atoms: int = 64) -> list[Atoms]:
    """One atom of many goes along a line in steps of 0.01 Å."""
    rng = np.random.default_rng(7)
    start = jiggled(bulk("Al", cubic=True) * (4, 2, 2), rng, 0.2)
    assert len(start) == n_atoms
    step = rng.normal(size=3)
    frames = []
    for k in range(n_frames):
        frame = start.copy()
        frame.positions[5] += 0.01 * k * step / np.linalg.norm(step)
        frames.append(frame)
    return frames


@pytest.mark.parametrize(
    ("policy", "reach"), [(IDENTICAL, 0), (REDUNDANT, 1), (PHASE, 18)], ids=["identical", "redundant", "same_phase"]
)
def test_a_path_never_merges_end_to_end(policy: DuplicatePolicy, reach: int) -> None:
    # 63/64 of a step are left after the best translation, so a leader reaches as many frames to either side
    rng = np.random.default_rng(8)
    order = rng.permutation(60)
    frames = path()
    labels = np.empty(60, dtype=int)
    labels[order] = find_duplicates([disguise(frames[k], rng, Disguise(supercell=1)) for k in order], policy)
    spans = [int(np.ptp(np.flatnonzero(labels == k))) for k in set(labels)]
    assert max(spans) <= 2 * reach
    assert 60 / (2 * reach + 1) <= len(spans) <= 60 / (reach + 1) + 1
    # incrementally: whatever is kept, nothing kept is within reach of another, everything else is
    index = DuplicateIndex(policy)
    for k in range(60):
        structure = Structure.from_atoms(frames[k])
        if index.find(structure) is None:
            index.add(k, structure)
    assert len(index) == -(-60 // (reach + 1))


def near_misses() -> dict[str, tuple[Atoms, Atoms]]:
    """Pairs that must be neither identical nor redundant."""
    rng = np.random.default_rng(9)
    crystal_64 = bulk("Si", cubic=True) * 2
    alloy_64 = (bulk("Al", cubic=True) * (4, 2, 2)).copy()
    alloy_64.numbers[rng.permutation(64)[:24]] = 28
    ordered = bulk("CsCl", "cesiumchloride", a=4.1) * (4, 4, 2)
    low, high = bulk("Fe", cubic=True), bulk("Fe", cubic=True)
    low.set_initial_magnetic_moments([2.2, -2.2])
    high.set_initial_magnetic_moments([2.2, 2.2])
    quiet, loud = bulk("Fe", cubic=True) * 2, bulk("Fe", cubic=True) * 2
    quiet.set_initial_magnetic_moments(np.full(16, 2.2))
    loud.set_initial_magnetic_moments([2.3, *np.full(15, 2.2)])
    neutral, charged = molecule("NO2"), molecule("NO2")
    charged.info["charge"] = 1.0
    pairs = {
        "swap in an alloy of 64": (alloy_64, one_swapped(alloy_64, rng)),
        "swap in an ordered crystal of 64": (ordered, one_swapped(ordered, rng)),
        "0.1 Å on one atom of 64": (crystal_64, one_moved(crystal_64, rng, 0.1)),
        "0.1 Å on one atom of an alloy of 64": (alloy_64, one_moved(alloy_64, rng, 0.1)),
        "antiferromagnetic": (low, high),
        "one moment of sixteen": (quiet, loud),
        "with moments and without": (high, bulk("Fe")),
        "charge": (neutral, charged),
    }
    for size in (0.005, -0.005):
        for name in ("copper", "perovskite", "salt", "random alloy", "wire"):
            atoms = zoo()[name]
            stretched = atoms.copy()
            axis = int(np.flatnonzero(atoms.pbc)[-1])
            scale = np.ones(3)
            scale[axis] += size
            stretched.set_cell(atoms.cell.array * scale, scale_atoms=True)
            pairs[f"{size:+.1%} along an axis of {name}"] = atoms, stretched
    for name in ("magnesium", "two-dimensional", "rattled silicon"):
        pairs[f"0.5 % strain of {name}"] = zoo()[name], strained(zoo()[name], rng, 0.005)
    return pairs


@pytest.mark.parametrize("name", near_misses())
@pytest.mark.parametrize("policy", [IDENTICAL, REDUNDANT], ids=lambda p: str(p.relation))
def test_near_misses_are_two_groups(name: str, policy: DuplicatePolicy) -> None:
    rng = np.random.default_rng(10)
    pair = near_misses()[name]
    small = Disguise(supercell=1 if len(pair[0]) > 20 else 2)
    pool = [disguise(atoms, rng, small) for atoms in pair for _ in range(2)]
    assert same_partition(find_duplicates(pool, policy), [0, 0, 1, 1])


@pytest.mark.parametrize("size", [0.01, 0.001])
def test_a_deliberate_displacement_is_not_identical(size: float) -> None:
    # what finite displacements are made of: each of them gets a label of its own
    for perfect in (bulk("Si", cubic=True) * 2, bulk("NaCl", "rocksalt", a=5.6, cubic=True), bulk("Mg") * (2, 2, 2)):
        moved = perfect.copy()
        moved.positions[0, 0] += size
        assert same_partition(find_duplicates([perfect, moved], IDENTICAL), [0, 1])
        assert same_partition(find_duplicates([perfect, moved], REDUNDANT), [0, 0])


# -- any order -------------------------------------------------------------------------------------------------------


def mixture(rng: np.random.Generator) -> list[Atoms]:
    """Some of everything, with groups that overlap at the tolerance of each relation."""
    parent = fcc()
    pool = [parent.structure(o, COPPER_GOLD).to_atoms() for n in (2, 3) for o in orderings(parent, n)]
    pool += [stacked(steps) for n in (2, 3, 4, 6) for steps in stackings(n)]
    pool += [on_ring(marks, 8) for marks in homometric_sets(8)[0]]
    pool += [*chiral_pairs()["molecule"], *chiral_pairs()["wire"]]
    pool += [disguise(atoms, rng, Disguise(supercell=2)) for atoms in pool]
    base = random_crystal(rng, 5, ("Cu", "Au"))
    for size in (0.00006, 0.01, 0.05):
        pool += [disguise(jiggled(base, rng, size), rng, Disguise(supercell=1 + k % 2)) for k in range(6)]
    return pool


@RELATIONS
def test_a_batch_is_grouped_alike_in_any_order(policy: DuplicatePolicy) -> None:
    rng = np.random.default_rng(11)
    pool = mixture(rng)
    labels = find_duplicates(pool, policy)
    for _ in range(3):
        order = rng.permutation(len(pool))
        shuffled = np.empty(len(pool), dtype=int)
        shuffled[order] = find_duplicates([pool[i] for i in order], policy)
        assert same_partition(shuffled, labels)


def test_identical_structures_are_grouped_alike_one_by_one_and_in_a_batch() -> None:
    rng = np.random.default_rng(12)
    # without what lies at the tolerance: there, who comes first decides
    pool = mixture(rng)[:-18]
    labels = find_duplicates(pool, IDENTICAL)
    for _ in range(3):
        index = DuplicateIndex(IDENTICAL)
        found = np.empty(len(pool), dtype=int)
        for i in rng.permutation(len(pool)):
            structure = Structure.from_atoms(pool[i])
            match = index.find(structure)
            if match is None:
                index.add(int(i), structure)
            found[i] = i if match is None else match.key
        assert same_partition(found, labels)
